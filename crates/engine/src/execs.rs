//! Further processes in running containers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use capsa_runtime::protocol::ExecRequest;
use tokio::sync::watch;

use crate::container::handle::{Command, Handle};
use crate::container::{phase, spec_inputs};
use crate::exec_io::{Ends, ExecTerminal, Io, socket_pair};
use crate::options::AttachStream;
use crate::spec::ExecSpec;
use crate::view::ExecView;
use crate::world::World;
use crate::{Error, Result, id};

/// Ended execs kept for `inspect`; the oldest go first.
const KEPT: usize = 512;

/// All execs of one engine.
#[derive(Debug)]
pub struct Execs {
    world: Arc<World>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    entries: HashMap<String, Entry>,
    order: u64,
}

#[derive(Debug)]
struct Entry {
    container: Handle,
    spec: ExecSpec,
    pid: u32,
    started: bool,
    order: u64,
    code: watch::Receiver<Option<i32>>,
    code_sender: Option<watch::Sender<Option<i32>>>,
}

impl Execs {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world, known: Mutex::default() }
    }

    /// Prepares an exec in a running container; its id.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` when it does not run, `InvalidInput` without a command.
    pub async fn create(&self, container: &str, spec: ExecSpec) -> Result<String> {
        let handle = self.world.registry.find(container)?;
        let record = handle.record();
        phase::may_exec(record.live.phase, &record.id)?;
        if spec.cmd.is_empty() {
            return Err(Error::invalid("No exec command specified"));
        }
        let id = id::random_id()?;
        let detail = [("execID".to_owned(), id.clone())];
        let action = format!("exec_create: {}", spec.cmd.join(" "));
        self.world.container_event(&record, &action, detail);
        self.keep(id.clone(), handle, spec);
        Ok(id)
    }

    /// Runs it; its streams unless detached.
    ///
    /// # Errors
    /// `Conflict` when it has been started, and what the monitor answers.
    pub async fn start(
        &self,
        id: &str,
        detach: bool,
        console_size: Option<(u16, u16)>,
    ) -> Result<Option<AttachStream>> {
        let (handle, spec, code, watcher) = self.claim(id)?;
        let record = handle.record();
        phase::may_exec(record.live.phase, &record.id)?;
        let action = format!("exec_start: {}", spec.cmd.join(" "));
        self.world.container_event(&record, &action, [("execID".to_owned(), id.to_owned())]);
        let wanted = if detach {
            [false; 3]
        } else {
            [spec.attach_stdin, spec.attach_stdout, spec.attach_stderr]
        };
        let (io, theirs) = if spec.tty {
            let (ours, theirs) = socket_pair()?;
            (Io::Terminal(Box::new(ExecTerminal::new(ours, watcher))), vec![theirs])
        } else {
            let ends = Ends::new(wanted, watcher)?;
            (Io::Pipes(Box::new(ends.ours)), ends.theirs)
        };
        let gathered = spec_inputs::for_exec(&self.world, &record, &spec)?;
        let request = ExecRequest {
            exec_id: id.to_owned(),
            process: gathered.process,
            tty: spec.tty,
            console_size: console_size.or(spec.console_size),
            seccomp: gathered.seccomp,
            stdin: !spec.tty && wanted[0],
            stdout: !spec.tty && wanted[1],
            stderr: !spec.tty && wanted[2],
            detach_keys: Vec::new(),
        };
        let pid = handle.ask(|reply| Command::Exec(Box::new(request), theirs, code, reply)).await?;
        if let Some(entry) = self.lock().entries.get_mut(id) {
            entry.pid = pid;
        }
        Ok((!detach).then_some(AttachStream { tty: spec.tty, io }))
    }

    /// Sets the size of its terminal.
    pub async fn resize(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        let handle = self.lock().entries.get(id).map(|entry| entry.container.clone());
        let handle = handle.ok_or_else(|| missing(id))?;
        handle.ask(|reply| Command::ExecResize(id.to_owned(), rows, columns, reply)).await
    }

    /// One exec.
    pub fn inspect(&self, id: &str) -> Result<ExecView> {
        let known = self.lock();
        let entry = known.entries.get(id).ok_or_else(|| missing(id))?;
        let exit_code = *entry.code.borrow();
        Ok(ExecView {
            id: id.to_owned(),
            container: entry.container.record().id.clone(),
            spec: entry.spec.clone(),
            running: entry.started && exit_code.is_none(),
            exit_code,
            pid: entry.pid,
        })
    }

    fn keep(&self, id: String, container: Handle, spec: ExecSpec) {
        let (sender, code) = watch::channel(None);
        let mut known = self.lock();
        known.order += 1;
        let order = known.order;
        if known.entries.len() >= KEPT {
            forget_oldest(&mut known.entries);
        }
        let entry = Entry {
            container,
            spec,
            pid: 0,
            started: false,
            order,
            code,
            code_sender: Some(sender),
        };
        known.entries.insert(id, entry);
    }

    /// Takes the right to start it, which there is once.
    #[expect(clippy::type_complexity, reason = "the parts of one entry")]
    fn claim(
        &self,
        id: &str,
    ) -> Result<(Handle, ExecSpec, watch::Sender<Option<i32>>, watch::Receiver<Option<i32>>)> {
        let mut known = self.lock();
        let entry = known.entries.get_mut(id).ok_or_else(|| missing(id))?;
        let Some(sender) = entry.code_sender.take() else {
            let state =
                if entry.code.borrow().is_some() { "already run" } else { "already running" };
            return Err(Error::conflict(format!("exec command {id} has {state}")));
        };
        entry.started = true;
        Ok((entry.container.clone(), entry.spec.clone(), sender, entry.code.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets the oldest exec that has ended or was never started.
fn forget_oldest(entries: &mut HashMap<String, Entry>) {
    let idle = |entry: &&Entry| !entry.started || entry.code.borrow().is_some();
    let oldest =
        entries.iter().filter(|(_, entry)| idle(entry)).min_by_key(|(_, entry)| entry.order);
    if let Some(id) = oldest.map(|(id, _)| id.clone()) {
        entries.remove(&id);
    }
}

fn missing(id: &str) -> Error {
    Error::not_found(format!("No such exec instance: {id}"))
}
