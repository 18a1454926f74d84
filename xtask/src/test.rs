//! `cargo xtask test`: everything the tests need, then every test; and `cargo xtask fuzz`.
//!
//! The tests use the real kernel, so they run as root. Each brings up its own
//! engine on its own directories, socket and subnet, and removes them.

use std::process::ExitCode;

use anyhow::ensure;

use crate::{packages, tree};

/// Names the binary under test for the black-box tests.
const BINARY: &str = "CAPSA_BIN";

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    ensure!(
        tree::is_root(),
        "the tests make namespaces, mounts, cgroups and links: run `cargo xtask test` as root"
    );
    let root = tree::root()?;
    packages::install()?;
    let binary = tree::build_release(&root)?;
    let mut command = tree::cargo(&root);
    command.args(["test", "--workspace"]).args(arguments).env(BINARY, binary);
    let brought = packages::docker_client(&root)?.into_iter().chain(packages::engines(&root)?);
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Root's PATH lacks the last in some shells.
    let path = brought.chain(std::env::split_paths(&path)).chain(["/usr/sbin".into()]);
    command.env("PATH", std::env::join_paths(path)?);
    let status = command.status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the fuzzer in the dev profile, which checks arithmetic.
pub(crate) fn fuzz(arguments: &[String]) -> anyhow::Result<ExitCode> {
    ensure!(tree::is_root(), "layers have owners and devices: run `cargo xtask fuzz` as root");
    let mut command = tree::cargo(&tree::root()?);
    command.args(["run", "--quiet", "--package", "capsa-fuzz", "--"]).args(arguments);
    let status = command.status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
