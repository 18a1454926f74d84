//! The command line as data: what a verb is called, which flags it takes, how
//! many arguments it wants.
//!
//! Docker's own flags follow the POSIX-and-GNU habits of Go's pflag, and scripts
//! lean on its corners: `--rm=false`, `-itp80:80`, a verb that stops reading flags at
//! its first argument, the words of an unknown flag's message. The tables are
//! constants and nothing is built at start-up: a verb pays only for the flags
//! that were typed.
//!
//! Not here: what the flags mean. Each verb reads its own `Matches`.

mod help;
mod matches;
mod parse;
pub(crate) mod values;

pub(crate) use help::{command_help, options, usage_line};
pub(crate) use matches::Matches;
pub(crate) use parse::{Stop, parse};

use crate::verbs::Verb;

/// Says whether a value is acceptable, in the words to show when it isn't.
pub(crate) type Check = fn(&str) -> Result<(), String>;

/// What kind of value a flag takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// None, or `=true` / `=false`.
    Bool,
    /// One value (the last one wins), shown as this word in the help text.
    One(&'static str),
    /// Any number of values, shown as this word in the help text.
    Many(&'static str),
}

/// One flag of a verb.
#[derive(Clone, Copy)]
pub(crate) struct Flag {
    /// Name after the two dashes.
    pub(crate) long: &'static str,
    /// Letter after one dash.
    pub(crate) short: Option<char>,
    /// Value it takes.
    pub(crate) kind: Kind,
    /// One line for the help text.
    pub(crate) help: &'static str,
    /// Applied to each value as it is read.
    pub(crate) check: Option<Check>,
    /// Not shown in the help text.
    pub(crate) hidden: bool,
    /// The name under which values are stored (differs for a hidden synonym).
    pub(crate) stored_as: &'static str,
}

impl Flag {
    const fn new(long: &'static str, kind: Kind, help: &'static str) -> Self {
        Self { long, short: None, kind, help, check: None, hidden: false, stored_as: long }
    }

    /// A switch.
    pub(crate) const fn switch(long: &'static str, help: &'static str) -> Self {
        let mut flag = Self::new(long, Kind::Bool, help);
        flag.check = Some(values::check_bool);
        flag
    }

    /// A flag with one text value.
    pub(crate) const fn text(long: &'static str, help: &'static str) -> Self {
        Self::new(long, Kind::One("string"), help)
    }

    /// A flag with one signed number.
    pub(crate) const fn int(long: &'static str, help: &'static str) -> Self {
        let mut flag = Self::new(long, Kind::One("int"), help);
        flag.check = Some(values::check_int);
        flag
    }

    /// A flag with one size such as `64m`.
    pub(crate) const fn bytes(long: &'static str, help: &'static str) -> Self {
        let mut flag = Self::new(long, Kind::One("bytes"), help);
        flag.check = Some(values::check_size);
        flag
    }

    /// A flag with one span of time such as `1m30s`.
    pub(crate) const fn duration(long: &'static str, help: &'static str) -> Self {
        let mut flag = Self::new(long, Kind::One("duration"), help);
        flag.check = Some(values::check_duration);
        flag
    }

    /// A flag that may be given often.
    pub(crate) const fn list(long: &'static str, help: &'static str) -> Self {
        Self::new(long, Kind::Many("list"), help)
    }

    /// A flag that may be given often, each time with `key=value`.
    pub(crate) const fn map(long: &'static str, help: &'static str) -> Self {
        Self::new(long, Kind::Many("map"), help)
    }

    /// The usual `--filter key=value`.
    pub(crate) const fn filter(help: &'static str) -> Self {
        let mut flag = Self::new("filter", Kind::Many("filter"), help);
        flag.short = Some('f');
        flag.check = Some(values::check_filter);
        flag
    }

    /// Adds the letter.
    pub(crate) const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }

    /// Takes the letter away.
    pub(crate) const fn no_short(mut self) -> Self {
        self.short = None;
        self
    }

    /// Shows another word for the value.
    pub(crate) const fn word(mut self, word: &'static str) -> Self {
        self.kind = match self.kind {
            Kind::Many(_) => Kind::Many(word),
            _ => Kind::One(word),
        };
        self
    }

    /// Adds a check.
    pub(crate) const fn check(mut self, check: Check) -> Self {
        self.check = Some(check);
        self
    }

    /// Makes it an unlisted synonym of `other`.
    pub(crate) const fn same_as(mut self, other: &'static str) -> Self {
        self.hidden = true;
        self.stored_as = other;
        self
    }

    /// Leaves it out of the help text.
    pub(crate) const fn hide(mut self) -> Self {
        self.hidden = true;
        self
    }
}

