//! Images and their names.
//!
//! An image row keeps its blobs and layers: they can't be swept while it is there.
//! [`Store::put_image`] is always durable, and it is where everything the image refers
//! to becomes durable, with one syncfs(2).

use std::collections::HashMap;

use capsa_oci::Digest;
use capsa_sys::atomic::{self, Durability};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::error::Kind;
use crate::{Error, Result, Store, fault};

const COLUMNS: &str = "id, manifest, config, size, created_ns, body";
const AMBIGUOUS_SHOWN: u32 = 8;

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRow {
    /// Its manifest, also among `blobs`, when it has one on disk.
    pub manifest: Option<Digest>,
    /// Its config, also among `blobs`.
    pub config: Digest,
    /// Chain ids, lowest layer first.
    pub layers: Vec<Digest>,
    /// Every blob it keeps: manifest, config, packed layers.
    pub blobs: Vec<Digest>,
    /// Bytes, as the caller counts them.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub created_ns: i64,
    /// The caller's versioned record.
    pub body: String,
}

impl Store {
    /// Puts an image, durable with all it refers to. An image of the same id is
    /// replaced: names and containers keep referring to it.
    ///
    /// # Errors
    /// `Missing` for a blob or layer that isn't there, or a failure.
    pub fn put_image(&self, id: &Digest, image: &ImageRow) -> Result<()> {
        self.put_image_if(id, image, |_| Ok(true)).map(drop)
    }

    /// [`Store::put_image`], but only while the image is there; whether it was. One that
    /// was removed meanwhile doesn't come back.
    ///
    /// # Errors
    /// As [`Store::put_image`].
    pub fn change_image(&self, id: &Digest, image: &ImageRow) -> Result<bool> {
        self.put_image_if(id, image, |db| {
            let mut query = db.prepare_cached("SELECT 1 FROM images WHERE id = ?1")?;
            Ok(query.exists([id.as_str()])?)
        })
    }

    fn put_image_if(
        &self,
        id: &Digest,
        image: &ImageRow,
        wanted: impl Fn(&Connection) -> Result<bool>,
    ) -> Result<bool> {
        let inner = &self.inner;
        loop {
            let unsynced = inner.db.read(|db| unsynced(db, image))?;
            if !unsynced.is_empty() {
                fault::point(inner.layout.root())?;
                atomic::sync_filesystem(inner.layout.root())?;
            }
            let stored = self.write(Durability::Durable, |db| {
                mark_synced(db, &unsynced)?;
                if !self::unsynced(db, image)?.is_empty() {
                    // Written again since; flush those too.
                    return Ok(None);
                }
                let wanted = wanted(db)?;
                if wanted {
                    insert(db, id, image)?;
                }
                Ok(Some(wanted))
            })?;
            if let Some(stored) = stored {
                return Ok(stored);
            }
        }
    }

    /// The image with this id.
    ///
    /// # Errors
    /// When the database fails.
    pub fn image(&self, id: &Digest) -> Result<Option<ImageRow>> {
        self.inner.db.read(|db| {
            let sql = format!("SELECT {COLUMNS} FROM images WHERE id = ?1");
            let row = db.prepare_cached(&sql)?.query_row([id.as_str()], from_row).optional()?;
            let Some((id, mut image)) = row else { return Ok(None) };
            fill_references(db, &id, &mut image)?;
            Ok(Some(image))
        })
    }

