//! A directory tree as lines, to be compared with what another program made of the same
//! layers.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// What each name below `root` is: kind and mode, owner, device, content or link target,
/// the first name of the same file, and extended attributes.
///
/// # Panics
/// When it can't be read.
pub fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut paths = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            }
            paths.push(entry.path());
        }
    }
    paths.sort();
    let mut first = HashMap::new();
    let line = |path: PathBuf| {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().to_owned();
        let known = first.entry(meta.ino()).or_insert_with(|| name.clone());
        let content = if meta.is_file() {
            format!("{:x?}", Sha256::digest(fs::read(&path).unwrap()))
        } else if meta.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else {
            String::new()
        };
        let (mode, owner) = (meta.mode(), (meta.uid(), meta.gid()));
        let (device, same) = (meta.rdev(), known.display());
        let xattrs = xattrs(&path);
        (name, format!("{mode:o} {owner:?} {device} {content} is {same} {xattrs}"))
    };
    paths.into_iter().map(line).collect()
}

fn xattrs(path: &Path) -> String {
    let mut names = vec![0; 4096];
    let len = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap();
    let mut lines = Vec::new();
    for name in names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 4096];
        let len = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).unwrap();
        lines.push(format!("{}={}", name.escape_ascii(), value[..len].escape_ascii()));
    }
    lines.sort();
    lines.join(" ")
}
