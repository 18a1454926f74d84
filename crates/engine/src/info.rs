//! Facts about the engine and its host.

use std::fs;

use capsa_runtime::cgroup::Hierarchies;

use crate::options::InfoView;
use crate::view::Phase;
use crate::world::World;

/// Gathers them.
pub(crate) fn gather(world: &World) -> InfoView {
    let (mut running, mut paused, mut stopped) = (0, 0, 0);
    for handle in world.registry.all() {
        match handle.record().live.phase {
            Phase::Running => running += 1,
            Phase::Paused => paused += 1,
            _ => stopped += 1,
        }
    }
    let uname = rustix::system::uname();
    InfoView {
        id: format!("capsa-{}-{}", uname.nodename().to_string_lossy(), world.instance.number()),
        containers: (running, paused, stopped),
        images: world.store.images().map_or(0, |images| images.len()),
        data_root: world.config.data_root.clone(),
        kernel: uname.release().to_string_lossy().into_owned(),
        operating_system: operating_system(),
        cgroup_version: cgroup_version().to_owned(),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        memory: memory(),
        name: uname.nodename().to_string_lossy().into_owned(),
        labels: world.config.labels.clone(),
        log_driver: world.config.log_driver.clone(),
        user_namespaces: true,
        warnings: Vec::new(),
    }
}

fn cgroup_version() -> &'static str {
    let pure_v2 = Hierarchies::discover().is_ok_and(|found| found.is_pure_v2());
    if pure_v2 { "2" } else { "1" }
}

fn operating_system() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

fn memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
