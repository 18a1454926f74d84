//! The parent's side of a new container: clone, mappings, cgroup, root, furniture.
//!
//! Used by the monitor, and without one by the OCI verbs. In three steps so that the
//! caller can tell others about the namespaces as soon as they exist:
//!
//! ```text
//!   Launch::clone ──► Born (the namespaces exist: network may be made)
//!   Born::furnish ──► Furnished (init works on its own)
//!   Furnished::wait_ready ──► Ready (only Start is missing)
//! ```
//!
//! Whoever drops a [`Born`] or [`Furnished`] before its program runs has to kill the
//! process and remove the cgroup; [`Furnished::unmake`] does both.

use std::fmt::Display;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use capsa_oci::runtime::{Linux, NamespaceKind, Process, RuntimeSpec, State, User};
use capsa_sys::channel::Channel;
use capsa_sys::namespace;
use capsa_sys::process::{self, Child, Clone, Forked};
use capsa_sys::rlimit::Limit;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::cgroup::{Cgroup, Hierarchies};
use crate::error::{Error, Result, Stage};
use crate::furniture;
use crate::init::sync::{self, Join, Report};
use crate::init::{self, Filter, Gate, Plan};
use crate::namespaces::{IdMaps, Namespaces, flag};
use crate::protocol::RootfsPlan;
use crate::rootfs::{self, Mapping};

pub(crate) use crate::init::Stdio;

/// A container to make.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    /// What to run and how.
    pub(crate) spec: &'a RuntimeSpec,
    /// Where its root comes from.
    pub(crate) rootfs: &'a RootfsPlan,
    /// A directory of ours for short-lived files.
    pub(crate) dir: &'a Path,
    /// A compiled filter instead of the one of the spec.
    pub(crate) filter: Option<&'a [u8]>,
    /// Our own reaper as process 1.
    pub(crate) reaper: bool,
    /// Descriptors 0 to 2.
    pub(crate) stdio: Stdio<'a>,
    /// Path of its cgroup in each hierarchy.
    pub(crate) cgroup_path: &'a str,
    /// The hierarchies of this machine.
    pub(crate) hierarchies: &'a Hierarchies,
    /// For the hooks that init runs; without it there are none.
    pub(crate) state: Option<&'a State>,
}

/// A container whose namespaces exist.
#[derive(Debug)]
pub(crate) struct Born {
    /// Its first process.
    pub(crate) child: Child,
    /// What it has made and joined.
    pub(crate) namespaces: Namespaces,
    sync: sync::Parent,
    ids: IdMaps,
    cgroup: Option<Cgroup>,
}

/// A container that gets ready by itself.
#[derive(Debug)]
pub(crate) struct Furnished {
    /// Its first process.
    pub(crate) child: Child,
    /// What it has made and joined.
    pub(crate) namespaces: Namespaces,
    /// Readable when init has something to say.
    pub(crate) sync: sync::Parent,
    /// Its cgroup.
    pub(crate) cgroup: Cgroup,
    /// To be dropped when there is time.
    pub(crate) leftovers: Vec<OwnedFd>,
    /// Device nodes on disk that init has not attached yet.
    nodes: furniture::Nodes,
}

