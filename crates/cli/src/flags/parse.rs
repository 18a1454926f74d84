//! Reads the words after a verb into `Matches`, with pflag's rules.
//!
//! `--name value`, `--name=value`, `-n value`, `-nvalue`, `-n=value`, `-abn value`;
//! a switch takes a value only after `=`; `--` ends the flags; a verb that is not
//! interspersed ends them at its first argument.

use super::{Arity, Command, Flag, Kind, Matches, usage_line};
use crate::failure::Failure;

/// Why parsing ended without something to run.
pub(crate) enum Stop {
    /// The help text was asked for.
    Help,
    /// The words make no sense.
    Wrong(Failure),
}

/// Reads `words` for `command`, which was called `name`.
pub(crate) fn parse(command: &Command, name: &str, words: &[String]) -> Result<Matches, Stop> {
    let mut matches = Matches::default();
    let mut at = 0;
    while at < words.len() {
        let word = &words[at];
        at += 1;
        if word == "--" {
            matches.args.extend_from_slice(&words[at..]);
            break;
        }
        let used = if let Some(long) = word.strip_prefix("--") {
            read_long(command, long, &words[at..], &mut matches)
        } else if word.len() > 1 && word.starts_with('-') {
            read_short(command, &word[1..], &words[at..], &mut matches)
        } else {
            matches.args.push(word.clone());
            if !command.interspersed {
                matches.args.extend_from_slice(&words[at..]);
                break;
            }
            Ok(0)
        };
        at += used.map_err(|wrong| match wrong {
            Wrong::Help => Stop::Help,
            Wrong::Text(text) => Stop::Wrong(flag_failure(command, name, &text)),
        })?;
    }
    check_arity(command, name, matches.args.len())?;
    Ok(matches)
}

enum Wrong {
    Help,
    Text(String),
}

/// Reads what follows `--`; says how many further words it used.
fn read_long(
    command: &Command,
    word: &str,
    rest: &[String],
    matches: &mut Matches,
) -> Result<usize, Wrong> {
    let (long, value) = match word.split_once('=') {
        Some((long, value)) => (long, Some(value)),
        None => (word, None),
    };
    if long == "help" {
        return Err(Wrong::Help);
    }
    let flag =
        command.by_long(long).ok_or_else(|| Wrong::Text(format!("unknown flag: --{long}")))?;
    match (flag.kind, value, rest.first()) {
        (_, Some(value), _) => store(flag, value, matches).map(|()| 0),
        (Kind::Bool, None, _) => store(flag, "true", matches).map(|()| 0),
        (_, None, Some(next)) => store(flag, next, matches).map(|()| 1),
        (_, None, None) => Err(Wrong::Text(format!("flag needs an argument: --{long}"))),
    }
}

/// Reads what follows one `-`; says how many further words it used.
fn read_short(
    command: &Command,
    letters: &str,
    rest: &[String],
    matches: &mut Matches,
) -> Result<usize, Wrong> {
    let mut tail = letters;
    while let Some(letter) = tail.chars().next() {
        let after = &tail[letter.len_utf8()..];
        let Some(flag) = command.by_short(letter) else {
            if letter == 'h' {
                return Err(Wrong::Help);
            }
            return Err(Wrong::Text(format!("unknown shorthand flag: '{letter}' in -{tail}")));
        };
        if let Some(value) = after.strip_prefix('=') {
            return store(flag, value, matches).map(|()| 0);
        }
        if flag.kind == Kind::Bool {
            store(flag, "true", matches)?;
            tail = after;
            continue;
        }
        if !after.is_empty() {
            return store(flag, after, matches).map(|()| 0);
        }
        let Some(next) = rest.first() else {
            return Err(Wrong::Text(format!("flag needs an argument: '{letter}' in -{tail}")));
        };
        return store(flag, next, matches).map(|()| 1);
    }
    Ok(0)
}

fn store(flag: &'static Flag, value: &str, matches: &mut Matches) -> Result<(), Wrong> {
    if let Some(check) = flag.check {
        check(value).map_err(|why| {
            let shown = match flag.short {
                Some(letter) => format!("-{letter}, --{}", flag.long),
                None => format!("--{}", flag.long),
            };
            Wrong::Text(format!("invalid argument {value:?} for \"{shown}\" flag: {why}"))
        })?;
    }
    matches.push(flag.stored_as, value);
    Ok(())
}

