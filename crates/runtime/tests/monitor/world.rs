//! A container to be, its directories, and a daemon's view of its monitor.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use capsa_oci::runtime::{Process, RuntimeSpec};
use capsa_runtime::cgroup::Cgroup;
use capsa_runtime::monitor::{self, Spawned};
use capsa_runtime::protocol::{
    self, AttachRequest, CreateRequest, Event, ExecRequest, ExitRecord, Failure, LogPlan, Request,
    RootfsPlan, StdioPlan,
};
use capsa_sys::channel::Channel;
use serde_json::{Value, json};

/// First host id of the containers here.
pub const FIRST_ID: u32 = 1_000_000;

const APPLETS: [&str; 24] = [
    "sh", "cat", "echo", "true", "false", "id", "ls", "sleep", "hostname", "mount", "kill",
    "touch", "stat", "tty", "stty", "test", "readlink", "wc", "mkdir", "chown", "grep", "pwd",
    "head", "seq",
];

static COUNT: AtomicU32 = AtomicU32::new(0);

/// One container's directories and its request.
pub struct World {
    pub dir: PathBuf,
    pub request: CreateRequest,
}

impl World {
    /// A container with a user namespace that runs `script` in a shell.
    pub fn new(script: &str) -> Self {
        let busybox = Path::new("/usr/bin/busybox");
        assert!(busybox.exists(), "these tests need the package busybox-static");
        let id = format!("test{}n{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(format!("capsa-monitor-{id}"));
        let layer = dir.join("layers/base");
        for sub in ["bin", "etc", "tmp"] {
            fs::create_dir_all(layer.join(sub)).unwrap();
        }
        fs::copy(busybox, layer.join("bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", layer.join("bin").join(applet)).unwrap();
        }
        fs::write(layer.join("etc/plain"), "plain\n").unwrap();
        for sub in ["run", "top/upper", "top/work"] {
            fs::create_dir_all(dir.join(sub)).unwrap();
        }
        fs::set_permissions(dir.join("run"), fs::Permissions::from_mode(0o700)).unwrap();
        let spec: RuntimeSpec = serde_json::from_value(spec(script)).unwrap();
        let rootfs =
            RootfsPlan::Overlay { lowers: vec![layer], top: dir.join("top"), volatile: true };
        let log = LogPlan {
            path: dir.join("log"),
            max_bytes: 0,
            max_files: 1,
            attrs: Default::default(),
        };
        let stdio = StdioPlan { log: Some(log), ..StdioPlan::default() };
        let request = CreateRequest {
            id,
            dir: dir.join("run"),
            spec,
            rootfs,
            stdio,
            exit_record: dir.join("exit.json"),
            seccomp: None,
            init: false,
            note: "note".to_owned(),
        };
        Self { dir, request }
    }

    /// Without a user namespace.
    pub fn without_user_namespace(mut self) -> Self {
        let linux = self.request.spec.linux.as_mut().unwrap();
        linux.namespaces.retain(|n| n.kind != capsa_oci::runtime::NamespaceKind::User);
        linux.uid_mappings.clear();
        linux.gid_mappings.clear();
        self
    }

    pub fn process(&mut self) -> &mut Process {
        self.request.spec.process.as_mut().unwrap()
    }

    /// Sends Create and waits for Created.
    pub fn create(&self) -> Daemon {
        let exe = monitor::self_exe().unwrap();
        let Spawned { pid, pidfd, channel } = monitor::spawn(exe.as_fd()).unwrap();
        let mut daemon = Daemon { monitor: pid, pidfd, channel, init: 0 };
        let listener = monitor::listen(&self.request.dir).unwrap();
        daemon.send(Request::Create(Box::new(self.request.clone())), &[listener.as_fd()]);
        match daemon.next() {
            Some(Event::Created { pid }) => daemon.init = pid,
            other => panic!("{other:?} instead of Created"),
        }
        daemon
    }

    /// Creates, attaches, starts, and runs to the end: output of both streams, and the record.
    pub fn run(&self) -> (String, String, ExitRecord) {
        let mut daemon = self.create();
        let mut client = daemon.attach(false);
        daemon.start();
        let (out, err) = unframe(&read_all(&mut client));
        let record = daemon.exited();
        daemon.reap();
        (out, err, record)
    }

    /// Runs a container that can't be made.
    pub fn run_to_failure(&self) -> Failure {
        let daemon = self.create();
        // It may have ended by now: what it said is to be heard all the same.
        let _ = protocol::send(&daemon.channel, &Request::Start, &[]);
        let failure = match daemon.next() {
            Some(Event::Failed(failure)) => failure,
            other => panic!("{other:?} instead of Failed"),
        };
        assert_eq!(daemon.next(), None);
        daemon.reap();
        self.assert_unmade();
        failure
    }

    /// The container's cgroup directories that exist.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap();
        let own = |entry: Result<fs::DirEntry, _>| entry.unwrap().path().join("capsa");
        let mut all: Vec<_> =
            hierarchies.map(own).map(|parent| parent.join(&self.request.id)).collect();
        all.push(Path::new("/sys/fs/cgroup/capsa").join(&self.request.id));
        all.retain(|path| path.exists());
        all
    }

    /// The container's cgroup; it exists.
    pub fn cgroup(&self) -> Cgroup {
        Cgroup::open(&format!("/capsa/{}", self.request.id)).unwrap()
    }