impl Launch<'_> {
    /// Makes the namespaces and the first process.
    pub(crate) fn clone(&self, gate: Gate) -> Result<Born> {
        let (linux, process) = parts(self.spec)?;
        let namespaces = Namespaces::of(linux)?;
        let filter = Filter::of(self.filter, linux.seccomp.as_ref())?;
        // On v2 a process is born into its cgroup; on v1 it joins later by itself, and
        // the cgroup is made while others already work with the namespaces.
        let cgroup = match self.hierarchies.is_pure_v2() {
            true => Some(self.make_cgroup(linux)?),
            false => None,
        };
        let (parent, channel) = sync::pair()?;
        let plan = Plan {
            spec: self.spec,
            process,
            namespaces: &namespaces,
            filter: filter.as_ref(),
            reaper: self.reaper,
            stdio: self.stdio,
            gate,
            state: self.state,
        };
        let made = first_process(&plan, linux, cgroup.as_ref(), channel, parent);
        let (child, parent) = match made {
            Ok(made) => made,
            Err(error) => {
                let _ = cgroup.map(|cgroup| cgroup.remove());
                return Err(error);
            }
        };
        let ids = IdMaps::of(linux);
        let born = Born { child, namespaces, sync: parent, ids, cgroup };
        match born.map_ids() {
            Ok(()) => Ok(born),
            Err(error) => {
                unmake(&born.child, born.cgroup.as_ref());
                Err(error)
            }
        }
    }

    fn make_cgroup(&self, linux: &Linux) -> Result<Cgroup> {
        Cgroup::create_in(self.hierarchies, self.cgroup_path, linux.resources.as_ref())
    }

    /// Gives the container its cgroup, ids, root and mounts; `joined` is called with its
    /// pid between ids and root. After an error nothing of it is left.
    pub(crate) fn furnish(
        &self,
        born: Born,
        joined: &mut dyn FnMut(u32) -> Result<()>,
    ) -> Result<Furnished> {
        let Born { child, namespaces, sync, ids, cgroup } = born;
        let (linux, process) = parts(self.spec)?;
        let cgroup = match cgroup.map_or_else(|| self.make_cgroup(linux), Ok) {
            Ok(cgroup) => cgroup,
            Err(error) => {
                unmake(&child, None);
                return Err(error);
            }
        };
        let site = Site { child: &child, namespaces: &namespaces, sync: &sync, cgroup: &cgroup };
        match self.furnish_at(&site, &ids, process, joined) {
            Ok((leftovers, nodes)) => {
                Ok(Furnished { child, namespaces, sync, cgroup, leftovers, nodes })
            }
            Err(error) => {
                let error = said_before(&sync).unwrap_or(error);
                unmake(&child, Some(&cgroup));
                Err(error)
            }
        }
    }

    fn furnish_at(
        &self,
        site: &Site<'_>,
        ids: &IdMaps,
        process: &Process,
        joined: &mut dyn FnMut(u32) -> Result<()>,
    ) -> Result<(Vec<OwnedFd>, furniture::Nodes)> {
        let pid = site.child.pid;
        let tasks = site.cgroup.join_fds()?;
        let tasks: Vec<_> = tasks.iter().map(AsFd::as_fd).collect();
        site.sync.send_join(&Join::of(site.cgroup), &tasks)?;
        joined(pid)?;
        let foreign = site.namespaces.joins(NamespaceKind::User);
        let read;
        let ids = if foreign {
            read = IdMaps::of_process(pid)?;
            &read
        } else {
            ids
        };
        let userns = match site.namespaces.has(NamespaceKind::User) {
            true => Some(open_userns(pid)?),
            false => None,
        };
        let mapping = match &userns {
            Some(userns) => Some(Mapping { userns: userns.as_fd(), root: ids.root()? }),
            None => None,
        };
        let mut root = rootfs::build(self.rootfs, mapping)?;
        let binds = furniture::binds(self.spec, userns.as_ref().map(AsFd::as_fd))?;
        let (devices, nodes) = furniture::devices(self.spec, site.namespaces, ids, self.dir)?;
        let mut fds = vec![root.mount.as_fd()];
        fds.extend(binds.iter().chain(&devices).map(AsFd::as_fd));
        site.sync.send_mounts(&fds)?;
        drop(fds);
        set_oom_score(pid, process)?;
        // Init is not done with them yet, and dropping a mount in use costs nothing.
        root.leftovers.push(root.mount);
        root.leftovers.extend(binds);
        root.leftovers.extend(devices);
        Ok((root.leftovers, nodes))
    }
}

impl Born {
    /// First of all: without ids init can do nothing.
    fn map_ids(&self) -> Result<()> {
        if self.namespaces.made.0.contains(Clone::NEWUSER) {
            namespace::write_id_maps(self.child.pid, &self.ids.uids, &self.ids.gids)
                .stage("user namespace")?;
        }
        self.sync.send_mapped()
    }
}

/// Where furniture goes.
struct Site<'a> {
    child: &'a Child,
    namespaces: &'a Namespaces,
    sync: &'a sync::Parent,
    cgroup: &'a Cgroup,
}

