//! Limits, which `run`, `create` and `update` share, and kernel parameters.

use capsa_api::types::{HostConfig, RestartPolicy, ThrottleDevice, Ulimit, WeightDevice};

use crate::failure::{Failure, Result};
use crate::flags::Matches;
use crate::flags::values::{parse_decimal, parse_int, parse_size, parse_uint};

/// Names that setrlimit(2) knows.
const RLIMITS: [&str; 16] = [
    "as",
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

/// Kernel parameters that a namespace has its own of.
const SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

pub(super) fn check_sysctl(text: &str) -> Result<(), String> {
    let key = text.split('=').next().unwrap_or_default();
    let known = SYSCTLS.contains(&key) || key.starts_with("net.") || key.starts_with("fs.mqueue.");
    match known && text.contains('=') {
        true => Ok(()),
        false => Err(format!("sysctl '{text}' is not allowed")),
    }
}

pub(super) fn check_ulimit(text: &str) -> Result<(), String> {
    ulimit(text).map(drop)
}

pub(super) fn check_weight_device(text: &str) -> Result<(), String> {
    weight_device(text).map(drop)
}

pub(super) fn check_bps_device(text: &str) -> Result<(), String> {
    throttle(text, bytes_a_second).map(drop)
}

pub(super) fn check_iops_device(text: &str) -> Result<(), String> {
    throttle(text, times_a_second).map(drop)
}

/// Fills in the limits that `update` can change too.
pub(crate) fn fill_changeable(matches: &Matches, host: &mut HostConfig) -> Result<()> {
    let int = |flag| matches.int(flag).unwrap_or(0);
    let size = |flag| matches.size(flag).unwrap_or(0);
    host.blkio_weight = parse_uint(matches.text("blkio-weight").unwrap_or("0"), 65535)
        .ok()
        .and_then(|weight| u16::try_from(weight).ok())
        .unwrap_or(0);
    host.cpu_period = int("cpu-period");
    host.cpu_quota = int("cpu-quota");
    host.cpu_realtime_period = int("cpu-rt-period");
    host.cpu_realtime_runtime = int("cpu-rt-runtime");
    host.cpu_shares = int("cpu-shares");
    host.nano_cpus = matches.text("cpus").and_then(|text| parse_decimal(text).ok()).unwrap_or(0);
    matches.text_or_empty("cpuset-cpus").clone_into(&mut host.cpuset_cpus);
    matches.text_or_empty("cpuset-mems").clone_into(&mut host.cpuset_mems);
    host.memory = size("memory");
    host.memory_reservation = size("memory-reservation");
    host.memory_swap = size("memory-swap");
    host.restart_policy = restart(matches.text_or_empty("restart"))?;
    Ok(())
}

/// Fills in the limits that are fixed at create.
pub(super) fn fill_fixed(matches: &Matches, host: &mut HostConfig) -> Result<()> {
    if let Some(swappiness) = matches.int("memory-swappiness").filter(|s| !(-1..=100).contains(s)) {
        return Err(Failure::said(format!(
            "invalid value: {swappiness}. Valid memory swappiness range is 0-100"
        )));
    }
    host.memory_swappiness = Some(matches.int("memory-swappiness").unwrap_or(-1));
    host.oom_kill_disable = Some(matches.flag("oom-kill-disable"));
    host.oom_score_adj = matches.int("oom-score-adj").unwrap_or(0);
    host.pids_limit = Some(matches.int("pids-limit").unwrap_or(0));
    host.shm_size = matches.size("shm-size").unwrap_or(0);
    matches.text_or_empty("cgroup-parent").clone_into(&mut host.cgroup_parent);
    let each = |flag, rate: Rate| -> Result<Vec<ThrottleDevice>, String> {
        matches.list(flag).into_iter().map(|text| throttle(text, rate)).collect()
    };
    host.blkio_device_read_bps = each("device-read-bps", bytes_a_second)?;
    host.blkio_device_write_bps = each("device-write-bps", bytes_a_second)?;
    host.blkio_device_read_iops = each("device-read-iops", times_a_second)?;
    host.blkio_device_write_iops = each("device-write-iops", times_a_second)?;
    host.blkio_weight_device = matches
        .list("blkio-weight-device")
        .into_iter()
        .map(weight_device)
        .collect::<Result<_, _>>()?;
    host.ulimits = matches.list("ulimit").into_iter().map(ulimit).collect::<Result<_, _>>()?;
    host.ulimits.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(())
}

/// `on-failure:5` and the like.
fn restart(text: &str) -> Result<RestartPolicy> {
    if text.is_empty() {
        return Ok(RestartPolicy::default());
    }
    let (name, count) = text.split_once(':').unwrap_or((text, ""));
    if name.is_empty() {
        return Err(Failure::said(
            "invalid restart policy format: no policy provided before colon",
        ));
    }
    let maximum_retry_count = match count {
        "" => 0,
        count => parse_int(count).map_err(|_| {
            Failure::said("invalid restart policy format: maximum retry count must be an integer")
        })?,
    };
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count })
}

fn ulimit(text: &str) -> Result<Ulimit, String> {
    let invalid = || format!("invalid ulimit argument: {text}");
    let (name, limits) = text.split_once('=').ok_or_else(invalid)?;
    if !RLIMITS.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| parse_int(text);
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard != -1 && (soft > hard || soft == -1) {
        return Err(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        ));
    }
    Ok(Ulimit { name: name.to_owned(), hard, soft })
}

fn weight_device(text: &str) -> Result<WeightDevice, String> {
    let (path, weight) = text.split_once(':').ok_or_else(|| format!("bad format: {text}"))?;
    check_device_path(path, text)?;
    let weight = parse_uint(weight, 1000)
        .ok()
        .filter(|weight| *weight == 0 || *weight >= 10)
        .and_then(|weight| u16::try_from(weight).ok())
        .ok_or_else(|| format!("invalid weight for device: {text}"))?;
    Ok(WeightDevice { path: path.to_owned(), weight })
}

type Rate = fn(&str) -> Option<u64>;

fn bytes_a_second(text: &str) -> Option<u64> {
    parse_size(text).ok().and_then(|size| u64::try_from(size).ok())
}

fn times_a_second(text: &str) -> Option<u64> {
    parse_uint(text, u64::MAX).ok()
}

fn throttle(text: &str, rate: Rate) -> Result<ThrottleDevice, String> {
    let (path, wanted) = text.split_once(':').ok_or_else(|| format!("bad format: {text}"))?;
    check_device_path(path, text)?;
    let rate = rate(wanted).ok_or_else(|| {
        format!("invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb")
    })?;
    Ok(ThrottleDevice { path: path.to_owned(), rate })
}

fn check_device_path(path: &str, text: &str) -> Result<(), String> {
    match path.starts_with("/dev/") {
        true => Ok(()),
        false => Err(format!("bad format for device path: {text}")),
    }
}
