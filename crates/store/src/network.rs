//! Networks and endpoints: who is where, with which address.

use std::net::Ipv4Addr;

use capsa_sys::atomic::Durability;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::error::Kind;
use crate::image::{by_prefix, strings};
use crate::{Error, Result, Store};

/// A network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRow {
    /// 64 hex digits.
    pub id: String,
    /// Unique.
    pub name: String,
    /// Nanoseconds since 1970.
    pub created_ns: i64,
    /// The caller's versioned record.
    pub body: String,
}

/// A container on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointRow {
    /// The network's id.
    pub network: String,
    /// The container's id.
    pub container: String,
    /// Its address there, unique on the network.
    pub ipv4: Option<Ipv4Addr>,
    /// The caller's versioned record.
    pub body: String,
}

impl Store {
    /// Inserts a network.
    ///
    /// # Errors
    /// `NameTaken`.
    pub fn insert_network(&self, row: &NetworkRow, durability: Durability) -> Result<()> {
        self.write(durability, |db| {
            db.execute(
                "INSERT INTO networks (id, name, created_ns, body) VALUES (?1, ?2, ?3, ?4)",
                (&row.id, &row.name, row.created_ns, &row.body),
            )
            .map_err(|e| match Error::from(e) {
                e if e.is_unique() => taken(db, e, row),
                e => e,
            })?;
            Ok(())
        })
    }

    /// Replaces a network's record.
    ///
    /// # Errors
    /// `Missing`.
    pub fn update_network(&self, id: &str, body: &str, durability: Durability) -> Result<()> {
        self.write(durability, |db| {
            match db.execute("UPDATE networks SET body = ?2 WHERE id = ?1", [id, body])? {
                0 => Err(Error::missing(Kind::Network, id)),
                _ => Ok(()),
            }
        })
    }

    /// The network with this id.
    ///
    /// # Errors
    /// When the database fails.
    pub fn network(&self, id: &str) -> Result<Option<NetworkRow>> {
        self.inner.db.read(|db| {
            db.prepare_cached("SELECT id, name, created_ns, body FROM networks WHERE id = ?1")?
                .query_row([id], network_from_row)
                .optional()
                .map_err(Error::from)
        })
    }

    /// The id that `key` means: a whole id, else a name, else a unique id prefix.
    ///
    /// # Errors
    /// `Ambiguous` with the ids it could mean.
    pub fn resolve_network(&self, key: &str) -> Result<Option<String>> {
        self.inner.db.read(|db| {
            let exact = db
                .prepare_cached(
                    "SELECT id FROM networks WHERE id = ?1 OR name = ?1 ORDER BY id <> ?1",
                )?
                .query_row([key], |row| row.get(0))
                .optional()?;
            match exact {
                Some(id) => Ok(Some(id)),
                None => by_prefix(db, "networks", "", key),
            }
        })
    }

