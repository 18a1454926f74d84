//! What a verb shows: data on standard output, everything else on standard error.

pub(crate) mod format;
pub(crate) mod table;
pub(crate) mod terminal;
pub(crate) mod time;
pub(crate) mod units;

use std::io::{self, Write};

/// Writes to standard output, at once and whole. When nobody reads any more the
/// verb ends as if SIGPIPE had killed it.
pub(crate) fn out(bytes: &[u8]) {
    write_all(&mut io::stdout().lock(), bytes);
}

/// Writes to standard error.
pub(crate) fn err(bytes: &[u8]) {
    write_all(&mut io::stderr().lock(), bytes);
}

/// One line of data.
pub(crate) fn line(text: &str) {
    let mut bytes = Vec::with_capacity(text.len() + 1);
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(b'\n');
    out(&bytes);
}

/// One line for the user.
pub(crate) fn note(text: &str) {
    err(format!("{text}\n").as_bytes());
}

fn write_all(to: &mut impl Write, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return,
            Ok(written) => bytes = &bytes[written..],
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => terminal::wait_writable(),
                io::ErrorKind::BrokenPipe => std::process::exit(141),
                _ => return,
            },
        }
    }
    if let Err(error) = to.flush()
        && error.kind() == io::ErrorKind::BrokenPipe
    {
        std::process::exit(141);
    }
}
