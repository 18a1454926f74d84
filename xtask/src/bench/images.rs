//! An image of half a gigabyte in and out: load, save, push and pull beside the other
//! engines.
//!
//! The archive is made here, without a network: a tree of the host's programs, many
//! small files, and one large file of which half can't be compressed, a layer each.
//! Each run begins on a flushed disk and removes what it loaded, like somebody who builds
//! and loads again. On ext4 that matters: beside a tree that was just removed new files are
//! made slowly, so a first load is faster for engines that don't go elsewhere.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::engines::Engine;
use super::host::Host;
use super::measure::{median, settle, timed};
use super::registry;
use super::table::{Medians, Table};

/// How often, unless the variable for all benchmarks says otherwise.
pub(crate) const RUNS: usize = 5;
/// How much faster than docker we promise to be.
const LOAD_FACTOR: f64 = 3.0;
const SAVE_FACTOR: f64 = 2.0;
/// 100 MB.
const PEAK_KIB_MAX: u64 = 100_000_000 / 1024;

const NAME: &str = "localhost/bench-images:1";
const TREE: &str = "/usr";
const TREE_BYTES: u64 = 200_000_000;
const SMALL_FOLDERS: usize = 200;
const SMALL_FILES: usize = 100;
const LARGE_BYTES: usize = 150 << 20;
const BLOCK: usize = 512;

/// Adds load and save, and what the daemon's memory was at its largest.
pub(crate) fn measure(
    host: &Host,
    engines: &[Engine],
    runs: usize,
    table: &mut Table,
) -> anyhow::Result<()> {
    ensure!(runs % 2 == 1, "{runs} runs have no middle one: take an odd number");
    let archive = make_archive(host).context("cannot make the archive")?;
    let out = host.directory().join("saved.tar");
    let (from, to) = (text(&archive)?, text(&out)?);
    let mut times = vec![(Vec::new(), Vec::new()); engines.len()];
    for round in 0..=runs {
        for (engine, (loads, saves)) in engines.iter().zip(&mut times) {
            // What another engine left to be written is not this one's to write.
            rustix::fs::sync();
            settle();
            let load = timed(|| engine.call(&["load", "-q", "-i", from]).map(drop))?;
            rustix::fs::sync();
            let save = timed(|| engine.call(&["save", "-o", to, NAME]).map(drop))?;
            engine.call(&["rmi", "-f", NAME])?;
            fs::remove_file(&out)?;
            if round > 0 {
                loads.push(load);
                saves.push(save);
            }
        }
    }
    let size = fs::metadata(&archive)?.len() / 1_000_000;
    let (loads, saves): (Medians, Medians) = engines
        .iter()
        .zip(times)
        .map(|(engine, (loads, saves))| {
            ((engine.name, median(loads)), (engine.name, median(saves)))
        })
        .unzip();
    table.compare(&format!("load {size} MB in 3 layers, {runs} runs"), LOAD_FACTOR, loads);
    table.compare("save them", SAVE_FACTOR, saves);
    registry::measure(host, engines, runs, (from, NAME), table)?;
    let mut peaks = engines.iter().map(|engine| (engine.name, engine.peak_kib()));
    if let Some((_, ours)) = peaks.next() {
        let other = peaks.find(|(_, kib)| *kib > 0);
        table.memory("daemon, at its largest", ours, PEAK_KIB_MAX, other);
    }
    Ok(())
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

/// An archive in Docker's form.
fn make_archive(host: &Host) -> anyhow::Result<PathBuf> {
    let folder = host.directory().join("images");
    fs::create_dir(&folder)?;
    let layers = ["tree.tar", "small.tar", "large.tar"].map(|name| folder.join(name));
    make_tree(&folder, &layers[0])?;
    write_tar(&layers[1], small_files)?;
    write_tar(&layers[2], large_file)?;
    let digests = layers.iter().map(|layer| sha256(layer)).collect::<anyhow::Result<Vec<_>>>()?;
    let names: Vec<String> = digests.iter().map(|digest| format!("{digest}/layer.tar")).collect();
    let diff_ids: Vec<String> = digests.iter().map(|digest| format!("sha256:{digest}")).collect();
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": { "Cmd": ["true"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": names.iter().map(|name| json!({ "created_by": name })).collect::<Vec<_>>(),
    });
    let list = json!([{ "Config": "config.json", "RepoTags": [NAME], "Layers": names }]);
    let archive = folder.join("archive.tar");
    write_tar(&archive, |out| {
        file(out, "config.json", config.to_string().as_bytes())?;
        for (name, layer) in names.iter().zip(&layers) {
            let size = fs::metadata(layer)?.len();
            header(out, name, size, b'0')?;
            io::copy(&mut File::open(layer)?, out)?;
            pad(out, size)?;
        }
        file(out, "manifest.json", list.to_string().as_bytes())
    })?;
    for layer in &layers {
        fs::remove_file(layer)?;
    }
    Ok(archive)
}

