//! Limits as data: which file gets which text, on v1 and on v2. Pure.
//!
//! A spec speaks v1: shares, memory plus swap, blkio weight. The conversions to
//! v2 are those that other OCI runtimes make, so that a limit means the same.

use std::borrow::Cow;

use capsa_oci::runtime::{BlockIo, Cpu, DeviceThrottle, Memory, Resources};

use super::hierarchy::Controller;
use crate::{Error, Result};

/// One write to one file of the container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) controller: Controller,
    pub(super) file: Cow<'static, str>,
    pub(super) value: String,
    /// What to do when the file is not there.
    pub(super) absent: Absent,
}

/// What to do when a file is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Absent {
    /// The limit can't be set: an error.
    Fail,
    /// The limit means nothing then.
    Skip,
    /// The kernel has it under another name and scale.
    Instead(&'static str, String),
}

impl Write {
    fn new(
        controller: Controller,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
    ) -> Self {
        Self { controller, file: file.into(), value: value.to_string(), absent: Absent::Fail }
    }

    fn absent(mut self, absent: Absent) -> Self {
        self.absent = absent;
        self
    }
}

/// The writes that `resources` ask of v1 hierarchies, in the order for a fresh cgroup.
pub(super) fn v1(resources: &Resources) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    if let Some(memory) = &resources.memory {
        v1_memory(memory, &mut writes);
    }
    if let Some(cpu) = &resources.cpu {
        v1_cpu(cpu, &mut writes);
    }
    if let Some(limit) = resources.pids.and_then(|pids| pids.limit) {
        writes.push(Write::new(Controller::Pids, "pids.max", or_max(limit)));
    }
    if let Some(io) = &resources.block_io {
        v1_io(io, &mut writes);
    }
    for page in &resources.hugepage_limits {
        let file = format!("hugetlb.{}.limit_in_bytes", page_size(&page.page_size)?);
        writes.push(Write::new(Controller::Hugetlb, file, page.limit));
    }
    if let Some(network) = &resources.network {
        if let Some(class) = network.class_id {
            writes.push(Write::new(Controller::NetCls, "net_cls.classid", class));
        }
        for one in &network.priorities {
            let value = format!("{} {}", one.name, one.priority);
            writes.push(Write::new(Controller::NetPrio, "net_prio.ifpriomap", value));
        }
    }
    rdma(resources, &mut writes);
    Ok(writes)
}

/// The writes that `resources` ask of the v2 hierarchy, without the `unified` ones.
pub(super) fn v2(resources: &Resources) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    if let Some(memory) = &resources.memory {
        v2_memory(memory, &mut writes)?;
    }
    if let Some(cpu) = &resources.cpu {
        v2_cpu(cpu, &mut writes);
    }
    if let Some(limit) = resources.pids.and_then(|pids| pids.limit) {
        writes.push(Write::new(Controller::Pids, "pids.max", or_max(limit)));
    }
    if let Some(io) = &resources.block_io {
        v2_io(io, &mut writes);
    }
    for page in &resources.hugepage_limits {
        let size = page_size(&page.page_size)?;
        let max = Write::new(Controller::Hugetlb, format!("hugetlb.{size}.max"), page.limit);
        let reserved = format!("hugetlb.{size}.rsvd.max");
        writes.push(max);
        writes.push(Write::new(Controller::Hugetlb, reserved, page.limit).absent(Absent::Skip));
    }
    rdma(resources, &mut writes);
    Ok(writes)
}

/// The `unified` writes, with the controller that each file belongs to (none for `cgroup.*`).
pub(super) fn unified(resources: &Resources) -> Result<Vec<(Option<Controller>, String, String)>> {
    resources
        .unified
        .iter()
        .map(|(file, value)| {
            let prefix = file.split_once('.').map(|(prefix, _)| prefix);
            let known = prefix == Some("cgroup") || prefix.and_then(Controller::parse).is_some();
            if file.contains('/') || !known {
                return Err(Error::invalid(
                    format!("unified resource {file:?}"),
                    "not the name of a cgroup v2 file",
                ));
            }
            Ok((prefix.and_then(Controller::parse), file.clone(), value.clone()))
        })
        .collect()
}

/// Every controller that a limit in `resources` needs, besides those every container has.
pub(super) fn asks_for(resources: &Resources, writes: &[Write]) -> Vec<Controller> {
    let mut wanted: Vec<_> = writes.iter().map(|write| write.controller).collect();
    if resources.network.as_ref().is_some_and(|n| n.class_id.is_some()) {
        wanted.push(Controller::NetCls);
    }
    wanted.sort_unstable();
    wanted.dedup();
    wanted
}