    pub fn assert_unmade(&self) {
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new());
        assert!(!self.request.exit_record.exists());
        assert!(!self.request.dir.join("monitor.sock").exists());
    }

    pub fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.dir.join("log")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A daemon's view of one monitor.
pub struct Daemon {
    pub monitor: u32,
    pub pidfd: OwnedFd,
    pub channel: Channel,
    pub init: u32,
}

impl Daemon {
    pub fn send(&self, request: Request, fds: &[std::os::fd::BorrowedFd<'_>]) {
        protocol::send(&self.channel, &request, fds).unwrap();
    }

    pub fn next(&self) -> Option<Event> {
        protocol::recv(&self.channel).unwrap().map(|(event, _)| event)
    }

    /// Stops the monitor or lets it go on, and waits until it does.
    pub fn signal_monitor(&self, signal: rustix::process::Signal) {
        use rustix::process::{WaitId, WaitIdOptions, pidfd_send_signal, waitid};
        pidfd_send_signal(&self.pidfd, signal).unwrap();
        let options = WaitIdOptions::STOPPED | WaitIdOptions::CONTINUED;
        waitid(WaitId::PidFd(self.pidfd.as_fd()), options).unwrap();
    }

    pub fn attach(&self, stdin: bool) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let wants = AttachRequest { stdin, stdout: true, stderr: true, detach_keys: Vec::new() };
        self.send(Request::Attach(wants), &[theirs.as_fd()]);
        ours
    }

    pub fn start(&mut self) {
        self.send(Request::Start, &[]);
        match self.next() {
            Some(Event::Started { at_ns }) => assert!(at_ns > 0),
            other => panic!("{other:?} instead of Started"),
        }
    }

    pub fn exited(&self) -> ExitRecord {
        match self.next() {
            Some(Event::Exited(record)) => record,
            other => panic!("{other:?} instead of Exited"),
        }
    }

    /// Runs one exec to its end: its output and code.
    pub fn exec(&self, request: ExecRequest) -> Result<(String, i32), Failure> {
        let id = request.exec_id.clone();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let fds = match (request.tty, request.stdout) {
            (false, false) => vec![],
            _ => vec![theirs.as_fd()],
        };
        self.send(Request::Exec(Box::new(request)), &fds);
        drop(theirs);
        match self.next().unwrap() {
            Event::ExecStarted { exec_id, pid } => assert!(exec_id == id && pid > 1),
            Event::ExecFailed { failure, .. } => return Err(failure),
            other => panic!("{other:?} instead of ExecStarted"),
        }
        let output = read_all(&mut ours);
        match self.next().unwrap() {
            Event::ExecExited { exec_id, code } if exec_id == id => {
                Ok((String::from_utf8(output).unwrap(), code))
            }
            other => panic!("{other:?} instead of ExecExited"),
        }
    }

    /// Waits for the monitor's own end.
    pub fn reap(&self) {
        capsa_sys::process::wait(self.pidfd.as_fd()).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // After a failed test nothing may stay behind.
        if self.init > 1
            && Path::new(&format!("/proc/{}", self.init)).exists()
            && let Ok(pidfd) = capsa_sys::process::pidfd_open(self.init)
        {
            capsa_sys::process::kill(pidfd.as_fd());
        }
    }
}

pub fn exec_request(id: &str, args: &[&str]) -> ExecRequest {
    let process =
        json!({"args": args, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    ExecRequest {
        exec_id: id.into(),
        process: serde_json::from_value(process).unwrap(),
        tty: false,
        console_size: None,
        seccomp: None,
        stdin: false,
        stdout: true,
        stderr: false,
        detach_keys: Vec::new(),
    }
}

pub fn read_all(stream: &mut UnixStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

/// Reads until `wanted` has been seen.
pub fn read_until(stream: &mut UnixStream, wanted: &str) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&all).into_owned();
        if text.contains(wanted) {
            return text;
        }
        let length = stream.read(&mut buffer).unwrap();
        assert!(length > 0, "{wanted:?} did not come, only {text:?}");
        all.extend_from_slice(&buffer[..length]);
    }
}

pub fn write(stream: &mut UnixStream, text: &str) {
    stream.write_all(text.as_bytes()).unwrap();
}

/// Stdout and stderr of framed bytes.
pub fn unframe(mut bytes: &[u8]) -> (String, String) {
    let mut streams = [Vec::new(), Vec::new()];
    while !bytes.is_empty() {
        let (header, rest) = bytes.split_at(8);
        let length = u32::from_be_bytes(header[4..].try_into().unwrap()) as usize;
        streams[usize::from(header[0]) - 1].extend_from_slice(&rest[..length]);
        bytes = &rest[length..];
    }
    let [out, err] = streams.map(|bytes| String::from_utf8(bytes).unwrap());
    (out, err)
}

fn spec(script: &str) -> Value {
    let ids = json!([{"containerID": 0, "hostID": FIRST_ID, "size": 65536}]);
    let caps = json!(["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE"]);
    let namespaces = ["user", "mount", "pid", "network", "ipc", "uts", "cgroup"];
    let namespaces = namespaces.map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin", "HOME=/root"],
            "user": {"uid": 0, "gid": 0},
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "noNewPrivileges": false,
        },
        "root": {"path": ""},
        "hostname": "inside",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["ro", "nosuid", "noexec", "nodev"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]},
        ],
        "linux": {
            "namespaces": namespaces, "uidMappings": ids, "gidMappings": ids,
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list",
                "/proc/sched_debug", "/sys/firmware", "/proc/absent"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        }
    })
}
