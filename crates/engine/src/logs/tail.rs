//! Where reading a log begins: the files from the oldest that is needed to the
//! current one, each at the right place.
//!
//! The last N lines are found from the end, block by block, so that the tail of a
//! large log costs what it shows.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const BLOCK: u64 = 64 * 1024;

/// Opens the log's files, oldest first, so that at most the last `lines` lines are left
/// to read (all, when `None`).
pub(super) fn open(path: &Path, lines: Option<usize>) -> io::Result<Vec<File>> {
    let mut missing = lines;
    let mut files = Vec::new();
    for path in rotated(path) {
        if missing == Some(0) && !files.is_empty() {
            break;
        }
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if let Some(wanted) = missing.as_mut() {
            *wanted -= seek_lines(&mut file, *wanted)?;
        }
        files.push(file);
    }
    files.reverse();
    Ok(files)
}

/// The current file, then `.1`, `.2` … as far as there are any.
fn rotated(path: &Path) -> impl Iterator<Item = PathBuf> {
    let older = (1..).map({
        let path = path.to_owned();
        move |n| {
            let mut name = path.clone().into_os_string();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        }
    });
    std::iter::once(path.to_owned()).chain(older.take_while(|path| path.exists()))
}

/// Moves to the start of the last `wanted` lines; returns how many there are.
fn seek_lines(file: &mut File, wanted: usize) -> io::Result<usize> {
    let mut end = file.seek(SeekFrom::End(0))?;
    if wanted == 0 {
        return Ok(0);
    }
    let mut found = 0;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        block.clear();
        file.seek(SeekFrom::Start(start))?;
        Read::by_ref(file).take(end - start).read_to_end(&mut block)?;
        for (at, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            // The newline that ends the wanted part's predecessor.
            if found == wanted {
                file.seek(SeekFrom::Start(start + at as u64 + 1))?;
                return Ok(found);
            }
            found += 1;
        }
        end = start;
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(found.min(wanted))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn left(files: &mut [File]) -> String {
        let mut text = String::new();
        for file in files {
            file.read_to_string(&mut text).unwrap();
        }
        text
    }

    #[test]
    fn the_last_lines_are_found_over_rotated_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        File::create(&path).unwrap().write_all(b"3\n4\n").unwrap();
        File::create(dir.path().join("log.1")).unwrap().write_all(b"1\n2\n").unwrap();
        for (lines, want) in [
            (None, "1\n2\n3\n4\n"),
            (Some(0), ""),
            (Some(1), "4\n"),
            (Some(2), "3\n4\n"),
            (Some(3), "2\n3\n4\n"),
            (Some(9), "1\n2\n3\n4\n"),
        ] {
            assert_eq!(left(&mut open(&path, lines).unwrap()), want, "{lines:?}");
        }
    }

    #[test]
    fn lines_longer_than_a_block_are_found() {
        let mut file = tempfile::tempfile().unwrap();
        let long = "x".repeat(200_000);
        file.write_all(format!("{long}\n{long}\nlast\n").as_bytes()).unwrap();
        assert_eq!(seek_lines(&mut file, 2).unwrap(), 2);
        assert_eq!(left(&mut [file]).len(), 200_001 + 5);
    }
}
