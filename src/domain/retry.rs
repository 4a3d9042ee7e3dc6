//! When the next attempt of a failed delivery is due.
//!
//! A policy is a schedule (exponential, or an explicit list of delays), a maximum of
//! attempts that follows from it, and a jitter that only ever adds.

use std::time::Duration;

use super::timestamp::UnixMillis;

/// Longest delay between two attempts.
pub const DELAY_MAX: Duration = Duration::from_secs(24 * 3600);
/// Most attempts of one delivery.
pub const ATTEMPTS_MAX: u32 = 100;

/// So many that one call redrives are due at once, and so many more each second: redriving
/// very many is no storm for the endpoints and the deliveries of others.
const REDRIVEN_PER_SECOND: u64 = 1000;

/// How much sooner something may be that is due about some time.
const ABOUT: f64 = 0.2;

/// When something is due that has some room: no sooner than `earliest`, best at `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Never before.
    pub earliest: UnixMillis,
    /// Best at this time.
    pub at: UnixMillis,
    /// If it can be helped not after.
    pub latest: UnixMillis,
}

impl Due {
    /// Due at `at` and no sooner.
    pub fn at(at: UnixMillis) -> Self {
        Self {
            earliest: at,
            at,
            latest: at,
        }
    }

    /// When number `n`, counted from 0, of those that one call redrives at `now` is due.
    pub fn of_redriven(now: UnixMillis, n: u64) -> Self {
        let behind = n.saturating_sub(REDRIVEN_PER_SECOND - 1);
        let after_ms = behind.saturating_mul(1000) / REDRIVEN_PER_SECOND;
        Self::at(now.after(Duration::from_millis(after_ms)))
    }

    /// Due about `after` from `now`, a little sooner or later; `chance` in `[0, 1)` says which.
    /// A store that rounds does so to both sides: what comes back at a pace neither falls
    /// behind it nor comes in heaps.
    pub fn about(now: UnixMillis, after: Duration, chance: f64) -> Self {
        let share = 1.0 - ABOUT * (1.0 - chance.clamp(0.0, 1.0));
        Self {
            earliest: now.after(after.mul_f64(1.0 - ABOUT)),
            at: now.after(after.mul_f64(share)),
            latest: now.after(after.mul_f64(1.0 / (1.0 - ABOUT))),
        }
    }

    /// The same, but nothing before `earliest`.
    #[must_use]
    pub fn no_sooner_than(self, earliest: UnixMillis) -> Self {
        Self {
            earliest: self.earliest.max(earliest),
            at: self.at.max(earliest),
            latest: self.latest.max(earliest),
        }
    }
}

/// A checked retry policy.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    schedule: Schedule,
    jitter: f64,
}

#[derive(Clone, Debug, PartialEq)]
enum Schedule {
    Exponential(Exponential),
    List(Vec<Duration>),
}

/// Delays `initial · multiplierⁿ`, up to `max`, for `max_attempts` in all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exponential {
    /// The delay after the first attempt.
    pub initial: Duration,
    /// What each further delay is multiplied by; at least 1.
    pub multiplier: f64,
    /// The longest delay.
    pub max: Duration,
    /// Attempts in all, the first included.
    pub max_attempts: u32,
}

/// What a policy had to look like; `field` is relative to the policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {problem}")]
pub struct RetryFault {
    /// The field at fault, relative to the policy.
    pub field: &'static str,
    /// What was expected and what came.
    pub problem: String,
}

/// A subscription's own retry settings; what is absent comes from the installation's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RetryOverride {
    /// Attempts in all.
    pub max_attempts: Option<u32>,
    /// The delay after the first attempt, in milliseconds.
    pub initial_ms: Option<u64>,
    /// What each further delay is multiplied by.
    pub multiplier: Option<f64>,
    /// The longest delay, in milliseconds.
    pub max_ms: Option<u64>,
}

impl Default for Exponential {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(5),
            multiplier: 4.0,
            max: Duration::from_secs(12 * 3600),
            max_attempts: 10,
        }
    }
}

