//! Unpacking a tar stream into a directory tree: layers and copied-in archives.
//!
//! The archive is a stranger's. Names are cleaned as text first (one that climbs
//! out is refused), then every parent is opened through [`RootDir`], so links are
//! followed only inside the root, and the last component is never followed. A
//! later entry replaces an earlier one, except that a directory joins a directory.
//!
//! In a layer, whiteouts take overlayfs' form: `.wh.x` becomes the character
//! device 0/0 `x`, `.wh..wh..opq` the attribute `trusted.overlay.opaque` of its
//! directory. A directory that takes the place of a whiteout of the same layer is
//! opaque, in whichever order they come. Attributes of overlayfs in the input are
//! dropped: they would be orders to the kernel.
//!
//! Owners and modes are the archive's; id mapping is done at mount time.

use std::ffi::OsStr;
use std::io::BufRead;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use capsa_sys::atomic::begin_writeback;
use capsa_sys::root::{RootDir, remove_tree, set_xattr_at};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::tar::{Entry, Kind, Reader, Time};
use crate::tree::disk_size;
use crate::{Error, Limits, Result};

/// The attribute that makes a directory hide the one below it.
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";
/// Prefix of names in a layer that hide a name of a lower one.
pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// Prefix of names that are never files; all but the next are relics of aufs.
const WHITEOUT_META: &[u8] = b".wh..wh.";
/// In a directory: hide everything below.
pub(crate) const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";

/// Of a file, handed to the disk at once.
const WRITEBACK: u64 = 8 << 20;

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Bytes of regular files.
    pub size: u64,
    /// Entries.
    pub entries: u64,
}

/// How [`unpack_into`] treats what it finds.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnpackOptions {
    /// Owner of everything unpacked, instead of the archive's.
    pub owner: Option<(u32, u32)>,
    /// Added to every owner: the first host id of a running container's user namespace,
    /// when `root` is that container's own root.
    pub id_offset: u32,
    /// Refuse to put a directory in the place of another kind of file, or the reverse.
    pub keep_kind: bool,
}

/// Unpacks a layer into `root`, an empty directory, and reads `tar` to its end.
///
/// # Errors
/// The archive is malformed, hostile or over a limit, or a file can't be made. What
/// was unpacked until then stays: the caller removes `root`.
pub fn apply(tar: impl BufRead, root: &RootDir, limits: &Limits) -> Result<Applied> {
    let options = UnpackOptions::default();
    Unpacker { root, prefix: PathBuf::new(), layer: true, options, limits, state: State::default() }
        .run(tar)
}

/// Unpacks an archive below the directory `dest` of `root`, over what is there, without
/// giving whiteouts a meaning. `root` may belong to a running container.
///
/// # Errors
/// As [`apply`]; also when `dest` is no directory, and [`Error::Overwrite`].
pub fn unpack_into(
    tar: impl BufRead,
    root: &RootDir,
    dest: &Path,
    options: UnpackOptions,
    limits: &Limits,
) -> Result<Applied> {
    root.subdir(dest).map_err(|source| Error::Apply { path: dest.to_owned(), source })?;
    let prefix = dest.to_owned();
    Unpacker { root, prefix, layer: false, options, limits, state: State::default() }.run(tar)
}

struct Unpacker<'a> {
    root: &'a RootDir,
    prefix: PathBuf,
    layer: bool,
    options: UnpackOptions,
    limits: &'a Limits,
    state: State,
}

#[derive(Default)]
struct State {
    applied: Applied,
    /// The last parent directory: entries of one directory come together.
    parent: Option<(PathBuf, Rc<OwnedFd>)>,
    /// Something this archive brought was replaced by something later in it.
    replaced: bool,
    /// Directories and their times, set last because files in them change them.
    dir_times: Vec<(PathBuf, Time)>,
}

/// Where an entry goes: an open directory and a name in it.
struct Place<'a> {
    dir: BorrowedFd<'a>,
    name: &'a OsStr,
    path: &'a Path,
}

