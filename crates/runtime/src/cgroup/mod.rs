//! A container's cgroup in every hierarchy that has a say: v1, v2 or both.
//!
//! Nobody is moved by writing `cgroup.procs` on the way to a start: that takes the
//! kernel's threadgroup lock and costs an RCU grace period, milliseconds on an idle
//! machine. On v1 the child writes `0` to the [`Cgroup::join_fds`]; on v2 it is
//! born inside by CLONE_INTO_CGROUP with [`Cgroup::v2_fd`]. A cgroup namespace must
//! be unshared after joining, or it shows the parent's cgroup as its root.
//!
//! A cgroup outlives its `Cgroup`: dropping one removes nothing.

mod devices;
mod dir;
mod hierarchy;
mod life;
mod limits;
mod stats;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use capsa_oci::runtime::Resources;
use capsa_sys::bpf;
use rustix::io::Errno;

use crate::{Error, Result};
use devices::DevicePolicy;
use dir::Dir;
use limits::{Absent, Write};

pub use hierarchy::{Controller, Hierarchies, Hierarchy};
pub use stats::{CpuStats, IoStats, MemoryStats, PidStats, Stats};

/// One cgroup, by the same path in every hierarchy that the container needs.
#[derive(Debug)]
pub struct Cgroup {
    path: String,
    v1: Vec<Dir>,
    v2: Option<Dir>,
}

/// What every container gets, where the machine has it; the rest only when asked for.
const BASE: [Controller; 6] = [
    Controller::Memory,
    Controller::Cpu,
    Controller::Cpuacct,
    Controller::Pids,
    Controller::Devices,
    Controller::Freezer,
];

impl Cgroup {
    /// Makes the cgroup `path` (`/capsa/<id>`) and sets its limits and device rules; finds
    /// the hierarchies first. Without resources only the usual devices are allowed.
    pub fn create(path: &str, resources: Option<&Resources>) -> Result<Self> {
        Self::create_in(&Hierarchies::discover()?, path, resources)
    }

    /// As [`Cgroup::create`], with hierarchies found before. On an error nothing is left.
    pub fn create_in(
        hierarchies: &Hierarchies,
        path: &str,
        resources: Option<&Resources>,
    ) -> Result<Self> {
        let empty = Resources::default();
        let resources = resources.unwrap_or(&empty);
        let plan = Plan::new(hierarchies, resources)?;
        let mut cgroup = Self { path: normal_path(path)?, v1: Vec::new(), v2: None };
        let made = cgroup.make(hierarchies, &plan).and_then(|()| cgroup.apply(&plan, true));
        if let Err(error) = made {
            // The first error counts; what can't be removed is found again by its name.
            let _ = cgroup.remove();
            return Err(error);
        }
        Ok(cgroup)
    }

    /// Opens a cgroup made before, wherever it exists.
    pub fn open(path: &str) -> Result<Self> {
        Self::open_in(&Hierarchies::discover()?, path)
    }

    /// As [`Cgroup::open`], with hierarchies found before.
    pub fn open_in(hierarchies: &Hierarchies, path: &str) -> Result<Self> {
        let path = normal_path(path)?;
        let open = |hierarchy: &Hierarchy| {
            Dir::open(below(&hierarchy.mount, &path), hierarchy.controllers.clone()).ok()
        };
        let v1: Vec<_> = hierarchies.v1.iter().filter_map(open).collect();
        let v2 = hierarchies.v2.as_ref().and_then(open);
        if v1.is_empty() && v2.is_none() {
            return Err(Error::invalid(format!("cgroup {path}"), "there is none"));
        }
        Ok(Self { path, v1, v2 })
    }