    /// All networks, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub fn networks(&self) -> Result<Vec<NetworkRow>> {
        self.inner.db.read(|db| {
            let mut query = db.prepare_cached(
                "SELECT id, name, created_ns, body FROM networks ORDER BY created_ns, id",
            )?;
            let rows = query.query_map([], network_from_row)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Removes a network; false if there is none.
    ///
    /// # Errors
    /// `InUse` with the ids of the containers on it.
    pub fn remove_network(&self, id: &str, durability: Durability) -> Result<bool> {
        self.write(durability, |db| {
            let by = strings(db, "SELECT container FROM endpoints WHERE network = ?1", id)?;
            if !by.is_empty() {
                return Err(Error::InUse { kind: Kind::Network, key: id.to_owned(), by });
            }
            Ok(db.execute("DELETE FROM networks WHERE id = ?1", [id])? > 0)
        })
    }

    /// Puts a container on a network, or replaces its endpoint there.
    ///
    /// # Errors
    /// `AddressTaken`, or `Missing` for the network or the container.
    pub fn put_endpoint(&self, row: &EndpointRow, durability: Durability) -> Result<()> {
        self.write(durability, |db| {
            db.prepare_cached(
                "INSERT INTO endpoints (network, container, ipv4, body) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (network, container) DO UPDATE SET ipv4 = ?3, body = ?4",
            )?
            .execute((&row.network, &row.container, row.ipv4.map(|ip| ip.to_string()), &row.body))
            .map_err(|e| endpoint_refused(db, e.into(), row))?;
            Ok(())
        })
    }

    /// Takes a container off a network; false if it was not on it.
    ///
    /// # Errors
    /// When the database fails.
    pub fn remove_endpoint(
        &self,
        network: &str,
        container: &str,
        durability: Durability,
    ) -> Result<bool> {
        self.write(durability, |db| {
            let sql = "DELETE FROM endpoints WHERE network = ?1 AND container = ?2";
            Ok(db.prepare_cached(sql)?.execute([network, container])? > 0)
        })
    }

    /// Everyone on a network.
    ///
    /// # Errors
    /// When the database fails.
    pub fn endpoints_of_network(&self, network: &str) -> Result<Vec<EndpointRow>> {
        self.endpoints("SELECT * FROM endpoints WHERE network = ?1 ORDER BY container", network)
    }

    /// Every network a container is on.
    ///
    /// # Errors
    /// When the database fails.
    pub fn endpoints_of_container(&self, container: &str) -> Result<Vec<EndpointRow>> {
        self.endpoints("SELECT * FROM endpoints WHERE container = ?1 ORDER BY network", container)
    }

    fn endpoints(&self, sql: &str, key: &str) -> Result<Vec<EndpointRow>> {
        self.inner.db.read(|db| {
            let mut query = db.prepare_cached(sql)?;
            let rows = query.query_map([key], endpoint_from_row)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }
}

fn taken(db: &Connection, error: Error, row: &NetworkRow) -> Error {
    match strings(db, "SELECT id FROM networks WHERE name = ?1", &row.name).as_deref() {
        Ok([by]) => {
            Error::NameTaken { kind: Kind::Network, name: row.name.clone(), by: by.clone() }
        }
        Ok(_) => Error::NameTaken { kind: Kind::Network, name: row.id.clone(), by: row.id.clone() },
        Err(_) => error,
    }
}

fn endpoint_refused(db: &Connection, error: Error, row: &EndpointRow) -> Error {
    if error.is_foreign_key() {
        let known = strings(db, "SELECT id FROM networks WHERE id = ?1", &row.network);
        return match known.as_deref() {
            Ok([]) => Error::missing(Kind::Network, &row.network),
            _ => Error::missing(Kind::Container, &row.container),
        };
    }
    let (true, Some(address)) = (error.is_unique(), row.ipv4) else { return error };
    let owner = db.query_row(
        "SELECT container FROM endpoints WHERE network = ?1 AND ipv4 = ?2",
        (&row.network, address.to_string()),
        |found| found.get(0),
    );
    match owner {
        Ok(by) => {
            Error::AddressTaken { network: row.network.clone(), address: address.to_string(), by }
        }
        Err(_) => error,
    }
}

fn network_from_row(row: &Row<'_>) -> rusqlite::Result<NetworkRow> {
    Ok(NetworkRow {
        id: row.get(0)?,
        name: row.get(1)?,
        created_ns: row.get(2)?,
        body: row.get(3)?,
    })
}

fn endpoint_from_row(row: &Row<'_>) -> rusqlite::Result<EndpointRow> {
    let ipv4 = match row.get::<_, Option<String>>(2)? {
        None => None,
        Some(text) => Some(text.parse().map_err(|e: std::net::AddrParseError| {
            rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, e.into())
        })?),
    };
    Ok(EndpointRow { network: row.get(0)?, container: row.get(1)?, ipv4, body: row.get(3)? })
}
