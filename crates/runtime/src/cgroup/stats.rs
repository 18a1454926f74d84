//! What a cgroup has used, as one plain struct for v1 and v2.
//!
//! A counter that this kernel doesn't keep is zero or absent, never an error.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Cgroup;
use super::dir::Dir;
use super::hierarchy::Controller;

/// Use of every resource at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// CPU time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Tasks.
    pub pids: PidStats,
    /// Block I/O by device.
    pub io: Vec<IoStats>,
}

/// CPU time in nanoseconds since the cgroup was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CpuStats {
    /// All of it.
    pub usage_ns: u64,
    /// In user mode.
    pub user_ns: u64,
    /// In the kernel.
    pub system_ns: u64,
    /// By CPU; v1 only.
    pub per_cpu_ns: Vec<u64>,
    /// Periods of the quota that have passed.
    pub periods: u64,
    /// Those in which it was held back.
    pub throttled_periods: u64,
    /// How long it was held back.
    pub throttled_ns: u64,
}

/// Memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryStats {
    /// Now, page cache included.
    pub usage: u64,
    /// The most so far.
    pub max_usage: u64,
    /// Limit; `u64::MAX` when there is none.
    pub limit: u64,
    /// Page cache.
    pub cache: u64,
    /// Page cache that can go first; clients subtract it from `usage`.
    pub inactive_file: u64,
    /// Swap now.
    pub swap: u64,
    /// Times the limit was hit.
    pub failures: u64,
    /// Processes that the OOM killer took.
    pub oom_kills: u64,
    /// `memory.stat`, as the kernel names it.
    pub detail: BTreeMap<String, u64>,
}

/// Tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PidStats {
    /// Now.
    pub current: u64,
    /// Limit; absent when there is none.
    pub limit: Option<u64>,
}

/// I/O of one block device since the cgroup was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IoStats {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations.
    pub reads: u64,
    /// Write operations.
    pub writes: u64,
}

impl Cgroup {
    /// What has been used so far.
    pub fn stats(&self) -> Stats {
        Stats {
            cpu: self.cpu_stats(),
            memory: self.memory_stats(),
            pids: self.pid_stats(),
            io: self.io_stats(),
        }
    }

    /// Processes in it that the OOM killer took.
    pub fn oom_kills(&self) -> u64 {
        match (self.v1_dir(Controller::Memory), &self.v2) {
            (Some(dir), _) => dir.keyed("memory.oom_control", "oom_kill"),
            (None, Some(dir)) => dir.keyed("memory.events", "oom_kill"),
            (None, None) => None,
        }
        .unwrap_or(0)
    }

    fn cpu_stats(&self) -> CpuStats {
        let mut stats = match (self.v1_dir(Controller::Cpuacct), &self.v2) {
            (Some(dir), _) => CpuStats {
                usage_ns: dir.number("cpuacct.usage").unwrap_or(0),
                user_ns: dir.number("cpuacct.usage_user").unwrap_or(0),
                system_ns: dir.number("cpuacct.usage_sys").unwrap_or(0),
                per_cpu_ns: numbers(dir.read_opt("cpuacct.usage_percpu")),
                ..CpuStats::default()
            },
            (None, Some(dir)) => {
                let time = keyed(dir.read_opt("cpu.stat"));
                let ns = |key: &str| time.get(key).copied().unwrap_or(0).saturating_mul(1000);
                CpuStats {
                    usage_ns: ns("usage_usec"),
                    user_ns: ns("user_usec"),
                    system_ns: ns("system_usec"),
                    ..CpuStats::default()
                }
            }
            (None, None) => CpuStats::default(),
        };
        let quota = self.dir_of(Controller::Cpu).and_then(|dir| dir.read_opt("cpu.stat"));
        let quota = keyed(quota);
        let of = |key: &str| quota.get(key).copied();
        stats.periods = of("nr_periods").unwrap_or(0);
        stats.throttled_periods = of("nr_throttled").unwrap_or(0);
        let from_us = of("throttled_usec").map(|us| us.saturating_mul(1000));
        stats.throttled_ns = of("throttled_time").or(from_us).unwrap_or(0);
        stats
    }

    fn memory_stats(&self) -> MemoryStats {
        match (self.v1_dir(Controller::Memory), &self.v2) {
            (Some(dir), _) => v1_memory(dir),
            (None, Some(dir)) => v2_memory(dir),
            (None, None) => MemoryStats { limit: u64::MAX, ..MemoryStats::default() },
        }
    }

    fn pid_stats(&self) -> PidStats {
        let Some(dir) = self.dir_of(Controller::Pids) else { return PidStats::default() };
        PidStats {
            current: dir.number("pids.current").unwrap_or(0),
            limit: dir.number("pids.max").filter(|limit| *limit != u64::MAX),
        }
    }

