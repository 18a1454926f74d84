//! Limits and devices of a container as the runtime takes them.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use capsa_oci::runtime::{
    BlockIo, Cpu, Device, DeviceRule, Memory, Pids, Resources as OciResources, Rlimit,
};

use super::defaults;
use crate::spec::{ContainerSpec, Resources};
use crate::{Error, Result};

const CPU_PERIOD_US: u64 = 100_000;
const NANO: u64 = 1_000_000_000;

/// cgroup limits and device rules.
pub(crate) fn resources(spec: &ContainerSpec) -> Result<OciResources> {
    let mut rules = vec![defaults::device_rule(spec.security.privileged)];
    for device in &spec.devices {
        for (_, node) in nodes(&device.host_path, &device.container_path)? {
            rules.push(rule(&node, &device.permissions));
        }
    }
    for text in &spec.device_rules {
        rules.push(parse_rule(text)?);
    }
    let mut resources = limits(&spec.resources)?;
    resources.devices = rules;
    Ok(resources)
}

/// Limits alone, also for a live update.
pub(crate) fn limits(asked: &Resources) -> Result<OciResources> {
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let swap = match (asked.memory_swap, asked.memory) {
        (Some(0) | None, Some(memory)) => Some(signed(memory.saturating_mul(2))),
        (swap, _) => swap.filter(|swap| *swap != 0),
    };
    let memory = Memory {
        limit: asked.memory.filter(|bytes| *bytes != 0).map(signed),
        reservation: asked.memory_reservation.filter(|bytes| *bytes != 0).map(signed),
        swap: swap.filter(|_| asked.memory.is_some_and(|bytes| bytes != 0)),
        swappiness: asked.memory_swappiness,
        disable_oom_killer: asked.oom_kill_disable.then_some(true),
        ..Memory::default()
    };
    let (quota, period) = match asked.nano_cpus.filter(|nano| *nano != 0) {
        Some(nano) => {
            (Some(signed(nano.saturating_mul(CPU_PERIOD_US) / NANO)), Some(CPU_PERIOD_US))
        }
        None => (asked.cpu_quota.filter(|q| *q != 0), asked.cpu_period.filter(|p| *p != 0)),
    };
    let cpu = Cpu {
        shares: asked.cpu_shares.filter(|shares| *shares != 0),
        quota,
        period,
        cpus: asked.cpuset_cpus.clone().filter(|text| !text.is_empty()),
        mems: asked.cpuset_mems.clone().filter(|text| !text.is_empty()),
        ..Cpu::default()
    };
    let pids = asked.pids.filter(|limit| *limit != 0).map(|limit| Pids { limit: Some(limit) });
    let weight = asked.blkio_weight.filter(|weight| *weight != 0);
    Ok(OciResources {
        memory: (memory != Memory::default()).then_some(memory),
        cpu: (cpu != Cpu::default()).then_some(cpu),
        pids,
        block_io: weight.map(|weight| BlockIo { weight: Some(weight), ..BlockIo::default() }),
        ..OciResources::default()
    })
}

/// rlimits; -1 is unlimited.
pub(super) fn rlimits(resources: &Resources) -> Result<Vec<Rlimit>> {
    let value = |number: i64| u64::try_from(number).unwrap_or(u64::MAX);
    resources
        .ulimits
        .iter()
        .map(|limit| {
            if limit.hard != -1 && (limit.soft == -1 || limit.soft > limit.hard) {
                return Err(Error::invalid(format!(
                    "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                    limit.soft, limit.hard
                )));
            }
            let kind = format!("RLIMIT_{}", limit.name.to_ascii_uppercase());
            Ok(Rlimit { kind, soft: value(limit.soft), hard: value(limit.hard) })
        })
        .collect()
}

/// Device nodes to make; every one of the host for a privileged container.
pub(super) fn devices(spec: &ContainerSpec) -> Result<Vec<Device>> {
    let mut devices = Vec::new();
    if spec.security.privileged {
        devices.extend(nodes("/dev", "/dev")?.into_iter().map(|(_, node)| node));
    }
    for device in &spec.devices {
        let found = nodes(&device.host_path, &device.container_path)?;
        devices.extend(found.into_iter().map(|(_, node)| node));
    }
    Ok(devices)
}

