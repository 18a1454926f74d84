//! Files of a container from outside: copy in and out, export, and what differs.
//!
//! Reading sees the layers and the writable top as one tree, whether the container
//! runs or not, and volumes where they are mounted. Writing into a running container
//! goes through its own root, so that it sees what was written; into a stopped one
//! through an overlay of its own.

use std::ffi::OsStr;
use std::io::{self, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use capsa_image::{Limits, UnpackOptions};
use capsa_sys::mount::with_fs_ids;
use capsa_sys::root::RootDir;
use rustix::fs::{FileType, Stat};
use tokio::sync::mpsc;

use super::fs_view;
use super::record::{MountSource, Record};
use crate::view::{ByteSource, ByteStream, ChangeKind, PathStat, Phase};
use crate::world::World;
use crate::{Error, Result};

/// Chunks that may wait for the client.
const AHEAD: usize = 8;
/// Bytes of one chunk.
const CHUNK: usize = 128 * 1024;

/// How a copy into a container treats what is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Put {
    /// Refuse to replace a directory by another kind of file and the reverse.
    pub no_overwrite_dir_non_dir: bool,
    /// Give everything to the container's user, where one was configured.
    pub copy_owner: bool,
}

/// A tree and a path in it.
struct Place {
    root: RootDir,
    path: PathBuf,
}

/// What the container changed of its image.
pub(crate) fn changes(world: &World, record: &Record) -> Result<Vec<(ChangeKind, String)>> {
    let upper = RootDir::open(&rootfs(world, record)?.join("upper"))?;
    let mut lowers = Vec::new();
    for layer in world.lowers(record)? {
        lowers.push(RootDir::open(&layer)?);
    }
    let found = capsa_image::changes(&upper, &lowers).map_err(tree_error)?;
    Ok(found.into_iter().map(|(path, kind)| (change(kind), path.display().to_string())).collect())
}

/// The whole tree as a tar, without volumes, as in Docker.
pub(crate) fn export(world: &World, record: &Record) -> Result<ByteStream> {
    let root = tree(world, record)?;
    Ok(stream(move |out| {
        capsa_image::pack(&root, Path::new(""), out).map(drop).map_err(io::Error::other)
    }))
}

/// Describes a path.
pub(crate) fn stat(world: &World, record: &Record, path: &str) -> Result<PathStat> {
    let place = find(world, record, path)?;
    described(&place, record, path)
}

/// A path and everything below it as a tar.
pub(crate) fn get(world: &World, record: &Record, path: &str) -> Result<(PathStat, ByteStream)> {
    let place = find(world, record, path)?;
    let stat = described(&place, record, path)?;
    let name = if stat.name == "/" { ".".to_owned() } else { stat.name.clone() };
    let bytes = stream(move |out| {
        capsa_image::pack_as(&place.root, &place.path, OsStr::new(&name), out)
            .map(drop)
            .map_err(io::Error::other)
    });
    Ok((stat, bytes))
}

/// Unpacks a tar into the directory `path`.
pub(crate) fn put(
    world: &World,
    record: &Record,
    path: &str,
    tar: ByteSource,
    how: Put,
) -> Result<()> {
    let running = matches!(record.live.phase, Phase::Running | Phase::Paused);
    let (place, offset) = if running {
        let root = RootDir::open(Path::new(&format!("/proc/{}/root", record.live.pid)))?;
        (Place { root, path: relative(path) }, record.id_range.unwrap_or(0))
    } else {
        (writable(world, record, path)?, 0)
    };
    check_target(&place, record, path)?;
    // As in Docker: without a configured user the archive's owners stay.
    let has_user = !record.resolved.user.is_empty();
    let owner = if how.copy_owner && has_user { Some(owner(world, record)?) } else { None };
    let options =
        UnpackOptions { owner, keep_kind: how.no_overwrite_dir_non_dir, id_offset: offset };
    let limits = Limits::default();
    let (_, plain) = capsa_image::decompress(tar, &limits).map_err(bad_archive)?;
    let unpack = || {
        let tar = BufReader::new(plain);
        capsa_image::unpack_into(tar, &place.root, &place.path, options, &limits).map(drop)
    };
    if offset == 0 {
        return unpack().map_err(bad_archive);
    }
    // The running container's overlay only lets ids of its own range make files.
    with_fs_ids(offset, offset, || Ok(unpack()))?.map_err(bad_archive)
}

fn check_target(place: &Place, record: &Record, path: &str) -> Result<()> {
    let stat = place.root.stat(&place.path).map_err(|_| missing(record, path))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(Error::invalid(format!("extraction point is not a directory: {path}")));
    }
    let read_only_mount = mount_at(record, path).is_some_and(|(mount, _)| !mount.view.read_write);
    if read_only_mount
        || (record.spec.security.read_only_rootfs && mount_at(record, path).is_none())
    {
        return Err(Error::new(crate::Class::Denied, "container rootfs is marked read-only"));
    }
    Ok(())
}

/// The ids of the container's user.
fn owner(world: &World, record: &Record) -> Result<(u32, u32)> {
    let gathered = super::spec_inputs::identity(world, record)?;
    Ok((gathered.uid, gathered.gid))
}

