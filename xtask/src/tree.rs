//! The checkout: where it is, which files it holds, and how to run cargo in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// The root of the checkout, found from where this crate was compiled.
pub(crate) fn root() -> anyhow::Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.parent().context("xtask has no parent directory")?;
    Ok(root.to_owned())
}

/// Every file of the project, as paths relative to `root`, sorted.
///
/// Build output and version control are left out by name, so that the answer
/// is the same in a clone and in an unpacked archive.
pub(crate) fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        let entries = std::fs::read_dir(&directory)
            .with_context(|| format!("cannot list {}", directory.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                if !matches!(entry.file_name().to_str(), Some("target" | ".git")) {
                    pending.push(path);
                }
            } else if let Ok(relative) = path.strip_prefix(root) {
                found.push(relative.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A `cargo` command that runs in the checkout.
pub(crate) fn cargo(root: &Path) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root);
    command
}

/// Runs `command`; an error names it when it doesn't end with success.
pub(crate) fn must_succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

/// Builds the release binary and answers where it lies.
pub(crate) fn build_release(root: &Path) -> anyhow::Result<PathBuf> {
    must_succeed(cargo(root).args(["build", "--release", "--package", "capsa-cli"]))?;
    release_binary(root)
}

fn release_binary(root: &Path) -> anyhow::Result<PathBuf> {
    let output = cargo(root)
        .args(["build", "--release", "--package", "capsa-cli", "--message-format=json", "--quiet"])
        .output()
        .context("cannot run cargo build")?;
    let messages = String::from_utf8(output.stdout).context("cargo's messages are no UTF-8")?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "capsa")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo built no binary named capsa")
}

/// The absolute path of `program` on `PATH`, if it is there.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Root's PATH lacks the sbin directories in some shells.
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// Whether this process is root in the initial user namespace's sense.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
