//! The circuit of one endpoint: whether requests pass.
//!
//! Closed, they do. After some failures in a row it opens, and nothing passes for a time
//! that grows; then it is half open, and one request is the probe: its success closes the
//! circuit, its failure opens it again for longer. A pure state machine over a monotonic
//! clock that the caller reads.

use std::time::Duration;

/// Failures in a row that open a circuit.
const FAILURES_MAX: u32 = 5;

/// How long a circuit stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenTimes {
    /// The first time.
    pub first: Duration,
    /// At most; each time is twice as long as the one before.
    pub max: Duration,
}

impl OpenTimes {
    fn after(self, times: u32) -> Duration {
        let doubled = self.first.checked_mul(2_u32.saturating_pow(times));
        doubled.map_or(self.max, |open| open.min(self.max))
    }
}

/// Whether a request may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Yes.
    Free,
    /// As the probe: say so by [`Circuit::probe`].
    Probe,
    /// Not before the probe's end.
    AfterProbe,
    /// Not before this time.
    From(Duration),
}

/// Whether requests pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Circuit {
    state: State,
    times: OpenTimes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed {
        failures: u32,
    },
    /// For the `opened`th time in a row, from 0.
    Open {
        until: Duration,
        opened: u32,
    },
    /// The probe is under way.
    HalfOpen {
        opened: u32,
    },
}

impl Circuit {
    /// A closed circuit.
    pub fn new(times: OpenTimes) -> Self {
        Self {
            state: State::Closed { failures: 0 },
            times,
        }
    }

    /// Changes how long it stays open, from the next time on.
    pub fn set_times(&mut self, times: OpenTimes) {
        self.times = times;
    }

    /// Whether a request may pass.
    pub fn passage(&self, now: Duration) -> Passage {
        match self.state {
            State::Closed { .. } => Passage::Free,
            State::Open { until, .. } if now < until => Passage::From(until),
            State::Open { .. } => Passage::Probe,
            State::HalfOpen { .. } => Passage::AfterProbe,
        }
    }

    /// The probe begins. Nothing passes until it ends.
    pub fn probe(&mut self) {
        if let State::Open { opened, .. } = self.state {
            self.state = State::HalfOpen { opened };
        }
    }

    /// A request succeeded, the probe or one from before: the endpoint is there. Says whether
    /// the circuit was not closed.
    pub fn succeeded(&mut self) -> bool {
        let was_closed = self.is_closed();
        self.state = State::Closed { failures: 0 };
        !was_closed
    }

    /// A request failed. Of those that began before the circuit opened nothing new is learnt.
    /// Says whether it opened.
    pub fn failed(&mut self, now: Duration, is_probe: bool) -> bool {
        match self.state {
            State::Closed { failures } if failures + 1 < FAILURES_MAX => {
                let failures = failures + 1;
                self.state = State::Closed { failures };
                false
            }
            State::Closed { .. } => self.open(now, 0),
            State::HalfOpen { opened } if is_probe => self.open(now, opened.saturating_add(1)),
            State::HalfOpen { .. } | State::Open { .. } => false,
        }
    }

    /// The probe ended without an answer of any kind: the next request is the probe.
    pub fn probe_lost(&mut self, now: Duration) {
        if let State::HalfOpen { opened } = self.state {
            self.state = State::Open { until: now, opened };
        }
    }

    /// How long it is open this time; zero when it is closed.
    pub fn open_for(&self) -> Duration {
        match self.state {
            State::Closed { .. } => Duration::ZERO,
            State::Open { opened, .. } | State::HalfOpen { opened } => self.times.after(opened),
        }
    }

    /// Whether requests pass freely.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    fn open(&mut self, now: Duration, opened: u32) -> bool {
        let until = now.saturating_add(self.times.after(opened));
        self.state = State::Open { until, opened };
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIMES: OpenTimes = OpenTimes {
        first: Duration::from_secs(1),
        max: Duration::from_secs(5),
    };

