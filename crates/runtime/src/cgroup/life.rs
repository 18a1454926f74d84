//! What is in a cgroup, and its end: pids, freezing, killing, removing.
//!
//! v2 can freeze and kill by one write. On v1 the freezer makes killing certain:
//! nothing forks while it is frozen, and what is thawed finds its SIGKILL first.

use std::path::Path;

use capsa_sys::Error as SysError;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::Cgroup;
use super::dir::{Dir, children};
use super::hierarchy::Controller;
use crate::Result;

/// Pauses between tries double from the first to the last; together about two seconds.
const FIRST_PAUSE_NS: i64 = 50_000;
const LAST_PAUSE_NS: i64 = 50_000_000;
const TRIES: u32 = 50;

impl Cgroup {
    /// Host pids of all processes in it and in the cgroups below; empty when it is gone.
    pub fn pids(&self) -> Result<Vec<u32>> {
        let mut pids = Vec::new();
        if let Some(dir) = self.tree() {
            collect_pids(&dir.path, &mut pids)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Nothing runs in it or below.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.pids()?.is_empty())
    }

    /// Freezes or thaws everything in it, and waits until that is done.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        if let Some(dir) = self.v1_dir(Controller::Freezer) {
            return freeze_v1(dir, frozen);
        }
        let Some(dir) = &self.v2 else {
            return Err(crate::Error::invalid("pause", "no freezer cgroup on this machine"));
        };
        dir.write("cgroup.freeze", if frozen { "1" } else { "0" })?;
        let wanted = u64::from(frozen);
        wait_for("cgroup.freeze", dir, || dir.keyed("cgroup.events", "frozen") == Some(wanted))
    }

    /// Everything in it is frozen.
    pub fn is_frozen(&self) -> bool {
        match (self.v1_dir(Controller::Freezer), &self.v2) {
            (Some(dir), _) => {
                dir.read_opt("freezer.state").is_some_and(|state| state.trim() == "FROZEN")
            }
            (None, Some(dir)) => dir.keyed("cgroup.events", "frozen") == Some(1),
            (None, None) => false,
        }
    }

    /// Sends a signal, by number, to every process in it.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        let Some(signal) = Signal::from_named_raw(signal) else {
            return Err(crate::Error::invalid(format!("signal {signal}"), "no such signal"));
        };
        self.signal_pids(&self.pids()?, signal);
        Ok(())
    }

    /// Kills every process in it, frozen ones too, and returns when none is left to kill or
    /// after about two seconds.
    pub fn kill_all(&self) -> Result<()> {
        if let Some(dir) = self.v2.as_ref().filter(|_| self.v1.is_empty()) {
            match dir.try_write("cgroup.kill", "1") {
                Ok(()) => return Ok(()),
                // Gone already, or a kernel before 5.14.
                Err(Errno::NODEV) => return Ok(()),
                Err(_) => {}
            }
        }
        let mut pause = Pause::default();
        for round in 0..TRIES {
            let pids = self.pids()?;
            if pids.is_empty() {
                return Ok(());
            }
            // What survives the first round forks faster than we read: hold it still.
            let hold = round > 0 && self.freeze(true).is_ok();
            let pids = if hold { self.pids()? } else { pids };
            self.signal_pids(&pids, Signal::KILL);
            if hold || self.is_frozen() {
                self.freeze(false)?;
            }
            pause.wait();
        }
        Ok(())
    }

    /// Removes it and the cgroups below, in every hierarchy. What is gone already is no
    /// error; processes that are just dying are waited for, about two seconds.
    pub fn remove(&self) -> Result<()> {
        self.dirs().try_for_each(|dir| remove_tree(&dir.path))
    }

    /// Any directory that holds all its processes.
    fn tree(&self) -> Option<&Dir> {
        self.v1.first().or(self.v2.as_ref())
    }

    fn signal_pids(&self, pids: &[u32], signal: Signal) {
        let own = std::process::id();
        let others = pids.iter().filter(|pid| **pid != own);
        for pid in others.filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
            // ESRCH: it ended by itself.
            let _ = kill_process(pid, signal);
        }
    }
}

/// v1 tells nobody when a cgroup is frozen or has become empty: it has to be asked again.
struct Pause(i64);

impl Default for Pause {
    fn default() -> Self {
        Self(FIRST_PAUSE_NS)
    }
}

impl Pause {
    fn wait(&mut self) {
        let time = rustix::time::Timespec { tv_sec: 0, tv_nsec: self.0 };
        // Cut short by a signal, it only asks earlier.
        let _ = rustix::thread::nanosleep(&time);
        self.0 = (self.0 * 2).min(LAST_PAUSE_NS);
    }
}

fn collect_pids(path: &Path, pids: &mut Vec<u32>) -> Result<()> {
    match std::fs::read_to_string(path.join("cgroup.procs")) {
        Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok())),
        Err(error) => match Errno::from_io_error(&error) {
            // Removed meanwhile, or (EOPNOTSUPP) a threaded cgroup whose root lists its processes.
            Some(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => {}
            _ => return Err(SysError::from_io("read", path.display(), &error).into()),
        },
    }
    children(path).iter().try_for_each(|child| collect_pids(child, pids))
}

fn freeze_v1(dir: &Dir, frozen: bool) -> Result<()> {
    let wanted = if frozen { "FROZEN" } else { "THAWED" };
    dir.write("freezer.state", wanted)?;
    let done = || dir.read_opt("freezer.state").is_some_and(|state| state.trim() == wanted);
    let outcome = wait_for("freezer.state", dir, done);
    if outcome.is_err() && frozen {
        // Never leave it half frozen.
        dir.write("freezer.state", "THAWED")?;
    }
    outcome
}

fn wait_for(what: &'static str, dir: &Dir, mut done: impl FnMut() -> bool) -> Result<()> {
    let mut pause = Pause::default();
    for _ in 0..TRIES {
        if done() {
            return Ok(());
        }
        pause.wait();
    }
    Err(SysError::new(what, dir.path.display(), Errno::TIMEDOUT).into())
}

fn remove_tree(path: &Path) -> Result<()> {
    let mut pause = Pause::default();
    for _ in 0..TRIES {
        match rustix::fs::rmdir(path) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY) => {}
            Err(errno) => return Err(SysError::new("rmdir", path.display(), errno).into()),
        }
        let below = children(path);
        if below.is_empty() {
            pause.wait();
        }
        below.iter().try_for_each(|child| remove_tree(child))?;
    }
    Err(SysError::new("rmdir", path.display(), Errno::BUSY).into())
}