fn v1_memory(memory: &Memory, writes: &mut Vec<Write>) {
    let mut put = |file: &'static str, value: String| {
        writes.push(Write::new(Controller::Memory, file, value));
    };
    let set = |value: Option<i64>| value.filter(|value| *value != 0);
    if let Some(limit) = set(memory.limit) {
        put("memory.limit_in_bytes", limit.to_string());
    }
    // Unlimited memory without a word about swap means unlimited both.
    let swap = set(memory.swap).or((memory.limit == Some(-1)).then_some(-1));
    if let Some(swap) = swap {
        let asked = memory.swap.is_some_and(|swap| swap > 0);
        let absent = if asked { Absent::Fail } else { Absent::Skip };
        writes.push(
            Write::new(Controller::Memory, "memory.memsw.limit_in_bytes", swap).absent(absent),
        );
    }
    let mut put = |file: &'static str, value: String| {
        writes.push(Write::new(Controller::Memory, file, value));
    };
    if let Some(reservation) = set(memory.reservation) {
        put("memory.soft_limit_in_bytes", reservation.to_string());
    }
    if let Some(tcp) = set(memory.kernel_tcp) {
        put("memory.kmem.tcp.limit_in_bytes", tcp.to_string());
    }
    if memory.disable_oom_killer == Some(true) {
        put("memory.oom_control", "1".into());
    }
    // -1, as an unsigned number, is how Docker's clients say "not set".
    if let Some(swappiness) = memory.swappiness.filter(|value| *value <= 100) {
        put("memory.swappiness", swappiness.to_string());
    }
}

fn v2_memory(memory: &Memory, writes: &mut Vec<Write>) -> Result<()> {
    if let Some(limit) = memory.limit.filter(|limit| *limit != 0) {
        writes.push(Write::new(Controller::Memory, "memory.max", or_max(limit)));
    }
    if let Some(swap) = v2_swap(memory)? {
        // Without swap accounting, none and unlimited are what there is anyway.
        let absent = if swap == "max" || swap == "0" { Absent::Skip } else { Absent::Fail };
        writes.push(Write::new(Controller::Memory, "memory.swap.max", swap).absent(absent));
    }
    if let Some(low) = memory.reservation.filter(|low| *low != 0) {
        writes.push(Write::new(Controller::Memory, "memory.low", or_max(low)));
    }
    Ok(())
}

/// v1 limits memory and swap together, v2 swap alone.
fn v2_swap(memory: &Memory) -> Result<Option<String>> {
    let limit = memory.limit.unwrap_or(0);
    let why = match memory.swap.unwrap_or(0) {
        0 if limit == -1 => return Ok(Some("max".into())),
        0 => return Ok(None),
        -1 => return Ok(Some("max".into())),
        swap if swap < 0 => "it is negative",
        _ if limit <= 0 => "swap can only be limited together with memory",
        swap if swap < limit => "memory and swap together can't be less than memory",
        swap => return Ok(Some((swap - limit).to_string())),
    };
    Err(Error::invalid("memory and swap limit", why))
}

fn v1_cpu(cpu: &Cpu, writes: &mut Vec<Write>) {
    let mut put = |file: &'static str, value: Option<String>| {
        if let Some(value) = value {
            writes.push(Write::new(Controller::Cpu, file, value));
        }
    };
    let unsigned = |value: Option<u64>| value.filter(|value| *value != 0).map(|v| v.to_string());
    let signed = |value: Option<i64>| value.filter(|value| *value != 0).map(|v| v.to_string());
    put("cpu.shares", unsigned(cpu.shares));
    put("cpu.rt_period_us", unsigned(cpu.realtime_period));
    put("cpu.rt_runtime_us", signed(cpu.realtime_runtime));
    put("cpu.cfs_period_us", unsigned(cpu.period));
    put(
        "cpu.cfs_quota_us",
        signed(cpu.quota).map(|q| if q.starts_with('-') { "-1".into() } else { q }),
    );
    put("cpu.cfs_burst_us", cpu.burst.map(|burst| burst.to_string()));
    put("cpu.idle", cpu.idle.map(|idle| idle.to_string()));
    cpuset(cpu, writes);
}

