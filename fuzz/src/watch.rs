//! Notices an input that takes too long: the process names it and aborts, because a
//! thread that hangs can't be ended.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::Context as _;

/// The slowest honest input takes a tenth of this on a busy host.
const PATIENCE: Duration = Duration::from_secs(20);

/// A thread that listens for the start of each input, until this is dropped.
pub(crate) struct Watch(Sender<u64>);

impl Watch {
    pub(crate) fn start(target: &'static str, seed: u64) -> anyhow::Result<Self> {
        let (sender, starts) = channel();
        let listen = move || {
            let mut run = 0;
            loop {
                match starts.recv_timeout(PATIENCE) {
                    Ok(next) => run = next,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        eprintln!(
                            "fuzz: a hang; repeat with: \
                             cargo xtask fuzz {target} 1 --seed {seed} --from {run}"
                        );
                        std::process::abort();
                    }
                }
            }
        };
        std::thread::Builder::new().spawn(listen).context("cannot start a thread")?;
        Ok(Self(sender))
    }

    /// Input `run` begins.
    pub(crate) fn begins(&self, run: u64) {
        // The listener only ends with the process, or after this.
        let _ = self.0.send(run);
    }
}
