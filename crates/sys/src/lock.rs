//! Waiting for a file lock, but not for ever.
//!
//! A lock belongs to the open file, and so to every process that has it open. A daemon
//! that is killed while it starts a program leaves its locks to that process until the
//! program runs: whoever comes after it has to wait for a moment.

use std::fs::File;
use std::io;
use std::sync::mpsc::channel;
use std::time::Duration;

/// Longer than any process needs from its birth to its program.
pub const MOMENT: Duration = Duration::from_secs(3);

/// Locks `file` exclusively, when whoever has it locked lets go within `time`; then it
/// comes back. flock(2).
pub fn within(file: File, time: Duration) -> io::Result<Option<File>> {
    match file.try_lock() {
        Ok(()) => return Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => {}
        Err(std::fs::TryLockError::Error(error)) => return Err(error),
    }
    let (done, outcome) = channel();
    // flock(2) knows no time limit: the thread of one that ran out waits on, and lets go
    // at once when it gets the lock.
    std::thread::spawn(move || {
        let locked = file.lock();
        let _ = done.send(locked.map(|()| file));
    });
    outcome.recv_timeout(time).ok().transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &std::path::Path) -> File {
        File::options().create(true).truncate(false).write(true).open(path).unwrap()
    }

    #[test]
    fn a_lock_is_waited_for_but_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = open(&path);
        held.lock().unwrap();
        assert!(within(open(&path), Duration::from_millis(20)).unwrap().is_none());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| within(open(&path), MOMENT).unwrap());
            drop(held);
            assert!(waiting.join().unwrap().is_some());
        });
    }
}