/// A wrong flag ends with 125 whatever the verb.
fn flag_failure(command: &Command, name: &str, text: &str) -> Failure {
    Failure::new(
        125,
        format!(
            "{text}\n\n{}\n\nRun 'capsa {name} --help' for more information",
            usage_line(command, name)
        ),
    )
}

fn check_arity(command: &Command, name: &str, given: usize) -> Result<(), Stop> {
    let plural = |count: usize| if count == 1 { "argument" } else { "arguments" };
    let wanted = match command.arity {
        Arity::None if given > 0 => "accepts no arguments".to_owned(),
        Arity::Exactly(count) if given != count => {
            format!("requires {count} {}", plural(count))
        }
        Arity::AtLeast(count) if given < count => {
            format!("requires at least {count} {}", plural(count))
        }
        Arity::AtMost(count) if given > count => {
            format!("requires at most {count} {}", plural(count))
        }
        Arity::Range(from, to) if given < from || given > to => {
            format!("requires at least {from} and at most {to} {}", plural(to))
        }
        _ => return Ok(()),
    };
    let look = if matches!(command.arity, Arity::AtLeast(_)) { "See" } else { "Run" };
    Err(Stop::Wrong(Failure::new(
        1,
        format!(
            "capsa: 'capsa {name}' {wanted}\n\n{}\n\n{look} 'capsa {name} --help' for more information",
            usage_line(command, name)
        ),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::find;

    fn read(words: &[&str]) -> Result<Matches, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let found = find(&words).map_err(|_| "no such verb".to_owned())?;
        parse(found.command, &found.name, &words[found.used..]).map_err(|stop| match stop {
            Stop::Help => "help".to_owned(),
            Stop::Wrong(failure) => failure.text.lines().next().unwrap_or_default().to_owned(),
        })
    }

    #[test]
    fn letters_combine_and_carry_values() {
        let matches =
            read(&["run", "-itp80:80", "-e=A=1", "-eB", "--rm=false", "img", "-x"]).unwrap();
        assert!(matches.flag("interactive") && matches.flag("tty"));
        assert!(!matches.flag("rm") && matches.given("rm"));
        assert_eq!(matches.list("publish"), ["80:80"]);
        assert_eq!(matches.list("env"), ["A=1", "B"]);
        assert_eq!(matches.args, ["img", "-x"]);
    }

    #[test]
    fn a_verb_that_runs_a_command_leaves_its_flags_alone() {
        let matches = read(&["run", "--name", "n", "img", "sh", "-c", "--rm", "--help"]).unwrap();
        assert_eq!(matches.args, ["img", "sh", "-c", "--rm", "--help"]);
        let matches = read(&["rm", "a", "-f", "b", "--", "-v"]).unwrap();
        assert!(matches.flag("force"));
        assert_eq!(matches.args, ["a", "b", "-v"]);
    }

    #[test]
    fn wrong_words_are_named() {
        let wrong = |words: &[&str]| read(words).err().unwrap_or_default();
        assert_eq!(wrong(&["run", "--foo", "x"]), "unknown flag: --foo");
        assert_eq!(wrong(&["run", "-iZ", "x"]), "unknown shorthand flag: 'Z' in -Z");
        assert_eq!(wrong(&["run", "-m"]), "flag needs an argument: 'm' in -m");
        assert_eq!(
            wrong(&["run", "-m", "abc", "x"]),
            "invalid argument \"abc\" for \"-m, --memory\" flag: invalid size: 'abc'"
        );
        assert_eq!(
            wrong(&["run", "--rm=maybe", "x"]),
            "invalid argument \"maybe\" for \"--rm\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax"
        );
        assert_eq!(wrong(&["run"]), "capsa: 'capsa run' requires at least 1 argument");
        assert_eq!(wrong(&["ps", "x"]), "capsa: 'capsa ps' accepts no arguments");
        assert_eq!(wrong(&["tag", "x"]), "capsa: 'capsa tag' requires 2 arguments");
        assert_eq!(wrong(&["ps", "--help"]), "help");
    }
}
