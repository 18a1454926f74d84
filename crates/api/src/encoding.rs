//! Percent encoding of paths and query strings (RFC 3986, and `+` for a space in
//! queries), and the boolean words of Docker's forms.

use std::borrow::Cow;

/// Appends `text` so that it can stand in a path segment or a query value.
pub fn encode_into(out: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

/// `text` encoded for one path segment or query value.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    encode_into(&mut out, text);
    out
}

/// `path?key=value&…` with every value encoded; no `?` without pairs.
pub fn with_query(path: &str, pairs: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(path.len() + 16 * pairs.len());
    out.push_str(path);
    for (index, (key, value)) in pairs.iter().enumerate() {
        out.push(if index == 0 { '?' } else { '&' });
        out.push_str(key);
        out.push('=');
        encode_into(&mut out, value);
    }
    out
}

/// Undoes percent encoding of a path; bytes that are no UTF-8 are replaced.
pub fn decode_path(text: &str) -> Cow<'_, str> {
    decode(text, false)
}

/// The pairs of a query string, decoded, in their order.
pub fn query_pairs(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key, true).into_owned(), decode(value, true).into_owned())
        })
        .collect()
}

/// Docker's form booleans: everything is true but these words.
pub fn is_true(text: &str) -> bool {
    !["", "0", "no", "false", "none"].iter().any(|word| text.trim().eq_ignore_ascii_case(word))
}

fn decode(text: &str, plus_is_space: bool) -> Cow<'_, str> {
    if !text.bytes().any(|b| b == b'%' || (plus_is_space && b == b'+')) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'%' => match hex_pair(bytes.get(at..at + 2)) {
                Some(decoded) => {
                    out.push(decoded);
                    at += 2;
                }
                None => out.push(byte),
            },
            b'+' if plus_is_space => out.push(b' '),
            other => out.push(other),
        }
    }
    Cow::Owned(
        String::from_utf8(out)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()),
    )
}

fn hex_pair(digits: Option<&[u8]>) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    match digits? {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        let text = "a/b:c@d é+%&= ";
        assert_eq!(decode_path(&encode(text)), text);
        let query = with_query("", &[("filters", text), ("all", "1")]);
        let pairs = query_pairs(query.trim_start_matches('?'));
        assert_eq!(pairs, [("filters".into(), text.into()), ("all".into(), "1".to_owned())]);
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        assert_eq!(decode_path("%zz%4"), "%zz%4");
        assert_eq!(decode_path("a+b"), "a+b");
        assert_eq!(decode_path("%ff"), "\u{fffd}");
    }

    #[test]
    fn booleans_are_false_only_for_the_known_words() {
        assert!(["1", "true", "yes", "x"].iter().all(|t| is_true(t)));
        assert!(!["", "0", "No", "FALSE", "none"].iter().any(|t| is_true(t)));
    }
}
