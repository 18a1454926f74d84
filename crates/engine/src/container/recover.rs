//! Taking over what an earlier daemon left: what should be, compared with what is.
//!
//! A container is running only if its monitor answers; else its exit record
//! decides; else (a reboot, or a monitor that was killed) it has ended. What bears
//! an id that no record has is removed: directories, cgroups, network things.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use capsa_runtime::cgroup::Cgroup;
use capsa_runtime::protocol::Event;
use capsa_store::Durability;
use capsa_sys::channel::Channel;

use super::actor;
use super::exit::{lost, read_exit_record};
use super::handle::Command;
use super::intents::Intents;
use super::monitor_link::MonitorLink;
use super::record::{Record, VERSION};
use super::restart;
use crate::Result;
use crate::view::Phase;
use crate::world::World;

/// How long a monitor may take to answer before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes every stored container known again and repairs what a crash left.
///
/// # Errors
/// Only when the store can't be read; one bad record harms only its own container.
pub(crate) async fn recover(world: &Arc<World>) -> Result<()> {
    let mut known = HashSet::new();
    let mut to_start = Vec::new();
    for row in world.store.containers()? {
        known.insert(row.id.clone());
        let Some(mut record) = read_record(&row) else { continue };
        record.id_range = row.id_range;
        record.name.clone_from(&row.name);
        world.registry.reserve(&record.name, &record.id)?;
        if take_over(world, record).await {
            to_start.push(row.id);
        }
    }
    remove_strays(world, &known);
    world.networks.reconcile(&world.registry);
    for id in to_start {
        let handle = world.registry.find(&id)?;
        tokio::spawn(async move {
            if let Err(error) = handle.ask(Command::Start).await {
                tracing::warn!(container = id, %error, "restart at the daemon's start failed");
            }
        });
    }
    Ok(())
}

fn read_record(row: &capsa_store::ContainerRow) -> Option<Record> {
    match serde_json::from_str::<Record>(&row.body) {
        Ok(record) if record.version <= VERSION => Some(record),
        Ok(record) => {
            let version = record.version;
            tracing::error!(container = row.id, version, "record of a later version, ignoring");
            None
        }
        Err(error) => {
            tracing::error!(container = row.id, %error, "unreadable record, ignoring");
            None
        }
    }
}

/// Starts the actor; true when the restart policy wants the container started.
async fn take_over(world: &Arc<World>, mut record: Record) -> bool {
    let ran = matches!(record.live.phase, Phase::Running | Phase::Paused | Phase::Creating);
    if let Some((link, pid, started_ns)) = monitor_of(world, &record).await {
        record.live.pid = pid;
        record.live.started_ns = started_ns;
        if record.live.phase != Phase::Paused {
            record.live.phase = Phase::Running;
        }
        let attachment = world.networks.adopt(&record, pid);
        save(world, &record);
        actor::spawn(world, record, Some(link), attachment);
        return false;
    }
    if ran {
        remove_cgroup(world, &record);
        let exit = read_exit_record(world, &record).unwrap_or_else(|| lost(record.live.started_ns));
        record.live.phase = Phase::Stopped;
        record.live.pid = 0;
        record.live.exit_code = exit.code;
        record.live.oom_killed = exit.oom_killed;
        record.live.finished_ns = exit.finished_ns;
        record.live.endpoints.clear();
        record.live.ports.clear();
        save(world, &record);
    }
    record.live.restarting = false;
    let stopped_by_user = record.live.stopped_by_user;
    let id = record.id.clone();
    let remove = record.spec.auto_remove && record.live.phase == Phase::Stopped;
    let wanted = restart::wanted_at_boot(record.spec.restart, stopped_by_user)
        && record.live.phase == Phase::Stopped;
    let handle = actor::spawn(world, record, None, None);
    if remove {
        let removed = handle.ask(|reply| Command::Remove { volumes: true, reply }).await;
        if let Err(error) = removed {
            tracing::warn!(container = id, %error, "automatic removal failed");
        }
    }
    wanted && !remove
}

fn save(world: &World, record: &Record) {
    let body = serde_json::to_string(record).unwrap_or_default();
    if let Err(error) = world.store.update_container(&record.id, &body, Durability::Process) {
        tracing::warn!(container = %record.id, %error, "state not recorded");
    }
}

/// The channel to its monitor, its pid and start time, when one answers that it runs.
async fn monitor_of(world: &World, record: &Record) -> Option<(MonitorLink, u32, i64)> {
    let socket = world.run_dir(&record.id).join("monitor.sock");
    let channel = Channel::connect(&socket).ok()?;
    let mut link = MonitorLink::new(channel).ok()?;
    let first = tokio::time::timeout(PATIENCE, link.next()).await;
    match first {
        Ok(Some(Event::Status { pid: Some(pid), started_ns, running: true, .. })) => {
            Some((link, pid, started_ns))
        }
        _ => None,
    }
}

fn remove_cgroup(world: &World, record: &Record) {
    if let Ok(cgroup) = world.cgroup(record)
        && let Err(error) = cgroup.kill_all().and_then(|()| cgroup.remove())
    {
        tracing::warn!(container = %record.id, %error, "cgroup left behind");
    }
}

/// Removes the directories and cgroups of containers that no record knows.
fn remove_strays(world: &World, known: &HashSet<String>) {
    for id in entries(&world.store.root().join("containers")) {
        if !known.contains(&id)
            && let Err(error) = world.store.remove_rootfs(&id)
        {
            tracing::warn!(id, %error, "files of an unknown container left behind");
        }
    }
    for id in entries(&world.run_dirs()) {
        let live = world.registry.find(&id).is_ok_and(|handle| handle.record().live.pid != 0);
        if !known.contains(&id) {
            let made = Intents::new(world.run_dir(&id)).read();
            super::remove::volumes_of(world, made.iter().map(String::as_str));
        }
        if !live && let Err(error) = std::fs::remove_dir_all(world.run_dir(&id)) {
            tracing::warn!(id, %error, "run directory left behind");
        }
    }
    let parent = world.instance.cgroup_parent();
    for id in cgroup_children(&parent) {
        if known.contains(&id) {
            continue;
        }
        let path = format!("{parent}/{id}");
        let ended = Cgroup::open(&path).and_then(|cgroup| {
            cgroup.kill_all()?;
            cgroup.remove()
        });
        if let Err(error) = ended {
            tracing::warn!(path, %error, "cgroup of an unknown container left behind");
        }
    }
}

fn cgroup_children(parent: &str) -> HashSet<String> {
    let Ok(parent) = Cgroup::open(parent) else { return HashSet::new() };
    let is_id = |name: &String| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    parent.directories().flat_map(entries).filter(is_id).collect()
}

fn entries(dir: &std::path::Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
