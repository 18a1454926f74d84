//! Containers: a name, an image, a block of host ids, and the caller's record.
//!
//! Names and id ranges are unique by constraint, and both are taken in the one
//! transaction that inserts the row: two creates at once can't share either.

use std::time::{SystemTime, UNIX_EPOCH};

use capsa_oci::Digest;
use capsa_sys::atomic::Durability;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::error::Kind;
use crate::image::{by_prefix, digest_at, strings};
use crate::{Error, Result, Store};

/// Host ids in one range.
pub const ID_RANGE_LEN: u32 = 65_536;

const COLUMNS: &str = "id, name, image, created_ns, id_range, body";

/// A container as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRow {
    /// 64 hex digits.
    pub id: String,
    /// Unique, without a leading slash.
    pub name: String,
    /// The image it was made from.
    pub image: Digest,
    /// Nanoseconds since 1970.
    pub created_ns: i64,
    /// First of its [`ID_RANGE_LEN`] host ids.
    pub id_range: Option<u32>,
    /// The caller's versioned record.
    pub body: String,
}

/// A container to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewContainer {
    /// 64 hex digits.
    pub id: String,
    /// Unique, without a leading slash.
    pub name: String,
    /// The image it is made from.
    pub image: Digest,
    /// Nanoseconds since 1970.
    pub created_ns: i64,
    /// Where to take an id range from; none is taken without.
    pub pool: Option<IdPool>,
    /// Volumes it uses, which can't be removed meanwhile; they exist.
    pub volumes: Vec<String>,
    /// The caller's versioned record.
    pub body: String,
}

/// `count` id ranges, the first beginning at host id `base`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdPool {
    /// First host id.
    pub base: u32,
    /// Ranges.
    pub count: u32,
}

