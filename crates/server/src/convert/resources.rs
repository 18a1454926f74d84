//! Limits, with the ranges Docker checks, and the restart policy.

use capsa_api::types::{HostConfig, RestartPolicy as WirePolicy};
use capsa_engine::spec::{Resources, RestartPolicy, Ulimit};

use crate::error::{ApiError, Result};

const MEMORY_MIN: i64 = 6 << 20;
const NANO: i64 = 1_000_000_000;

/// Reads the limits of a new container; `cpus` is how many the host has.
pub(crate) fn resources(host: &HostConfig, cpus: usize) -> Result<Resources> {
    if host.memory == 0 && host.memory_swap > 0 {
        return bad(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        );
    }
    let mut limits = changes(host, cpus)?;
    if host.memory > 0 && host.memory_swap == 0 {
        limits.memory_swap = host.memory.checked_mul(2);
    }
    Ok(limits)
}

/// Reads the limits of an update, where what is absent stays as it is.
pub(crate) fn changes(host: &HostConfig, cpus: usize) -> Result<Resources> {
    check_memory(host)?;
    check_cpu(host, cpus)?;
    check_cpuset(&host.cpuset_cpus, "cpus")?;
    check_cpuset(&host.cpuset_mems, "mems")?;
    if host.blkio_weight > 0 && !(10..=1000).contains(&host.blkio_weight) {
        return bad("Range of blkio weight is from 10 to 1000");
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return bad(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        ));
    }
    let positive = |value: i64| u64::try_from(value).ok().filter(|v| *v > 0);
    let text = |value: &str| (!value.is_empty()).then(|| value.to_owned());
    Ok(Resources {
        memory: positive(host.memory),
        memory_swap: (host.memory_swap != 0).then_some(host.memory_swap),
        memory_reservation: positive(host.memory_reservation),
        memory_swappiness: host.memory_swappiness.and_then(|v| u64::try_from(v).ok()),
        nano_cpus: positive(host.nano_cpus),
        cpu_shares: positive(host.cpu_shares),
        cpu_period: positive(host.cpu_period),
        cpu_quota: (host.cpu_quota != 0).then_some(host.cpu_quota),
        cpuset_cpus: text(&host.cpuset_cpus),
        cpuset_mems: text(&host.cpuset_mems),
        pids: host.pids_limit.filter(|limit| *limit != 0),
        blkio_weight: (host.blkio_weight > 0).then_some(host.blkio_weight),
        oom_kill_disable: host.oom_kill_disable.unwrap_or(false),
        oom_score_adj: i32::try_from(host.oom_score_adj).ok().filter(|v| *v != 0),
        ulimits: ulimits(host)?,
        cgroup_parent: text(&host.cgroup_parent),
    })
}

/// Reads a restart policy; an empty name is `no`.
pub(crate) fn restart_policy(policy: &WirePolicy) -> Result<RestartPolicy> {
    let count = policy.maximum_retry_count;
    if count < 0 {
        return bad("invalid restart policy: maximum retry count cannot be negative");
    }
    let only_on_failure =
        || bad("invalid restart policy: maximum retry count can only be used with 'on-failure'");
    match policy.name.as_str() {
        "on-failure" => Ok(RestartPolicy::OnFailure(u32::try_from(count).unwrap_or(u32::MAX))),
        "" | "no" | "always" | "unless-stopped" if count != 0 => only_on_failure(),
        "" | "no" => Ok(RestartPolicy::No),
        "always" => Ok(RestartPolicy::Always),
        "unless-stopped" => Ok(RestartPolicy::UnlessStopped),
        other => bad(format!(
            "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', \
             'on-failure', or 'unless-stopped'"
        )),
    }
}

/// Asked for, and not done: each with the reason.
pub(crate) fn ignored(host: &HostConfig) -> Vec<String> {
    let throttled = [
        &host.blkio_device_read_bps,
        &host.blkio_device_write_bps,
        &host.blkio_device_read_iops,
        &host.blkio_device_write_iops,
    ];
    let mut warnings = Vec::new();
    if throttled.iter().any(|devices| !devices.is_empty()) || !host.blkio_weight_device.is_empty() {
        warnings
            .push("Block I/O limits per device are not supported. Limits discarded.".to_owned());
    }
    if host.cpu_realtime_period != 0 || host.cpu_realtime_runtime != 0 {
        warnings.push("CPU real-time limits are not supported. Limits discarded.".to_owned());
    }
    warnings
}

