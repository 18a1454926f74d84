//! Layers unpacked while their blobs are still on their way in.
//!
//! An archive tells only at its end what its files are, so each that looks like a layer
//! is unpacked at once, on a thread that follows the growing blob through the page cache:
//! when the archive ends, so does the unpacking. What comes of it has no name yet; it
//! gets one when an image claims it ([`Early::take`]), and is removed if none does. Trouble
//! is kept until then too: bytes that are no layer harm only those who call them one.
//!
//! A plain blob is hashed once, as a blob: its digest is the layer's diff id.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use capsa_image::{Compression, Error as ImageError, Limits, Result as ImageResult, apply};
use capsa_oci::Digest;
use capsa_store::{Ingest, LayerIngest, Store};
use capsa_sys::root::RootDir;

/// Of one read from a blob.
const CHUNK: usize = 256 * 1024;
/// Threads that unpack or wait for their turn. Beyond them blobs are only kept, and
/// unpacked when an image asks for them.
const JOBS_MAX: usize = 16;

/// The layers of one archive that are unpacked, or about to be.
pub(super) struct Early {
    jobs: Mutex<HashMap<Digest, Job>>,
    turns: Arc<Turns>,
}

/// One blob being unpacked; dropping it stops that and removes what came of it.
pub(super) struct Job {
    feed: Arc<Feed>,
    thread: Option<JoinHandle<ImageResult<Unpacked>>>,
}

/// A layer that only lacks its name.
pub(super) struct Unpacked {
    /// Of the uncompressed bytes, when they are not the blob's own.
    pub(super) diff_id: Option<Digest>,
    /// Bytes of its files.
    pub(super) size: u64,
    /// Where it lies.
    pub(super) ingest: LayerIngest,
}

impl Early {
    /// With `lanes` layers unpacked at a time.
    pub(super) fn new(lanes: usize) -> Self {
        let turns = Turns { state: Mutex::new((0, 0)), freed: Condvar::new(), lanes };
        Self { jobs: Mutex::default(), turns: Arc::new(turns) }
    }

    /// Begins to unpack a blob whose first bytes are `start`, if it looks like a layer.
    /// Whoever writes the blob tells how far it is.
    ///
    /// # Errors
    /// When the blob can't be read again or no directory be made.
    pub(super) fn begin(
        &self,
        store: &Store,
        limits: &Limits,
        ingest: &Ingest,
        start: &[u8],
    ) -> capsa_store::Result<Option<Job>> {
        let is_plain = match Compression::of(start) {
            Compression::None if capsa_image::tar::begins(start) => true,
            Compression::Gzip | Compression::Zstd => false,
            _ => return Ok(None),
        };
        let Some(turn) = self.turns.queue() else { return Ok(None) };
        let feed = Arc::new(Feed::default());
        let blob = Follow { file: ingest.reader()?, at: 0, feed: Arc::clone(&feed) };
        let (layer, limits) = (store.begin_layer()?, limits.clone());
        let work = move || {
            let _running = turn.wait();
            unpack(blob, is_plain, layer, &limits)
        };
        let thread = std::thread::Builder::new().name("unpack".to_owned()).spawn(work);
        // Without a thread the layer is unpacked later, if it is one.
        Ok(thread.ok().map(|thread| Job { feed, thread: Some(thread) }))
    }

    /// Keeps the job of a blob that is complete, until it is asked for.
    pub(super) fn keep(&self, digest: &Digest, job: Job) {
        job.feed.set(|state| state.end = End::Complete);
        // The same bytes once more: the first are further on.
        self.jobs().entry(digest.clone()).or_insert(job);
    }