impl Store {
    /// Inserts a container; returns the id range it got.
    ///
    /// # Errors
    /// `NameTaken` (name or id), `Missing` (image or volume), `RangesExhausted`.
    pub fn insert_container(
        &self,
        new: &NewContainer,
        durability: Durability,
    ) -> Result<Option<u32>> {
        self.write(durability, |db| {
            let range = new.pool.map(|pool| free_range(db, pool)).transpose()?;
            db.prepare_cached(
                "INSERT INTO containers (id, name, image, created_ns, id_range, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute((&new.id, &new.name, new.image.as_str(), new.created_ns, range, &new.body))
            .map_err(|e| refused(db, e.into(), &new.id, &new.name, &new.image))?;
            db.prepare_cached("UPDATE images SET used_ns = max(used_ns, ?2) WHERE id = ?1")?
                .execute((new.image.as_str(), new.created_ns))?;
            for volume in &new.volumes {
                refer_to_volume(db, &new.id, volume)?;
            }
            Ok(range)
        })
    }

    /// Replaces a container's record.
    ///
    /// # Errors
    /// `Missing`.
    pub fn update_container(&self, id: &str, body: &str, durability: Durability) -> Result<()> {
        self.write(durability, |db| {
            let changed = db
                .prepare_cached("UPDATE containers SET body = ?2 WHERE id = ?1")?
                .execute([id, body])?;
            at_least_one(changed, id)
        })
    }

    /// Gives a container another name and, in the same transaction, another record.
    ///
    /// # Errors
    /// `Missing`, `NameTaken`.
    pub fn rename_container(
        &self,
        id: &str,
        name: &str,
        body: &str,
        durability: Durability,
    ) -> Result<()> {
        self.write(durability, |db| {
            let changed = db
                .prepare_cached("UPDATE containers SET name = ?2, body = ?3 WHERE id = ?1")?
                .execute([id, name, body])
                .map_err(|e| name_taken(db, e.into(), id, name))?;
            at_least_one(changed, id)
        })
    }

    /// The container with this id.
    ///
    /// # Errors
    /// When the database fails.
    pub fn container(&self, id: &str) -> Result<Option<ContainerRow>> {
        self.inner.db.read(|db| {
            let sql = format!("SELECT {COLUMNS} FROM containers WHERE id = ?1");
            Ok(db.prepare_cached(&sql)?.query_row([id], from_row).optional()?)
        })
    }

    /// The id that `key` means: a whole id, else a name, else a unique id prefix.
    ///
    /// # Errors
    /// `Ambiguous` with the ids it could mean.
    pub fn resolve_container(&self, key: &str) -> Result<Option<String>> {
        self.inner.db.read(|db| {
            let exact = db
                .prepare_cached(
                    "SELECT id FROM containers WHERE id = ?1 OR name = ?1 ORDER BY id <> ?1",
                )?
                .query_row([key], |row| row.get(0))
                .optional()?;
            match exact {
                Some(id) => Ok(Some(id)),
                None => by_prefix(db, "containers", "", key),
            }
        })
    }

    /// All containers, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub fn containers(&self) -> Result<Vec<ContainerRow>> {
        self.inner.db.read(|db| {
            let sql = format!("SELECT {COLUMNS} FROM containers ORDER BY created_ns DESC, id");
            let mut query = db.prepare_cached(&sql)?;
            let rows = query.query_map([], from_row)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Removes a container's row with its endpoints, volume references and id range;
    /// false if there is none. Its directory is the caller's, before
    /// ([`Store::remove_rootfs`]).
    ///
    /// # Errors
    /// When the database fails.
    pub fn remove_container(&self, id: &str, durability: Durability) -> Result<bool> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        self.write(durability, |db| {
            db.prepare_cached(
                "UPDATE images SET used_ns = max(used_ns, ?2)
                 WHERE id = (SELECT image FROM containers WHERE id = ?1)",
            )?
            .execute((id, now))?;
            let mut delete = db.prepare_cached("DELETE FROM containers WHERE id = ?1")?;
            Ok(delete.execute([id])? > 0)
        })
    }

    /// The id range of a container: the one it has, else the first free one of the pool.
    ///
    /// # Errors
    /// `Missing`, `RangesExhausted`.
    pub fn take_id_range(&self, id: &str, pool: IdPool, durability: Durability) -> Result<u32> {
        self.write(durability, |db| {
            let held = db
                .prepare_cached("SELECT id_range FROM containers WHERE id = ?1")?
                .query_row([id], |row| row.get::<_, Option<u32>>(0))
                .optional()?
                .ok_or_else(|| Error::missing(Kind::Container, id))?;
            if let Some(range) = held {
                return Ok(range);
            }
            let range = free_range(db, pool)?;
            db.execute("UPDATE containers SET id_range = ?2 WHERE id = ?1", (id, range))?;
            Ok(range)
        })
    }

    /// Lets a container keep a volume from being removed.
    ///
    /// # Errors
    /// `Missing` for either.
    pub fn add_container_volume(
        &self,
        id: &str,
        volume: &str,
        durability: Durability,
    ) -> Result<()> {
        self.write(durability, |db| refer_to_volume(db, id, volume))
    }
}

/// A free range: the one after the last, so that a range just given back rests, and
/// at the end of the pool the first gap.
fn free_range(db: &Connection, pool: IdPool) -> Result<u32> {
    const LAST: &str = "SELECT id_range FROM containers WHERE id_range >= ?1 AND id_range < ?2
         ORDER BY id_range DESC LIMIT 1";
    const GAP: &str = "SELECT id_range + ?3 FROM containers AS c
         WHERE id_range >= ?1 AND id_range < ?2 - ?3
           AND NOT EXISTS (SELECT 1 FROM containers WHERE id_range = c.id_range + ?3)
         ORDER BY id_range LIMIT 1";
    let (base, len) = (i64::from(pool.base), i64::from(ID_RANGE_LEN));
    let end = base + i64::from(pool.count) * len;
    let last: Option<i64> =
        db.prepare_cached(LAST)?.query_row([base, end], |row| row.get(0)).optional()?;
    let mut first = last.map_or(base, |last| last + len);
    if first + len > end {
        let base_taken =
            db.prepare_cached("SELECT 1 FROM containers WHERE id_range = ?1")?.exists([base])?;
        first = if base_taken {
            let gap = db.prepare_cached(GAP)?.query_row([base, end, len], |row| row.get(0));
            gap.optional()?.unwrap_or(end)
        } else {
            base
        };
    }
    u32::try_from(first)
        .ok()
        .filter(|_| first + len <= end)
        .ok_or(Error::RangesExhausted { base: pool.base, count: pool.count })
}

fn refer_to_volume(db: &Connection, id: &str, volume: &str) -> Result<()> {
    // Both ends are looked up so that the error names the one that is missing.
    for (kind, key, sql) in [
        (Kind::Container, id, "SELECT 1 FROM containers WHERE id = ?1"),
        (Kind::Volume, volume, "SELECT 1 FROM volumes WHERE name = ?1 AND removing = 0"),
    ] {
        if !db.prepare_cached(sql)?.exists([key])? {
            return Err(Error::missing(kind, key));
        }
    }
    db.prepare_cached("INSERT OR IGNORE INTO container_volumes VALUES (?1, ?2)")?
        .execute([id, volume])?;
    Ok(())
}

fn refused(db: &Connection, error: Error, id: &str, name: &str, image: &Digest) -> Error {
    if error.is_foreign_key() {
        return Error::missing(Kind::Image, image);
    }
    name_taken(db, error, id, name)
}

fn name_taken(db: &Connection, error: Error, id: &str, name: &str) -> Error {
    if !error.is_unique() {
        return error;
    }
    match strings(db, "SELECT id FROM containers WHERE name = ?1", name).as_deref() {
        Ok([by]) => {
            Error::NameTaken { kind: Kind::Container, name: name.to_owned(), by: by.clone() }
        }
        Ok(_) => Error::NameTaken { kind: Kind::Container, name: id.to_owned(), by: id.to_owned() },
        Err(_) => error,
    }
}

fn at_least_one(changed: usize, id: &str) -> Result<()> {
    if changed == 0 { Err(Error::missing(Kind::Container, id)) } else { Ok(()) }
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<ContainerRow> {
    Ok(ContainerRow {
        id: row.get(0)?,
        name: row.get(1)?,
        image: digest_at(row, 2)?,
        created_ns: row.get(3)?,
        id_range: row.get(4)?,
        body: row.get(5)?,
    })
}
