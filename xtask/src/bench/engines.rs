//! The engines that compete: ours, and those that are installed.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::host::Host;
use crate::tree;

/// The image that every engine gets.
pub(crate) const IMAGE: &str = "busybox:latest";

pub(crate) struct Engine {
    pub(crate) name: &'static str,
    command: Vec<OsString>,
    daemon: Option<Child>,
}

/// Starts ours first, then every other engine that is installed, and gives
/// each the image.
pub(crate) fn start_all(host: &Host, binary: &Path) -> anyhow::Result<Vec<Engine>> {
    let mut engines = vec![capsa(host, binary)?];
    match (tree::which("dockerd"), tree::which("docker")) {
        (Some(daemon), Some(client)) => engines.push(docker(host, &daemon, &client)?),
        _ => println!("no dockerd here: nothing to compare with docker"),
    }
    match tree::which("podman") {
        Some(program) => engines.push(podman(host, &program)?),
        None => println!("no podman here"),
    }
    for engine in &engines {
        engine.import(&host.rootfs())?;
    }
    Ok(engines)
}

fn capsa(host: &Host, binary: &Path) -> anyhow::Result<Engine> {
    let directory = host.directory().join("capsa");
    std::fs::create_dir(&directory)?;
    let socket = format!("unix://{}", directory.join("socket").display());
    let mut daemon = host
        .command(binary)
        .args(["daemon", "--background", "-H", &socket, "--data-root"])
        .arg(directory.join("data"))
        .arg("--exec-root")
        .arg(directory.join("exec"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(directory.join("log"))?)
        .spawn()?;
    let output = daemon.stdout.take().context("the daemon's output is not piped")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    let engine = Engine::new("capsa", [binary.into(), "-H".into(), socket.into()], Some(daemon));
    ensure!(!line.is_empty(), "capsa's daemon ended:\n{}", tail(&directory.join("log")));
    Ok(engine)
}

fn docker(host: &Host, daemon: &Path, client: &Path) -> anyhow::Result<Engine> {
    let directory = host.directory().join("docker");
    std::fs::create_dir(&directory)?;
    let socket = format!("unix://{}", directory.join("socket").display());
    let log = directory.join("log");
    let daemon = host
        .command(daemon)
        .args(["-H", &socket, "--data-root"])
        .arg(directory.join("data"))
        .arg("--exec-root")
        .arg(directory.join("exec"))
        .arg("--cgroup-parent")
        .arg(host.cgroup())
        .arg("--pidfile")
        .arg(directory.join("pid"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log)?)
        .spawn()?;
    let command = [client.into(), "-H".into(), socket.into()];
    let mut engine = Engine::new("docker", command, Some(daemon));
    // dockerd doesn't tell when it listens; asking takes long enough not to spin.
    while !engine.command(&["version"]).output()?.status.success() {
        if engine.daemon.as_mut().is_some_and(|daemon| !matches!(daemon.try_wait(), Ok(None))) {
            bail!("dockerd ended:\n{}", tail(&log));
        }
    }
    Ok(engine)
}

fn podman(host: &Host, program: &Path) -> anyhow::Result<Engine> {
    let directory = host.directory().join("podman");
    std::fs::create_dir(&directory)?;
    // Its own default for open files may be above what this host allows, and then it
    // starts nothing.
    let settings = directory.join("containers.conf");
    std::fs::write(
        &settings,
        "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n",
    )?;
    let mut command = host.command(Path::new("env"));
    command.arg(format!("CONTAINERS_CONF={}", settings.display())).arg(program);
    let mut words = vec![command.get_program().to_owned()];
    words.extend(command.get_args().map(ToOwned::to_owned));
    for (flag, name) in [("--root", "root"), ("--runroot", "runroot"), ("--tmpdir", "tmp")] {
        words.extend([flag.into(), directory.join(name).into_os_string()]);
    }
    let rest = ["--cgroup-manager", "cgroupfs", "--events-backend", "file"];
    words.extend(rest.map(OsString::from));
    Ok(Engine::new("podman", words, None))
}

impl Engine {
    fn new(
        name: &'static str,
        command: impl IntoIterator<Item = OsString>,
        daemon: Option<Child>,
    ) -> Self {
        Self { name, command: command.into_iter().collect(), daemon }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).args(arguments).stdin(Stdio::null());
        command
    }

    /// Calls the engine's client; its output.
    pub(crate) fn call(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command(arguments).output()?;
        self.checked(arguments, output)
    }

    /// Removes containers, running or not.
    pub(crate) fn remove(&self, names: &[String]) -> anyhow::Result<()> {
        let mut arguments = vec!["rm", "-f"];
        if self.name == "podman" {
            arguments.extend(["-t", "0"]); // It waits ten seconds otherwise.
        }
        arguments.extend(names.iter().map(String::as_str));
        self.call(&arguments).map(drop)
    }

    /// The daemon and what it started itself, containers left out.
    pub(crate) fn daemon_pids(&self) -> Vec<u32> {
        let Some(daemon) = self.daemon.as_ref().map(Child::id) else { return Vec::new() };
        let children = format!("/proc/{daemon}/task/{daemon}/children");
        let children = read(Path::new(&children));
        let containerd = children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .filter(|pid| read(&PathBuf::from(format!("/proc/{pid}/comm"))).trim() == "containerd");
        std::iter::once(daemon).chain(containerd).collect()
    }

    /// The most memory that the daemon and what it started had at a time, in KiB; 0
    /// without a daemon.
    pub(crate) fn peak_kib(&self) -> u64 {
        let peak = |pid: u32| -> Option<u64> {
            let status = read(&PathBuf::from(format!("/proc/{pid}/status")));
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.split_whitespace().next()?.parse().ok()
        };
        self.daemon_pids().into_iter().filter_map(peak).sum()
    }

    fn import(&self, rootfs: &Path) -> anyhow::Result<()> {
        let mut tar = Command::new("tar")
            .arg("--create")
            .arg("--directory")
            .arg(rootfs)
            .arg(".")
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run tar")?;
        let archive = tar.stdout.take().context("tar's output is not piped")?;
        let arguments = ["import", "-", IMAGE];
        let output = self.command(&arguments).stdin(archive).output()?;
        tar.wait()?;
        self.checked(&arguments, output).map(drop)
    }

    fn checked(&self, arguments: &[&str], output: Output) -> anyhow::Result<String> {
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{} {}: {}\n{said}",
            self.name,
            arguments.join(" "),
            output.status
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

impl Drop for Engine {
    /// Removes the containers and ends the daemon that was started here.
    fn drop(&mut self) {
        let names: Vec<String> = self
            .call(&["ps", "-aq"])
            .map(|ids| ids.lines().map(str::to_owned).collect())
            .unwrap_or_default();
        if !names.is_empty() {
            let _ = self.remove(&names);
        }
        if let Some(daemon) = &mut self.daemon {
            // A daemon that ended by itself can't be told to.
            let _ = kill_process(Pid::from_child(daemon), Signal::TERM);
            let _ = daemon.wait();
        }
    }
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let text = read(path);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
