//! Latencies: how they are spread, with what never arrived.

use std::fmt;
use std::time::Duration;

/// Latencies of events, in their order. What never arrived is in it with its age.
#[derive(Clone, Debug, Default)]
pub struct Latencies(Vec<Latency>);

/// One latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Latency {
    time: Duration,
    /// It never arrived: it is more than that.
    missing: bool,
}

impl Latency {
    /// Of an event that arrived.
    pub fn arrived(time: Duration) -> Self {
        let missing = false;
        Self { time, missing }
    }

    /// Of one that did not, and has this age.
    pub fn missing(time: Duration) -> Self {
        let missing = true;
        Self { time, missing }
    }

    /// How many times `other` it is.
    pub fn ratio(self, other: Self) -> String {
        let ratio = self.time.as_secs_f64() / other.time.as_secs_f64();
        format!("{}{ratio:.2}", self.sign())
    }

    fn sign(self) -> &'static str {
        if self.missing { "> " } else { "" }
    }
}

impl FromIterator<Latency> for Latencies {
    fn from_iter<I: IntoIterator<Item = Latency>>(latencies: I) -> Self {
        let mut latencies: Vec<Latency> = latencies.into_iter().collect();
        latencies.sort_unstable();
        Self(latencies)
    }
}

impl Latencies {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// How many arrived.
    pub fn arrived(&self) -> usize {
        self.0.iter().filter(|latency| !latency.missing).count()
    }

    /// How many took longer than `limit`, or never arrived.
    pub fn over(&self, limit: Duration) -> usize {
        let over = |latency: &&Latency| latency.missing || latency.time > limit;
        self.0.iter().filter(over).count()
    }

    /// The latency that `percent` of all do not exceed; nothing, when there are none.
    pub fn percentile(&self, percent: usize) -> Latency {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        let nothing = Latency::arrived(Duration::ZERO);
        self.0.get(rank - 1).copied().unwrap_or(nothing)
    }

    /// p50, p95, p99 and the longest, as cells of a table.
    pub fn cells(&self) -> [String; 4] {
        [50, 95, 99, 100].map(|percent| self.percentile(percent).to_string())
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.time.as_secs_f64() * 1000.0;
        let decimals = if ms < 100.0 { 1 } else { 0 };
        write!(f, "{}{ms:.decimals$} ms", self.sign())
    }
}
