//! Starting a container: monitor, then network and mounts side by side, then its program.
//!
//! Every step has its undoing: when one fails, the monitor is told to unmake all that
//! is its own and waited for, and what was taken of the network is given back here. The record is written once, when the program runs; what it shall say
//! is left with the monitor before, for a next daemon.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use capsa_runtime::monitor;
use capsa_runtime::protocol::{
    CreateRequest, Event, Failure, LogPlan, Request, RootfsPlan, StdioPlan,
};
use capsa_store::Durability;

use super::actor::Actor;
use super::monitor_link::MonitorLink;
use super::phase;
use super::record::{Note, Record};
use super::spec_inputs;
use crate::options::EngineConfig;
use crate::spec::NetworkMode;
use crate::watched::watched;
use crate::world::World;
use crate::{Class, Error, Result};

/// The log's default bound: a log that fills the disk is nobody's wish.
const LOG_BYTES: u64 = 20 * 1024 * 1024;
const LOG_FILES: u32 = 5;

impl Actor {
    /// Starts it; false when it runs already.
    pub(super) async fn start(&mut self) -> Result<bool> {
        if !phase::may_start(self.record.live.phase)? {
            return Ok(false);
        }
        let outcome = self.bring_up().await;
        self.world.spares.refill();
        match outcome {
            Ok(()) => {
                self.world.container_event(&self.record, "start", []);
                Ok(true)
            }
            Err((error, code)) => {
                self.take_down();
                self.start_failed(&error, code)?;
                Err(error)
            }
        }
    }

    async fn bring_up(&mut self) -> Result<(), (Error, i32)> {
        let engine = |error| (error, 128);
        let world = std::sync::Arc::clone(&self.world);
        let dir = world.run_dir(&self.record.id);
        make_run_dir(&dir).map_err(engine)?;
        self.attachment = world.networks.prepare(&self.record).map_err(engine)?;
        let inputs =
            spec_inputs::gather(&world, &self.record, self.attachment.as_ref()).map_err(engine)?;
        let note = Note::of(self.attachment.as_ref()).to_text();
        let request = create_request(&world, &self.record, inputs, note).map_err(engine)?;
        let listener = monitor::listen(&dir).map_err(|error| engine(monitor_failed(&error)))?;
        let spawned = world.spares.take().map_err(engine)?;
        reap(spawned.pidfd).map_err(engine)?;
        let mut link = MonitorLink::new(spawned.channel).map_err(engine)?;
        let create = Request::Create(Box::new(request));
        let outcome = match link.send(&create, &[listener.as_fd()]).await {
            Ok(()) => self.lead(&world, &mut link).await,
            Err(error) => Err(engine(error)),
        };
        drop(listener);
        match outcome {
            Ok(()) => self.link = Some(link),
            Err(_) => link.end().await,
        }
        outcome
    }

    /// Leads a monitor that was asked to create to the running program, and records that.
    async fn lead(&mut self, world: &World, link: &mut MonitorLink) -> Result<(), (Error, i32)> {
        let engine = |error| (error, 128);
        for (attach, socket) in self.waiting.drain(..) {
            link.send(&Request::Attach(attach), &[socket.as_fd()]).await.map_err(engine)?;
        }
        let pid = match link.next().await {
            Some(Event::Created { pid }) => pid,
            other => return Err(unexpected(other)),
        };
        if let Err(error) = self.join_network(world, pid) {
            // One that has died meanwhile took its network along, and its monitor knows why.
            return Err(match has_ended(pid) {
                true => unexpected(link.next().await),
                false => engine(error),
            });
        }
        // When it can't be sent, the reason waits to be read.
        let _ = link.send(&Request::Start, &[]).await;
        let at_ns = match link.next().await {
            Some(Event::Started { at_ns }) => at_ns,
            other => return Err(unexpected(other)),
        };
        let before = self.record.live.clone();
        self.record.live.begin(pid, at_ns, Note::of(self.attachment.as_ref()));
        self.save(Durability::Process).map_err(|error| {
            self.record.live = before;
            engine(error)
        })
    }

    fn join_network(&mut self, world: &World, pid: u32) -> Result<()> {
        match &mut self.attachment {
            Some(attachment) => attachment.connect(&world.networks, &self.record, pid),
            None if self.record.spec.network.mode == NetworkMode::None => {
                world.networks.raise_loopback(pid)
            }
            None => Ok(()),
        }
    }

    /// Gives back what a start or a run had taken of the host.
    pub(super) fn take_down(&mut self) {
        self.link = None;
        self.waiting.clear();
        if let Some(attachment) = self.attachment.take() {
            attachment.release(&self.world.networks);
        }
        let dir = self.world.run_dir(&self.record.id);
        if let Err(error) = std::fs::remove_dir_all(&dir)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %dir.display(), %error, "run directory left behind");
        }
    }

    /// Docker keeps a container that never ran as created, with its error and code.
    fn start_failed(&mut self, error: &Error, code: i32) -> Result<()> {
        let live = &mut self.record.live;
        live.error.clone_from(&error.message);
        live.exit_code = code;
        live.restarting = false;
        live.endpoints.clear();
        live.ports.clear();
        self.count_exit();
        if self.record.spec.auto_remove {
            return self.remove(true);
        }
        self.save(Durability::Process)
    }
}

fn monitor_failed(error: &capsa_runtime::Error) -> Error {
    Error::kernel(format!("start of a monitor: {error}"))
}

/// Whether a process is gone, or only waits for its parent. proc_pid_stat(5).
fn has_ended(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    matches!(state, None | Some('Z' | 'X'))
}