impl Furnished {
    /// The next word of init: the master of its terminal if it is ready and has one.
    /// Blocks until there is one.
    pub(crate) fn wait_ready(&mut self, process: &Process) -> Result<Option<OwnedFd>> {
        let (report, mut fds) = self.sync.recv()?.ok_or(Error::InitGone)?;
        self.nodes.clear();
        match report {
            Report::Failed(failure) => Err(Error::Init(failure)),
            Report::Ready => {
                set_rlimits(Some(self.child.pid), process)?;
                Ok(fds.pop())
            }
        }
    }

    /// Lets the program run. [`Furnished::started`] tells whether it does.
    pub(crate) fn start(&self) -> Result<()> {
        self.sync.send_start()
    }

    /// After [`Furnished::start`]: blocks until the program runs or could not be run.
    pub(crate) fn started(&self) -> Result<()> {
        match self.sync.recv()? {
            None => Ok(()),
            Some((Report::Failed(failure), _)) => Err(Error::Init(failure)),
            Some((Report::Ready, _)) => Err(Error::Message("init is ready twice".to_owned())),
        }
    }

    /// Kills what there is of the container and removes its cgroup.
    pub(crate) fn unmake(&self) {
        unmake(&self.child, Some(&self.cgroup));
    }
}

/// Sets the limits of a process, or the caller's; one above the ceiling that this machine lets us have
/// is cut to it.
pub(crate) fn set_rlimits(pid: Option<u32>, process: &Process) -> Result<()> {
    for rlimit in &process.rlimits {
        let Some(limit) = Limit::parse(&rlimit.kind) else {
            return Err(Error::invalid("process.rlimits", rlimit.kind.as_str()));
        };
        match limit.set(pid, rlimit.soft, rlimit.hard) {
            Err(error) if error.errno == Errno::PERM => {
                let (_, ceiling) = limit.get();
                let hard = rlimit.hard.min(ceiling);
                limit.set(pid, rlimit.soft.min(hard), hard).stage("rlimits")?;
            }
            done => done.stage("rlimits")?,
        }
    }
    Ok(())
}

/// Lowering it needs CAP_SYS_RESOURCE; without that it stays as it is.
pub(crate) fn set_oom_score(pid: impl Display, process: &Process) -> Result<()> {
    let Some(score) = process.oom_score_adj else { return Ok(()) };
    let path = format!("/proc/{pid}/oom_score_adj");
    match std::fs::write(&path, score.to_string()) {
        Err(error) if error.kind() != std::io::ErrorKind::PermissionDenied => {
            Err(capsa_sys::Error::from_io("write", path, &error)).stage("oom score")
        }
        _ => Ok(()),
    }
}

/// The pipes of a container belong to its user, who can then open `/dev/stdout`.
pub(crate) fn own_stream(fd: BorrowedFd<'_>, linux: Option<&Linux>, user: &User) {
    let ids = linux.map(IdMaps::of).unwrap_or_default();
    if let Some((uid, _)) = ids.host_ids(user.uid, user.gid) {
        let _ = rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(uid)), None);
    }
}

fn parts(spec: &RuntimeSpec) -> Result<(&Linux, &Process)> {
    let linux = spec.linux.as_ref().ok_or_else(|| Error::invalid("linux", "missing"))?;
    let process = spec.process.as_ref().ok_or_else(|| Error::invalid("process", "missing"))?;
    Ok((linux, process))
}

/// A report that explains why the channel broke.
fn said_before(sync: &sync::Parent) -> Option<Error> {
    let mut poll = [rustix::event::PollFd::new(sync, rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::event::poll(&mut poll, Some(&now)) {
        Ok(1..) => {}
        _ => return None,
    }
    match sync.recv() {
        Ok(Some((Report::Failed(failure), _))) => Some(Error::Init(failure)),
        _ => None,
    }
}

fn unmake(child: &Child, cgroup: Option<&Cgroup>) {
    process::kill(child.pidfd.as_fd());
    let _ = process::wait(child.pidfd.as_fd());
    if let Some(cgroup) = cgroup {
        let _ = cgroup.kill_all();
        let _ = cgroup.remove();
    }
}

fn open_userns(pid: u32) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/user");
    rustix::fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| capsa_sys::Error::new("open", path, e))
        .stage("user namespace")
}

