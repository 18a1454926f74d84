//! What init and the process that made it say to each other.
//!
//! ```text
//!   parent                         init
//!     ── Mapped ───────────────────►   become root inside, make what mounts it can
//!     ── Join (task files) ────────►   join the cgroup
//!     ── Mounts (root, binds …) ───►   mount, enter, become the user
//!     ◄──────────── Ready (pty?) ──
//!     ── Start ────────────────────►   exec; the end of the channel is success
//!     ◄──────── Failed (failure) ──    at any point instead
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use capsa_sys::channel::{Channel, MAX_FDS};

use crate::cgroup::Cgroup;
use crate::error::{Error, Result};
use crate::protocol::{self, Failure};

const MAPPED: u8 = b'I';
const MOUNTS: u8 = b'M';
const START: u8 = b'S';

/// What init says; a descriptor may come along.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Report {
    /// Only Start is missing. The master of the terminal comes along when there is one.
    Ready,
    /// Nothing will come of it.
    Failed(Failure),
}

/// Where init has to go. The v1 `tasks` files come along.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Join {
    /// The cgroup's path below every mount point.
    pub(crate) path: String,
    /// Its directories on the host.
    pub(crate) directories: Vec<PathBuf>,
    /// It is in the v2 hierarchy only.
    pub(crate) unified: bool,
}

impl Join {
    /// Of `cgroup`.
    pub(crate) fn of(cgroup: &Cgroup) -> Self {
        let directories: Vec<_> = cgroup.directories().map(Path::to_owned).collect();
        let unified = directories.len() == 1 && cgroup.v2_fd().is_some();
        Self { path: cgroup.path().to_owned(), directories, unified }
    }
}

/// The parent's end.
#[derive(Debug)]
pub(crate) struct Parent(Channel);

/// Init's end.
#[derive(Debug)]
pub(crate) struct Init(Channel);

/// Both ends.
pub(crate) fn pair() -> Result<(Parent, Init)> {
    let (parent, init) = Channel::pair()?;
    Ok((Parent(parent), Init(init)))
}

impl Parent {
    /// Ids are mapped.
    pub(crate) fn send_mapped(&self) -> Result<()> {
        Ok(self.0.send(&[MAPPED], &[])?)
    }

    /// `tasks` are the files to write oneself into.
    pub(crate) fn send_join(&self, join: &Join, tasks: &[BorrowedFd<'_>]) -> Result<()> {
        protocol::send(&self.0, join, tasks)
    }

    /// The root and what else to mount, in the order that both sides know.
    pub(crate) fn send_mounts(&self, fds: &[BorrowedFd<'_>]) -> Result<()> {
        for batch in fds.chunks(MAX_FDS) {
            self.0.send(&[MOUNTS], batch)?;
        }
        Ok(())
    }

    /// Go.
    pub(crate) fn send_start(&self) -> Result<()> {
        Ok(self.0.send(&[START], &[])?)
    }

    /// The next report; `None` when init has closed its end: it runs the program, or died.
    pub(crate) fn recv(&self) -> Result<Option<(Report, Vec<OwnedFd>)>> {
        protocol::recv(&self.0)
    }
}

impl AsFd for Parent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Init {
    pub(crate) fn recv_mapped(&self) -> Result<()> {
        self.recv(MAPPED).map(drop)
    }

    pub(crate) fn recv_join(&self) -> Result<(Join, Vec<OwnedFd>)> {
        protocol::recv(&self.0)?.ok_or(Error::InitGone)
    }

    /// `count` descriptors.
    pub(crate) fn recv_mounts(&self, count: usize) -> Result<Vec<OwnedFd>> {
        let mut fds = self.recv(MOUNTS)?;
        while fds.len() < count {
            fds.append(&mut self.recv(MOUNTS)?);
        }
        Ok(fds)
    }

    pub(crate) fn recv_start(&self) -> Result<()> {
        self.recv(START).map(drop)
    }

    pub(crate) fn send(&self, report: &Report, fds: &[BorrowedFd<'_>]) -> Result<()> {
        protocol::send(&self.0, report, fds)
    }

    fn recv(&self, wanted: u8) -> Result<Vec<OwnedFd>> {
        let mut bytes = Vec::new();
        let fds = self.0.recv(&mut bytes)?.ok_or(Error::InitGone)?;
        if bytes != [wanted] {
            return Err(Error::Message(format!("{bytes:?} instead of {wanted}")));
        }
        Ok(fds)
    }
}
