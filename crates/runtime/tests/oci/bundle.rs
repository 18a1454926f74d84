//! A bundle with busybox in it, and calls of verbs on it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use capsa_oci::runtime::RuntimeSpec;
use serde_json::Value;

static COUNT: AtomicU32 = AtomicU32::new(0);

const APPLETS: [&str; 16] = [
    "sh", "cat", "echo", "true", "false", "id", "sleep", "hostname", "mount", "kill", "touch",
    "tty", "stty", "grep", "wc", "env",
];

/// A bundle, and the directory where the verbs keep its container.
pub struct Bundle {
    pub id: String,
    pub dir: PathBuf,
}

impl Bundle {
    /// One whose program is `script`, in a shell.
    pub fn new(script: &str) -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("oci{}n{number}", std::process::id());
        let dir = std::env::temp_dir().join(format!("capsa-{id}"));
        fs::create_dir_all(dir.join("rootfs/bin")).unwrap();
        fs::copy("/usr/bin/busybox", dir.join("rootfs/bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", dir.join("rootfs/bin").join(applet)).unwrap();
        }
        let bundle = Self { id, dir };
        assert!(bundle.call(&["spec", "-b", &bundle.path("")]).status.success());
        bundle.change(|spec| {
            let process = spec.process.as_mut().unwrap();
            process.args = ["sh", "-c", script].map(str::to_owned).to_vec();
            process.terminal = false;
        });
        bundle
    }

    /// Changes the config.
    pub fn change(&self, change: impl FnOnce(&mut RuntimeSpec)) {
        let path = self.dir.join("config.json");
        let mut spec = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut spec);
        fs::write(path, serde_json::to_vec(&spec).unwrap()).unwrap();
    }

    /// A path below the bundle.
    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }

    /// A file of the bundle.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap_or_default()
    }

    /// `capsa oci --root … ARGS`, still to be started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.args(["oci", "--root", &self.path("state")]).args(args).stdin(Stdio::null());
        command
    }

    /// Runs a verb to its end, through files: a pipe would stay open in the container.
    pub fn call(&self, args: &[&str]) -> Output {
        // Files of this call alone: a container that goes on may still write to its.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = |name: &str| self.dir.join(format!("{name}{number}"));
        let file = |name: &str| fs::File::create(path(name)).unwrap();
        let (out, err) = (file("stdout"), file("stderr"));
        let status = self.command(args).stdout(out).stderr(err).status().unwrap();
        let read = |name: &str| fs::read(path(name)).unwrap();
        Output { status, stdout: read("stdout"), stderr: read("stderr") }
    }

    /// A verb that has to work; what it prints.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.call(args);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A verb that has to fail; what it says.
    pub fn refused(&self, args: &[&str]) -> String {
        let output = self.call(args);
        assert!(!output.status.success(), "{args:?} worked");
        String::from_utf8(output.stderr).unwrap()
    }

    /// `create` with the output of the container in the file `out`.
    pub fn create(&self) {
        let pid_file = self.path("pid");
        let args = ["create", "-b", &self.path(""), "--pid-file", &pid_file, &self.id];
        let out = fs::File::create(self.dir.join("out")).unwrap();
        let status = self.command(&args).stdout(out.try_clone().unwrap()).stderr(out).status();
        assert!(status.unwrap().success(), "{}", self.read("out"));
    }

    /// `run` in the foreground.
    pub fn run(&self, options: &[&str]) -> Output {
        let path = self.path("");
        let args = [&["run", "-b", &path], options, &[&self.id]].concat();
        self.call(&args)
    }

    /// What `state` tells.
    pub fn state(&self) -> Value {
        serde_json::from_str(&self.ok(&["state", &self.id])).unwrap()
    }

    /// The status that `state` tells.
    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    /// Waits until the container's first process, which is ours to reap, has ended.
    pub fn wait(&self) {
        let pid = self.state()["pid"].clone();
        self.reap(&pid);
    }

    /// Waits for a process that is ours to reap.
    pub fn reap(&self, pid: &Value) {
        let pid = i32::try_from(pid.as_i64().unwrap()).unwrap();
        let Some(pid) = rustix::process::Pid::from_raw(pid) else { return };
        rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap();
    }

    /// Waits until the file `name` holds `text`.
    pub fn wait_for(&self, name: &str, text: &str) {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !self.read(name).contains(text) {
            assert!(std::time::Instant::now() < end, "{name}: {:?}", self.read(name));
            std::thread::yield_now();
        }
    }

    /// Nothing of the container is left on this machine.
    pub fn assert_gone(&self) {
        assert!(!self.dir.join("state").join(&self.id).exists());
        assert_eq!(cgroup_directories(&self.id), Vec::<PathBuf>::new());
    }
}

fn cgroup_directories(id: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let cgroups = mounts.lines().filter(|line| line.contains(" - cgroup"));
    let places = cgroups.filter_map(|line| line.split(' ').nth(4));
    places.map(|mount| Path::new(mount).join("capsa-oci").join(id)).filter(|p| p.exists()).collect()
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let deleted = self.call(&["delete", "--force", &self.id]);
        let _ = fs::remove_dir_all(&self.dir);
        if !std::thread::panicking() {
            assert!(deleted.status.success(), "{deleted:?}");
        }
    }
}
