//! Endpoint health: since when an endpoint fails, over crashes, until it succeeds or is gone.

use carillon::domain::id::SubscriptionId;
use carillon::domain::timestamp::UnixMillis;
use futures_util::stream::{self, StreamExt as _};

use crate::harness::{Harness, Limits, Store, subscription, subscription_id};

/// A store with so many subscriptions, from number 0.
async fn with_subscriptions<H: Harness>(count: u32) -> (H, Store) {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let all = (0..count).map(|n| subscription("acme", n, ""));
    store.subscriptions.put_all(all.collect()).await.unwrap();
    (backend, store)
}

/// Some time, and so many milliseconds.
fn at(ms: i64) -> UnixMillis {
    UnixMillis(1_772_368_200_000 + ms)
}

/// An attempt failed; answers since when all do.
async fn failed(store: &Store, n: u32, ms: i64) -> UnixMillis {
    let endpoint = subscription_id(n);
    store.health.failed(&endpoint, at(ms)).await.unwrap()
}

async fn succeeded(store: &Store, n: u32, ms: i64) {
    let endpoints = [(subscription_id(n), at(ms))];
    store.health.succeeded(&endpoints).await.unwrap();
}

async fn failing(store: &Store) -> Vec<(SubscriptionId, UnixMillis)> {
    let mut found = store.health.failing().await.unwrap();
    found.sort();
    found
}

pub async fn the_first_failure_sticks<H: Harness>() {
    let (_backend, store) = with_subscriptions::<H>(3).await;
    assert_eq!(failing(&store).await, []);
    assert_eq!(failed(&store, 1, 1000).await, at(1000));
    assert_eq!(failed(&store, 2, 1500).await, at(1500), "each its own");
    for ms in [1000, 2000, 90_000_000] {
        assert_eq!(failed(&store, 1, ms).await, at(1000));
    }
    let both = [
        (subscription_id(1), at(1000)),
        (subscription_id(2), at(1500)),
    ];
    assert_eq!(failing(&store).await, both);
}

/// Two processes tell of failures, and the later one is heard first.
pub async fn the_earlier_of_two_counts<H: Harness>() {
    let (_backend, store) = with_subscriptions::<H>(2).await;
    assert_eq!(failed(&store, 1, 1000).await, at(1000));
    assert_eq!(failed(&store, 1, 999).await, at(999));
    assert_eq!(failed(&store, 1, 1000).await, at(999));
    assert_eq!(failing(&store).await, [(subscription_id(1), at(999))]);
}

pub async fn a_success_later_forgets<H: Harness>() {
    let (_backend, store) = with_subscriptions::<H>(3).await;
    failed(&store, 1, 1000).await;
    failed(&store, 2, 1000).await;
    succeeded(&store, 1, 1001).await;
    assert_eq!(failing(&store).await, [(subscription_id(2), at(1000))]);
    assert_eq!(failed(&store, 1, 3000).await, at(3000), "it begins anew");
    succeeded(&store, 2, 1000).await;
    let left = [(subscription_id(1), at(3000))];
    assert_eq!(failing(&store).await, left, "at that time counts as later");
    store.health.succeeded(&[]).await.unwrap();
    assert_eq!(failing(&store).await, left);
}

pub async fn a_success_from_before_does_not_forget<H: Harness>() {
    let (_backend, store) = with_subscriptions::<H>(2).await;
    failed(&store, 1, 1000).await;
    succeeded(&store, 1, 999).await;
    assert_eq!(failing(&store).await, [(subscription_id(1), at(1000))]);
    assert_eq!(failed(&store, 1, 2000).await, at(1000));
}

pub async fn many_at_once_are_all_kept<H: Harness>() {
    const MANY: u32 = 3000;
    const AT_ONCE: usize = 500;
    let (_backend, store) = with_subscriptions::<H>(MANY).await;
    // Each fails three times, in any order, some hundred at once; the earliest stays.
    let reports = [2, 1, 3].map(|ms| (0..MANY).map(move |n| (n, ms)));
    stream::iter(reports.into_iter().flatten())
        .for_each_concurrent(AT_ONCE, async |(n, ms)| {
            failed(&store, n, ms).await;
        })
        .await;
    let all = failing(&store).await;
    let expected: Vec<_> = (0..MANY).map(|n| (subscription_id(n), at(1))).collect();
    assert_eq!(all, expected);
    let even = (0..MANY).step_by(2).map(|n| (subscription_id(n), at(1)));
    let early = (1..MANY).step_by(2).map(|n| (subscription_id(n), at(0)));
    let successes: Vec<_> = even.chain(early).collect();
    store.health.succeeded(&successes).await.unwrap();
    let odd: Vec<_> = expected.into_iter().skip(1).step_by(2).collect();
    assert_eq!(failing(&store).await, odd);
}

pub async fn it_survives_a_crash<H: Harness>() {
    let (mut backend, store) = with_subscriptions::<H>(3).await;
    failed(&store, 1, 1000).await;
    failed(&store, 2, 1000).await;
    succeeded(&store, 2, 1000).await;
    backend.crash().await;
    let store = backend.store();
    assert_eq!(failing(&store).await, [(subscription_id(1), at(1000))]);
    backend.restart().await;
    let store = backend.store();
    assert_eq!(failed(&store, 1, 2000).await, at(1000));
}

pub async fn a_deleted_subscription_is_forgotten<H: Harness>() {
    let (_backend, store) = with_subscriptions::<H>(3).await;
    failed(&store, 1, 1000).await;
    failed(&store, 2, 1000).await;
    let id = subscription_id(1);
    assert!(store.subscriptions.delete(&id, None).await.unwrap());
    let left = [(subscription_id(2), at(1000))];
    assert_eq!(failing(&store).await, left);
    // An attempt that was under way.
    assert_eq!(failed(&store, 1, 2000).await, at(2000));
    assert_eq!(failing(&store).await, left, "nothing of it stays");
    let again = subscription("acme", 1, "");
    store.subscriptions.put(again, None).await.unwrap();
    assert_eq!(failed(&store, 1, 3000).await, at(3000), "it begins anew");
}

/// A change is no new beginning.
pub async fn a_changed_subscription_is_not_forgotten<H: Harness>() {
    let (_backend, store) = with_subscriptions::<H>(2).await;
    failed(&store, 1, 1000).await;
    let changed = subscription("acme", 1, "changed");
    store.subscriptions.put(changed, Some(1)).await.unwrap();
    let all = vec![subscription("acme", 1, "again")];
    store.subscriptions.put_all(all).await.unwrap();
    assert_eq!(failing(&store).await, [(subscription_id(1), at(1000))]);
}

pub async fn an_outage_is_an_error<H: Harness>() {
    let (mut backend, store) = with_subscriptions::<H>(2).await;
    failed(&store, 1, 1000).await;
    backend.break_down().await;
    let endpoint = subscription_id(1);
    assert!(store.health.failed(&endpoint, at(1)).await.is_err());
    let success = [(endpoint, at(2000))];
    assert!(store.health.succeeded(&success).await.is_err());
    assert!(store.health.failing().await.is_err());
}
