//! How many steps matching one event may take.
//!
//! A filter of some kilobytes that tries thousands of leaves on each of half a million array elements, or hundreds of
//! wildcards on a string of a mebibyte, takes minutes, and its tenant may have thousands of them. So the steps of an event
//! are counted over all subscriptions that are asked about it: a step is about an array element, a field or an alternative
//! that is looked at. Ordinary events and filters stay far below. Whoever runs out stops at once and has no
//! answer: what was found up to there must not be used.

use std::cell::Cell;

/// Steps that an event has, whoever is asked about it: up to some seconds in a debug build, far less in a release build.
const STEPS_ONCE: i64 = 20_000_000;
/// Steps that it has in addition for each subscription that is asked, of the first
/// [`ASKED_MAX`]: a tenant does not get more by having more.
const STEPS_EACH: i64 = 50_000;
const ASKED_MAX: usize = 1_000;

/// What is left of an event's steps.
#[derive(Debug)]
pub struct Budget {
    /// Below zero when they did not suffice.
    left: Cell<i64>,
}

impl Budget {
    /// The steps of an event that so many subscriptions are asked about.
    pub fn of_event(subscriptions: usize) -> Self {
        let asked = i64::try_from(subscriptions.min(ASKED_MAX)).unwrap_or(i64::MAX);
        Self {
            left: Cell::new(asked.saturating_mul(STEPS_EACH).saturating_add(STEPS_ONCE)),
        }
    }

    /// Whether the steps did not suffice, so that there is no answer.
    pub fn is_spent(&self) -> bool {
        self.left.get() < 0
    }

    /// Takes `steps`; says whether there were as many.
    pub(super) fn spend(&self, steps: usize) -> bool {
        if self.is_spent() {
            return false;
        }
        let steps = i64::try_from(steps).unwrap_or(i64::MAX);
        self.left.set(self.left.get().saturating_sub(steps));
        !self.is_spent()
    }

    /// Steps that are left.
    #[cfg(test)]
    pub(super) fn left(&self) -> i64 {
        self.left.get()
    }
}