impl Unpacker<'_> {
    fn run(mut self, tar: impl BufRead) -> Result<Applied> {
        let mut reader = Reader::new(tar, self.limits.clone());
        while let Some(entry) = reader.next()? {
            let applied = &mut self.state.applied;
            applied.entries += 1;
            applied.size = applied.size.saturating_add(entry.size);
            if applied.size > self.limits.bytes {
                return Err(Error::Limit { what: "bytes of files", limit: self.limits.bytes });
            }
            self.unpack(&entry, &mut reader)?;
        }
        reader.drain()?;
        self.restore_dir_times()?;
        if self.layer && self.state.replaced {
            // The sum of the entries is more than what is there.
            self.state.applied.size = disk_size(self.root)?;
        }
        Ok(self.state.applied)
    }

    fn unpack<R: BufRead>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
        let path = self.target(&entry.path)?;
        if path == self.prefix {
            return self.root_entry(entry, &path);
        }
        let Some(name) = path.file_name() else {
            return Err(escape(&entry.path));
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        if self.layer
            && let Some(answer) = below_whiteout(parent, entry)
        {
            return answer;
        }
        let dir = self.parent(parent).map_err(|errno| failed("openat2", parent, errno))?;
        let place = Place { dir: dir.as_fd(), name, path: &path };
        if self.layer && name.as_bytes().starts_with(WHITEOUT) {
            return self.whiteout(&place, entry);
        }
        self.make(&place, entry, reader)
    }

    /// The root's own entry sets its attributes; when copying in, the root is the user's.
    fn root_entry(&mut self, entry: &Entry, path: &Path) -> Result<()> {
        if !self.layer || entry.kind != Kind::Dir {
            return Ok(());
        }
        let fd = self.root.open_in(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
        let fd = fd.map_err(|source| Error::Apply { path: path.to_owned(), source })?;
        self.attributes(&fd, entry).map_err(|errno| failed("set attributes", path, errno))?;
        self.state.dir_times.push((path.to_owned(), entry.mtime));
        Ok(())
    }

    fn make<R: BufRead>(
        &mut self,
        place: &Place<'_>,
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<()> {
        let failed = |errno| failed(verb(entry.kind), place.path, errno);
        match entry.kind {
            Kind::File => self.file(place, entry, reader),
            Kind::Dir => self.dir(place, entry),
            Kind::HardLink => self.hard_link(place, entry),
            Kind::Symlink => {
                let target = OsStr::from_bytes(&entry.link);
                self.replace(place, || rustix::fs::symlinkat(target, place.dir, place.name))?;
                self.node_attributes(place, entry).map_err(failed)
            }
            Kind::Char | Kind::Block | Kind::Fifo => {
                let (major, minor) = entry.device;
                let device = rustix::fs::makedev(major, minor);
                let kind = node_kind(entry.kind);
                let mode = Mode::from_raw_mode(entry.mode);
                let make = || rustix::fs::mknodat(place.dir, place.name, kind, mode, device);
                self.replace(place, make)?;
                self.node_attributes(place, entry).map_err(failed)
            }
        }
    }

    fn file<R: BufRead>(
        &mut self,
        place: &Place<'_>,
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let fd = self.replace(place, || rustix::fs::openat(place.dir, place.name, flags, mode))?;
        let failed = |call, errno| failed(call, place.path, errno);
        match &entry.sparse {
            Some(map) => write_sparse(&fd, map, reader, place.path)?,
            None => write_content(&fd, reader, self.layer, place.path)?,
        }
        if entry.sparse.is_some() {
            rustix::fs::ftruncate(&fd, entry.size).map_err(|errno| failed("ftruncate", errno))?;
        }
        self.attributes(&fd, entry).map_err(|errno| failed("set attributes", errno))?;
        let times = timestamps(entry.mtime);
        rustix::fs::futimens(&fd, &times).map_err(|errno| failed("utimensat", errno))
    }

    fn dir(&mut self, place: &Place<'_>, entry: &Entry) -> Result<()> {
        let failed = |call, errno| failed(call, place.path, errno);
        let make = || rustix::fs::mkdirat(place.dir, place.name, Mode::RWXU);
        let opaque = match make() {
            Ok(()) => false,
            Err(Errno::EXIST) => match kind_at(place).map_err(|errno| failed("stat", errno))? {
                Found::Dir => false,
                _ if self.options.keep_kind => {
                    let path = place.path.to_owned();
                    return Err(Error::Overwrite { path, existing_dir: false });
                }
                found => {
                    self.replace(place, make)?;
                    self.layer && found == Found::Whiteout
                }
            },
            Err(errno) => return Err(failed("mkdir", errno)),
        };
        let fd = open_dir(place).map_err(|errno| failed("open", errno))?;
        self.attributes(&fd, entry).map_err(|errno| failed("set attributes", errno))?;
        if opaque {
            set_opaque(&fd).map_err(|errno| failed("setxattr", errno))?;
        }
        self.state.dir_times.push((place.path.to_owned(), entry.mtime));
        Ok(())
    }

    fn hard_link(&mut self, place: &Place<'_>, entry: &Entry) -> Result<()> {
        let target = self.target(&entry.link)?;
        if target == place.path {
            return Ok(());
        }
        let (dir, name) = self
            .root
            .parent_of(&target)
            .map_err(|source| Error::Apply { path: place.path.to_owned(), source })?;
        // AT_EMPTY_PATH and AT_SYMLINK_FOLLOW absent: a link to a link is that link's.
        self.replace(place, || {
            rustix::fs::linkat(&dir, &name, place.dir, place.name, AtFlags::empty())
        })
    }

    fn whiteout(&mut self, place: &Place<'_>, entry: &Entry) -> Result<()> {
        let failed = |call, errno| failed(call, place.path, errno);
        let name = place.name.as_bytes();
        if name == WHITEOUT_OPAQUE {
            return set_opaque(place.dir).map_err(|errno| failed("setxattr", errno));
        }
        if name.starts_with(WHITEOUT_META) {
            return Ok(());
        }
        let hidden = OsStr::from_bytes(&name[WHITEOUT.len()..]);
        if hidden.is_empty() || hidden == "." || hidden == ".." {
            return Err(Error::Whiteout { path: shown(&entry.path) });
        }
        let path = place.path.with_file_name(hidden);
        let hidden = Place { dir: place.dir, name: hidden, path: &path };
        let made = rustix::fs::mknodat(
            hidden.dir,
            hidden.name,
            FileType::CharacterDevice,
            Mode::empty(),
            rustix::fs::makedev(0, 0),
        );
        match made {
            Ok(()) => Ok(()),
            // It hides what is below, never what this layer itself brings.
            Err(Errno::EXIST) => match kind_at(&hidden).map_err(|errno| failed("stat", errno))? {
                Found::Dir => {
                    let fd = open_dir(&hidden).map_err(|errno| failed("open", errno))?;
                    set_opaque(&fd).map_err(|errno| failed("setxattr", errno))
                }
                Found::Whiteout | Found::Other => Ok(()),
            },
            Err(errno) => Err(failed("mknod", errno)),
        }
    }

    /// Runs `make`; when something is in the way, takes it away and runs it again.
    fn replace<T>(
        &mut self,
        place: &Place<'_>,
        make: impl Fn() -> std::result::Result<T, Errno>,
    ) -> Result<T> {
        match make() {
            Err(Errno::EXIST) => {}
            other => return other.map_err(|errno| failed("create", place.path, errno)),
        }
        if self.options.keep_kind {
            let found = kind_at(place).map_err(|errno| failed("stat", place.path, errno))?;
            if found == Found::Dir {
                return Err(Error::Overwrite { path: place.path.to_owned(), existing_dir: true });
            }
        }
        self.state.parent = None;
        self.state.replaced = true;
        remove_tree(place.dir, place.name).map_err(|errno| failed("remove", place.path, errno))?;
        make().map_err(|errno| failed("create", place.path, errno))
    }

    /// Owner before attributes and mode: chown(2) clears capabilities and setuid.
    fn attributes(&self, fd: &OwnedFd, entry: &Entry) -> std::result::Result<(), Errno> {
        let (uid, gid) = self.owner(entry);
        rustix::fs::fchown(fd, Some(uid), Some(gid))?;
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| is_allowed(name)) {
            tolerate(rustix::fs::fsetxattr(fd, &name[..], value, XattrFlags::empty()))?;
        }
        rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode))
    }

    /// The same for what can't be opened: links, devices, fifos.
    fn node_attributes(&self, place: &Place<'_>, entry: &Entry) -> std::result::Result<(), Errno> {
        let (uid, gid) = self.owner(entry);
        let link = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(place.dir, place.name, Some(uid), Some(gid), link)?;
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| is_allowed(name)) {
            tolerate(set_xattr_at(place.dir, place.name, &name[..], value))?;
        }
        if entry.kind != Kind::Symlink {
            set_mode(place, entry.mode)?;
        }
        rustix::fs::utimensat(place.dir, place.name, &timestamps(entry.mtime), link)
    }

    fn owner(&self, entry: &Entry) -> (Uid, Gid) {
        self.shifted(self.options.owner.unwrap_or((entry.uid, entry.gid)))
    }

    fn shifted(&self, (uid, gid): (u32, u32)) -> (Uid, Gid) {
        let offset = self.options.id_offset;
        (Uid::from_raw(uid.wrapping_add(offset)), Gid::from_raw(gid.wrapping_add(offset)))
    }

    /// In the archive's order, so that of two entries for one directory the later wins; one
    /// that was replaced meanwhile is not followed.
    fn restore_dir_times(&mut self) -> Result<()> {
        for (path, mtime) in &self.state.dir_times {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let fd = match self.root.open_in(path, flags, Mode::empty()) {
                Err(error) if matches!(error.errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                    continue;
                }
                other => other.map_err(|source| Error::Apply { path: path.clone(), source })?,
            };
            let set = rustix::fs::futimens(&fd, &timestamps(*mtime));
            set.map_err(|errno| failed("utimensat", path, errno))?;
        }
        Ok(())
    }

    /// The cleaned place of a name in the archive; names that climb out are refused.
    fn target(&self, name: &[u8]) -> Result<PathBuf> {
        let mut path = self.prefix.clone();
        let mut depth = 0u64;
        for part in name.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." if depth == 0 => return Err(escape(name)),
                b".." => {
                    path.pop();
                    depth -= 1;
                }
                _ => {
                    path.push(OsStr::from_bytes(part));
                    depth += 1;
                }
            }
        }
        if depth > self.limits.depth {
            let limit = self.limits.depth;
            return Err(Error::Limit { what: "directories above one another", limit });
        }
        Ok(path)
    }

    fn parent(&mut self, path: &Path) -> std::result::Result<Rc<OwnedFd>, Errno> {
        if let Some((last, fd)) = &self.state.parent
            && last == path
        {
            return Ok(Rc::clone(fd));
        }
        let opened =
            match self.root.open_in(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
                Err(error) if matches!(error.errno, Errno::NOENT | Errno::NOTDIR) => {
                    self.missing_dirs(path)?
                }
                other => other.map_err(|error| error.errno)?,
            };
        let fd = Rc::new(opened);
        self.state.parent = Some((path.to_owned(), Rc::clone(&fd)));
        Ok(fd)
    }

    /// Directories that the archive has no entry for belong to root and are 0755.
    fn missing_dirs(&self, path: &Path) -> std::result::Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let open = |path: &Path| {
            self.root.open_in(path, flags, Mode::empty()).map_err(|error| error.errno)
        };
        let mut done = PathBuf::new();
        let mut last = open(&done)?;
        for component in path.components() {
            let name = component.as_os_str();
            done.push(name);
            let place = Place { dir: last.as_fd(), name, path: &done };
            let next = match open(&done) {
                Err(Errno::NOENT) => self.missing_dir(&place, false)?,
                Err(Errno::NOTDIR) if self.layer && kind_at(&place)? == Found::Whiteout => {
                    rustix::fs::unlinkat(&last, name, AtFlags::empty())?;
                    self.missing_dir(&place, true)?
                }
                other => other?,
            };
            last = next;
        }
        Ok(last)
    }

    fn missing_dir(&self, place: &Place<'_>, opaque: bool) -> std::result::Result<OwnedFd, Errno> {
        rustix::fs::mkdirat(place.dir, place.name, Mode::RWXU)?;
        let fd = open_dir(place)?;
        let (uid, gid) = self.shifted(self.options.owner.unwrap_or_default());
        rustix::fs::fchown(&fd, Some(uid), Some(gid))?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755))?;
        if opaque {
            set_opaque(&fd)?;
        }
        Ok(fd)
    }
}

