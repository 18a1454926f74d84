//! What the daemon and a monitor say to each other.
//!
//! One SEQPACKET message holds one JSON value, with descriptors beside it. A text
//! that would not fit a socket buffer travels in a memfd instead. The daemon speaks
//! [`Request`], the monitor speaks [`Event`]:
//!
//! ```text
//!   Create ──► Created ──► (Start) ──► Started ──► Exited ──► end of the channel
//!      └─────────┴───────────┴──► Failed ──► end of the channel
//! ```
//!
//! `Failed` is final: whatever was made is unmade, no exit record is written, and the
//! monitor ends. It may come at any time before `Started`, also unasked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use capsa_oci::runtime::{Process, RuntimeSpec};
use capsa_sys::channel::Channel;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What a daemon asks of a monitor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Make the container up to the point before its program runs. Once, first.
    /// Answered by `Created` or `Failed`. The socket comes along on which the monitor
    /// is to be found by a later daemon ([`crate::monitor::listen`]).
    Create(Box<CreateRequest>),
    /// Run the user's program. Answered by `Started` or `Failed`. Without effect once
    /// the daemon has gone that asked.
    Start,
    /// One stream socket comes along. The monitor writes the container's output to it
    /// (raw for a tty, Docker's 8-byte frames otherwise) and reads stdin from it.
    /// Allowed before `Start`; no answer.
    Attach(AttachRequest),
    /// Run one more process in the container. Descriptors beside it: stdin, stdout and
    /// stderr as flagged, in this order; or one stream socket for a tty. Answered by
    /// `ExecStarted` or `ExecFailed`; `ExecExited` follows.
    Exec(Box<ExecRequest>),
    /// Set the size of the container's terminal.
    Resize {
        /// Lines.
        rows: u16,
        /// Columns.
        cols: u16,
    },
    /// Set the size of the terminal of one exec.
    ExecResize {
        /// Which one.
        exec_id: String,
        /// Lines.
        rows: u16,
        /// Columns.
        cols: u16,
    },
    /// Send a signal to the container's first process, or to every process in it.
    Signal {
        /// Number of the signal.
        signal: i32,
        /// To all processes of the container.
        all: bool,
    },
    /// Send a signal to the process of one exec.
    ExecSignal {
        /// Which one.
        exec_id: String,
        /// Number of the signal.
        signal: i32,
    },
    /// Answered by `Status`.
    Status,
    /// End of file for the container's stdin.
    CloseStdin,
}

/// What a monitor tells its daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The namespaces of the container exist: the network may be made now. The
    /// mounts are still being made.
    Created {
        /// The container's first process as the host sees it.
        pid: u32,
    },
    /// The user's program runs.
    Started {
        /// Nanoseconds since the epoch.
        at_ns: i64,
    },
    /// The container could not be created or started; nothing of it is left.
    Failed(Failure),
    /// The container ended; its exit record is on disk and its cgroup is gone.
    Exited(ExitRecord),
    /// The program of an exec runs.
    ExecStarted {
        /// Which one.
        exec_id: String,
        /// Its process as the host sees it.
        pid: u32,
    },
    /// An exec could not be started.
    ExecFailed {
        /// Which one.
        exec_id: String,
        /// Why.
        failure: Failure,
    },
    /// The process of an exec ended.
    ExecExited {
        /// Which one.
        exec_id: String,
        /// Exit code, or 128 + signal.
        code: i32,
    },
    /// How things stand. Also the first message to a daemon that connects anew; when the
    /// program is just being started, `Started` or the end of the channel follows.
    Status {
        /// The container's first process, once created.
        pid: Option<u32>,
        /// When the program was started; 0 before.
        started_ns: i64,
        /// Between `Started` and `Exited`.
        running: bool,
        /// Running execs: id and process.
        execs: Vec<(String, u32)>,
        /// As in the [`CreateRequest`].
        #[serde(default)]
        note: String,
    },
}

/// Everything that a monitor needs to make a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreateRequest {
    /// The container's id.
    pub id: String,
    /// Run directory of this container; it exists. The monitor's socket is in it, and
    /// the monitor removes that when it ends.
    pub dir: PathBuf,
    /// What to run and how, as in an OCI bundle. `root` is only read for `readonly`.
    pub spec: RuntimeSpec,
    /// Where the root file system comes from.
    pub rootfs: RootfsPlan,
    /// Where the streams go.
    pub stdio: StdioPlan,
    /// File to write the [`ExitRecord`] to, as JSON.
    pub exit_record: PathBuf,
    /// A compiled filter (an array of `sock_filter`) instead of `spec.linux.seccomp`.
    #[serde(default, with = "hex_bytes", skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Vec<u8>>,
    /// Process 1 is our own reaper, which runs the program as its child.
    #[serde(default)]
    pub init: bool,
    /// What the daemon wants to be told by `Status`, should it die before it has written
    /// down that the container runs.
    #[serde(default)]
    pub note: String,
}

