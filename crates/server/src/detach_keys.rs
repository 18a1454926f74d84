//! The keys that detach a client from a terminal, `ctrl-p,ctrl-q` unless it chose
//! others, and finding them in what it types.

/// Detach keys as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DetachKeys(Vec<u8>);

/// A text that names no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid detach keys ({0}) provided")]
pub(crate) struct DetachKeysError(String);

/// Looks for the keys in typed bytes, over the borders of reads.
#[derive(Clone, Debug)]
pub(crate) struct Scanner {
    keys: DetachKeys,
    matched: usize,
}

/// What a piece of input holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// Pass these bytes on.
    Pass(Vec<u8>),
    /// Pass these bytes on, then detach.
    Detach(Vec<u8>),
}

impl Default for DetachKeys {
    fn default() -> Self {
        Self(vec![b'p' & 0x1f, b'q' & 0x1f])
    }
}

impl DetachKeys {
    /// Parses a comma list of characters and `ctrl-<a-z@[\]^_>`; empty is the default.
    pub(crate) fn parse(text: &str) -> Result<Self, DetachKeysError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let bad = || DetachKeysError(text.to_owned());
        text.split(',')
            .map(|key| match key.as_bytes() {
                [byte] => Some(*byte),
                b"DEL" => Some(127),
                [b'c', b't', b'r', b'l', b'-', key] => match key {
                    b'a'..=b'z' | b'@' | b'['..=b'_' => Some(key & 0x1f),
                    _ => None,
                },
                _ => None,
            })
            .collect::<Option<Vec<u8>>>()
            .map(Self)
            .ok_or_else(bad)
    }

    /// A scanner for these keys.
    pub(crate) fn scanner(self) -> Scanner {
        Scanner { keys: self, matched: 0 }
    }
}

impl Scanner {
    /// Takes the next bytes. Keys that may still become the sequence are held back.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Typed {
        let keys = &self.keys.0;
        let mut out = Vec::with_capacity(bytes.len() + self.matched);
        for byte in bytes {
            if *byte != keys[self.matched] {
                out.extend_from_slice(&keys[..self.matched]);
                self.matched = 0;
            }
            if *byte == keys[self.matched] {
                self.matched += 1;
            } else {
                out.push(*byte);
            }
            if self.matched == keys.len() {
                self.matched = 0;
                return Typed::Detach(out);
            }
        }
        Typed::Pass(out)
    }

    /// Whether these bytes can be passed on as they are.
    pub(crate) fn is_plain(&self, bytes: &[u8]) -> bool {
        self.matched == 0 && !bytes.contains(&self.keys.0[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_characters_or_control_characters() {
        assert_eq!(DetachKeys::parse(""), Ok(DetachKeys(vec![16, 17])));
        assert_eq!(DetachKeys::parse("ctrl-p,ctrl-q"), Ok(DetachKeys::default()));
        assert_eq!(
            DetachKeys::parse("ctrl-@,x,ctrl-_,DEL"),
            Ok(DetachKeys(vec![0, b'x', 31, 127]))
        );
        for bad in ["ctrl-", "ctrl-A", "ab", "a,,b", "ctrl-1"] {
            assert_eq!(DetachKeys::parse(bad), Err(DetachKeysError(bad.to_owned())));
        }
    }

    #[test]
    fn a_broken_sequence_is_passed_on_and_a_whole_one_is_not() {
        let mut scanner = DetachKeys::default().scanner();
        assert_eq!(scanner.feed(b"a\x10"), Typed::Pass(b"a".to_vec()));
        assert_eq!(scanner.feed(b"b"), Typed::Pass(b"\x10b".to_vec()));
        assert_eq!(scanner.feed(b"\x10\x10"), Typed::Pass(b"\x10".to_vec()));
        assert!(!scanner.is_plain(b"x"));
        assert_eq!(scanner.feed(b"\x11rest"), Typed::Detach(Vec::new()));
    }
}
