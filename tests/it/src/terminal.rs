//! A command at a terminal: a pty whose other side the test reads and types on.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Instant;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::wait::{patience, wait_for_exit};

/// Runs `command` at a terminal of `rows` by `columns`. Each of `talk` is a text to
/// wait for and what is typed then. Everything the terminal showed, and the exit code.
///
/// # Panics
/// When a text does not come or the command does not end.
#[track_caller]
pub fn in_terminal(
    mut command: Command,
    (rows, columns): (u16, u16),
    talk: &[(&str, &str)],
) -> (String, i32) {
    let (ours, theirs) = open_pair(rows, columns);
    let end = || Stdio::from(theirs.try_clone().unwrap());
    let mut child =
        command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    drop((theirs, command));
    let mut keyboard = File::from(ours.try_clone().unwrap());
    let (screen, shown) = channel();
    std::thread::spawn(move || {
        let mut ours = File::from(ours);
        let mut bytes = [0; 4096];
        // EIO when the last one at the other side is gone.
        while let Ok(length @ 1..) = ours.read(&mut bytes) {
            let _ = screen.send(bytes[..length].to_vec());
        }
    });
    let mut text = Vec::new();
    let deadline = Instant::now() + patience();
    let next = |text: &mut Vec<u8>| {
        let left = deadline.saturating_duration_since(Instant::now());
        shown.recv_timeout(left).map(|bytes| text.extend(bytes)).is_ok()
    };
    let mut seen = 0;
    for (wanted, typed) in talk {
        loop {
            let so_far = String::from_utf8_lossy(&text[seen..]).into_owned();
            if so_far.contains(wanted) {
                break;
            }
            assert!(next(&mut text), "{wanted:?} does not come; the terminal shows {so_far:?}");
        }
        seen = text.len();
        keyboard.write_all(typed.as_bytes()).unwrap();
    }
    let status = wait_for_exit(&mut child, patience());
    let _ = child.kill();
    while next(&mut text) {}
    let text = String::from_utf8_lossy(&text).into_owned();
    let status = status.unwrap_or_else(|| panic!("no end; the terminal shows {text:?}"));
    (text, status.code().unwrap_or(-1))
}

fn open_pair(rows: u16, columns: u16) -> (OwnedFd, OwnedFd) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let theirs = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(theirs.as_fd(), size).unwrap();
    (ours, theirs)
}
