//! A lane as it is at one moment, for whoever looks at it.

use std::time::Duration;

use super::Lane;
use crate::domain::circuit::Passage;

/// A lane at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneState {
    /// Requests that may be under way at once.
    pub window: u32,
    /// Requests that are.
    pub in_flight: u32,
    /// Deliveries that wait in memory.
    pub held: usize,
    /// Whether requests pass.
    pub circuit: CircuitState,
    /// For how long the endpoint has asked to be left alone yet.
    pub paused_for: Option<Duration>,
}

/// Whether requests pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    /// Yes.
    Closed,
    /// No, for so long.
    Open(Duration),
    /// One at a time, to see whether the endpoint is there again.
    HalfOpen,
}

/// How an endpoint does, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Without trouble.
    Healthy,
    /// At its rate or window: deliveries wait for it.
    Throttled,
    /// It fails, and its circuit is not closed.
    Open,
    /// It asked to be left alone.
    Paused,
}

impl Standing {
    /// Every one, the best first.
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Throttled, Self::Open, Self::Paused];

    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Throttled => "throttled",
            Self::Open => "open",
            Self::Paused => "paused",
        }
    }
}

impl CircuitState {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open(_) => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl LaneState {
    /// The same in one word.
    pub fn standing(&self) -> Standing {
        if self.paused_for.is_some() {
            Standing::Paused
        } else if self.circuit != CircuitState::Closed {
            Standing::Open
        } else if self.held > 0 {
            Standing::Throttled
        } else {
            Standing::Healthy
        }
    }
}

impl<W> Lane<W> {
    /// How it is now.
    pub fn state(&self, now: Duration) -> LaneState {
        LaneState {
            window: self.window.limit(),
            in_flight: self.in_flight(),
            held: self.held(),
            circuit: match self.circuit.passage(now) {
                Passage::Free => CircuitState::Closed,
                Passage::From(until) => CircuitState::Open(until.saturating_sub(now)),
                Passage::Probe | Passage::AfterProbe => CircuitState::HalfOpen,
            },
            paused_for: self.is_paused(now).then(|| self.paused_until - now),
        }
    }
}
