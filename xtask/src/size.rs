//! `cargo xtask size`: the release binary against its promised size.

use std::process::ExitCode;

use crate::tree;

/// The promise in SPECIFICATION.md, in bytes.
const SIZE_MAX: u64 = 12_000_000;

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let root = tree::root()?;
    let binary = tree::build_release(&root)?;
    let size = std::fs::metadata(&binary)?.len();
    println!("{size} bytes  {}  (at most {SIZE_MAX})", binary.display());
    Ok(if size <= SIZE_MAX { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
