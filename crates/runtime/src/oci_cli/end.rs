//! `kill`, `delete`, `pause` and `resume`.

use std::os::fd::AsFd;
use std::process::ExitCode;

use capsa_oci::runtime::{NamespaceKind, RuntimeSpec};
use capsa_oci::signal;
use capsa_sys::process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::args::flag;
use super::make::wrong;
use super::record::{Record, Status, check_id};
use super::{Globals, args};
use crate::{Error, Result, hooks};

/// How long `delete` waits for what it has killed.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// `kill ID [SIGNAL]`.
pub(super) fn kill(globals: &Globals, args: &[String]) -> Result<ExitCode> {
    let parsed = args::parse(args, &[flag("all").or('a')])?;
    let record = Record::load(&globals.root, parsed.id()?)?;
    let name = parsed.words.get(1).map_or("TERM", String::as_str);
    let number = signal::parse(name)
        .map_err(|_| Error::invalid("signal", format!("unknown signal {name:?}")))?;
    let everyone = parsed.has("all");
    if !record.is_alive() {
        let left = record.open_cgroup().filter(|_| everyone);
        return match left {
            Some(cgroup) => cgroup.signal_all(number).map(|()| ExitCode::SUCCESS),
            None => Err(wrong(&record, "container not running")),
        };
    }
    // Without a pid namespace nobody else ends the others.
    let shares_pids = number == libc::SIGKILL && !has_own(&record.spec()?, NamespaceKind::Pid);
    match record.open_cgroup().filter(|_| everyone || shares_pids) {
        Some(cgroup) if number == libc::SIGKILL => cgroup.kill_all()?,
        Some(cgroup) => cgroup.signal_all(number)?,
        None => signal_first(&record, number)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `delete ID`.
pub(super) fn delete(globals: &Globals, args: &[String]) -> Result<ExitCode> {
    let parsed = args::parse(args, &[flag("force").or('f')])?;
    let id = parsed.id()?;
    let force = parsed.has("force");
    let record = match Record::load(&globals.root, id) {
        Ok(record) => record,
        Err(error) => {
            // Asked for by force: what a killed `create` has left goes, and nothing is no error.
            check_id(id)?;
            let half = Record { dir: globals.root.join(id), ..Record::default() };
            return if force { half.forget().map(|()| ExitCode::SUCCESS) } else { Err(error) };
        }
    };
    match record.status() {
        Status::Stopped | Status::Created | Status::Creating => {}
        _ if force => {}
        status => {
            let why = format!("cannot delete a container that is not stopped: {}", status.word());
            return Err(wrong(&record, &why));
        }
    }
    destroy(&record)?;
    Ok(ExitCode::SUCCESS)
}

/// `pause ID`.
pub(super) fn pause(globals: &Globals, args: &[String]) -> Result<ExitCode> {
    freeze(globals, args, true)
}

/// `resume ID`.
pub(super) fn resume(globals: &Globals, args: &[String]) -> Result<ExitCode> {
    freeze(globals, args, false)
}

/// Ends what runs of a container and removes all there is of it; then its last hooks run.
pub(super) fn destroy(record: &Record) -> Result<()> {
    let pidfd = if record.is_alive() { process::pidfd_open(record.pid).ok() } else { None };
    let cgroup = record.open_cgroup();
    if let Some(pidfd) = &pidfd {
        process::kill(pidfd.as_fd());
    }
    if let Some(cgroup) = &cgroup {
        cgroup.kill_all()?;
    }
    if let Some(pidfd) = &pidfd {
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        if !matches!(poll(&mut fds, Some(&PATIENCE)), Ok(1..)) {
            return Err(wrong(record, "it does not end after SIGKILL"));
        }
    }
    if let Some(cgroup) = &cgroup {
        cgroup.remove()?;
    }
    let spec = record.spec();
    record.forget()?;
    let spec = spec?;
    let poststop = spec.hooks.as_ref().map_or(&[][..], |hooks| &hooks.poststop);
    hooks::run(poststop, &record.state(Status::Stopped, &spec))
}

fn freeze(globals: &Globals, args: &[String], frozen: bool) -> Result<ExitCode> {
    let parsed = args::parse(args, &[])?;
    let record = Record::load(&globals.root, parsed.id()?)?;
    match (record.status(), frozen) {
        (Status::Running | Status::Created, true) | (Status::Paused, false) => {}
        (_, true) => return Err(wrong(&record, "container not running")),
        (_, false) => return Err(wrong(&record, "container not paused")),
    }
    let cgroup = record.open_cgroup().ok_or_else(|| wrong(&record, "its cgroup is gone"))?;
    cgroup.freeze(frozen).map(|()| ExitCode::SUCCESS)
}

fn signal_first(record: &Record, number: i32) -> Result<()> {
    let pidfd = process::pidfd_open(record.pid)?;
    // Only now is it certain that the pid is still that of the container.
    if !record.is_alive() {
        return Err(wrong(record, "container not running"));
    }
    Ok(process::send_signal(pidfd.as_fd(), number)?)
}

fn has_own(spec: &RuntimeSpec, kind: NamespaceKind) -> bool {
    let namespaces = spec.linux.as_ref().map_or(&[][..], |linux| &linux.namespaces);
    namespaces.iter().any(|namespace| namespace.kind == kind && namespace.path.is_none())
}
