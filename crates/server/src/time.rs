//! Times on the wire: RFC 3339 with nanoseconds as Go prints it, unix seconds with
//! a fraction, and Go's durations. Inside they are nanoseconds since the epoch.

use capsa_api::types::NEVER;

use crate::error::{ApiError, Result};

const NS: i64 = 1_000_000_000;

/// RFC 3339 in UTC with the fraction's trailing zeros cut; 0 is "never".
pub(crate) fn rfc3339(ns: i64) -> String {
    if ns == 0 {
        return NEVER.to_owned();
    }
    let (seconds, fraction) = (ns.div_euclid(NS), ns.rem_euclid(NS));
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if fraction != 0 {
        let digits = format!(".{fraction:09}");
        text.push_str(digits.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Unix seconds `1700000000[.123456789]`, as `since` and `until` are sent; `None` when empty.
pub(crate) fn unix(text: &str, name: &str) -> Result<Option<i64>> {
    if text.is_empty() {
        return Ok(None);
    }
    let bad = || {
        ApiError::bad_request(format!(
            "invalid value for \"{name}\": failed to parse value as a unix timestamp: {text:?}"
        ))
    };
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = seconds.parse().map_err(|_| bad())?;
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let nanos: i64 = format!("{fraction:0<9}").parse().map_err(|_| bad())?;
    whole.checked_mul(NS).and_then(|ns| ns.checked_add(nanos)).map(Some).ok_or_else(bad)
}

/// The `until` of a prune: unix seconds, a date or time, or a Go duration before `now_ns`.
pub(crate) fn until(text: &str, now_ns: i64) -> Result<i64> {
    if let Ok(Some(ns)) = unix(text, "until") {
        return Ok(ns);
    }
    if let Some(ns) = duration(text) {
        return Ok(now_ns.saturating_sub(ns));
    }
    let instant = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        jiff::tz::TimeZone::UTC.to_timestamp(text.parse::<jiff::civil::DateTime>().ok()?).ok()
    });
    instant
        .and_then(|t| i64::try_from(t.as_nanosecond()).ok())
        .ok_or_else(|| ApiError::bad_request(format!("invalid filter 'until={text}'")))
}

/// The present.
pub(crate) fn now_ns() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// How long ago, in Docker's words: `5 seconds`, `About an hour`, `3 weeks`.
pub(crate) fn ago(ns: i64) -> String {
    let seconds = (ns / NS).max(0);
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// A Go duration such as `1h30m`, `1.5h`, `300ms`, in nanoseconds.
fn duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..]
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .map_or(rest.len(), |at| end + at);
        total += number
            * match &rest[end..unit_end] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    Some(total as i64)
}

/// Year, month, day of a day number since the epoch (proleptic Gregorian).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_go_prints_them() {
        assert_eq!(rfc3339(0), NEVER);
        assert_eq!(rfc3339(1_700_000_000 * NS + 120_000_000), "2023-11-14T22:13:20.12Z");
        assert_eq!(rfc3339(951_782_400 * NS), "2000-02-29T00:00:00Z");
        for ns in [1, NS, 1_795_479_738 * NS + 1, 4_102_444_799 * NS] {
            let parsed: jiff::Timestamp = rfc3339(ns).parse().unwrap();
            assert_eq!(parsed.as_nanosecond(), i128::from(ns));
        }
    }

    #[test]
    fn unix_times_may_have_a_fraction() {
        assert_eq!(unix("12", "since"), Ok(Some(12 * NS)));
        assert_eq!(unix("12.5", "since"), Ok(Some(12 * NS + NS / 2)));
        assert_eq!(unix("", "since"), Ok(None));
        for bad in ["x", "1.x", "1.1234567890", "99999999999999999999"] {
            assert!(unix(bad, "since").is_err(), "{bad}");
        }
    }

    #[test]
    fn until_takes_durations_dates_and_seconds() {
        let now = 1_700_000_000 * NS;
        assert_eq!(until("1h30m", now), Ok(now - 5400 * NS));
        assert_eq!(until("10", now), Ok(10 * NS));
        assert_eq!(until("2000-02-29T00:00:00Z", now), Ok(951_782_400 * NS));
        assert_eq!(until("2000-02-29T00:00:00", now), Ok(951_782_400 * NS));
        assert!(until("soon", now).is_err());
    }

    #[test]
    fn ages_read_as_dockers() {
        let words = |s: i64| ago(s * NS);
        assert_eq!(words(0), "Less than a second");
        assert_eq!(words(59), "59 seconds");
        assert_eq!(words(119), "About a minute");
        assert_eq!(words(3600), "About an hour");
        assert_eq!(words(47 * 3600), "47 hours");
        assert_eq!(words(10 * 86_400), "10 days");
        assert_eq!(words(21 * 86_400), "3 weeks");
        assert_eq!(words(90 * 86_400), "3 months");
        assert_eq!(words(800 * 86_400), "2 years");
    }
}
