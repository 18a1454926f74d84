//! The owner of one container: everything that changes it happens here, one
//! thing at a time.
//!
//! Requests come by a queue, events by the monitor's channel. Each change is
//! written to the store before it is published as the new snapshot. What takes
//! long (the grace period of a stop, copying files) waits outside the actor and
//! follows the snapshots.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use capsa_runtime::protocol::{AttachRequest, Event, ExecRequest, Request};
use capsa_store::Durability;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::handle::{Command, ExecWatch, Handle, QUEUE, Reply, Snapshot};
use super::monitor_link::MonitorLink;
use super::phase;
use super::record::Record;
use super::restart::Backoff;
use crate::network::Attachment;
use crate::view::Phase;
use crate::world::World;
use crate::{Error, Result};

/// The actor's own state; the record in it is the latest truth.
pub(crate) struct Actor {
    pub(super) world: Arc<World>,
    pub(super) record: Record,
    pub(super) link: Option<MonitorLink>,
    pub(super) attachment: Option<Attachment>,
    pub(super) waiting: Vec<(AttachRequest, OwnedFd)>,
    pub(super) execs: HashMap<String, RunningExec>,
    pub(super) backoff: Backoff,
    exits: u64,
    restart_at: Option<Instant>,
    state: watch::Sender<Snapshot>,
}

/// An exec that was asked of the monitor.
pub(super) struct RunningExec {
    started: Option<Reply<u32>>,
    code: ExecWatch,
}

/// Starts the actor of `record` and makes it known. `link` is there when it was found running.
pub(crate) fn spawn(
    world: &Arc<World>,
    record: Record,
    link: Option<MonitorLink>,
    attachment: Option<Attachment>,
) -> Handle {
    let snapshot = Snapshot {
        record: Arc::new(record.clone()),
        exits: 0,
        removed: false,
        execs: Arc::default(),
    };
    let (state, watcher) = watch::channel(snapshot);
    let (commands, queue) = mpsc::channel(QUEUE);
    let handle = Handle::new(commands, watcher);
    world.registry.insert(&record.id, handle.clone());
    let actor = Actor {
        world: Arc::clone(world),
        record,
        link,
        attachment,
        waiting: Vec::new(),
        execs: HashMap::new(),
        backoff: Backoff::default(),
        exits: 0,
        restart_at: None,
        state,
    };
    tokio::spawn(actor.run(queue));
    handle
}

impl Actor {
    async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        loop {
            tokio::select! {
                command = queue.recv() => match command {
                    Some(Command::Remove { volumes, reply }) => {
                        let outcome = self.remove(volumes);
                        let gone = outcome.is_ok();
                        let _ = reply.send(outcome);
                        if gone { return }
                    }
                    Some(command) => self.obey(command).await,
                    None => return,
                },
                event = next_event(self.link.as_mut()) => {
                    self.take(event).await;
                    if self.record.live.phase == Phase::Removing { return }
                }
                () = at(self.restart_at) => self.restart().await,
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Start(reply) => {
                self.restart_at = None;
                self.record.live.restart_count = 0;
                let outcome = self.start().await;
                let _ = reply.send(outcome);
            }
            Command::Rest(reply) => {
                self.restart_at = None;
                self.record.live.restarting = false;
                self.record.live.stopped_by_user = true;
                let _ = reply.send(self.save(Durability::Process));
            }
            Command::Signal { signal, stopping, reply } => {
                let _ = reply.send(self.signal(signal, stopping).await);
            }
            Command::Pause(reply) => drop(reply.send(self.freeze(true))),
            Command::Unpause(reply) => drop(reply.send(self.freeze(false))),
            Command::Rename(name, reply) => drop(reply.send(self.rename(&name))),
            Command::Resize(rows, cols, reply) => {
                let _ = reply.send(self.tell(&Request::Resize { rows, cols }, &[]).await);
            }
            Command::Attach(request, socket, reply) => {
                let _ = reply.send(self.attach(request, socket).await);
            }
            Command::Exec(request, fds, code, reply) => self.exec(*request, fds, code, reply).await,
            Command::ExecResize(exec_id, rows, cols, reply) => {
                let request = Request::ExecResize { exec_id, rows, cols };
                let _ = reply.send(self.tell(&request, &[]).await);
            }
            Command::Update(resources, policy, reply) => {
                let _ = reply.send(self.update(*resources, policy));
            }
            Command::Remove { .. } => {}
        }
    }

