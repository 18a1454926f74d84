//! Volumes: directories of users' data, so the one thing that is never guessed away.
//!
//! A volume's directory is made before its row and renamed away between two
//! transactions: "it is on its way out" and "it is gone". Only a row so marked is
//! finished off at open; a directory without a row is left alone, unless it is as empty
//! as a crash leaves it that comes before the row.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use capsa_sys::atomic::{self, Durability};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::db::Writer;
use crate::error::Kind;
use crate::image::strings;
use crate::{Error, Result, Store, fault, layout, rootfs, trash};

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRow {
    /// Unique.
    pub name: String,
    /// Nanoseconds since 1970.
    pub created_ns: i64,
    /// The caller's versioned record.
    pub body: String,
}

/// What a volume shall begin with, on its way into it; removed in the background when
/// dropped uncommitted.
pub struct VolumeIngest {
    store: Store,
    path: PathBuf,
}

impl VolumeIngest {
    /// An empty directory, mode 0755, to fill; its own mode and owner go with it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the directory in the place of the volume's empty one, in one step; one that
    /// holds something by now stays. False, and nothing done, when a container keeps the
    /// volume: it may have the empty directory mounted.
    ///
    /// # Errors
    /// `BadName`, or when the rename or the database fails.
    pub fn commit(self, volume: &str) -> Result<bool> {
        let place = self.store.volume_dir(volume)?;
        let writer = self.store.inner.db.lock();
        if !writer.read(|db| strings(db, USERS, volume))?.is_empty() {
            return Ok(false);
        }
        fault::point(&place)?;
        match fs::rename(&self.path, &place) {
            Err(e) if e.kind() != io::ErrorKind::DirectoryNotEmpty => {
                Err(Error::io("rename", &place, e))
            }
            _ => Ok(true),
        }
    }
}

impl Drop for VolumeIngest {
    fn drop(&mut self) {
        // After a commit the name is gone.
        if fs::symlink_metadata(&self.path).is_ok() {
            self.store.inner.trash.delete(self.path.clone());
        }
    }
}

impl Store {
    /// Begins what a new volume shall hold.
    ///
    /// # Errors
    /// When the directory can't be made.
    pub fn begin_volume_data(&self) -> Result<VolumeIngest> {
        let path = self.inner.layout.ingests().join(trash::unique());
        fault::point(&path)?;
        layout::make_dir_mode(&path, 0o755)?;
        Ok(VolumeIngest { store: self.clone(), path })
    }

    /// Makes a volume with an empty `_data` (mode 0755), or finds the one of that name;
    /// tells whether it was made. The row of one that exists is not changed.
    ///
    /// # Errors
    /// `BadName`, or a failure.
    pub fn make_volume(&self, row: &VolumeRow, durability: Durability) -> Result<bool> {
        let dir = self.inner.layout.volume(&row.name)?;
        let mut writer = self.inner.db.lock();
        match removing(&writer, &row.name)? {
            Some(false) => return Ok(false),
            Some(true) => self.finish_removal(&mut writer, &row.name)?,
            None => {}
        }
        fault::point(&dir)?;
        layout::make_dir(&dir)?;
        let data = dir.join("_data");
        match layout::make_dir_mode(&data, 0o755) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        if durability == Durability::Durable {
            atomic::sync_dir(&dir)?;
            atomic::sync_dir(&self.inner.layout.root().join("volumes"))?;
        }
        fault::point(&dir)?;
        writer.write(durability, |db| {
            db.execute(
                "INSERT INTO volumes (name, created_ns, body) VALUES (?1, ?2, ?3)",
                (&row.name, row.created_ns, &row.body),
            )?;
            Ok(true)
        })
    }

    /// Where the data of a volume lies: `volumes/<name>/_data`.
    ///
    /// # Errors
    /// `BadName`.
    pub fn volume_dir(&self, name: &str) -> Result<PathBuf> {
        Ok(self.inner.layout.volume(name)?.join("_data"))
    }

