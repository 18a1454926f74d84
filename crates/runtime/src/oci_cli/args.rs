//! Command lines of the OCI verbs: options, then words.
//!
//! Options end at the first word, at `--`, or at the end, as callers of such runtimes
//! expect; what follows belongs to the container. `--name value`, `--name=value`,
//! `-n value`, `-name` and joined short flags are all accepted.

use std::path::PathBuf;

use crate::{Error, Result};

/// An option that a verb knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opt {
    long: &'static str,
    short: Option<char>,
    takes_value: bool,
}

/// An option without a value.
pub(super) const fn flag(long: &'static str) -> Opt {
    Opt { long, short: None, takes_value: false }
}

/// An option with a value.
pub(super) const fn value(long: &'static str) -> Opt {
    Opt { long, short: None, takes_value: true }
}

impl Opt {
    /// Also with one letter.
    pub(super) const fn or(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }
}

/// What a command line says.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    options: Vec<(&'static str, String)>,
    /// The words after the options.
    pub(super) words: Vec<String>,
}

/// Reads `args` by the options that the verb `known`s.
pub(super) fn parse(args: &[String], known: &[Opt]) -> Result<Parsed> {
    let mut parsed = Parsed::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let Some(name) = arg.strip_prefix('-').filter(|name| !name.is_empty()) else {
            parsed.words.push(arg.clone());
            break;
        };
        if name == "-" {
            break;
        }
        let name = name.strip_prefix('-').unwrap_or(name);
        let (name, inline) = match name.split_once('=') {
            Some((name, inline)) => (name, Some(inline.to_owned())),
            None => (name, None),
        };
        for (option, last) in find(known, name, arg.starts_with("--"))? {
            let text = match (option.takes_value && last, &inline) {
                (_, Some(inline)) => inline.clone(),
                (false, None) => "true".to_owned(),
                (true, None) => args
                    .next()
                    .cloned()
                    .ok_or_else(|| Error::invalid(arg.as_str(), "it needs a value"))?,
            };
            parsed.options.push((option.long, text));
        }
    }
    parsed.words.extend(args.cloned());
    Ok(parsed)
}

/// The option called `name`, or the flags that its letters are; the last may take a value.
fn find<'a>(known: &'a [Opt], name: &str, long_only: bool) -> Result<Vec<(&'a Opt, bool)>> {
    if let Some(option) = known.iter().find(|option| option.long == name) {
        return Ok(vec![(option, true)]);
    }
    let unknown = || Error::invalid(format!("option {name:?}"), "not known");
    if long_only {
        return Err(unknown());
    }
    let letters: Vec<char> = name.chars().collect();
    let by_letter = |(at, letter): (usize, &char)| {
        let option = known.iter().find(|option| option.short == Some(*letter))?;
        let last = at + 1 == letters.len();
        (last || !option.takes_value).then_some((option, last))
    };
    letters.iter().enumerate().map(by_letter).collect::<Option<_>>().ok_or_else(unknown)
}

impl Parsed {
    /// The flag was given, and not with `=false`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some_and(|text| text != "false" && text != "0")
    }

    /// The option's last value.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find(|(known, _)| *known == name).map(|(_, text)| text.as_str())
    }

    /// All of the option's values, in order.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let given = self.options.iter().filter(move |(known, _)| *known == name);
        given.map(|(_, text)| text.as_str())
    }

    /// The option as an absolute path.
    pub(super) fn path(&self, name: &str) -> Result<Option<PathBuf>> {
        let absolute = |text: &str| {
            std::path::absolute(text)
                .map_err(|e| Error::invalid(format!("--{name} {text}"), e.to_string()))
        };
        self.get(name).filter(|text| !text.is_empty()).map(absolute).transpose()
    }

    /// The option as a number.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        let parse = |text: &str| {
            text.parse().map_err(|_| Error::invalid(format!("--{name} {text}"), "not a number"))
        };
        self.get(name).map(parse).transpose()
    }

    /// The first word, which names the container.
    pub(super) fn id(&self) -> Result<&str> {
        match self.words.first() {
            Some(id) => Ok(id),
            None => Err(Error::invalid("container id", "it is missing")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [Opt; 4] =
        [flag("detach").or('d'), flag("tty").or('t'), value("env").or('e'), value("root")];

    fn read(line: &str) -> Result<Parsed> {
        let args: Vec<String> = line.split_ascii_whitespace().map(ToOwned::to_owned).collect();
        parse(&args, &KNOWN)
    }

    #[test]
    fn options_end_at_the_first_word() {
        let parsed = read("-d --env A=1 -e B=2 -root=/x id ls -d --root y").unwrap();
        assert!(parsed.has("detach"));
        assert_eq!(parsed.all("env").collect::<Vec<_>>(), ["A=1", "B=2"]);
        assert_eq!(parsed.get("root"), Some("/x"));
        assert_eq!(parsed.words, ["id", "ls", "-d", "--root", "y"]);
    }

    #[test]
    fn letters_can_be_joined_and_flags_denied() {
        let parsed = read("-dte A=1 --detach=false -- -x").unwrap();
        assert!(parsed.has("tty") && !parsed.has("detach"));
        assert_eq!(parsed.get("env"), Some("A=1"));
        assert_eq!(parsed.id().unwrap(), "-x");
    }

    #[test]
    fn what_is_not_known_is_said() {
        for line in ["--nonsense", "-x", "-ed A", "--env"] {
            assert!(read(line).is_err(), "{line}");
        }
        assert!(read("").unwrap().id().is_err());
        assert!(read("--root x").unwrap().number::<u32>("root").is_err());
    }
}
