//! The streams of one process: its output to the log and to attached clients, the
//! clients' input to it.
//!
//! Nothing that the process wrote is lost: while a client has output waiting, the stream
//! is not read, and the process waits in turn. When the process has ended all that is
//! left in its pipes is read, however slow a client is.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Stream;
use super::client::{Client, Input};
use super::json_log::Log;
use crate::protocol::AttachRequest;

/// Bytes read from a stream at once.
const CHUNK: usize = 32 * 1024;

/// The monitor's ends of a process's streams.
#[derive(Debug)]
pub(super) struct Streams {
    tty: bool,
    outputs: Vec<Output>,
    input: Option<ProcessInput>,
    clients: Vec<Client>,
    log: Option<Log>,
    next_serial: u64,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Output {
    stream: Stream,
    fd: OwnedFd,
}

#[derive(Debug)]
struct ProcessInput {
    fd: OwnedFd,
    waiting: Vec<u8>,
    /// The first client that ends its input ends this one.
    once: bool,
    /// Close it when nothing waits any more.
    ending: bool,
}

/// One of the descriptors here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Output of the process.
    Output(Stream),
    /// Its input.
    Input,
    /// A client, by serial.
    Client(u64),
}

impl Streams {
    /// Streams of a process that writes to two pipes and reads from one.
    pub(super) fn of_pipes(
        stdout: OwnedFd,
        stderr: OwnedFd,
        stdin: Option<OwnedFd>,
        once: bool,
        log: Option<Log>,
    ) -> Result<Self, Errno> {
        let outputs = vec![
            Output { stream: Stream::Stdout, fd: nonblocking(stdout)? },
            Output { stream: Stream::Stderr, fd: nonblocking(stderr)? },
        ];
        let input = stdin.map(nonblocking).transpose()?.map(|fd| ProcessInput::new(fd, once));
        Ok(Self { tty: false, outputs, input, log, ..Self::empty() })
    }

    /// Streams of a process whose terminal is not there yet.
    pub(super) fn of_terminal(log: Option<Log>) -> Self {
        Self { tty: true, log, ..Self::empty() }
    }

    fn empty() -> Self {
        Self {
            tty: false,
            outputs: Vec::new(),
            input: None,
            clients: Vec::new(),
            log: None,
            next_serial: 0,
            buffer: Vec::new(),
        }
    }

    /// The terminal has come; `keep_input` is whether clients may type.
    pub(super) fn set_terminal(&mut self, master: OwnedFd, keep_input: bool) -> Result<(), Errno> {
        let master = nonblocking(master)?;
        if keep_input {
            self.input = Some(ProcessInput::new(rustix::io::dup(&master)?, false));
        }
        self.outputs = vec![Output { stream: Stream::Stdout, fd: master }];
        Ok(())
    }

