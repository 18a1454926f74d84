//! Signal names and numbers, as users write them: `TERM`, `SIGTERM`, `15`, `RTMIN+3`.
//!
//! Numbers are those of Linux on x86 and ARM (signal(7)).

/// A text that names no signal; the text is Docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid signal: {0}")]
pub struct SignalError(String);

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
const ALIASES: [(&str, i32); 3] = [("IOT", 6), ("CLD", 17), ("POLL", 29)];
/// What the C libraries leave of the real-time signals.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The number of the signal that `text` names.
///
/// # Errors
/// When it names none.
pub fn parse(text: &str) -> Result<i32, SignalError> {
    let invalid = || SignalError(text.to_owned());
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=RTMAX).contains(&number) { Ok(number) } else { Err(invalid()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let standard = (1..).zip(NAMES).find(|(_, known)| *known == name).map(|(number, _)| number);
    let alias = || ALIASES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    standard.or_else(alias).or_else(|| real_time(name)).ok_or_else(invalid)
}

/// The name with `SIG`, or the number where there is no name.
pub fn name(number: i32) -> String {
    let at = number.checked_sub(1).and_then(|at| usize::try_from(at).ok());
    match at.and_then(|at| NAMES.get(at)) {
        Some(name) => format!("SIG{name}"),
        None => number.to_string(),
    }
}

fn real_time(name: &str) -> Option<i32> {
    let offset = |text: &str, sign: char| match text {
        "" => Some(0),
        text => text.strip_prefix(sign)?.parse::<i32>().ok().filter(|offset| *offset >= 0),
    };
    let number = match name.strip_prefix("RTMIN") {
        Some(rest) => RTMIN.checked_add(offset(rest, '+')?)?,
        None => RTMAX.checked_sub(offset(name.strip_prefix("RTMAX")?, '-')?)?,
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_and_without_prefix_and_numbers_are_the_same() {
        for text in ["15", "TERM", "SIGTERM", "sigterm"] {
            assert_eq!(parse(text), Ok(15), "{text}");
        }
        assert_eq!(parse("RTMIN+3"), Ok(37));
        assert_eq!(parse("SIGRTMAX-1"), Ok(63));
        assert_eq!((name(9), name(37)), ("SIGKILL".into(), "37".into()));
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for bad in ["", "0", "65", "-1", "FOO", "RTMIN+99", "RTMIN+2147483647", "SIG"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
