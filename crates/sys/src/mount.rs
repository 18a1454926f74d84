//! Mounts as descriptors: made detached, changed detached, then attached.
//!
//! Nothing here takes a path inside a container: targets are descriptors. The errors
//! carry what the file system had to say beyond its errno, when it said something.

use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use bitflags::bitflags;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use crate::{Error, Result};

bitflags! {
    /// Attributes of one mount; mount_setattr(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Attrs: u64 {
        /// Read-only.
        const RDONLY = 0x1;
        /// Set-user-id bits have no effect.
        const NOSUID = 0x2;
        /// Device nodes cannot be opened.
        const NODEV = 0x4;
        /// Programs cannot be run.
        const NOEXEC = 0x8;
        /// All bits of the access time mode; only to clear it.
        const ATIME = 0x70;
        /// Access times are never updated.
        const NOATIME = 0x10;
        /// Access times are always updated.
        const STRICTATIME = 0x20;
        /// Access times of directories are never updated.
        const NODIRATIME = 0x80;
        /// Symbolic links are not followed.
        const NOSYMFOLLOW = 0x20_0000;
    }
}

/// Who else sees mounts made below a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Nobody.
    Private,
    /// The peers' mounts come here, none go there.
    Slave,
    /// All peers.
    Shared,
    /// Nobody, and it cannot be bound elsewhere.
    Unbindable,
}

impl Propagation {
    fn bits(self) -> u64 {
        match self {
            Self::Private => libc::MS_PRIVATE,
            Self::Slave => libc::MS_SLAVE,
            Self::Shared => libc::MS_SHARED,
            Self::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// A change to a mount.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change<'a> {
    /// Attributes to set.
    pub set: Attrs,
    /// Attributes to clear first.
    pub clear: Attrs,
    /// New propagation.
    pub propagation: Option<Propagation>,
    /// User namespace whose mapping the mount shows its owners through. Only for a
    /// detached mount that has none yet.
    pub idmap: Option<BorrowedFd<'a>>,
    /// Also the mounts below it.
    pub recursive: bool,
}

/// `struct mount_attr` of `<linux/mount.h>`.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;

/// Changes the mount that `mount` is the root of (or lies in). mount_setattr(2).
pub fn change(mount: BorrowedFd<'_>, change: &Change<'_>) -> Result<()> {
    let mut attr = MountAttr {
        set: change.set.bits(),
        clear: change.clear.bits(),
        propagation: change.propagation.map_or(0, Propagation::bits),
        userns: 0,
    };
    if let Some(userns) = change.idmap {
        attr.set |= MOUNT_ATTR_IDMAP;
        attr.userns = userns.as_raw_fd() as u64;
    }
    let flags = libc::AT_EMPTY_PATH | if change.recursive { libc::AT_RECURSIVE } else { 0 };
    let (fd, empty) = (mount.as_raw_fd(), c"".as_ptr());
    // SAFETY: the path is an empty C string and `attr` a mount_attr of the size given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            empty,
            flags,
            &raw mut attr,
            size_of::<MountAttr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(Error::new("mount_setattr", path_of(mount), last_errno())) }
}

/// A detached copy of the mount at the host path `path`, with those below it when
/// `recursive`. open_tree(2).
pub fn clone_path(path: &Path, recursive: bool) -> Result<OwnedFd> {
    rustix::mount::open_tree(CWD, path, clone_flags(recursive))
        .map_err(|e| Error::new("open_tree", path.display(), e))
}

/// A detached copy of the mount at `at`; as [`clone_path`].
pub fn clone_fd(at: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd> {
    rustix::mount::open_tree(at, c"", clone_flags(recursive) | OpenTreeFlags::AT_EMPTY_PATH)
        .map_err(|e| Error::new("open_tree", path_of(at), e))
}

fn clone_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

/// Attaches a detached mount on top of `target`. move_mount(2).
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", target, c"", flags)
        .map_err(|e| Error::new("move_mount", path_of(target), e))
}

/// Attaches a detached mount on top of the caller's `/`; [`enter_root`] goes in.
pub fn attach_over_root(mount: BorrowedFd<'_>) -> Result<()> {
    rustix::mount::move_mount(mount, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|e| Error::new("move_mount", "/", e))
}

/// Makes the attached mount `root` the root and the working directory, and detaches
/// everything that was there before. pivot_root(2) on one directory stacks the old
/// root on top of the new one, from where it is taken away.
pub fn enter_root(root: BorrowedFd<'_>) -> Result<()> {
    rustix::process::fchdir(root).map_err(|e| Error::new("fchdir", "new root", e))?;
    rustix::process::pivot_root(c".", c".").map_err(|e| Error::new("pivot_root", "new root", e))?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)
        .map_err(|e| Error::new("umount", "old root", e))?;
    rustix::process::chdir(c"/").map_err(|e| Error::new("chdir", "/", e))
}