/// Clones init; through a process in between when namespaces are to be joined or
/// clocks to be set, because a clone can only make new ones.
fn first_process(
    plan: &Plan<'_>,
    linux: &Linux,
    cgroup: Option<&Cgroup>,
    channel: sync::Init,
    parent: sync::Parent,
) -> Result<(Child, sync::Parent)> {
    let offsets = linux.time_offsets.filter(|_| plan.namespaces.made.0.contains(Clone::NEWTIME));
    if !plan.namespaces.joined.is_empty() || offsets.is_some() {
        return by_way_of(plan, offsets, cgroup, channel, parent);
    }
    let flags = plan.namespaces.made.0 - Clone::NEWCGROUP;
    match process::clone(flags, cgroup.and_then(Cgroup::v2_fd)).stage("namespaces")? {
        Forked::Parent(child) => Ok((child, parent)),
        Forked::Child => {
            drop(parent);
            init::run(plan, channel)
        }
    }
}

/// The process in between joins, makes init its sibling, hands its pidfd over, and ends.
fn by_way_of(
    plan: &Plan<'_>,
    offsets: Option<capsa_oci::runtime::TimeOffsets>,
    cgroup: Option<&Cgroup>,
    channel: sync::Init,
    parent: sync::Parent,
) -> Result<(Child, sync::Parent)> {
    let (ours, theirs) = Channel::pair()?;
    let between = match process::clone(Clone::empty(), None).stage("namespaces")? {
        Forked::Parent(child) => child,
        Forked::Child => {
            drop((ours, parent));
            match join_and_clone(plan, offsets, cgroup) {
                Ok(Forked::Child) => {
                    drop(theirs);
                    init::run(plan, channel)
                }
                Ok(Forked::Parent(child)) => {
                    let _ = theirs.send(child.pid.to_string().as_bytes(), &[child.pidfd.as_fd()]);
                }
                Err(error) => {
                    let _ = theirs.send(error.to_string().as_bytes(), &[]);
                }
            }
            process::exit_now(0)
        }
    };
    drop(theirs);
    let mut text = Vec::new();
    let got = ours.recv(&mut text);
    let _ = process::wait(between.pidfd.as_fd());
    let text = String::from_utf8_lossy(&text);
    let pidfd = got?.and_then(|mut fds| fds.pop());
    match (pidfd, text.parse()) {
        (Some(pidfd), Ok(pid)) => Ok((Child { pid, pidfd }, parent)),
        _ => Err(Error::invalid("namespaces", text)),
    }
}

fn join_and_clone(
    plan: &Plan<'_>,
    offsets: Option<capsa_oci::runtime::TimeOffsets>,
    cgroup: Option<&Cgroup>,
) -> Result<Forked> {
    let mut open = Vec::new();
    for (kind, path) in &plan.namespaces.joined {
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| capsa_sys::Error::new("open", path.display(), e))
            .stage("namespaces")?;
        open.push((*kind, file));
    }
    for (kind, file) in &open {
        namespace::join(file.as_fd(), flag(*kind)).stage("namespaces")?;
    }
    let mut made = plan.namespaces.made.0 - Clone::NEWCGROUP;
    if let Some(offsets) = offsets {
        namespace::unshare(Clone::NEWTIME).stage("time namespace")?;
        made -= Clone::NEWTIME;
        let clocks = [("monotonic", offsets.monotonic), ("boottime", offsets.boottime)];
        let line = |(name, offset): (&str, Option<capsa_oci::runtime::TimeOffset>)| {
            offset.map(|offset| format!("{name} {} {}\n", offset.secs, offset.nanosecs))
        };
        let text: String = clocks.into_iter().filter_map(line).collect();
        let path = "/proc/self/timens_offsets";
        std::fs::write(path, text)
            .map_err(|e| capsa_sys::Error::from_io("write", path, &e))
            .stage("time namespace")?;
    }
    let flags = made | Clone::PARENT;
    process::clone(flags, cgroup.and_then(Cgroup::v2_fd)).stage("namespaces")
}
