//! The life of one container, as its monitor lives it.
//!
//! ```text
//!   (waits for Create) ──► Preparing ──► Ready ──► Starting ──► Running ──► Ended
//!                              └───────────┴──────────┴──► Failed: all unmade
//! ```
//!
//! Until the start is asked for, the end of the control channel unmakes everything:
//! nobody will ever want the container. After that a daemon may come back at any time.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use capsa_oci::runtime::Process;
use capsa_sys::atomic::{self, Durability};
use capsa_sys::channel::Channel;
use capsa_sys::process::{self, Ended};
use capsa_sys::pty;
use rustix::event::{PollFlags, Timespec};

use super::SOCKET;
use super::execs::Execs;
use super::json_log::now;
use super::pipes;
use super::streams::Streams;
use super::turn::{Token, Turn};
use crate::cgroup::Hierarchies;
use crate::error::{Error, Result};
use crate::exec::Target;
use crate::init::Gate;
use crate::launch::{Furnished, Launch};
use crate::protocol::{self, CreateRequest, Event, ExitRecord, Failure, Request};

/// So long nothing happens before the monitor tidies up.
const QUIET: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// Exit code of a monitor that has made nothing.
const NOTHING: i32 = 0;
/// Exit code of a monitor whose container could not be made.
const FAILED: i32 = 125;

/// Serves the daemon behind `control` until its container is gone; the exit code.
pub(super) fn serve(control: Channel) -> i32 {
    // Looked up while nobody waits: a monitor is often started ahead of its use.
    let hierarchies = Hierarchies::discover();
    let (request, listener) = loop {
        match protocol::recv::<Request>(&control) {
            Ok(Some((Request::Create(request), fds))) => break (request, fds.into_iter().next()),
            Ok(Some((Request::Status, _))) => {
                let _ = protocol::try_send(&control, &idle());
            }
            Ok(Some(_)) => {}
            Ok(None) => return NOTHING,
            Err(error) => return refuse(&control, error.into_failure("create")),
        }
    };
    let Some(listener) = listener else {
        return refuse(&control, Failure::engine("create", "no socket came with the request"));
    };
    let made = hierarchies.and_then(|found| make(&control, &request, &found));
    match made {
        Ok(made) => Monitor::new(control, listener.into(), *request, made).run(),
        Err(error) => {
            let _ = fs::remove_file(request.dir.join(SOCKET));
            refuse(&control, error.into_failure("create"))
        }
    }
}

fn idle() -> Event {
    let (execs, note) = (Vec::new(), String::new());
    Event::Status { pid: None, started_ns: 0, running: false, execs, note }
}

fn refuse(control: &Channel, failure: Failure) -> i32 {
    let _ = protocol::try_send(control, &Event::Failed(failure));
    FAILED
}

fn make(
    control: &Channel,
    request: &CreateRequest,
    hierarchies: &Hierarchies,
) -> Result<(Furnished, Streams)> {
    let (streams, ends) = pipes::make(request)?;
    let linux = request.spec.linux.as_ref();
    let default = format!("/capsa/{}", request.id);
    let launch = Launch {
        spec: &request.spec,
        rootfs: &request.rootfs,
        dir: &request.dir,
        filter: request.seccomp.as_deref(),
        reaper: request.init,
        stdio: ends.stdio(),
        cgroup_path: linux.and_then(|linux| linux.cgroups_path.as_deref()).unwrap_or(&default),
        hierarchies,
        state: None,
    };
    let born = launch.clone(Gate::Channel)?;
    // A daemon that is gone by now is noticed at the first turn.
    let _ = protocol::try_send(control, &Event::Created { pid: born.child.pid });
    Ok((launch.furnish(born, &mut |_| Ok(()))?, streams))
}

/// How far the container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Init is at work; the daemon has asked for the start already, or not.
    Preparing { asked: bool },
    /// Only `Start` is missing.
    Ready,
    /// Init is executing the program.
    Starting,
    /// The program runs.
    Running,
    /// It has ended and so has all that it left; clients may still be reading.
    Ended,
    /// It never ran and is unmade.
    Failed,
}

struct Monitor {
    control: Option<Channel>,
    listener: Option<Channel>,
    socket: PathBuf,
    exit_record: PathBuf,
    /// The daemon's own words.
    note: String,
    /// What `Ready` needs; dropped with the rest of the request.
    process: Process,
    keep_input: bool,
    size: Option<(u16, u16)>,
    container: Furnished,
    streams: Streams,
    execs: Execs,
    phase: Phase,
    started_ns: i64,
    /// There is something to tidy up once it is quiet.
    untidy: bool,
}

