//! A blob as one stream, whatever happens to the connections that carry it.
//!
//! When one breaks or stalls, the next request asks for the rest (`Range`); a server
//! that doesn't know ranges sends all, and what is known is skipped. Tries are counted
//! anew after progress worth a request. An endpoint that fails is left for the next.

use std::io::{self, Read};

use capsa_oci::Digest;

use super::session::{Call, Outcome, Session};
use super::wait::Backoff;
use super::wire::{Answer, header};
use super::{RegistryError, Step};
use crate::Error;

/// Bytes after which a connection was worth its while.
const PROGRESS: u64 = 256 << 10;

/// Reads a blob from `at` on; gives exactly `size - at` bytes or an error.
pub(super) struct BlobReader<'a> {
    /// The one in use first.
    sessions: &'a [Session],
    digest: Digest,
    size: u64,
    at: u64,
    body: Option<Box<dyn Read + Send>>,
    backoff: Option<Backoff>,
    /// Since tries were counted anew.
    gained: u64,
}

impl<'a> BlobReader<'a> {
    /// Opens the blob; `size` is what its descriptor says.
    pub(super) fn open(
        sessions: &'a [Session],
        digest: &Digest,
        size: u64,
        at: u64,
    ) -> Outcome<Self> {
        let mut reader = Self {
            sessions,
            digest: digest.clone(),
            size,
            at,
            body: None,
            backoff: None,
            gained: 0,
        };
        if at < size {
            reader.connect()?;
        }
        Ok(reader)
    }

    fn step(&self) -> Step {
        Step::Blob(self.digest.clone())
    }

    fn connect(&mut self) -> Outcome<()> {
        while let Some((session, others)) = self.sessions.split_first() {
            match request(session, &self.digest, self.size, self.at) {
                Ok(body) => {
                    self.body = Some(body);
                    return Ok(());
                }
                Err(error) => self.leave(error, others)?,
            }
        }
        Ok(())
    }

    /// Goes on to the next endpoint, if there is one.
    fn leave(&mut self, error: Box<RegistryError>, others: &'a [Session]) -> Outcome<()> {
        if others.is_empty() || error.failure == super::Failure::Cancelled {
            return Err(error);
        }
        (self.sessions, self.backoff) = (others, None);
        Ok(())
    }

    /// After a connection broke with `why`.
    fn again(&mut self, why: String) -> Outcome<()> {
        self.body = None;
        let step = self.step();
        let Some((session, others)) = self.sessions.split_first() else { return Ok(()) };
        let backoff = self.backoff.get_or_insert_with(|| session.backoff());
        let why = format!("{why} at byte {} of {}", self.at, self.size);
        let failed = session.unreachable(&step, why);
        if let Err(failed) = session.pause(backoff, failed) {
            self.leave(failed, others)?;
        }
        self.connect()
    }

    fn take(&mut self, n: usize) -> usize {
        self.at += n as u64;
        self.gained += n as u64;
        if self.gained >= PROGRESS {
            self.gained = 0;
            if let Some(backoff) = &mut self.backoff {
                backoff.reset();
            }
        }
        if self.at == self.size
            && let Some(mut body) = self.body.take()
        {
            // Read to its end, the connection serves again.
            let _ = body.read(&mut [0]);
        }
        n
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let want = buffer.len().min(left);
        if want == 0 {
            return Ok(0);
        }
        loop {
            if let Some(session) = self.sessions.first() {
                session.check_cancelled(&self.step()).map_err(carried)?;
            }
            let Some(body) = &mut self.body else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            let why = match body.read(&mut buffer[..want]) {
                Ok(0) => "the connection was closed".to_owned(),
                Ok(n) => return Ok(self.take(n)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error.to_string(),
            };
            self.again(why).map_err(carried)?;
        }
    }
}

/// The body of an answer, from byte `at` of the blob on.
fn request(
    session: &Session,
    digest: &Digest,
    size: u64,
    at: u64,
) -> Outcome<Box<dyn Read + Send>> {
    let step = Step::Blob(digest.clone());
    let mut call = Call::get(session.url(&format!("blobs/{digest}")), step.clone());
    if at > 0 {
        call = call.header("range", format!("bytes={at}-"));
    }
    let answer = session.expect(&mut call, &[200, 206, 416])?;
    let (from, total) = extent(&answer, at);
    if answer.status() == 416 || total.is_some_and(|total| total != size) {
        let has = total.map_or("less".to_owned(), |total| format!("{total} bytes"));
        let text = format!("it has {has}, the manifest says {size}");
        return Err(session.invalid(&step, text));
    }
    if from > at {
        return Err(session.invalid(&step, format!("asked from byte {at}, it sent from {from}")));
    }
    let mut body = answer.into_body().into_reader();
    let skipped = io::copy(&mut body.by_ref().take(at - from), &mut io::sink());
    match skipped {
        Ok(n) if n == at - from => Ok(Box::new(body)),
        Ok(_) => Err(session.unreachable(&step, "the connection was closed".to_owned())),
        Err(error) => Err(session.unreachable(&step, error.to_string())),
    }
}

/// Where the body begins in the blob, and how long the blob is said to be.
fn extent(answer: &Answer, at: u64) -> (u64, Option<u64>) {
    if answer.status() == 200 {
        return (0, header(answer, "content-length").and_then(|length| length.parse().ok()));
    }
    let range = header(answer, "content-range").and_then(|range| range.strip_prefix("bytes "));
    let Some((range, total)) = range.and_then(|range| range.split_once('/')) else {
        return (at, None);
    };
    let from = range.split_once('-').and_then(|(from, _)| from.parse().ok());
    (from.unwrap_or(at), total.parse().ok())
}

fn carried(error: Box<RegistryError>) -> io::Error {
    Error::from(error).into()
}