/// Files of the host by name, as many as fit.
fn make_tree(folder: &Path, layer: &Path) -> anyhow::Result<()> {
    let (mut names, mut left) = (Vec::new(), TREE_BYTES);
    let mut folders = vec![PathBuf::from(TREE)];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<_> = fs::read_dir(&folder)?.collect::<io::Result<_>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let meta = entry.metadata()?;
            if meta.is_dir() {
                folders.push(entry.path());
            }
            let cost = if meta.is_file() { meta.size() } else { 0 };
            if cost <= left && meta.nlink() == 1 || meta.is_dir() {
                left -= cost.min(left);
                names.extend(entry.path().as_os_str().as_bytes());
                names.push(0);
            }
        }
        if left < TREE_BYTES / 100 {
            break;
        }
    }
    let list = folder.join("names");
    fs::write(&list, names)?;
    let mut tar = Command::new("tar");
    tar.args(["--create", "--no-recursion", "--numeric-owner", "--null", "--file"]).arg(layer);
    tar.arg("--files-from").arg(&list).stderr(Stdio::null());
    let status = tar.status().context("cannot run tar")?;
    ensure!(status.success(), "tar: {status}");
    Ok(())
}

fn small_files(out: &mut dyn Write) -> io::Result<()> {
    let mut noise = Noise(1);
    for folder in 0..SMALL_FOLDERS {
        header(out, &format!("small/{folder}/"), 0, b'5')?;
        for number in 0..SMALL_FILES {
            let size = 100 + usize::from(noise.next()) * 62;
            let line = format!("{:016x} of {folder}/{number}\n", noise.next_u64());
            let content: Vec<u8> = line.bytes().cycle().take(size).collect();
            file(out, &format!("small/{folder}/{number}.txt"), &content)?;
        }
    }
    Ok(())
}

fn large_file(out: &mut dyn Write) -> io::Result<()> {
    let mut noise = Noise(2);
    header(out, "large.bin", LARGE_BYTES as u64, b'0')?;
    for _ in 0..LARGE_BYTES / 2 / 8 {
        out.write_all(&noise.next_u64().to_le_bytes())?;
    }
    for _ in 0..LARGE_BYTES / 2 / 8 {
        out.write_all(b"abcdefgh")?;
    }
    pad(out, LARGE_BYTES as u64)
}

fn write_tar(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> anyhow::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    content(&mut out)?;
    out.write_all(&[0; 2 * BLOCK])?;
    out.flush()?;
    Ok(())
}

fn file(out: &mut dyn Write, name: &str, content: &[u8]) -> io::Result<()> {
    header(out, name, content.len() as u64, b'0')?;
    out.write_all(content)?;
    pad(out, content.len() as u64)
}

/// A ustar header of a file or folder of root's.
fn header(out: &mut dyn Write, name: &str, size: u64, kind: u8) -> io::Result<()> {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, name);
    put(100, if kind == b'5' { "0000755" } else { "0000644" });
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, &format!("{:011o}", 1_700_000_000));
    put(148, "        ");
    put(257, "ustar\x0000");
    header[156] = kind;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    out.write_all(&header)
}

fn pad(out: &mut dyn Write, size: u64) -> io::Result<()> {
    let rest = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    out.write_all(&[0; BLOCK][..(BLOCK - rest) % BLOCK])
}

fn sha256(path: &Path) -> anyhow::Result<String> {
    let output = Command::new("sha256sum").arg(path).output().context("cannot run sha256sum")?;
    ensure!(output.status.success(), "sha256sum: {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}

/// The same numbers each time (a linear congruential generator).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u8 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.0.to_be_bytes()[0]
    }

    fn next_u64(&mut self) -> u64 {
        u64::from_le_bytes([(); 8].map(|()| self.next()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tar_reads_what_is_written_here() {
        let path = std::env::temp_dir().join(format!("xtask-bench-{}.tar", std::process::id()));
        let write = |out: &mut dyn Write| {
            header(out, "d/", 0, b'5')?;
            file(out, "d/f", &[7; 513])
        };
        write_tar(&path, write).unwrap();
        let output = Command::new("tar").arg("-tvf").arg(&path).output().unwrap();
        fs::remove_file(&path).unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines.len() == 2 && lines[0].starts_with("drwxr-xr-x"), "{text}");
        assert!(lines[1].starts_with("-rw-r--r--") && lines[1].contains(" 513 "), "{text}");
    }
}