impl Monitor {
    fn new(
        control: Channel,
        listener: Channel,
        request: CreateRequest,
        (container, streams): (Furnished, Streams),
    ) -> Self {
        Self {
            control: Some(control),
            listener: Some(listener),
            socket: request.dir.join(SOCKET),
            exit_record: request.exit_record,
            note: request.note,
            process: request.spec.process.unwrap_or_default(),
            keep_input: request.stdio.open_stdin,
            size: None,
            container,
            streams,
            execs: Execs::default(),
            phase: Phase::Preparing { asked: false },
            started_ns: 0,
            untidy: false,
        }
    }

    fn run(&mut self) -> i32 {
        while !self.is_done() {
            let ready = self.wait();
            if ready.is_empty() {
                self.tidy();
            }
            for (token, flags) in ready {
                self.handle(token, flags);
            }
        }
        let _ = fs::remove_file(&self.socket);
        if self.phase == Phase::Failed { FAILED } else { NOTHING }
    }

    fn is_done(&self) -> bool {
        match self.phase {
            Phase::Failed => true,
            Phase::Ended => !self.streams.has_clients() && self.execs.is_empty(),
            _ => false,
        }
    }

    /// What is ready; nothing when it was quiet for long enough to tidy up.
    fn wait(&self) -> Vec<(Token, PollFlags)> {
        let mut turn = Turn::default();
        for (token, channel) in [(Token::Control, &self.control), (Token::Listener, &self.listener)]
        {
            if let Some(channel) = channel {
                turn.add(token, channel.as_fd(), PollFlags::IN);
            }
        }
        if !matches!(self.phase, Phase::Ready | Phase::Running | Phase::Ended) {
            turn.add(Token::Report, self.container.sync.as_fd(), PollFlags::IN);
        }
        for (source, fd, flags) in self.streams.interests() {
            turn.add(Token::Stream(source), fd, flags);
        }
        for (serial, part, fd, flags) in self.execs.interests() {
            turn.add(Token::Exec(serial, part), fd, flags);
        }
        if self.phase != Phase::Ended {
            turn.add(Token::Process, self.container.child.pidfd.as_fd(), PollFlags::IN);
        }
        turn.wait(self.untidy.then_some(&QUIET))
    }

    fn handle(&mut self, token: Token, flags: PollFlags) {
        match token {
            Token::Control => self.read_control(),
            Token::Listener => self.accept(),
            Token::Report => self.read_report(),
            Token::Process => self.end(),
            Token::Exec(serial, part) => {
                for event in self.execs.ready(serial, part, flags) {
                    self.tell(&event);
                }
            }
            Token::Stream(source) => {
                self.streams.ready(source, flags);
                if self.phase == Phase::Ended {
                    self.streams.dismiss();
                }
            }
        }
    }

    /// A daemon that does not read its messages loses its channel; it may come back.
    fn tell(&mut self, event: &Event) {
        let told = self.control.as_ref().map(|control| protocol::try_send(control, event));
        if let Some(Err(_)) = told {
            self.lose_control();
        }
    }

    fn lose_control(&mut self) {
        self.control = None;
        if matches!(self.phase, Phase::Preparing { .. } | Phase::Ready) {
            self.give_up();
        }
    }

    /// Kills and removes what was made.
    fn give_up(&mut self) {
        if self.phase != Phase::Failed {
            self.container.unmake();
            self.phase = Phase::Failed;
        }
    }

    fn fail(&mut self, error: Error) {
        let failure = error.into_failure("start");
        self.give_up();
        let _ = fs::remove_file(&self.socket);
        self.tell(&Event::Failed(failure));
    }

    fn accept(&mut self) {
        let accepted = self.listener.as_ref().map(Channel::accept);
        if let Some(Ok(channel)) = accepted {
            self.control = Some(channel);
            let status = self.status();
            self.tell(&status);
        }
    }

    fn status(&self) -> Event {
        Event::Status {
            pid: Some(self.container.child.pid),
            started_ns: self.started_ns,
            running: self.phase == Phase::Running,
            execs: self.execs.list(),
            note: self.note.clone(),
        }
    }

    fn read_control(&mut self) {
        let Some(control) = &self.control else { return };
        match protocol::recv::<Request>(control) {
            Ok(Some((request, fds))) => self.obey(request, fds),
            // Not our language: nothing was understood, nothing is done.
            Err(Error::Message(_)) => {}
            Ok(None) | Err(_) => self.lose_control(),
        }
    }

    fn obey(&mut self, request: Request, fds: Vec<OwnedFd>) {
        match request {
            Request::Create(_) => {}
            Request::Start => self.start(),
            Request::Attach(wants) => {
                if let Some(socket) = fds.into_iter().next() {
                    self.streams.attach(socket, wants);
                }
                if self.phase == Phase::Ended {
                    self.streams.dismiss();
                }
            }
            Request::Exec(request) => self.exec(*request, fds),
            Request::Resize { rows, cols } => {
                self.size = Some((rows, cols));
                self.resize();
            }
            Request::ExecResize { exec_id, rows, cols } => self.execs.resize(&exec_id, rows, cols),
            Request::Signal { signal, all: false } => {
                let _ = process::send_signal(self.container.child.pidfd.as_fd(), signal);
            }
            Request::Signal { signal, all: true } => {
                let _ = self.container.cgroup.signal_all(signal);
            }
            Request::ExecSignal { exec_id, signal } => self.execs.signal(&exec_id, signal),
            Request::Status => {
                let status = self.status();
                self.tell(&status);
            }
            Request::CloseStdin => self.streams.close_input(),
        }
    }

