//! The other programs that tests and benchmarks use, from Debian's packages.
//!
//! capsa itself needs none of them. A client for Docker's API is unpacked
//! beside the build output and not installed, because its package may bring
//! and start an engine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::tree;

/// A program that tests run, and the package that has it.
const NEEDED: &[(&str, &str)] = &[
    ("busybox", "busybox-static"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("debootstrap", "debootstrap"),
    ("docker-registry", "docker-registry"),
    ("openssl", "openssl"),
];

/// Packages with a `docker` client, newest arrangement first.
const CLIENTS: &[&str] = &["docker-cli", "docker.io"];

/// Installs what is missing. Where the system isn't Debian, an error names
/// the missing programs.
pub(crate) fn install() -> anyhow::Result<()> {
    let missing: Vec<_> =
        NEEDED.iter().filter(|(program, _)| tree::which(program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let programs: Vec<&str> = missing.iter().map(|(program, _)| *program).collect();
    ensure!(is_debian(), "the tests need {}: install them and run this again", programs.join(", "));
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    println!("installing {}", packages.join(", "));
    apt_get(Command::new("apt-get").args(["update", "--quiet"]))?;
    apt_get(
        Command::new("apt-get")
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages),
    )
}

/// The directory of a `docker` client to put on PATH, if PATH has none and
/// one can be had. Without it the tests with the real client say that they
/// were skipped.
pub(crate) fn docker_client(root: &Path) -> anyhow::Result<Option<PathBuf>> {
    if tree::which("docker").is_some() || !is_debian() {
        return Ok(None);
    }
    let directory = root.join("target/docker-client");
    let programs = directory.join("usr/bin");
    if !programs.join("docker").exists() {
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        unpack_client(&directory)?;
    }
    Ok(programs.join("docker").exists().then_some(programs))
}

fn unpack_client(directory: &Path) -> anyhow::Result<()> {
    for package in CLIENTS {
        let fetched =
            Command::new("apt-get").args(["download", package]).current_dir(directory).status()?;
        if !fetched.success() {
            continue;
        }
        let archive = std::fs::read_dir(directory)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("apt-get downloaded no {package}"))?;
        return tree::must_succeed(
            Command::new("dpkg-deb").arg("--extract").arg(archive).arg(directory),
        );
    }
    Ok(())
}

fn is_debian() -> bool {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let debian = release.lines().any(|line| {
        line.strip_prefix("ID=")
            .or(line.strip_prefix("ID_LIKE="))
            .is_some_and(|ids| ids.contains("debian"))
    });
    debian && tree::which("apt-get").is_some()
}

fn apt_get(command: &mut Command) -> anyhow::Result<()> {
    tree::must_succeed(command.env("DEBIAN_FRONTEND", "noninteractive"))
}