    /// Its path below every mount point, with a leading slash.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its directories on this machine.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        self.dirs().map(|dir| dir.path.as_path())
    }

    /// v1: the `tasks` files, open for writing; a thread that writes `0` to each is in.
    pub fn join_fds(&self) -> Result<Vec<OwnedFd>> {
        let open = |dir: &Dir| dir.writer("tasks").map_err(|e| dir.refused("tasks", "0", e));
        self.v1.iter().map(open).collect()
    }

    /// v2: the directory for CLONE_INTO_CGROUP; none where v2 has no part in this container.
    pub fn v2_fd(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(Dir::fd)
    }

    /// Changes limits of a cgroup in use. A limit whose v1 hierarchy was not needed before
    /// brings the processes into it.
    pub fn update(&mut self, resources: &Resources) -> Result<()> {
        let hierarchies = Hierarchies::discover()?;
        let plan = Plan::new(&hierarchies, resources)?;
        self.check_memory(resources)?;
        let pids = if self.lacks(&hierarchies, &plan) { self.pids()? } else { Vec::new() };
        let known = self.v1.len();
        self.make(&hierarchies, &plan)?;
        self.apply(&plan, false)?;
        for dir in &self.v1[known..] {
            let fail = |pid: &u32, errno| dir.refused("cgroup.procs", &pid.to_string(), errno);
            for pid in &pids {
                match dir.try_write("cgroup.procs", &pid.to_string()) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(errno) => return Err(fail(pid, errno)),
                }
            }
        }
        Ok(())
    }

    fn dirs(&self) -> impl Iterator<Item = &Dir> {
        self.v1.iter().chain(&self.v2)
    }

    fn v1_dir(&self, controller: Controller) -> Option<&Dir> {
        self.v1.iter().find(|dir| dir.controllers.contains(&controller))
    }

    fn dir_of(&self, controller: Controller) -> Option<&Dir> {
        self.v1_dir(controller).or(self.v2.as_ref())
    }
}

/// What is to be made and written for some resources, on this machine.
struct Plan {
    wanted: Vec<Controller>,
    asked: Vec<Controller>,
    v1: Vec<Write>,
    v2: Vec<Write>,
    unified: Vec<(String, String)>,
    devices: DevicePolicy,
    devices_asked: bool,
}

impl Plan {
    fn new(hierarchies: &Hierarchies, resources: &Resources) -> Result<Self> {
        let mut v1 = limits::v1(resources)?;
        let mut v2 = limits::v2(resources)?;
        let mut asked = limits::asks_for(resources, &[v1.clone(), v2.clone()].concat());
        let unified = limits::unified(resources)?;
        if !unified.is_empty() && hierarchies.v2.is_none() {
            return Err(Error::invalid("unified resources", "this machine has no cgroup v2"));
        }
        asked.extend(unified.iter().filter_map(|(controller, ..)| *controller));
        for controller in &asked {
            if hierarchies.v1_of(*controller).is_none() && !hierarchies.v2_has(*controller) {
                return Err(Error::invalid(
                    format!("a {} limit", controller.name()),
                    "the kernel of this machine offers no such cgroup controller",
                ));
            }
        }
        v1.retain(|write| hierarchies.v1_of(write.controller).is_some());
        v2.retain(|write| hierarchies.v2_has(write.controller));
        let wanted = BASE.into_iter().chain(asked.iter().copied()).collect();
        Ok(Self {
            wanted,
            asked,
            v1,
            v2,
            unified: unified.into_iter().map(|(_, file, value)| (file, value)).collect(),
            devices: DevicePolicy::new(&resources.devices)?,
            devices_asked: !resources.devices.is_empty(),
        })
    }

    /// v2 has something to do: everything, a limit, or the device program.
    fn needs_v2(&self, hierarchies: &Hierarchies) -> bool {
        hierarchies.is_pure_v2()
            || !self.unified.is_empty()
            || self.wanted.iter().any(|controller| {
                hierarchies.v1_of(*controller).is_none()
                    && hierarchies.v2_has(*controller)
                    && !matches!(controller, Controller::Cpuacct)
            })
    }
}

/// Making and filling; the public side is above.
impl Cgroup {
    fn make(&mut self, hierarchies: &Hierarchies, plan: &Plan) -> Result<()> {
        let path = self.path.clone();
        for hierarchy in &hierarchies.v1 {
            let needed = hierarchy.controllers.iter().any(|c| plan.wanted.contains(c));
            let present = self.v1.iter().any(|dir| dir.controllers == hierarchy.controllers);
            if needed && !present {
                let place = below(&hierarchy.mount, &path);
                if hierarchy.controllers.contains(&Controller::Cpuset) {
                    make_cpuset(&hierarchy.mount, &place)?;
                }
                let (dir, new) = Dir::create(place, hierarchy.controllers.clone())?;
                refuse_populated(&dir, new)?;
                self.v1.push(dir);
            }
        }
        if let Some(v2) = &hierarchies.v2 {
            if self.v2.is_none() && plan.needs_v2(hierarchies) {
                let (dir, new) = Dir::create(below(&v2.mount, &path), v2.controllers.clone())?;
                refuse_populated(&dir, new)?;
                self.v2 = Some(dir);
            }
            if let Some(dir) = &self.v2 {
                let on_v2 = |list: &[Controller]| -> Vec<Controller> {
                    let there = |c: &Controller| v2.controllers.contains(c);
                    list.iter().copied().filter(there).collect()
                };
                hand_down(v2, dir, &on_v2(&plan.wanted), &on_v2(&plan.asked))?;
            }
        }
        Ok(())
    }

