//! The rate of one endpoint, in this process.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as RateClock, Reference as _};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use crate::domain::subscription::RateLimit;

/// The slowest rate there is: one request in this time.
const RATE_PERIOD_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Time since the start, by tokio's clock, so that a paused clock pauses rates as well.
#[derive(Clone, Debug)]
pub(super) struct LaneClock(pub(super) Instant);

impl LaneClock {
    pub(super) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

impl RateClock for LaneClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.elapsed().into()
    }
}

/// The rate limiter of one endpoint: a GCRA by the crate `governor`.
pub(super) struct EndpointRate {
    limiter: RateLimiter<NotKeyed, InMemoryState, LaneClock, NoOpMiddleware<Nanos>>,
    clock: LaneClock,
}

impl EndpointRate {
    pub(super) fn new(rate: RateLimit, clock: &LaneClock) -> Self {
        // A tiny rate has a period beyond what a duration holds.
        let period = Duration::try_from_secs_f64(1.0 / rate.per_second)
            .unwrap_or(RATE_PERIOD_MAX)
            .clamp(Duration::from_nanos(1), RATE_PERIOD_MAX);
        let burst = NonZeroU32::new(rate.burst).unwrap_or(NonZeroU32::MIN);
        // The period is at least a nanosecond, so there is a quota.
        let quota = Quota::with_period(period).unwrap_or_else(|| Quota::per_second(burst));
        Self {
            limiter: RateLimiter::direct_with_clock(quota.allow_burst(burst), clock.clone()),
            clock: clock.clone(),
        }
    }
}

/// Takes one from the rate, or says how long until there is one.
pub(super) fn check(rate: Option<&EndpointRate>) -> Result<(), Duration> {
    let Some(rate) = rate else {
        return Ok(());
    };
    rate.limiter.check().map_err(|not_until| {
        let wait = not_until
            .earliest_possible()
            .duration_since(rate.clock.now());
        // Timers have millisecond steps: one more makes sure the rate allows it then.
        Duration::from(wait) + Duration::from_millis(1)
    })
}
