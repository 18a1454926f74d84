//! What the tests share: roots to unpack into, archives in memory, a spool on disk.
#![allow(dead_code, reason = "each test program uses a part")]

use std::fs;
use std::io::{BufReader, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use capsa_image::archive::Spool;
use capsa_image::tar::{Entry, Kind, Writer};
use capsa_image::{Applied, Error, Limits, Result, apply};
use capsa_oci::Digest;
use capsa_sys::root::RootDir;

/// A directory with a canary beside the root.
pub struct World {
    pub dir: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/canary"), "alive").unwrap();
        Self { dir }
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("root").join(name)
    }

    pub fn root(&self) -> RootDir {
        RootDir::open(&self.path("")).unwrap()
    }

    pub fn apply(&self, tar: &[u8]) -> Result<Applied> {
        apply(BufReader::with_capacity(700, tar), &self.root(), &Limits::default())
    }

    pub fn assert_canary(&self) {
        let outside = self.dir.path().join("outside");
        let names: Vec<_> =
            fs::read_dir(&outside).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["canary"]);
        let canary = outside.join("canary");
        assert_eq!(fs::read_to_string(&canary).unwrap(), "alive");
        assert_eq!(fs::metadata(canary).unwrap().nlink(), 1);
        let names = fs::read_dir(self.dir.path()).unwrap().count();
        assert_eq!(names, 2, "something was made beside the root");
    }
}

/// A tar of these entries, files with their content.
pub fn tar(entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        let mut entry = entry.clone();
        if entry.kind == Kind::File && entry.sparse.is_none() {
            entry.size = content.len() as u64;
        }
        writer.entry(&entry, &mut &content[..]).unwrap();
    }
    writer.finish().unwrap()
}

pub fn file<'a>(path: &str, content: &'a [u8]) -> (Entry, &'a [u8]) {
    (Entry::new(path, Kind::File, 0o644), content)
}

pub fn dir(path: &str) -> (Entry, &'static [u8]) {
    (Entry::new(path, Kind::Dir, 0o755), b"")
}

pub fn link(kind: Kind, path: &str, target: &str) -> (Entry, &'static [u8]) {
    let mut entry = Entry::new(path, kind, 0o777);
    entry.link = target.into();
    (entry, b"")
}

pub fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0)
}

pub fn is_opaque(root: &RootDir, path: &str) -> bool {
    let wanted = (c"trusted.overlay.opaque".to_owned(), b"y".to_vec());
    root.xattrs(Path::new(path)).unwrap().contains(&wanted)
}

/// Files named by digest in a directory.
pub struct DirSpool(pub tempfile::TempDir);

impl DirSpool {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Spool for DirSpool {
    fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(fs::metadata(self.0.path().join(digest.hex())).ok().map(|m| m.len()))
    }

    fn put(&self, content: &mut dyn Read) -> Result<(Digest, u64)> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).map_err(Error::Read)?;
        let digest = Digest::sha256(&bytes);
        fs::write(self.0.path().join(digest.hex()), &bytes).map_err(Error::Write)?;
        Ok((digest, bytes.len() as u64))
    }

    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + Send + '_>> {
        let file = fs::File::open(self.0.path().join(digest.hex()));
        Ok(Box::new(file.map_err(|error| Error::end("open blob", error))?))
    }
}