    /// Writes the limits; `fresh` cgroups also get their device rules.
    fn apply(&self, plan: &Plan, fresh: bool) -> Result<()> {
        for write in self.in_order(&plan.v1, fresh) {
            if let Some(dir) = self.v1_dir(write.controller) {
                put(dir, write)?;
            }
        }
        if let Some(dir) = &self.v2 {
            plan.v2.iter().try_for_each(|write| put(dir, write))?;
            for (file, value) in &plan.unified {
                dir.write(file, value)?;
            }
        }
        if fresh || plan.devices_asked { self.apply_devices(&plan.devices) } else { Ok(()) }
    }

    /// v1 wants memory <= memory+swap at every moment: raise the sum first, lower it last.
    fn in_order<'a>(&self, writes: &'a [Write], fresh: bool) -> Vec<&'a Write> {
        let mut ordered: Vec<&Write> = writes.iter().collect();
        let at = |name: &str| writes.iter().position(|write| write.file == name);
        let limits = (at("memory.limit_in_bytes"), at("memory.memsw.limit_in_bytes"));
        if let ((Some(memory), Some(swap)), false) = (limits, fresh) {
            let dir = self.v1_dir(Controller::Memory);
            let now = dir.and_then(|dir| dir.number("memory.limit_in_bytes")).unwrap_or(u64::MAX);
            // "-1" is no u64: unlimited.
            let new = writes[memory].value.parse().unwrap_or(u64::MAX);
            if new > now {
                ordered.swap(memory, swap);
            }
        }
        ordered
    }

    fn apply_devices(&self, policy: &DevicePolicy) -> Result<()> {
        if let Some(dir) = self.v1_dir(Controller::Devices) {
            if policy.is_unrestricted() {
                return Ok(());
            }
            if !policy.allow {
                dir.write("devices.deny", "a")?;
            }
            let file = if policy.allow { "devices.deny" } else { "devices.allow" };
            return dir.write_lines(file, &policy.lines());
        }
        let Some(dir) = &self.v2 else { return Ok(()) };
        let code = bpf::device_program(!policy.allow, &policy.entries());
        let program = bpf::load_device_program(&code)?;
        Ok(bpf::replace_device_program(dir.fd(), program.as_fd())?)
    }

    fn lacks(&self, hierarchies: &Hierarchies, plan: &Plan) -> bool {
        let on_v1 = |c: &&Controller| hierarchies.v1_of(**c).is_some();
        plan.wanted.iter().filter(on_v1).any(|c| self.v1_dir(*c).is_none())
    }

    fn check_memory(&self, resources: &Resources) -> Result<()> {
        let memory = resources.memory.as_ref();
        let Some(limit) =
            memory.filter(|m| m.check_before_update == Some(true)).and_then(|m| m.limit)
        else {
            return Ok(());
        };
        let usage = self.stats().memory.usage;
        match u64::try_from(limit) {
            Ok(limit) if limit > 0 && usage > limit => Err(Error::invalid(
                format!("memory limit {limit}"),
                format!("the container uses {usage} bytes already"),
            )),
            _ => Ok(()),
        }
    }
}

fn put(dir: &Dir, write: &Write) -> Result<()> {
    match (dir.try_write(&write.file, &write.value), &write.absent) {
        (Ok(()), _) => Ok(()),
        // kernfs says EACCES for a file that would have to be created.
        (Err(Errno::NOENT | Errno::ACCESS), Absent::Skip) if !dir.has(&write.file) => Ok(()),
        (Err(Errno::NOENT | Errno::ACCESS), Absent::Instead(file, value))
            if !dir.has(&write.file) =>
        {
            dir.write(file, value)
        }
        (Err(errno), _) => Err(dir.refused(&write.file, &write.value, errno)),
    }
}