/// The device at `host`, or those in a directory, under their container paths.
fn nodes(host: &str, container: &str) -> Result<Vec<(String, Device)>> {
    let meta = fs::metadata(host).map_err(|error| {
        Error::invalid(format!(
            "error gathering device information while adding custom device \"{host}\": {error}"
        ))
    })?;
    if !meta.is_dir() {
        let node = node(&meta, container).ok_or_else(|| {
            Error::invalid(format!(
                "error gathering device information while adding custom device \"{host}\": not a device node"
            ))
        })?;
        return Ok(vec![(host.to_owned(), node)]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(host).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let skip =
            matches!(name.to_str(), Some("pts" | "shm" | "fd" | "mqueue" | "console") | None);
        let Ok(meta) = entry.metadata() else { continue };
        let below = |dir: &str| Path::new(dir).join(&name).display().to_string();
        if skip || meta.is_symlink() {
            continue;
        } else if meta.is_dir() {
            found.extend(nodes(&below(host), &below(container))?);
        } else if let Some(node) = node(&meta, &below(container)) {
            found.push((below(host), node));
        }
    }
    Ok(found)
}

fn node(meta: &fs::Metadata, path: &str) -> Option<Device> {
    let kind = match meta.file_type() {
        kind if kind.is_char_device() => "c",
        kind if kind.is_block_device() => "b",
        _ => return None,
    };
    Some(Device {
        kind: kind.to_owned(),
        path: path.to_owned(),
        major: Some(rustix::fs::major(meta.rdev()).into()),
        minor: Some(rustix::fs::minor(meta.rdev()).into()),
        file_mode: Some(meta.mode() & 0o7777),
        uid: Some(meta.uid()),
        gid: Some(meta.gid()),
    })
}

fn rule(node: &Device, access: &str) -> DeviceRule {
    DeviceRule {
        allow: true,
        kind: Some(node.kind.clone()),
        major: node.major,
        minor: node.minor,
        access: Some(if access.is_empty() { "rwm" } else { access }.to_owned()),
    }
}

/// `c 10:200 rwm`, `a *:* rwm`.
fn parse_rule(text: &str) -> Result<DeviceRule> {
    let invalid = || {
        Error::invalid(format!("invalid device cgroup rule format: '{text}'"))
            .with_hint("write it as `c 10:200 rwm`: kind, major:minor (or *), and access")
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let [kind @ ("a" | "b" | "c"), numbers, access] = words.as_slice() else {
        return Err(invalid());
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let number = |text: &str| match text {
        "*" => Ok(None),
        digits => digits.parse().map(Some).map_err(|_| invalid()),
    };
    if access.is_empty() || !access.bytes().all(|b| b"rwm".contains(&b)) {
        return Err(invalid());
    }
    Ok(DeviceRule {
        allow: true,
        kind: Some((*kind).to_owned()),
        major: number(major)?,
        minor: number(minor)?,
        access: Some((*access).to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_become_a_quota_and_swap_defaults_to_twice_the_memory() {
        let asked = Resources {
            memory: Some(100),
            nano_cpus: Some(500_000_000),
            pids: Some(-1),
            ..Resources::default()
        };
        let oci = limits(&asked).unwrap();
        assert_eq!(oci.memory.as_ref().unwrap().swap, Some(200));
        assert_eq!(oci.cpu.unwrap().quota, Some(50_000));
        assert_eq!(oci.pids.unwrap().limit, Some(-1));
        assert_eq!(limits(&Resources::default()).unwrap(), OciResources::default());
    }

    #[test]
    fn device_rules_are_checked() {
        let rule = parse_rule("c 10:* rm").unwrap();
        assert_eq!((rule.major, rule.minor, rule.access.as_deref()), (Some(10), None, Some("rm")));
        for bad in ["", "c 10 rwm", "x 1:2 r", "c 1:2 q", "c a:2 r"] {
            assert!(parse_rule(bad).is_err(), "{bad}");
        }
    }
}
