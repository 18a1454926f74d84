//! The code between clone and exec: from fresh namespaces to the user's program.
//!
//! Namespaces and cgroup, root and mounts, devices and masks, identity, and then the
//! wait for `Start`. It runs single-threaded in the container's own namespaces; all
//! that needs the host's rights comes as descriptors from the process that made it.
//! Every error goes back with its step. Nothing here looks at a path inside the
//! container but through its root.

mod cgroups;
mod copy_up;
mod devices;
mod guard;
pub(crate) mod identity;
mod mounts;
pub(crate) mod options;
mod program;
mod reaper;
pub(crate) mod schedule;
pub(crate) mod sync;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use capsa_oci::runtime::{Hook, Hooks, NamespaceKind, Process, RuntimeSpec, Seccomp, State};
use capsa_sys::mount::{self, Change, Propagation};
use capsa_sys::process::{self, Clone};
use capsa_sys::pty::{self, Pty};
use capsa_sys::root::RootDir;
use capsa_sys::seccomp::Flags;
use capsa_sys::{namespace, signal};
use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result, Stage};
use crate::namespaces::Namespaces;
use crate::protocol::Failure;
use crate::{hooks, seccomp};
pub(crate) use devices::{kind_of, own};
pub(crate) use program::Program;
use sync::{Join, Report};

/// Everything init needs to know; it owns a copy of the parent's memory.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) spec: &'a RuntimeSpec,
    pub(crate) process: &'a Process,
    pub(crate) namespaces: &'a Namespaces,
    pub(crate) filter: Option<&'a Filter>,
    /// Stay as process 1 and run the program as a child.
    pub(crate) reaper: bool,
    pub(crate) stdio: Stdio<'a>,
    pub(crate) gate: Gate,
    /// For the hooks of the spec that run in here; without it none run.
    pub(crate) state: Option<&'a State>,
}

/// A compiled system call filter and how to load it.
#[derive(Debug)]
pub(crate) struct Filter {
    program: Vec<u8>,
    flags: Flags,
}

impl Filter {
    /// The compiled `program` if there is one, else the profile of the spec.
    pub(crate) fn of(program: Option<&[u8]>, profile: Option<&Seccomp>) -> Result<Option<Self>> {
        let flags = profile.map(seccomp::flags).transpose()?.unwrap_or_default();
        if flags.new_listener {
            return Err(Error::invalid("linux.seccomp.listenerPath", "not supported"));
        }
        let program = match (program, profile) {
            (Some(program), _) => program.to_vec(),
            (None, Some(profile)) => seccomp::compile(profile)?,
            (None, None) => return Ok(None),
        };
        Ok(Some(Self { program, flags }))
    }
}

/// What becomes descriptors 0 to 2.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stdio<'a> {
    /// They stay what they are.
    Inherit,
    /// These.
    Fds([BorrowedFd<'a>; 3]),
    /// A new terminal of the container, of this size (rows, columns).
    Terminal(Option<(u16, u16)>),
}

/// What init waits for when it is ready.
#[derive(Debug)]
pub(crate) enum Gate {
    /// `Start` on its channel.
    Channel,
    /// One byte in a FIFO, open for reading and writing; from any process.
    Fifo(OwnedFd),
}

/// Signals that the monitor ignores and no program should find ignored.
pub(crate) const IGNORED_BY_US: [i32; 4] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE];

/// Runs init to its end.
pub(crate) fn run(plan: &Plan<'_>, channel: sync::Init) -> ! {
    let failure = match prepare(plan, &channel) {
        Ok(program) => launch(plan, &program, channel),
        Err(error) => {
            let _ = channel.send(&Report::Failed(error.into_failure("init")), &[]);
            None
        }
    };
    process::exit_now(failure.map_or(1, |failure: Failure| failure.code));
}

/// From `Ready` to exec. Returns only on failure.
fn launch(plan: &Plan<'_>, program: &Program, channel: sync::Init) -> Option<Failure> {
    let opened = match &plan.gate {
        Gate::Channel => channel.recv_start(),
        Gate::Fifo(fifo) => wait_fifo(fifo),
    };
    // The other side is gone: nobody is left to tell.
    opened.ok()?;
    if let Err(error) = run_hooks(plan, |hooks| &hooks.start_container, "running") {
        return Some(complain(plan, &channel, error.into_failure("hooks")));
    }
    if plan.reaper {
        return reaper::run(program, channel);
    }
    Some(complain(plan, &channel, program.exec()))
}

/// Tells the parent; or, when another process has started the container, whoever reads
/// its stderr.
fn complain(plan: &Plan<'_>, channel: &sync::Init, failure: Failure) -> Failure {
    if let Gate::Fifo(_) = plan.gate {
        let _ = rustix::io::write(rustix::stdio::stderr(), format!("{failure}\n").as_bytes());
    }
    let _ = channel.send(&Report::Failed(failure.clone()), &[]);
    failure
}

fn run_hooks(plan: &Plan<'_>, which: fn(&Hooks) -> &Vec<Hook>, status: &str) -> Result<()> {
    let (Some(all), Some(state)) = (&plan.spec.hooks, plan.state) else { return Ok(()) };
    let state = State {
        status: status.to_owned(),
        // As the container's own pid namespace knows it.
        pid: Some(std::process::id()),
        ..state.clone()
    };
    hooks::run(which(all), &state)
}

fn wait_fifo(fifo: &OwnedFd) -> Result<()> {
    let copy = fifo.try_clone().map_err(|e| capsa_sys::Error::from_io("dup", "start fifo", &e))?;
    let read = File::from(copy).read_exact(&mut [0]);
    read.map_err(|e| capsa_sys::Error::from_io("read", "start fifo", &e).into())
}

