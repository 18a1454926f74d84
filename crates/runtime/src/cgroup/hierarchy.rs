//! Which cgroup hierarchies this machine has: v1, v2, or both (hybrid).
//!
//! Found once from `/proc/self/mountinfo`; nothing is guessed from paths, so that
//! co-mounted controllers (`cpu,cpuacct`) and unusual mount points work. A
//! controller is in at most one hierarchy; v1 wins because the kernel says so.

use std::fs;
use std::path::PathBuf;

use capsa_sys::Error as SysError;

use crate::Result;

/// A resource controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Controller {
    /// Memory.
    Memory,
    /// CPU time.
    Cpu,
    /// CPU accounting (v1; part of `cpu` on v2).
    Cpuacct,
    /// CPU and memory node placement.
    Cpuset,
    /// Number of tasks.
    Pids,
    /// Device access (v1; a BPF program on v2).
    Devices,
    /// Freezing (v1; built in on v2).
    Freezer,
    /// Block I/O; `blkio` on v1, `io` on v2.
    Io,
    /// Huge pages.
    Hugetlb,
    /// Packet class (v1).
    NetCls,
    /// Packet priority (v1).
    NetPrio,
    /// RDMA.
    Rdma,
    /// Miscellaneous scalar resources (v2 files by name only).
    Misc,
}

const NAMES: [(&str, Controller); 14] = [
    ("memory", Controller::Memory),
    ("cpu", Controller::Cpu),
    ("cpuacct", Controller::Cpuacct),
    ("cpuset", Controller::Cpuset),
    ("pids", Controller::Pids),
    ("devices", Controller::Devices),
    ("freezer", Controller::Freezer),
    ("blkio", Controller::Io),
    ("io", Controller::Io),
    ("hugetlb", Controller::Hugetlb),
    ("net_cls", Controller::NetCls),
    ("net_prio", Controller::NetPrio),
    ("rdma", Controller::Rdma),
    ("misc", Controller::Misc),
];

impl Controller {
    /// The kernel's name on v1 or v2.
    pub fn parse(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, controller)| *controller)
    }

    /// The kernel's name on v2 (on v1 `Io` is called `blkio`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Io => "io",
            other => NAMES.iter().find(|(_, c)| *c == other).map_or("", |(name, _)| name),
        }
    }
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// What it controls; may be empty for v2.
    pub controllers: Vec<Controller>,
}

/// All hierarchies of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// v1 hierarchies that have a controller.
    pub v1: Vec<Hierarchy>,
    /// The v2 hierarchy.
    pub v2: Option<Hierarchy>,
}

impl Hierarchies {
    /// Reads `/proc/self/mountinfo`, and `cgroup.controllers` of v2.
    pub fn discover() -> Result<Self> {
        let read = |path: PathBuf| {
            fs::read_to_string(&path).map_err(|e| SysError::from_io("read", path.display(), &e))
        };
        let mut found = Self::parse(&read("/proc/self/mountinfo".into())?);
        if let Some(v2) = &mut found.v2 {
            v2.controllers = parse_controllers(&read(v2.mount.join("cgroup.controllers"))?);
        }
        Ok(found)
    }

    /// What a mountinfo text tells; the controllers of v2 are not in it. proc_pid_mountinfo(5).
    pub fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let Some(mount) = before.split(' ').nth(4).map(unescape) else { continue };
            let mut fields = after.split(' ');
            let (kind, options) = (fields.next(), fields.nth(1).unwrap_or_default());
            match kind {
                Some("cgroup") => found.add_v1(mount, options),
                Some("cgroup2") if found.v2.is_none() => {
                    found.v2 = Some(Hierarchy { mount, controllers: Vec::new() });
                }
                _ => {}
            }
        }
        found
    }

    /// No v1 controller: everything is on v2.
    pub fn is_pure_v2(&self) -> bool {
        self.v1.is_empty() && self.v2.is_some()
    }

    /// The v1 hierarchy of `controller`.
    pub fn v1_of(&self, controller: Controller) -> Option<&Hierarchy> {
        self.v1.iter().find(|hierarchy| hierarchy.controllers.contains(&controller))
    }

    /// v2 offers `controller`. The devices program, the freezer and CPU accounting need none.
    pub fn v2_has(&self, controller: Controller) -> bool {
        let Some(v2) = &self.v2 else { return false };
        if self.v1_of(controller).is_some() {
            return false;
        }
        match controller {
            Controller::Devices | Controller::Freezer | Controller::Cpuacct => true,
            other => v2.controllers.contains(&other),
        }
    }

    fn add_v1(&mut self, mount: PathBuf, options: &str) {
        let controllers: Vec<_> = options.split(',').filter_map(Controller::parse).collect();
        // A hierarchy may be mounted twice; named ones (name=systemd) control nothing.
        let new = controllers.iter().all(|controller| self.v1_of(*controller).is_none());
        if new && !controllers.is_empty() {
            self.v1.push(Hierarchy { mount, controllers });
        }
    }
}

/// The words of `cgroup.controllers` and `cgroup.subtree_control`.
pub(super) fn parse_controllers(text: &str) -> Vec<Controller> {
    text.split_ascii_whitespace().filter_map(Controller::parse).collect()
}

/// Undoes the octal escapes of mountinfo (space, tab, newline, backslash).
fn unescape(field: &str) -> PathBuf {
    let mut plain = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let digits = rest.get(at + 1..at + 4);
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                plain.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    plain.push_str(rest);
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:32 / /mnt/again rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/blk\\040io rw,relatime - cgroup cgroup rw,blkio
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn hybrid_and_co_mounted_controllers_are_found() {
        let mut found = Hierarchies::parse(HYBRID);
        assert_eq!(found.v1.len(), 3);
        let cpu = found.v1_of(Controller::Cpuacct).unwrap();
        assert_eq!(cpu.mount, PathBuf::from("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(cpu.controllers, [Controller::Cpu, Controller::Cpuacct]);
        let io = found.v1_of(Controller::Io).unwrap();
        assert_eq!(io.mount, PathBuf::from("/sys/fs/cgroup/blk io"));
        let memory = found.v1_of(Controller::Memory).unwrap();
        assert_eq!(memory.mount, PathBuf::from("/sys/fs/cgroup/memory"));
        found.v2.as_mut().unwrap().controllers = parse_controllers("hugetlb misc\n");
        assert!(found.v2_has(Controller::Hugetlb));
        assert!(found.v2_has(Controller::Devices), "no v1 devices here: the program does it");
        assert!(!found.v2_has(Controller::Memory));
        assert!(!found.is_pure_v2());
    }

    #[test]
    fn pure_v2_is_told_from_hybrid() {
        let text = "24 1 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup rw,nsdelegate\n";
        assert!(Hierarchies::parse(text).is_pure_v2());
        assert_eq!(Hierarchies::parse(""), Hierarchies::default());
    }
}
