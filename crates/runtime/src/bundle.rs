//! Containers without a monitor: made by one process, started by another, as the OCI
//! runtime verbs do it.
//!
//! Between the two init waits at a FIFO that its maker chose: one byte written to it
//! lets the program run. Streams are those of the maker, or a terminal whose master the
//! maker gets. Whoever called [`create`] is the parent of the container.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use capsa_oci::runtime::{Process, RuntimeSpec, State};
use capsa_sys::process;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::cgroup::{Cgroup, Hierarchies};
use crate::error::{Error, Result, Stage};
use crate::exec::{self, Exec, Target};
use crate::init::sync::Report;
use crate::init::{Filter, Gate};
use crate::launch::{Launch, Stdio};
use crate::namespaces::Namespaces;
use crate::protocol::RootfsPlan;

/// A container to make.
#[derive(Clone, Copy, Debug)]
pub struct Create<'a> {
    /// Its `config.json`.
    pub spec: &'a RuntimeSpec,
    /// Where its root comes from.
    pub rootfs: &'a RootfsPlan,
    /// A directory of the caller's for short-lived files.
    pub dir: &'a Path,
    /// Path of its cgroup in each hierarchy.
    pub cgroup_path: &'a str,
    /// A FIFO that [`make_start_fifo`] made.
    pub start_fifo: &'a Path,
    /// For the hooks; its pid is filled in.
    pub state: &'a State,
}

/// A container that only waits for its start.
#[derive(Debug)]
pub struct Created {
    /// Its first process.
    pub pid: u32,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    /// Master of its terminal, if `process.terminal` is set.
    pub terminal: Option<OwnedFd>,
    /// Its cgroup.
    pub cgroup: Cgroup,
}

/// One more process in a container.
#[derive(Clone, Copy, Debug)]
pub struct Join<'a> {
    /// The container's `config.json`.
    pub spec: &'a RuntimeSpec,
    /// The container's first process.
    pub pid: u32,
    /// Its cgroup.
    pub cgroup: &'a Cgroup,
    /// What to run.
    pub process: &'a Process,
}

/// A process that runs in a container.
#[derive(Debug)]
pub struct Joined {
    /// Its id on the host.
    pub pid: u32,
    /// Readable when it has ended; the caller is its parent.
    pub pidfd: OwnedFd,
    /// Master of its terminal, if `process.terminal` is set.
    pub terminal: Option<OwnedFd>,
}

/// Makes the FIFO at which a container waits.
pub fn make_start_fifo(path: &Path) -> Result<()> {
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, mode, 0)
        .map_err(|e| capsa_sys::Error::new("mkfifo", path.display(), e))
        .stage("start fifo")
}

/// Makes a container. `started` is called with its pid once its namespaces, ids and
/// cgroup exist, before its mounts: the place of the hooks of the host. After an error
/// nothing of the container is left.
pub fn create(create: &Create<'_>, started: &mut dyn FnMut(u32) -> Result<()>) -> Result<Created> {
    let process = create.spec.process.as_ref();
    let process = process.ok_or_else(|| Error::invalid("process", "missing"))?;
    let hierarchies = Hierarchies::discover()?;
    let launch = Launch {
        spec: create.spec,
        rootfs: create.rootfs,
        dir: create.dir,
        filter: None,
        reaper: false,
        stdio: stdio(process),
        cgroup_path: create.cgroup_path,
        hierarchies: &hierarchies,
        state: Some(create.state),
    };
    // Open for both directions it never blocks here and never ends.
    let fifo = rustix::fs::open(create.start_fifo, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| capsa_sys::Error::new("open", create.start_fifo.display(), e))
        .stage("start fifo")?;
    let born = launch.clone(Gate::Fifo(fifo))?;
    let mut furnished = launch.furnish(born, started)?;
    match furnished.wait_ready(process) {
        Ok(terminal) => Ok(Created {
            pid: furnished.child.pid,
            pidfd: furnished.child.pidfd,
            terminal,
            cgroup: furnished.cgroup,
        }),
        Err(error) => {
            furnished.unmake();
            Err(error)
        }
    }
}

/// Lets the program of a container run, once: the FIFO is gone afterwards. That nobody
/// waits at it is an error.
pub fn start(fifo: &Path) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(fifo, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT => Error::invalid("container", "it was started already"),
        Errno::NXIO => Error::InitGone,
        other => capsa_sys::Error::new("open", fifo.display(), other).into(),
    })?;
    fs::remove_file(fifo).map_err(|e| capsa_sys::Error::from_io("unlink", fifo.display(), &e))?;
    rustix::io::write(file, b"S")
        .map(drop)
        .map_err(|e| capsa_sys::Error::new("write", fifo.display(), e).into())
}

/// Runs one more process in a container, with the caller's streams or a terminal. From
/// then on all children of the caller are born into the container's pid namespace.
pub fn join(join: &Join<'_>) -> Result<Joined> {
    let linux = join.spec.linux.as_ref().ok_or_else(|| Error::invalid("linux", "missing"))?;
    let namespaces = Namespaces::of(linux)?;
    let init = process::pidfd_open(join.pid)?;
    let target = Target { pidfd: init.as_fd(), namespaces: &namespaces, cgroup: join.cgroup };
    let filter = Filter::of(None, linux.seccomp.as_ref())?;
    let exec = Exec { process: join.process, filter: filter.as_ref(), stdio: stdio(join.process) };
    exec::enter_pid_namespace(target)?;
    let (child, report) = exec::start(target, exec)?;
    let mut terminal = None;
    loop {
        match report.recv()? {
            None => break,
            Some((Report::Ready, mut fds)) => terminal = fds.pop(),
            Some((Report::Failed(failure), _)) => {
                let _ = process::wait(child.pidfd.as_fd());
                return Err(Error::Init(failure));
            }
        }
    }
    Ok(Joined { pid: child.pid, pidfd: child.pidfd, terminal })
}

fn stdio(process: &Process) -> Stdio<'static> {
    if !process.terminal {
        return Stdio::Inherit;
    }
    let characters = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
    Stdio::Terminal(process.console_size.map(|s| (characters(s.height), characters(s.width))))
}