    /// The unpacked blob, waited for; none when it was not begun or taken before.
    pub(super) fn take(&self, digest: &Digest) -> Option<ImageResult<Unpacked>> {
        let job = self.jobs().remove(digest)?;
        Some(job.finish())
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<Digest, Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Early {
    /// All stop before the first is waited for.
    fn drop(&mut self) {
        for job in self.jobs().values() {
            job.feed.set(|state| state.end = End::GivenUp);
        }
    }
}

impl Job {
    /// Tells that the blob's first `written` bytes can be read.
    pub(super) fn advance(&self, written: u64) {
        self.feed.set(|state| state.written = written);
    }

    fn finish(mut self) -> ImageResult<Unpacked> {
        let joined = self.thread.take().map(JoinHandle::join);
        let lost = || ImageError::Read(io::Error::other("the thread of a layer failed"));
        joined.ok_or_else(lost)?.map_err(|_| lost())?
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.feed.set(|state| state.end = End::GivenUp);
            // What it made goes with its result.
            let _ = thread.join();
        }
    }
}

fn unpack(
    blob: Follow,
    is_plain: bool,
    ingest: LayerIngest,
    limits: &Limits,
) -> ImageResult<Unpacked> {
    let root = RootDir::open(ingest.path())
        .map_err(|source| ImageError::Apply { path: ingest.path().to_owned(), source })?;
    let (applied, diff_id) = if is_plain {
        (apply(BufReader::with_capacity(CHUNK, blob), &root, limits)?, None)
    } else {
        let (applied, diff_id) = capsa_image::unpack_hashed(blob, &root, limits)?;
        (applied, Some(diff_id))
    };
    Ok(Unpacked { diff_id, size: applied.size, ingest })
}

/// How far a blob is that others write.
#[derive(Default)]
struct Feed {
    state: Mutex<FeedState>,
    moved: Condvar,
}

#[derive(Default)]
struct FeedState {
    written: u64,
    end: End,
}

#[derive(Default, PartialEq, Eq)]
enum End {
    #[default]
    ToCome,
    Complete,
    GivenUp,
}

impl Feed {
    fn set(&self, change: impl FnOnce(&mut FeedState)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.moved.notify_all();
    }

    /// Waits until there is more than `at` bytes, or no more to come; how many there are.
    fn beyond(&self, at: u64) -> io::Result<u64> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |state: &mut FeedState| state.end == End::ToCome && state.written <= at;
        let state = self.moved.wait_while(state, waiting).unwrap_or_else(PoisonError::into_inner);
        if state.end == End::GivenUp {
            return Err(io::Error::other("the rest of the layer is not to come"));
        }
        Ok(state.written)
    }
}

/// Reads a blob behind its writer.
struct Follow {
    file: File,
    at: u64,
    feed: Arc<Feed>,
}

impl Read for Follow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let ready = self.feed.beyond(self.at)?.saturating_sub(self.at);
        let want = buffer.len().min(usize::try_from(ready).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut buffer[..want], self.at)?;
        if read == 0 && want > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        Ok(read)
    }
}

/// Who may unpack now: threads queued, threads running.
struct Turns {
    state: Mutex<(usize, usize)>,
    freed: Condvar,
    lanes: usize,
}

/// A place in the queue, or a turn; given back when dropped.
struct Turn {
    turns: Arc<Turns>,
    is_running: bool,
}

impl Turns {
    fn queue(self: &Arc<Self>) -> Option<Turn> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 + state.1 >= JOBS_MAX {
            return None;
        }
        state.0 += 1;
        Some(Turn { turns: Arc::clone(self), is_running: false })
    }
}

impl Turn {
    fn wait(mut self) -> Self {
        {
            let state = self.turns.state.lock().unwrap_or_else(PoisonError::into_inner);
            let is_full = |state: &mut (usize, usize)| state.1 >= self.turns.lanes;
            let waited = self.turns.freed.wait_while(state, is_full);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            *state = (state.0 - 1, state.1 + 1);
        }
        self.is_running = true;
        self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_running {
            state.1 -= 1;
        } else {
            state.0 -= 1;
        }
        drop(state);
        self.turns.freed.notify_one();
    }
}