/// The caller's `/` as a descriptor, for [`change`].
pub fn root() -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(c"/", flags, Mode::empty()).map_err(|e| Error::new("open", "/", e))
}

/// A file system that is being set up.
#[derive(Debug)]
pub struct Filesystem {
    context: OwnedFd,
    kind: String,
}

impl Filesystem {
    /// A context for the type `kind`. fsopen(2).
    pub fn open(kind: &str) -> Result<Self> {
        rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)
            .map(|context| Self { context, kind: kind.to_owned() })
            .map_err(|e| Error::new("fsopen", kind, e))
    }

    /// Sets an option that has a value.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        let done = rustix::mount::fsconfig_set_string(self.context.as_fd(), key, value);
        self.check(done, "fsconfig", format_args!("{key}={value}"))
    }

    /// Sets an option without one.
    pub fn flag(&self, key: &str) -> Result<()> {
        let done = rustix::mount::fsconfig_set_flag(self.context.as_fd(), key);
        self.check(done, "fsconfig", format_args!("{key}"))
    }

    /// Sets an option whose value is an open file.
    pub fn set_fd(&self, key: &str, fd: BorrowedFd<'_>) -> Result<()> {
        let done = rustix::mount::fsconfig_set_fd(self.context.as_fd(), key, fd);
        self.check(done, "fsconfig", format_args!("{key}"))
    }

    /// Makes the file system and a detached mount of it. fsmount(2).
    pub fn mount(&self, attrs: Attrs) -> Result<OwnedFd> {
        let done = rustix::mount::fsconfig_create(self.context.as_fd());
        self.check(done, "mount", format_args!("create"))?;
        let attrs = MountAttrFlags::from_bits_retain(attrs.bits() as u32);
        rustix::mount::fsmount(self.context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attrs)
            .map_err(|e| Error::new("fsmount", &self.kind, e))
    }

    fn check(
        &self,
        done: Result<(), Errno>,
        call: &'static str,
        step: fmt::Arguments<'_>,
    ) -> Result<()> {
        let Err(errno) = done else { return Ok(()) };
        let said = self.messages();
        let kind = &self.kind;
        let object = if said.is_empty() {
            format!("{kind} ({step})")
        } else {
            format!("{kind} ({step}; {said})")
        };
        Err(Error::new(call, object, errno))
    }

    /// What the file system wrote to the context's log.
    fn messages(&self) -> String {
        let mut said = Vec::new();
        let mut line = [0; 512];
        while let Ok(length @ 1..) = rustix::io::read(&self.context, &mut line[..]) {
            let text = String::from_utf8_lossy(&line[..length]);
            said.push(text.trim_end().trim_start_matches("e ").to_owned());
        }
        said.join("; ")
    }
}

/// Runs `work` with the file system ids `uid` and `gid` and with all capabilities
/// kept: what is created belongs to these ids. setfsuid(2), capabilities(7).
pub fn with_fs_ids<T>(uid: u32, gid: u32, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let failed = |e| Error::new("prctl", "securebits", e);
    let before = rustix::thread::capabilities_secure_bits().map_err(failed)?;
    let keep = before | rustix::thread::CapabilitiesSecureBits::NO_SETUID_FIXUP;
    rustix::thread::set_capabilities_secure_bits(keep).map_err(failed)?;
    let (old_uid, old_gid) = set_fs_ids(uid, gid);
    let done = work();
    set_fs_ids(old_uid, old_gid);
    rustix::thread::set_capabilities_secure_bits(before).map_err(failed)?;
    done
}

fn set_fs_ids(uid: u32, gid: u32) -> (u32, u32) {
    // SAFETY: takes a number, acts on this thread only, and returns the old one.
    let gid = unsafe { libc::setfsgid(gid) };
    // SAFETY: as above.
    let uid = unsafe { libc::setfsuid(uid) };
    (uid as u32, gid as u32)
}

/// For error texts: where `fd` lies, as far as can be told.
fn path_of(fd: BorrowedFd<'_>) -> String {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let read = rustix::fs::readlink(link.as_str(), Vec::new());
    read.unwrap_or_else(|_| CString::from(c"(mount)")).to_string_lossy().into_owned()
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