/// Where a root file system comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum RootfsPlan {
    /// A directory as it is, never idmapped.
    Directory(PathBuf),
    /// An overlay of layers, idmapped when the container has a user namespace with
    /// mappings of its own.
    Overlay {
        /// Read-only layers, the topmost first.
        lowers: Vec<PathBuf>,
        /// Directory that holds `upper` and `work`.
        top: PathBuf,
        /// Never sync: the writable layer does not outlive a crash of the host.
        volatile: bool,
    },
}

/// Where the streams of a container go.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StdioPlan {
    /// One terminal instead of three pipes.
    pub tty: bool,
    /// Rows and columns of that terminal.
    #[serde(default)]
    pub console_size: Option<(u16, u16)>,
    /// Keep stdin open; else it is `/dev/null`.
    pub open_stdin: bool,
    /// The first attached client that ends its input ends the container's stdin.
    pub stdin_once: bool,
    /// The log file; without one, output that no client takes is dropped.
    #[serde(default)]
    pub log: Option<LogPlan>,
}

/// A log file in Docker's json-file format.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogPlan {
    /// The current file; rotated ones have `.1`, `.2` … appended, `.1` the youngest.
    pub path: PathBuf,
    /// Bytes at which the file is rotated; 0 is never.
    #[serde(default)]
    pub max_bytes: u64,
    /// How many files to keep, the current one included.
    #[serde(default)]
    pub max_files: u32,
    /// Labels and variables that go with each line as `attrs`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attrs: BTreeMap<String, String>,
}

/// What a client that attaches wants.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AttachRequest {
    /// Feed the container's stdin from the socket.
    pub stdin: bool,
    /// Write stdout to the socket.
    pub stdout: bool,
    /// Write stderr to the socket.
    pub stderr: bool,
    /// Key bytes that, typed in a row, end this client; empty for none.
    #[serde(default)]
    pub detach_keys: Vec<u8>,
}

/// One more process in a running container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Name of this exec, unique within the container.
    pub exec_id: String,
    /// What to run.
    pub process: Process,
    /// Give it a terminal of the container; one stream socket comes along.
    pub tty: bool,
    /// Rows and columns of that terminal.
    #[serde(default)]
    pub console_size: Option<(u16, u16)>,
    /// A compiled filter (an array of `sock_filter`).
    #[serde(default, with = "hex_bytes", skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Vec<u8>>,
    /// A descriptor for stdin comes along; else it is `/dev/null`.
    pub stdin: bool,
    /// A descriptor for stdout comes along; else it is `/dev/null`.
    pub stdout: bool,
    /// A descriptor for stderr comes along; else it is `/dev/null`.
    pub stderr: bool,
    /// Key bytes that, typed in a row, end the connection of a tty; empty for none.
    #[serde(default)]
    pub detach_keys: Vec<u8>,
}

/// How a container ended; the text of the exit record file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The kernel killed a process of it for want of memory.
    pub oom_killed: bool,
    /// Nanoseconds since the epoch.
    pub started_ns: i64,
    /// Nanoseconds since the epoch.
    pub finished_ns: i64,
}

/// Why a container or an exec could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// 125 the engine's side, 126 cannot be executed, 127 not found.
    pub code: i32,
    /// The step that failed: "rootfs", "mount", "user", "exec" …
    pub stage: String,
    /// What was attempted on what, and what the kernel said.
    pub message: String,
}

