//! One line of a json-file log, and how a client sees it.

use std::collections::BTreeMap;

use capsa_runtime::protocol::frame_header;
use jiff::Timestamp;
use serde::Deserialize;

use crate::options::LogOptions;

const STDOUT: u8 = 1;
const STDERR: u8 = 2;

/// A line as the monitor wrote it.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    log: String,
    stream: String,
    time: String,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

/// Reads one line; `None` when it is torn.
pub(super) fn parse(text: &[u8]) -> Option<Line> {
    serde_json::from_slice(text).ok()
}

impl Line {
    /// Whether it was written after `until_ns` (0: never).
    pub(super) fn is_after(&self, until_ns: i64) -> bool {
        until_ns != 0 && self.time_ns() > until_ns
    }

    /// Whether the client asked for it.
    pub(super) fn is_wanted(&self, options: &LogOptions) -> bool {
        let stream = if self.stream == "stderr" { options.stderr } else { options.stdout };
        stream && (options.since_ns == 0 || self.time_ns() >= options.since_ns)
    }

    /// Appends what the client sees: bytes for a terminal, a frame otherwise.
    pub(super) fn write(&self, options: &LogOptions, tty: bool, out: &mut Vec<u8>) {
        let start = out.len();
        if !tty {
            out.extend_from_slice(&[0; 8]);
        }
        let body = out.len();
        if options.timestamps {
            out.extend_from_slice(padded(&self.time).as_bytes());
            out.push(b' ');
        }
        if options.details {
            let words: Vec<String> = self.attrs.iter().map(|(k, v)| format!("{k}={v}")).collect();
            out.extend_from_slice(words.join(",").as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(self.log.as_bytes());
        if !tty {
            let stream = if self.stream == "stderr" { STDERR } else { STDOUT };
            let length = out.len() - body;
            out[start..body].copy_from_slice(&frame_header(stream, length));
        }
    }

    fn time_ns(&self) -> i64 {
        let time: Option<Timestamp> = self.time.parse().ok();
        time.and_then(|time| i64::try_from(time.as_nanosecond()).ok()).unwrap_or(0)
    }
}

/// The time with all nine digits of the nanoseconds, as Docker shows it.
fn padded(time: &str) -> String {
    let bare = time.strip_suffix('Z').unwrap_or(time);
    let (seconds, digits) = bare.split_once('.').unwrap_or((bare, ""));
    format!("{seconds}.{digits:0<9}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = br#"{"log":"hi\n","stream":"stderr","time":"2026-01-02T03:04:05.5Z"}"#;

    #[test]
    fn a_line_is_framed_with_its_stream_and_time() {
        let options = LogOptions { stderr: true, timestamps: true, ..LogOptions::default() };
        let mut out = Vec::new();
        parse(TEXT).unwrap().write(&options, false, &mut out);
        assert_eq!(out, b"\x02\0\0\0\0\0\0\x222026-01-02T03:04:05.500000000Z hi\n");
    }

    #[test]
    fn streams_and_times_choose_lines() {
        let line = parse(TEXT).unwrap();
        let at = line.time_ns();
        let both = LogOptions { stdout: true, stderr: true, ..LogOptions::default() };
        assert!(line.is_wanted(&both));
        assert!(!line.is_wanted(&LogOptions { since_ns: at + 1, ..both.clone() }));
        assert!(!line.is_wanted(&LogOptions { stderr: false, ..both }));
        assert!(line.is_after(at - 1) && !line.is_after(at) && !line.is_after(0));
        assert!(parse(b"{\"log\":\"torn").is_none());
    }
}
