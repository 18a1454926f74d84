//! Layers as overlayfs shows them together, without mounting: what each one adds,
//! changes and hides, and what is stored though nobody can see it.
//!
//! Every path of every layer is looked at once, lowest layer first. What is kept in
//! memory grows with the number of paths, not with their bytes. Layers are read by
//! name in open directories, links not followed, so none leads out of its layer.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use capsa_sys::root::RootDir;
use rustix::fs::{FileType, Mode, OFlags, Stat};

use crate::changes::is_opaque;
use crate::tree::{failed, is_whiteout, walk};
use crate::{ChangeKind, Error, Result};

const OVERLAY: &[u8] = b"trusted.overlay.";

/// What one layer does to those below it. A file is whatever is no directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerEffect {
    /// Files where nothing was.
    pub added: u64,
    /// Files in place of others.
    pub changed: u64,
    /// Files it takes out of sight.
    pub deleted: u64,
    /// Bytes of lower layers that nobody sees because of it.
    pub hidden_bytes: u64,
}

/// What lower layers hold under a path that nobody sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// Absolute.
    pub path: PathBuf,
    /// Bytes, of all lower layers.
    pub bytes: u64,
    /// How often it was replaced or deleted.
    pub times: u64,
}

/// A path that is not the same in two trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Absolute.
    pub path: PathBuf,
    /// From the first tree to the second.
    pub kind: ChangeKind,
    /// Bytes of the file in the first tree, 0 when it is none.
    pub before: u64,
    /// In the second.
    pub after: u64,
}

/// The tree that layers make together.
pub struct Merged {
    layers: Vec<RootDir>,
    effects: Vec<LayerEffect>,
    nodes: BTreeMap<PathBuf, Node>,
    hidden: HashMap<PathBuf, (u64, u64)>,
    /// Names still to be seen of files with several.
    links: HashMap<(u64, u64), u64>,
}

#[derive(Clone, Copy)]
struct Node {
    layer: usize,
    mode: u32,
    owner: (u32, u32),
    rdev: u64,
    size: u64,
    links: u64,
    /// Device and inode: which file it is on disk.
    place: (u64, u64),
}

impl Merged {
    /// Looks at `layers`, lowest first.
    ///
    /// # Errors
    /// When a tree can't be read.
    pub fn read(layers: Vec<RootDir>) -> Result<Self> {
        let mut merged = Self {
            layers: Vec::new(),
            effects: Vec::new(),
            nodes: BTreeMap::new(),
            hidden: HashMap::new(),
            links: HashMap::new(),
        };
        for layer in layers {
            merged.add(&layer)?;
            merged.layers.push(layer);
        }
        Ok(merged)
    }

    /// What each layer does, lowest first.
    pub fn effects(&self) -> &[LayerEffect] {
        &self.effects
    }

    /// Bytes of the files that can be seen, hard links once.
    pub fn visible_bytes(&self) -> u64 {
        let mut linked = HashSet::new();
        let counts = |node: &&Node| node.links <= 1 || linked.insert(node.place);
        self.nodes.values().filter(counts).map(|node| node.bytes()).sum()
    }

    /// The paths that hide most, at most `count`, largest first.
    pub fn most_hidden(&self, count: usize) -> Vec<Hidden> {
        let mut all: Vec<_> = self.hidden.iter().filter(|(_, (bytes, _))| *bytes > 0).collect();
        all.sort_unstable_by(|a, b| b.1.0.cmp(&a.1.0).then_with(|| a.0.cmp(b.0)));
        let shown = |(path, (bytes, times)): (&PathBuf, &(u64, u64))| Hidden {
            path: absolute(path),
            bytes: *bytes,
            times: *times,
        };
        all.into_iter().take(count).map(shown).collect()
    }

