//! Ending a container and waiting for its end.
//!
//! The grace period is spent here, not in the actor, which goes on to take other
//! requests. A grace that can't help is not spent: the first process of a pid
//! namespace never sees a signal that it has no handler for (pid_namespaces(7)), so
//! one without a handler for the stop signal is killed at once.

use std::time::Duration;

use tokio::sync::watch;

use super::handle::{Command, Handle, Snapshot};
use super::record::Record;
use crate::options::WaitCondition;
use crate::spec::NamespaceMode;
use crate::view::{ExitView, Phase};
use crate::world::World;
use crate::{Class, Error, Result};

const SIGKILL: i32 = 9;
const GRACE_S: i64 = 10;
/// How long the kernel may take to end a killed process before we say so.
const KILL_PATIENCE: Duration = Duration::from_secs(30);

/// Ends it with its stop signal, then with SIGKILL; false when it does not run.
pub(crate) async fn stop(
    world: &World,
    handle: &Handle,
    signal: Option<i32>,
    timeout_s: Option<i64>,
) -> Result<bool> {
    let record = handle.record();
    if !runs(&record) {
        if record.live.restarting {
            // Keeps the restart policy from the next try.
            end_restarts(handle).await?;
            return Ok(true);
        }
        return Ok(false);
    }
    let signal = signal.unwrap_or(record.resolved.stop_signal);
    let grace = timeout_s.or(record.spec.stop_timeout_s).unwrap_or(GRACE_S);
    let before = handle.snapshot().exits;
    if record.live.phase == Phase::Paused {
        handle.ask(Command::Unpause).await?;
    }
    let heard = !has_no_handler(&record, signal);
    if heard && signal_unless_ended(handle, signal).await? {
        let ended = ended_since(handle.watch(), before);
        let over = match u64::try_from(grace) {
            Ok(seconds) => tokio::time::timeout(Duration::from_secs(seconds), ended).await.is_ok(),
            Err(_) => {
                ended.await;
                true
            }
        };
        if over {
            world.container_event(&record, "stop", []);
            return Ok(true);
        }
    }
    kill_and_wait(handle, before).await?;
    world.container_event(&record, "stop", []);
    Ok(true)
}

/// Sends a signal; SIGKILL means that the user wants its end.
pub(crate) async fn kill(handle: &Handle, key: &str, signal: i32) -> Result<()> {
    let id = handle.record().id.clone();
    let stopping = signal == SIGKILL || signal == handle.record().resolved.stop_signal;
    let sent = handle.ask(|reply| Command::Signal { signal, stopping, reply }).await;
    sent.map_err(|error| match error.class {
        Class::Conflict => {
            Error::conflict(format!("cannot kill container: {key}: container {id} is not running"))
        }
        _ => error,
    })
}

/// Kills it, if it runs, and waits for its end.
pub(crate) async fn end_now(handle: &Handle) -> Result<()> {
    let snapshot = handle.snapshot();
    if snapshot.record.live.phase == Phase::Paused {
        handle.ask(Command::Unpause).await?;
    }
    if runs(&snapshot.record) {
        return kill_and_wait(handle, snapshot.exits).await;
    }
    if snapshot.record.live.restarting {
        end_restarts(handle).await?;
    }
    Ok(())
}

/// The end of the wait for `condition`, counted from now.
pub(crate) fn wait(
    handle: &Handle,
    condition: WaitCondition,
) -> impl Future<Output = ExitView> + Send + 'static + use<> {
    let mut state = handle.watch();
    let before = state.borrow().exits;
    async move {
        let over = |snapshot: &Snapshot| match condition {
            WaitCondition::NotRunning => {
                !runs(&snapshot.record) && !snapshot.record.live.restarting
            }
            WaitCondition::NextExit => snapshot.exits > before || snapshot.removed,
            WaitCondition::Removed => snapshot.removed,
        };
        // An actor that has gone leaves its last snapshot.
        let _ = state.wait_for(over).await;
        let code = state.borrow().record.live.exit_code;
        ExitView { code, error: None }
    }
}

/// Whether there is something to end.
pub(crate) fn runs(record: &Record) -> bool {
    matches!(record.live.phase, Phase::Running | Phase::Paused)
}

async fn kill_and_wait(handle: &Handle, before: u64) -> Result<()> {
    if !signal_unless_ended(handle, SIGKILL).await? {
        return Ok(());
    }
    let ended = ended_since(handle.watch(), before);
    tokio::time::timeout(KILL_PATIENCE, ended).await.map_err(|_| {
        Error::kernel(format!("container {} did not end after SIGKILL", handle.record().id))
            .with_hint("a process in it hangs in the kernel; `ps -eo pid,stat,wchan` shows where")
    })
}

/// False when it has ended meanwhile.
async fn signal_unless_ended(handle: &Handle, signal: i32) -> Result<bool> {
    let sent = handle.ask(|reply| Command::Signal { signal, stopping: true, reply }).await;
    match sent {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.class, Class::Conflict | Class::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn end_restarts(handle: &Handle) -> Result<()> {
    handle.ask(Command::Rest).await
}

async fn ended_since(mut state: watch::Receiver<Snapshot>, before: u64) {
    let _ = state.wait_for(|snapshot| snapshot.exits > before || snapshot.removed).await;
}

/// Whether its first process is process 1 of its own pid namespace and has no handler
/// for `signal` (SigCgt in /proc/PID/status, proc_pid_status(5)).
fn has_no_handler(record: &Record, signal: i32) -> bool {
    if record.spec.security.pid != NamespaceMode::Private || signal == SIGKILL {
        return false;
    }
    let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", record.live.pid)) else {
        return false;
    };
    !catches(&status, signal).unwrap_or(true)
}

fn catches(status: &str, signal: i32) -> Option<bool> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    let bit = u32::try_from(signal).ok()?.checked_sub(1)?;
    Some(mask.checked_shr(bit)? & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_are_read_from_the_signal_mask() {
        let status = "Name:\tx\nSigCgt:\t0000000000004002\n";
        assert_eq!(catches(status, 15), Some(true));
        assert_eq!(catches(status, 2), Some(true));
        assert_eq!(catches(status, 1), Some(false));
        assert_eq!(catches("Name:\tx\n", 15), None);
    }
}
