//! Sending one blob (distribution spec, pushing blobs).
//!
//! An upload is begun, then takes the blob in one request, or in pieces. When the
//! connection breaks, the registry is asked how far it came and gets the rest; a
//! registry that doesn't know any more gets all of it anew. Each request needs the
//! `Location` of the answer before it, which may lead to another server.

use std::io::{self, Read};

use capsa_oci::Digest;
use ureq::http::Method;

use super::session::{Call, Outcome, Session};
use super::wait::Backoff;
use super::wire::{Answer, Payload, header};
use super::{Failure, RegistryError, Step};
use crate::{Error, Result};

/// Opens what is sent at an offset.
pub(super) type Open<'a> = dyn Fn(u64) -> Result<Box<dyn Read + Send + 'a>> + 'a;

/// One blob on its way.
pub(super) struct Upload<'a> {
    pub(super) session: &'a Session,
    pub(super) digest: &'a Digest,
    pub(super) size: u64,
    pub(super) open: &'a Open<'a>,
    /// Begun already, nothing sent.
    pub(super) location: Option<String>,
}

/// Where an upload stands.
struct Place {
    location: String,
    offset: u64,
}

/// Ends early, and remembers why: only the sender knows that its own end broke.
struct Piece<'a> {
    inner: Box<dyn Read + Send + 'a>,
    left: u64,
    failed: Option<io::Error>,
}

impl Upload<'_> {
    /// Sends it.
    pub(super) fn run(mut self) -> Result<()> {
        let mut backoff = self.session.backoff();
        let mut furthest = 0;
        let mut place = self.location.take().map(|location| Place { location, offset: 0 });
        let mut known = place.is_some();
        loop {
            let resumed = match place.take() {
                Some(place) if known => place,
                Some(place) => self.ask(place)?,
                None => self.begin()?,
            };
            known = false;
            if resumed.offset > furthest {
                furthest = resumed.offset;
                backoff.reset();
            }
            let was_resumed = resumed.offset > 0;
            match self.send(resumed, &mut place)? {
                Ok(()) => return Ok(()),
                Err(failed) if failed.is_passing() => self.pause(&mut backoff, failed)?,
                // Pieces that don't make the whole: once more from the start.
                Err(failed) if was_resumed => {
                    place = None;
                    self.pause(&mut backoff, failed)?;
                }
                Err(failed) => return Err(failed.into()),
            }
        }
    }

    fn step(&self) -> Step {
        Step::Upload(self.digest.clone())
    }

    fn pause(&self, backoff: &mut Backoff, failed: Box<RegistryError>) -> Outcome<()> {
        self.session.pause(backoff, failed)
    }

    fn begin(&self) -> Outcome<Place> {
        let url = self.session.url("blobs/uploads/");
        let mut call = Call::new(Method::POST, url, self.step());
        let answer = self.session.expect(&mut call, &[202])?;
        Ok(Place { location: location(self.session, &answer, &self.step())?, offset: 0 })
    }

    /// How far it came; from the start if that is not known.
    fn ask(&self, place: Place) -> Outcome<Place> {
        let mut call = Call::get(place.location.clone(), self.step());
        let answer = match self.session.expect(&mut call, &[200, 202, 204]) {
            Ok(answer) => answer,
            Err(error) if error.failure == Failure::Cancelled => return Err(error),
            Err(_) => return self.begin(),
        };
        match received(&answer) {
            Some(offset) if offset <= self.size => {
                let location =
                    location(self.session, &answer, &self.step()).unwrap_or(place.location);
                Ok(Place { location, offset })
            }
            _ => self.begin(),
        }
    }

    /// Sends the rest; `place` gets where it stands when that is known. The outer error
    /// is the sender's own.
    fn send(&self, mut at: Place, place: &mut Option<Place>) -> Result<Outcome<()>> {
        let chunk = self.session.client.config().chunk_bytes.filter(|bytes| *bytes > 0);
        if at.offset == 0 && chunk.is_none_or(|chunk| self.size <= chunk) {
            *place = Some(Place { location: at.location.clone(), offset: 0 });
            return self.put(&at.location, self.size);
        }
        while at.offset < self.size {
            *place = Some(Place { location: at.location.clone(), offset: at.offset });
            let left = self.size - at.offset;
            match self.patch(&at, chunk.unwrap_or(left).min(left))? {
                Ok(next) => at = next,
                Err(error) => return Ok(Err(error)),
            }
        }
        *place = Some(Place { location: at.location.clone(), offset: at.offset });
        self.put(&at.location, 0)
    }

    /// Ends the upload, with its last `length` bytes.
    fn put(&self, location: &str, length: u64) -> Result<Outcome<()>> {
        let url = super::url::with_query(location, "digest", self.digest.as_str());
        let call = Call::new(Method::PUT, url, self.step())
            .header("content-type", "application/octet-stream");
        let answer = self.stream(call, self.size - length, length, &[201, 204])?;
        Ok(answer.map(drop))
    }

    fn patch(&self, at: &Place, length: u64) -> Result<Outcome<Place>> {
        let last = at.offset + length - 1;
        let call = Call::new(Method::PATCH, at.location.clone(), self.step())
            .header("content-type", "application/octet-stream")
            .header("content-range", format!("{}-{last}", at.offset));
        let sent = self.stream(call, at.offset, length, &[202, 201, 204])?;
        Ok(sent.and_then(|answer| {
            let location = location(self.session, &answer, &self.step())?;
            let offset = received(&answer).unwrap_or(at.offset + length);
            if offset > at.offset && offset <= self.size {
                return Ok(Place { location, offset });
            }
            let text = format!("{length} bytes were sent from {}, it has {offset}", at.offset);
            Err(self.session.invalid(&self.step(), text))
        }))
    }

    fn stream(
        &self,
        call: Call<'_>,
        offset: u64,
        length: u64,
        wanted: &[u16],
    ) -> Result<Outcome<Answer>> {
        if length == 0 {
            let mut call = call;
            return Ok(self.session.expect(&mut call, wanted));
        }
        let mut piece = Piece { inner: (self.open)(offset)?, left: length, failed: None };
        let answer = {
            let mut call = call.payload(Payload::Stream(&mut piece, length));
            self.session.expect(&mut call, wanted)
        };
        match piece.failed {
            Some(error) => Err(Error::from_read(error)),
            None => Ok(answer),
        }
    }
}

impl Read for Piece<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let read = match self.inner.read(&mut buffer[..want]) {
            Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            other => other,
        };
        match read {
            Ok(n) => {
                self.left -= n as u64;
                Ok(n)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.failed = Some(error);
                Err(io::Error::other("what is to be sent can't be read"))
            }
        }
    }
}

/// Where the next request of an upload goes.
pub(super) fn location(session: &Session, answer: &Answer, step: &Step) -> Outcome<String> {
    let found = header(answer, "location").and_then(|location| session.locate(location));
    found.ok_or_else(|| session.invalid(step, "it does not say where the upload goes".to_owned()))
}

/// Bytes that the registry has: `0-99` is a hundred, and `0-0` none.
fn received(answer: &Answer) -> Option<u64> {
    let range = header(answer, "range")?;
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let last: u64 = range.split_once('-')?.1.trim().parse().ok()?;
    if last == 0 { Some(0) } else { last.checked_add(1) }
}
