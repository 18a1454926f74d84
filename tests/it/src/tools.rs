//! Tools that are not ours, as judges of what we write and makers of what we read:
//! skopeo, umoci, podman and docker's own daemon.
//!
//! Each works in a directory of the test's. Where one is not installed, the test says so
//! and is skipped; `cargo xtask test` brings them on Debian.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::cli::{Cli, Engine};
use crate::wait::{eventually, patience, wait_for_exit};

/// Runs its arguments in a mount namespace in which what the tools keep for the whole host,
/// whatever they are told, is empty; of `/etc` it has a copy, in the directory `$0`.
const ALONE: &str = "set -e
    cp -a /etc \"$0/etc\"
    mount --bind \"$0/etc\" /etc
    for dir in /var/lib /run /dev/shm; do mount -t tmpfs tmpfs $dir; done
    exec \"$@\"";

/// A tool with the arguments that keep it in its directory.
pub struct Tool {
    words: Vec<String>,
    dir: TempDir,
}

/// Docker's daemon in network and mount namespaces of its own, without a bridge. It ends
/// when this is dropped.
pub struct Dockerd {
    daemon: Child,
    engine: Engine,
    _dir: TempDir,
}

impl Tool {
    /// Copies images between all forms.
    pub fn skopeo() -> Option<Self> {
        let tool = Self::named("skopeo")?;
        let tmp = tool.path("").display().to_string();
        Some(tool.with(&["--insecure-policy", "--tmpdir", &tmp]))
    }

    /// Unpacks OCI layouts.
    pub fn umoci() -> Option<Self> {
        Self::named("umoci")
    }

    /// An engine without a daemon.
    pub fn podman() -> Option<Self> {
        let tool = Self::named("podman")?;
        let [root, runroot, tmp] = ["root", "runroot", "tmp"].map(|d| tool.path(d));
        let [root, runroot, tmp] = [&root, &runroot, &tmp].map(|d| d.to_str().unwrap());
        let places = ["--root", root, "--runroot", runroot, "--tmpdir", tmp];
        // It needs no mount, and leaves none.
        let ways = ["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"];
        Some(tool.with(&places).with(&ways).with(&["--events-backend", "file"]))
    }

    fn named(name: &str) -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("capsa-tool-").tempdir().unwrap();
        let found = is_here(name);
        found.then(|| Self { words: vec![name.to_owned()], dir })
    }

    fn with(mut self, words: &[&str]) -> Self {
        self.words.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    /// A place in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs it; its standard output, which is not always text.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn bytes(&self, args: &[&str]) -> Vec<u8> {
        let dir = TempDir::new_in(self.dir.path()).unwrap();
        let output = alone(dir.path(), &[])
            .args(&self.words)
            .args(args)
            .env("HOME", self.dir.path())
            .env("TMPDIR", self.dir.path())
            // Its own default for open files may be above what this host allows.
            .env("CONTAINERS_CONF", self.settings())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {args:?}: {complaint}", self.words[0]);
        output.stdout
    }

    /// Runs it; what it printed without the last newline.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        String::from_utf8(self.bytes(args)).unwrap().trim_end().to_owned()
    }

    fn settings(&self) -> PathBuf {
        let path = self.path("containers.conf");
        fs::write(&path, "[containers]\ndefault_ulimits = [\"nofile=1024:1024\"]\n").unwrap();
        path
    }
}

impl Dockerd {
    /// Starts it and waits until it answers.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start() -> Option<Self> {
        if !is_here("dockerd") || !is_here("docker") {
            return None;
        }
        let dir = tempfile::Builder::new().prefix("capsa-docker-").tempdir().unwrap();
        let (socket, log) = (dir.path().join("socket"), dir.path().join("log"));
        let place = |name: &str| dir.path().join(name);
        let mut daemon = alone(dir.path(), &["--net"])
            .args(["dockerd", "--bridge=none", "--iptables=false", "--storage-driver=vfs"])
            .arg("--host")
            .arg(format!("unix://{}", socket.display()))
            .arg("--data-root")
            .arg(place("data"))
            .arg("--exec-root")
            .arg(place("exec"))
            .arg("--pidfile")
            .arg(place("pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        eventually("dockerd's socket", || {
            let ended = daemon.try_wait().unwrap();
            let said = || fs::read_to_string(&log).unwrap_or_default();
            assert!(ended.is_none(), "dockerd ended:\n{}", said());
            UnixStream::connect(&socket).ok()
        });
        let engine = Engine::new(Cli::Docker, &socket, dir.path());
        Some(Self { daemon, engine, _dir: dir })
    }

    /// Its client.
    pub fn client(&self) -> &Engine {
        &self.engine
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // It ends the containerd that it started.
        let _ = kill_process(Pid::from_child(&self.daemon), Signal::TERM);
        if wait_for_exit(&mut self.daemon, patience()).is_none() {
            let _ = self.daemon.kill();
            let _ = self.daemon.wait();
        }
    }
}

/// A command in the making, to be given the program and its arguments. Each step replaces
/// the last: the child is the program.
fn alone(dir: &Path, namespaces: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).args(namespaces);
    command.args(["sh", "-c", ALONE]).arg(dir);
    command
}

/// Whether a program is on PATH; says so when it is not.
fn is_here(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    if !found {
        let text = format!("SKIPPED: {name} is not installed, so it judges nothing here\n");
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    found
}

/// A path as an argument.
///
/// # Panics
/// When it is no UTF-8.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
