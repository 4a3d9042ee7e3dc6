//! The rate of one endpoint, as this process keeps to it.
//!
//! Alone, a limiter in the process is all there is. With others, they are asked
//! ([`SharedRates`]) and what they grant is used at once or not at all: a grant that were kept
//! would come on top of what the rate allows later. When nobody answers, each replica keeps to
//! its share of the rate, without a burst: never unlimited, never stopped. When somebody answers
//! again it keeps to both for a while, as others may not have noticed yet.
//!
//! [`SharedRates`]: crate::ports::SharedRates

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as RateClock, Reference as _};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use crate::domain::lane::RateWait;
use crate::domain::subscription::RateLimit;
use crate::ports::RateAnswer;

/// The slowest rate there is: one request in this time.
const PERIOD_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long a grant may be used.
const GRANT_FOR: Duration = Duration::from_millis(50);
/// How soon is asked again after a grant that was not enough, unless the rate says later: at a
/// high rate several are granted at once then.
const ASK_EVERY: Duration = Duration::from_millis(25);

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

/// Who else sends to the same endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    /// Nobody.
    Nobody,
    /// So many replicas, this one included; they are asked.
    Asked(u32),
    /// So many, and nobody answers.
    Away(u32),
    /// So many; they are asked again, and some may not know yet that they can be.
    Returning(u32),
}

impl Others {
    /// Replicas, this one included.
    pub(super) fn replicas(self) -> u32 {
        match self {
            Self::Nobody => 1,
            Self::Asked(replicas) | Self::Away(replicas) | Self::Returning(replicas) => {
                replicas.max(1)
            }
        }
    }
}

/// The rate of one endpoint.
pub(super) struct EndpointRate {
    pub(super) limit: RateLimit,
    clock: LaneClock,
    /// The whole rate when this process is alone; its share while nobody answers, and for a
    /// while afterwards.
    own: Option<Limiter>,
    /// Whether one was taken from its share that is not granted yet.
    has_own: bool,
    /// Whether who answers knows of what was sent without asking.
    is_told: bool,
    granted: u32,
    granted_until: Duration,
    ask_at: Duration,
    debt: Duration,
    debt_at: Duration,
}

impl EndpointRate {
    pub(super) fn new(limit: RateLimit, clock: &LaneClock) -> Self {
        Self {
            limit,
            clock: clock.clone(),
            own: None,
            has_own: false,
            is_told: true,
            granted: 0,
            granted_until: Duration::ZERO,
            ask_at: Duration::ZERO,
            debt: Duration::ZERO,
            debt_at: Duration::ZERO,
        }
    }

    /// Takes one from the rate.
    pub(super) fn take(&mut self, others: Others) -> Result<(), RateWait> {
        match others {
            Others::Nobody => {
                let Self { limit, clock, .. } = self;
                let whole = || Limiter::new(limit.per_second, limit.burst, clock);
                self.own.get_or_insert_with(whole).take()
            }
            Others::Away(replicas) => {
                self.is_told = false;
                self.take_own(replicas)
            }
            Others::Returning(replicas) => {
                self.take_own(replicas)?;
                let granted = self.take_granted(self.clock.elapsed());
                self.has_own = granted.is_err();
                granted
            }
            Others::Asked(_) => {
                (self.own, self.has_own) = (None, false);
                self.take_granted(self.clock.elapsed())
            }
        }
    }

    /// Takes one from this replica's share, unless one was taken before that is not used.
    fn take_own(&mut self, replicas: u32) -> Result<(), RateWait> {
        if std::mem::take(&mut self.has_own) {
            return Ok(());
        }
        if self.own.is_none() {
            self.is_told = false;
        }
        let Self { limit, clock, .. } = self;
        let share = || Limiter::share(*limit, replicas, clock);
        self.own.get_or_insert_with(share).take()
    }

    /// How many may be asked about when so many could start.
    pub(super) fn wanted(&self, startable: u32, others: Others) -> u32 {
        match others {
            // More would be granted for nothing.
            Others::Returning(_) => 1,
            _ => startable,
        }
    }

    fn take_granted(&mut self, now: Duration) -> Result<(), RateWait> {
        if self.granted > 0 && now <= self.granted_until {
            self.granted -= 1;
            return Ok(());
        }
        self.granted = 0;
        if now < self.ask_at {
            return Err(RateWait::After(self.ask_at - now));
        }
        Err(RateWait::Asked)
    }

    /// The debt as it should be now. After a time on its own all of the burst counts as used.
    pub(super) fn debt(&self, now: Duration) -> Duration {
        if !self.is_told {
            return self.interval().saturating_mul(self.limit.burst.max(1));
        }
        let since = now.saturating_sub(self.debt_at);
        self.debt.saturating_sub(since)
    }

    /// `wanted` were asked for, and this was the answer. The debt ages from the question on:
    /// with every answer's delay on top, the floor of the next would creep upwards.
    pub(super) fn answered(
        &mut self,
        wanted: u32,
        answer: RateAnswer,
        (asked_at, now): (Duration, Duration),
    ) {
        self.is_told = true;
        self.granted = answer.granted;
        self.granted_until = now + GRANT_FOR;
        (self.debt, self.debt_at) = (answer.debt, asked_at);
        self.ask_at = now;
        if answer.granted < wanted {
            let burst = self.limit.burst.max(1);
            let allowed = self.interval().saturating_mul(burst - 1);
            let next = answer.debt.saturating_sub(allowed);
            // Within the burst nothing is lost by waiting a little.
            let pause = ASK_EVERY.min(self.interval().saturating_mul(burst) / 2);
            self.ask_at = now.saturating_add(next.max(pause));
        }
    }

    fn interval(&self) -> Duration {
        interval(self.limit.per_second)
    }
}

/// A limiter in the process: a GCRA by the crate `governor`.
struct Limiter {
    limiter: RateLimiter<NotKeyed, InMemoryState, LaneClock, NoOpMiddleware<Nanos>>,
    clock: LaneClock,
}

impl Limiter {
    fn new(per_second: f64, burst: u32, clock: &LaneClock) -> Self {
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        // The interval is at least a nanosecond, so there is a quota.
        let quota = Quota::with_period(interval(per_second));
        let quota = quota.unwrap_or_else(|| Quota::per_second(burst));
        Self {
            limiter: RateLimiter::direct_with_clock(quota.allow_burst(burst), clock.clone()),
            clock: clock.clone(),
        }
    }

    /// One of `replicas` shares, all of its burst used: others may have used it just now.
    fn share(limit: RateLimit, replicas: u32, clock: &LaneClock) -> Self {
        let replicas = replicas.max(1);
        let burst = (limit.burst / replicas).max(1);
        let share = Self::new(limit.per_second / f64::from(replicas), burst, clock);
        let all = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        // It is full, so this takes all.
        let _ = share.limiter.check_n(all);
        share
    }

    fn take(&self) -> Result<(), RateWait> {
        self.limiter.check().map_err(|not_until| {
            let wait = not_until
                .earliest_possible()
                .duration_since(self.clock.now());
            // Timers have millisecond steps: one more makes sure the rate allows it then.
            RateWait::After(Duration::from(wait) + Duration::from_millis(1))
        })
    }
}

/// From one request to the next; a tiny rate has one beyond what a duration holds.
fn interval(per_second: f64) -> Duration {
    Duration::try_from_secs_f64(1.0 / per_second)
        .unwrap_or(PERIOD_MAX)
        .clamp(Duration::from_nanos(1), PERIOD_MAX)
}
