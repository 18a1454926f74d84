//! Layers and copied-in archives, unpacked into a directory whose neighbour is watched:
//! nothing outside the root may change, by any name, link or order of entries.
//!
//! The neighbour is also the working directory, so that a name which is resolved from
//! there is noticed.

use std::fs;
use std::io::BufReader;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use capsa_image::{Limits, UnpackOptions, apply, diff, unpack_into};
use capsa_sys::root::RootDir;
use tempfile::TempDir;

use super::Target;
use crate::mutate;
use crate::random::Random;

pub(crate) struct Tar {
    sandbox: TempDir,
    /// What the sandbox looks like from outside the root.
    before: Vec<String>,
}

impl Tar {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let sandbox = tempfile::Builder::new().prefix("capsa-fuzz-").tempdir()?;
        let outside = sandbox.path().join("outside");
        fs::create_dir_all(outside.join("sub"))?;
        fs::create_dir(sandbox.path().join("root"))?;
        for canary in ["canary", "sub/inner"] {
            fs::write(outside.join(canary), "alive")?;
            fs::set_permissions(outside.join(canary), fs::Permissions::from_mode(0o640))?;
        }
        symlink("canary", outside.join("link"))?;
        std::env::set_current_dir(&outside).context("cannot enter the sandbox")?;
        let before = look(sandbox.path())?;
        Ok(Self { sandbox, before })
    }

    fn root(&self) -> PathBuf {
        self.sandbox.path().join("root")
    }

    fn unpack(&self, random: &mut Random, bytes: &[u8]) -> anyhow::Result<bool> {
        let root = RootDir::open(&self.root())?;
        let tar = BufReader::with_capacity(*random.pick(&[1, 700, 4096]), bytes);
        let limits = Limits::default();
        if random.once_in(4) {
            fs::create_dir(self.root().join("a"))?;
            let options = UnpackOptions {
                owner: random.once_in(2).then_some((7, 7)),
                id_offset: if random.once_in(2) { 100_000 } else { 0 },
                keep_kind: random.once_in(2),
            };
            return Ok(unpack_into(tar, &root, Path::new("a"), options, &limits).is_ok());
        }
        let applied = apply(tar, &root, &limits).is_ok();
        if applied && random.once_in(4) && disk_size(&self.root()) < 1 << 22 {
            // What was unpacked can be packed, or is refused.
            drop(diff(&root, std::io::sink()));
        }
        Ok(applied)
    }
}

impl Target for Tar {
    fn name(&self) -> &'static str {
        "tar"
    }

    fn run(&mut self, random: &mut Random) -> anyhow::Result<bool> {
        let outside = self.sandbox.path().join("outside");
        let bytes = mutate::archive(random, &outside.to_string_lossy());
        let applied = self.unpack(random, &bytes)?;
        let after = look(self.sandbox.path())?;
        ensure!(after == self.before, "outside of the root: {:#?}, then {after:#?}", self.before);
        fs::remove_dir_all(self.root()).context("cannot remove what was unpacked")?;
        fs::create_dir(self.root())?;
        Ok(applied)
    }
}

/// The apparent size of all files: one with a hole of a terabyte takes too long to read.
fn disk_size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().map_while(Result::ok);
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => disk_size(&entry.path()),
        Ok(meta) => meta.size(),
        Err(_) => 0,
    };
    entries.map(size).fold(0, u64::saturating_add)
}

/// One line for everything in the sandbox but the root's inside.
fn look(sandbox: &Path) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut pending = vec![sandbox.to_owned()];
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path)?;
        if path == sandbox.join("root") {
            // It is made anew for each input.
            lines.push(format!("root {}", meta.is_dir()));
            continue;
        }
        let (mode, owner) = (meta.mode(), (meta.uid(), meta.gid()));
        let mut line = format!("{} {mode:o} {owner:?}", path.display());
        if path == sandbox {
            line += &format!(" {:?}", RootDir::open(sandbox)?.xattrs(Path::new(""))?);
        } else {
            let (changed, written) = (meta.ctime_nsec(), meta.mtime_nsec());
            line += &format!(" {} {} {changed} {written}", meta.ino(), meta.nlink());
        }
        if meta.is_file() {
            line += &String::from_utf8_lossy(&fs::read(&path)?);
        }
        if meta.is_dir() {
            let mut inside: Vec<_> = fs::read_dir(&path)?
                .map(|entry| Ok(entry?.path()))
                .collect::<anyhow::Result<_>>()?;
            inside.sort();
            pending.extend(inside);
        }
        lines.push(line);
    }
    Ok(lines)
}
