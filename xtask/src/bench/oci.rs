//! The low-level runtimes: one bundle, from nothing to gone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::ensure;
use serde_json::json;

use super::host::Host;
use super::measure::{median, settle, timed};
use super::table::{Medians, Table};
use crate::tree;

/// How much faster than crun we promise to be.
const FACTOR: f64 = 2.0;

struct Runtime {
    name: &'static str,
    command: Vec<PathBuf>,
}

/// A hybrid of both cgroup versions, which crun refuses.
const UNIFIED: &str = "/sys/fs/cgroup/unified";
/// Set in the process that was started without it.
const APART: &str = "CAPSA_BENCH_APART";

/// Whether the runtimes can only be compared where the host's cgroup2 is not
/// mounted beside v1.
pub(crate) fn must_be_apart() -> bool {
    std::env::var_os(APART).is_none() && Path::new(UNIFIED).is_dir()
}

/// Runs this benchmark in a mount namespace without cgroup2; it prints its own
/// table. Whether its promise was kept.
pub(crate) fn measure_apart() -> anyhow::Result<bool> {
    let script = format!("umount {UNIFIED} && exec \"$0\" bench oci");
    let status = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .arg(std::env::current_exe()?)
        .env(APART, "1")
        .status()?;
    Ok(status.success())
}

/// Adds `oci run` beside crun's and runc's.
pub(crate) fn measure(
    host: &Host,
    binary: &Path,
    runs: usize,
    table: &mut Table,
) -> anyhow::Result<()> {
    let bundle = make_bundle(host)?;
    let mut runtimes = vec![Runtime { name: "capsa", command: vec![binary.into(), "oci".into()] }];
    for name in ["crun", "runc"] {
        match tree::which(name) {
            Some(program) => {
                let runtime = Runtime { name, command: vec![program] };
                // Some refuse some arrangements of cgroups.
                match runtime.run(host, &bundle, "trial") {
                    Ok(()) => runtimes.push(runtime),
                    Err(error) => println!("no comparison with {name}: {error}"),
                }
            }
            None => println!("no {name} here"),
        }
    }
    let mut times = vec![Vec::new(); runtimes.len()];
    for round in 0..=runs {
        for (runtime, times) in runtimes.iter().zip(&mut times) {
            settle();
            let took = timed(|| runtime.run(host, &bundle, &round.to_string()))?;
            if round > 0 {
                times.push(took);
            }
        }
    }
    let medians: Medians =
        runtimes.iter().zip(times).map(|(runtime, times)| (runtime.name, median(times))).collect();
    table.compare("oci run of a minimal bundle", FACTOR, medians);
    Ok(())
}

impl Runtime {
    fn run(&self, host: &Host, bundle: &Path, round: &str) -> anyhow::Result<()> {
        let state = host.directory().join(format!("state-{}", self.name));
        let output = Command::new(&self.command[0])
            .args(&self.command[1..])
            .arg("--root")
            .arg(state)
            .args(["run", "--bundle"])
            .arg(bundle)
            .arg(format!("bench-{}-{}-{round}", self.name, std::process::id()))
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} run: {}\n{said}", self.name, output.status);
        Ok(())
    }
}

/// What `runc spec` writes, in its essentials, for `true`.
fn make_bundle(host: &Host) -> anyhow::Result<PathBuf> {
    let bundle = host.directory().join("bundle");
    std::fs::create_dir(&bundle)?;
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/true"],
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
            "noNewPrivileges": true,
        },
        "root": { "path": host.rootfs(), "readonly": true },
        "hostname": "bench",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" },
                { "type": "uts" }, { "type": "mount" },
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    std::fs::write(bundle.join("config.json"), serde_json::to_vec_pretty(&config)?)?;
    Ok(bundle)
}
