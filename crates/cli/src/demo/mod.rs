//! `capsa demo`: from an image to a running site and on to the next server.
//!
//!   load ─► two sites ─► edit one ─► commit ─► save ─► (new server) load ─► run
//!                                                                            │
//!   host as before ◄─ directory removed ◄─ daemons ended ◄─ containers removed ◄┘
//!
//! Everything goes through the API, against two daemons of its own in a fresh
//! directory. Whatever ends the story (its last step, an error, Ctrl-C), the
//! stage is struck the same way, and then the host itself is asked whether
//! anything of ours is left. Not here: any way into the engine but its API.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the demo is what it prints")]

mod host;
mod http;
mod image;
mod nftables;
mod report;
mod server;
mod stage;
mod story;

use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use stage::Stage;

/// What the user asked of the demo.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options {
    /// Leave everything running and say what to try.
    pub(crate) keep: bool,
}

/// Plays the demo. Blocks until it is over and everything is removed.
///
/// # Errors
/// When a step failed, or something was left on the host; the stage is struck
/// in either case.
pub(crate) fn run(options: Options) -> anyhow::Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("capsa demo: only root may make containers here");
        eprintln!("hint: sudo capsa demo");
        return Ok(ExitCode::FAILURE);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the demo's event loop")?;
    runtime.block_on(play(options))
}

async fn play(options: Options) -> anyhow::Result<ExitCode> {
    let mut interrupts = Interrupts::catch()?;
    let mut stage = Stage::set_up()?;
    let outcome = tokio::select! {
        outcome = story::play(&mut stage) => Some(outcome),
        () = interrupts.next() => None,
    };
    if options.keep && matches!(outcome, Some(Ok(()))) {
        stage.leave_running().await?;
        return Ok(ExitCode::SUCCESS);
    }
    match &outcome {
        Some(Ok(())) => {}
        Some(Err(_)) => stage.show_daemon_logs(),
        None => println!("\ninterrupted: cleaning up"),
    }
    let struck = stage.strike().await;
    match outcome {
        Some(Ok(())) => struck?.print(),
        Some(Err(error)) => {
            if let Err(also) = struck {
                eprintln!("capsa demo: {also:#}");
            }
            return Err(error);
        }
        None => {
            struck?;
            return Ok(ExitCode::from(EXIT_INTERRUPTED));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a shell shows for a program that Ctrl-C ended.
const EXIT_INTERRUPTED: u8 = 130;

/// Ctrl-C and SIGTERM, caught until the demo ends: a second one must not stop
/// the cleaning up.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn catch() -> anyhow::Result<Self> {
        let catch = |kind| signal(kind).context("cannot catch signals");
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
