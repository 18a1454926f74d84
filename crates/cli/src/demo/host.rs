//! What the host shows of the demo, and whether it still does afterwards.
//!
//! While all runs, a witness notes by name what belongs to the demo: processes
//! with their start times, cgroups in every hierarchy, links, nft tables. The
//! engine is asked for two things only, its containers' pids and its bridge;
//! all else is read from the kernel. Names, and not a comparison of the whole
//! host: others may be busy on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::nftables;

/// What was there before, and so isn't the demo's.
pub(super) struct Before {
    cgroups: BTreeSet<PathBuf>,
    tables: BTreeSet<String>,
}

impl Before {
    /// Looks at the host.
    pub(super) fn look() -> anyhow::Result<Self> {
        let mut cgroups = BTreeSet::new();
        for root in cgroup_roots()? {
            add_directories(&root, &mut cgroups);
        }
        let tables = nftables::tables().context("cannot list nft tables")?;
        Ok(Self { cgroups, tables })
    }
}

/// The demo's traces on the host.
pub(super) struct Witness {
    directory: PathBuf,
    /// Start time by pid, since a pid alone may be another process later.
    processes: BTreeMap<u32, String>,
    cgroups: BTreeSet<PathBuf>,
    links: BTreeSet<String>,
    tables: BTreeSet<String>,
}

impl Witness {
    /// A witness that knows only the demo's directory.
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            processes: BTreeMap::new(),
            cgroups: BTreeSet::new(),
            links: BTreeSet::new(),
            tables: BTreeSet::new(),
        }
    }

    /// Notes a process.
    pub(super) fn note_process(&mut self, pid: u32) {
        if let Some(start) = start_time(pid) {
            self.processes.insert(pid, start);
        }
    }

    /// Notes one engine's running containers, with their monitors and cgroups,
    /// and its bridge with the links on it.
    pub(super) fn note(&mut self, pids: &[u32], bridge: Option<&str>, before: &Before) {
        for pid in pids {
            self.note_process(*pid);
            if let Some(monitor) = parent(*pid) {
                self.note_process(monitor);
            }
            self.note_cgroups(*pid, before);
        }
        if let Some(bridge) = bridge {
            self.links.insert(bridge.to_owned());
            self.links.extend(names_in(&Path::new("/sys/class/net").join(bridge).join("brif")));
        }
    }

    fn note_cgroups(&mut self, pid: u32, before: &Before) {
        let memberships = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        for path in memberships.lines().filter_map(|line| line.splitn(3, ':').nth(2)) {
            let ancestors =
                Path::new(path).ancestors().filter_map(|path| path.strip_prefix("/").ok());
            for below in ancestors.filter(|path| !path.as_os_str().is_empty()) {
                let roots = cgroup_roots().unwrap_or_default().into_iter();
                let there = roots.map(|root| root.join(below)).filter(|path| path.is_dir());
                self.cgroups.extend(there.filter(|path| !before.cgroups.contains(path)));
            }
        }
    }

    /// Notes the engines' tables: an engine names its table as its bridge.
    pub(super) fn note_tables(&mut self, before: &Before) -> anyhow::Result<()> {
        let tables = nftables::tables().context("cannot list nft tables")?;
        let ours = self.links.intersection(&tables).filter(|name| !before.tables.contains(*name));
        self.tables.extend(ours.cloned());
        Ok(())
    }

    /// Everything of the demo that is still there, one line each.
    ///
    /// # Errors
    /// When the kernel can't be asked.
    pub(super) fn left(&self) -> anyhow::Result<Vec<String>> {
        let mut left = Vec::new();
        for (pid, start) in &self.processes {
            if start_time(*pid).as_ref() == Some(start) {
                left.push(format!("process {pid}"));
            }
        }
        left.extend(
            self.marked_processes().map(|pid| format!("process {pid}, of the demo by its files")),
        );
        left.extend(self.mounts()?.into_iter().map(|mount| format!("mount {mount}")));
        let cgroups = self.cgroups.iter().filter(|path| path.exists());
        left.extend(cgroups.map(|path| format!("cgroup {}", path.display())));
        let present = link_names()?;
        let links = self.links.intersection(&present);
        left.extend(links.map(|name| format!("link {name}")));
        let tables = nftables::tables().context("cannot list nft tables")?;
        left.extend(self.tables.intersection(&tables).map(|name| format!("nft table {name}")));
        if self.directory.exists() {
            left.push(format!("directory {}", self.directory.display()));
        }
        Ok(left)
    }

    /// Processes that run from, stand in or were started for the directory.
    fn marked_processes(&self) -> impl Iterator<Item = u32> {
        let own = std::process::id();
        pids().filter(move |pid| *pid != own && self.is_marked(*pid))
    }

    fn is_marked(&self, pid: u32) -> bool {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let mark = self.directory.as_os_str().as_encoded_bytes();
        let texts = ["cmdline", "environ"].iter().filter_map(|name| fs::read(proc.join(name)).ok());
        let links =
            ["cwd", "root", "exe"].iter().filter_map(|name| fs::read_link(proc.join(name)).ok());
        texts.into_iter().any(|text| text.windows(mark.len()).any(|window| window == mark))
            || links.into_iter().any(|path| path.starts_with(&self.directory))
    }

    fn mounts(&self) -> anyhow::Result<Vec<String>> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot list mounts")?;
        let directory = self.directory.display().to_string();
        Ok(mounts.lines().filter(|line| line.contains(&directory)).map(str::to_owned).collect())
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} processes, {} cgroups, {} links, {} nft tables, mounts and files under {}",
            self.processes.len(),
            self.cgroups.len(),
            self.links.len(),
            self.tables.len(),
            self.directory.display(),
        )
    }
}

