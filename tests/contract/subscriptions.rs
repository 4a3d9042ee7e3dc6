//! Subscriptions: changes are visible, versions guard them, an outage is no empty list.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use carillon::domain::subscription::{DisabledReason, Scope};
use carillon::domain::timestamp::UnixMillis;
use carillon::ports::{AttemptQuery, DeadLetterQuery, Parcel, StoreError, StoredSubscription};

use crate::harness::{
    Harness, Limits, delivery, event, subscription, subscription_id, tenant, waiting,
};

fn acme() -> Scope {
    Scope::One(tenant("acme"))
}

fn descriptions(found: &[StoredSubscription]) -> Vec<&str> {
    found
        .iter()
        .map(|stored| stored.subscription.spec.description.as_str())
        .collect()
}

fn ids(found: &[StoredSubscription]) -> Vec<&str> {
    found
        .iter()
        .map(|stored| stored.subscription.id.as_str())
        .collect()
}

pub async fn a_change_is_visible_when_the_call_returns<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store().subscriptions;
    assert!(store.of_scope(&acme()).await.unwrap().is_empty());
    store.put(subscription("acme", 1, "a"), None).await.unwrap();
    let found = store.get(&subscription_id(1)).await.unwrap().unwrap();
    assert_eq!(found.secrets.current.bytes(), &[7; 32]);
    assert_eq!(descriptions(&store.of_scope(&acme()).await.unwrap()), ["a"]);
    let version = Some(found.version);
    let changed = subscription("acme", 1, "b");
    store.put(changed, version).await.unwrap();
    assert_eq!(descriptions(&store.of_scope(&acme()).await.unwrap()), ["b"]);
    assert!(store.delete(&subscription_id(1), None).await.unwrap());
    assert!(!store.delete(&subscription_id(1), None).await.unwrap());
    assert!(store.get(&subscription_id(1)).await.unwrap().is_none());
    assert!(store.of_scope(&acme()).await.unwrap().is_empty());
}

pub async fn versions_guard_changes<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store().subscriptions;
    let one = || subscription("acme", 1, "mine");
    let conflicts = |result| matches!(result, Err(StoreError::Conflict));
    assert!(
        conflicts(store.put(one(), Some(1)).await),
        "it is not there"
    );
    store.put(one(), None).await.unwrap();
    assert!(conflicts(store.put(one(), None).await), "it is there");
    let first = store.get(&subscription_id(1)).await.unwrap().unwrap();
    store.put(one(), Some(first.version)).await.unwrap();
    let second = store.get(&subscription_id(1)).await.unwrap().unwrap();
    assert!(second.version > first.version);
    let theirs = subscription("acme", 1, "theirs");
    assert!(conflicts(store.put(theirs, Some(first.version)).await));
    let found = store.get(&subscription_id(1)).await.unwrap().unwrap();
    assert_eq!(descriptions(&[found]), ["mine"]);

    // Of several who change the same version at once, one succeeds.
    let tries = (0..10).map(|_| store.put(one(), Some(second.version)));
    let results = futures_util::future::join_all(tries).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(results.into_iter().filter(Result::is_err).all(conflicts));

    // What goes is the version that is meant, and of several one call has it.
    let id = subscription_id(1);
    let latest = store.get(&id).await.unwrap().unwrap();
    let stale = store.delete(&id, Some(second.version)).await;
    assert!(conflicts(stale.map(drop)));
    assert!(store.get(&id).await.unwrap().is_some());
    let of_latest = || store.delete(&id, Some(latest.version));
    let (gone, again) = tokio::join!(of_latest(), of_latest());
    assert_eq!(u8::from(gone.unwrap()) + u8::from(again.unwrap()), 1);
    assert!(store.get(&id).await.unwrap().is_none());
    assert!(!of_latest().await.unwrap(), "it is not there");
}

pub async fn listeners_hear_of_both_scopes_in_time<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store().subscriptions;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hear = Arc::clone(&heard);
    store.on_change(Box::new(move |scope| {
        hear.lock().unwrap().push(scope.as_str().to_owned());
    }));
    let heard = || {
        let mut heard = std::mem::take(&mut *heard.lock().unwrap());
        heard.sort();
        heard.dedup();
        heard
    };
    let id = subscription_id(1);
    store.put(subscription("acme", 1, ""), None).await.unwrap();
    assert_eq!(heard(), ["acme"]);
    let version = store.get(&id).await.unwrap().unwrap().version;
    let moved = subscription("*", 1, "");
    store.put(moved, Some(version)).await.unwrap();
    assert_eq!(heard(), ["*", "acme"]);
    assert!(heard().is_empty(), "reading changes nothing");
    let gone = DisabledReason::Gone;
    assert!(store.disable(&id, gone, UnixMillis(5)).await.unwrap());
    assert_eq!(heard(), ["*"]);
    assert!(!store.disable(&id, gone, UnixMillis(6)).await.unwrap());
    assert!(heard().is_empty(), "nothing was changed");
    assert!(store.put(subscription("acme", 1, ""), None).await.is_err());
    assert!(heard().is_empty(), "nothing was changed");
    assert!(store.delete(&id, None).await.unwrap());
    assert_eq!(heard(), ["*"]);
}

