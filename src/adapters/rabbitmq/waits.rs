//! What waits, and does not come back.
//!
//! RabbitMQ hands on what has waited long enough by a worker beside each queue's leader. When a
//! node is lost that led both that queue and the one of due deliveries, the new worker may be
//! refused: it tries again after three minutes (`dead_letter_worker_publisher_confirm_timeout`),
//! and in 3.10 without success until the node is back. Meanwhile no client can see or take what
//! it holds. So whoever put a delivery to wait remembers it; one that is not settled a while
//! after it was due is put again, as a copy, straight to the due deliveries. The ledger
//! knows a copy. A queue that held something back is avoided until something comes from it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use super::message::Outgoing;
use super::{Rabbit, locked, size, unavailable};
use crate::domain::id::LedgerKey;
use crate::domain::timestamp::UnixMillis;
use crate::ports::StoreError;

/// Most bytes of bodies that are remembered. What is put beyond them is RabbitMQ's alone.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// What is remembered beside a body, about.
const ENTRY_BYTES: usize = 512;
/// How often is looked for what is overdue.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Most that are looked at in one go.
const BATCH: usize = 256;

/// What this process has put to wait.
pub(super) struct Waits {
    /// How long after it was due something counts as held back; nothing is remembered without.
    patience: Option<Duration>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    next: u64,
    by_time: BTreeMap<Place, Waiting>,
    places: HashMap<LedgerKey, Place>,
    bytes: usize,
    /// The rungs that hold something back, in milliseconds.
    avoided: BTreeSet<u64>,
}

/// When it counts as held back, and a number that tells those apart which are equal in this.
type Place = (UnixMillis, u64);

/// A delivery that waits.
pub(super) struct Waiting {
    /// What the ledger knows this wait by.
    pub(super) key: LedgerKey,
    /// Where it waits: the rung's milliseconds.
    pub(super) rung: u64,
    /// The message.
    pub(super) message: Outgoing,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.message.body.len() + ENTRY_BYTES
    }
}

impl Waits {
    pub(super) fn new(patience: Option<Duration>) -> Self {
        Self {
            patience,
            known: Mutex::default(),
        }
    }

    /// Remembers what begins to wait at `now`.
    pub(super) fn begin(&self, waiting: Vec<Waiting>, now: UnixMillis) {
        let Some(patience) = self.patience else {
            return;
        };
        let mut known = locked(&self.known);
        for one in waiting {
            let overdue_at = now.after(Duration::from_millis(one.rung) + patience);
            known.keep(overdue_at, one);
        }
    }

    /// One came back, from `rung` as far as is known.
    pub(super) fn came(&self, key: LedgerKey, rung: impl FnOnce() -> Option<u64>) {
        let mut known = locked(&self.known);
        if let Some(place) = known.places.remove(&key) {
            known.forget(place);
        }
        if !known.avoided.is_empty()
            && let Some(rung) = rung()
            && known.avoided.remove(&rung)
        {
            tracing::info!(rung, "a wait queue hands on again what is due");
        }
    }

    /// Some that count as held back. They are forgotten.
    pub(super) fn take_overdue(&self, now: UnixMillis) -> Vec<Waiting> {
        let mut known = locked(&self.known);
        let overdue: Vec<Place> = known
            .by_time
            .range(..=(now, u64::MAX))
            .map(|(place, _)| *place)
            .take(BATCH)
            .collect();
        overdue
            .into_iter()
            .filter_map(|place| known.forget(place))
            .collect()
    }

    /// Remembers again what was taken.
    pub(super) fn look_later(&self, overdue: Vec<Waiting>, now: UnixMillis) {
        let mut known = locked(&self.known);
        for one in overdue {
            known.keep(now, one);
        }
    }

    /// From now on these rungs are avoided.
    pub(super) fn avoid(&self, rungs: &BTreeSet<u64>) {
        locked(&self.known).avoided.extend(rungs);
    }

    /// The rungs to avoid.
    pub(super) fn avoided(&self) -> BTreeSet<u64> {
        locked(&self.known).avoided.clone()
    }
}

impl Known {
    fn keep(&mut self, at: UnixMillis, waiting: Waiting) {
        if self.bytes + waiting.bytes() > BYTES_MAX {
            return;
        }
        self.bytes += waiting.bytes();
        let place = (at, self.next);
        self.next += 1;
        if let Some(before) = self.places.insert(waiting.key, place) {
            self.forget(before);
            self.places.insert(waiting.key, place);
        }
        self.by_time.insert(place, waiting);
    }

    fn forget(&mut self, place: Place) -> Option<Waiting> {
        let waiting = self.by_time.remove(&place)?;
        self.bytes -= waiting.bytes();
        self.places.remove(&waiting.key);
        Some(waiting)
    }
}