/// The parent of a process.
pub(super) fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

/// The proportional set size of a process in KiB; 0 if it is gone.
pub(super) fn pss_kib(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    pss.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// Field 22 of proc_pid_stat(5); None for a zombie, which holds nothing.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?;
    (state != "Z").then(|| fields.nth(18).map(str::to_owned))?
}

/// Every link of this network namespace. /sys/class/net shows those of the
/// namespace it was mounted in, which may be another.
fn link_names() -> anyhow::Result<BTreeSet<String>> {
    let table = fs::read_to_string("/proc/self/net/dev").context("cannot list links")?;
    Ok(table.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect())
}

fn pids() -> impl Iterator<Item = u32> {
    names_in(Path::new("/proc")).filter_map(|name| name.parse().ok())
}

fn names_in(directory: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// Where cgroup hierarchies, of either version, are mounted.
fn cgroup_roots() -> anyhow::Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot list mounts")?;
    Ok(mounts.lines().filter_map(cgroup_root).collect())
}

/// The mount point of a mountinfo line, if it is a cgroup hierarchy.
fn cgroup_root(line: &str) -> Option<PathBuf> {
    let (place, source) = line.split_once(" - ")?;
    let kind = source.split(' ').next()?;
    let point = place.split(' ').nth(4)?;
    matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(point))
}

fn add_directories(directory: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            add_directories(&entry.path(), found);
            found.insert(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_mounts_are_found_by_their_type() {
        let v1 = "34 25 0:30 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory";
        assert_eq!(cgroup_root(v1), Some(PathBuf::from("/sys/fs/cgroup/memory")));
        assert_eq!(cgroup_root("22 1 0:21 / /proc rw - proc proc rw"), None);
    }

    #[test]
    fn a_witness_sees_what_is_there() {
        let mut witness = Witness::new(Path::new("/nonexistent/capsa-demo"));
        witness.note_process(std::process::id());
        assert_eq!(witness.left().unwrap(), [format!("process {}", std::process::id())]);
    }
}
