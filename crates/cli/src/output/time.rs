//! Points in time: as the daemon writes them, as tables show them, as `--since`
//! takes them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::units::human_duration;
use crate::flags::values::parse_duration;

/// Seconds since the epoch, now.
pub(crate) fn now() -> i64 {
    Timestamp::now().as_second()
}

/// `2 minutes ago` for a point in seconds since the epoch.
pub(crate) fn ago(seconds: i64) -> String {
    format!("{} ago", human_duration(now() - seconds))
}

/// `2024-05-06 07:08:09 +0000 UTC` for a point in seconds since the epoch.
pub(crate) fn absolute(seconds: i64) -> String {
    Timestamp::from_second(seconds)
        .map(|at| at.to_zoned_datetime(zone()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string())
        .unwrap_or_default()
}

/// A point in time as `--since` and `--until` take it, as the API takes it: seconds
/// with nine decimals. Understands Unix times, Go durations (`10m`: so long ago), RFC
/// 3339 and its prefixes down to a day.
pub(crate) fn point(text: &str) -> Result<String, String> {
    // "0" is the beginning of time, not no time ago, as in Docker.
    if text != "0"
        && let Ok(nanoseconds) = parse_duration(text)
    {
        let at = Timestamp::now().as_nanosecond() - i128::from(nanoseconds);
        return Ok(seconds_text(at));
    }
    let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if !text.is_empty() && numeric {
        return Ok(text.to_owned());
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(seconds_text(at.as_nanosecond()));
    }
    for (format, tail) in [
        ("%Y-%m-%dT%H:%M:%S%.f", ""),
        ("%Y-%m-%dT%H:%M:%S", ":00"),
        ("%Y-%m-%dT%H:%M:%S", ":00:00"),
        ("%Y-%m-%dT%H:%M:%S", "T00:00:00"),
    ] {
        let text = format!("{}{tail}", text.trim_end_matches('Z'));
        if let Ok(at) = jiff::civil::DateTime::strptime(format, &text)
            && let Ok(at) = at.to_zoned_datetime(zone())
        {
            return Ok(seconds_text(at.timestamp().as_nanosecond()));
        }
    }
    Err(format!("failed to parse value as time or duration: {text:?}"))
}

/// Local time of the point, RFC 3339 with nine decimals, as `events` prints it.
pub(crate) fn precise(nanoseconds: i64) -> String {
    Timestamp::from_nanosecond(i128::from(nanoseconds))
        .map(|at| at.to_zoned_datetime(zone()).strftime("%Y-%m-%dT%H:%M:%S.%9f%:z").to_string())
        .unwrap_or_default()
}

fn seconds_text(nanoseconds: i128) -> String {
    let second = 1_000_000_000;
    format!("{}.{:09}", nanoseconds.div_euclid(second), nanoseconds.rem_euclid(second))
}

/// The host's zone: what `TZ` names, or /etc/localtime; UTC when neither can be read.
fn zone() -> TimeZone {
    let path = match std::env::var("TZ") {
        Ok(name) if name.is_empty() => return TimeZone::UTC,
        Ok(name) if name.starts_with('/') => name,
        Ok(name) => format!("/usr/share/zoneinfo/{}", name.trim_start_matches(':')),
        Err(_) => "/etc/localtime".to_owned(),
    };
    let bytes = std::fs::read(path).ok();
    bytes.and_then(|bytes| TimeZone::tzif("Local", &bytes).ok()).unwrap_or(TimeZone::UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time_are_read_in_every_form() {
        assert_eq!(point("1700000000").unwrap(), "1700000000");
        assert_eq!(point("0").unwrap(), "0");
        assert_eq!(point("1700000000.5").unwrap(), "1700000000.5");
        assert_eq!(point("2024-01-02T03:04:05Z").unwrap(), "1704164645.000000000");
        assert_eq!(point("2024-01-02T03:04:05.25Z").unwrap(), "1704164645.250000000");
        // Without an offset the host's zone holds; only the digits below a minute are certain.
        for text in ["2024-01-02", "2024-01-02T03", "2024-01-02T03:04"] {
            assert!(point(text).unwrap().ends_with(".000000000"), "{text}");
        }
        let ten_minutes_ago: f64 = point("10m").unwrap().parse().unwrap();
        assert!((now() as f64 - 600.0 - ten_minutes_ago).abs() < 2.0);
        assert!(point("yesterday").is_err());
    }

    #[test]
    fn absolute_times_name_their_zone() {
        let text = absolute(1_704_164_645);
        assert!(text.starts_with("2024-01-0") && text.len() >= 29, "{text}");
    }
}
