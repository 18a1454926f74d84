//! What a daemon and its containers may have left on the host, read from the kernel
//! itself: processes, mounts, cgroups, addresses, firewall rules.

use std::fs;
use std::path::Path;
use std::process::Command;

/// What is looked for: everything of ours has one of these in it.
pub(crate) struct Traces {
    /// The daemon's scratch directory.
    pub(crate) dir: String,
    /// Beginning of its bridge's addresses, such as `10.211.7.`.
    pub(crate) subnet: String,
    /// Ids of its containers.
    pub(crate) containers: Vec<String>,
}

impl Traces {
    /// Everything found, in words; nothing is good.
    pub(crate) fn left(&self) -> Vec<String> {
        let mut left = self.processes();
        left.extend(self.mounts());
        left.extend(self.cgroups(Path::new("/sys/fs/cgroup")));
        left.extend(lines_with(&["ip", "-o", "-4", "address"], &self.subnet));
        left.extend(lines_with(&["nft", "list", "ruleset"], &self.subnet));
        left
    }

    /// Processes that have the directory among their arguments, or run in a cgroup of a
    /// container.
    fn processes(&self) -> Vec<String> {
        let mut left = Vec::new();
        let me = std::process::id().to_string();
        for entry in fs::read_dir("/proc").unwrap().map_while(Result::ok) {
            let pid = entry.file_name().to_string_lossy().into_owned();
            if pid == me || !pid.bytes().all(|b| b.is_ascii_digit()) {
                continue;
            }
            let read = |name: &str| {
                let bytes = fs::read(entry.path().join(name)).unwrap_or_default();
                String::from_utf8_lossy(&bytes).replace('\0', " ")
            };
            let (arguments, cgroups) = (read("cmdline"), read("cgroup"));
            let ours = arguments.contains(&self.dir)
                || self.containers.iter().any(|id| cgroups.contains(id) || arguments.contains(id));
            // A client of another thread's check may name the directory in passing.
            if ours && !read("stat").contains(") Z ") {
                left.push(format!("process {pid}: {arguments}"));
            }
        }
        left
    }

    fn mounts(&self) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = mounts.lines().filter(|line| line.contains(&self.dir));
        ours.map(|line| format!("mount {line}")).collect()
    }

    fn cgroups(&self, dir: &Path) -> Vec<String> {
        let mut left = Vec::new();
        let Ok(entries) = fs::read_dir(dir) else { return left };
        for entry in entries.map_while(Result::ok) {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            if self.containers.iter().any(|id| name.contains(id)) {
                left.push(format!("cgroup {}", entry.path().display()));
            } else {
                left.extend(self.cgroups(&entry.path()));
            }
        }
        left
    }
}

fn lines_with(command: &[&str], word: &str) -> Vec<String> {
    let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = text.lines().filter(|line| line.contains(word));
    found.map(|line| format!("{}: {}", command[0], line.trim())).collect()
}
