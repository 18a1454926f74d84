//! Signals and window sizes, handed on to the process in the container.

use std::future::poll_fn;
use std::task::Poll;

use capsa_api::Client;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Result;
use crate::output::{note, terminal};

/// Handed on: name for the API, number.
const FORWARDED: [(&str, i32); 9] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("USR1", 10),
    ("USR2", 12),
    ("ALRM", 14),
    ("TERM", 15),
    ("CONT", 18),
    ("WINCH", 28),
];

/// So many requests to end that nobody heeded, and we leave by ourselves.
const PATIENCE: u32 = 3;

/// Signals that are caught from now on.
pub(crate) struct Caught {
    sources: Vec<(&'static str, Signal)>,
}

impl Caught {
    /// Catches what is handed on.
    pub(crate) fn forwarded() -> Result<Self> {
        let sources = FORWARDED
            .iter()
            .map(|(name, number)| Ok((*name, signal(SignalKind::from_raw(*number))?)))
            .collect::<Result<_>>()?;
        Ok(Self { sources })
    }

    async fn next(&mut self) -> &'static str {
        poll_fn(|cx| {
            for (name, source) in &mut self.sources {
                if source.poll_recv(cx).is_ready() {
                    return Poll::Ready(*name);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Hands signals on to the container; never returns.
pub(crate) async fn forward(client: &Client, id: &str, mut caught: Caught) {
    let mut asked = 0;
    loop {
        let name = caught.next().await;
        if matches!(name, "INT" | "TERM") {
            asked += 1;
            if asked >= PATIENCE {
                note("got 3 SIGTERM/SIGINTs, forcefully exiting");
                std::process::exit(1);
            }
        }
        // A container that ended in the meantime refuses, which says nothing new.
        let _ = client.post_empty(&format!("/containers/{id}/kill?signal={name}")).await;
    }
}

/// Tells the daemon each new size of our window; never returns. `path` is that of
/// the container or exec.
pub(crate) async fn follow_size(client: &Client, path: &str, announce: bool) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else {
        return std::future::pending().await;
    };
    let mut told = None;
    let mut tell = announce;
    loop {
        if tell && let Some((rows, columns)) = terminal::size().filter(|size| Some(*size) != told) {
            told = Some((rows, columns));
            let _ = client.post_empty(&format!("{path}/resize?h={rows}&w={columns}")).await;
        }
        changes.recv().await;
        tell = true;
    }
}
