//! A place for engines to compete in: a directory, and network and mount
//! namespaces of their own, so that no rule, link or mount of an engine
//! reaches the host. All of it goes when the value is dropped.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::tree;

/// Applets that the benchmarks call by name.
const APPLETS: &[&str] = &["sh", "true", "sleep"];

pub(crate) struct Host {
    directory: PathBuf,
    holder: Child,
}

impl Host {
    pub(crate) fn set_up() -> anyhow::Result<Self> {
        let directory = std::env::temp_dir().join(format!("capsa-bench-{}", std::process::id()));
        std::fs::DirBuilder::new()
            .mode(0o755)
            .create(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let host = Self { holder: hold_namespaces()?, directory };
        host.make_rootfs()?;
        Ok(host)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A root file system with busybox and nothing else.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    /// The parent of the cgroups of engines that can be told one.
    pub(crate) fn cgroup(&self) -> PathBuf {
        Path::new("/").join(self.directory.file_name().unwrap_or_default())
    }

    /// A command that runs inside the namespaces.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        let of_holder = |kind: &str| format!("/proc/{}/ns/{kind}", self.holder.id());
        command.arg(format!("--net={}", of_holder("net")));
        command.arg(format!("--mount={}", of_holder("mnt")));
        command.arg("--").arg(program);
        command
    }

    fn make_rootfs(&self) -> anyhow::Result<()> {
        let busybox =
            tree::which("busybox").context("busybox is not installed (busybox-static)")?;
        let programs = self.rootfs().join("bin");
        for directory in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            std::fs::create_dir_all(self.rootfs().join(directory))?;
        }
        std::fs::copy(busybox, programs.join("busybox"))?;
        for applet in APPLETS {
            symlink("busybox", programs.join(applet))?;
        }
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Nothing to be done about a failure here but to leave the directory.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
        let name = self.directory.file_name().unwrap_or_default();
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = std::fs::remove_dir(hierarchy.path().join(name));
        }
    }
}

/// A sleeping process in new namespaces; it says when they are there. A cgroup2 mounted
/// beside v1 is hidden from all engines, because podman's runtime refuses the mixture.
fn hold_namespaces() -> anyhow::Result<Child> {
    let script = "if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi \
        && ip link set lo up && echo ready && exec sleep infinity";
    let mut holder = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run unshare (util-linux)")?;
    let output = holder.stdout.take().context("the holder's output is not piped")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    ensure!(line == "ready\n", "cannot make namespaces of our own");
    Ok(holder)
}
