//! Log lines that every delivery would cause: each at most once a minute.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a line is not repeated.
const QUIET: Duration = Duration::from_secs(60);

/// When each line was logged last, by what it is about.
pub(super) struct Seldom(Mutex<BTreeMap<String, Instant>>);

impl Seldom {
    /// Nothing was logged yet.
    pub(super) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Whether the line about `what` is to be logged at `now`; then it counts as logged. Only
    /// lines of the last minute are remembered.
    pub(super) fn is_time(&self, what: &str, now: Instant) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logged.retain(|_, at| now.saturating_duration_since(*at) < QUIET);
        let is_time = !logged.contains_key(what);
        if is_time {
            logged.insert(what.to_owned(), now);
        }
        is_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_comes_once_a_minute() {
        let (seldom, begun) = (Seldom::new(), Instant::now());
        let at = |what, seconds| seldom.is_time(what, begun + Duration::from_secs(seconds));
        assert!(at("a", 0) && !at("a", 0) && at("b", 10));
        assert!(!at("a", 59) && at("a", 60) && !at("b", 69) && at("b", 70));
        assert!(!at("a", 119) && at("a", 120));
    }
}