/// How many arguments a verb takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arity {
    /// None.
    None,
    /// Exactly so many.
    Exactly(usize),
    /// So many or more.
    AtLeast(usize),
    /// Not more than so many.
    AtMost(usize),
    /// From, to.
    Range(usize, usize),
    /// Any number.
    Any,
}

/// One verb.
pub(crate) struct Command {
    /// Every spelling, the grouped one first: `["container ls", "container list", "ps"]`.
    pub(crate) names: &'static [&'static str],
    /// What follows the name in the usage line.
    pub(crate) usage: &'static str,
    /// One line of what it does.
    pub(crate) about: &'static str,
    /// Its flags, in groups that verbs can share.
    pub(crate) flags: &'static [&'static [Flag]],
    /// Arguments it takes.
    pub(crate) arity: Arity,
    /// Whether flags may follow arguments.
    pub(crate) interspersed: bool,
    /// Does it.
    pub(crate) run: Verb,
}

impl Command {
    /// The flag with this name.
    pub(crate) fn by_long(&self, long: &str) -> Option<&'static Flag> {
        self.flags.iter().flat_map(|group| group.iter()).find(|flag| flag.long == long)
    }

    /// The flag with this letter.
    pub(crate) fn by_short(&self, letter: char) -> Option<&'static Flag> {
        self.flags.iter().flat_map(|group| group.iter()).find(|flag| flag.short == Some(letter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::find;

    /// Flags of Docker's that make no sense here, or have no engine behind them yet;
    /// typing one is an error that names it.
    const REFUSED: [&str; 17] = [
        "availability",
        "group",
        "limit-bytes",
        "required-bytes",
        "scope",
        "secret",
        "sharing",
        "topology-preferred",
        "topology-required",
        "type",
        "cache-from",
        "compress",
        "isolation",
        "squash",
        "security-opt",
        "force-rm",
        "rm",
    ];

    /// Verb, letter, name and kind of every flag of Docker's command line 28.2.2.
    #[test]
    fn flags_are_those_of_the_docker_command_line() {
        let known = include_str!("../../tests/fixtures/flags.tsv");
        let mut wrong = Vec::new();
        for line in known.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let [verb, letter, long, kind] = fields[..] else { panic!("{line}") };
            let words: Vec<String> = verb.split(' ').map(str::to_owned).collect();
            let command = find(&words).map(|found| found.command).unwrap();
            let builds = verb.ends_with("build");
            let Some(flag) = command.by_long(long) else {
                let refused = (verb == "volume create" || builds) && REFUSED.contains(&long);
                if !(refused || builds) {
                    wrong.push(format!("{verb} --{long}: missing"));
                }
                continue;
            };
            let same_letter = letter == "-" || flag.short == letter.chars().nth(1);
            let same_kind = (flag.kind == Kind::Bool) == (kind == "switch");
            if !same_letter || !same_kind {
                wrong.push(format!(
                    "{verb} --{long}: {letter} {kind}, ours {:?} {:?}",
                    flag.short, flag.kind
                ));
            }
        }
        assert!(known.lines().count() > 400, "the fixture is not empty");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
