//! One more process in a running container.
//!
//! The monitor's own pid namespace for children becomes the container's at the first
//! exec, so that one clone is enough; the child joins the other namespaces by itself,
//! all in one call, after it has made its memory unreadable.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use capsa_oci::runtime::{NamespaceKind, Process};
use capsa_sys::mount;
use capsa_sys::process::{self, Child, Clone, Forked};
use capsa_sys::pty;
use capsa_sys::root::RootDir;
use capsa_sys::{namespace, signal};
use rustix::fs::{Mode, OFlags};

use crate::cgroup::Cgroup;
use crate::error::{Error, Result, Stage};
use crate::init::sync::{self, Report};
use crate::init::{Filter, IGNORED_BY_US, Program, identity, schedule};
use crate::launch;
use crate::namespaces::Namespaces;

/// The container that an exec goes into.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    /// Its first process.
    pub(crate) pidfd: BorrowedFd<'a>,
    /// What it has made and joined.
    pub(crate) namespaces: &'a Namespaces,
    /// Its cgroup.
    pub(crate) cgroup: &'a Cgroup,
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exec<'a> {
    /// Program and identity.
    pub(crate) process: &'a Process,
    /// A compiled filter.
    pub(crate) filter: Option<&'a Filter>,
    /// Descriptors 0 to 2.
    pub(crate) stdio: launch::Stdio<'a>,
}

/// Makes children of the calling process be born into the container's pid namespace,
/// from now on.
pub(crate) fn enter_pid_namespace(target: Target<'_>) -> Result<()> {
    if !target.namespaces.has(NamespaceKind::Pid) {
        return Ok(());
    }
    namespace::join(target.pidfd, Clone::NEWPID).stage("namespaces")
}

/// Starts a process. Its report comes on the channel: `Ready` with the master of a
/// terminal if it has one, `Failed`, or the end when the program runs.
pub(crate) fn start(target: Target<'_>, exec: Exec<'_>) -> Result<(Child, sync::Parent)> {
    let (parent, channel) = sync::pair()?;
    match process::clone(Clone::empty(), target.cgroup.v2_fd()).stage("exec")? {
        Forked::Parent(child) => Ok((child, parent)),
        Forked::Child => {
            drop(parent);
            let failure = match prepare(target, exec, &channel) {
                Ok(program) => program.exec(),
                Err(error) => error.into_failure("exec"),
            };
            let _ = channel.send(&Report::Failed(failure.clone()), &[]);
            process::exit_now(failure.code)
        }
    }
}

fn prepare(target: Target<'_>, exec: Exec<'_>, channel: &sync::Init) -> Result<Program> {
    signal::set_default(&IGNORED_BY_US);
    identity::hide_memory().stage("user")?;
    launch::set_rlimits(None, exec.process)?;
    launch::set_oom_score("self", exec.process)?;
    let apparmor = identity::apparmor_file(exec.process)?;
    for tasks in target.cgroup.join_fds()? {
        let written = File::from(tasks).write_all(b"0");
        written
            .map_err(|e| capsa_sys::Error::from_io("write", "cgroup tasks", &e))
            .stage("cgroup")?;
    }
    rustix::process::setsid().ok();
    let kinds = target.namespaces.all() - Clone::NEWPID;
    namespace::join(target.pidfd, kinds).stage("namespaces")?;
    if target.namespaces.has(NamespaceKind::User) {
        identity::set_ids(0, 0).stage("user")?;
    }
    match exec.stdio {
        launch::Stdio::Inherit => {}
        launch::Stdio::Fds(fds) => identity::take_streams(fds).stage("stdio")?,
        launch::Stdio::Terminal(size) => terminal(exec.process, size, channel)?,
    }
    process::close_on_exec_from(3).stage("stdio")?;
    identity::confine(apparmor)?;
    schedule::apply(exec.process)?;
    identity::assume(exec.process, exec.filter)?;
    Program::find(exec.process).map_err(Error::Init)
}

fn terminal(process: &Process, size: Option<(u16, u16)>, channel: &sync::Init) -> Result<()> {
    let root = RootDir::from_fd(mount::root().stage("terminal")?);
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let pts = root.open_in(Path::new("dev/pts"), flags, Mode::empty()).stage("terminal")?;
    let pty = pty::open(pts.as_fd()).stage("terminal")?;
    if let Some((rows, cols)) = size {
        pty::set_size(pty.terminal.as_fd(), rows, cols).stage("terminal")?;
    }
    identity::take_terminal(&pty, &process.user).stage("terminal")?;
    channel.send(&Report::Ready, &[pty.master.as_fd()])
}