pub async fn scopes_and_pages_are_by_id<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store().subscriptions;
    for (n, scope) in [(5, "acme"), (2, "*"), (3, "acme"), (1, "bell"), (4, "acme")] {
        store.put(subscription(scope, n, ""), None).await.unwrap();
    }
    let every = store.of_scope(&Scope::Every).await.unwrap();
    assert_eq!(ids(&every), ["sub_0002"], "the subscriptions of `*` alone");
    let own = store.of_scope(&acme()).await.unwrap();
    assert_eq!(ids(&own), ["sub_0003", "sub_0004", "sub_0005"]);
    let page = store.list(None, None, 2).await.unwrap();
    assert_eq!(ids(&page), ["sub_0001", "sub_0002"]);
    let after = subscription_id(2);
    let page = store.list(None, Some(&after), 2).await.unwrap();
    assert_eq!(ids(&page), ["sub_0003", "sub_0004"]);
    let after = subscription_id(3);
    let page = store.list(Some(&acme()), Some(&after), 10).await.unwrap();
    assert_eq!(ids(&page), ["sub_0004", "sub_0005"]);
}

pub async fn only_an_enabled_one_is_disabled<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store().subscriptions;
    let id = subscription_id(1);
    let at = UnixMillis(99);
    assert!(!store.disable(&id, DisabledReason::Gone, at).await.unwrap());
    store.put(subscription("acme", 1, "d"), None).await.unwrap();
    let before = store.get(&id).await.unwrap().unwrap();
    assert!(
        store
            .disable(&id, DisabledReason::Failing, at)
            .await
            .unwrap()
    );
    let after = store.get(&id).await.unwrap().unwrap();
    let found = &after.subscription;
    assert_eq!(found.disabled_reason, Some(DisabledReason::Failing));
    assert_eq!((found.updated_at, found.created_at), (at, UnixMillis(1)));
    assert_eq!(found.spec.description, "d");
    assert!(after.version > before.version);
    let again = store
        .disable(&id, DisabledReason::Gone, UnixMillis(100))
        .await;
    assert!(!again.unwrap());
    let found = store.get(&id).await.unwrap().unwrap();
    let reason = found.subscription.disabled_reason;
    assert_eq!(reason, Some(DisabledReason::Failing));
}

pub async fn it_survives_a_crash<H: Harness>() {
    let mut backend = H::start(Limits::default()).await;
    let store = backend.store().subscriptions;
    store.put(subscription("acme", 1, "a"), None).await.unwrap();
    store.put(subscription("acme", 2, "b"), None).await.unwrap();
    assert!(store.delete(&subscription_id(1), None).await.unwrap());
    let version = store
        .get(&subscription_id(2))
        .await
        .unwrap()
        .unwrap()
        .version;
    backend.crash().await;
    let found = backend
        .store()
        .subscriptions
        .of_scope(&acme())
        .await
        .unwrap();
    assert_eq!(descriptions(&found), ["b"]);
    assert_eq!(found[0].version, version);
}

pub async fn an_outage_is_an_error_and_never_empty<H: Harness>() {
    let mut backend = H::start(Limits::default()).await;
    let store = backend.store();
    let one = || subscription("acme", 1, "");
    store.subscriptions.put(one(), None).await.unwrap();
    store.backend.ready().await.unwrap();
    backend.break_down().await;
    let subscriptions = &store.subscriptions;
    let id = subscription_id(1);
    assert!(subscriptions.of_scope(&acme()).await.is_err());
    assert!(subscriptions.get(&id).await.is_err());
    assert!(subscriptions.list(None, None, 10).await.is_err());
    let conflict = subscriptions.put(one(), None).await;
    assert!(matches!(
        conflict,
        Err(StoreError::Unavailable(_) | StoreError::Damaged(_))
    ));
    assert!(subscriptions.delete(&id, None).await.is_err());
    assert!(nothing_of(store.inbox.events(1)).await);
    assert!(nothing_of(store.inbox.deliveries(1)).await);
    assert!(
        store
            .outbox
            .put(vec![Parcel::Event(event(1))])
            .await
            .is_err()
    );
    let key = delivery(1).event.key();
    assert!(store.ledger.settled(&[key]).await.is_err());
    assert!(store.ledger.record(vec![(key, id)]).await.is_err());
    let attempts = AttemptQuery {
        limit: 1,
        ..AttemptQuery::default()
    };
    assert!(store.audit.attempts(&attempts).await.is_err());
    let letters = DeadLetterQuery {
        limit: 1,
        ..DeadLetterQuery::default()
    };
    assert!(store.dead_letters.list(&letters).await.is_err());
    assert!(store.dead_letters.count(&letters).await.is_err());
    assert!(store.quarantine.list(1).await.is_err());
    assert!(store.backend.ready().await.is_err());
}

pub async fn two_backends_do_not_see_each_other<H: Harness>() {
    let (one, two) = (
        H::start(Limits::default()).await,
        H::start(Limits::default()).await,
    );
    let (mine, theirs) = (one.store(), two.store());
    let stored = subscription("acme", 1, "");
    mine.subscriptions.put(stored, None).await.unwrap();
    let event = Parcel::Event(event(1));
    mine.put(vec![event, waiting(delivery(1), one.now())]).await;
    let key = delivery(1).event.key();
    let settled = vec![(key, subscription_id(1))];
    mine.ledger.record(settled).await.unwrap();
    let scope = theirs.subscriptions.of_scope(&acme()).await.unwrap();
    assert!(scope.is_empty());
    assert!(theirs.ledger.settled(&[key]).await.unwrap()[0].is_empty());
    theirs.no_event_comes().await;
    theirs.no_delivery_comes().await;
    assert_eq!(mine.take_events(1).await.len(), 1);
    assert_eq!(mine.take_deliveries(1).await.len(), 1);
}

/// Whether a call says that it failed, or goes on waiting.
async fn nothing_of<T>(call: impl Future<Output = Result<T, StoreError>>) -> bool {
    let answer = tokio::time::timeout(Duration::from_secs(1), call).await;
    !matches!(answer, Ok(Ok(_)))
}