    /// The volume of this name.
    ///
    /// # Errors
    /// When the database fails.
    pub fn volume(&self, name: &str) -> Result<Option<VolumeRow>> {
        self.inner.db.read(|db| {
            db.prepare_cached(
                "SELECT name, created_ns, body FROM volumes WHERE name = ?1 AND removing = 0",
            )?
            .query_row([name], from_row)
            .optional()
            .map_err(Error::from)
        })
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub fn volumes(&self) -> Result<Vec<VolumeRow>> {
        self.inner.db.read(|db| {
            let mut query = db.prepare_cached(
                "SELECT name, created_ns, body FROM volumes WHERE removing = 0 ORDER BY name",
            )?;
            let rows = query.query_map([], from_row)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Ids of the containers that keep a volume.
    ///
    /// # Errors
    /// When the database fails.
    pub fn containers_of_volume(&self, name: &str) -> Result<Vec<String>> {
        self.inner.db.read(|db| strings(db, USERS, name))
    }

    /// Bytes a volume takes on disk.
    ///
    /// # Errors
    /// `BadName`, or when a directory can't be read.
    pub fn volume_size(&self, name: &str) -> Result<u64> {
        rootfs::file_bytes(&self.volume_dir(name)?)
    }

    /// Removes a volume and its data; false if there is none.
    ///
    /// # Errors
    /// `InUse` with the ids of the containers that keep it.
    pub fn remove_volume(&self, name: &str) -> Result<bool> {
        let mut writer = self.inner.db.lock();
        let known = writer.write(Durability::Durable, |db| {
            let by = strings(db, USERS, name)?;
            if !by.is_empty() {
                return Err(Error::InUse { kind: Kind::Volume, key: name.to_owned(), by });
            }
            mark(db, name)
        })?;
        if known {
            self.finish_removal(&mut writer, name)?;
        }
        Ok(known)
    }

    /// Removes a container's row as [`Store::remove_container`] does, and marks in the
    /// same step those of `volumes` that no other container keeps: nobody sees them from
    /// then on, and [`Store::finish_volume_removals`] takes their data. Returns them.
    ///
    /// # Errors
    /// When the database fails.
    pub fn remove_container_with_volumes(
        &self,
        id: &str,
        volumes: &[String],
        durability: Durability,
    ) -> Result<Vec<String>> {
        // Data is never gone before it is for good that it shall go.
        let durability = if volumes.is_empty() { durability } else { Durability::Durable };
        self.write(durability, |db| {
            db.prepare_cached("DELETE FROM containers WHERE id = ?1")?.execute([id])?;
            let mut marked = Vec::new();
            for name in volumes {
                if strings(db, USERS, name)?.is_empty() && mark(db, name)? {
                    marked.push(name.clone());
                }
            }
            Ok(marked)
        })
    }

    /// Takes the data of every volume that is on its way out.
    ///
    /// # Errors
    /// When a directory can't be renamed or the database fails; the next open tries again.
    pub fn finish_volume_removals(&self) -> Result<()> {
        let mut writer = self.inner.db.lock();
        let names = writer
            .read(|db| strings(db, "SELECT name FROM volumes WHERE removing = 1 AND ?1", "1"))?;
        names.iter().try_for_each(|name| self.finish_removal(&mut writer, name))
    }

    /// Removes the directories whose row was never written. One with anything in it is
    /// somebody's data.
    pub(crate) fn drop_unborn_volumes(&self) -> Result<()> {
        let dir = self.inner.layout.root().join("volumes");
        let known = self.keys("SELECT name FROM volumes")?;
        for name in layout::names_in(&dir)?.into_iter().filter(|name| !known.contains(name)) {
            let unborn = dir.join(name);
            // Both refuse what is not empty, rmdir(2).
            let _ = fs::remove_dir(unborn.join("_data"));
            let _ = fs::remove_dir(unborn);
        }
        Ok(())
    }

    fn finish_removal(&self, writer: &mut Writer, name: &str) -> Result<()> {
        let dir = self.inner.layout.volume(name)?;
        fault::point(&dir)?;
        if fs::symlink_metadata(&dir).is_ok() {
            self.inner.trash.take(&dir)?;
            // The name must be gone for good before the row that says so.
            atomic::sync_dir(&self.inner.layout.root().join("volumes"))?;
        }
        fault::point(&dir)?;
        writer.write(Durability::Process, |db| {
            db.execute("DELETE FROM volumes WHERE name = ?1 AND removing = 1", [name])?;
            Ok(())
        })
    }
}

const USERS: &str = "SELECT container FROM container_volumes WHERE volume = ?1 ORDER BY container";

/// Says that a volume is on its way out; false if there is none.
fn mark(db: &Connection, name: &str) -> Result<bool> {
    let mut update = db.prepare_cached("UPDATE volumes SET removing = 1 WHERE name = ?1")?;
    Ok(update.execute([name])? > 0)
}

/// Whether the named volume is on its way out; none if there is no such volume.
fn removing(writer: &Writer, name: &str) -> Result<Option<bool>> {
    writer.read(|db| {
        db.prepare_cached("SELECT removing FROM volumes WHERE name = ?1")?
            .query_row([name], |row| row.get(0))
            .optional()
            .map_err(Error::from)
    })
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<VolumeRow> {
    Ok(VolumeRow { name: row.get(0)?, created_ns: row.get(1)?, body: row.get(2)? })
}
