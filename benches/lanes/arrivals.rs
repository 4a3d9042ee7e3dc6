//! What arrived: every request of a run, in the order in which they came.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// One request.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Which endpoint it came to.
    pub endpoint: usize,
    /// The number of its event.
    pub event: u64,
    /// When publishing the event began.
    pub sent: Duration,
    /// When it was read.
    pub at: Duration,
    /// When it was to be answered.
    pub answered_at: Duration,
    /// Whether that was with 200.
    pub acknowledged: bool,
    /// Its `webhook-id`.
    pub delivery: String,
}

/// All of them, and what is asked while they come.
#[derive(Default)]
pub struct Arrivals {
    /// In their order.
    pub all: Vec<Arrival>,
    /// When the first came, by endpoint.
    first_at: HashMap<usize, Duration>,
    /// The deliveries that were acknowledged, by endpoint.
    delivered: HashMap<usize, HashSet<u64>>,
}

impl Arrivals {
    /// When the first request came to `endpoint`: `now`, if there was none so far.
    pub fn first_at(&mut self, endpoint: usize, now: Duration) -> Duration {
        *self.first_at.entry(endpoint).or_insert(now)
    }

    /// Takes note of one.
    pub fn add(&mut self, arrival: Arrival) {
        if arrival.acknowledged {
            let delivered = self.delivered.entry(arrival.endpoint).or_default();
            delivered.insert(arrival.event);
        }
        self.all.push(arrival);
    }

    /// How many different events `endpoint` has acknowledged.
    pub fn delivered(&self, endpoint: usize) -> usize {
        self.delivered.get(&endpoint).map_or(0, HashSet::len)
    }

    /// Each event's first arrival at an endpoint, which is its first attempt if no attempt was
    /// lost on the way.
    pub fn first(&self) -> HashMap<(usize, u64), &Arrival> {
        let mut first = HashMap::new();
        for arrival in &self.all {
            let key = (arrival.endpoint, arrival.event);
            first.entry(key).or_insert(arrival);
        }
        first
    }
}
