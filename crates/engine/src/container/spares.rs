//! Monitors that were started ahead of their use.
//!
//! Executing a program of ten megabytes and looking up the host's cgroups is a tenth of
//! a whole run, and none of it depends on the container. So a few monitors wait for their
//! container, and those that were taken are replaced once the host had time for the
//! start itself. A start that finds none makes its own: the same call, only later.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use capsa_runtime::monitor::{self, Spawned};
use capsa_sys::process;

use crate::{Error, Result};

/// How many wait. More would help only bursts, which the processor bounds anyway.
const WANTED: usize = 3;
/// So long after a start nobody has asked for another.
const CALM: Duration = Duration::from_millis(15);

/// The supply.
#[derive(Debug)]
pub(crate) struct Spares {
    /// Our own program, read-only, to run monitors from.
    executable: OwnedFd,
    stock: Mutex<Stock>,
}

#[derive(Debug, Default)]
struct Stock {
    ready: Vec<Spawned>,
    /// How many were taken so far: whether it was calm is told by it.
    taken: u64,
    /// Somebody is about to refill.
    refilling: bool,
    /// The engine shuts down.
    closed: bool,
}

impl Spares {
    /// An empty supply; [`Self::refill`] fills it.
    pub(crate) fn new() -> Result<Self> {
        let executable =
            monitor::self_exe().map_err(|error| Error::kernel(format!("own program: {error}")))?;
        Ok(Self { executable, stock: Mutex::default() })
    }

    /// A monitor that waits for its container.
    pub(crate) fn take(&self) -> Result<Spawned> {
        let mut stock = self.lock();
        stock.taken += 1;
        while let Some(spare) = stock.ready.pop() {
            // One that has ended is reaped by the question.
            if matches!(process::try_wait(spare.pidfd.as_fd()), Ok(None)) {
                return Ok(spare);
            }
        }
        drop(stock);
        self.make()
    }

    /// Makes up for what was taken, when it is calm. Needs the async runtime.
    pub(crate) fn refill(self: &Arc<Self>) {
        let mut stock = self.lock();
        if stock.refilling || stock.closed || stock.ready.len() >= WANTED {
            return;
        }
        stock.refilling = true;
        drop(stock);
        let spares = Arc::clone(self);
        tokio::spawn(async move {
            while !spares.is_full() {
                let taken = spares.lock().taken;
                tokio::time::sleep(CALM).await;
                if spares.lock().taken == taken && !spares.add_one() {
                    break;
                }
            }
            spares.lock().refilling = false;
        });
    }

    /// Ends those that wait, and takes no more.
    pub(crate) fn close(&self) {
        let mut stock = self.lock();
        stock.closed = true;
        for Spawned { channel, pidfd, .. } in stock.ready.drain(..) {
            drop(channel);
            let _ = process::wait(pidfd.as_fd());
        }
    }

    fn is_full(&self) -> bool {
        let stock = self.lock();
        stock.closed || stock.ready.len() >= WANTED
    }

    /// Whether one was made.
    fn add_one(&self) -> bool {
        let made = self.make();
        let mut stock = self.lock();
        match made {
            // Too late: its channel goes, and with it the monitor.
            Ok(spare) if stock.closed => {
                drop(spare.channel);
                let _ = process::wait(spare.pidfd.as_fd());
                false
            }
            Ok(spare) => {
                stock.ready.push(spare);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "no monitor started ahead");
                false
            }
        }
    }

    fn make(&self) -> Result<Spawned> {
        monitor::spawn(self.executable.as_fd())
            .map_err(|error| Error::kernel(format!("start of a monitor: {error}")))
    }

    fn lock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
