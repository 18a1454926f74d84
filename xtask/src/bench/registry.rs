//! The same image to a registry and back: push and pull beside the other engines.
//!
//! Debian's docker-registry runs on loopback in the namespaces of the benchmark, an empty
//! one for every push: engines remember which registry has what, and would send nothing.
//! Every pull begins with the image removed and the disk flushed.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::Context as _;

use super::engines::Engine;
use super::host::Host;
use super::measure::{median, settle, timed};
use super::table::{Medians, Table};
use crate::tree;

/// How much faster than docker we promise to be.
const PUSH_FACTOR: f64 = 1.0;
const PULL_FACTOR: f64 = 2.0;

struct Registry {
    process: Child,
    address: String,
}

/// Adds push and pull of the image in `archive`, whose name is `name`.
pub(super) fn measure(
    host: &Host,
    engines: &[Engine],
    runs: usize,
    (archive, name): (&str, &str),
    table: &mut Table,
) -> anyhow::Result<()> {
    let Some(program) = tree::which("docker-registry") else {
        println!("no docker-registry here: push and pull are not measured");
        return Ok(());
    };
    let mut times = vec![(Vec::new(), Vec::new()); engines.len()];
    for round in 0..=runs {
        for (engine, (pushes, pulls)) in engines.iter().zip(&mut times) {
            let registry = Registry::start(host, &program)?;
            let remote = format!("{}/image:1", registry.address);
            engine.call(&["load", "-q", "-i", archive])?;
            engine.call(&["tag", name, &remote])?;
            rustix::fs::sync();
            settle();
            let push = timed(|| engine.call(&with_tls(engine, "push", &remote)).map(drop))?;
            engine.call(&["rmi", "-f", name, &remote])?;
            rustix::fs::sync();
            settle();
            let pull = timed(|| engine.call(&with_tls(engine, "pull", &remote)).map(drop))?;
            engine.call(&["rmi", "-f", &remote])?;
            if round > 0 {
                pushes.push(push);
                pulls.push(pull);
            }
        }
    }
    let (pushes, pulls): (Medians, Medians) = engines
        .iter()
        .zip(times)
        .map(|(engine, (pushes, pulls))| {
            ((engine.name, median(pushes)), (engine.name, median(pulls)))
        })
        .unzip();
    table.compare("push them, compressed on the way", PUSH_FACTOR, pushes);
    table.compare("pull them", PULL_FACTOR, pulls);
    Ok(())
}

/// podman does not take loopback for trusted.
fn with_tls<'a>(engine: &Engine, verb: &'a str, remote: &'a str) -> Vec<&'a str> {
    let mut words = vec![verb, "-q"];
    if engine.name == "podman" {
        words.push("--tls-verify=false");
    }
    words.push(remote);
    words
}

impl Registry {
    fn start(host: &Host, program: &Path) -> anyhow::Result<Self> {
        let folder = host.directory().join("registry");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        let config = folder.join("config.yml");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: 127.0.0.1:0\n",
            folder.display()
        );
        fs::write(&config, text)?;
        let mut process = host
            .command(program)
            .arg("serve")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let said = process.stderr.take().context("the registry's output is not piped")?;
        let mut lines = BufReader::new(said).lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            let rest = line.split("listening on 127.0.0.1:").nth(1)?;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u16>().ok()
        });
        // A full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        let registry = |port| format!("127.0.0.1:{port}");
        let address = port.map(registry).unwrap_or_default();
        let started = Self { process, address };
        anyhow::ensure!(port.is_some(), "docker-registry did not start");
        Ok(started)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
