//! Volumes: directories of users' data, so the one thing that is never guessed away.
//!
//! A volume's directory is made before its row and renamed away between two
//! transactions: "it is on its way out" and "it is gone". Only a row so marked is
//! finished off at open; a directory without a row is left alone.

use std::fs;
use std::io;
use std::path::PathBuf;

use capsa_sys::atomic::{self, Durability};
use rusqlite::{OptionalExtension, Row};

use crate::db::Writer;
use crate::error::Kind;
use crate::image::strings;
use crate::{Error, Result, Store, fault, layout, rootfs};

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

impl Store {
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
        rootfs::disk_bytes(&self.volume_dir(name)?)
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
            Ok(db.execute("UPDATE volumes SET removing = 1 WHERE name = ?1", [name])? > 0)
        })?;
        if known {
            self.finish_removal(&mut writer, name)?;
        }
        Ok(known)
    }

    /// Finishes what a crash interrupted.
    pub(crate) fn finish_volume_removals(&self) -> Result<()> {
        let mut writer = self.inner.db.lock();
        let names = writer
            .read(|db| strings(db, "SELECT name FROM volumes WHERE removing = 1 AND ?1", "1"))?;
        names.iter().try_for_each(|name| self.finish_removal(&mut writer, name))
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