/// A whiteout has nothing below it; what aufs left below its own names is skipped.
fn below_whiteout(parent: &Path, entry: &Entry) -> Option<Result<()>> {
    let mut parts = parent.iter().map(OsStr::as_bytes);
    let part = parts.find(|part| part.starts_with(WHITEOUT))?;
    let relic = part.starts_with(WHITEOUT_META) && part != WHITEOUT_OPAQUE;
    Some(if relic { Ok(()) } else { Err(Error::Whiteout { path: shown(&entry.path) }) })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Dir,
    Whiteout,
    Other,
}

fn kind_at(place: &Place<'_>) -> std::result::Result<Found, Errno> {
    let stat = rustix::fs::statat(place.dir, place.name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Found::Dir,
        FileType::CharacterDevice if stat.st_rdev == 0 => Found::Whiteout,
        _ => Found::Other,
    })
}

fn open_dir(place: &Place<'_>) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(place.dir, place.name, flags, Mode::empty())
}

fn set_opaque(fd: impl AsFd) -> std::result::Result<(), Errno> {
    rustix::fs::fsetxattr(fd, OPAQUE, b"y", XattrFlags::empty())
}

/// chmod(2) follows links and fchmod(2) refuses `O_PATH`: our descriptor's own link
/// in /proc names exactly the node just made.
fn set_mode(place: &Place<'_>, mode: u32) -> std::result::Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(place.dir, place.name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Ok(());
    }
    rustix::fs::chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), Mode::from_raw_mode(mode))
}