    /// What differs from here to `other`, sorted by path: kind, owner, mode, link target,
    /// device, extended attributes and content count, times don't.
    ///
    /// # Errors
    /// When a file can't be read.
    pub fn differences(&self, other: &Self) -> Result<Vec<Difference>> {
        let mut found = Vec::new();
        let mut note = |path: &Path, kind, before: Option<&Node>, after: Option<&Node>| {
            let bytes = |node: Option<&Node>| node.map_or(0, |node| node.bytes());
            let (before, after) = (bytes(before), bytes(after));
            found.push(Difference { path: absolute(path), kind, before, after });
        };
        for (path, node) in &self.nodes {
            match other.nodes.get(path) {
                None => note(path, ChangeKind::Deleted, Some(node), None),
                Some(after) if self.is_same(path, node, other, after)? => {}
                Some(after) => note(path, ChangeKind::Modified, Some(node), Some(after)),
            }
        }
        for (path, node) in &other.nodes {
            if !self.nodes.contains_key(path) {
                note(path, ChangeKind::Added, None, Some(node));
            }
        }
        found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    fn add(&mut self, layer: &RootDir) -> Result<()> {
        let number = self.effects.len();
        self.effects.push(LayerEffect::default());
        // What this layer hides, until it is known whether it also replaces it.
        let mut gone = BTreeMap::new();
        walk(layer, Path::new(""), &mut |visit| {
            if is_whiteout(&visit.stat) {
                self.take_below(visit.path, &mut gone);
                if let Some(node) = self.nodes.remove(visit.path) {
                    gone.insert(visit.path.to_owned(), node);
                }
                return Ok(());
            }
            let node = Node::new(number, &visit.stat);
            if !node.is_dir() || is_opaque(visit.dir, visit.name, visit.path)? {
                self.take_below(visit.path, &mut gone);
            }
            let before = self.nodes.insert(visit.path.to_owned(), node);
            let before = before.or_else(|| gone.remove(visit.path));
            self.count(number, &node, before.as_ref());
            if let Some(before) = before {
                self.hide(number, visit.path, &before);
            }
            Ok(())
        })?;
        for (path, node) in gone {
            if !node.is_dir() {
                self.effects[number].deleted += 1;
            }
            self.hide(number, &path, &node);
        }
        Ok(())
    }

    fn take_below(&mut self, path: &Path, gone: &mut BTreeMap<PathBuf, Node>) {
        let after = (Bound::Excluded(path), Bound::Unbounded);
        let below = self.nodes.range::<Path, _>(after).map(|(below, _)| below);
        let below: Vec<PathBuf> = below.take_while(|p| p.starts_with(path)).cloned().collect();
        for path in below {
            if let Some(node) = self.nodes.remove(&path) {
                gone.insert(path, node);
            }
        }
    }

    fn count(&mut self, layer: usize, node: &Node, before: Option<&Node>) {
        let effect = &mut self.effects[layer];
        match before {
            None if !node.is_dir() => effect.added += 1,
            Some(_) if !node.is_dir() => effect.changed += 1,
            Some(before) if !before.is_dir() => effect.deleted += 1,
            _ => {}
        }
    }

    /// A file with several names is hidden with the last of them.
    fn hide(&mut self, layer: usize, path: &Path, node: &Node) {
        if node.is_dir() {
            return;
        }
        if node.links > 1 {
            let left = self.links.entry(node.place).or_insert(node.links);
            *left = left.saturating_sub(1);
            if *left > 0 {
                return;
            }
        }
        self.effects[layer].hidden_bytes += node.bytes();
        let (bytes, times) = self.hidden.entry(path.to_owned()).or_default();
        (*bytes, *times) = (*bytes + node.bytes(), *times + 1);
    }

    fn is_same(&self, path: &Path, node: &Node, other: &Self, after: &Node) -> Result<bool> {
        if node.place == after.place {
            return Ok(true);
        }
        let own = |node: &Node| (node.mode, node.owner, node.rdev, node.bytes());
        if own(node) != own(after) {
            return Ok(false);
        }
        let (a, b) = (&self.layers[node.layer], &other.layers[after.layer]);
        let same_content = match node.kind() {
            FileType::RegularFile => is_same_content(a, b, path)?,
            FileType::Symlink => link(a, path)? == link(b, path)?,
            _ => true,
        };
        Ok(same_content && attributes(a, path)? == attributes(b, path)?)
    }
}

impl std::fmt::Debug for Merged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Merged").field("paths", &self.nodes.len()).finish_non_exhaustive()
    }
}