/// The engine's error for a monitor's, about an exec.
pub(super) fn exec_failed(failure: &Failure) -> Error {
    Error::new(
        class_of(failure),
        format!(
            "OCI runtime exec failed: exec failed: unable to start container process: {}: unknown",
            failure.message
        ),
    )
}

/// A program that can't be run is the user's affair.
fn class_of(failure: &Failure) -> Class {
    if failure.code == 125 { Class::Kernel } else { Class::InvalidInput }
}

/// The engine's error for a monitor's, about a start.
fn failed(failure: &Failure) -> Error {
    let class = class_of(failure);
    Error::new(
        class,
        format!(
            "failed to create task for container: failed to create shim task: OCI runtime create failed: unable to start container process: {}: unknown",
            failure.message
        ),
    )
}

fn unexpected(event: Option<Event>) -> (Error, i32) {
    match event {
        Some(Event::Failed(failure)) => {
            let code = if failure.code == 125 { 128 } else { failure.code };
            (failed(&failure), code)
        }
        Some(other) => (Error::kernel(format!("the monitor answered out of turn: {other:?}")), 128),
        None => (Error::kernel("the monitor ended during the start"), 128),
    }
}

/// Takes note of a monitor's end, so that it leaves no zombie.
fn reap(pidfd: OwnedFd) -> Result<()> {
    let failed = |error| Error::kernel(format!("watching a monitor: {error}"));
    let pidfd = watched(pidfd).map_err(failed)?;
    tokio::spawn(async move {
        if pidfd.readable().await.is_ok() {
            // Its end was told on its channel; the status says nothing more.
            let _ = capsa_sys::process::wait(pidfd.as_fd());
        }
    });
    Ok(())
}

fn make_run_dir(dir: &Path) -> Result<()> {
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::kernel(format!("run directory {}: {error}", dir.display())))
        }
        _ => Ok(()),
    }
}

fn create_request(
    world: &World,
    record: &Record,
    inputs: spec_inputs::Gathered,
    note: String,
) -> Result<CreateRequest> {
    let process = &record.spec.process;
    let dir = world.store.container_dir(&record.id)?;
    let stdio = StdioPlan {
        tty: process.tty,
        console_size: process.console_size,
        open_stdin: process.open_stdin,
        stdin_once: process.stdin_once,
        log: log_plan(world, record)?,
    };
    Ok(CreateRequest {
        id: record.id.clone(),
        dir: world.run_dir(&record.id),
        spec: inputs.spec,
        rootfs: RootfsPlan::Overlay {
            lowers: inputs.layers,
            top: dir.join("rootfs"),
            volatile: record.spec.auto_remove,
        },
        stdio,
        exit_record: dir.join("exit.json"),
        seccomp: inputs.seccomp,
        init: record.spec.init,
        note,
    })
}

impl Record {
    /// Whether its output is kept in a file that `logs` can read.
    pub(crate) fn keeps_log(&self, config: &EngineConfig) -> bool {
        matches!(self.log_driver(config), "" | "json-file" | "local")
    }

    /// The log driver it has.
    pub(crate) fn log_driver<'a>(&'a self, config: &'a EngineConfig) -> &'a str {
        let own = self.spec.log.driver.as_str();
        if own.is_empty() { config.log_driver.as_str() } else { own }
    }
}

fn log_plan(world: &World, record: &Record) -> Result<Option<LogPlan>> {
    if !record.keeps_log(&world.config) {
        return Ok(None);
    }
    let own = &record.spec.log;
    let options = if own.driver.is_empty() && own.options.is_empty() {
        &world.config.log_options
    } else {
        &own.options
    };
    let max_bytes = match options.get("max-size") {
        Some(text) => parse_size(text)
            .ok_or_else(|| Error::invalid(format!("invalid value for max-size: {text:?}")))?,
        None => LOG_BYTES,
    };
    let max_files = match options.get("max-file") {
        Some(text) => text
            .parse()
            .map_err(|_| Error::invalid(format!("invalid value for max-file: {text:?}")))?,
        None if options.contains_key("max-size") => 1,
        None => LOG_FILES,
    };
    let path = world.places(record).log;
    Ok(Some(LogPlan { path, max_bytes, max_files, attrs: log_attributes(record, options) }))
}

/// The labels and variables that the log options `labels` and `env` name.
fn log_attributes(
    record: &Record,
    options: &std::collections::BTreeMap<String, String>,
) -> std::collections::BTreeMap<String, String> {
    let mut attributes = std::collections::BTreeMap::new();
    for key in options.get("labels").into_iter().flat_map(|keys| keys.split(',')) {
        if let Some(value) = record.resolved.labels.get(key) {
            attributes.insert(key.to_owned(), value.clone());
        }
    }
    for key in options.get("env").into_iter().flat_map(|keys| keys.split(',')) {
        let prefix = format!("{key}=");
        if let Some(value) = record.resolved.env.iter().find_map(|var| var.strip_prefix(&prefix)) {
            attributes.insert(key.to_owned(), value.to_owned());
        }
    }
    attributes
}

/// `10m`, `1g`, `500k`, `-1` (unbounded) in bytes.
fn parse_size(text: &str) -> Option<u64> {
    if text == "-1" {
        return Some(0);
    }
    let text = text.to_ascii_lowercase();
    let text = text.strip_suffix('b').unwrap_or(&text);
    let (digits, shift) = match text.chars().last()? {
        'k' => (&text[..text.len() - 1], 10),
        'm' => (&text[..text.len() - 1], 20),
        'g' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_sizes_have_units() {
        assert_eq!(parse_size("10m"), Some(10 << 20));
        assert_eq!(parse_size("1GB"), Some(1 << 30));
        assert_eq!(parse_size("512"), Some(512));
        assert_eq!(parse_size("-1"), Some(0));
        assert_eq!(parse_size("m"), None);
    }
}