impl Exponential {
    /// Checks ranges and relations.
    ///
    /// # Errors
    /// [`RetryFault`] for the first rule that is broken.
    pub fn check(&self) -> Result<(), RetryFault> {
        let fault = |field, problem| Err(RetryFault { field, problem });
        if !(1..=ATTEMPTS_MAX).contains(&self.max_attempts) {
            let found = self.max_attempts;
            return fault(
                "max_attempts",
                format!("must be 1 to {ATTEMPTS_MAX}, found {found}"),
            );
        }
        if self.initial.is_zero() || self.initial > DELAY_MAX {
            return fault(
                "initial",
                "must be at least 1 ms and at most 24 h".to_owned(),
            );
        }
        if !(1.0..=100.0).contains(&self.multiplier) {
            let found = self.multiplier;
            return fault("multiplier", format!("must be 1 to 100, found {found}"));
        }
        if self.max > DELAY_MAX {
            return fault("max", "must be at most 24 h".to_owned());
        }
        if self.max < self.initial {
            return fault("max", "must be at least as long as `initial`".to_owned());
        }
        Ok(())
    }

    /// These settings with `changes` on top.
    #[must_use]
    pub fn with(&self, changes: &RetryOverride) -> Self {
        let initial = changes
            .initial_ms
            .map_or(self.initial, Duration::from_millis);
        // A lone `initial_ms` beyond the installation's maximum raises the maximum with it.
        let max = changes
            .max_ms
            .map_or(self.max.max(initial), Duration::from_millis);
        Self {
            initial,
            multiplier: changes.multiplier.unwrap_or(self.multiplier),
            max,
            max_attempts: changes.max_attempts.unwrap_or(self.max_attempts),
        }
    }

    fn delay(&self, after_attempt: u32) -> Duration {
        let exponent = i32::try_from(after_attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let factor = self.multiplier.powi(exponent);
        let seconds = self.initial.as_secs_f64() * factor;
        if seconds >= self.max.as_secs_f64() {
            self.max
        } else {
            Duration::from_secs_f64(seconds)
        }
    }
}

impl RetryPolicy {
    /// An exponential policy; `jitter` is the largest share added to a delay, 0 to 1.
    ///
    /// # Errors
    /// [`RetryFault`] for the first rule that is broken.
    pub fn exponential(settings: Exponential, jitter: f64) -> Result<Self, RetryFault> {
        settings.check()?;
        check_jitter(jitter)?;
        Ok(Self {
            schedule: Schedule::Exponential(settings),
            jitter,
        })
    }

    /// An explicit list: `n` delays make `n + 1` attempts.
    ///
    /// # Errors
    /// [`RetryFault`] when the list is empty or too long, or a delay is out of range.
    pub fn list(delays: Vec<Duration>, jitter: f64) -> Result<Self, RetryFault> {
        check_jitter(jitter)?;
        let fault = |problem| {
            Err(RetryFault {
                field: "schedule",
                problem,
            })
        };
        if delays.is_empty() || delays.len() >= ATTEMPTS_MAX as usize {
            let found = delays.len();
            return fault(format!(
                "must have 1 to {} delays, found {found}",
                ATTEMPTS_MAX - 1
            ));
        }
        if delays.iter().any(|d| d.is_zero() || *d > DELAY_MAX) {
            return fault("must have delays of 1 ms to 24 h".to_owned());
        }
        Ok(Self {
            schedule: Schedule::List(delays),
            jitter,
        })
    }

    /// Attempts in all, the first included.
    pub fn max_attempts(&self) -> u32 {
        match &self.schedule {
            Schedule::Exponential(e) => e.max_attempts,
            // `list` keeps the length below ATTEMPTS_MAX.
            Schedule::List(delays) => u32::try_from(delays.len()).unwrap_or(ATTEMPTS_MAX) + 1,
        }
    }

    /// The shortest and the longest delay, without jitter.
    pub fn delays(&self) -> (Duration, Duration) {
        match &self.schedule {
            Schedule::Exponential(e) => (e.initial, e.max),
            Schedule::List(delays) => {
                let shortest = delays.iter().min().copied().unwrap_or_default();
                (shortest, delays.iter().max().copied().unwrap_or_default())
            }
        }
    }

    /// When the next attempt is due if attempt number `attempt` (from 1) failed at `now`;
    /// `None` when it was the last. `chance` in `[0, 1)` picks the place in the jitter, which
    /// only ever adds to what the schedule says.
    pub fn due(&self, attempt: u32, now: UnixMillis, chance: f64) -> Option<Due> {
        let base = self.base_delay(attempt)?;
        Some(Due {
            earliest: now.after(base),
            at: now.after(self.jittered(base, chance)),
            latest: now.after(self.jittered(base, 1.0)),
        })
    }

