//! The tables, all of them, and the steps from each older version to this one.
//!
//! ```text
//! blobs             one file in blobs/sha256 each; `unsynced` = the boot it was written in,
//!                   NULL once it is on the disk for good
//! layers            one directory in layers each; `size` in bytes as unpacked; `unsynced` likewise
//! images            id = digest of the config; body = the caller's record; `used_ns` = when a
//!                   container was last made of it, or the last one removed
//!  ├─ image_blobs   which blobs (manifest, config, packed layers) an image keeps   -> blobs
//!  └─ image_layers  which layers, lowest first                                     -> layers
//! tags              a name of an image                                             -> images
//! containers        body = the caller's record; id_range = first host id           -> images
//!  └─ container_volumes                                                            -> volumes
//! networks          body = the caller's record
//!  └─ endpoints     a container on a network, with its address       -> networks, containers
//! volumes           `removing` = its directory is on its way out
//! ```
//!
//! What a removal does to those that refer to the row is decided here and nowhere
//! else. RESTRICT (the caller gets `InUse`): image <- container, volume <- container,
//! network <- endpoint, blob and layer <- image. CASCADE: the names of an image go
//! with it, the endpoints and volume references of a container go with it.
//!
//! Rules: a change of this file is a new entry in [`MIGRATIONS`], never an edit of
//! an old one; `PRAGMA user_version` counts the entries applied. Digests are stored
//! with their algorithm, times as nanoseconds since 1970, addresses as text, so that
//! `sqlite3` shows them as people write them.

use rusqlite::Connection;

use crate::{Error, Result};

const MIGRATIONS: &[&str] = &[V1, V2];

const V1: &str = "
CREATE TABLE blobs (
    digest   TEXT PRIMARY KEY,
    size     INTEGER NOT NULL,
    unsynced TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE layers (
    chain_id TEXT PRIMARY KEY,
    size     INTEGER NOT NULL,
    unsynced TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE images (
    id         TEXT PRIMARY KEY,
    manifest   TEXT,
    config     TEXT NOT NULL,
    size       INTEGER NOT NULL,
    created_ns INTEGER NOT NULL,
    body       TEXT NOT NULL
) STRICT;

CREATE TABLE image_blobs (
    image  TEXT NOT NULL REFERENCES images ON DELETE CASCADE,
    digest TEXT NOT NULL REFERENCES blobs ON DELETE RESTRICT,
    PRIMARY KEY (image, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_blobs_by_digest ON image_blobs (digest);

CREATE TABLE image_layers (
    image    TEXT NOT NULL REFERENCES images ON DELETE CASCADE,
    position INTEGER NOT NULL,
    chain_id TEXT NOT NULL REFERENCES layers ON DELETE RESTRICT,
    PRIMARY KEY (image, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_layers_by_layer ON image_layers (chain_id);

CREATE TABLE tags (
    name  TEXT PRIMARY KEY,
    image TEXT NOT NULL REFERENCES images ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX tags_by_image ON tags (image);

CREATE TABLE containers (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    image      TEXT NOT NULL REFERENCES images ON DELETE RESTRICT,
    created_ns INTEGER NOT NULL,
    id_range   INTEGER UNIQUE,
    body       TEXT NOT NULL
) STRICT;
CREATE INDEX containers_by_image ON containers (image);

CREATE TABLE networks (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    created_ns INTEGER NOT NULL,
    body       TEXT NOT NULL
) STRICT;

CREATE TABLE endpoints (
    network   TEXT NOT NULL REFERENCES networks ON DELETE RESTRICT,
    container TEXT NOT NULL REFERENCES containers ON DELETE CASCADE,
    ipv4      TEXT,
    body      TEXT NOT NULL,
    PRIMARY KEY (network, container),
    UNIQUE (network, ipv4)
) STRICT, WITHOUT ROWID;
CREATE INDEX endpoints_by_container ON endpoints (container);

CREATE TABLE volumes (
    name       TEXT PRIMARY KEY,
    created_ns INTEGER NOT NULL,
    removing   INTEGER NOT NULL DEFAULT 0,
    body       TEXT NOT NULL
) STRICT;

CREATE TABLE container_volumes (
    container TEXT NOT NULL REFERENCES containers ON DELETE CASCADE,
    volume    TEXT NOT NULL REFERENCES volumes ON DELETE RESTRICT,
    PRIMARY KEY (container, volume)
) STRICT, WITHOUT ROWID;
CREATE INDEX container_volumes_by_volume ON container_volumes (volume);
";

const V2: &str = "ALTER TABLE images ADD COLUMN used_ns INTEGER NOT NULL DEFAULT 0;";

/// Brings the database to the last version, each step in a transaction of its own.
pub(crate) fn migrate(conn: &mut Connection, root: &std::path::Path) -> Result<()> {
    let found: u32 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(Error::NewerLayout { root: root.to_owned(), found, known });
    }
    for (version, step) in (1..=known).zip(MIGRATIONS) {
        if version > found {
            let tx = conn.transaction()?;
            tx.execute_batch(step)?;
            tx.pragma_update(None, "user_version", version)?;
            tx.commit()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn migrating_twice_changes_nothing_and_a_later_version_is_refused() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate(&mut conn, Path::new("/r")).unwrap();
        migrate(&mut conn, Path::new("/r")).unwrap();
        conn.pragma_update(None, "user_version", 99).unwrap();
        let error = migrate(&mut conn, Path::new("/r")).unwrap_err();
        assert!(matches!(error, Error::NewerLayout { found: 99, .. }), "{error}");
    }
}
