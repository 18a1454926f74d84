//! What unpacking a layer costs beside tar(1), and packing it beside gzip(1), on the same
//! disk in the same run.
//!
//! Ignored by default: it needs an optimised build and a tar of some size.
//! `LAYER=/path/to.tar cargo test --release -p capsa-image --test cost -- --ignored --nocapture`
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use capsa_image::{Compression, Limits, compress, unpack_layer};
use capsa_oci::{Digest, Hasher};
use capsa_sys::root::RootDir;

const ROUNDS: usize = 5;

#[test]
#[ignore = "a measurement"]
fn unpacking_beside_tar() {
    let layer = std::env::var("LAYER").unwrap();
    let mut hasher = Hasher::new();
    std::io::copy(&mut File::open(&layer).unwrap(), &mut hasher).unwrap();
    let diff_id = hasher.finish();
    let dir = tempfile::tempdir_in(Path::new(&layer).parent().unwrap()).unwrap();
    let packed = dir.path().join("layer.gz");
    let out = File::create(&packed).unwrap();
    compress(&mut File::open(&layer).unwrap(), Compression::Gzip, out).unwrap();
    let tar = |flags: &str, from: &Path, to: &Path| {
        let from = from.to_str().unwrap();
        let to = to.to_str().unwrap();
        let args = [flags, from, "--numeric-owner", "--xattrs", "-C", to];
        assert!(Command::new("tar").args(args).status().unwrap().success());
    };
    let plain = Path::new(&layer);
    let us = |from: &Path, to: &Path| unpack(from, &diff_id, to);
    let rows: [Row<'_>; 4] = [
        ("tar -x", &|to| tar("-xpf", plain, to)),
        ("capsa, sha256 checked", &|to| us(plain, to)),
        ("tar -xz", &|to| tar("-xpzf", &packed, to)),
        ("capsa gzip, sha256 checked", &|to| us(&packed, to)),
    ];
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        for ((_, run), times) in rows.iter().zip(&mut times) {
            times.push(timed(dir.path(), run));
        }
    }
    for ((name, _), times) in rows.iter().zip(&mut times) {
        times.sort();
        println!("{name:28} min {:?} median {:?}", times[0], times[ROUNDS / 2]);
    }
}

#[test]
#[ignore = "a measurement"]
fn packing_beside_gzip() {
    let layer = std::env::var("LAYER").unwrap();
    let pack = |threads: usize| {
        let mut plain = File::open(&layer).unwrap();
        capsa_image::gzip(&mut plain, std::io::sink(), threads).unwrap();
    };
    let gzip = || {
        let mut gzip = Command::new("gzip");
        gzip.args(["-6", "-c", &layer]).stdout(std::process::Stdio::null());
        assert!(gzip.status().unwrap().success());
    };
    let all = std::thread::available_parallelism().unwrap().get();
    let rows: [(&str, &dyn Fn()); 3] =
        [("gzip -6", &gzip), ("capsa, one thread", &|| pack(1)), ("capsa, all", &|| pack(all))];
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for ((_, run), times) in rows.iter().zip(&mut times) {
            let start = Instant::now();
            run();
            times.push(start.elapsed());
        }
    }
    for ((name, _), times) in rows.iter().zip(&mut times) {
        times.sort();
        println!("{name:28} min {:?} median {:?}", times[0], times[ROUNDS / 2]);
    }
}

/// A way to unpack, and its name.
type Row<'a> = (&'a str, &'a dyn Fn(&Path));

fn unpack(from: &Path, diff_id: &Digest, to: &Path) {
    let root = RootDir::open(to).unwrap();
    unpack_layer(File::open(from).unwrap(), diff_id, &root, &Limits::default()).unwrap();
}

fn timed(dir: &Path, run: &dyn Fn(&Path)) -> Duration {
    let to = dir.join("to");
    fs::create_dir(&to).unwrap();
    rustix::fs::sync();
    let start = Instant::now();
    run(&to);
    let took = start.elapsed();
    fs::remove_dir_all(&to).unwrap();
    took
}
