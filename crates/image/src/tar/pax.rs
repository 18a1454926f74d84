//! pax extended headers (POSIX.1-2001): `LEN KEY=VALUE\n` records, read and written.

use super::Time;

/// What the records of one extended header say about the next entry.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Sparse,
}

/// GNU's sparse files in pax form: versions 0.0, 0.1 and 1.0.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    pub(super) in_data: bool,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    pub(super) map: Option<Vec<(u64, u64)>>,
    offset: Option<u64>,
}

const XATTR: &[u8] = b"SCHILY.xattr.";

impl Records {
    /// Parses the data of an extended header; an error says what is wrong.
    pub(super) fn parse(mut data: &[u8]) -> Result<Self, String> {
        let mut records = Self::default();
        // Some writers pad with NULs.
        while !data.is_empty() && data[0] != 0 {
            let (key, value, rest) = split(data).ok_or("malformed extended header record")?;
            records.set(key, value)?;
            data = rest;
        }
        Ok(records)
    }

    /// An empty value takes a record back; a value that makes no sense is refused,
    /// because another parser could read it otherwise.
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        if let Some(name) = key.strip_prefix(XATTR) {
            let bad = name.is_empty() || name.contains(&0);
            return if bad {
                Err("invalid extended attribute name".to_owned())
            } else {
                self.xattrs.push((name.to_vec(), value.to_vec()));
                Ok(())
            };
        }
        match key {
            b"path" => self.path = text(key, value)?,
            b"linkpath" => self.link = text(key, value)?,
            b"size" => self.size = number(key, value)?,
            b"uid" => self.uid = number(key, value)?,
            b"gid" => self.gid = number(key, value)?,
            b"mtime" => self.mtime = time(value)?,
            _ if key.starts_with(b"GNU.sparse.") => self.sparse.set(key, value)?,
            _ => {}
        }
        Ok(())
    }
}

impl Sparse {
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        match key {
            b"GNU.sparse.major" => match number(key, value)? {
                Some(0) => {}
                Some(1) => self.in_data = true,
                _ => return Err("unknown version of the sparse format".to_owned()),
            },
            b"GNU.sparse.name" => self.name = text(key, value)?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.real_size = number(key, value)?,
            b"GNU.sparse.map" => self.map = Some(map(value)?),
            b"GNU.sparse.offset" => self.offset = number(key, value)?,
            b"GNU.sparse.numbytes" => {
                let offset = self.offset.take().ok_or("sparse length without its offset")?;
                let length = number(key, value)?.ok_or("sparse length is empty")?;
                self.map.get_or_insert_default().push((offset, length));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Appends one record. Its length counts its own digits.
pub(super) fn append(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + digits(rest);
    if digits(len) != digits(rest) {
        len = rest + digits(len);
    }
    out.extend_from_slice(format!("{len} ").as_bytes());
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Appends an extended attribute.
pub(super) fn append_xattr(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    append(out, &[XATTR, name].concat(), value);
}

/// A decimal number without sign or blanks.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, byte| match byte {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

fn digits(mut n: usize) -> usize {
    let mut count = 1;
    while n >= 10 {
        n /= 10;
        count += 1;
    }
    count
}

fn split(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().take(20).position(|byte| *byte == b' ')?;
    let len = usize::try_from(decimal(&data[..space])?).ok()?;
    let record = data.get(space + 1..len)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    if key.is_empty() { None } else { Some((key, value, &data[len..])) }
}

fn text(key: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>, String> {
    match value {
        b"" => Ok(None),
        _ if value.contains(&0) => Err(format!("{} has a NUL", key.escape_ascii())),
        _ => Ok(Some(value.to_vec())),
    }
}

fn number(key: &[u8], value: &[u8]) -> Result<Option<u64>, String> {
    match value {
        b"" => Ok(None),
        _ => match decimal(value) {
            Some(number) => Ok(Some(number)),
            None => Err(format!("{} is not a number", key.escape_ascii())),
        },
    }
}

/// `[-]SECONDS[.FRACTION]`; digits below the nanosecond are dropped.
fn time(value: &[u8]) -> Result<Option<Time>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    let bad = || "mtime is not a time".to_owned();
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let (whole, fraction) = match value.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &b""[..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(bad());
    }
    let sec = decimal(whole).and_then(|sec| i64::try_from(sec).ok()).ok_or_else(bad)?;
    let nsec = (0..9)
        .fold(0, |sum, i| sum * 10 + fraction.get(i).map_or(0, |digit| u32::from(digit - b'0')));
    Ok(Some(match (negative, nsec) {
        (false, _) => Time { sec, nsec },
        (true, 0) => Time { sec: -sec, nsec },
        (true, _) => Time { sec: -sec - 1, nsec: 1_000_000_000 - nsec },
    }))
}

fn map(value: &[u8]) -> Result<Vec<(u64, u64)>, String> {
    let numbers: Option<Vec<u64>> = value.split(|byte| *byte == b',').map(decimal).collect();
    let numbers = numbers.ok_or("sparse map is not a list of numbers")?;
    if numbers.len() % 2 != 0 {
        return Err("sparse map has an odd length".to_owned());
    }
    Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for len in [1, 80, 90, 91, 92, 93, 94, 95, 96, 97, 980, 990, 995] {
            let (mut out, value) = (Vec::new(), vec![b'v'; len]);
            append(&mut out, b"path", &value);
            assert_eq!(split(&out), Some((&b"path"[..], &value[..], &b""[..])), "{len}");
        }
    }

    #[test]
    fn times_have_nanoseconds_on_both_sides_of_the_epoch() {
        for (text, sec, nsec) in [
            ("1.5", 1, 500_000_000),
            ("0.123456789123", 0, 123_456_789),
            ("-1.25", -2, 750_000_000),
            ("-3", -3, 0),
        ] {
            assert_eq!(time(text.as_bytes()), Ok(Some(Time { sec, nsec })), "{text}");
        }
        assert!(time(b"1e3").is_err() && time(b".").is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in
            [&b"5 a=b\n"[..], b"99 path=x\n", b"9 uid=-1\n", b"x", b"10 path=\0\0\n", b"6 =ab\n"]
        {
            assert!(Records::parse(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
