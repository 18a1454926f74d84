//! The container's log file, one JSON object per line, as Docker's json-file driver
//! writes it.
//!
//! A line of the program is one entry with its newline; what is longer than 16 KiB is
//! cut into entries without one. Errors are swallowed: a full disk must not stop the
//! container, and there is nobody here to tell.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Stream;
use crate::protocol::LogPlan;

/// Longest piece of a line in one entry; bytes.
const PIECE_MAX: usize = 16 * 1024;

/// An open log file.
#[derive(Debug)]
pub(super) struct Log {
    plan: LogPlan,
    file: Option<File>,
    size: u64,
    /// `,"attrs":{…}` or nothing.
    attrs: String,
    lines: [Line; 2],
    /// Entries not yet written.
    text: Vec<u8>,
}

/// The unfinished line of one stream.
#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    /// When its first piece came, if pieces have been written.
    since: Option<String>,
}

impl Log {
    /// Opens the file for appending.
    pub(super) fn open(plan: &LogPlan) -> Self {
        let file = open(&plan.path, false);
        let size = file.as_ref().and_then(|f| f.metadata().ok()).map_or(0, |m| m.len());
        let attrs = match serde_json::to_string(&plan.attrs) {
            Ok(text) if !plan.attrs.is_empty() => format!(",\"attrs\":{text}"),
            _ => String::new(),
        };
        let lines = Default::default();
        Self { plan: plan.clone(), file, size, attrs, lines, text: Vec::new() }
    }

    /// Adds what a stream said; whole lines are in the file when this returns.
    pub(super) fn add(&mut self, stream: Stream, mut bytes: &[u8]) {
        let now = timestamp(now());
        let mut line = std::mem::take(&mut self.lines[stream.index()]);
        while !bytes.is_empty() {
            let room = PIECE_MAX - line.bytes.len();
            let within = &bytes[..bytes.len().min(room)];
            let (piece, ends) = match within.iter().position(|byte| *byte == b'\n') {
                Some(at) => (&within[..=at], true),
                None => (within, false),
            };
            bytes = &bytes[piece.len()..];
            if !ends && piece.len() < room {
                line.bytes.extend_from_slice(piece);
                break;
            }
            let time = line.since.as_deref().unwrap_or(&now);
            if line.bytes.is_empty() {
                self.entry(stream, piece, time);
            } else {
                line.bytes.extend_from_slice(piece);
                self.entry(stream, &line.bytes, time);
                line.bytes.clear();
            }
            line.since = if ends { None } else { Some(time.to_owned()) };
        }
        self.lines[stream.index()] = line;
        self.write();
    }

    /// Writes the unfinished lines: nothing more will come.
    pub(super) fn finish(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let line = std::mem::take(&mut self.lines[stream.index()]);
            if !line.bytes.is_empty() {
                let time = line.since.unwrap_or_else(|| timestamp(now()));
                self.entry(stream, &line.bytes, &time);
            }
        }
        self.write();
    }

    fn entry(&mut self, stream: Stream, piece: &[u8], time: &str) {
        if self.plan.max_bytes > 0 && self.size + self.text.len() as u64 >= self.plan.max_bytes {
            self.write();
            self.rotate();
        }
        self.text.extend_from_slice(b"{\"log\":\"");
        escape(piece, &mut self.text);
        self.text.extend_from_slice(b"\",\"stream\":\"");
        self.text.extend_from_slice(stream.name().as_bytes());
        self.text.push(b'"');
        self.text.extend_from_slice(self.attrs.as_bytes());
        self.text.extend_from_slice(b",\"time\":\"");
        self.text.extend_from_slice(time.as_bytes());
        self.text.extend_from_slice(b"\"}\n");
    }

    fn write(&mut self) {
        if let Some(file) = &mut self.file {
            let _ = file.write_all(&self.text);
        }
        self.size += self.text.len() as u64;
        self.text.clear();
        // One burst must not keep its memory for the life of the container.
        self.text.shrink_to(PIECE_MAX);
    }

    /// `log.1` becomes `log.2` and so on; the oldest goes.
    fn rotate(&mut self) {
        let name = |n: u32| {
            let mut name = self.plan.path.clone().into_os_string();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        let last = self.plan.max_files.saturating_sub(1);
        if last > 0 {
            let _ = fs::remove_file(name(last));
            for n in (1..last).rev() {
                let _ = fs::rename(name(n), name(n + 1));
            }
            let _ = fs::rename(&self.plan.path, name(1));
        }
        self.file = open(&self.plan.path, true);
        self.size = 0;
    }
}

