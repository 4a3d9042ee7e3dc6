//! Attempts that the audit log could not keep: each is counted, and one line says when that
//! begins and one when it is over.
//!
//! Not a line for each attempt: a store that takes none would fill the log as fast as
//! deliveries go.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

/// How long nothing must be lost until it is over: a store that is too slow takes some
/// attempts between those that it does not.
const OVER_AFTER: Duration = Duration::from_secs(10);

/// Counts what is lost, and tells of it.
pub struct Losses {
    count: Arc<AtomicU64>,
    spell: Mutex<Option<Spell>>,
}

/// A time in which attempts are lost.
struct Spell {
    /// How many, so far.
    lost: u64,
    /// When the last was.
    last: Instant,
}

impl Losses {
    /// Nothing was lost yet. `count` becomes `carillon_audit_dropped_total`.
    #[must_use]
    pub fn new(count: Arc<AtomicU64>) -> Self {
        Self {
            count,
            spell: Mutex::default(),
        }
    }

    /// So many attempts are lost, and why; none is nothing to tell of.
    pub fn lost(&self, count: usize, why: &dyn Display) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.count.fetch_add(count, Ordering::Relaxed);
        if self.begins(count, Instant::now()) {
            warn!(
                %why,
                "attempts are missing in the audit log; deliveries go on, and carillon_audit_dropped_total counts"
            );
        }
    }

    /// Attempts were kept.
    pub fn kept(&self) {
        if let Some(lost) = self.ends(Instant::now()) {
            info!(lost, "attempts are kept in the audit log again");
        }
    }

    /// Notes a loss; says whether it is the first of its time.
    fn begins(&self, count: u64, now: Instant) -> bool {
        if count == 0 {
            return false;
        }
        let mut spell = self.spell.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = spell.as_ref().map_or(0, |spell| spell.lost);
        let begins = spell.is_none();
        *spell = Some(Spell {
            lost: lost + count,
            last: now,
        });
        begins
    }

    /// How many were lost, when it is over with that.
    fn ends(&self, now: Instant) -> Option<u64> {
        let mut spell = self.spell.lock().unwrap_or_else(PoisonError::into_inner);
        spell
            .take_if(|spell| now.saturating_duration_since(spell.last) >= OVER_AFTER)
            .map(|spell| spell.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_losses_is_told_once_at_each_end() {
        let losses = Losses::new(Arc::default());
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert!(!losses.begins(0, at(0)), "none is no loss");
        assert_eq!(losses.ends(at(0)), None);
        assert!(losses.begins(3, at(1)));
        assert!(!losses.begins(4, at(5)));
        assert_eq!(losses.ends(at(14)), None, "some are kept between");
        assert!(!losses.begins(1, at(15)));
        assert_eq!(losses.ends(at(25)), Some(8));
        assert_eq!(losses.ends(at(26)), None);
        assert!(losses.begins(1, at(27)), "the next time is told again");
    }

    #[test]
    fn each_attempt_is_counted() {
        let count = Arc::<AtomicU64>::default();
        let losses = Losses::new(Arc::clone(&count));
        losses.lost(2, &"no room");
        losses.kept();
        losses.lost(3, &"no room");
        assert_eq!(count.load(Ordering::Relaxed), 5);
    }
}