    const fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn opened() -> Circuit {
        let mut circuit = Circuit::new(TIMES);
        for n in 1..=FAILURES_MAX {
            assert_eq!(circuit.passage(at(0)), Passage::Free);
            assert_eq!(circuit.failed(at(0), false), n == FAILURES_MAX);
        }
        circuit
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_does_not() {
        let mut circuit = Circuit::new(TIMES);
        for n in 0..40 {
            assert_eq!(circuit.passage(at(n)), Passage::Free);
            circuit.failed(at(n), false);
            if n % 4 == 3 {
                assert!(!circuit.succeeded());
            }
        }
        assert_eq!(opened().passage(at(999)), Passage::From(at(1000)));
    }

    #[test]
    fn each_failed_probe_keeps_it_open_twice_as_long() {
        let mut circuit = opened();
        let mut now = at(0);
        for seconds in [1, 2, 4, 5, 5] {
            assert_eq!(circuit.open_for(), Duration::from_secs(seconds));
            let until = now + Duration::from_secs(seconds);
            assert_eq!(circuit.passage(until - at(1)), Passage::From(until));
            assert_eq!(circuit.passage(until), Passage::Probe);
            circuit.probe();
            assert_eq!(circuit.passage(until), Passage::AfterProbe);
            assert!(circuit.failed(until, true));
            now = until;
        }
        assert!(circuit.succeeded());
        assert_eq!(circuit.passage(now), Passage::Free);
        assert_eq!(circuit.open_for(), Duration::ZERO);
    }

    #[test]
    fn what_began_before_it_opened_fails_without_effect_and_may_close_it() {
        let mut circuit = opened();
        assert!(!circuit.failed(at(500), false));
        assert_eq!(circuit.passage(at(1000)), Passage::Probe);
        circuit.probe();
        assert!(!circuit.failed(at(1100), false));
        assert_eq!(circuit.passage(at(1100)), Passage::AfterProbe);
        assert!(circuit.succeeded());
        // The probe that fails after all is the first failure.
        assert!(!circuit.failed(at(1200), true));
        assert_eq!(circuit.passage(at(1200)), Passage::Free);
    }

    #[test]
    fn a_probe_that_is_lost_leaves_room_for_the_next() {
        let mut circuit = opened();
        circuit.probe();
        circuit.probe_lost(at(1500));
        assert_eq!(circuit.passage(at(1500)), Passage::Probe);
        let mut closed = Circuit::new(TIMES);
        closed.probe_lost(at(0));
        assert_eq!(closed.passage(at(0)), Passage::Free);
    }

    #[test]
    fn the_longest_time_holds_for_ever() {
        let times = OpenTimes {
            first: Duration::from_secs(u64::MAX / 2),
            max: Duration::MAX,
        };
        for opened in [0, 1, 31, 32, u32::MAX] {
            assert!(times.after(opened) >= times.first);
        }
    }

    proptest! {
        /// Whatever happens in whatever order: while it is not closed there is one probe at
        /// most, and none before its time.
        #[test]
        fn there_is_never_more_than_one_probe(
            steps in proptest::collection::vec((0u8..6, 0u64..3000), 0..300),
        ) {
            let mut circuit = Circuit::new(TIMES);
            let mut now = Duration::ZERO;
            let mut probing = false;
            for (step, ms) in steps {
                now += at(ms);
                match step {
                    0 | 1 => match circuit.passage(now) {
                        Passage::Probe => {
                            prop_assert!(!probing);
                            circuit.probe();
                            probing = true;
                        }
                        Passage::AfterProbe => prop_assert!(probing),
                        Passage::From(until) => {
                            prop_assert!(until > now && until <= now + TIMES.max);
                        }
                        Passage::Free => prop_assert!(circuit.is_closed()),
                    },
                    2 => {
                        circuit.succeeded();
                        probing = false;
                    }
                    3 => {
                        circuit.failed(now, false);
                    }
                    4 if probing => {
                        circuit.failed(now, true);
                        probing = false;
                    }
                    5 if probing => {
                        circuit.probe_lost(now);
                        probing = false;
                    }
                    _ => {}
                }
            }
        }
    }
}
