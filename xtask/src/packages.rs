//! The other programs that tests and benchmarks use, from Debian's packages.
//!
//! capsa itself needs none of them. A client for Docker's API and the engines
//! that judge our images are unpacked beside the build output and not
//! installed, because their packages start services.

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
    ("skopeo", "skopeo"),
    ("umoci", "umoci"),
];

/// Packages with a `docker` client, newest arrangement first.
const CLIENTS: &[&str] = &["docker-cli", "docker.io"];

/// An engine that tests run, and the packages that it needs unpacked.
const ENGINES: &[(&str, &[&str])] =
    &[("dockerd", &["docker.io", "containerd"]), ("podman", &["podman", "conmon", "crun"])];

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
    apt_install(&packages)
}

/// Directories for PATH with the engines that PATH lacks. Where one can't be had, the
/// tests with it say that they were skipped.
pub(crate) fn engines(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let directory = root.join("target/engines");
    let programs = ["usr/bin", "usr/sbin"].map(|name| directory.join(name));
    let missing = |program: &str| {
        tree::which(program).is_none() && !programs.iter().any(|bin| bin.join(program).exists())
    };
    let wanted = ENGINES.iter().filter(|(program, _)| missing(program));
    let wanted: Vec<&str> = wanted.flat_map(|(_, packages)| *packages).copied().collect();
    if is_debian() && !wanted.is_empty() {
        unpack_engines(&directory, &wanted)?;
    }
    Ok(programs.into_iter().filter(|bin| bin.exists()).collect())
}

/// Unpacks `packages` and installs the libraries that they name, which start nothing.
fn unpack_engines(directory: &Path, packages: &[&str]) -> anyhow::Result<()> {
    println!("unpacking {}", packages.join(", "));
    let archives = directory.join("archives");
    std::fs::create_dir_all(&archives)
        .with_context(|| format!("cannot make {}", archives.display()))?;
    tree::must_succeed(
        Command::new("apt-get").arg("download").args(packages).current_dir(&archives),
    )?;
    let mut libraries = Vec::new();
    for entry in std::fs::read_dir(&archives)? {
        let archive = entry?.path();
        tree::must_succeed(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(directory))?;
        let fields =
            Command::new("dpkg-deb").arg("--field").arg(&archive).arg("Depends").output()?;
        let fields = String::from_utf8_lossy(&fields.stdout).into_owned();
        let names = fields.split(',').filter_map(|name| name.split_whitespace().next());
        libraries.extend(names.filter(|name| name.starts_with("lib")).map(str::to_owned));
    }
    std::fs::remove_dir_all(&archives)?;
    let libraries: Vec<&str> = libraries.iter().map(String::as_str).collect();
    apt_install(&libraries)
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

fn apt_install(packages: &[&str]) -> anyhow::Result<()> {
    let flags = ["install", "--yes", "--no-install-recommends"];
    apt_get(Command::new("apt-get").args(flags).args(packages))
}

fn apt_get(command: &mut Command) -> anyhow::Result<()> {
    tree::must_succeed(command.env("DEBIAN_FRONTEND", "noninteractive"))
}
