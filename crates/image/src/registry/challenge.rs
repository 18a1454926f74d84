//! `WWW-Authenticate` (RFC 9110, 11.6.1): what a registry wants to see. Pure.
//!
//! A header may hold several challenges and there may be several headers. A comma
//! separates challenges as well as the parameters of one, so a word is a scheme when
//! no `=` follows it.

/// Longest header that is looked at.
const HEADER_MAX: usize = 8 << 10;

/// One challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    /// Lower case.
    pub(super) scheme: String,
    /// Names in lower case, values unquoted.
    pub(super) params: Vec<(String, String)>,
}

impl Challenge {
    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The challenges in the values of these headers; what is not understood is left out.
pub(super) fn parse<'a>(headers: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    for header in headers {
        if header.len() <= HEADER_MAX {
            parse_one(header, &mut challenges);
        }
    }
    challenges
}

fn parse_one(mut rest: &str, challenges: &mut Vec<Challenge>) {
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            return;
        }
        let next = after.trim_start_matches([' ', '\t']);
        match next.strip_prefix('=') {
            Some(value) if !challenges.is_empty() => {
                let (value, after) = value_of(value.trim_start_matches([' ', '\t']));
                if let Some(challenge) = challenges.last_mut() {
                    challenge.params.push((word.to_ascii_lowercase(), value));
                }
                rest = after;
            }
            Some(_) => return,
            None => {
                let scheme = word.to_ascii_lowercase();
                challenges.push(Challenge { scheme, params: Vec::new() });
                rest = skip_token68(next);
            }
        }
    }
}

/// `Negotiate abc==` has no parameters but a blob, which nobody here reads.
fn skip_token68(rest: &str) -> &str {
    let blob = |c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c);
    let after = rest.trim_start_matches(blob).trim_start_matches('=');
    let end = after.trim_start_matches([' ', '\t']);
    if end.is_empty() || end.starts_with(',') { after } else { rest }
}

fn token(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !is_token(c)).unwrap_or(text.len());
    text.split_at(end)
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        // Some registries leave out the quotes around a URL.
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(header: &str) -> Vec<(String, Vec<(String, String)>)> {
        parse([header]).into_iter().map(|c| (c.scheme, c.params)).collect()
    }

    fn params(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_bearer_challenge_keeps_commas_and_escapes_in_its_quotes() {
        let header =
            r#"Bearer realm="https://a/token",service="r",scope="repository:x:pull,push \"q\"""#;
        let wanted = [
            ("realm", "https://a/token"),
            ("service", "r"),
            ("scope", "repository:x:pull,push \"q\""),
        ];
        assert_eq!(one(header), [("bearer".to_owned(), params(&wanted))]);
    }

    #[test]
    fn several_challenges_in_one_header_are_told_apart() {
        let header = r#"Negotiate, Basic realm="a, b" , bEARER Realm = "x", service=plain"#;
        let wanted = [
            ("negotiate".to_owned(), vec![]),
            ("basic".to_owned(), params(&[("realm", "a, b")])),
            ("bearer".to_owned(), params(&[("realm", "x"), ("service", "plain")])),
        ];
        assert_eq!(one(header), wanted);
        let both = parse([r#"Basic realm="a""#, r#"Bearer realm=http://x/y"#]);
        assert_eq!(both[1].param("realm"), Some("http://x/y"));
    }

    #[test]
    fn a_scheme_with_a_blob_does_not_hide_the_next() {
        let header = r#"NTLM TlRMTVNTUAAC==, Basic realm="a""#;
        let wanted = [("ntlm".to_owned(), vec![]), ("basic".to_owned(), params(&[("realm", "a")]))];
        assert_eq!(one(header), wanted);
    }

    #[test]
    fn nonsense_ends_without_a_challenge_or_a_panic() {
        for bad in [
            "",
            ",,,",
            "=",
            "a=b",
            "\u{e4}",
            "Bearer realm=\"",
            "Bearer realm=\"\\",
            "x \"",
            "Bearer =\"a\"",
        ] {
            parse([bad]);
        }
        assert!(one("realm=\"x\"").is_empty());
        assert_eq!(one(&"a ".repeat(8000)), []);
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_parsed_to_its_end(header in "\\PC{0,80}") {
            parse([header.as_str()]);
        }
    }
}
