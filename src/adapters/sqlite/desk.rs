//! Receipts: what was handed out, and what comes again because its receipt was dropped.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::locked;
use super::queue::{Lane, Queue};
use crate::ports::ReceiptDesk;

/// How long a message stays away that was given back once, so that a fault of a store or
/// of ours makes no hot loop. Doubled each time.
const AWAY: Duration = Duration::from_millis(100);
const AWAY_MAX: Duration = Duration::from_secs(5);

/// Takes receipts of one queue back.
pub(super) struct Desk {
    lane: Lane,
    queue: Arc<Queue>,
    state: Mutex<State>,
    bell: Notify,
}

#[derive(Default)]
struct State {
    /// Handed out, and not deleted from the file yet.
    out: HashSet<i64>,
    /// Given back, to be looked at by the feed.
    returned: Vec<i64>,
    /// How often each was given back.
    returns: HashMap<i64, u32>,
}

/// Messages that were given back, by when they come again.
#[derive(Default)]
pub(super) struct Comeback(BinaryHeap<Reverse<(Instant, i64)>>);

impl Desk {
    pub(super) fn new(lane: Lane, queue: Arc<Queue>) -> Self {
        Self {
            lane,
            queue,
            state: Mutex::default(),
            bell: Notify::new(),
        }
    }

    /// Notes that `id` is handed out; says whether it was in already.
    pub(super) fn hand_out(&self, id: i64) {
        locked(&self.state).out.insert(id);
    }

    /// Whether `id` is handed out, or acknowledged and not deleted yet.
    pub(super) fn is_out(&self, id: i64) -> bool {
        locked(&self.state).out.contains(&id)
    }

    /// Forgets `ids`: they are no longer in the file.
    pub(super) fn forget(&self, ids: &[i64]) {
        let mut state = locked(&self.state);
        for id in ids {
            state.out.remove(id);
            state.returns.remove(id);
        }
    }

    /// Moves what was given back into `comeback`.
    pub(super) fn sort_in(&self, comeback: &mut Comeback, now: Instant) {
        let mut state = locked(&self.state);
        for id in std::mem::take(&mut state.returned) {
            let times = state.returns.entry(id).or_default();
            let away = AWAY.saturating_mul(1 << (*times).min(16)).min(AWAY_MAX);
            *times += 1;
            comeback.0.push(Reverse((now + away, id)));
        }
    }

    /// Wakes who waits for messages.
    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Waits for [`Desk::ring`], no longer than until `at`. For one at a time.
    pub(super) async fn rung(&self, at: Option<Instant>) {
        let Some(at) = at else {
            return self.bell.notified().await;
        };
        tokio::select! {
            () = self.bell.notified() => {}
            () = tokio::time::sleep_until(at) => {}
        }
    }
}

impl ReceiptDesk for Desk {
    fn ack(&self, tag: u64) {
        self.queue.ack(self.lane, id_of(tag));
    }

    fn requeue(&self, tag: u64) {
        locked(&self.state).returned.push(id_of(tag));
        self.ring();
    }
}

impl Comeback {
    /// Takes up to `max` ids whose time has come.
    pub(super) fn ready(&mut self, now: Instant, max: usize) -> Vec<i64> {
        let mut ready = Vec::new();
        while ready.len() < max
            && let Some(Reverse((at, id))) = self.0.peek().copied()
            && at <= now
        {
            self.0.pop();
            ready.push(id);
        }
        ready
    }

    /// Puts `ids` back, after reading them failed.
    pub(super) fn again(&mut self, now: Instant, ids: impl IntoIterator<Item = i64>) {
        self.0.extend(ids.into_iter().map(|id| Reverse((now, id))));
    }

    /// When the next one comes.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }
}

/// The tag of a receipt for the row `id`: row ids begin at 1.
pub(super) fn tag_of(id: i64) -> u64 {
    id.cast_unsigned()
}

fn id_of(tag: u64) -> i64 {
    tag.cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_stays_away_longer_each_time() {
        let desk = Desk::new(Lane::Events, Arc::default());
        let now = Instant::now();
        let mut comeback = Comeback::default();
        for expected_ms in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            desk.requeue(7);
            desk.sort_in(&mut comeback, now);
            let at = now + Duration::from_millis(expected_ms);
            assert_eq!(comeback.next(), Some(at));
            assert!(comeback.ready(at - Duration::from_millis(1), 9).is_empty());
            assert_eq!(comeback.ready(at, 9), [7]);
        }
        desk.forget(&[7]);
        desk.requeue(7);
        desk.sort_in(&mut comeback, now);
        assert_eq!(comeback.next(), Some(now + AWAY));
    }
}