/// A layer is to be flushed: the disk gets large files piece by piece while they come.
fn write_content<R: BufRead>(
    fd: &OwnedFd,
    reader: &mut Reader<R>,
    is_layer: bool,
    path: &Path,
) -> Result<()> {
    let (mut written, mut begun) = (0, 0);
    loop {
        let chunk = reader.fill()?;
        if chunk.is_empty() {
            return Ok(());
        }
        let n = rustix::io::retry_on_intr(|| rustix::io::write(fd, chunk))
            .map_err(|errno| failed("write", path, errno))?;
        reader.consume(n);
        written += n as u64;
        if is_layer && written - begun >= WRITEBACK {
            begin_writeback(fd, begun, written - begun);
            begun = written;
        }
    }
}

fn write_sparse<R: BufRead>(
    fd: &OwnedFd,
    map: &[(u64, u64)],
    reader: &mut Reader<R>,
    path: &Path,
) -> Result<()> {
    for (offset, length) in map {
        let (mut at, mut left) = (*offset, *length);
        while left > 0 {
            let chunk = reader.fill()?;
            let len = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let n = rustix::io::retry_on_intr(|| rustix::io::pwrite(fd, &chunk[..len], at))
                .map_err(|errno| failed("write", path, errno))?;
            reader.consume(n);
            (at, left) = (at + n as u64, left - n as u64);
        }
    }
    Ok(())
}

/// overlayfs takes its own attributes as orders, so only this program may set them.
fn is_allowed(xattr: &[u8]) -> bool {
    !xattr.starts_with(b"trusted.overlay.") && !xattr.starts_with(b"user.overlay.")
}

/// A file system that has no such attribute is no reason to refuse an image.
fn tolerate(set: std::result::Result<(), Errno>) -> std::result::Result<(), Errno> {
    match set {
        Err(Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}

fn timestamps(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.sec, tv_nsec: time.nsec.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn node_kind(kind: Kind) -> FileType {
    match kind {
        Kind::Char => FileType::CharacterDevice,
        Kind::Block => FileType::BlockDevice,
        _ => FileType::Fifo,
    }
}

fn verb(kind: Kind) -> &'static str {
    match kind {
        Kind::Symlink => "symlink",
        _ => "mknod",
    }
}

fn escape(path: &[u8]) -> Error {
    Error::Escape { path: shown(path) }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn failed(call: &'static str, path: &Path, errno: Errno) -> Error {
    let source = capsa_sys::Error::new(call, path.display(), errno);
    Error::Apply { path: path.to_owned(), source }
}