impl Node {
    fn new(layer: usize, stat: &Stat) -> Self {
        Self {
            layer,
            mode: stat.st_mode,
            owner: (stat.st_uid, stat.st_gid),
            rdev: stat.st_rdev,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            #[allow(clippy::useless_conversion, reason = "its width depends on the machine")]
            links: stat.st_nlink.into(),
            place: (stat.st_dev, stat.st_ino),
        }
    }

    fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    fn is_dir(&self) -> bool {
        self.kind() == FileType::Directory
    }

    /// As a layer's size is counted: regular files only.
    fn bytes(&self) -> u64 {
        if self.kind() == FileType::RegularFile { self.size } else { 0 }
    }
}

fn absolute(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}

fn is_same_content(a: &RootDir, b: &RootDir, path: &Path) -> Result<bool> {
    let (mut a, mut b) = (open(a, path)?, open(b, path)?);
    let (mut one, mut two) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let n = fill(&mut a, &mut one, path)?;
        if fill(&mut b, &mut two, path)? != n || one[..n] != two[..n] {
            return Ok(false);
        }
        if n == 0 {
            return Ok(true);
        }
    }
}

fn open(root: &RootDir, path: &Path) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let fd = root.open_in(path, flags, Mode::empty());
    fd.map(File::from).map_err(|source| Error::Tree { path: path.to_owned(), source })
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8], path: &Path) -> Result<usize> {
    let mut at = 0;
    while at < buffer.len() {
        match file.read(&mut buffer[at..]) {
            Ok(0) => break,
            Ok(n) => at += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                let errno = rustix::io::Errno::from_io_error(&error);
                return Err(failed("read", path, errno.unwrap_or(rustix::io::Errno::IO)));
            }
        }
    }
    Ok(at)
}

fn link(root: &RootDir, path: &Path) -> Result<PathBuf> {
    root.read_link(path).map_err(|source| Error::Tree { path: path.to_owned(), source })
}

