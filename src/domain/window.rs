//! The adaptive window of one endpoint: how many requests at once it may have.
//!
//! Additive increase, multiplicative decrease, as TCP does it (RFC 5681, section 3.1): one
//! more for each window of successes, half as many when the endpoint is overloaded. A pure
//! state machine over a monotonic clock that the caller reads.

use std::time::Duration;

/// Requests at once to an endpoint of which nothing is known yet.
const START: f64 = 4.0;

/// How many requests at once, between 1 and a ceiling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    size: f64,
    ceiling: f64,
    /// Requests that began before say nothing new about an overload.
    halved_at: Option<Duration>,
}

impl Window {
    /// The window of an endpoint of which nothing is known; `ceiling` of 0 counts as 1.
    pub fn new(ceiling: u32) -> Self {
        let ceiling = f64::from(ceiling.max(1));
        Self {
            size: START.min(ceiling),
            ceiling,
            halved_at: None,
        }
    }

    /// Changes the ceiling.
    pub fn set_ceiling(&mut self, ceiling: u32) {
        self.ceiling = f64::from(ceiling.max(1));
        self.size = self.size.min(self.ceiling);
    }

    /// Requests that may be under way at once: at least 1.
    pub fn limit(&self) -> u32 {
        // Cut off, which is meant; between 1 and a ceiling that was a u32.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let limit = self.size as u32;
        limit.max(1)
    }

    /// A request succeeded: a window of them makes it one larger.
    pub fn succeeded(&mut self) {
        self.size = (self.size + 1.0 / self.size).min(self.ceiling);
    }

    /// A request that began at `began` found the endpoint overloaded: half as many, once for
    /// all that were under way together.
    pub fn overloaded(&mut self, began: Duration, now: Duration) {
        if self.halved_at.is_none_or(|halved_at| began >= halved_at) {
            self.size = (self.size / 2.0).max(1.0);
            self.halved_at = Some(now);
        }
    }

    /// The endpoint was away and is back: one at a time at first.
    pub fn restart(&mut self) {
        self.size = 1.0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn grows_by_one_for_each_window_of_successes() {
        let mut window = Window::new(32);
        assert_eq!(window.limit(), 4);
        let mut successes = Vec::new();
        for n in 1..=2000 {
            let before = window.limit();
            window.succeeded();
            if window.limit() > before {
                successes.push(n);
            }
        }
        assert_eq!(window.limit(), 32);
        // About the window's size each time; the share that each adds shrinks on the way.
        assert_eq!(&successes[..3], &[5, 10, 17]);
        assert!((480..540).contains(&successes[27]), "{successes:?}");
    }

    #[test]
    fn one_overload_halves_it_once() {
        let mut window = Window::new(32);
        for _ in 0..1000 {
            window.succeeded();
        }
        // Those that were under way together say it together.
        for _ in 0..32 {
            window.overloaded(at(100), at(200));
        }
        assert_eq!(window.limit(), 16);
        window.overloaded(at(200), at(300));
        assert_eq!(window.limit(), 8);
    }

    #[test]
    fn a_low_ceiling_is_one_at_least() {
        let mut window = Window::new(0);
        window.succeeded();
        assert_eq!(window.limit(), 1);
        window = Window::new(2);
        assert_eq!(window.limit(), 2);
        window.set_ceiling(1);
        assert_eq!(window.limit(), 1);
    }

    proptest! {
        #[test]
        fn it_stays_between_one_and_its_ceiling(
            ceiling in 0u32..2000,
            steps in proptest::collection::vec((0u8..4, 0u32..2000), 0..400),
        ) {
            let (mut window, mut ceiling) = (Window::new(ceiling), ceiling);
            let mut now = Duration::ZERO;
            for (step, number) in steps {
                now += at(1);
                match step {
                    0 => window.succeeded(),
                    1 => window.overloaded(now, now),
                    2 => window.restart(),
                    _ => {
                        ceiling = number;
                        window.set_ceiling(number);
                    }
                }
                prop_assert!((1..=ceiling.max(1)).contains(&window.limit()));
            }
        }
    }
}
