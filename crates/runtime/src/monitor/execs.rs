//! The execs of one container, from request to exit.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use capsa_sys::process::{self, Child};
use capsa_sys::pty;
use rustix::event::PollFlags;

use super::pipes;
use super::streams::{Source, Streams};
use crate::error::{Error, Result};
use crate::exec::{self, Exec, Target};
use crate::init::Filter;
use crate::init::sync::{self, Report};
use crate::launch::Stdio;
use crate::protocol::{AttachRequest, Event, ExecRequest, Failure};

/// One exec.
#[derive(Debug)]
pub(super) struct Running {
    /// Tells execs apart.
    pub(super) serial: u64,
    id: String,
    child: Child,
    /// Until it has started or failed.
    report: Option<sync::Parent>,
    failed: bool,
    /// The container has given it a terminal, which is copied here.
    terminal: Option<Streams>,
    ended: bool,
}

/// One of the descriptors of an exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Its report.
    Report,
    /// Its terminal or who is attached to it.
    Stream(Source),
    /// Its process.
    Process,
}

/// All execs of a container.
#[derive(Debug, Default)]
pub(super) struct Execs {
    all: Vec<Running>,
    next_serial: u64,
    entered: bool,
}

impl Execs {
    /// Starts one; its events follow.
    pub(super) fn start(
        &mut self,
        target: Target<'_>,
        request: ExecRequest,
        fds: Vec<OwnedFd>,
    ) -> Result<(), Event> {
        let exec_id = request.exec_id.clone();
        self.try_start(target, request, fds)
            .map_err(|error| Event::ExecFailed { exec_id, failure: error.into_failure("exec") })
    }

    fn try_start(
        &mut self,
        target: Target<'_>,
        request: ExecRequest,
        fds: Vec<OwnedFd>,
    ) -> Result<()> {
        if self.find(&request.exec_id).is_some() {
            return Err(Error::invalid("exec_id", "in use"));
        }
        if !self.entered {
            exec::enter_pid_namespace(target)?;
            self.entered = true;
        }
        let mut fds = fds.into_iter();
        let (child, report, terminal) = if request.tty {
            let stdio = Stdio::Terminal(request.console_size);
            let (child, report) = start(target, &request, stdio)?;
            let mut streams = Streams::of_terminal(None);
            if let Some(socket) = fds.next() {
                streams.attach(socket, all_streams(request.detach_keys));
            }
            (child, report, Some(streams))
        } else {
            let wanted = [request.stdin, request.stdout, request.stderr];
            let null = pipes::null()?;
            let given = wanted.map(|wanted| if wanted { fds.next() } else { None });
            let stdio = given.each_ref().map(|fd| fd.as_ref().map_or(null.as_fd(), AsFd::as_fd));
            let (child, report) = start(target, &request, Stdio::Fds(stdio))?;
            (child, report, None)
        };
        self.next_serial += 1;
        self.all.push(Running {
            serial: self.next_serial,
            id: request.exec_id,
            child,
            report: Some(report),
            failed: false,
            terminal,
            ended: false,
        });
        Ok(())
    }

    /// Id and process of each that runs.
    pub(super) fn list(&self) -> Vec<(String, u32)> {
        let running = self.all.iter().filter(|exec| !exec.ended && !exec.failed);
        running.map(|exec| (exec.id.clone(), exec.child.pid)).collect()
    }

    /// Sets the size of a terminal.
    pub(super) fn resize(&self, id: &str, rows: u16, cols: u16) {
        let terminal = self.find(id).and_then(|exec| exec.terminal.as_ref());
        if let Some(master) = terminal.and_then(Streams::terminal) {
            let _ = pty::set_size(master, rows, cols);
        }
    }

    /// Sends a signal.
    pub(super) fn signal(&self, id: &str, signal: i32) {
        if let Some(exec) = self.find(id) {
            let _ = process::send_signal(exec.child.pidfd.as_fd(), signal);
        }
    }