/// A cgroup that was there before is taken over only when nobody lives in it.
fn refuse_populated(dir: &Dir, new: bool) -> Result<()> {
    if new || dir.read("cgroup.procs")?.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(format!("cgroup {}", dir.path.display()), "it has processes already"))
}

/// v1 cpusets start empty, and nothing can join an empty one: copy the parents' values down.
fn make_cpuset(mount: &Path, place: &Path) -> Result<()> {
    let mut parents: Vec<&Path> = place.ancestors().take_while(|parent| *parent != mount).collect();
    parents.reverse();
    let mut above = Dir::open(mount.to_owned(), Vec::new())?;
    for path in parents {
        let (dir, _) = Dir::create(path.to_owned(), Vec::new())?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if dir.read(file)?.trim().is_empty() {
                dir.write(file, above.read(file)?.trim())?;
            }
        }
        above = dir;
    }
    Ok(())
}

/// v2: makes sure that `dir` has the `wanted` controllers; those `asked` for must come.
fn hand_down(v2: &Hierarchy, dir: &Dir, wanted: &[Controller], asked: &[Controller]) -> Result<()> {
    let missing = |dir: &Dir, list: &[Controller]| -> Result<Vec<Controller>> {
        let have = hierarchy::parse_controllers(&dir.read("cgroup.controllers")?);
        Ok(list.iter().copied().filter(|c| !have.contains(c)).collect())
    };
    if missing(dir, wanted)?.is_empty() {
        return Ok(());
    }
    let mut parents: Vec<&Path> =
        dir.path.ancestors().skip(1).take_while(|parent| parent.starts_with(&v2.mount)).collect();
    parents.reverse();
    let mut refused = None;
    for path in parents {
        let parent = Dir::open(path.to_owned(), Vec::new())?;
        for controller in wanted {
            let line = format!("+{}", controller.name());
            if let Err(errno) = parent.try_write("cgroup.subtree_control", &line) {
                refused.get_or_insert_with(|| (path.to_owned(), errno));
            }
        }
    }
    match (missing(dir, asked)?.first(), refused) {
        (None, _) => Ok(()),
        (Some(controller), Some((path, Errno::BUSY))) => Err(Error::invalid(
            format!("a {} limit", controller.name()),
            format!("processes live in {}, so it can't hand controllers down", path.display()),
        )),
        (Some(controller), _) => Err(Error::invalid(
            format!("a {} limit", controller.name()),
            format!("that controller is not handed down to {}", dir.path.display()),
        )),
    }
}

impl Hierarchies {
    /// v2 in a container or below a service manager: the cgroup we see as the root may hold
    /// processes, and then can't hand controllers down. Moves them into a cgroup of their own
    /// below it. For a daemon's start, once; does nothing where nothing is in the way.
    pub fn make_room(&self) -> Result<()> {
        let Some(v2) = &self.v2 else { return Ok(()) };
        let root = Dir::open(v2.mount.clone(), Vec::new())?;
        let have = hierarchy::parse_controllers(&root.read("cgroup.subtree_control")?);
        let lines = v2.controllers.iter().filter(|c| !have.contains(c));
        let lines: Vec<_> = lines.map(|c| format!("+{}", c.name())).collect();
        let enable =
            || lines.iter().try_for_each(|line| root.try_write("cgroup.subtree_control", line));
        if enable() != Err(Errno::BUSY) {
            return Ok(());
        }
        let (leaf, _) = Dir::create(v2.mount.join("capsa-host"), Vec::new())?;
        for pid in root.read("cgroup.procs")?.lines() {
            match leaf.try_write("cgroup.procs", pid) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(leaf.refused("cgroup.procs", pid, errno)),
            }
        }
        enable().map_err(|errno| root.refused("cgroup.subtree_control", "", errno))
    }
}

/// A leading slash, no `.` or `..` or empty components, not the root itself.
fn normal_path(path: &str) -> Result<String> {
    let parts: Vec<&str> =
        path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.is_empty() || parts.contains(&"..") || path.contains(['\0', '\n']) {
        return Err(Error::invalid(format!("cgroup path {path:?}"), "not a path below the root"));
    }
    Ok(format!("/{}", parts.join("/")))
}

fn below(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        assert_eq!(normal_path("capsa//x/./y/").unwrap(), "/capsa/x/y");
        for bad in ["", "/", "..", "/a/../b", "/a\n"] {
            assert!(normal_path(bad).is_err(), "{bad:?}");
        }
    }
}