    /// All images, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub fn images(&self) -> Result<Vec<(Digest, ImageRow)>> {
        self.inner.db.read(|db| {
            let sql = format!("SELECT {COLUMNS} FROM images ORDER BY created_ns DESC, id");
            let mut query = db.prepare_cached(&sql)?;
            let mut images: Vec<_> =
                query.query_map([], from_row)?.collect::<rusqlite::Result<_>>()?;
            for (id, image) in &mut images {
                fill_references(db, id, image)?;
            }
            Ok(images)
        })
    }

    /// The image whose hex id begins with `prefix` (with or without `sha256:`).
    ///
    /// # Errors
    /// `Ambiguous`, or a failure.
    pub fn image_by_prefix(&self, prefix: &str) -> Result<Option<Digest>> {
        let hex = prefix.strip_prefix("sha256:").unwrap_or(prefix);
        let found = self.inner.db.read(|db| by_prefix(db, "images", "sha256:", hex))?;
        found.map(|id| digest(&id)).transpose().map_err(Error::from)
    }

    /// Removes an image and its names; returns those names. Its blobs and layers stay
    /// until [`Store::sweep`].
    ///
    /// # Errors
    /// `Missing`, or `InUse` with the ids of the containers.
    pub fn remove_image(&self, id: &Digest) -> Result<Vec<String>> {
        self.write(Durability::Durable, |db| {
            let by = strings(db, "SELECT id FROM containers WHERE image = ?1", id.as_str())?;
            if !by.is_empty() {
                return Err(Error::InUse { kind: Kind::Image, key: id.to_string(), by });
            }
            let names = strings(db, TAGS_OF, id.as_str())?;
            match db.execute("DELETE FROM images WHERE id = ?1", [id.as_str()])? {
                0 => Err(Error::missing(Kind::Image, id)),
                _ => Ok(names),
            }
        })
    }

    /// Ids of the containers made from an image.
    ///
    /// # Errors
    /// When the database fails.
    pub fn containers_of_image(&self, id: &Digest) -> Result<Vec<String>> {
        self.inner
            .db
            .read(|db| strings(db, "SELECT id FROM containers WHERE image = ?1", id.as_str()))
    }

    /// When a container was last made of each image, or the last one removed, in nanoseconds
    /// since 1970; 0 is never.
    ///
    /// # Errors
    /// When the database fails.
    pub fn image_uses(&self) -> Result<HashMap<Digest, i64>> {
        self.inner.db.read(|db| {
            let mut query = db.prepare_cached("SELECT id, used_ns FROM images")?;
            let rows = query.query_map([], |row| Ok((digest_at(row, 0)?, row.get(1)?)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Lets `name` mean this image; returns the image it meant before.
    ///
    /// # Errors
    /// `Missing` when there is no such image.
    pub fn set_tag(
        &self,
        name: &str,
        id: &Digest,
        durability: Durability,
    ) -> Result<Option<Digest>> {
        self.write(durability, |db| {
            let before = tag(db, name)?;
            db.prepare_cached(
                "INSERT INTO tags (name, image) VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET image = ?2",
            )?
            .execute((name, id.as_str()))
            .map_err(|e| match Error::from(e) {
                e if e.is_foreign_key() => Error::missing(Kind::Image, id),
                e => e,
            })?;
            Ok(before)
        })
    }

    /// The image a name means.
    ///
    /// # Errors
    /// When the database fails.
    pub fn tag(&self, name: &str) -> Result<Option<Digest>> {
        self.inner.db.read(|db| tag(db, name))
    }

    /// All names and their images, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub fn tags(&self) -> Result<Vec<(String, Digest)>> {
        self.inner.db.read(|db| {
            let mut query = db.prepare_cached("SELECT name, image FROM tags ORDER BY name")?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, digest_at(row, 1)?)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// The names of an image, sorted.
    ///
    /// # Errors
    /// When the database fails.
    pub fn tags_of(&self, id: &Digest) -> Result<Vec<String>> {
        self.inner.db.read(|db| strings(db, TAGS_OF, id.as_str()))
    }

    /// Removes a name; returns the image it meant.
    ///
    /// # Errors
    /// When the database fails.
    pub fn remove_tag(&self, name: &str) -> Result<Option<Digest>> {
        self.write(Durability::Durable, |db| {
            let before = tag(db, name)?;
            db.execute("DELETE FROM tags WHERE name = ?1", [name])?;
            Ok(before)
        })
    }
}

const TAGS_OF: &str = "SELECT name FROM tags WHERE image = ?1 ORDER BY name";

fn insert(db: &Connection, id: &Digest, image: &ImageRow) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO images (id, manifest, config, size, created_ns, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (id) DO UPDATE SET manifest = ?2, config = ?3, size = ?4,
         created_ns = ?5, body = ?6",
    )?
    .execute((
        id.as_str(),
        image.manifest.as_ref().map(Digest::as_str),
        image.config.as_str(),
        image.size,
        image.created_ns,
        &image.body,
    ))?;
    db.execute("DELETE FROM image_blobs WHERE image = ?1", [id.as_str()])?;
    db.execute("DELETE FROM image_layers WHERE image = ?1", [id.as_str()])?;
    let named = image.manifest.iter().chain([&image.config]);
    for blob in named.chain(&image.blobs) {
        db.prepare_cached("INSERT OR IGNORE INTO image_blobs VALUES (?1, ?2)")?
            .execute((id.as_str(), blob.as_str()))
            .map_err(|e| or_missing(e.into(), Kind::Blob, blob))?;
        known(db, "SELECT 1 FROM blobs WHERE digest = ?1", Kind::Blob, blob)?;
    }
    for (position, layer) in (0_u32..).zip(&image.layers) {
        known(db, "SELECT 1 FROM layers WHERE chain_id = ?1", Kind::Layer, layer)?;
        db.prepare_cached("INSERT INTO image_layers VALUES (?1, ?2, ?3)")?.execute((
            id.as_str(),
            position,
            layer.as_str(),
        ))?;
    }
    Ok(())
}

/// Foreign keys are checked at the end of the statement; this names the missing one.
fn known(db: &Connection, sql: &str, kind: Kind, digest: &Digest) -> Result<()> {
    if db.prepare_cached(sql)?.exists([digest.as_str()])? {
        Ok(())
    } else {
        Err(Error::missing(kind, digest))
    }
}

fn or_missing(error: Error, kind: Kind, digest: &Digest) -> Error {
    if error.is_foreign_key() { Error::missing(kind, digest) } else { error }
}

/// A row of `blobs` or `layers` that is not flushed yet.
struct Unsynced {
    mark: &'static str,
    digest: Digest,
}

fn unsynced(db: &Connection, image: &ImageRow) -> Result<Vec<Unsynced>> {
    const BLOB: (&str, &str) = (
        "SELECT 1 FROM blobs WHERE digest = ?1 AND unsynced IS NOT NULL",
        "UPDATE blobs SET unsynced = NULL WHERE digest = ?1",
    );
    const LAYER: (&str, &str) = (
        "SELECT 1 FROM layers WHERE chain_id = ?1 AND unsynced IS NOT NULL",
        "UPDATE layers SET unsynced = NULL WHERE chain_id = ?1",
    );
    let blobs = image.blobs.iter().chain(&image.manifest).chain([&image.config]);
    let references = blobs.map(|d| (BLOB, d)).chain(image.layers.iter().map(|d| (LAYER, d)));
    let mut found = Vec::new();
    for ((ask, mark), digest) in references {
        if db.prepare_cached(ask)?.exists([digest.as_str()])? {
            found.push(Unsynced { mark, digest: digest.clone() });
        }
    }
    Ok(found)
}

fn mark_synced(db: &Connection, unsynced: &[Unsynced]) -> Result<()> {
    for Unsynced { mark, digest } in unsynced {
        db.prepare_cached(mark)?.execute([digest.as_str()])?;
    }
    Ok(())
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<(Digest, ImageRow)> {
    let manifest: Option<String> = row.get(1)?;
    let image = ImageRow {
        manifest: manifest.map(|text| digest(&text)).transpose()?,
        config: digest_at(row, 2)?,
        layers: Vec::new(),
        blobs: Vec::new(),
        size: row.get(3)?,
        created_ns: row.get(4)?,
        body: row.get(5)?,
    };
    Ok((digest_at(row, 0)?, image))
}

fn fill_references(db: &Connection, id: &Digest, image: &mut ImageRow) -> Result<()> {
    let list = |sql: &str| -> rusqlite::Result<Vec<Digest>> {
        db.prepare_cached(sql)?.query_map([id.as_str()], |row| digest_at(row, 0))?.collect()
    };
    image.layers = list("SELECT chain_id FROM image_layers WHERE image = ?1 ORDER BY position")?;
    image.blobs = list("SELECT digest FROM image_blobs WHERE image = ?1 ORDER BY digest")?;
    Ok(())
}

fn tag(db: &Connection, name: &str) -> Result<Option<Digest>> {
    db.prepare_cached("SELECT image FROM tags WHERE name = ?1")?
        .query_row([name], |row| digest_at(row, 0))
        .optional()
        .map_err(Error::from)
}

/// The digest in a column; anything else there is a conversion failure.
pub(crate) fn digest_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    digest(&row.get::<_, String>(column)?)
}

fn digest(text: &str) -> rusqlite::Result<Digest> {
    text.parse().map_err(|e: capsa_oci::DigestError| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, e.into())
    })
}

/// The first column of every row.
pub(crate) fn strings(db: &Connection, sql: &str, key: &str) -> Result<Vec<String>> {
    let mut query = db.prepare_cached(sql)?;
    let rows = query.query_map([key], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The one id of `table` that is `before` and then begins with the hex digits `hex`.
pub(crate) fn by_prefix(
    db: &Connection,
    table: &'static str,
    before: &'static str,
    hex: &str,
) -> Result<Option<String>> {
    if hex.is_empty() || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(None);
    }
    // 'g' follows every hex digit: the range is exactly the ids with this prefix.
    let sql = format!(
        "SELECT id FROM {table} WHERE id >= ?1 AND id < ?1 || 'g' ORDER BY id LIMIT {AMBIGUOUS_SHOWN}"
    );
    let mut ids = strings(db, &sql, &format!("{before}{hex}"))?;
    if ids.len() > 1 {
        return Err(Error::Ambiguous { prefix: hex.to_owned(), ids });
    }
    Ok(ids.pop())
}
