//! Many at once: each message is settled exactly once, whatever is given back between.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use carillon::codec;
use carillon::domain::delivery::DeadReason;
use carillon::ports::{Parcel, Receipt};

use crate::harness::{Harness, Limits, Store, dead, delivery, event, failed, waiting};

const EVENTS: u32 = 4000;
const WRITERS: u32 = 8;
const READERS: usize = 3;

/// How often each message was acknowledged. Some are given back first.
struct Tally<K>(Mutex<HashMap<K, (u32, u32)>>);

impl<K: Hash + Eq> Tally<K> {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::default()))
    }

    /// Gives back every seventh message at first, and acknowledges all others.
    fn settle(&self, key: K, receipt: Receipt) {
        let mut counts = self.0.lock().unwrap();
        let turn = counts.len();
        let (seen, acked) = counts.entry(key).or_default();
        *seen += 1;
        if *seen == 1 && turn.is_multiple_of(7) {
            drop(receipt);
        } else {
            *acked += 1;
            receipt.ack();
        }
    }

    fn acked(&self) -> usize {
        let counts = self.0.lock().unwrap();
        counts.values().filter(|(_, acked)| *acked > 0).count()
    }

    fn assert_once_each(&self, expected: u32) {
        let counts = self.0.lock().unwrap();
        assert_eq!(counts.len(), expected as usize);
        assert!(counts.values().all(|(_, acked)| *acked == 1));
        let given_back = counts.values().filter(|(seen, _)| *seen > 1).count();
        assert!(given_back > 100, "only {given_back} were given back");
    }
}

pub async fn nothing_is_lost_and_nothing_settled_twice<H: Harness>() {
    let mut backend = H::start(Limits::default()).await;
    let store = backend.store();
    let events = Tally::new();
    let deliveries = Tally::new();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        let now = backend.now();
        tasks.spawn(async move {
            for n in (writer..EVENTS).step_by(WRITERS as usize) {
                let due = now.before(std::time::Duration::from_millis(u64::from(n % 5)));
                let retry = waiting(delivery(n), due);
                store.put(vec![Parcel::Event(event(n)), retry]).await;
            }
        });
    }
    for _ in 0..READERS {
        tasks.spawn(settle_events(store.clone(), Arc::clone(&events)));
        tasks.spawn(settle_deliveries(store.clone(), Arc::clone(&deliveries)));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    events.assert_once_each(EVENTS);
    deliveries.assert_once_each(EVENTS);
    backend.restart().await;
    for (queue, size) in backend.store().backend.queue_sizes().await.unwrap() {
        assert_eq!(size, 0, "left in {queue}");
    }
}

async fn settle_events(store: Store, tally: Arc<Tally<bytes::Bytes>>) {
    while tally.acked() < EVENTS as usize {
        // The last ones may be settled by another reader while this one waits.
        let some = std::time::Duration::from_millis(300);
        let Ok(taken) = tokio::time::timeout(some, store.inbox.events(64)).await else {
            continue;
        };
        for taken in taken.unwrap() {
            tally.settle(taken.message.body, taken.receipt);
        }
    }
}

async fn settle_deliveries(store: Store, tally: Arc<Tally<String>>) {
    while tally.acked() < EVENTS as usize {
        let some = std::time::Duration::from_millis(300);
        let Ok(taken) = tokio::time::timeout(some, store.inbox.deliveries(64)).await else {
            continue;
        };
        for taken in taken.unwrap() {
            let delivery = codec::delivery::decode(&taken.message).unwrap();
            tally.settle(delivery.id.as_str().to_owned(), taken.receipt);
        }
    }
}

pub async fn what_is_replaced_is_counted_once<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let later = backend.now().after(std::time::Duration::from_secs(60));
    let given_up = || Parcel::Dead(dead(delivery(8), DeadReason::Gone, later));
    let twice = [delivery(0), failed(delivery(0))].map(|delivery| waiting(delivery, later));
    store.put(twice.into()).await;
    store.put(vec![given_up(), given_up()]).await;
    let sizes = store.backend.queue_sizes().await.unwrap();
    let expected = [
        ("events", 0),
        ("deliveries", 0),
        ("wait", 1),
        ("dead-letters", 1),
        ("quarantine", 0),
    ];
    assert_eq!(sizes, expected);
}

pub async fn sizes_are_counted<H: Harness>() {
    let mut backend = H::start(Limits::default()).await;
    let store = backend.store();
    let later = backend.now().after(std::time::Duration::from_secs(60));
    store.put_events(0..5).await;
    let retries = (0..4).map(|n| waiting(delivery(n), later));
    store.put(retries.collect()).await;
    let given_up = |n| Parcel::Dead(dead(delivery(n), DeadReason::Gone, later));
    store.put(vec![given_up(8), given_up(9)]).await;
    let expected = [
        ("events", 5),
        ("deliveries", 0),
        ("wait", 4),
        ("dead-letters", 2),
        ("quarantine", 0),
    ];
    store.backend.flush().await;
    assert_eq!(store.backend.queue_sizes().await.unwrap(), expected);
    backend.restart().await;
    let sizes = backend.store().backend.queue_sizes().await.unwrap();
    assert_eq!(sizes, expected);
}
