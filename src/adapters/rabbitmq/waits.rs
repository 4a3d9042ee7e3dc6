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
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use lapin::Connection;
use tokio::time::Instant;

use super::message::Outgoing;
use super::{Rabbit, locked, size, unavailable};
use crate::domain::id::LedgerKey;
use crate::domain::timestamp::UnixMillis;
use crate::ports::StoreError;

/// How long after it was due nobody is at a delivery any more: no shorter than the longest
/// attempt.
const OVERDUE_AFTER: Duration = Duration::from_secs(75);
/// Most bytes of bodies that are remembered. What is put beyond them is RabbitMQ's alone.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// What is remembered beside a body, about.
const ENTRY_BYTES: usize = 512;
/// How often is looked for what is overdue.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long it may take to ask what is settled.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Most that are looked at in one go.
const BATCH: usize = 256;

/// When a delivery that waits counts as held back, both after it was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// From then on.
    pub from: Duration,
    /// Until then: no longer than the ledger remembers what is settled.
    pub until: Duration,
}

impl Overdue {
    /// With a ledger that remembers for `window`; `None` when that is too short.
    pub fn with_ledger(window: Duration) -> Option<Self> {
        let from = OVERDUE_AFTER;
        let until = window.saturating_sub(from);
        (until > from).then_some(Self { from, until })
    }
}

/// What this process has put to wait.
pub(super) struct Waits {
    /// Nothing is remembered without.
    overdue: Option<Overdue>,
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

/// When it is looked at, and a number that tells those apart which are equal in this.
type Place = (UnixMillis, u64);

/// A delivery that waits.
pub(super) struct Waiting {
    /// What the ledger knows this wait by.
    pub(super) key: LedgerKey,
    /// Where it waits: the rung's milliseconds.
    pub(super) rung: u64,
    /// Until when.
    pub(super) due: UnixMillis,
    /// The message.
    pub(super) message: Outgoing,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.message.body.len() + ENTRY_BYTES
    }
}

impl Waits {
    pub(super) fn new(overdue: Option<Overdue>) -> Self {
        Self {
            overdue,
            known: Mutex::default(),
        }
    }

    /// Remembers what waits.
    pub(super) fn begin(&self, waiting: Vec<Waiting>) {
        let Some(overdue) = self.overdue else {
            return;
        };
        let mut known = locked(&self.known);
        for one in waiting {
            known.keep(one.due.after(overdue.from), one);
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

    /// Some that count as held back. They are forgotten, and so are those that the ledger may
    /// have forgotten.
    pub(super) fn take_overdue(&self, now: UnixMillis) -> Vec<Waiting> {
        let Some(limits) = self.overdue else {
            return Vec::new();
        };
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
            .filter(|one| now < one.due.after(limits.until))
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
    /// Puts again what waits and is held back; for ever. After an outage all that waits is
    /// late: a connection has to last before anything counts as held back.
    pub(super) async fn keep_waits(&self) {
        let Some(Overdue { from: steady, .. }) = self.waits.overdue else {
            return;
        };
        let mut lasting: Option<(Weak<Connection>, Instant)> = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = self.consuming.connection().ok();
            let now = now.map(|connection| Arc::downgrade(&connection));
            lasting = now.map(|now| match lasting.take() {
                Some((before, since)) if before.ptr_eq(&now) => (before, since),
                _ => (now, Instant::now()),
            });
            if lasting
                .as_ref()
                .is_some_and(|(_, since)| since.elapsed() >= steady)
            {
                self.put_all_again().await;
            }
        }
    }

    async fn put_all_again(&self) {
        loop {
            let overdue = self.waits.take_overdue(self.clock.now());
            if overdue.is_empty() {
                return;
            }
            if let Err((overdue, error)) = self.put_again(overdue).await {
                tracing::debug!(%error, "what is overdue stays so");
                return self.waits.look_later(overdue, self.clock.now());
            }
        }
    }

    /// Puts copies of what is not settled. Returns what could not be dealt with, and why.
    async fn put_again(&self, overdue: Vec<Waiting>) -> Result<(), (Vec<Waiting>, StoreError)> {
        let asking = tokio::time::timeout(ASK_TIMEOUT, self.not_settled(&overdue));
        let missing = match asking.await {
            Ok(Ok(missing)) => missing,
            Ok(Err(error)) => return Err((overdue, error)),
            Err(_) => return Err((overdue, unavailable("no answer"))),
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
            due: AT.after(Duration::from_millis(rung)),
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

    fn overdue(from: u64, until: u64) -> Option<Overdue> {
        let [from, until] = [from, until].map(Duration::from_millis);
        Some(Overdue { from, until })
    }

    fn keys(overdue: &[Waiting]) -> Vec<u8> {
        overdue.iter().map(|one| one.key.0[0]).collect()
    }

    #[test]
    fn what_comes_back_is_not_overdue() {
        let waits = Waits::new(overdue(10_000, 90_000));
        waits.begin(vec![waiting(1, 500, 9), waiting(2, 250, 9)]);
        waits.begin(vec![waiting(3, 250, 9)]);
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
        let waits = Waits::new(overdue(0, 1));
        waits.begin(vec![waiting(1, 0, 9), waiting(1, 0, 5)]);
        assert_eq!(locked(&waits.known).bytes, ENTRY_BYTES + 5);
        assert_eq!(keys(&waits.take_overdue(AT)), [1]);
        assert_eq!(locked(&waits.known).bytes, 0);
    }

    #[test]
    fn what_the_ledger_may_have_forgotten_is_not_put_again() {
        let waits = Waits::new(overdue(10_000, 20_000));
        let after = |ms| AT.after(Duration::from_millis(ms));
        waits.begin(vec![waiting(1, 250, 9), waiting(2, 500, 9)]);
        let overdue = waits.take_overdue(after(15_000));
        assert_eq!(keys(&overdue), [1, 2]);
        waits.look_later(overdue, after(15_000));
        assert_eq!(keys(&waits.take_overdue(after(20_250))), [2]);
        assert_eq!(locked(&waits.known).bytes, 0);
        let window = |secs| Overdue::with_ledger(Duration::from_secs(secs));
        assert_eq!(window(600).unwrap().until, Duration::from_secs(525));
        assert_eq!((window(150), window(0)), (None, None));
    }

    #[test]
    fn memory_is_bounded() {
        let waits = Waits::new(overdue(0, 1));
        for n in 0..9 {
            waits.begin(vec![waiting(n, 0, 6 * 1024 * 1024)]);
        }
        assert_eq!(keys(&waits.take_overdue(AT)), [0, 1, 2, 3, 4]);
        waits.begin(vec![waiting(9, 0, 6 * 1024 * 1024)]);
        assert_eq!(keys(&waits.take_overdue(AT)), [9]);
        let without = Waits::new(None);
        without.begin(vec![waiting(1, 0, 1)]);
        assert!(without.take_overdue(AT).is_empty());
    }

    #[test]
    fn a_rung_is_avoided_until_something_comes_from_it() {
        let waits = Waits::new(overdue(0, 1));
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
