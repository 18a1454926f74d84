//! What is on disk: blobs, layers, rootfs and volume directories, and the tables.
//! Crash-safe; knows no Docker words and nothing of what a record means.
//!
//! ```text
//! <data-root>/            all directories 0700
//!   VERSION               layout number: a newer one is refused
//!   lock                  flock held by the one daemon; holds its pid as text
//!   db/capsa.sqlite       the tables (see `schema`), with its -wal and -shm
//!   blobs/sha256/<hex>    immutable bytes
//!   layers/<hex>/         immutable trees by chain id; the directory is the layer's /
//!   ingest/<unique>       unfinished blobs, layers and volumes; removed at open
//!   ingest/sha256-<hex>   unfinished blobs to go on with; removed after a day
//!   containers/<id>/      rootfs/upper, rootfs/work, and files of the engine and monitor
//!   volumes/<name>/_data  users' data
//!   spare/<unique>        empty container directories, made ahead
//!   trash/<unique>        on its way out; deleted in the background, also at open
//! ```
//!
//! Invariants:
//! * A thing is there when its row is. Files come before rows and go after them,
//!   always by one rename, so a crash at any point leaves at most a file nobody
//!   knows; open removes it. Volumes are the exception: they are never guessed away,
//!   only one that is still empty is.
//! * No effect on files inside a transaction, no caller's code under the lock.
//! * [`Durability::Durable`] means: acknowledged, so it survives a power cut.
//!   [`Durability::Process`] means: it survives the daemon's death, which is enough
//!   for what a reboot ends anyway.
//! * A digest is checked before a blob gets its name, and on [`Store::read_blob`].
//!
//! Why SQLite (bundled, WAL): it opens an existing database in 0.7 ms where a
//! copy-on-write tree (redb) takes 6 and a log-structured one (fjall) 12; it chooses
//! between fsync and none for each transaction; names, addresses and id ranges are
//! unique by constraint instead of by care; and `sqlite3` reads it. Measured costs of
//! commits are printed by `tests/cost.rs`.
//!
//! Not here: what makes a tree (tar), what the bodies mean, who may do what.

mod blob;
mod container;
mod db;
mod error;
pub mod fault;
mod image;
mod layer;
mod layout;
mod lease;
mod network;
mod partial;
mod rootfs;
mod schema;
mod sweep;
mod trash;
mod volume;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

pub use blob::Ingest;
pub use capsa_sys::atomic::Durability;
pub use container::{ContainerRow, ID_RANGE_LEN, IdPool, NewContainer};
pub use error::{Error, Kind, Result};
pub use image::ImageRow;
pub use layer::LayerIngest;
pub use lease::Lease;
pub use network::{EndpointRow, NetworkRow};
pub use sweep::{DiskUsage, Swept};
pub use volume::{VolumeIngest, VolumeRow};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The one opening of a data root. Clones share it; calls block and may come from any
/// thread. The lock on the root is given back when the last clone is dropped.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("root", &self.root()).finish_non_exhaustive()
    }
}

struct Inner {
    layout: layout::Layout,
    db: db::Db,
    trash: trash::Trash,
    /// This boot, as the kernel names it.
    boot: String,
    // Last: the root is unlocked when all else is closed.
    _lock: File,
}

impl Store {
    /// Opens the data root, making or migrating it as needed, and repairs what a crash
    /// left. Deleting leftovers goes on in the background.
    ///
    /// # Errors
    /// `Locked`, `NewerLayout`, `Corrupt`, `NoSpace`, or a failure.
    pub fn open(root: &Path) -> Result<Self> {
        let (layout, lock) = layout::Layout::open(root)?;
        let db = db::Db::open(&layout.database(), layout.root())?;
        let trash = trash::Trash::start(&layout)?;
        let boot = fs::read_to_string(BOOT_ID)
            .map_err(|e| Error::io("read", Path::new(BOOT_ID), e))?
            .trim()
            .to_owned();
        let store = Self { inner: Arc::new(Inner { layout, db, trash, boot, _lock: lock }) };
        store.reconcile()?;
        store.sweep_partials()?;
        Ok(store)
    }

    /// The data root, absolute.
    pub fn root(&self) -> &Path {
        self.inner.layout.root()
    }

    /// One transaction.
    fn write<T>(
        &self,
        durability: Durability,
        f: impl FnOnce(&rusqlite::Connection) -> Result<T>,
    ) -> Result<T> {
        let mut writer = self.inner.db.lock();
        let done = writer.write(durability, f);
        if writer.checkpoint_due() {
            self.inner.trash.checkpoint();
        }
        done
    }
}