impl Rabbit {
    /// Puts again what waits and is held back; for ever.
    pub(super) async fn keep_waits(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            loop {
                let overdue = self.waits.take_overdue(self.clock.now());
                if overdue.is_empty() {
                    break;
                }
                if let Err((overdue, error)) = self.put_again(overdue).await {
                    tracing::debug!(%error, "what is overdue stays so");
                    self.waits.look_later(overdue, self.clock.now());
                    break;
                }
            }
        }
    }

    /// Puts copies of what is not settled. Returns what could not be dealt with, and why.
    async fn put_again(&self, overdue: Vec<Waiting>) -> Result<(), (Vec<Waiting>, StoreError)> {
        let missing = match self.not_settled(&overdue).await {
            Ok(missing) => missing,
            Err(error) => return Err((overdue, error)),
        };
        let is_missing = |one: &Waiting| missing.contains(&one.key);
        let overdue: Vec<Waiting> = overdue.into_iter().filter(is_missing).collect();
        if overdue.is_empty() {
            return Ok(());
        }
        let copy = |one: &Waiting| one.message.clone().now(&self.names);
        if let Err(error) = self.publish(overdue.iter().map(copy).collect()).await {
            return Err((overdue, error));
        }
        let rungs: BTreeSet<u64> = overdue.iter().map(|one| one.rung).collect();
        tracing::warn!(
            deliveries = overdue.len(),
            ?rungs,
            "wait queues hold back what is due: copies are delivered, and other wait queues \
             used until they hand on again"
        );
        self.waits.avoid(&rungs);
        Ok(())
    }

    /// Which of these nobody has settled, nor can be about to take.
    async fn not_settled(&self, overdue: &[Waiting]) -> Result<BTreeSet<LedgerKey>, StoreError> {
        let channel = self.channel().await?;
        let (ready, _) = size(&channel, &self.names.deliveries).await?;
        let _ = channel.close(200, "done".into()).await;
        if ready > 0 {
            return Err(unavailable("it may be among the due deliveries"));
        }
        let keys: Vec<LedgerKey> = overdue.iter().map(|one| one.key).collect();
        let settled = self.ledger.settled(&keys).await?;
        let by_nobody = keys.into_iter().zip(settled);
        Ok(by_nobody
            .filter(|(_, by)| by.is_empty())
            .map(|(key, _)| key)
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const AT: UnixMillis = UnixMillis(1_000_000);

    fn waiting(n: u8, rung: u64, bytes: usize) -> Waiting {
        Waiting {
            key: LedgerKey([n; 16]),
            rung,
            message: Outgoing {
                exchange: "".into(),
                routing_key: "q".into(),
                properties: lapin::BasicProperties::default(),
                body: Bytes::from(vec![0; bytes]),
                may_return: false,
                rung: Some(rung),
            },
        }
    }

    fn keys(overdue: &[Waiting]) -> Vec<u8> {
        overdue.iter().map(|one| one.key.0[0]).collect()
    }

    #[test]
    fn what_comes_back_is_not_overdue() {
        let waits = Waits::new(Some(Duration::from_secs(10)));
        waits.begin(vec![waiting(1, 500, 9), waiting(2, 250, 9)], AT);
        waits.begin(vec![waiting(3, 250, 9)], AT);
        let after = |ms| AT.after(Duration::from_millis(ms));
        assert!(waits.take_overdue(after(10_249)).is_empty());
        waits.came(LedgerKey([2; 16]), || None);
        let overdue = waits.take_overdue(after(10_499));
        assert_eq!(keys(&overdue), [3]);
        waits.look_later(overdue, after(10_499));
        assert_eq!(keys(&waits.take_overdue(after(10_500))), [3, 1]);
        assert!(waits.take_overdue(after(90_000)).is_empty());
        assert_eq!(locked(&waits.known).bytes, 0);
        assert!(locked(&waits.known).places.is_empty());
    }

    #[test]
    fn the_same_wait_again_counts_once() {
        let waits = Waits::new(Some(Duration::ZERO));
        waits.begin(vec![waiting(1, 0, 9), waiting(1, 0, 5)], AT);
        assert_eq!(locked(&waits.known).bytes, ENTRY_BYTES + 5);
        assert_eq!(keys(&waits.take_overdue(AT)), [1]);
        assert_eq!(locked(&waits.known).bytes, 0);
    }

    #[test]
    fn memory_is_bounded() {
        let waits = Waits::new(Some(Duration::ZERO));
        for n in 0..9 {
            waits.begin(vec![waiting(n, 0, 6 * 1024 * 1024)], AT);
        }
        assert_eq!(keys(&waits.take_overdue(AT)), [0, 1, 2, 3, 4]);
        waits.begin(vec![waiting(9, 0, 6 * 1024 * 1024)], AT);
        assert_eq!(keys(&waits.take_overdue(AT)), [9]);
        let without = Waits::new(None);
        without.begin(vec![waiting(1, 0, 1)], AT);
        assert!(without.take_overdue(AT).is_empty());
    }

    #[test]
    fn a_rung_is_avoided_until_something_comes_from_it() {
        let waits = Waits::new(Some(Duration::ZERO));
        let asked = std::cell::Cell::new(0);
        let from = |rung| {
            asked.set(asked.get() + 1);
            Some(rung)
        };
        waits.came(LedgerKey([1; 16]), || from(250));
        assert_eq!(asked.get(), 0, "nobody needs to know");
        waits.avoid(&BTreeSet::from([250, 312]));
        waits.came(LedgerKey([1; 16]), || from(390));
        assert_eq!(waits.avoided(), BTreeSet::from([250, 312]));
        waits.came(LedgerKey([2; 16]), || from(250));
        assert_eq!(waits.avoided(), BTreeSet::from([312]));
    }
}