fn prepare(plan: &Plan<'_>, channel: &sync::Init) -> Result<Program> {
    signal::set_default(&IGNORED_BY_US);
    rustix::process::umask(Mode::empty());
    become_root(plan, channel)?;
    let mut mounts = mounts::prepare(plan)?;
    let cgroup = join(plan, channel)?;
    let mut fds = channel.recv_mounts(mounts.expected_fds() + 1)?.into_iter();
    let root = fds.next().ok_or(Error::InitGone)?;
    mounts.take(fds);
    mount::attach_over_root(root.as_fd()).stage("rootfs")?;
    let root = RootDir::from_fd(root);
    mounts.attach(&root, &cgroup)?;
    let terminal = furnish(plan, &root, mounts)?;
    let sysctl = guard::Sysctl::open(plan)?;
    let apparmor = identity::apparmor_file(plan.process)?;
    run_hooks(plan, |hooks| &hooks.create_container, "creating")?;
    guard::protect(plan, &root)?;
    mount::enter_root(root.as_fd()).stage("rootfs")?;
    set_root_propagation(plan)?;
    set_names(plan.spec)?;
    sysctl.write()?;
    let program = become_user(plan, terminal.as_ref(), apparmor)?;
    let master = terminal.as_ref().map(|pty| pty.master.as_fd());
    channel.send(&Report::Ready, master.as_slice())?;
    Ok(program)
}

/// Into a session of its own and the identity of the container's root.
fn become_root(plan: &Plan<'_>, channel: &sync::Init) -> Result<()> {
    channel.recv_mapped()?;
    rustix::process::setsid().ok();
    if plan.namespaces.has(NamespaceKind::User) {
        identity::set_ids(0, 0).stage("user")?;
    }
    identity::hide_memory().stage("user")?;
    let slave =
        Change { propagation: Some(Propagation::Slave), recursive: true, ..Change::default() };
    mount::change(mount::root().stage("rootfs")?.as_fd(), &slave).stage("rootfs")
}

/// Into the cgroup.
fn join(plan: &Plan<'_>, channel: &sync::Init) -> Result<Join> {
    let (cgroup, tasks) = channel.recv_join()?;
    for tasks in tasks {
        let written = File::from(tasks).write_all(b"0");
        written
            .map_err(|e| capsa_sys::Error::from_io("write", "cgroup tasks", &e))
            .stage("cgroup")?;
    }
    if plan.namespaces.made.0.contains(Clone::NEWCGROUP) {
        namespace::unshare(Clone::NEWCGROUP).stage("namespaces")?;
    }
    Ok(cgroup)
}

/// `/dev`, and the container's terminal if it has one.
fn furnish(plan: &Plan<'_>, root: &RootDir, mounts: mounts::Mounts<'_>) -> Result<Option<Pty>> {
    let own_dev = mounts.has_own_dev();
    if own_dev {
        devices::fill(plan, root, mounts.into_devices()).stage("devices")?;
    }
    let Stdio::Terminal(size) = plan.stdio else { return Ok(None) };
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let pts = root.open_in(Path::new("dev/pts"), flags, Mode::empty()).stage("terminal")?;
    let pty = pty::open(pts.as_fd()).stage("terminal")?;
    if let Some((rows, cols)) = size {
        pty::set_size(pty.terminal.as_fd(), rows, cols).stage("terminal")?;
    }
    if own_dev {
        devices::bind_console(root, &pty.terminal).stage("terminal")?;
    }
    Ok(Some(pty))
}

fn set_root_propagation(plan: &Plan<'_>) -> Result<()> {
    let linux = plan.spec.linux.as_ref();
    let Some(wanted) = linux.and_then(|linux| linux.rootfs_propagation.as_deref()) else {
        return Ok(());
    };
    let Some((propagation, depth)) = options::propagation(wanted).filter(|_| !wanted.is_empty())
    else {
        return Err(Error::invalid("linux.rootfsPropagation", wanted));
    };
    if propagation == Propagation::Private {
        return Ok(());
    }
    let change =
        Change { propagation: Some(propagation), recursive: depth.is_all(), ..Change::default() };
    mount::change(mount::root().stage("rootfs")?.as_fd(), &change).stage("rootfs")
}

fn set_names(spec: &RuntimeSpec) -> Result<()> {
    if let Some(name) = spec.hostname.as_deref().filter(|name| !name.is_empty()) {
        rustix::system::sethostname(name.as_bytes())
            .map_err(|e| capsa_sys::Error::new("sethostname", name, e))
            .stage("hostname")?;
    }
    if let Some(name) = spec.domainname.as_deref().filter(|name| !name.is_empty()) {
        rustix::system::setdomainname(name.as_bytes())
            .map_err(|e| capsa_sys::Error::new("setdomainname", name, e))
            .stage("hostname")?;
    }
    Ok(())
}

/// Streams, identity, working directory; and which file to run.
fn become_user(
    plan: &Plan<'_>,
    terminal: Option<&Pty>,
    apparmor: Option<(OwnedFd, String)>,
) -> Result<Program> {
    match (plan.stdio, terminal) {
        (_, Some(pty)) => identity::take_terminal(pty, &plan.process.user).stage("terminal")?,
        (Stdio::Fds(fds), None) => identity::take_streams(fds).stage("stdio")?,
        _ => {}
    }
    process::close_on_exec_from(3).stage("stdio")?;
    identity::confine(apparmor)?;
    schedule::set_personality(plan.spec.linux.as_ref())?;
    schedule::apply(plan.process)?;
    identity::assume(plan.process, plan.filter)?;
    Program::find(plan.process).map_err(Error::Init)
}
