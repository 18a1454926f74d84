//! The background thread: deletes what was renamed away, makes empty rootfs
//! directories ahead, copies the database's log back.
//!
//! Removing a tree costs milliseconds to minutes and making four directories stalls
//! behind the journal of a busy disk, so no caller waits for either: a removal is one
//! rename into `trash/`, a new rootfs is one rename out of `spare/`. The thread runs
//! at a low priority. When the store is dropped it ends after the entry in hand; what
//! is left is deleted at the next open.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::layout::{self, Layout};
use crate::{Error, Result, db, partial};

/// Empty rootfs directories kept ready.
const SPARES: usize = 16;
const NICE: i32 = 10;

pub(crate) struct Trash {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    spares: Arc<Spares>,
    dir: PathBuf,
}

/// Ready-made rootfs directories, and where new ones are made.
struct Spares {
    ready: Mutex<Vec<PathBuf>>,
    dir: PathBuf,
    ingests: PathBuf,
}

enum Job {
    Delete(PathBuf),
    Refill,
    Checkpoint,
    Flush(Sender<Result<()>>),
}

struct Worker {
    stop: Arc<AtomicBool>,
    spares: Arc<Spares>,
    database: PathBuf,
    failed: Option<Error>,
}

impl Trash {
    /// Starts the thread on what an earlier daemon left behind.
    pub(crate) fn start(layout: &Layout) -> Result<Self> {
        let spares = Arc::new(Spares {
            ready: Mutex::new(listed(&layout.spares())?),
            dir: layout.spares(),
            ingests: layout.ingests(),
        });
        let mut leftovers = [listed(&layout.trash())?, listed(&layout.ingests())?].concat();
        leftovers.retain(|path| !partial::is_partial(path));
        let stop = Arc::new(AtomicBool::new(false));
        let (jobs, inbox) = channel();
        let worker = Worker {
            stop: Arc::clone(&stop),
            spares: Arc::clone(&spares),
            database: layout.database(),
            failed: None,
        };
        let thread = std::thread::Builder::new()
            .name("capsa-trash".to_owned())
            .spawn(move || worker.run(&inbox))
            .map_err(|e| Error::io("start the thread for", layout.root(), e))?;
        let trash =
            Self { jobs: Some(jobs), thread: Some(thread), stop, spares, dir: layout.trash() };
        trash.send(Job::Refill);
        for path in leftovers {
            trash.send(Job::Delete(path));
        }
        Ok(trash)
    }

    /// Takes `path` out of sight with one rename; deleted later. Missing is fine.
    pub(crate) fn take(&self, path: &Path) -> Result<()> {
        let to = self.dir.join(unique());
        match fs::rename(path, &to) {
            Ok(()) => self.send(Job::Delete(to)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("rename", path, e)),
        }
        Ok(())
    }

    /// Deletes in place, in the background: for what nobody can name any more.
    pub(crate) fn delete(&self, path: PathBuf) {
        self.send(Job::Delete(path));
    }

    /// An empty rootfs directory, if one is ready.
    pub(crate) fn spare(&self) -> Option<PathBuf> {
        let spare = self.spares.lock().pop();
        self.send(Job::Refill);
        spare
    }

    pub(crate) fn checkpoint(&self) {
        self.send(Job::Checkpoint);
    }

    /// Waits until all jobs so far are done; the first failure since the last call.
    pub(crate) fn flush(&self) -> Result<()> {
        let (done, wait) = channel();
        self.send(Job::Flush(done));
        wait.recv().unwrap_or(Ok(()))
    }

    fn send(&self, job: Job) {
        // The thread ends only after the sender is gone.
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Trash {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Worker {
    fn run(mut self, inbox: &Receiver<Job>) {
        // On Linux this is the thread's own priority (setpriority(2), C library notes).
        let _ = rustix::process::nice(NICE);
        while let Ok(job) = inbox.recv() {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let done = match job {
                Job::Delete(path) => delete(&path),
                Job::Refill => self.spares.refill(),
                Job::Checkpoint => db::checkpoint(&self.database),
                Job::Flush(to) => {
                    let _ = to.send(self.failed.take().map_or(Ok(()), Err));
                    Ok(())
                }
            };
            if let Err(e) = done {
                self.failed.get_or_insert(e);
            }
        }
    }
}

impl Spares {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<PathBuf>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refill(&self) -> Result<()> {
        while self.lock().len() < SPARES {
            let name = unique();
            let unfinished = self.ingests.join(&name);
            if let Err(e) = make_rootfs_tree(&unfinished) {
                let _ = fs::remove_dir_all(&unfinished);
                return Err(e);
            }
            let ready = self.dir.join(&name);
            fs::rename(&unfinished, &ready).map_err(|e| Error::io("rename", &ready, e))?;
            self.lock().push(ready);
        }
        Ok(())
    }
}

/// `dir` with `rootfs/upper` and `rootfs/work`, as overlay wants them. The mode of
/// upper is the one the container sees on `/`.
pub(crate) fn make_rootfs_tree(dir: &Path) -> Result<()> {
    layout::make_dir(&dir.join("rootfs"))?;
    layout::make_dir_mode(&dir.join("rootfs/upper"), 0o755)?;
    layout::make_dir_mode(&dir.join("rootfs/work"), 0o700)
}

/// A file name no other entry of this or an earlier daemon has.
pub(crate) fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{now:x}-{:x}-{:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn listed(dir: &Path) -> Result<Vec<PathBuf>> {
    Ok(layout::names_in(dir)?.into_iter().map(|name| dir.join(name)).collect())
}

fn delete(path: &Path) -> Result<()> {
    let done = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match done {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("delete", path, e)),
        _ => Ok(()),
    }
}
