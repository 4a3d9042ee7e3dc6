//! The ledger: what is recorded is settled, for as long as the window is.

use std::time::Duration;

use carillon::domain::delivery::DeadReason;
use carillon::domain::id::{LedgerKey, SubscriptionId};
use carillon::ports::Parcel;

use crate::harness::{
    Harness, Limits, Store, dead, delivery_to, redelivered, subscription_id, waiting,
};

fn key(n: u8) -> LedgerKey {
    LedgerKey([n; 16])
}

async fn settled(store: &Store, key: LedgerKey) -> Vec<SubscriptionId> {
    let mut found = store.ledger.settled(&[key]).await.unwrap();
    assert_eq!(found.len(), 1);
    let mut found = found.remove(0);
    found.sort();
    found
}

async fn record(store: &Store, key: LedgerKey, n: u32) {
    let settled = vec![(key, subscription_id(n))];
    store.ledger.record(settled).await.unwrap();
}

pub async fn what_is_recorded_is_settled<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    assert!(store.ledger.settled(&[]).await.unwrap().is_empty());
    for (n, subscription) in [(1, 1), (2, 7), (1, 2), (1, 1)] {
        record(&store, key(n), subscription).await;
    }
    let keys = [key(2), key(3), key(1), key(2)];
    let found = store.ledger.settled(&keys).await.unwrap();
    let lengths: Vec<_> = found.iter().map(Vec::len).collect();
    assert_eq!(lengths, [1, 0, 2, 1], "in the order asked, each once");
    assert_eq!(found[0], [subscription_id(7)]);
    assert_eq!(settled(&store, key(1)).await, [1, 2].map(subscription_id));
}

pub async fn it_forgets_after_the_window<H: Harness>() {
    let limits = Limits {
        dedup_window: Duration::from_secs(4),
        ..Limits::default()
    };
    let backend = H::start(limits).await;
    let store = backend.store();
    record(&store, key(1), 1).await;
    backend.pass(Duration::from_secs(2)).await;
    assert_eq!(settled(&store, key(1)).await, [subscription_id(1)]);
    backend.pass(Duration::from_secs(3)).await;
    assert!(settled(&store, key(1)).await.is_empty());
    record(&store, key(1), 2).await;
    assert_eq!(settled(&store, key(1)).await, [subscription_id(2)]);
}

pub async fn what_is_put_is_recorded_with_it<H: Harness>() {
    let mut backend = H::start(Limits::default()).await;
    let store = backend.store();
    let retry = |subscription| waiting(delivery_to("acme", 1, subscription), backend.now());
    let given_up = dead(delivery_to("acme", 1, 3), DeadReason::Gone, backend.now());
    store
        .put(vec![retry(1), retry(2), Parcel::Dead(given_up)])
        .await;
    let facts = delivery_to("acme", 1, 1).event;
    let expected = [1, 2, 3].map(subscription_id);
    assert_eq!(settled(&store, facts.key()).await, expected);
    backend.crash().await;
    assert_eq!(settled(&backend.store(), facts.key()).await, expected);
}

/// Its event may be under way still: what is left of that is not to be taken for served.
pub async fn a_redelivery_settles_nothing_of_its_event<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let again = |n| redelivered(delivery_to("acme", 1, n), 7);
    let given_up = dead(again(2), DeadReason::Gone, backend.now());
    store
        .put(vec![
            waiting(again(1), backend.now()),
            Parcel::Dead(given_up),
        ])
        .await;
    assert!(settled(&store, again(1).event.key()).await.is_empty());
}

pub async fn without_a_window_it_remembers_nothing<H: Harness>() {
    let limits = Limits {
        dedup_window: Duration::ZERO,
        ..Limits::default()
    };
    let backend = H::start(limits).await;
    let store = backend.store();
    record(&store, key(1), 1).await;
    let retry = delivery_to("acme", 1, 1);
    let facts = retry.event.clone();
    store.put(vec![waiting(retry, backend.now())]).await;
    assert!(settled(&store, key(1)).await.is_empty());
    assert!(settled(&store, facts.key()).await.is_empty());
}

pub async fn it_survives_a_crash<H: Harness>() {
    let mut backend = H::start(Limits::default()).await;
    record(&backend.store(), key(1), 1).await;
    backend.crash().await;
    let found = settled(&backend.store(), key(1)).await;
    assert_eq!(found, [subscription_id(1)]);
}

pub async fn many_at_once_are_all_kept<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let records = (0..2000_u32).map(|n| {
        let key = key(u8::try_from(n % 20).unwrap());
        store.ledger.record(vec![(key, subscription_id(n))])
    });
    for result in futures_util::future::join_all(records).await {
        result.unwrap();
    }
    for n in 0..20 {
        let expected: Vec<_> = (0..100).map(|i| subscription_id(i * 20 + n)).collect();
        let key = key(u8::try_from(n).unwrap());
        assert_eq!(settled(&store, key).await, expected);
    }
}