fn check_memory(host: &HostConfig) -> Result<()> {
    let (memory, swap, reservation) = (host.memory, host.memory_swap, host.memory_reservation);
    if memory != 0 && memory < MEMORY_MIN {
        return bad("Minimum memory limit allowed is 6MB");
    }
    if memory > 0 && swap > 0 && swap < memory {
        return bad("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if let Some(swappiness) = host.memory_swappiness.filter(|v| !(-1..=100).contains(v)) {
        return bad(format!("Invalid value: {swappiness}, valid memory swappiness range is 0-100"));
    }
    if reservation != 0 && reservation < MEMORY_MIN {
        return bad("Minimum memory reservation allowed is 6MB");
    }
    if memory > 0 && reservation > 0 && memory < reservation {
        return bad(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        );
    }
    Ok(())
}

fn check_cpu(host: &HostConfig, cpus: usize) -> Result<()> {
    let limit = i64::try_from(cpus).unwrap_or(i64::MAX);
    if host.nano_cpus > 0 && host.cpu_period > 0 {
        return bad("Conflicting options: Nano CPUs and CPU Period cannot both be set");
    }
    if host.nano_cpus > 0 && host.cpu_quota > 0 {
        return bad("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
    }
    if host.nano_cpus < 0 || host.nano_cpus > limit.saturating_mul(NANO) {
        return bad(format!(
            "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        ));
    }
    if host.cpu_shares < 0 {
        return bad(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            host.cpu_shares
        ));
    }
    if host.cpu_period != 0 && !(1000..=1_000_000).contains(&host.cpu_period) {
        return bad(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1000 {
        return bad("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    Ok(())
}

/// `0-2,4`; whether the host has them is the kernel's to say.
fn check_cpuset(text: &str, which: &str) -> Result<()> {
    let number = |t: &str| t.parse::<u32>().ok();
    let range_ok = |part: &str| match part.split_once('-') {
        Some((first, last)) => number(first).zip(number(last)).is_some_and(|(f, l)| f <= l),
        None => number(part).is_some(),
    };
    if text.is_empty() || text.split(',').all(range_ok) {
        Ok(())
    } else {
        bad(format!("Invalid value {text} for cpuset {which}"))
    }
}

fn ulimits(host: &HostConfig) -> Result<Vec<Ulimit>> {
    const NAMES: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    host.ulimits
        .iter()
        .map(|limit| {
            let (soft, hard) = (limit.soft, limit.hard);
            if !NAMES.contains(&limit.name.as_str()) {
                return bad(format!("invalid ulimit type: {}", limit.name));
            }
            if hard != -1 && (soft == -1 || soft > hard) {
                return bad(format!(
                    "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
                ));
            }
            Ok(Ulimit { name: limit.name.clone(), soft, hard })
        })
        .collect()
}

fn bad<T>(message: impl Into<String>) -> Result<T> {
    Err(ApiError::bad_request(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut HostConfig)) -> String {
        let mut host = HostConfig::default();
        change(&mut host);
        resources(&host, 2).unwrap_err().message
    }

    #[test]
    fn limits_outside_dockers_ranges_are_refused() {
        assert_eq!(refusal(|h| h.memory = 1), "Minimum memory limit allowed is 6MB");
        assert!(refusal(|h| h.memory_swap = 1).starts_with("You should always set"));
        assert_eq!(
            refusal(|h| h.nano_cpus = 3 * NANO),
            "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"
        );
        assert!(refusal(|h| (h.nano_cpus, h.cpu_period) = (1, 1000)).contains("Conflicting"));
        assert_eq!(refusal(|h| h.cpuset_cpus = "1-".into()), "Invalid value 1- for cpuset cpus");
        assert!(refusal(|h| h.oom_score_adj = 2000).contains("[-1000, 1000]"));
    }

    #[test]
    fn unset_limits_stay_unset_and_swap_defaults_to_twice_the_memory() {
        let mut host = HostConfig { memory_swappiness: Some(-1), ..HostConfig::default() };
        let none = resources(&host, 2).unwrap();
        assert_eq!(
            (none.memory, none.memory_swap, none.memory_swappiness, none.pids),
            (None, None, None, None)
        );
        host.memory = 64 << 20;
        assert_eq!(resources(&host, 2).unwrap().memory_swap, Some(128 << 20));
        host.memory_swap = -1;
        assert_eq!(resources(&host, 2).unwrap().memory_swap, Some(-1));
    }

    #[test]
    fn restart_policies_are_known_names() {
        let policy = |name: &str, count| {
            restart_policy(&WirePolicy { name: name.into(), maximum_retry_count: count })
        };
        assert_eq!(policy("", 0), Ok(RestartPolicy::No));
        assert_eq!(policy("on-failure", 3), Ok(RestartPolicy::OnFailure(3)));
        assert!(
            policy("always", 3).unwrap_err().message.contains("only be used with 'on-failure'")
        );
        assert!(policy("x", 0).unwrap_err().message.contains("unknown policy 'x'"));
        assert!(policy("on-failure", -1).unwrap_err().message.contains("negative"));
    }
}
