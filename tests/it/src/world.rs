//! Everything that one engine has on the host, one line each, to be compared with what
//! a fresh one has: read from the kernel, the disk and its own lists.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::daemon::Daemon;
use crate::wait::{patience, pause};

const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World(BTreeSet<String>);

impl World {
    /// What there is of `daemon`, which runs.
    ///
    /// # Panics
    /// When it can't be looked at.
    pub fn of(daemon: &Daemon) -> Self {
        let name = daemon.bridge();
        let mut lines = files(daemon);
        lines.extend(processes(daemon, &name));
        lines.extend(groups(Path::new("/sys/fs/cgroup"), &name));
        lines.extend(network(&name));
        lines.extend(rows(daemon));
        Self(lines.into_iter().collect())
    }

    /// The lines that have `word` in them.
    pub fn of_which(&self, word: &str) -> Vec<&str> {
        self.0.iter().map(String::as_str).filter(|line| line.contains(word)).collect()
    }

    /// Waits until there is of `daemon` what there is here, no more and no less.
    ///
    /// # Panics
    /// When that does not come, with the difference.
    #[track_caller]
    pub fn comes_back(&self, daemon: &Daemon, after: &str) {
        let deadline = Instant::now() + patience();
        loop {
            let now = Self::of(daemon);
            if now == *self {
                return;
            }
            if Instant::now() > deadline {
                let more: Vec<_> = now.0.difference(&self.0).collect();
                let less: Vec<_> = self.0.difference(&now.0).collect();
                panic!("after {after}: left over {more:#?}, missing {less:#?}");
            }
            pause(LOOK_AGAIN);
        }
    }
}

/// Directories under both roots, and mounts on them.
fn files(daemon: &Daemon) -> Vec<String> {
    let mut lines = Vec::new();
    for place in ["data/containers", "data/volumes", "data/ingest", "data/trash", "exec/containers"]
    {
        let entries = names(&daemon.scratch().join(place));
        lines.extend(entries.iter().map(|entry| format!("file {place}/{entry}")));
    }
    // Made ahead, each with another name.
    lines.push(format!("{} spares", names(&daemon.data_root().join("spare")).len()));
    let dir = daemon.scratch().display().to_string();
    let mounts = read(Path::new("/proc/self/mountinfo"));
    lines.extend(mounts.lines().filter(|line| line.contains(&dir)).map(str::to_owned));
    lines
}

/// Monitors, whatever has not got further than its monitor, and what runs in containers.
fn processes(daemon: &Daemon, name: &str) -> Vec<String> {
    let in_groups = format!("/{name}/");
    let mut lines = Vec::new();
    for pid in names(Path::new("/proc")).iter().filter_map(|name| name.parse::<u32>().ok()) {
        let dir = PathBuf::from(format!("/proc/{pid}"));
        let arguments = read(&dir.join("cmdline"));
        let monitor = arguments.starts_with("capsa\0monitor\0") && is_of(&dir, daemon);
        if monitor || read(&dir.join("cgroup")).contains(&in_groups) {
            lines.push(format!("process {pid}: {}", arguments.replace('\0', " ")));
        }
    }
    lines
}

/// Whether a monitor works for `daemon`, or for nobody: its parent is no daemon, and it
/// has no files of another test's.
fn is_of(dir: &Path, daemon: &Daemon) -> bool {
    let program = |dir: &Path| fs::metadata(dir.join("exe")).ok().map(|m| (m.dev(), m.ino()));
    if program(dir) != program(Path::new(&format!("/proc/{}", daemon.pid()))) {
        return false;
    }
    let ours = daemon.scratch().display().to_string();
    let open = names(&dir.join("fd"));
    let open = open.iter().filter_map(|fd| fs::read_link(dir.join("fd").join(fd)).ok());
    let files: Vec<String> = open.map(|file| file.display().to_string()).collect();
    let status = read(&dir.join("status"));
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    let parent = parent.unwrap_or_default().trim();
    let orphan = !read(Path::new(&format!("/proc/{parent}/cmdline"))).contains("capsa");
    // One that waits for its container has opened nothing yet: it was made ahead, goes with
    // its daemon, and the next daemon has others.
    let waits = files.iter().all(|file| !file.starts_with('/') || file == "/dev/null");
    parent == daemon.pid().to_string() && !waits
        || files.iter().any(|file| file.contains(&ours))
        || orphan && !files.iter().any(|file| file.contains("/capsa-it-"))
}

/// Control groups below the engine's own.
fn groups(dir: &Path, name: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in names(dir) {
        let path = dir.join(&entry);
        if !path.is_dir() || path.is_symlink() {
            continue;
        }
        if entry == name {
            let inner = names(&path).into_iter().filter(|inner| path.join(inner).is_dir());
            lines.extend(inner.map(|inner| format!("cgroup {}/{inner}", path.display())));
        } else {
            lines.extend(groups(&path, name));
        }
    }
    lines
}

/// Links of the engine's group, and its table.
fn network(name: &str) -> Vec<String> {
    let group = read(&PathBuf::from(format!("/sys/class/net/{name}/netdev_group")));
    let links = said(&["ip", "-o", "link", "show", "group", group.trim()]);
    let links = links.lines().filter_map(|line| line.split_whitespace().nth(1));
    let mut lines: Vec<String> = links.map(|link| format!("link {link}")).collect();
    let table = said(&["nft", "list", "table", "ip", name]);
    lines.extend(table.lines().map(|line| format!("nft {}", line.trim())));
    lines
}

/// What the engine itself knows.
fn rows(daemon: &Daemon) -> Vec<String> {
    let lists: [(&str, &[&str]); 3] = [
        ("container", &["ps", "-aq", "--no-trunc"]),
        ("volume", &["volume", "ls", "-q"]),
        ("endpoints", &["network", "inspect", "--format", "{{json .Containers}}", "bridge"]),
    ];
    let rows = lists.map(|(kind, args)| {
        let list = daemon.ok(args);
        list.lines().map(|line| format!("{kind} {line}")).collect::<Vec<_>>()
    });
    rows.concat()
}

fn said(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Nothing of a file that is gone by now.
fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let names = entries.map_while(Result::ok).map(|entry| entry.file_name());
    names.map(|name| name.to_string_lossy().into_owned()).collect()
}
