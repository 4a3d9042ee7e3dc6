//! Waiting for a condition.

use std::time::{Duration, Instant};

use tokio::time::{Interval, MissedTickBehavior};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks until there is something to be seen; fails when there is nothing after `limit`.
pub async fn until<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut looks = Looks::new(limit);
    loop {
        looks.next(what).await;
        if let Some(found) = look().await {
            return found;
        }
    }
}

/// The times at which a condition is looked at: at once, then again and again.
pub struct Looks {
    begun: Instant,
    limit: Duration,
    times: Interval,
}

impl Looks {
    pub fn new(limit: Duration) -> Self {
        let mut times = tokio::time::interval(LOOK_EVERY);
        times.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            begun: Instant::now(),
            limit,
            times,
        }
    }

    /// Resolves when it is time to look; fails when `what` was looked for too long.
    pub async fn next(&mut self, what: &str) {
        let (waited, limit) = (self.begun.elapsed(), self.limit);
        assert!(waited < limit, "gave up waiting for {what} after {limit:?}");
        self.times.tick().await;
    }
}
