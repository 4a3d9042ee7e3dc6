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
