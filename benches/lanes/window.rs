//! Whether arrivals keep to a rate, in every window.

use std::time::Duration;

/// A rate limit.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Sustained requests per second.
    pub per_second: u32,
    /// Requests that may come at once.
    pub burst: u32,
}

/// The window in which most came above the rate.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// By how many requests more than it allows; below zero: within.
    pub excess: f64,
    /// How many came in it.
    pub requests: usize,
    /// When it began.
    pub from: Duration,
    /// How long it was.
    pub length: Duration,
    rate: Rate,
}

impl Rate {
    /// How long so many take at this rate, without a burst.
    pub fn time_for(self, requests: u32) -> Duration {
        Duration::from_secs_f64(f64::from(requests) / f64::from(self.per_second))
    }

    /// The worst of all windows that begin and end with one of `times`, which are in their
    /// order; `None` when there are fewer than two.
    ///
    /// From arrival i to j a window may hold `burst + rate * (t_j - t_i)`, and one more for the
    /// clocks. With `a_k = k - rate * t_k` it holds `(a_j - a_i) - burst` more than that: so the
    /// worst window that ends with j begins with the least `a` before it.
    pub fn worst_window(self, times: &[Duration]) -> Option<Window> {
        let level = |k: usize| k as f64 - f64::from(self.per_second) * times[k].as_secs_f64();
        let mut least = 0;
        let mut worst: Option<Window> = None;
        for j in 1..times.len() {
            let excess = level(j) - level(least) - f64::from(self.burst);
            if worst.is_none_or(|worst| excess > worst.excess) {
                worst = Some(Window {
                    excess,
                    requests: j - least + 1,
                    from: times[least],
                    length: times[j] - times[least],
                    rate: self,
                });
            }
            if level(j) < level(least) {
                least = j;
            }
        }
        worst
    }
}

impl Window {
    /// Whether every window is within the rate, and how the worst is.
    pub fn tell(&self, begun: Duration) -> String {
        let Self {
            excess, requests, ..
        } = self;
        let from = self.from.saturating_sub(begun).as_secs_f64();
        let length = self.length.as_secs_f64();
        let judged = if *excess <= 0.0 {
            "every window is within the rate".to_owned()
        } else {
            // How much later than the others the first of them must have come to look like it.
            let held_up_ms = excess * 1000.0 / f64::from(self.rate.per_second);
            format!("above the rate by {excess:.1}, or one held up by {held_up_ms:.0} ms")
        };
        format!(
            "{judged}; worst window: {requests} requests in {length:.3} s from {from:.3} s on, \
             {excess:+.1} beside burst + rate * t + 1"
        )
    }
}
