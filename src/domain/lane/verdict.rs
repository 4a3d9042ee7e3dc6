//! What a lane is asked and what it answers.

use std::time::Duration;

use super::Pass;

/// Whether work is an event's first attempt or comes back for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Straight from an event.
    Fresh,
    /// Due again.
    Returning,
}

/// How much room the process has for a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Whether one more request may start.
    pub slot: bool,
    /// How much of the lane's work may be in memory, waiting or under way.
    pub occupied: usize,
    /// How much of its endpoint's pace may be waiting.
    pub held_for: Duration,
}

/// What came of a request, as far as it matters to the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The endpoint took it.
    Success,
    /// It failed.
    Failure,
    /// It failed because the endpoint has too much to do.
    Overload,
}

/// Why a request may not go at this moment, although nothing but the rate is in its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateWait {
    /// There is one after so long.
    After(Duration),
    /// Others have a say in it, and are asked.
    Asked,
}

/// What waiting work waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaits {
    /// The end of a request, or room in the process.
    Room,
    /// This time.
    Time(Duration),
    /// Who is asked about the rate.
    Rate,
}

/// The answer to an offer or a request for the next work.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<W> {
    /// Send it now; the lane counts it as in flight.
    Start(W, Pass),
    /// It waits in the lane, or there is nothing to start.
    Wait(Awaits),
    /// Come back at this time.
    Defer(W, Duration, DeferReason),
}

/// Why work is turned away for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeferReason {
    /// The endpoint has reached its rate.
    RateLimited,
    /// The endpoint asked to be left alone.
    Paused,
    /// The endpoint fails, and its circuit is open.
    CircuitOpen,
    /// As much waits as the endpoint will take soon.
    Busy,
    /// Its tenant has as much in memory as is its share.
    TenantShare,
}

impl DeferReason {
    /// Every reason.
    pub const ALL: [Self; 5] = [
        Self::RateLimited,
        Self::Paused,
        Self::CircuitOpen,
        Self::Busy,
        Self::TenantShare,
    ];

    /// The reason in one word, for metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Paused => "paused",
            Self::CircuitOpen => "circuit_open",
            Self::Busy => "busy",
            Self::TenantShare => "tenant_share",
        }
    }
}
