//! Points in time as milliseconds since the Unix epoch, and their RFC 3339 text.
//!
//! Values only: where "now" comes from is the business of `ports::Clock`.

use std::fmt;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since the Unix epoch (UTC, without leap seconds).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// Reads RFC 3339 text, whatever its offset; below a millisecond is cut off.
    ///
    /// Returns `None` for anything else.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        // The parser takes any byte between date and time; section 5.6 a `T` or, say, a space.
        if !matches!(text.as_bytes().get(10), Some(b'T' | b't' | b' ')) {
            return None;
        }
        let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(at.unix_timestamp_nanos() / 1_000_000)
            .ok()
            .map(Self)
    }

    /// Whole seconds since the epoch.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This point plus `delay`, rounded up to the millisecond: never early.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        let ms = delay.as_nanos().div_ceil(1_000_000);
        Self(self.0.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX)))
    }

    /// This point minus `delay`.
    #[must_use]
    pub fn before(self, delay: Duration) -> Self {
        let ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(ms))
    }

    /// How long after `earlier` this is; zero when it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// As people say it at `now`: `5m ago`, `in 2h`, `now`.
    pub fn beside(self, now: Self) -> String {
        let (past, future) = (now.since(self), self.since(now));
        if past.max(future) < Duration::from_secs(1) {
            "now".to_owned()
        } else if past > future {
            format!("{} ago", in_words(past))
        } else {
            format!("in {}", in_words(future))
        }
    }
}

/// A duration in its largest fitting unit: `250ms`, `42s`, `5m`, `3h`, `2d`.
fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-03-01T12:30:00.000Z`.
impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(at) = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
        else {
            return write!(f, "{}ms", self.0);
        };
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            at.millisecond()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_number_agree() {
        let at = UnixMillis::parse_rfc3339("2026-03-01T13:30:00.5+01:00").unwrap();
        assert_eq!(at, UnixMillis(1_772_368_200_500));
        assert_eq!(at.to_string(), "2026-03-01T12:30:00.500Z");
        for bad in [
            "",
            "2026-03-01",
            "2026-03-01 12:30",
            "1772368200",
            "2026-02-30T00:00:00Z",
            "2026-03-01x12:30:00Z",
            "2026-03-01\n12:30:00Z",
        ] {
            assert_eq!(UnixMillis::parse_rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn date_and_time_may_be_separated_as_rfc_3339_says() {
        for good in [
            "2026-03-01T12:30:00Z",
            "2026-03-01t12:30:00z",
            "2026-03-01 12:30:00Z",
        ] {
            let at = UnixMillis::parse_rfc3339(good);
            assert_eq!(at, Some(UnixMillis(1_772_368_200_000)), "{good}");
        }
    }

    #[test]
    fn adding_rounds_up() {
        assert_eq!(
            UnixMillis(10).after(Duration::from_micros(1)),
            UnixMillis(11)
        );
        assert_eq!(UnixMillis(10).since(UnixMillis(20)), Duration::ZERO);
        assert_eq!(UnixMillis(-1).seconds(), -1);
    }
}
