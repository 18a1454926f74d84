//! What engines cost while nothing happens: proportional set sizes, which
//! share what is shared among those who share it.

use std::fs;

use anyhow::Context as _;

use super::engines::{Engine, IMAGE};
use super::measure::settle;
use super::table::Table;

const CONTAINERS: usize = 10;
/// 20 MB.
const DAEMON_KIB_MAX: u64 = 20_000_000 / 1024;
const MONITOR_KIB_MAX: u64 = 300;

/// Adds the daemon's size before it ran anything, and a monitor's among ten.
pub(crate) fn measure(engines: &[Engine], table: &mut Table) -> anyhow::Result<()> {
    let mut daemons = Vec::new();
    let mut monitors = Vec::new();
    for engine in engines {
        let pids = engine.daemon_pids();
        daemons.push((engine.name, pids.into_iter().map(pss_kib).sum::<u64>()));
        monitors.push((engine.name, monitor_kib(engine)?));
    }
    let with_daemon = |(_, kib): &&(&str, u64)| *kib > 0;
    let others = daemons[1..].iter().find(with_daemon).copied();
    table.memory("daemon, idle", daemons[0].1, DAEMON_KIB_MAX, others);
    let others = monitors.get(1).copied();
    table.memory("monitor, of 10 running", monitors[0].1, MONITOR_KIB_MAX, others);
    Ok(())
}

/// The mean over the parents of ten containers.
fn monitor_kib(engine: &Engine) -> anyhow::Result<u64> {
    let names: Vec<String> = (0..CONTAINERS).map(|number| format!("memory{number}")).collect();
    for name in &names {
        engine.call(&["run", "-d", "--name", name, IMAGE, "sleep", "100000"])?;
    }
    settle();
    let mut total = 0;
    for name in &names {
        let pid = engine.call(&["inspect", "--format", "{{.State.Pid}}", name])?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let parent =
            status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
        total += pss_kib(parent.with_context(|| format!("process {pid} has no parent"))?);
    }
    engine.remove(&names)?;
    Ok(total / CONTAINERS as u64)
}

/// In KiB; 0 if the process is gone.
fn pss_kib(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    pss.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}
