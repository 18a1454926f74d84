//! Containers without a monitor: each verb is a process of its own.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use capsa_oci::runtime::State;
use capsa_runtime::bundle;
use capsa_runtime::cgroup::Cgroup;
use capsa_runtime::protocol::CreateRequest;

use crate::world::{World, exec_request};

/// A container that was made by a process that has ended.
pub struct Bundle {
    pub pid: u32,
    pub fifo: PathBuf,
    request: PathBuf,
    output: File,
    seen: String,
    maker: Child,
}

impl Bundle {
    /// Makes it by a process of its own.
    pub fn create(world: &World) -> Self {
        // What the maker leaves behind becomes ours to wait for.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        let (request, mut maker) = make(world);
        let mut maker = maker.spawn().unwrap();
        // Not wait(): that would close its stdin.
        let ended = capsa_sys::process::pidfd_open(maker.id()).unwrap();
        assert_eq!(capsa_sys::process::wait(ended.as_fd()).unwrap().code(), 0);
        let output = maker.stdout.take().unwrap();
        let pid = fs::read_to_string(world.dir.join("pid")).unwrap().parse().unwrap();
        let output = File::from(std::os::fd::OwnedFd::from(output));
        let fifo = world.dir.join("start");
        Self { pid, fifo, request, output, seen: String::new(), maker }
    }

    /// What a maker says that cannot make it.
    pub fn fail(world: &World) -> String {
        let (_, mut maker) = make(world);
        let output = maker.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    /// Output until `end`.
    pub fn read_until(&mut self, end: &str) -> String {
        let mut buffer = [0; 256];
        while !self.seen.ends_with(end) {
            let length = self.output.read(&mut buffer).unwrap();
            assert!(length > 0, "{:?}", self.seen);
            self.seen.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
        self.seen.clone()
    }

    /// Output of another verb.
    pub fn verb(&self, name: &str) -> String {
        let mut verb = Command::new(std::env::current_exe().unwrap());
        let output = verb.args(["verb", name]).arg(&self.request).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Ends its input; its exit code.
    pub fn end(mut self) -> i32 {
        drop(self.maker.stdin.take());
        let init = capsa_sys::process::pidfd_open(self.pid).unwrap();
        capsa_sys::process::wait(init.as_fd()).unwrap().code()
    }
}

fn make(world: &World) -> (PathBuf, Command) {
    let request = world.dir.join("request.json");
    fs::write(&request, serde_json::to_vec(&world.request).unwrap()).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["verb", "create"]).arg(&request);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    (request, command)
}

/// The process of a verb.
pub fn play(verb: &str, path: &Path) -> ExitCode {
    let text = fs::read(path).unwrap();
    let request: CreateRequest = serde_json::from_slice(&text).unwrap();
    let dir = path.parent().unwrap();
    let cgroup_path = format!("/capsa/{}", request.id);
    if verb == "exec" {
        let pid = fs::read_to_string(dir.join("pid")).unwrap().parse().unwrap();
        let cgroup = Cgroup::open(&cgroup_path).unwrap();
        let process = exec_request("", &["hostname"]).process;
        let join = bundle::Join { spec: &request.spec, pid, cgroup: &cgroup, process: &process };
        let joined = bundle::join(&join).unwrap();
        let code = capsa_sys::process::wait(joined.pidfd.as_fd()).unwrap().code();
        return ExitCode::from(code as u8);
    }
    let start_fifo = dir.join("start");
    bundle::make_start_fifo(&start_fifo).unwrap();
    let state = State { id: request.id.clone(), ..State::default() };
    let create = bundle::Create {
        spec: &request.spec,
        rootfs: &request.rootfs,
        dir: &request.dir,
        cgroup_path: &cgroup_path,
        start_fifo: &start_fifo,
        state: &state,
    };
    match bundle::create(&create, &mut |pid| {
        assert!(Path::new(&format!("/proc/{pid}/ns/net")).exists());
        Ok(())
    }) {
        Ok(created) => {
            fs::write(dir.join("pid"), created.pid.to_string()).unwrap();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
