//! A container as others hold it: the way to its actor and its latest snapshot.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use capsa_runtime::protocol::{AttachRequest, ExecRequest};
use tokio::sync::{mpsc, oneshot, watch};

use super::record::Record;
use crate::spec::{Resources, RestartPolicy};
use crate::{Error, Result};

/// Requests that wait for the actor; a full queue makes callers wait, not the daemon grow.
pub(crate) const QUEUE: usize = 64;

/// The answer to a request.
pub(crate) type Reply<T> = oneshot::Sender<Result<T>>;

/// What an actor can be asked.
#[derive(Debug)]
pub(crate) enum Command {
    /// Start it; false when it runs.
    Start(Reply<bool>),
    /// Keep the restart policy from its next try.
    Rest(Reply<()>),
    /// Signal its first process; `stopping` when the user wants its end.
    Signal { signal: i32, stopping: bool, reply: Reply<()> },
    /// Freeze.
    Pause(Reply<()>),
    /// Thaw.
    Unpause(Reply<()>),
    /// Another name.
    Rename(String, Reply<()>),
    /// Size of the terminal: rows, columns.
    Resize(u16, u16, Reply<()>),
    /// Join its streams by this socket.
    Attach(AttachRequest, OwnedFd, Reply<()>),
    /// Run a further process with these descriptors; its pid.
    Exec(Box<ExecRequest>, Vec<OwnedFd>, ExecWatch, Reply<u32>),
    /// Size of an exec's terminal: id, rows, columns.
    ExecResize(String, u16, u16, Reply<()>),
    /// New limits and policy.
    Update(Box<Resources>, Option<RestartPolicy>, Reply<()>),
    /// Remove it, with its anonymous volumes when the flag says so.
    Remove { volumes: bool, reply: Reply<()> },
}

/// Where an exec's exit code goes.
pub(crate) type ExecWatch = watch::Sender<Option<i32>>;

/// One moment of a container, cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// Its record.
    pub record: Arc<Record>,
    /// How many times it has ended in this daemon's life.
    pub exits: u64,
    /// It is gone.
    pub removed: bool,
    /// Ids of execs that run.
    pub execs: Arc<Vec<String>>,
}

/// The way to one container.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<Snapshot>,
}

impl Handle {
    /// Joins the two ends of an actor.
    pub(crate) fn new(commands: mpsc::Sender<Command>, state: watch::Receiver<Snapshot>) -> Self {
        Self { commands, state }
    }

    /// The latest snapshot.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.state.borrow().clone()
    }

    /// Its record.
    pub(crate) fn record(&self) -> Arc<Record> {
        Arc::clone(&self.state.borrow().record)
    }

    /// Follows its changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Snapshot> {
        self.state.clone()
    }

    /// Asks the actor and waits for its answer.
    pub(crate) async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| self.gone())?;
        answer.await.map_err(|_| self.gone())?
    }

    fn gone(&self) -> Error {
        Error::not_found(format!("No such container: {}", self.record().id))
    }
}