    fn resize(&self) {
        if let (Some(master), Some((rows, cols))) = (self.streams.terminal(), self.size) {
            let _ = pty::set_size(master, rows, cols);
        }
    }

    fn start(&mut self) {
        match self.phase {
            Phase::Preparing { .. } => self.phase = Phase::Preparing { asked: true },
            // Nobody would know of the program: the next daemon finds nothing instead.
            Phase::Ready if self.control.as_ref().is_none_or(Channel::is_closed) => {
                self.lose_control();
            }
            Phase::Ready => match self.container.start() {
                Ok(()) => self.phase = Phase::Starting,
                Err(error) => self.fail(error),
            },
            _ => {}
        }
    }

    fn exec(&mut self, request: crate::protocol::ExecRequest, fds: Vec<OwnedFd>) {
        let started = if self.phase == Phase::Running {
            let target = Target {
                pidfd: self.container.child.pidfd.as_fd(),
                namespaces: &self.container.namespaces,
                cgroup: &self.container.cgroup,
            };
            self.execs.start(target, request, fds)
        } else {
            let failure = Failure::engine("exec", "the container is not running");
            Err(Event::ExecFailed { exec_id: request.exec_id, failure })
        };
        if let Err(event) = started {
            self.tell(&event);
        }
    }

    /// Init is ready, or the program runs, or one of both has failed.
    fn read_report(&mut self) {
        match self.phase {
            Phase::Preparing { asked } => match self.container.wait_ready(&self.process) {
                Ok(master) => {
                    if let Some(master) = master {
                        let _ = self.streams.set_terminal(master, self.keep_input);
                        self.resize();
                    }
                    self.phase = Phase::Ready;
                    if asked {
                        self.start();
                    }
                }
                Err(error) => self.fail(error),
            },
            Phase::Starting => match self.container.started() {
                Ok(()) => self.set_running(),
                Err(error) => self.fail(error),
            },
            _ => {}
        }
    }

    fn set_running(&mut self) {
        self.phase = Phase::Running;
        self.started_ns = now();
        self.untidy = true;
        self.tell(&Event::Started { at_ns: self.started_ns });
    }

    /// Drops what making the container has left, and the memory it took. Each mount that
    /// is let go waits for the kernel; the first output of the program must not.
    fn tidy(&mut self) {
        self.untidy = false;
        self.container.leftovers = Vec::new();
        self.process = Process::default();
        process::trim_memory();
    }

    /// The first process has ended.
    fn end(&mut self) {
        match self.phase {
            Phase::Running => {}
            Phase::Starting | Phase::Preparing { .. } => {
                // Its last words come first.
                self.read_report();
                if matches!(self.phase, Phase::Preparing { .. } | Phase::Ready) {
                    self.fail(Error::InitGone);
                }
            }
            Phase::Ready => self.fail(Error::InitGone),
            Phase::Ended | Phase::Failed => {}
        }
        if self.phase == Phase::Running {
            self.finish();
        }
    }

    fn finish(&mut self) {
        let finished_ns = now();
        let ended = process::wait(self.container.child.pidfd.as_fd()).unwrap_or(Ended::Code(255));
        let cgroup = &self.container.cgroup;
        let _ = cgroup.kill_all();
        let oom_killed = cgroup.oom_kills() > 0;
        let _ = cgroup.remove();
        self.streams.drain();
        for event in self.execs.end_all() {
            self.tell(&event);
        }
        let signal = match ended {
            Ended::Signal(signal) => Some(signal),
            Ended::Code(_) => None,
        };
        let record = ExitRecord {
            code: ended.code(),
            signal,
            oom_killed,
            started_ns: self.started_ns,
            finished_ns,
        };
        write_record(&self.exit_record, &record);
        self.phase = Phase::Ended;
        // Whoever looks for a live monitor from now on has to find the record.
        let _ = fs::remove_file(&self.socket);
        self.listener = None;
        self.tell(&Event::Exited(record));
    }
}

/// A failure leaves no record, which a daemon takes for a lost container; there is
/// nothing better to do with it here.
fn write_record(path: &Path, record: &ExitRecord) {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return;
    };
    if let Ok(text) = serde_json::to_vec(record) {
        let _ = atomic::write(dir, name, &text, Durability::Process);
    }
}