impl Failure {
    /// A failure that is not about the user's program.
    pub fn engine(stage: &str, message: impl ToString) -> Self {
        Self { code: 125, stage: stage.to_owned(), message: message.to_string() }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// Texts longer than this go by memfd.
const INLINE_MAX: usize = 64 * 1024;
/// The whole of a message whose text is in its first descriptor.
const BY_FD: &[u8] = b"@";
/// No message of ours comes near this.
const TEXT_MAX: u64 = 16 * 1024 * 1024;

/// Sends one message with its descriptors.
pub fn send<T: Serialize>(channel: &Channel, message: &T, fds: &[BorrowedFd<'_>]) -> Result<()> {
    send_by(message, fds, |text, fds| channel.send(text, fds))
}

/// As [`send`], but fails with `EAGAIN` when the other side doesn't read.
pub fn try_send<T: Serialize>(channel: &Channel, message: &T) -> Result<()> {
    send_by(message, &[], |text, fds| channel.try_send(text, fds))
}

fn send_by<T: Serialize>(
    message: &T,
    fds: &[BorrowedFd<'_>],
    send: impl Fn(&[u8], &[BorrowedFd<'_>]) -> capsa_sys::Result<()>,
) -> Result<()> {
    let text = serde_json::to_vec(message).map_err(|e| Error::Message(e.to_string()))?;
    if text.len() <= INLINE_MAX {
        return Ok(send(&text, fds)?);
    }
    let memfd = text_fd(&text)?;
    let mut all = Vec::with_capacity(fds.len() + 1);
    all.push(memfd.as_fd());
    all.extend_from_slice(fds);
    Ok(send(BY_FD, &all)?)
}

/// Receives one message with its descriptors; `None` when the other side is gone.
pub fn recv<T: DeserializeOwned>(channel: &Channel) -> Result<Option<(T, Vec<OwnedFd>)>> {
    let mut text = Vec::new();
    let Some(mut fds) = channel.recv(&mut text)? else { return Ok(None) };
    if text == BY_FD && !fds.is_empty() {
        text = fd_text(fds.remove(0))?;
    }
    let message = serde_json::from_slice(&text).map_err(|e| Error::Message(e.to_string()))?;
    Ok(Some((message, fds)))
}

fn text_fd(text: &[u8]) -> Result<File> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let fd = rustix::fs::memfd_create("capsa-message", flags)
        .map_err(|e| capsa_sys::Error::new("memfd_create", "message", e))?;
    let mut file = File::from(fd);
    file.write_all(text).map_err(|e| capsa_sys::Error::from_io("write", "message", &e))?;
    Ok(file)
}

fn fd_text(fd: OwnedFd) -> Result<Vec<u8>> {
    let mut file = File::from(fd);
    let mut text = Vec::new();
    file.rewind()
        .and_then(|()| file.take(TEXT_MAX).read_to_end(&mut text))
        .map_err(|e| capsa_sys::Error::from_io("read", "message", &e))?;
    Ok(text)
}

/// Bytes as a string of hex digits: an eighth of the text that an array of numbers is.
mod hex_bytes {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::ref_option, reason = "serde's calling convention")]
    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let Some(bytes) = bytes else { return serializer.serialize_none() };
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |n: u8| char::from(DIGITS[usize::from(n & 15)]);
        let text: String = bytes.iter().flat_map(|b| [digit(b >> 4), digit(*b)]).collect();
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        if text.len() % 2 != 0 || !text.is_ascii() {
            return Err(D::Error::custom("odd hex text"));
        }
        let bytes = (0..text.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&text[i..i + 2], 16).map_err(D::Error::custom));
        bytes.collect::<Result<Vec<u8>, _>>().map(Some)
    }
}

/// Bytes before each frame of output.
pub const FRAME_HEADER: usize = 8;

/// The header of a frame in Docker's multiplexed stream: the stream (1 is stdout, 2 is
/// stderr), three zeros, and the length with the highest byte first.
pub fn frame_header(stream: u8, length: usize) -> [u8; FRAME_HEADER] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [stream, 0, 0, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_travels_with_its_descriptors_whatever_its_size() {
        let (a, b) = Channel::pair().unwrap();
        for size in [3, INLINE_MAX * 3] {
            let id = "x".repeat(size);
            let request = Request::ExecSignal { exec_id: id.clone(), signal: 9 };
            send(&a, &request, &[std::io::stdin().as_fd()]).unwrap();
            let (back, fds) = recv::<Request>(&b).unwrap().unwrap();
            assert_eq!(fds.len(), 1);
            assert!(matches!(back, Request::ExecSignal { exec_id, signal: 9 } if exec_id == id));
        }
        drop(a);
        assert!(recv::<Request>(&b).unwrap().is_none());
    }

    #[test]
    fn a_filter_is_hex() {
        #[derive(Serialize, Deserialize, PartialEq, Debug)]
        struct Holder {
            #[serde(default, with = "hex_bytes")]
            filter: Option<Vec<u8>>,
        }
        let holder = Holder { filter: Some(vec![0, 0xab, 0xff]) };
        let text = serde_json::to_string(&holder).unwrap();
        assert_eq!(text, r#"{"filter":"00abff"}"#);
        assert_eq!(serde_json::from_str::<Holder>(&text).unwrap(), holder);
        assert!(serde_json::from_str::<Holder>(r#"{"filter":"0x1"}"#).is_err());
        assert_eq!(serde_json::from_str::<Holder>("{}").unwrap(), Holder { filter: None });
    }
}
