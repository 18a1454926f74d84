//! The keys that leave a terminal without ending its process: `ctrl-p,ctrl-q` unless
//! chosen otherwise.

/// A key sequence, and how much of it has been typed.
#[derive(Clone, Debug)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    typed: usize,
}

impl DetachKeys {
    /// Reads a list such as `ctrl-p,q`; nothing given means the usual keys.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, String> {
        let text = text.filter(|text| !text.is_empty()).unwrap_or("ctrl-p,ctrl-q");
        let keys = text.split(',').map(key).collect::<Result<Vec<u8>, String>>()?;
        Ok(Self { keys, typed: 0 })
    }

    /// What of the typed bytes is passed on, and whether the keys are complete.
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut pass = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if self.keys.get(self.typed) == Some(byte) {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    return (pass, true);
                }
                continue;
            }
            pass.extend_from_slice(&self.keys[..self.typed]);
            self.typed = usize::from(self.keys.first() == Some(byte));
            if self.typed == 0 {
                pass.push(*byte);
            }
        }
        (pass, false)
    }
}

fn key(text: &str) -> Result<u8, String> {
    let mut chars = text.chars();
    if let (Some(c), None) = (chars.next(), chars.next())
        && c.is_ascii()
    {
        return Ok(c as u8);
    }
    let lower = text.to_ascii_lowercase();
    match lower.strip_prefix("ctrl-").map(str::as_bytes) {
        Some([letter @ b'a'..=b'z']) => Ok(letter - b'a' + 1),
        Some(b"@") => Ok(0),
        Some([mark @ (b'[' | b'\\' | b']' | b'^' | b'_')]) => Ok(mark - 64),
        _ if lower == "del" => Ok(127),
        _ => Err(format!("invalid detach keys: unknown character: '{text}'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_sequence_detaches() {
        let mut keys = DetachKeys::parse(None).unwrap();
        assert_eq!(keys.scan(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.scan(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(keys.scan(b"\x10\x10\x11x"), (b"\x10".to_vec(), true));
        let mut keys = DetachKeys::parse(Some("ctrl-@,x,DEL")).unwrap();
        assert_eq!(keys.scan(b"\0x\x7f"), (Vec::new(), true));
        assert!(DetachKeys::parse(Some("ctrl-1")).is_err());
        assert!(DetachKeys::parse(Some("ab")).is_err());
    }
}