/// The tree and path to read `path` from: a volume's where one is mounted.
fn find(world: &World, record: &Record, path: &str) -> Result<Place> {
    if let Some((mount, rest)) = mount_at(record, path) {
        return mounted(&mount.view.source, rest);
    }
    Ok(Place { root: tree(world, record)?, path: relative(path) })
}

fn writable(world: &World, record: &Record, path: &str) -> Result<Place> {
    if let Some((mount, rest)) = mount_at(record, path) {
        return mounted(&mount.view.source, rest);
    }
    let layers = world.lowers(record)?;
    let root = fs_view::writable(&rootfs(world, record)?, &layers)?;
    Ok(Place { root, path: relative(path) })
}

/// A bind's source may be a file: then its directory is the tree.
fn mounted(source: &str, rest: PathBuf) -> Result<Place> {
    let source = Path::new(source);
    match (source.is_dir(), source.parent(), source.file_name()) {
        (false, Some(parent), Some(name)) => {
            Ok(Place { root: RootDir::open(parent)?, path: PathBuf::from(name) })
        }
        _ => Ok(Place { root: RootDir::open(source)?, path: rest }),
    }
}

/// The innermost bind or volume that `path` lies in, and the path inside it.
fn mount_at<'a>(record: &'a Record, path: &str) -> Option<(&'a super::record::Mount, PathBuf)> {
    let path = super::mounts::clean(path);
    let inside = |mount: &super::record::Mount| {
        Path::new(&path).strip_prefix(&mount.view.target).ok().map(Path::to_owned)
    };
    record
        .mounts
        .iter()
        .filter(|mount| matches!(mount.kind, MountSource::Bind { .. }))
        .filter_map(|mount| inside(mount).map(|rest| (mount, rest)))
        .max_by_key(|(mount, _)| mount.view.target.len())
}

fn tree(world: &World, record: &Record) -> Result<RootDir> {
    let upper = rootfs(world, record)?.join("upper");
    let mut stack = vec![upper];
    stack.extend(world.lowers(record)?);
    fs_view::read_only(&stack)
}

fn rootfs(world: &World, record: &Record) -> Result<PathBuf> {
    Ok(world.store.container_dir(&record.id)?.join("rootfs"))
}

fn described(place: &Place, record: &Record, path: &str) -> Result<PathStat> {
    let stat = place.root.lstat(&place.path).map_err(|_| missing(record, path))?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let link_target = if kind == FileType::Symlink {
        let target = place.root.read_link(&place.path)?;
        let base = Path::new(path).parent().unwrap_or(Path::new("/"));
        super::mounts::clean(&resolved(base, &target).display().to_string())
    } else {
        String::new()
    };
    let name = Path::new(path).file_name().map_or_else(|| "/".into(), OsStr::to_string_lossy);
    Ok(PathStat {
        name: name.into_owned(),
        size: stat.st_size,
        mode: stat.st_mode,
        mtime_ns: mtime_ns(&stat),
        link_target,
    })
}

/// `target` seen from `base`, with `..` taken away by name.
fn resolved(base: &Path, target: &Path) -> PathBuf {
    let mut path = PathBuf::from("/");
    for part in base.join(target).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    path
}

fn mtime_ns(stat: &Stat) -> i64 {
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

/// Relative to the tree; a trailing slash (follow a link) is kept.
fn relative(path: &str) -> PathBuf {
    let trimmed = path.trim_start_matches('/');
    let bytes = if trimmed.is_empty() { b"." } else { trimmed.as_bytes() };
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// Runs a blocking writer whose bytes are the stream; it ends when the client leaves.
pub(crate) fn stream(
    write: impl FnOnce(&mut Chunks) -> io::Result<()> + Send + 'static,
) -> ByteStream {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut chunks = Chunks { sender, buffer: Vec::with_capacity(CHUNK) };
        let written = write(&mut chunks).and_then(|()| chunks.flush());
        if let Err(error) = written {
            // A client that has left needs no answer.
            let _ = chunks.sender.blocking_send(Err(error));
        }
    });
    receiver
}

/// Collects small writes into chunks for a channel.
pub(crate) struct Chunks {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > CHUNK {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        let sent = self.sender.blocking_send(Ok(Bytes::from(full)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

fn change(kind: capsa_image::ChangeKind) -> ChangeKind {
    match kind {
        capsa_image::ChangeKind::Modified => ChangeKind::Modified,
        capsa_image::ChangeKind::Added => ChangeKind::Added,
        capsa_image::ChangeKind::Deleted => ChangeKind::Deleted,
    }
}

fn missing(record: &Record, path: &str) -> Error {
    Error::not_found(format!("Could not find the file {path} in container {}", record.id))
}

fn tree_error(error: capsa_image::Error) -> Error {
    Error::kernel(error.to_string())
}

fn bad_archive(error: capsa_image::Error) -> Error {
    Error::invalid(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_resolved_by_name_and_never_above_the_root() {
        let at = |base: &str, target: &str| {
            resolved(Path::new(base), Path::new(target)).display().to_string()
        };
        assert_eq!(at("/a/b", "../c"), "/a/c");
        assert_eq!(at("/a", "/x/./y"), "/x/y");
        assert_eq!(at("/", "../../etc"), "/etc");
    }

    #[test]
    fn paths_are_relative_to_their_tree() {
        assert_eq!(relative("/"), Path::new("."));
        assert_eq!(relative("//a/b/").as_os_str(), "a/b/");
    }
}
