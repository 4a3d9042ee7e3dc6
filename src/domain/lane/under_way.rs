//! The requests of one lane that are under way.

use std::collections::VecDeque;
use std::time::Duration;

/// The lane's note of a request that it let go: given back with what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    number: u64,
    pub(super) began: Duration,
    pub(super) is_probe: bool,
    /// What follows from the answer is being made durable.
    is_answered: bool,
}

/// Their passes, oldest first.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    passes: VecDeque<Pass>,
    count: u64,
}

impl UnderWay {
    pub(super) fn begin(&mut self, now: Duration, is_probe: bool) -> Pass {
        let pass = Pass {
            number: self.count,
            began: now,
            is_probe,
            is_answered: false,
        };
        self.count += 1;
        self.passes.push_back(pass);
        pass
    }

    pub(super) fn answered(&mut self, pass: Pass) {
        let mut all = self.passes.iter_mut();
        if let Some(pass) = all.find(|other| other.number == pass.number) {
            pass.is_answered = true;
        }
    }

    pub(super) fn end(&mut self, pass: Pass) {
        self.passes.retain(|other| other.number != pass.number);
    }

    pub(super) fn len(&self) -> usize {
        self.passes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.passes.is_empty()
    }

    pub(super) fn has_probe(&self) -> bool {
        self.passes.iter().any(|pass| pass.is_probe)
    }

    /// When the oldest began that the endpoint has not answered.
    pub(super) fn oldest_unanswered(&self) -> Option<Duration> {
        let mut all = self.passes.iter();
        all.find(|pass| !pass.is_answered).map(|pass| pass.began)
    }
}
