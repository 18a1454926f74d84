//! Names wanted: equal, or matching an unanchored regular expression; and the
//! globs of image references.

use regex_lite::Regex;

/// One value of a `name` filter.
pub(crate) enum NamePattern {
    /// No special characters: part of the name.
    Part(String),
    /// A regular expression.
    Regex(Regex),
    /// Neither, because it doesn't compile: only equal names fit.
    Equal(String),
}

impl NamePattern {
    pub(crate) fn new(text: &str) -> Self {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'/');
        if text.bytes().all(plain) {
            return Self::Part(text.to_owned());
        }
        Regex::new(text).map_or_else(|_| Self::Equal(text.to_owned()), Self::Regex)
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        match self {
            Self::Part(part) => name.contains(part),
            Self::Regex(regex) => regex.is_match(name),
            Self::Equal(text) => name == text,
        }
    }
}

/// Whether `text` matches a shell pattern with `*`, `?` and `[a-z]`; none of them
/// matches a slash.
pub(crate) fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len())
            .take_while(|end| !text[..*end].contains(&b'/'))
            .any(|end| glob(rest, &text[end..])),
        Some((b'[', class)) => match (class.iter().position(|b| *b == b']'), text.split_first()) {
            (Some(end), Some((byte, tail))) if *byte != b'/' => {
                in_class(&class[..end], *byte) && glob(&class[end + 1..], tail)
            }
            _ => false,
        },
        Some((wanted, rest)) => match text.split_first() {
            Some((byte, tail)) => {
                (wanted == byte || (*wanted == b'?' && *byte != b'/')) && glob(rest, tail)
            }
            None => false,
        },
    }
}

fn in_class(class: &[u8], byte: u8) -> bool {
    let (negated, mut class) = match class.split_first() {
        Some((b'^', rest)) => (true, rest),
        _ => (false, class),
    };
    let mut found = false;
    while let Some((first, rest)) = class.split_first() {
        class = match rest {
            [b'-', last, rest @ ..] => {
                found |= (*first..=*last).contains(&byte);
                rest
            }
            _ => {
                found |= *first == byte;
                rest
            }
        };
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_in_part_or_by_expression() {
        assert!(NamePattern::new("web").matches("my_web_1"));
        assert!(NamePattern::new("^/?web$").matches("/web"));
        assert!(!NamePattern::new("^web$").matches("web1"));
        assert!(NamePattern::new("a.c").matches("abc"));
        assert!(NamePattern::new("(").matches("(") && !NamePattern::new("(").matches("(("));
    }

    #[test]
    fn globs_stop_at_slashes() {
        let fits = |pattern: &str, text: &str| glob(pattern.as_bytes(), text.as_bytes());
        assert!(fits("busy*", "busybox") && fits("*:latest", "x:latest") && fits("b?x", "box"));
        assert!(!fits("*", "a/b") && fits("*/*", "a/b") && !fits("b", "box"));
        assert!(fits("[a-c]x", "bx") && !fits("[^a-c]x", "bx") && !fits("[a", "a"));
    }
}