fn open(path: &Path, empty: bool) -> Option<File> {
    let mut options = OpenOptions::new();
    let file = options.append(true).create(true).mode(0o640).open(path).ok()?;
    if empty {
        file.set_len(0).ok()?;
    }
    Some(file)
}

/// The inside of a JSON string, escaped as Go escapes it: also `<`, `>`, `&` and the two
/// line separators of Unicode. What is not UTF-8 becomes U+FFFD.
fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(at) = rest.find(needs_escape) {
            out.extend_from_slice(&rest.as_bytes()[..at]);
            let mut after = rest[at..].chars();
            if let Some(c) = after.next() {
                escape_char(c, out);
            }
            rest = after.as_str();
        }
        out.extend_from_slice(rest.as_bytes());
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

fn needs_escape(c: char) -> bool {
    c < ' ' || matches!(c, '"' | '\\' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}')
}

fn escape_char(c: char, out: &mut Vec<u8>) {
    match c {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        other => out.extend_from_slice(format!("\\u{:04x}", u32::from(other)).as_bytes()),
    }
}

/// Nanoseconds since the epoch.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// RFC 3339 in UTC with nanoseconds, without trailing zeros.
fn timestamp(ns: i64) -> String {
    let (seconds, nanos) = (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut text =
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}");
    let kept = text.trim_end_matches('0').trim_end_matches('.').len();
    text.truncate(kept);
    text.push('Z');
    text
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar:
/// counted in eras of 400 years from a 1 March, so that the leap day is the last.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temp(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("capsa-log-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn plan(dir: &Path, max_bytes: u64, max_files: u32) -> LogPlan {
        LogPlan { path: dir.join("log"), max_bytes, max_files, attrs: Default::default() }
    }

    fn entries(path: &Path) -> Vec<(String, String)> {
        let text = fs::read_to_string(path).unwrap();
        let entry = |line: &str| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            let field = |name: &str| value[name].as_str().unwrap().to_owned();
            (field("stream"), field("log"))
        };
        text.lines().map(entry).collect()
    }

    #[test]
    fn a_line_is_an_entry_however_it_arrives() {
        let dir = temp("lines");
        let mut log = Log::open(&plan(&dir, 0, 0));
        log.add(Stream::Stdout, b"one\ntw");
        log.add(Stream::Stderr, b"err\n");
        log.add(Stream::Stdout, b"o\nlast");
        log.finish();
        let pair = |stream: &str, text: &str| (stream.to_owned(), text.to_owned());
        assert_eq!(
            entries(&dir.join("log")),
            [
                pair("stdout", "one\n"),
                pair("stderr", "err\n"),
                pair("stdout", "two\n"),
                pair("stdout", "last")
            ]
        );
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_long_line_is_cut_and_keeps_its_time() {
        let dir = temp("long");
        let mut log = Log::open(&plan(&dir, 0, 0));
        let mut line = vec![b'x'; PIECE_MAX * 2 + 10];
        line.push(b'\n');
        for chunk in line.chunks(5000) {
            log.add(Stream::Stdout, chunk);
        }
        let text = fs::read_to_string(dir.join("log")).unwrap();
        let lengths: Vec<_> = entries(&dir.join("log")).iter().map(|(_, l)| l.len()).collect();
        assert_eq!(lengths, [PIECE_MAX, PIECE_MAX, 11]);
        let times: Vec<_> = text.lines().map(|l| l.split("time").nth(1).unwrap()).collect();
        assert!(times.windows(2).all(|pair| pair[0] == pair[1]));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn files_rotate_and_the_oldest_goes() {
        let dir = temp("rotate");
        let mut log = Log::open(&plan(&dir, 10, 3));
        for n in 0..5 {
            log.add(Stream::Stdout, format!("{n}\n").as_bytes());
        }
        let of = |name: &str| entries(&dir.join(name))[0].1.clone();
        assert_eq!([of("log"), of("log.1"), of("log.2")], ["4\n", "3\n", "2\n"]);
        assert!(!dir.join("log.3").exists());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        let mut out = Vec::new();
        escape(b"a\"\\\n\t<&>\x1b\xe2\x80\xa8\xff\xc3\xa9", &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"a\"\\\n\u0009\u003c\u0026\u003e\u001b\u2028\ufffdé"#
        );
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_400_000_000_000), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(1_709_251_199_120_000_000), "2024-02-29T23:59:59.12Z");
        assert_eq!(timestamp(4_107_542_399_000_000_001), "2100-02-28T23:59:59.000000001Z");
    }
}