fn v2_cpu(cpu: &Cpu, writes: &mut Vec<Write>) {
    if let Some(idle) = cpu.idle {
        writes.push(Write::new(Controller::Cpu, "cpu.idle", idle));
    }
    // An idle cgroup has no weight to set.
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0 && cpu.idle != Some(1)) {
        writes.push(Write::new(Controller::Cpu, "cpu.weight", weight_of_shares(shares)));
    }
    let (quota, period) = (cpu.quota.unwrap_or(0), cpu.period.unwrap_or(0));
    if quota != 0 || period != 0 {
        let quota = if quota > 0 { quota.to_string() } else { "max".into() };
        let period = if period == 0 { 100_000 } else { period };
        writes.push(Write::new(Controller::Cpu, "cpu.max", format!("{quota} {period}")));
    }
    if let Some(burst) = cpu.burst {
        writes.push(Write::new(Controller::Cpu, "cpu.max.burst", burst));
    }
    cpuset(cpu, writes);
}

fn cpuset(cpu: &Cpu, writes: &mut Vec<Write>) {
    for (file, value) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            writes.push(Write::new(Controller::Cpuset, file, value));
        }
    }
}

/// 2, 1024 and 262144 shares are weights 1, 100 and 10000; a parabola in between on both log scales.
fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            #[expect(clippy::cast_precision_loss, reason = "shares are far below 2^52")]
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 1 and 10000"
            )]
            let weight = 10f64.powf(exponent).ceil() as u64;
            weight
        }
    }
}

fn v1_io(io: &BlockIo, writes: &mut Vec<Write>) {
    let weighted = |file: &'static str, other: &'static str, value: String| {
        Write::new(Controller::Io, file, value.clone()).absent(Absent::Instead(other, value))
    };
    if let Some(weight) = io.weight.filter(|weight| *weight != 0) {
        writes.push(weighted("blkio.weight", "blkio.bfq.weight", weight.to_string()));
    }
    if let Some(weight) = io.leaf_weight.filter(|weight| *weight != 0) {
        writes.push(Write::new(Controller::Io, "blkio.leaf_weight", weight));
    }
    for one in &io.weight_device {
        if let Some(weight) = one.weight {
            let value = format!("{}:{} {weight}", one.major, one.minor);
            writes.push(weighted("blkio.weight_device", "blkio.bfq.weight_device", value));
        }
    }
    for (file, _, throttles) in throttles(io) {
        for one in throttles {
            let value = format!("{}:{} {}", one.major, one.minor, one.rate);
            writes.push(Write::new(Controller::Io, file, value));
        }
    }
}

fn v2_io(io: &BlockIo, writes: &mut Vec<Write>) {
    let scaled = |weight: u16| 1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990;
    if let Some(weight) = io.weight.filter(|weight| *weight != 0) {
        let absent = Absent::Instead("io.weight", scaled(weight).to_string());
        writes.push(Write::new(Controller::Io, "io.bfq.weight", weight).absent(absent));
    }
    for one in &io.weight_device {
        if let Some(weight) = one.weight {
            let device = format!("{}:{}", one.major, one.minor);
            let absent = Absent::Instead("io.weight", format!("{device} {}", scaled(weight)));
            let value = format!("{device} {weight}");
            writes.push(Write::new(Controller::Io, "io.bfq.weight", value).absent(absent));
        }
    }
    for (_, key, throttles) in throttles(io) {
        for one in throttles {
            let value = format!("{}:{} {key}={}", one.major, one.minor, one.rate);
            writes.push(Write::new(Controller::Io, "io.max", value));
        }
    }
}

/// v1 file, v2 key, devices.
fn throttles(io: &BlockIo) -> [(&'static str, &'static str, &[DeviceThrottle]); 4] {
    [
        ("blkio.throttle.read_bps_device", "rbps", &io.throttle_read_bps_device),
        ("blkio.throttle.write_bps_device", "wbps", &io.throttle_write_bps_device),
        ("blkio.throttle.read_iops_device", "riops", &io.throttle_read_iops_device),
        ("blkio.throttle.write_iops_device", "wiops", &io.throttle_write_iops_device),
    ]
}

fn rdma(resources: &Resources, writes: &mut Vec<Write>) {
    for (device, limits) in &resources.rdma {
        let mut value = device.clone();
        for (key, number) in
            [("hca_handle", limits.hca_handles), ("hca_object", limits.hca_objects)]
        {
            if let Some(number) = number {
                value.push_str(&format!(" {key}={number}"));
            }
        }
        writes.push(Write::new(Controller::Rdma, "rdma.max", value));
    }
}

/// A page size becomes part of a file name: digits, a unit and `B` only.
fn page_size(text: &str) -> Result<&str> {
    let number = text.strip_suffix('B').and_then(|rest| rest.strip_suffix(['K', 'M', 'G']));
    match number {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            Ok(text)
        }
        _ => Err(Error::invalid(format!("huge page size {text:?}"), "not like 2MB or 1GB")),
    }
}

