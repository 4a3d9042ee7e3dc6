//! Values as they are typed: durations, points in time, JSON, headers.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use super::CliError;
use crate::domain::timestamp::UnixMillis;

/// Now, by the clock of this machine.
pub fn now() -> UnixMillis {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = elapsed.unwrap_or_default().as_millis();
    UnixMillis(i64::try_from(ms).unwrap_or(i64::MAX))
}

/// Reads `250ms`, `2s`, `1.5h`, `7d`.
///
/// # Errors
/// A sentence with what was expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected a duration such as 250ms, 2s, 5m or 1h, found `{text}`");
    let text = text.trim();
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit_at);
    let unit_s = match unit.trim() {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * unit_s).map_err(|_| wrong())
}

/// A point in time: RFC 3339, or how long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// At this time.
    At(UnixMillis),
    /// So long before now.
    Ago(Duration),
}

impl Since {
    /// Reads RFC 3339, or a duration that means "ago".
    ///
    /// # Errors
    /// A sentence with what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(at) = UnixMillis::parse_rfc3339(text) {
            return Ok(Self::At(at));
        }
        duration(text).map(Self::Ago).map_err(|_| {
            let expected = "a time such as 2026-03-01T12:30:00Z, or how long ago, such as 1h";
            format!("expected {expected}, found `{text}`")
        })
    }

    /// The point in time, seen from `now`.
    pub fn resolve(self, now: UnixMillis) -> UnixMillis {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.before(ago),
        }
    }
}

/// Reads `Name: value`.
///
/// # Errors
/// A sentence with what was expected.
pub fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err(format!("expected `Name: value`, found `{text}`")),
    }
}

/// The bytes of a file, or of standard input for `-`.
///
/// # Errors
/// When it cannot be read.
pub async fn read_input(path: &Path) -> Result<Vec<u8>, CliError> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        let read = tokio::io::stdin().read_to_end(&mut bytes).await;
        read.map_err(|error| CliError::io("standard input", &error))?;
        return Ok(bytes);
    }
    let bytes = tokio::fs::read(path).await;
    bytes.map_err(|error| CliError::io(&path.display().to_string(), &error))
}

/// JSON given in place, as `@file`, or as `-` for standard input. `option` names it in
/// errors.
///
/// # Errors
/// When it cannot be read or is no JSON.
pub async fn json(option: &str, text: &str) -> Result<Value, CliError> {
    let (place, bytes) = match text.strip_prefix('@') {
        Some(path) => (
            format!("{option} @{path}"),
            read_input(path.as_ref()).await?,
        ),
        None if text == "-" => (format!("{option} -"), read_input("-".as_ref()).await?),
        None => (option.to_owned(), text.as_bytes().to_vec()),
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| CliError::Usage(format!("{place} must be JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        for bad in [
            "", "5", "s", "-1s", "1w", "1.2.3s", "1h30m", "1e9s", "nan s",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        let now = UnixMillis::parse_rfc3339("2026-03-01T12:00:00Z").unwrap();
        let resolve = |text| Since::parse(text).map(|since| since.resolve(now).to_string());
        assert_eq!(resolve("1h").unwrap(), "2026-03-01T11:00:00.000Z");
        let at = resolve("2026-02-01T01:00:00+01:00").unwrap();
        assert_eq!(at, "2026-02-01T00:00:00.000Z");
        let error = resolve("yesterday").unwrap_err();
        assert!(error.contains("such as 1h"), "{error}");
    }

    #[test]
    fn a_header_has_a_name() {
        let read = header("X-Key:  a:b ").unwrap();
        assert_eq!(read, ("X-Key".to_owned(), "a:b".to_owned()));
        assert!(header("no colon").is_err());
        assert!(header(": x").is_err());
    }
}