    async fn take(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Exited(exit)) => self.ended(&exit).await,
            Some(Event::ExecStarted { exec_id, pid }) => {
                if let Some(reply) = self.execs.get_mut(&exec_id).and_then(|e| e.started.take()) {
                    let _ = reply.send(Ok(pid));
                }
            }
            Some(Event::ExecFailed { exec_id, failure }) => {
                if let Some(exec) = self.execs.remove(&exec_id) {
                    exec.code.send_replace(Some(failure.code));
                    if let Some(reply) = exec.started {
                        let _ = reply.send(Err(super::start::exec_failed(&failure)));
                    }
                    self.publish();
                }
            }
            Some(Event::ExecExited { exec_id, code }) => self.exec_ended(&exec_id, code),
            Some(_) => {}
            None => self.monitor_lost().await,
        }
    }

    fn exec_ended(&mut self, exec_id: &str, code: i32) {
        if let Some(exec) = self.execs.remove(exec_id) {
            self.publish();
            exec.code.send_replace(Some(code));
            let attributes = [("execID", exec_id), ("exitCode", &code.to_string())]
                .map(|(key, value)| (key.to_owned(), value.to_owned()));
            self.world.container_event(&self.record, "exec_die", attributes);
        }
    }

    async fn signal(&mut self, signal: i32, stopping: bool) -> Result<()> {
        phase::must_run(self.record.live.phase, &self.record.id)?;
        if stopping {
            self.record.live.stopped_by_user = true;
            self.save(Durability::Process)?;
        }
        self.tell(&Request::Signal { signal, all: false }, &[]).await?;
        let attributes = [("signal".to_owned(), signal.to_string())];
        self.world.container_event(&self.record, "kill", attributes);
        Ok(())
    }

    fn freeze(&mut self, freeze: bool) -> Result<()> {
        let live = &self.record.live;
        let (next, action) = if freeze {
            phase::may_pause(live.phase, &self.record.id)?;
            (Phase::Paused, "pause")
        } else {
            phase::may_unpause(live.phase, &self.record.id)?;
            (Phase::Running, "unpause")
        };
        self.world.cgroup(&self.record)?.freeze(freeze).map_err(Error::from)?;
        self.record.live.phase = next;
        self.save(Durability::Process)?;
        self.world.container_event(&self.record, action, []);
        Ok(())
    }

    fn rename(&mut self, name: &str) -> Result<()> {
        if name == self.record.name {
            return Err(Error::invalid(
                "Renaming a container with the same name as its current name",
            ));
        }
        self.world.registry.reserve(name, &self.record.id)?;
        let old = std::mem::replace(&mut self.record.name, name.to_owned());
        let body = self.body()?;
        if let Err(error) =
            self.world.store.rename_container(&self.record.id, name, &body, Durability::Durable)
        {
            self.record.name = old;
            self.world.registry.release(name);
            return Err(error.into());
        }
        self.world.registry.release(&old);
        self.publish();
        self.world.container_event(
            &self.record,
            "rename",
            [("oldName".to_owned(), format!("/{old}"))],
        );
        Ok(())
    }

    async fn attach(&mut self, request: AttachRequest, socket: OwnedFd) -> Result<()> {
        match self.record.live.phase {
            Phase::Running | Phase::Paused => self.tell(&Request::Attach(request), &[socket]).await,
            Phase::Removing => {
                Err(Error::conflict(format!("container {} is being removed", self.record.id)))
            }
            Phase::Creating | Phase::Created | Phase::Stopped => {
                self.waiting.push((request, socket));
                Ok(())
            }
        }
    }

    async fn exec(
        &mut self,
        request: ExecRequest,
        fds: Vec<OwnedFd>,
        code: ExecWatch,
        reply: Reply<u32>,
    ) {
        if let Err(error) = phase::may_exec(self.record.live.phase, &self.record.id) {
            let _ = reply.send(Err(error));
            return;
        }
        let exec_id = request.exec_id.clone();
        match self.tell(&Request::Exec(Box::new(request)), &fds).await {
            Ok(()) => {
                self.execs.insert(exec_id, RunningExec { started: Some(reply), code });
                self.publish();
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Sends a request to the monitor of a running container.
    pub(super) async fn tell(&mut self, request: &Request, fds: &[OwnedFd]) -> Result<()> {
        phase::must_run(self.record.live.phase, &self.record.id)?;
        let id = &self.record.id;
        let link = self
            .link
            .as_ref()
            .ok_or_else(|| Error::kernel(format!("the monitor of container {id} has gone")))?;
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        link.send(request, &fds).await
    }

    /// Writes the record, then shows it.
    pub(super) fn save(&mut self, durability: Durability) -> Result<()> {
        let body = self.body()?;
        let outcome = self.world.store.update_container(&self.record.id, &body, durability);
        self.publish();
        outcome.map_err(Error::from)
    }

    fn body(&self) -> Result<String> {
        serde_json::to_string(&self.record)
            .map_err(|error| Error::kernel(format!("container record: {error}")))
    }

    /// Shows the present state.
    pub(super) fn publish(&self) {
        let removed = self.record.live.phase == Phase::Removing;
        let execs: Vec<String> = self.execs.keys().cloned().collect();
        self.state.send_replace(Snapshot {
            record: Arc::new(self.record.clone()),
            exits: self.exits,
            removed,
            execs: Arc::new(execs),
        });
    }

    /// Counts an end, so that those who wait for the next one see it.
    pub(super) fn count_exit(&mut self) {
        self.exits += 1;
    }

    /// Answers everybody who waits for an exec of a container that has ended.
    pub(super) fn end_execs(&mut self, code: i32) {
        for (_, exec) in self.execs.drain() {
            exec.code.send_replace(Some(code));
        }
    }

    /// Lets the restart policy try again after `delay`.
    pub(super) fn restart_after(&mut self, delay: Duration) {
        self.restart_at = Some(Instant::now() + delay);
    }

    async fn restart(&mut self) {
        self.restart_at = None;
        self.record.live.restart_count += 1;
        if let Err(error) = self.start().await {
            tracing::warn!(container = %self.record.id, %error, "restart failed");
        }
    }
}

/// The next event of a monitor; never, when there is none.
async fn next_event(link: Option<&mut MonitorLink>) -> Option<Event> {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
