//! A container's log, read back: filtered, the last lines first found, then followed.
//!
//! The monitor writes and rotates; this side only reads. A reader keeps the file it
//! has open, so a rotation under its hands loses nothing: at the end of a file that
//! is no longer the current one it goes on with the current one. A slow client slows
//! only its own task.

mod line;
mod tail;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::container::handle::Snapshot;
use crate::options::LogOptions;
use crate::view::{ByteStream, Phase};

/// Chunks that may wait for the client.
const AHEAD: usize = 16;
/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

/// Reads the log at `path`; follows it until the container in `state` has ended.
pub(crate) fn read(
    path: PathBuf,
    tty: bool,
    options: LogOptions,
    state: watch::Receiver<Snapshot>,
) -> ByteStream {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let mut reader = Reader { path, tty, options, sender, partial: Vec::new() };
        if let Err(error) = reader.run(state).await {
            // A client that has left needs no answer.
            let _ = reader.sender.send(Err(error)).await;
        }
    });
    receiver
}

struct Reader {
    path: PathBuf,
    tty: bool,
    options: LogOptions,
    sender: mpsc::Sender<io::Result<Bytes>>,
    partial: Vec<u8>,
}

/// Whether reading goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    On,
    Over,
}

impl Reader {
    async fn run(&mut self, mut state: watch::Receiver<Snapshot>) -> io::Result<()> {
        let watcher = if self.options.follow { Some(Watcher::new(&self.path)?) } else { None };
        let mut current = None;
        for file in tail::open(&self.path, self.options.tail)? {
            current = Some(file);
            if let Some(file) = current.as_mut()
                && self.drain(file).await? == Flow::Over
            {
                return Ok(());
            }
        }
        let Some(watcher) = watcher else { return Ok(()) };
        loop {
            let running = runs(&state.borrow_and_update());
            if self.catch_up(&mut current).await? == Flow::Over || !running {
                return Ok(());
            }
            tokio::select! {
                changed = watcher.changed() => changed?,
                gone = state.changed() => if gone.is_err() { return Ok(()) },
                () = self.sender.closed() => return Ok(()),
            }
        }
    }

    /// Reads what is new, over a rotation if there was one.
    async fn catch_up(&mut self, current: &mut Option<File>) -> io::Result<Flow> {
        loop {
            if let Some(file) = current.as_mut()
                && self.drain(file).await? == Flow::Over
            {
                return Ok(Flow::Over);
            }
            match newer(&self.path, current.as_ref())? {
                Some(file) => *current = Some(file),
                None => return Ok(Flow::On),
            }
        }
    }

    /// Sends every whole line up to the present end of `file`.
    async fn drain(&mut self, file: &mut File) -> io::Result<Flow> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = file.read(&mut chunk)?;
            if length == 0 {
                return Ok(Flow::On);
            }
            self.partial.extend_from_slice(&chunk[..length]);
            let (out, over) = self.render();
            if !out.is_empty() && self.sender.send(Ok(Bytes::from(out))).await.is_err() {
                return Ok(Flow::Over);
            }
            if over {
                return Ok(Flow::Over);
            }
        }
    }

    /// Turns the whole lines of what was read into the client's bytes.
    fn render(&mut self) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        let mut start = 0;
        while let Some(end) = self.partial[start..].iter().position(|byte| *byte == b'\n') {
            let text = &self.partial[start..start + end];
            start += end + 1;
            // A line torn by a crash says nothing.
            let Some(line) = line::parse(text) else { continue };
            if line.is_after(self.options.until_ns) {
                return (out, true);
            }
            if line.is_wanted(&self.options) {
                line.write(&self.options, self.tty, &mut out);
            }
        }
        self.partial.drain(..start);
        (out, false)
    }
}

/// The current file, when it is another than the one that is open.
fn newer(path: &Path, open: Option<&File>) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(open) = open else { return Ok(Some(file)) };
    let same = open.metadata()?.ino() == file.metadata()?.ino();
    Ok((!same).then_some(file))
}

fn runs(snapshot: &Snapshot) -> bool {
    let live = &snapshot.record.live;
    !snapshot.removed && (matches!(live.phase, Phase::Running | Phase::Paused) || live.restarting)
}

/// Tells when something in the log's directory changes (inotify(7)).
struct Watcher(tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>);

impl Watcher {
    fn new(path: &Path) -> io::Result<Self> {
        use rustix::fs::inotify;
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let dir = path.parent().unwrap_or(Path::new("/"));
        let wanted = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&fd, dir, wanted)?;
        Ok(Self(crate::watched::watched(fd)?))
    }

    async fn changed(&self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        let mut events = [0; 4096];
        while rustix::io::read(&self.0, &mut events).is_ok_and(|length| length > 0) {}
        ready.clear_ready();
        Ok(())
    }
}