/// Extended attributes but overlayfs' own, which say how a layer is stored.
fn attributes(root: &RootDir, path: &Path) -> Result<Vec<(std::ffi::CString, Vec<u8>)>> {
    let all = root.xattrs(path);
    let mut all = all.map_err(|source| Error::Tree { path: path.to_owned(), source })?;
    all.retain(|(name, _)| !name.as_bytes().starts_with(OVERLAY));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{Entry, Kind, Writer};
    use crate::{Limits, apply, disk_size};

    /// A layer of files; a `None` is a whiteout, a path with a slash at its end an opaque
    /// directory.
    fn layer(dir: &Path, files: &[(&str, Option<&[u8]>)]) -> RootDir {
        let mut writer = Writer::new(Vec::new());
        for (path, content) in files {
            let (path, content) = match (path.strip_suffix('/'), content) {
                (Some(dir), _) => (format!("{dir}/.wh..wh..opq"), &b""[..]),
                (None, Some(content)) => ((*path).to_owned(), *content),
                (None, None) => {
                    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
                    (format!("{dir}/.wh.{name}"), &b""[..])
                }
            };
            let mut entry = Entry::new(path.trim_start_matches('/'), Kind::File, 0o644);
            entry.size = content.len() as u64;
            writer.entry(&entry, &mut &content[..]).unwrap();
        }
        let tar = writer.finish().unwrap();
        std::fs::create_dir(dir).unwrap();
        let root = RootDir::open(dir).unwrap();
        apply(&tar[..], &root, &Limits::default()).unwrap();
        root
    }

    fn effect(added: u64, changed: u64, deleted: u64, hidden_bytes: u64) -> LayerEffect {
        LayerEffect { added, changed, deleted, hidden_bytes }
    }

    #[test]
    fn every_layer_tells_what_it_does_to_those_below() {
        let dir = tempfile::tempdir().unwrap();
        let base: &[(&str, Option<&[u8]>)] = &[
            ("a/one", Some(b"1234")),
            ("a/two", Some(b"12345678")),
            ("a-b", Some(b"x")),
            ("d/x", Some(b"123")),
            ("d/y", Some(b"12")),
        ];
        let layers = [
            layer(&dir.path().join("0"), base),
            layer(
                &dir.path().join("1"),
                &[("a/one", Some(b"12")), ("d/", None), ("d/y", Some(b"1"))],
            ),
            layer(&dir.path().join("2"), &[("a", None), ("new", Some(b"12345"))]),
            layer(&dir.path().join("3"), &[("a/one", Some(b"12345"))]),
        ];
        let disk: u64 = layers.iter().map(|layer| disk_size(layer).unwrap()).sum();
        let merged = Merged::read(layers.into()).unwrap();
        assert_eq!(
            merged.effects(),
            [effect(5, 0, 0, 0), effect(0, 2, 1, 9), effect(1, 0, 2, 10), effect(1, 0, 0, 0)]
        );
        let hidden: u64 = merged.effects().iter().map(|effect| effect.hidden_bytes).sum();
        assert_eq!(merged.visible_bytes() + hidden, disk);
        let largest = merged.most_hidden(3);
        let largest: Vec<_> =
            largest.iter().map(|h| (h.path.to_str().unwrap(), h.bytes, h.times)).collect();
        assert_eq!(largest, [("/a/two", 8, 1), ("/a/one", 6, 2), ("/d/x", 3, 1)]);
    }

    #[test]
    fn a_file_with_two_names_is_hidden_with_the_second() {
        let dir = tempfile::tempdir().unwrap();
        let base = layer(&dir.path().join("0"), &[("one", Some(b"1234"))]);
        std::fs::hard_link(dir.path().join("0/one"), dir.path().join("0/two")).unwrap();
        let first = layer(&dir.path().join("1"), &[("one", None)]);
        let second = layer(&dir.path().join("2"), &[("two", None)]);
        let merged = Merged::read(vec![base, first, second]).unwrap();
        assert_eq!(merged.effects(), [effect(2, 0, 0, 0), effect(0, 0, 1, 0), effect(0, 0, 1, 4)]);
        assert_eq!(merged.visible_bytes(), 0);
    }

    #[test]
    fn trees_are_compared_by_what_they_hold() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        let both: (&str, Option<&[u8]>) = ("same", Some(b"same"));
        let one = layer(&place("0"), &[both, ("bytes", Some(b"12")), ("gone", Some(b"123"))]);
        let two = layer(&place("1"), &[both, ("bytes", Some(b"13")), ("d/new", Some(b"1"))]);
        std::os::unix::fs::symlink("/etc", place("0/link")).unwrap();
        std::os::unix::fs::symlink("/usr", place("1/link")).unwrap();
        let (one, two) = (Merged::read(vec![one]).unwrap(), Merged::read(vec![two]).unwrap());
        let found = one.differences(&two).unwrap();
        let found: Vec<_> =
            found.iter().map(|d| (d.path.to_str().unwrap(), d.kind, d.before, d.after)).collect();
        assert_eq!(
            found,
            [
                ("/bytes", ChangeKind::Modified, 2, 2),
                ("/d", ChangeKind::Added, 0, 0),
                ("/d/new", ChangeKind::Added, 0, 1),
                ("/gone", ChangeKind::Deleted, 3, 0),
                ("/link", ChangeKind::Modified, 0, 0),
            ]
        );
        assert!(one.differences(&one).unwrap().is_empty());
    }
}
