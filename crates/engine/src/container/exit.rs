//! When a container ends: its network is given back, its end recorded, and the
//! restart policy or the automatic removal takes its turn.

use std::time::Duration;

use capsa_runtime::protocol::ExitRecord;
use capsa_store::Durability;

use super::actor::Actor;
use super::restart;
use crate::clock;

/// The code of a container whose monitor died without a word.
const LOST: i32 = 137;

impl Actor {
    /// Takes note of its end.
    pub(super) async fn ended(&mut self, exit: &ExitRecord) {
        self.take_down();
        self.end_execs(exit.code);
        self.record.live.end(exit);
        let policy = self.record.spec.restart;
        let count = self.record.live.restart_count;
        let again = restart::wanted(policy, exit.code, count, self.record.live.stopped_by_user);
        self.record.live.restarting = again;
        self.count_exit();
        self.tell_end(exit);
        if again {
            let ran = u64::try_from(exit.finished_ns - exit.started_ns).unwrap_or(0);
            let delay = self.backoff.after(Duration::from_nanos(ran));
            self.restart_after(delay);
        } else if self.record.spec.auto_remove {
            match self.remove(true) {
                Ok(()) => return,
                Err(error) => {
                    tracing::error!(container = %self.record.id, %error, "automatic removal failed");
                }
            }
        }
        if let Err(error) = self.save(Durability::Process) {
            tracing::error!(container = %self.record.id, %error, "end not recorded");
        }
    }

    fn tell_end(&self, exit: &ExitRecord) {
        if exit.oom_killed {
            self.world.container_event(&self.record, "oom", []);
        }
        let seconds = (exit.finished_ns - exit.started_ns).max(0) / 1_000_000_000;
        let attributes =
            [("exitCode", exit.code.to_string()), ("execDuration", seconds.to_string())]
                .map(|(key, value)| (key.to_owned(), value));
        self.world.container_event(&self.record, "die", attributes);
    }

    /// The monitor has gone without telling an end: its record on disk decides, or, where
    /// there is none, what is left of the container is killed.
    pub(super) async fn monitor_lost(&mut self) {
        self.link = None;
        let exit = match exit_record(self) {
            Some(exit) => exit,
            None => {
                tracing::error!(container = %self.record.id, "monitor lost, killing what is left");
                if let Ok(cgroup) = self.world.cgroup(&self.record) {
                    let ended = cgroup.kill_all().and_then(|()| cgroup.remove());
                    if let Err(error) = ended {
                        tracing::error!(container = %self.record.id, %error, "cgroup left behind");
                    }
                }
                lost(self.record.live.started_ns)
            }
        };
        self.ended(&exit).await;
    }
}

/// The exit record of the last run, if the monitor wrote one after its start.
fn exit_record(actor: &Actor) -> Option<ExitRecord> {
    read_exit_record(&actor.world, &actor.record)
}

/// The same for recovery, which has no actor yet.
pub(crate) fn read_exit_record(
    world: &crate::world::World,
    record: &super::record::Record,
) -> Option<ExitRecord> {
    let path = world.store.container_dir(&record.id).ok()?.join("exit.json");
    let exit: ExitRecord = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    (exit.finished_ns >= record.live.started_ns).then_some(exit)
}

/// What is recorded for a container that nobody saw end.
pub(crate) fn lost(started_ns: i64) -> ExitRecord {
    ExitRecord {
        code: LOST,
        signal: Some(9),
        oom_killed: false,
        started_ns,
        finished_ns: clock::now_ns(),
    }
}
