//! Starts the host's own daemon when a verb finds none.
//!
//! The daemon goes into the background by itself and says "ready" on its standard
//! output, a pipe of ours: nobody polls. A lock file makes sure that of many verbs
//! at once only one starts a daemon; the others find it running.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, flock};

use super::DEFAULT_SOCKET;
use crate::failure::{Failure, Result};

const FOLDER: &str = "/run/capsa";
const LOG: &str = "/run/capsa/daemon.log";
const LOCK: &str = "/run/capsa/start.lock";

/// What a started daemon writes once it listens.
pub(crate) const READY: &[u8] = b"ready\n";

/// Starts a daemon, unless another process has just done so; returns when it answers.
pub(crate) fn start(absent: &Failure) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(
            absent.code,
            format!(
                "{}\nhint: start it as root with `capsa daemon`, or name another one with -H or CAPSA_HOST",
                absent.text
            ),
        ));
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(FOLDER)
        .map_err(|error| Failure::io("mkdir", FOLDER, &error))?;
    let lock = File::create(LOCK).map_err(|error| Failure::io("open", LOCK, &error))?;
    flock(&lock, FlockOperation::LockExclusive)
        .map_err(|errno| Failure::io("flock", LOCK, &errno.into()))?;
    if UnixStream::connect(DEFAULT_SOCKET).is_ok() {
        return Ok(());
    }
    launch()
}

fn launch() -> Result<()> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(LOG)
        .map_err(|error| Failure::io("open", LOG, &error))?;
    let before = log.metadata().map(|meta| meta.len()).unwrap_or(0);
    let failed = |error: &std::io::Error| Failure::said(format!("starting the daemon: {error}"));
    let exe = std::env::current_exe().map_err(|error| failed(&error))?;
    let mut child = Command::new(exe)
        .args(["daemon", "--background"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .current_dir("/")
        .spawn()
        .map_err(|error| failed(&error))?;
    let mut said = Vec::new();
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_end(&mut said).map_err(|error| failed(&error))?;
    }
    if said == READY {
        return Ok(());
    }
    let _ = child.wait();
    Err(Failure::said(format!(
        "the daemon did not start: {}\nhint: its log is {LOG}",
        last_words(before).unwrap_or_else(|| "it said nothing".to_owned())
    )))
}

/// The last line the daemon wrote into its log.
fn last_words(from: u64) -> Option<String> {
    let bytes = fs::read(LOG).ok()?;
    let text = String::from_utf8_lossy(bytes.get(usize::try_from(from).ok()?..)?).into_owned();
    text.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
}
