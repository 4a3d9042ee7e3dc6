//! What exchanges and queues are called, and the ladder of waits.
//!
//! A delivery waits in a queue with one fixed time to live. Equal times expire in order, so
//! nothing waits behind something longer, and one hop suffices.

use std::collections::BTreeSet;
use std::time::Duration;

use lapin::types::ShortString;

use crate::domain::retry::Due;
use crate::domain::timestamp::UnixMillis;

/// The shortest wait.
const SHORTEST_MS: u64 = 250;
/// The longest wait: a day.
const LONGEST_MS: u64 = 24 * 3600 * 1000;

/// The names under one prefix.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// Exchange (topic) and queue of events.
    pub(super) events: ShortString,
    /// Exchange (fanout) of what has no queue, in front of the quarantine.
    pub(super) unrouted: ShortString,
    /// Exchange (topic) and queue of deliveries that are due.
    pub(super) deliveries: ShortString,
    /// Queue of what was given up.
    pub(super) dead_letters: ShortString,
    /// Queue of what was not understood.
    pub(super) quarantine: ShortString,
    /// Exchange (topic) of notices.
    pub(super) notices: ShortString,
    /// The queues to wait in, shortest first.
    pub(super) rungs: Vec<Rung>,
}

/// One queue to wait in.
#[derive(Clone, Debug)]
pub(super) struct Rung {
    /// How long, in milliseconds.
    pub(super) ms: u64,
    /// Its name.
    pub(super) queue: ShortString,
}

impl Names {
    /// The names that begin with `prefix`.
    pub(super) fn new(prefix: &str) -> Self {
        let name = |rest: &str| ShortString::from(format!("{prefix}.{rest}"));
        let rung = |ms| Rung {
            ms,
            queue: name(&format!("wait.{ms}")),
        };
        Self {
            events: name("events"),
            unrouted: name("unrouted"),
            deliveries: name("deliveries"),
            dead_letters: name("dead-letters"),
            quarantine: name("quarantine"),
            notices: name("notices"),
            rungs: ladder().map(rung).collect(),
        }
    }

    /// Where a delivery waits that is put at `now`; `None` when it is due.
    ///
    /// The first rung that is no shorter than `due.at`, unless that is later than
    /// `due.latest` and a shorter one will do. Never one that would be early, and none that is
    /// `avoided` while there is another.
    pub(super) fn rung(&self, due: Due, now: UnixMillis, avoided: &BTreeSet<u64>) -> Option<&Rung> {
        if due.at <= now {
            return None;
        }
        let left = |at: UnixMillis| ms(at.since(now));
        let no_sooner = |than: u64| {
            let first = self.rungs.partition_point(|rung| rung.ms < than);
            let mut all = self.rungs[first..].iter();
            let usable = all.find(|rung| !avoided.contains(&rung.ms));
            usable.or(self.rungs.get(first)).or(self.rungs.last())
        };
        let best = no_sooner(left(due.at))?;
        if best.ms <= left(due.latest) {
            return Some(best);
        }
        let shorter = no_sooner(left(due.earliest))?;
        let is_better = shorter.ms <= left(due.latest);
        Some(if is_better { shorter } else { best })
    }
}

/// What is declared under `prefix`: the names of all queues, and of all exchanges. For
/// whoever takes an installation away.
pub fn declared(prefix: &str) -> (Vec<String>, Vec<String>) {
    let names = Names::new(prefix);
    let text = |name: &ShortString| name.as_str().to_owned();
    let queues = [
        &names.events,
        &names.deliveries,
        &names.dead_letters,
        &names.quarantine,
    ];
    let rungs = names.rungs.iter().map(|rung| &rung.queue);
    let exchanges = [
        &names.events,
        &names.deliveries,
        &names.unrouted,
        &names.notices,
    ];
    (
        queues.into_iter().chain(rungs).map(text).collect(),
        exchanges.map(text).into(),
    )
}

/// The waits in milliseconds: each at most a quarter longer than the one before.
fn ladder() -> impl Iterator<Item = u64> {
    let next = |ms: &u64| (*ms < LONGEST_MS).then(|| (*ms + *ms / 4).min(LONGEST_MS));
    std::iter::successors(Some(SHORTEST_MS), next)
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ladder_has_no_wide_step() {
        let rungs: Vec<u64> = ladder().collect();
        assert_eq!((rungs[0], rungs[1]), (250, 312));
        assert_eq!(rungs.last(), Some(&86_400_000));
        assert!(rungs.len() < 64, "{}", rungs.len());
        for pair in rungs.windows(2) {
            assert!(pair[0] < pair[1] && pair[1] * 4 <= pair[0] * 5, "{pair:?}");
        }
    }

    proptest! {
        #[test]
        fn never_early_and_within_a_rung(base in 1u64..80_000_000, share in 0.0f64..1.0) {
            let names = Names::new("carillon");
            let now = UnixMillis(1_000);
            let after = |ms: u64| now.after(Duration::from_millis(ms));
            let spread = base / 4;
            let due = Due {
                earliest: after(base),
                at: after(base + (spread as f64 * share) as u64),
                latest: after(base + spread),
            };
            let none = BTreeSet::new();
            let rung = names.rung(due, now, &none).unwrap().ms;
            prop_assert!(rung >= base);
            if base >= 1000 {
                prop_assert!(rung <= base + spread, "{rung} for {base}");
            }
            let exact = names.rung(Due::at(after(base)), now, &none).unwrap().ms;
            prop_assert!(exact >= base && (exact <= base + spread + 1 || exact == 250));
        }
    }

    #[test]
    fn what_is_due_does_not_wait() {
        let names = Names::new("carillon");
        let none = BTreeSet::new();
        for at in [1, 5] {
            let due = Due::at(UnixMillis(at));
            assert!(names.rung(due, UnixMillis(5), &none).is_none());
        }
        let far = Due::at(UnixMillis(0).after(Duration::from_secs(30 * 3600)));
        assert_eq!(
            names.rung(far, UnixMillis(0), &none).unwrap().ms,
            LONGEST_MS
        );
    }

    #[test]
    fn what_is_avoided_is_used_only_when_there_is_nothing_else() {
        let names = Names::new("carillon");
        let rung = |ms: u64, avoided: &BTreeSet<u64>| {
            let due = Due::at(UnixMillis(0).after(Duration::from_millis(ms)));
            names.rung(due, UnixMillis(0), avoided).unwrap().ms
        };
        assert_eq!(rung(300, &BTreeSet::from([312])), 390);
        assert_eq!(rung(300, &BTreeSet::from([390])), 312);
        // Rather that than one that is early.
        assert_eq!(rung(LONGEST_MS, &BTreeSet::from([LONGEST_MS])), LONGEST_MS);
        assert_eq!(rung(300, &ladder().collect()), 312);
    }
}