    fn io_stats(&self) -> Vec<IoStats> {
        if let Some(dir) = self.v1_dir(Controller::Io) {
            let read = |name: &str| dir.read_opt(name).unwrap_or_default();
            return v1_io(
                &read("blkio.throttle.io_service_bytes_recursive"),
                &read("blkio.throttle.io_serviced_recursive"),
            );
        }
        let text = self.v2.as_ref().and_then(|dir| dir.read_opt("io.stat"));
        v2_io(&text.unwrap_or_default())
    }
}

fn v1_memory(dir: &Dir) -> MemoryStats {
    let detail = keyed(dir.read_opt("memory.stat"));
    let of = |key: &str| detail.get(key).copied().unwrap_or(0);
    let number = |file: &str| dir.number(file).unwrap_or(0);
    let usage = number("memory.usage_in_bytes");
    // v1 says "none" as the largest multiple of the page size.
    let limit = dir.number("memory.limit_in_bytes").filter(|limit| *limit < 1 << 62);
    MemoryStats {
        usage,
        max_usage: number("memory.max_usage_in_bytes"),
        limit: limit.unwrap_or(u64::MAX),
        cache: of("total_cache"),
        inactive_file: of("total_inactive_file"),
        swap: number("memory.memsw.usage_in_bytes").saturating_sub(usage),
        failures: number("memory.failcnt"),
        oom_kills: dir.keyed("memory.oom_control", "oom_kill").unwrap_or(0),
        detail,
    }
}

fn v2_memory(dir: &Dir) -> MemoryStats {
    let detail = keyed(dir.read_opt("memory.stat"));
    let of = |key: &str| detail.get(key).copied().unwrap_or(0);
    let number = |file: &str| dir.number(file).unwrap_or(0);
    let events = keyed(dir.read_opt("memory.events"));
    MemoryStats {
        usage: number("memory.current"),
        max_usage: number("memory.peak"),
        limit: dir.number("memory.max").unwrap_or(u64::MAX),
        cache: of("file"),
        inactive_file: of("inactive_file"),
        swap: number("memory.swap.current"),
        failures: events.get("max").copied().unwrap_or(0),
        oom_kills: events.get("oom_kill").copied().unwrap_or(0),
        detail,
    }
}

/// Lines of `major:minor Read|Write number`.
fn v1_io(bytes: &str, operations: &str) -> Vec<IoStats> {
    let mut found = BTreeMap::new();
    for (text, counts_bytes) in [(bytes, true), (operations, false)] {
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let Some(device) = words.next().and_then(device) else { continue };
            let (Some(kind), Some(value)) = (words.next(), words.next()) else { continue };
            let entry: &mut IoStats = found.entry(device).or_default();
            let field = match (kind, counts_bytes) {
                ("Read", true) => &mut entry.read_bytes,
                ("Write", true) => &mut entry.write_bytes,
                ("Read", false) => &mut entry.reads,
                ("Write", false) => &mut entry.writes,
                _ => continue,
            };
            *field = value.parse().unwrap_or(0);
        }
    }
    named(found)
}

/// Lines of `major:minor rbytes=… wbytes=… rios=… wios=…`.
fn v2_io(text: &str) -> Vec<IoStats> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(device) = words.next().and_then(device) else { continue };
        let entry: &mut IoStats = found.entry(device).or_default();
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let field = match key {
                "rbytes" => &mut entry.read_bytes,
                "wbytes" => &mut entry.write_bytes,
                "rios" => &mut entry.reads,
                "wios" => &mut entry.writes,
                _ => continue,
            };
            *field = value.parse().unwrap_or(0);
        }
    }
    named(found)
}

fn named(found: BTreeMap<(u32, u32), IoStats>) -> Vec<IoStats> {
    found.into_iter().map(|((major, minor), io)| IoStats { major, minor, ..io }).collect()
}

fn device(word: &str) -> Option<(u32, u32)> {
    let (major, minor) = word.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn numbers(text: Option<String>) -> Vec<u64> {
    text.unwrap_or_default().split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn keyed(text: Option<String>) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.unwrap_or_default().lines().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_of_both_versions_reads_alike() {
        let expected = vec![IoStats {
            major: 8,
            minor: 16,
            read_bytes: 4096,
            write_bytes: 8192,
            reads: 1,
            writes: 2,
        }];
        let bytes = "8:16 Read 4096\n8:16 Write 8192\n8:16 Sync 1\n8:16 Total 12288\nTotal 12288\n";
        assert_eq!(v1_io(bytes, "8:16 Read 1\n8:16 Write 2\nTotal 3\n"), expected);
        assert_eq!(
            v2_io("8:16 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0\n7:0\n")[1],
            expected[0]
        );
    }

    #[test]
    fn malformed_lines_are_passed_over() {
        assert_eq!(keyed(Some("a 1\nbroken\nb x\nc 3\n".into())).len(), 2);
        assert!(v2_io("x:y rbytes=1\n\n8 rbytes=2").is_empty());
    }
}
