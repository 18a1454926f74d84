//! Values of flags: switches, numbers, sizes, spans of time, decimals.
//!
//! The words of an error are those that Go's parsers use, because they are what
//! users of Docker find when they search for them.

/// One of pflag's spellings of true and false.
pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

/// A signed number; `0x`, `0o` and `0b` are understood.
pub(crate) fn parse_int(text: &str) -> Result<i64, String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.get(..2) {
        Some("0x" | "0X") => (16, &digits[2..]),
        Some("0o" | "0O") => (8, &digits[2..]),
        Some("0b" | "0B") => (2, &digits[2..]),
        _ => (10, digits),
    };
    if digits.is_empty() || digits.starts_with(['+', '-']) {
        return Err(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"));
    }
    i64::from_str_radix(&format!("{sign}{digits}"), radix).map_err(|error| {
        use std::num::IntErrorKind::{NegOverflow, PosOverflow};
        let why = match error.kind() {
            PosOverflow | NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.ParseInt: parsing {text:?}: {why}")
    })
}

/// An unsigned number not above `max`.
pub(crate) fn parse_uint(text: &str, max: u64) -> Result<u64, String> {
    let valid = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !valid {
        return Err(format!("strconv.ParseUint: parsing {text:?}: invalid syntax"));
    }
    match text.parse::<u64>() {
        Ok(number) if number <= max => Ok(number),
        _ => Err(format!("strconv.ParseUint: parsing {text:?}: value out of range")),
    }
}

/// Bytes: `64m`, `1.5g`, `512`, `1kb`, `1MiB`; binary multiples. `-1` passes through (it means no limit).
pub(crate) fn parse_size(text: &str) -> Result<i64, String> {
    let invalid = || format!("invalid size: '{text}'");
    if text == "-1" {
        return Ok(-1);
    }
    let split =
        text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').map_or(0, |at| at + 1);
    let (number, suffix) = text.split_at(split);
    let number: f64 = number.trim_end().parse().map_err(|_| invalid())?;
    if number < 0.0 || !number.is_finite() {
        return Err(invalid());
    }
    let suffix = suffix.to_ascii_lowercase();
    let power = match suffix.as_str() {
        "" | "b" => 0,
        _ => {
            let stem = suffix.strip_suffix("ib").or(suffix.strip_suffix('b')).unwrap_or(&suffix);
            let known = ["k", "m", "g", "t", "p"];
            1 + known.iter().position(|unit| *unit == stem).ok_or_else(invalid)?
        }
    };
    Ok((number * 1024f64.powi(i32::try_from(power).unwrap_or(0))) as i64)
}

/// Nanoseconds of a Go duration: `300ms`, `-1.5h`, `2h45m`.
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().map_err(|_| invalid())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1f64,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            other => return Err(format!("time: unknown unit {other:?} in duration {text:?}")),
        };
        total += number * unit;
        rest = &rest[end..];
    }
    Ok(if negative { -total } else { total } as i64)
}

/// 10^-9 parts of a decimal such as `1.5` (`--cpus`).
pub(crate) fn parse_decimal(text: &str) -> Result<i64, String> {
    let invalid = || format!("failed to parse {text} as a rational number");
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let numeric = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || !numeric(whole) || !numeric(part) {
        return Err(invalid());
    }
    let part = part.trim_end_matches('0');
    if part.len() > 9 {
        return Err("value is too precise".to_owned());
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
    let part: i64 = format!("{part:0<9}").parse().map_err(|_| invalid())?;
    whole
        .checked_mul(1_000_000_000)
        .and_then(|nano| nano.checked_add(part))
        .map(|n| sign * n)
        .ok_or_else(invalid)
}

pub(crate) fn check_bool(text: &str) -> Result<(), String> {
    parse_bool(text).map(drop)
}

pub(crate) fn check_int(text: &str) -> Result<(), String> {
    parse_int(text).map(drop)
}

pub(crate) fn check_uint16(text: &str) -> Result<(), String> {
    parse_uint(text, u64::from(u16::MAX)).map(drop)
}

pub(crate) fn check_uint(text: &str) -> Result<(), String> {
    parse_uint(text, u64::MAX).map(drop)
}

pub(crate) fn check_size(text: &str) -> Result<(), String> {
    parse_size(text).map(drop)
}

pub(crate) fn check_duration(text: &str) -> Result<(), String> {
    parse_duration(text).map(drop)
}

pub(crate) fn check_decimal(text: &str) -> Result<(), String> {
    parse_decimal(text).map(drop)
}

pub(crate) fn check_filter(text: &str) -> Result<(), String> {
    if text.is_empty() || text.contains('=') {
        return Ok(());
    }
    Err("invalid argument format of filter (expected name=value)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_multiples() {
        for (text, want) in [
            ("512", 512),
            ("64m", 64 << 20),
            ("1kb", 1024),
            ("1.5g", 3 << 29),
            ("1 MiB", 1 << 20),
            ("10B", 10),
            ("-1", -1),
            ("2T", 2 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(want), "{text}");
        }
        for text in ["", "abc", "1x", "-5m", "m", "1mm"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_follow_go() {
        assert_eq!(parse_duration("1m30s"), Ok(90_000_000_000));
        assert_eq!(parse_duration("-1.5h"), Ok(-5_400_000_000_000));
        assert_eq!(parse_duration("300ms"), Ok(300_000_000));
        assert_eq!(parse_duration("0"), Ok(0));
        assert_eq!(
            parse_duration("1x").unwrap_err(),
            "time: unknown unit \"x\" in duration \"1x\""
        );
        assert!(parse_duration("10").unwrap_err().contains("missing unit"));
    }

    #[test]
    fn decimals_become_nano_units() {
        assert_eq!(parse_decimal("1.5"), Ok(1_500_000_000));
        assert_eq!(parse_decimal(".25"), Ok(250_000_000));
        assert_eq!(parse_decimal("-1"), Ok(-1_000_000_000));
        assert_eq!(parse_decimal("0.0000000001").unwrap_err(), "value is too precise");
        assert_eq!(parse_decimal("a").unwrap_err(), "failed to parse a as a rational number");
    }

    #[test]
    fn numbers_say_what_is_wrong_with_them() {
        assert_eq!(parse_int("-0x10"), Ok(-16));
        assert!(parse_int("--1").is_err() && parse_int("").is_err());
        assert_eq!(
            parse_uint("70000", 65535).unwrap_err(),
            "strconv.ParseUint: parsing \"70000\": value out of range"
        );
    }
}
