//! The connections: one writer behind a lock, readers as many as read at once.
//!
//! Durability is a property of each transaction. SQLite in WAL mode flushes the log
//! at a commit with `synchronous=FULL` and not with `NORMAL`; the log is in order,
//! so a durable commit makes every earlier one durable too, and a power cut takes
//! away only a tail of [`Durability::Process`] commits, never a middle and never
//! half of one.
//!
//! The writer's lock is also the one lock of the store: the set of leases lives
//! beside the connection, so "is it referenced, is it leased, take it away" is one
//! step. File renames may happen under the lock, never inside a transaction.
//! Nothing that holds the lock waits for another.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use capsa_sys::atomic::Durability;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::lease::LeaseKey;
use crate::{Result, fault, schema};

/// Pages in the log at which a commit copies them back itself, should the
/// background checkpoint not keep up.
const CHECKPOINT_PAGES: u32 = 8000;
/// Commits between two background checkpoints.
const CHECKPOINT_COMMITS: u32 = 256;
/// Room for the log that is taken while there is some, so that a full disk can
/// still record removals.
const LOG_RESERVE_BYTES: u64 = 2 << 20;
const BUSY: Duration = Duration::from_secs(10);
/// Page cache of each connection; negative means KiB to SQLite. Taken as it is used.
const CACHE_KIB: i32 = -8192;
const READERS_KEPT: usize = 4;

pub(crate) struct Db {
    path: PathBuf,
    writer: Mutex<Writer>,
    readers: Mutex<Vec<Connection>>,
}

pub(crate) struct Writer {
    conn: Connection,
    path: PathBuf,
    level: Option<Durability>,
    commits: u32,
    /// What is in flight; see `lease`.
    pub(crate) leases: HashMap<LeaseKey, u32>,
}

impl Db {
    pub(crate) fn open(path: &Path, root: &Path) -> Result<Self> {
        let mut conn = connect(path, OpenFlags::SQLITE_OPEN_CREATE)?;
        conn.pragma_update(None, "journal_mode", "WAL").map_err(|e| full(e, path))?;
        conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        conn.pragma_update(None, "foreign_keys", true)?;
        schema::migrate(&mut conn, root).map_err(|e| e.at(path))?;
        reserve_log(path);
        let writer =
            Writer { conn, path: path.to_owned(), level: None, commits: 0, leases: HashMap::new() };
        Ok(Self {
            path: path.to_owned(),
            writer: Mutex::new(writer),
            readers: Mutex::new(Vec::new()),
        })
    }

    /// Takes the lock. A panic under it has rolled its transaction back, so the
    /// state is whole.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One snapshot; never waits for a writer.
    pub(crate) fn read<T>(&self, f: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let kept = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let conn = match kept {
            Some(conn) => conn,
            None => reader(&self.path)?,
        };
        let snapshot = conn.unchecked_transaction()?;
        let result = f(&snapshot).map_err(|e| e.at(&self.path));
        snapshot.finish()?;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < READERS_KEPT {
            readers.push(conn);
        }
        result
    }
}

impl Writer {
    /// One transaction under the lock already held. An error rolls it back.
    pub(crate) fn write<T>(
        &mut self,
        durability: Durability,
        f: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        let path = &self.path;
        if self.level != Some(durability) {
            let level = if durability == Durability::Durable { "FULL" } else { "NORMAL" };
            self.conn.pragma_update(None, "synchronous", level)?;
            self.level = Some(durability);
        }
        let tx = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|e| full(e, path))?;
        let value = f(&tx).map_err(|e| e.at(path))?;
        fault::point(path)?;
        tx.commit().map_err(|e| full(e, path))?;
        fault::point(path)?;
        self.commits += 1;
        Ok(value)
    }

    /// Reads under the lock, where the answer must still hold at the next step.
    pub(crate) fn read<T>(&self, f: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        f(&self.conn).map_err(|e| e.at(&self.path))
    }

    /// Whether a background checkpoint is due; asking resets the count.
    pub(crate) fn checkpoint_due(&mut self) -> bool {
        let due = self.commits >= CHECKPOINT_COMMITS;
        if due {
            self.commits = 0;
        }
        due
    }
}

/// Copies the log back into the database, as far as no reader is in the way.
pub(crate) fn checkpoint(path: &Path) -> Result<()> {
    let conn = connect(path, OpenFlags::empty())?;
    conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
    Ok(())
}

fn reader(path: &Path) -> Result<Connection> {
    let conn = connect(path, OpenFlags::empty())?;
    conn.pragma_update(None, "query_only", true)?;
    Ok(conn)
}

fn connect(path: &Path, more: OpenFlags) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
    let conn = Connection::open_with_flags(path, flags).map_err(|e| full(e, path))?;
    conn.set_prepared_statement_cache_capacity(96);
    conn.busy_timeout(BUSY)?;
    conn.pragma_update(None, "cache_size", CACHE_KIB)?;
    Ok(conn)
}

fn full(error: rusqlite::Error, path: &Path) -> crate::Error {
    crate::Error::from(error).at(path)
}

/// Blocks behind the end of the log file (fallocate(2), KEEP_SIZE). A filesystem
/// that can't, or is too full for it, only loses the reserve.
fn reserve_log(path: &Path) {
    use rustix::fs::{FallocateFlags, Mode, OFlags};
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open(&log, flags, Mode::empty()) {
        let _ = rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, LOG_RESERVE_BYTES);
    }
}
