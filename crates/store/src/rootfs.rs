//! The directories of containers and volumes: made ahead, taken away by a rename.
//!
//! `containers/<id>` holds `rootfs/upper` and `rootfs/work` (one directory for both,
//! so that one idmapped clone covers them) and whatever files the engine and the
//! monitor keep there. Neither call touches the tables: a container's row is inserted
//! before its directory is made and removed after it, and a directory without a row
//! is trash at the next open.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use capsa_sys::atomic::{self, Durability};

use crate::{Error, Result, Store, fault, trash};

impl Store {
    /// Makes `containers/<id>` with an empty `rootfs/upper` (mode 0755) and
    /// `rootfs/work`, and returns it. Not flushed: an empty directory that a power cut
    /// takes away is made again.
    ///
    /// # Errors
    /// `BadName`, or when it exists or can't be made.
    pub fn make_rootfs(&self, id: &str) -> Result<PathBuf> {
        let place = self.inner.layout.container(id)?;
        fault::point(&place)?;
        let made = match self.inner.trash.spare() {
            Some(spare) => spare,
            None => {
                let path = self.inner.layout.ingests().join(trash::unique());
                trash::make_rootfs_tree(&path)?;
                path
            }
        };
        if let Err(e) = atomic::publish(&made, &place, Durability::Process) {
            self.inner.trash.delete(made);
            return Err(e.into());
        }
        fault::point(&place)?;
        Ok(place)
    }

    /// The directory of a container, made or not.
    ///
    /// # Errors
    /// `BadName`.
    pub fn container_dir(&self, id: &str) -> Result<PathBuf> {
        self.inner.layout.container(id)
    }

    /// Takes a container's directory away; its tree is deleted in the background.
    /// Nothing to remove is fine.
    ///
    /// # Errors
    /// `BadName`, or when it can't be renamed.
    pub fn remove_rootfs(&self, id: &str) -> Result<()> {
        let place = self.inner.layout.container(id)?;
        fault::point(&place)?;
        self.inner.trash.take(&place)
    }

    /// Bytes a container has written: the files in its upper directory.
    ///
    /// # Errors
    /// `BadName`, or when a directory can't be read.
    pub fn rootfs_size(&self, id: &str) -> Result<u64> {
        file_bytes(&self.inner.layout.container(id)?.join("rootfs/upper"))
    }

    /// Waits until everything taken away so far is deleted.
    ///
    /// # Errors
    /// The first failure in the background since the last call; what could not be
    /// deleted is tried again at the next open.
    pub fn flush_trash(&self) -> Result<()> {
        self.inner.trash.flush()
    }
}

/// Bytes of the regular files of a tree, as layers count theirs: each hard-linked file
/// once; what vanishes meanwhile counts nothing.
pub(crate) fn file_bytes(dir: &Path) -> Result<u64> {
    let mut linked = HashSet::new();
    let mut bytes = 0;
    let mut pending = vec![dir.to_owned()];
    while let Some(dir) = pending.pop() {
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::io("list", &dir, e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| Error::io("list", &dir, e))?;
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                pending.push(entry.path());
            } else if meta.is_file()
                && (meta.nlink() <= 1 || linked.insert((meta.dev(), meta.ino())))
            {
                bytes += meta.len();
            }
        }
    }
    Ok(bytes)
}
