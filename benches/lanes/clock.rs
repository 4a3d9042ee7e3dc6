//! The clock that times publishing and arriving: monotonic, and one for a run.

use std::time::{Duration, Instant};

/// Times are durations since it was started.
#[derive(Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Starts it.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time.
    pub fn now(self) -> Duration {
        self.0.elapsed()
    }
}

/// A time as an event carries it.
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
