//! The rate of each endpoint over all replicas.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::domain::id::SubscriptionId;
use crate::domain::subscription::RateLimit;

/// Keeps each endpoint's rate over all replicas, by one clock that they share.
///
/// A generic cell rate algorithm (GCRA): each request moves the endpoint's *debt* up by one
/// interval, time moves it down to zero, and a request is granted while the debt before it is
/// no more than `burst - 1` intervals.
#[async_trait]
pub trait SharedRates: Send + Sync {
    /// Takes for each endpoint as many requests as are asked for, or as many as its rate
    /// allows now, which may be none. One answer for each, in the same order.
    ///
    /// # Errors
    /// [`StoreError`]: what was granted is unknown.
    async fn take(&self, asks: &[RateAsk]) -> Result<Vec<RateAnswer>, StoreError>;

    /// How many replicas there are, this one included, as it was last known: at least 1.
    fn replicas(&self) -> u32;
}

/// Requests to one endpoint that are ready to go.
#[derive(Clone, Debug, PartialEq)]
pub struct RateAsk {
    /// The endpoint.
    pub endpoint: SubscriptionId,
    /// Its rate.
    pub rate: RateLimit,
    /// How many; at least 1.
    pub wanted: u32,
    /// The debt as it should be by the last answer: a store that has lost its own begins
    /// with this, not with a new burst.
    pub debt: Duration,
}

/// How many of them may go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateAnswer {
    /// So many.
    pub granted: u32,
    /// The debt with these.
    pub debt: Duration,
}
