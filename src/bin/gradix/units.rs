//! Numbers and times as people read and write them.

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use indicatif::{DecimalBytes, HumanCount};

/// `1,234,567`
pub fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

/// `1.23 GB`
pub fn bytes(bytes: u64) -> String {
    DecimalBytes(bytes).to_string()
}

/// `3 rows`, `1 row`, `2 queries`
pub fn of(number: u64, one: &str) -> String {
    match one.strip_suffix('y') {
        _ if number == 1 => format!("1 {one}"),
        Some(stem) => format!("{} {stem}ies", count(number)),
        None => format!("{} {one}s", count(number)),
    }
}

/// Milliseconds since 1970 as `2026-11-25T16:15:00Z`.
pub fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis);
    time.map_or_else(|| format!("{ms} ms"), |time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// A duration as `90s`, `30m`, `12h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no duration: write 90s, 30m, 12h or 7d");
        let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
        let seconds: u64 = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(seconds).map(|seconds| Self(Duration::from_secs(seconds))).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a unit that stands for another one, and numbers that are not read to their end.
    #[test]
    fn durations_are_read() {
        assert_eq!("90s".parse(), Ok(Span(Duration::from_secs(90))));
        assert_eq!("2d".parse(), Ok(Span(Duration::from_secs(172_800))));
        for text in ["", "7", "h", "1.5h", "-1h", "1w", "99999999999999999999d", "é"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    /// Catches times of another calendar or unit.
    #[test]
    fn times_are_utc() {
        assert_eq!(time(951_782_400_123), "2000-02-29T00:00:00Z");
    }
}
