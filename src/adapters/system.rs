//! Time and chance as the operating system gives them.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::domain::timestamp::UnixMillis;
use crate::ports::{Chance, Clock};

/// The wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixMillis {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Jitter from a fast generator, ids and secrets from the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemChance;

impl Chance for SystemChance {
    fn fraction(&self) -> f64 {
        fastrand::f64()
    }

    fn fill(&self, bytes: &mut [u8]) {
        // Without randomness there are no secrets: going on would be worse than ending.
        #[allow(clippy::expect_used)]
        getrandom::fill(bytes).expect("the operating system gives randomness");
    }
}
