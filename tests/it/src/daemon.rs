//! A daemon of the test's own, and the look at the host after it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::cli::{Cli, Engine};
use crate::image::{Image, busybox};
use crate::leaks::Traces;
use crate::wait::{patience, pause, wait_for_exit};

/// Where the subnets in use are locked, for all tests of this host.
const SUBNETS: &str = "/tmp/capsa-it-subnets";
const SETTLE: Duration = Duration::from_secs(8);

/// What is special about a daemon.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The data root is a tmpfs of this size (mount(8) notation), in a mount namespace
    /// of the daemon.
    pub data_root_size: Option<&'static str>,
    /// More arguments.
    pub arguments: Vec<String>,
}

/// A running daemon with `busybox:latest` loaded; dereferences to its command line.
/// Dropping it removes all containers, ends it, and fails the test if anything is left
/// on the host.
pub struct Daemon {
    engine: Engine,
    dir: TempDir,
    subnet: Subnet,
    setup: Setup,
    process: Option<Child>,
}

/// A /24 nobody else on this host tests with.
struct Subnet {
    prefix: String,
    _lock: File,
}

impl Daemon {
    /// Starts a daemon and loads busybox.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(cli: Cli) -> Self {
        let daemon = Self::start_with(cli, Setup::default());
        daemon.load(&busybox());
        daemon
    }

    /// Starts a daemon without any image.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_with(cli: Cli, setup: Setup) -> Self {
        let dir = tempfile::Builder::new().prefix("capsa-it-").tempdir().unwrap();
        for sub in ["data", "exec", "home"] {
            fs::create_dir(dir.path().join(sub)).unwrap();
        }
        let engine = Engine::new(cli, &dir.path().join("s.sock"), &dir.path().join("home"));
        let subnet = Subnet::take();
        let mut daemon = Self { engine, dir, subnet, setup, process: None };
        daemon.launch();
        daemon
    }

    /// Starts the daemon again, on the same directories.
    ///
    /// # Panics
    /// When one runs, or it does not come up.
    pub fn launch(&mut self) {
        assert!(self.process.is_none(), "the daemon runs");
        let mut process = self.command().spawn().unwrap();
        let mut ready = String::new();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        // It writes a line once it listens, and closes its end if it dies.
        let _ = stdout.read_line(&mut ready);
        if ready.is_empty() {
            let _ = process.kill();
            let status = process.wait();
            panic!("the daemon did not come up ({status:?}):\n{}", self.log());
        }
        std::thread::spawn(move || {
            let _ = stdout.read_to_end(&mut Vec::new());
        });
        self.process = Some(process);
    }

    /// Loads an image.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn load(&self, image: &Image) {
        let path = image.write(self.dir.path());
        self.ok(&["load", "-q", "-i", path.to_str().unwrap()]);
        fs::remove_file(path).unwrap();
    }

    /// The daemon's process id.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a running daemon").id()
    }

    /// A scratch directory that goes with the daemon.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// The data root.
    pub fn data_root(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Address of the daemon's bridge.
    pub fn gateway(&self) -> String {
        format!("{}1", self.subnet.prefix)
    }

    /// Name of the daemon's bridge, and of everything else of its own on the host.
    ///
    /// # Panics
    /// When the daemon has not come up yet.
    pub fn bridge(&self) -> String {
        let number = fs::read_to_string(self.data_root().join("instance")).unwrap();
        format!("capsa{}", number.trim())
    }

    /// An address of the host's loopback that no other daemon publishes on.
    pub fn loopback(&self) -> String {
        self.gateway().replacen("10.", "127.", 1)
    }

    /// Kills the daemon as a crash would.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill_hard(&mut self) {
        let mut process = self.process.take().expect("a running daemon");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Asks the daemon to end, and waits for it.
    ///
    /// # Panics
    /// When it does not run or does not end.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("a running daemon");
        kill_process(Pid::from_child(&process), Signal::TERM).unwrap();
        let status = wait_for_exit(&mut process, patience());
        if status.is_none() {
            let _ = process.kill();
            let _ = process.wait();
        }
        let status = status.unwrap_or_else(|| panic!("SIGTERM does not end it:\n{}", self.log()));
        assert!(status.success(), "the daemon ended with {status}:\n{}", self.log());
    }

    /// What the daemon wrote to its standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn command(&self) -> Command {
        let dir = self.dir.path();
        let data = dir.join("data");
        let mut command = match self.setup.data_root_size {
            None => Command::new(crate::binary()),
            Some(size) => {
                // Each step replaces the last: the child is the daemon.
                let script = format!(
                    "mountpoint -q {0} || mount -t tmpfs -o size={size} tmpfs {0}; exec \"$@\"",
                    data.display()
                );
                let mut command = Command::new("unshare");
                command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
                command.arg(crate::binary());
                command
            }
        };
        let log = File::options().create(true).append(true).open(dir.join("log")).unwrap();
        command
            .args(["daemon", "--background", "--data-root"])
            .arg(data)
            .arg("--exec-root")
            .arg(dir.join("exec"))
            .arg("-H")
            .arg(format!("unix://{}", dir.join("s.sock").display()))
            .arg("--bip")
            .arg(format!("{}1/24", self.subnet.prefix))
            .args(&self.setup.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        command
    }

    /// Removes all containers and volumes and ends the daemon; what is left then.
    fn tear_down(&mut self) -> Vec<String> {
        if self.process.is_none() {
            self.launch();
        }
        let engine = self.engine.with(Cli::Docker);
        let listed = engine.run(&["ps", "-aq", "--no-trunc"]);
        let ids: Vec<&str> = listed.stdout.split_whitespace().collect();
        let mut problems = Vec::new();
        if listed.code != 0 {
            problems.push(format!("ps: {}", listed.stderr));
        }
        if !ids.is_empty() {
            let removed = engine.run(&[&["rm", "-f", "-v"], ids.as_slice()].concat());
            if removed.code != 0 {
                problems.push(format!("rm -f: {}", removed.stderr));
            }
        }
        let containers = ids.iter().map(|&id| id.to_owned()).collect();
        self.stop();
        let dir = self.dir.path().display().to_string();
        let traces = Traces { dir, subnet: self.subnet.prefix.clone(), containers };
        // The kernel takes namespaces apart after their last process is gone.
        let deadline = Instant::now() + SETTLE;
        loop {
            let left = traces.left();
            if left.is_empty() || Instant::now() > deadline {
                problems.extend(left);
                return problems;
            }
            pause(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let left = self.tear_down();
            assert!(left.is_empty(), "left behind:\n  {}\n{}", left.join("\n  "), self.log());
            return;
        }
        // The test failed already: clean up as well as can be, and show the log.
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.tear_down()));
        let text = match caught {
            Ok(left) => left.join("\n  "),
            Err(_) => "the daemon can't be ended in order".to_owned(),
        };
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            format!("--- daemon's log\n{}--- left: {text}\n", self.log()).as_bytes(),
        );
    }
}

impl Deref for Daemon {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl Subnet {
    fn take() -> Self {
        fs::create_dir_all(SUBNETS).unwrap();
        let free = (1..255).find_map(|n| {
            let path = Path::new(SUBNETS).join(n.to_string());
            let lock = File::options().create(true).append(true).open(path).unwrap();
            lock.try_lock().is_ok().then_some((n, lock))
        });
        let (n, lock) = free.expect("a free subnet");
        Self { prefix: format!("10.211.{n}."), _lock: lock }
    }
}
