//! A daemon's steps, one system call each, watched from outside; at a chosen one the
//! daemon is killed.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::daemon::Daemon;

/// The program beside this test that traces, see its header.
const TRACER: &str = "crash-at";

/// What becomes of monitors when the daemon is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Monitors {
    /// They go on.
    Awake,
    /// They stand still until they are woken, as on a busy host.
    Frozen,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// The name of each step.
    pub steps: Vec<String>,
    /// Monitors that stand still.
    frozen: Vec<Pid>,
}

/// A daemon under watch.
pub struct Steps {
    tracer: Child,
    lines: BufReader<ChildStdout>,
}

impl Steps {
    /// Watches the daemon from now on, and kills it as it enters its step `fatal`, counted
    /// from 1.
    ///
    /// # Panics
    /// When it can't be traced.
    pub fn watch(daemon: &Daemon, fatal: Option<usize>, monitors: Monitors) -> Self {
        let mut command = Command::new(crate::built(TRACER));
        command.arg(daemon.pid().to_string());
        if let Some(step) = fatal {
            command.arg(step.to_string());
            command.args((monitors == Monitors::Frozen).then_some("freeze"));
        }
        let mut tracer = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(tracer.stdout.take().unwrap());
        let mut first = String::new();
        lines.read_line(&mut first).unwrap();
        assert_eq!(first, "ready\n", "the daemon can't be traced");
        Self { tracer, lines }
    }

    /// Lets go of the daemon; what was seen of it.
    ///
    /// # Panics
    /// When the tracer says nonsense.
    pub fn finish(mut self) -> Seen {
        // Its tracees go on as if nothing had been.
        let _ = self.tracer.kill();
        self.tracer.wait().unwrap();
        let mut seen = Seen::default();
        for line in self.lines.lines().map(Result::unwrap) {
            match line.strip_prefix("frozen ") {
                Some(pid) => seen.frozen.push(Pid::from_raw(pid.parse().unwrap()).unwrap()),
                None => seen.steps.push(line),
            }
        }
        seen
    }
}

impl Seen {
    /// Lets the monitors go on.
    pub fn wake(&self) {
        for pid in &self.frozen {
            // It may have been killed.
            let _ = kill_process(*pid, Signal::CONT);
        }
    }
}
