//! A command line spoken to a daemon: run to its end, or kept running beside the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use crate::wait::{patience, wait_for_exit};

/// Which command line a test speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cli {
    /// The real docker client.
    Docker,
    /// Ours.
    Capsa,
}

/// Where a daemon listens, and the command line to reach it with.
#[derive(Clone, Debug)]
pub struct Engine {
    cli: Cli,
    socket: PathBuf,
    home: PathBuf,
}

/// What a command said and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code; 128 + signal when killed.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A command that goes on; killed when dropped.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
}

impl Engine {
    pub(crate) fn new(cli: Cli, socket: &Path, home: &Path) -> Self {
        Self { cli, socket: socket.to_owned(), home: home.to_owned() }
    }

    /// The same daemon through another command line.
    #[must_use]
    pub fn with(&self, cli: Cli) -> Self {
        Self { cli, ..self.clone() }
    }

    /// The command, not started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = match self.cli {
            Cli::Docker => Command::new("docker"),
            Cli::Capsa => Command::new(crate::binary()),
        };
        // No configuration, context or address but ours.
        command
            .arg("-H")
            .arg(format!("unix://{}", self.socket.display()))
            .args(args)
            .env("HOME", &self.home)
            .env("DOCKER_CONFIG", &self.home)
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_CONTEXT")
            .env_remove("CAPSA_HOST");
        command
    }

    /// Runs a command with nothing on its standard input.
    pub fn run(&self, args: &[&str]) -> Output {
        finish(self.command(args), args, None)
    }

    /// Runs a command with `input` on its standard input.
    pub fn run_with(&self, args: &[&str], input: &[u8]) -> Output {
        finish(self.command(args), args, Some(input.to_vec()))
    }

    /// Runs a command that must succeed; its standard output without the last newline.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.code, 0, "{args:?} failed: {}{}", output.stderr, output.stdout);
        output.stdout.trim_end_matches('\n').to_owned()
    }

    /// Runs a command that must fail with `code`; its standard error.
    ///
    /// # Panics
    /// When it ends otherwise.
    #[track_caller]
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.code, code, "{args:?}: {}{}", output.stderr, output.stdout);
        output.stderr
    }

    /// `inspect` with a template.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn inspect(&self, object: &str, template: &str) -> String {
        self.ok(&["inspect", "--format", template, object])
    }

    /// Starts a command and goes on.
    pub fn start(&self, args: &[&str]) -> Running {
        Running::start(self.command(args))
    }
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (out, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if out.send(line).is_err() {
                    break;
                }
            }
        });
        let stderr = Some(collect(child.stderr.take().unwrap()));
        Self { child, lines, stderr }
    }

    /// The next line of standard output.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn line(&mut self) -> String {
        self.lines.recv_timeout(patience()).expect("a line of output")
    }

    /// Its standard input, to write to or to close.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Process id of the command.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end: the lines not read yet, and how it ended.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn finish(mut self) -> Output {
        drop(self.child.stdin.take());
        let status = wait_for_exit(&mut self.child, patience()).expect("the command to end");
        let mut stdout = String::new();
        while let Ok(line) = self.lines.recv_timeout(patience()) {
            stdout += &(line + "\n");
        }
        let stderr = self.stderr.take().map(|t| t.join().unwrap()).unwrap_or_default();
        Output { code: code(status), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn finish(mut command: Command, args: &[&str], input: Option<Vec<u8>>) -> Output {
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{:?}: {e}", command.get_program()));
    let stdout = collect(child.stdout.take().unwrap());
    let stderr = collect(child.stderr.take().unwrap());
    let writer = input.map(|bytes| {
        let mut stdin = child.stdin.take().unwrap();
        // The command may well end before it has read everything.
        std::thread::spawn(move || drop(stdin.write_all(&bytes)))
    });
    let status = wait_for_exit(&mut child, patience());
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    drop(writer.map(JoinHandle::join));
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    let Some(status) = status else { panic!("{args:?} hangs; it said: {stdout}{stderr}") };
    Output { code: code(status), stdout, stderr }
}

fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