    fn find(&self, id: &str) -> Option<&Running> {
        self.all.iter().find(|exec| exec.id == id && !exec.ended && !exec.failed)
    }

    /// What to wait for now: of each the report first.
    pub(super) fn interests(&self) -> impl Iterator<Item = (u64, Part, BorrowedFd<'_>, PollFlags)> {
        self.all.iter().flat_map(|exec| {
            let serial = exec.serial;
            let report = exec.report.as_ref().map(|r| (Part::Report, r.as_fd(), PollFlags::IN));
            let streams = exec.terminal.iter().flat_map(Streams::interests);
            let streams = streams.map(|(source, fd, flags)| (Part::Stream(source), fd, flags));
            let process =
                (!exec.ended).then(|| (Part::Process, exec.child.pidfd.as_fd(), PollFlags::IN));
            let all = report.into_iter().chain(streams).chain(process);
            all.map(move |(part, fd, flags)| (serial, part, fd, flags))
        })
    }

    /// Something happened; what there is to tell.
    pub(super) fn ready(&mut self, serial: u64, part: Part, flags: PollFlags) -> Vec<Event> {
        let mut events = Vec::new();
        let Some(exec) = self.all.iter_mut().find(|exec| exec.serial == serial) else {
            return events;
        };
        match part {
            Part::Report => exec.read_report(&mut events),
            Part::Process => exec.end(&mut events),
            Part::Stream(source) => {
                if let Some(streams) = &mut exec.terminal {
                    streams.ready(source, flags);
                    if exec.ended {
                        streams.dismiss();
                    }
                }
            }
        }
        self.all.retain(Running::is_alive);
        events
    }

    /// The container has ended and with it all of these.
    pub(super) fn end_all(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for exec in self.all.iter_mut().filter(|exec| !exec.ended) {
            exec.end(&mut events);
        }
        self.all.retain(Running::is_alive);
        events
    }

    /// Nothing left to wait for.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

impl Running {
    /// Clients of a terminal may still have output to read.
    fn is_alive(&self) -> bool {
        !self.ended || self.terminal.as_ref().is_some_and(Streams::has_clients)
    }

    fn read_report(&mut self, events: &mut Vec<Event>) {
        let Some(report) = &self.report else { return };
        let exec_id = self.id.clone();
        match report.recv() {
            Ok(Some((Report::Ready, mut fds))) => {
                if let (Some(streams), Some(master)) = (&mut self.terminal, fds.pop()) {
                    let _ = streams.set_terminal(master, true);
                }
                return;
            }
            Ok(None) => events.push(Event::ExecStarted { exec_id, pid: self.child.pid }),
            Ok(Some((Report::Failed(failure), _))) => {
                self.failed = true;
                events.push(Event::ExecFailed { exec_id, failure });
            }
            Err(error) => {
                self.failed = true;
                let failure = Failure::engine("exec", error);
                events.push(Event::ExecFailed { exec_id, failure });
            }
        }
        self.report = None;
    }

    /// The process has ended (or is about to): its report, its output, its code.
    fn end(&mut self, events: &mut Vec<Event>) {
        let code = process::wait(self.child.pidfd.as_fd()).map_or(255, |ended| ended.code());
        while self.report.is_some() {
            self.read_report(events);
        }
        self.ended = true;
        if let Some(streams) = &mut self.terminal {
            streams.drain();
        }
        if !self.failed {
            events.push(Event::ExecExited { exec_id: self.id.clone(), code });
        }
    }
}

fn start(
    target: Target<'_>,
    request: &ExecRequest,
    stdio: Stdio<'_>,
) -> Result<(Child, sync::Parent)> {
    let filter = Filter::of(request.seccomp.as_deref(), None)?;
    let exec = Exec { process: &request.process, filter: filter.as_ref(), stdio };
    exec::start(target, exec)
}

fn all_streams(detach_keys: Vec<u8>) -> AttachRequest {
    AttachRequest { stdin: true, stdout: true, stderr: true, detach_keys }
}