    fn base_delay(&self, attempt: u32) -> Option<Duration> {
        if attempt >= self.max_attempts() {
            return None;
        }
        match &self.schedule {
            Schedule::Exponential(e) => Some(e.delay(attempt)),
            Schedule::List(delays) => delays.get(attempt.saturating_sub(1) as usize).copied(),
        }
    }

    fn jittered(&self, base: Duration, chance: f64) -> Duration {
        base + base.mul_f64(self.jitter * chance.clamp(0.0, 1.0))
    }
}

fn check_jitter(jitter: f64) -> Result<(), RetryFault> {
    if (0.0..=1.0).contains(&jitter) {
        Ok(())
    } else {
        Err(RetryFault {
            field: "jitter",
            problem: format!("must be 0 to 1, found {jitter}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay(policy: &RetryPolicy, attempt: u32, chance: f64) -> Option<Duration> {
        let due = policy.due(attempt, UnixMillis(0), chance)?;
        Some(due.at.since(UnixMillis(0)))
    }

    #[test]
    fn the_default_takes_about_32_hours() {
        let policy = RetryPolicy::exponential(Exponential::default(), 0.25).unwrap();
        let delays: Vec<_> = (1..).map_while(|n| delay(&policy, n, 0.0)).collect();
        let seconds: Vec<_> = delays.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [5, 20, 80, 320, 1280, 5120, 20480, 43200, 43200]);
        let total: Duration = delays.iter().sum();
        assert_eq!(total.as_secs() / 3600, 31);
        assert_eq!(delay(&policy, 1, 1.0), Some(Duration::from_millis(6250)));
    }

    #[test]
    fn a_thousand_are_redriven_at_once_and_a_thousand_each_second() {
        let due = |n| Due::of_redriven(UnixMillis(7), n);
        let after_ms = [0, 999, 1000, 1001, 1999, 10_999].map(|n| due(n).at.0 - 7);
        assert_eq!(after_ms, [0, 0, 1, 2, 1000, 10_000]);
        assert_eq!(due(5000), Due::at(due(5000).at), "never sooner");
    }

    #[test]
    fn a_list_makes_one_attempt_more_than_delays() {
        let list = vec![Duration::from_secs(1), Duration::from_secs(9)];
        let policy = RetryPolicy::list(list, 0.0).unwrap();
        assert_eq!(policy.max_attempts(), 3);
        assert_eq!(delay(&policy, 2, 0.9), Some(Duration::from_secs(9)));
        assert_eq!(delay(&policy, 3, 0.9), None);
    }

    #[test]
    fn relations_are_checked() {
        let base = Exponential::default();
        let bad = [
            (
                Exponential {
                    max_attempts: 0,
                    ..base
                },
                "max_attempts",
            ),
            (
                Exponential {
                    max_attempts: 101,
                    ..base
                },
                "max_attempts",
            ),
            (
                Exponential {
                    initial: Duration::ZERO,
                    ..base
                },
                "initial",
            ),
            (
                Exponential {
                    multiplier: 0.9,
                    ..base
                },
                "multiplier",
            ),
            (
                Exponential {
                    multiplier: f64::NAN,
                    ..base
                },
                "multiplier",
            ),
            (
                Exponential {
                    max: Duration::from_secs(1),
                    ..base
                },
                "max",
            ),
            (
                Exponential {
                    max: Duration::from_secs(90_000),
                    ..base
                },
                "max",
            ),
        ];
        for (settings, field) in bad {
            let fault = RetryPolicy::exponential(settings, 0.25).unwrap_err();
            assert_eq!(fault.field, field);
        }
        assert!(RetryPolicy::exponential(base, 1.5).is_err());
        assert!(RetryPolicy::list(vec![], 0.0).is_err());
        assert!(RetryPolicy::list(vec![Duration::ZERO], 0.0).is_err());
    }

    #[test]
    fn an_override_keeps_what_it_does_not_name() {
        let changes = RetryOverride {
            max_attempts: Some(3),
            initial_ms: Some(10),
            ..RetryOverride::default()
        };
        let merged = Exponential::default().with(&changes);
        assert_eq!(merged.max_attempts, 3);
        assert_eq!(merged.initial, Duration::from_millis(10));
        assert_eq!(merged.multiplier, 4.0);
    }
}
