//! The demo's closing table: the time of each step, bytes, memory.

use std::time::{Duration, Instant};

/// What happened, in order.
#[derive(Debug, Default)]
pub(super) struct Report {
    steps: Vec<Step>,
    memory: Vec<Memory>,
}

#[derive(Debug)]
struct Step {
    what: String,
    took: Duration,
    bytes: Option<u64>,
}

/// The proportional set size of one container's processes, in KiB.
#[derive(Debug)]
pub(super) struct Memory {
    /// Container's name.
    pub(super) name: String,
    /// The site itself.
    pub(super) program_kib: u64,
    /// The process that is its parent.
    pub(super) monitor_kib: u64,
}

/// A step under way.
pub(super) struct Started(Instant);

impl Report {
    /// Begins to measure.
    pub(super) fn start() -> Started {
        Started(Instant::now())
    }

    /// Notes and shows a step that has just ended.
    pub(super) fn done(&mut self, started: &Started, what: impl Into<String>, bytes: Option<u64>) {
        let step = Step { what: what.into(), took: started.0.elapsed(), bytes };
        println!("{}", line(&step));
        self.steps.push(step);
    }

    /// Notes what a container costs.
    pub(super) fn note_memory(&mut self, memory: Memory) {
        self.memory.push(memory);
    }

    /// Prints the table.
    pub(super) fn print(&self) {
        println!("\n{:<58}{:>10}{:>12}", "step", "time", "bytes");
        for step in &self.steps {
            println!("{}", line(step));
        }
        let total: Duration = self.steps.iter().map(|step| step.took).sum();
        println!("{:<58}{:>10}", "all of it", milliseconds(total));
        println!("\n{:<34}{:>24}{:>22}", "memory (PSS)", "site", "its monitor");
        for memory in &self.memory {
            let [program, monitor] =
                [memory.program_kib, memory.monitor_kib].map(|kib| format!("{kib} KiB"));
            println!("{:<34}{program:>24}{monitor:>22}", memory.name);
        }
    }
}

fn line(step: &Step) -> String {
    let bytes = step.bytes.map(|bytes| bytes.to_string()).unwrap_or_default();
    format!("{:<58}{:>10}{bytes:>12}", step.what, milliseconds(step.took)).trim_end().to_owned()
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