    /// The terminal, while it is there.
    pub(super) fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.outputs.first().filter(|_| self.tty).map(|output| output.fd.as_fd())
    }

    /// One more client.
    pub(super) fn attach(&mut self, socket: OwnedFd, wants: AttachRequest) {
        self.next_serial += 1;
        self.clients.push(Client::new(self.next_serial, socket, wants, !self.tty));
    }

    /// End of file for the process, once it has read what waits.
    pub(super) fn close_input(&mut self) {
        if let Some(input) = &mut self.input {
            input.ending = true;
        }
        self.feed(&[]);
    }

    /// What to wait for now.
    pub(super) fn interests(&self) -> impl Iterator<Item = (Source, BorrowedFd<'_>, PollFlags)> {
        let behind = |stream| self.clients.iter().any(|c| c.is_behind() && c.takes(stream));
        let outputs = self
            .outputs
            .iter()
            .filter(move |output| !behind(output.stream))
            .map(|output| (Source::Output(output.stream), output.fd.as_fd(), PollFlags::IN));
        let waiting = self.input.as_ref().filter(|input| !input.waiting.is_empty());
        let input = waiting.map(|input| (Source::Input, input.fd.as_fd(), PollFlags::OUT));
        let room = waiting.is_none();
        let clients = self
            .clients
            .iter()
            .map(move |c| (Source::Client(c.serial), c.as_fd(), c.interest(room)));
        outputs.chain(input).chain(clients)
    }

    /// Something happened on one of them.
    pub(super) fn ready(&mut self, source: Source, flags: PollFlags) {
        match source {
            Source::Output(stream) => {
                self.read_output(stream);
            }
            Source::Input => self.feed(&[]),
            Source::Client(serial) => self.serve(serial, flags),
        }
        self.clients.retain(|client| !client.is_gone());
    }

    /// Reads all that the process has left behind. The log is complete afterwards.
    pub(super) fn drain(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            while self.read_output(stream) {}
        }
        self.outputs.clear();
        self.input = None;
        if let Some(log) = &mut self.log {
            log.finish();
        }
        self.dismiss();
    }

    /// After [`Streams::drain`]: clients that have everything see the end.
    pub(super) fn dismiss(&mut self) {
        let done = |client: &Client| !client.is_behind();
        self.clients.iter_mut().filter(|client| done(client)).for_each(Client::leave);
        self.clients.retain(|client| !client.is_gone());
    }

    /// Some client still waits for output.
    pub(super) fn has_clients(&self) -> bool {
        !self.clients.is_empty()
    }

    /// Reads one chunk and passes it on; false when there is nothing to read now.
    fn read_output(&mut self, stream: Stream) -> bool {
        let Some(at) = self.outputs.iter().position(|output| output.stream == stream) else {
            return false;
        };
        self.buffer.resize(CHUNK, 0);
        let length = match rustix::io::read(&self.outputs[at].fd, &mut self.buffer[..]) {
            Ok(length @ 1..) => length,
            Err(Errno::INTR) => return true,
            Err(Errno::AGAIN) => return false,
            // A terminal that nobody has open any more answers EIO.
            Ok(_) | Err(_) => {
                self.outputs.remove(at);
                return false;
            }
        };
        let bytes = &self.buffer[..length];
        if let Some(log) = &mut self.log {
            log.add(stream, bytes);
        }
        for client in self.clients.iter_mut().filter(|client| client.takes(stream)) {
            client.give(stream, bytes);
        }
        true
    }

    fn serve(&mut self, serial: u64, flags: PollFlags) {
        let Some(client) = self.clients.iter_mut().find(|client| client.serial == serial) else {
            return;
        };
        if flags.contains(PollFlags::OUT) {
            client.flush();
        }
        let hung_up = flags.intersects(PollFlags::HUP | PollFlags::ERR);
        if client.is_reading() && (hung_up || flags.contains(PollFlags::IN)) {
            self.take_input(serial, hung_up);
        }
        if hung_up && let Some(client) = self.clients.iter_mut().find(|c| c.serial == serial) {
            client.leave();
        }
    }

    /// One read, or all there is when the client has gone.
    fn take_input(&mut self, serial: u64, all: bool) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(CHUNK, 0);
        while let Some(client) = self.clients.iter_mut().find(|client| client.serial == serial) {
            match client.read(&mut buffer) {
                Input::Bytes(length) => self.feed(&buffer[..length]),
                Input::Nothing => break,
                Input::End => {
                    if self.input.as_ref().is_some_and(|input| input.once) {
                        self.close_input();
                    }
                    break;
                }
            }
            if !all {
                break;
            }
        }
        self.buffer = buffer;
    }

    /// Writes `bytes` to the process behind what waits already.
    fn feed(&mut self, bytes: &[u8]) {
        let Some(input) = &mut self.input else { return };
        input.waiting.extend_from_slice(bytes);
        let mut written = 0;
        while written < input.waiting.len() {
            match rustix::io::write(&input.fd, &input.waiting[written..]) {
                Ok(length) => written += length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    self.input = None;
                    return;
                }
            }
        }
        input.waiting.drain(..written);
        if input.waiting.is_empty() {
            input.waiting.shrink_to(CHUNK);
            if input.ending {
                self.input = None;
            }
        }
    }
}

impl ProcessInput {
    fn new(fd: OwnedFd, once: bool) -> Self {
        Self { fd, waiting: Vec::new(), once, ending: false }
    }
}

fn nonblocking(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    Ok(fd)
}