fn or_max(limit: i64) -> String {
    if limit > 0 { limit.to_string() } else { "max".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use capsa_oci::runtime::{DeviceWeight, HugepageLimit, Pids};

    fn pairs(writes: Vec<Write>) -> Vec<(String, String)> {
        writes.into_iter().map(|write| (write.file.into_owned(), write.value)).collect()
    }

    fn v2_pairs(resources: &Resources) -> Vec<(String, String)> {
        pairs(v2(resources).unwrap())
    }

    fn pair(file: &str, value: &str) -> (String, String) {
        (file.into(), value.into())
    }

    #[test]
    fn swap_on_v2_is_the_difference() {
        let with = |limit, swap| Resources {
            memory: Some(Memory { limit, swap, ..Memory::default() }),
            ..Resources::default()
        };
        for (limit, swap, expected) in [
            (Some(100), Some(300), vec![pair("memory.max", "100"), pair("memory.swap.max", "200")]),
            (Some(100), Some(100), vec![pair("memory.max", "100"), pair("memory.swap.max", "0")]),
            (Some(100), Some(-1), vec![pair("memory.max", "100"), pair("memory.swap.max", "max")]),
            (Some(-1), None, vec![pair("memory.max", "max"), pair("memory.swap.max", "max")]),
            (Some(100), None, vec![pair("memory.max", "100")]),
        ] {
            assert_eq!(v2_pairs(&with(limit, swap)), expected, "{limit:?} {swap:?}");
        }
        for (limit, swap) in [(None, Some(5)), (Some(10), Some(5)), (Some(10), Some(-2))] {
            assert!(v2(&with(limit, swap)).is_err(), "{limit:?} {swap:?}");
        }
    }

    #[test]
    fn shares_become_weights_with_the_three_fixed_points() {
        for (shares, weight) in
            [(1, 1), (2, 1), (1024, 100), (262_144, 10_000), (9_999_999, 10_000), (512, 59)]
        {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
        assert!((2..262_144).step_by(97).map(weight_of_shares).is_sorted());
    }

    #[test]
    fn cpu_quota_and_sets() {
        let resources = Resources {
            cpu: Some(Cpu {
                quota: Some(50_000),
                cpus: Some("0-1".into()),
                shares: Some(1024),
                ..Cpu::default()
            }),
            pids: Some(Pids { limit: Some(-1) }),
            ..Resources::default()
        };
        assert_eq!(
            v2_pairs(&resources),
            [
                pair("cpu.weight", "100"),
                pair("cpu.max", "50000 100000"),
                pair("cpuset.cpus", "0-1"),
                pair("pids.max", "max"),
            ]
        );
        assert_eq!(
            pairs(v1(&resources).unwrap()),
            [
                pair("cpu.shares", "1024"),
                pair("cpu.cfs_quota_us", "50000"),
                pair("cpuset.cpus", "0-1"),
                pair("pids.max", "max"),
            ]
        );
    }

    #[test]
    fn block_io_is_scaled_or_named_anew() {
        let resources = Resources {
            block_io: Some(BlockIo {
                weight: Some(1000),
                weight_device: vec![DeviceWeight {
                    major: 8,
                    minor: 0,
                    weight: Some(10),
                    leaf_weight: None,
                }],
                throttle_read_bps_device: vec![DeviceThrottle { major: 8, minor: 1, rate: 5 }],
                ..BlockIo::default()
            }),
            ..Resources::default()
        };
        let writes = v2(&resources).unwrap();
        assert_eq!(writes[0].absent, Absent::Instead("io.weight", "10000".into()));
        assert_eq!(writes[1].absent, Absent::Instead("io.weight", "8:0 1".into()));
        assert_eq!((writes[2].file.as_ref(), writes[2].value.as_str()), ("io.max", "8:1 rbps=5"));
        let old = v1(&resources).unwrap();
        assert_eq!(old[0].absent, Absent::Instead("blkio.bfq.weight", "1000".into()));
    }

    #[test]
    fn names_that_would_leave_the_cgroup_are_refused() {
        for file in ["../../x", "memory.max/../x", "tasks", "cgroup", "nothing.max"] {
            let unified_map = [(file.to_owned(), "1".to_owned())].into();
            let resources = Resources { unified: unified_map, ..Resources::default() };
            assert!(unified(&resources).is_err(), "{file}");
        }
        for size in ["", "MB", "../2MB", "2mb"] {
            let page = HugepageLimit { page_size: size.into(), limit: 1 };
            let resources = Resources { hugepage_limits: vec![page], ..Resources::default() };
            assert!(v2(&resources).is_err(), "{size}");
        }
    }
}
