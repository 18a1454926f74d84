//! Taking over what an earlier daemon left: what should be, compared with what is.
//!
//! A container is running only if its monitor answers; else its exit record
//! decides; else (a reboot, or a monitor that was killed) it has ended. A monitor that
//! works for a start which the earlier daemon did not live to see ends by itself or says
//! that the program runs; one or the other is waited for. What bears an id that no
//! record has is removed: directories, cgroups, network things.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use capsa_runtime::cgroup::Cgroup;
use capsa_runtime::monitor;
use capsa_runtime::protocol::{Event, ExitRecord};
use capsa_store::Durability;

use super::actor;
use super::exit::{lost, read_exit_record};
use super::handle::Command;
use super::intents::Intents;
use super::monitor_link::MonitorLink;
use super::record::{Note, Record, VERSION};
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
    if let Some(running) = monitor_of(world, &record).await {
        let seen = record.live.started_ns == running.started_ns
            && matches!(record.live.phase, Phase::Running | Phase::Paused);
        if !seen {
            record.live.begin(running.pid, running.started_ns, running.note);
        }
        let attachment = world.networks.adopt(&record, running.pid);
        save(world, &record);
        actor::spawn(world, record, Some(running.link), attachment);
        return false;
    }
    let exit = read_exit_record(world, &record);
    let unseen = exit.as_ref().is_some_and(|exit| exit.started_ns > record.live.started_ns);
    if unseen || matches!(record.live.phase, Phase::Running | Phase::Paused | Phase::Creating) {
        remove_cgroup(world, &record);
        let exit = exit.unwrap_or_else(|| lost(record.live.started_ns));
        note_end(&mut record, &exit, unseen);
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

/// Records an end that no daemon saw; nor its start, when `unseen`.
fn note_end(record: &mut Record, exit: &ExitRecord, unseen: bool) {
    let live = &mut record.live;
    if unseen {
        live.begin(0, exit.started_ns, Note::default());
    }
    live.end(exit);
}

fn save(world: &World, record: &Record) {
    let body = serde_json::to_string(record).unwrap_or_default();
    if let Err(error) = world.store.update_container(&record.id, &body, Durability::Process) {
        tracing::warn!(container = %record.id, %error, "state not recorded");
    }
}

/// A container whose monitor says that it runs.
struct Running {
    link: MonitorLink,
    pid: u32,
    started_ns: i64,
    note: Note,
}

/// What its monitor says, if there is one. `None` once it has ended.
async fn monitor_of(world: &World, record: &Record) -> Option<Running> {
    let channel = monitor::connect(&world.run_dir(&record.id)).ok()?;
    let link = MonitorLink::new(channel).ok()?;
    let answer = tokio::time::timeout(PATIENCE, heard(link)).await;
    answer.unwrap_or_else(|_| {
        tracing::error!(container = %record.id, "its monitor does not answer, taking it for lost");
        None
    })
}

async fn heard(mut link: MonitorLink) -> Option<Running> {
    let (mut pid, mut note) = (0, Note::default());
    loop {
        let started_ns = match link.next().await? {
            Event::Status { pid: Some(first), started_ns, running, note: text, .. } => {
                (pid, note) = (first, Note::parse(&text));
                if !running {
                    continue;
                }
                started_ns
            }
            Event::Started { at_ns } => at_ns,
            _ => continue,
        };
        return Some(Running { link, pid, started_ns, note });
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
