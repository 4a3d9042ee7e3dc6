//! Durations as people write them: `"10s"`, `"5m"`, `"24h"`, `"250ms"`, `"7d"`, `"1h30m"`.
//!
//! Whole numbers with a unit, and sums of them. `"0"` needs no unit.

use std::time::Duration;

const UNITS_MS: &[(&str, u64)] = &[
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Why a text is no duration; written to follow the text itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationFault {
    /// A number without a unit.
    #[error("a unit is missing after {0}: write ms, s, m, h or d")]
    UnitMissing(u64),
    /// A unit that is not known.
    #[error("the unit is not known: write ms, s, m, h or d")]
    UnitUnknown,
    /// No whole number where one had to be.
    #[error("a whole number with a unit is expected, such as 10s or 1h30m")]
    NumberMissing,
    /// More than can be counted.
    #[error("it is too long")]
    TooLong,
}

/// Reads a duration such as `10s` or `1h30m`.
///
/// # Errors
/// [`DurationFault`] says what is missing.
pub fn parse(text: &str) -> Result<Duration, DurationFault> {
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total_ms: u64 = 0;
    loop {
        let (number, after) = split(rest, |c| c.is_ascii_digit());
        if number.is_empty() {
            return Err(DurationFault::NumberMissing);
        }
        let number: u64 = number.parse().map_err(|_| DurationFault::TooLong)?;
        let (unit, after) = split(after, |c| c.is_alphabetic());
        if unit.is_empty() && after.is_empty() {
            return Err(DurationFault::UnitMissing(number));
        }
        if unit.is_empty() {
            return Err(DurationFault::NumberMissing);
        }
        let known = UNITS_MS.iter().find(|(name, _)| *name == unit);
        let (_, unit_ms) = known.ok_or(DurationFault::UnitUnknown)?;
        total_ms = number
            .checked_mul(*unit_ms)
            .and_then(|ms| total_ms.checked_add(ms))
            .ok_or(DurationFault::TooLong)?;
        rest = after;
        if rest.is_empty() {
            return Ok(Duration::from_millis(total_ms));
        }
    }
}

/// Writes `duration` so that [`parse`] reads the same, to the millisecond; the largest
/// unit is the hour.
pub fn write(duration: Duration) -> String {
    let mut rest_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, unit_ms) in UNITS_MS.iter().filter(|(unit, _)| *unit != "d") {
        if rest_ms >= *unit_ms {
            text.push_str(&format!("{}{unit}", rest_ms / unit_ms));
            rest_ms %= unit_ms;
        }
    }
    if text.is_empty() {
        text.push_str("0s");
    }
    text
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !belongs(c)).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_sums_are_read() {
        for (text, ms) in [
            ("0", 0),
            ("0s", 0),
            ("250ms", 250),
            ("10s", 10_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("1h30m", 5_400_000),
            (" 1m30s ", 90_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn faults_say_what_is_missing() {
        use DurationFault::*;
        for (text, fault) in [
            ("", NumberMissing),
            ("s", NumberMissing),
            ("-5s", NumberMissing),
            ("1.5s", NumberMissing),
            ("5 s", NumberMissing),
            ("10", UnitMissing(10)),
            ("1h30", UnitMissing(30)),
            ("5parsecs", UnitUnknown),
            ("5µs", UnitUnknown),
            ("5S", UnitUnknown),
            ("99999999999999999999s", TooLong),
            ("9999999999999999999d", TooLong),
        ] {
            assert_eq!(parse(text), Err(fault), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (ms, text) in [
            (0, "0s"),
            (1, "1ms"),
            (1_500, "1s500ms"),
            (600_000, "10m"),
            (5_400_000, "1h30m"),
            (432_000_000, "120h"),
            (u64::MAX, "5124095576030h25m51s615ms"),
        ] {
            let duration = Duration::from_millis(ms);
            assert_eq!(write(duration), text);
            assert_eq!(parse(text), Ok(duration));
        }
    }
}
