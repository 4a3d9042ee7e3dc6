//! [`SharedRates`]: for each endpoint the time at which its debt is over, by Redis's clock.
//!
//! The key of an endpoint expires with its debt: nothing is kept of one that is quiet.

use std::time::Duration;

use async_trait::async_trait;

use super::{Core, Redis};
use crate::ports::{RateAnswer, RateAsk, SharedRates, StoreError};

/// How long Redis may take: a lane waits for it.
const LIMIT: Duration = Duration::from_millis(250);
/// The longest time between two requests, a year. A lower rate would still be none.
const INTERVAL_US_MAX: f64 = 366.0 * 24.0 * 3600.0 * 1e6;

#[async_trait]
impl SharedRates for Redis {
    async fn take(&self, asks: &[RateAsk]) -> Result<Vec<RateAnswer>, StoreError> {
        let core = &self.core;
        let calls: Vec<_> = asks.iter().map(|ask| core.rate_call(ask)).collect();
        let taken = core.link.call_all(LIMIT, &core.scripts.take, &calls);
        let answers: Vec<(u32, u128)> = taken.await?;
        let answer = |(granted, debt_us): (u32, u128)| RateAnswer {
            granted,
            debt: Duration::from_micros(u64::try_from(debt_us).unwrap_or(u64::MAX)),
        };
        Ok(answers.into_iter().map(answer).collect())
    }

    fn replicas(&self) -> u32 {
        self.core.replicas.count()
    }
}

impl Core {
    fn rate_call(&self, ask: &RateAsk) -> Vec<String> {
        vec![
            format!("{}:r:{}", self.keys.prefix, ask.endpoint),
            interval_us(ask.rate.per_second).to_string(),
            ask.rate.burst.to_string(),
            ask.wanted.to_string(),
            ask.debt.as_nanos().div_ceil(1000).to_string(),
        ]
    }
}

/// The time between two requests in whole microseconds, rounded up: never too many.
fn interval_us(per_second: f64) -> f64 {
    (1e6 / per_second).ceil().clamp(1.0, INTERVAL_US_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_whole_and_never_too_short() {
        for (per_second, us) in [
            (1e6, "1"),
            (999_999.9, "2"),
            (600_000.0, "2"),
            (3.0, "333334"),
            (1.0, "1000000"),
            (0.1, "10000000"),
            (1e-9, "31622400000000"),
            (f64::MIN_POSITIVE, "31622400000000"),
        ] {
            assert_eq!(interval_us(per_second).to_string(), us, "{per_second}");
        }
    }
}
