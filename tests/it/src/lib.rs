//! Black-box tests of the one binary, on a real kernel, as root.
//!
//! A test starts a daemon of its own (data root, exec root, socket and subnet in or
//! from a scratch directory), speaks to it through a command line, and when it ends
//! looks whether anything is left on the host. Nothing here knows the engine's code:
//! what a test expects is what Docker documents.
//!
//! A behaviour that both command lines have is written once, in [`behaviour`], and
//! run by `tests/docker_cli.rs` (the real docker client) and `tests/capsa_cli.rs`
//! (ours). What only this engine promises is in `tests/isolation.rs`,
//! `tests/survival.rs`, `tests/crash.rs` and `tests/space.rs`; what other tools make of
//! our images, and we of theirs, is in `tests/tools.rs`.
//!
//! The binary under test is `CAPSA_BIN`, else the `capsa` beside the test's own
//! target directory. Everything that is waited for has a deadline.

#![allow(clippy::unwrap_used, reason = "a test that can't go on should say where")]

pub mod behaviour;
mod cli;
mod daemon;
mod image;
mod leaks;
pub mod registry;
mod steps;
mod terminal;
pub mod tools;
mod tree;
mod wait;
mod world;

pub use cli::{Cli, Engine, Output, Running};
pub use daemon::{Daemon, Setup};
pub use image::{Image, busybox, noise};
pub use steps::{Monitors, Seen, Steps};
pub use terminal::in_terminal;
pub use tree::tree;
pub use wait::{eventually, patience, pause, wait_for_exit};
pub use world::World;

use std::path::PathBuf;

/// The binary under test.
///
/// # Panics
/// When there is none.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("CAPSA_BIN") {
        return path.into();
    }
    let beside = built("capsa");
    assert!(beside.exists(), "no CAPSA_BIN, and no {}: build it first", beside.display());
    beside
}

/// A program that cargo built beside this test.
pub fn built(name: &str) -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    exe.parent().and_then(std::path::Path::parent).unwrap().join(name)
}
