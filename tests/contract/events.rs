//! Events: nothing lost, order kept, forgetting is safe.

use std::time::Duration;

use bytes::Bytes;

use carillon::ports::{EventMessage, Parcel};

use crate::harness::{Harness, Limits, bodies, bodies_of, event, subscription_id};

pub async fn order_is_kept_and_max_is_honoured<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    store.put_events(0..5).await;
    store.put_events(5..10).await;
    let first = store.inbox.events(3).await.unwrap();
    assert!((1..=3).contains(&first.len()), "{}", first.len());
    let rest = store.take_events(10 - first.len()).await;
    let all = [bodies(&first), bodies(&rest)].concat();
    assert_eq!(all, bodies_of(0..10));
}

pub async fn messages_come_as_they_went<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let full = EventMessage {
        body: Bytes::from_static(b"\x00\xff not JSON"),
        content_type: Some("application/x-protobuf; v=1".to_owned()),
        traceparent: Some("00-1-2-01".to_owned()),
        resume_after: Some(subscription_id(9)),
        ..EventMessage::default()
    };
    let sent = [full, EventMessage::default(), event(1)];
    let parcels = sent.clone().map(Parcel::Event);
    store.put(parcels.into()).await;
    let taken = store.take_events(3).await;
    for (taken, sent) in taken.iter().zip(&sent) {
        assert_eq!(taken.message, *sent);
    }
}

pub async fn what_is_out_does_not_come_again<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    store.put_events(0..2).await;
    let out = store.take_events(2).await;
    store.no_event_comes().await;
    store.put_events(2..3).await;
    let next = store.take_events(1).await;
    assert_eq!(bodies(&next), bodies_of(2..3));
    store.no_event_comes().await;
    drop(out);
}

pub async fn a_dropped_receipt_requeues<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    store.put_events(0..4).await;
    for _ in 0..3 {
        drop(store.take_events(4).await);
    }
    let mut taken = store.take_events(4).await;
    taken.sort_by(|a, b| a.message.body.cmp(&b.message.body));
    assert_eq!(bodies(&taken), bodies_of(0..4));
    for taken in taken {
        taken.receipt.ack();
    }
    store.no_event_comes().await;
}

pub async fn unsettled_comes_again_after_a_crash_and_settled_does_not<H: Harness>() {
    let mut backend = H::start(Limits::default()).await;
    let store = backend.store();
    store.put_events(0..6).await;
    let taken = store.take_events(4).await;
    for (n, taken) in taken.into_iter().enumerate() {
        if n % 2 == 0 {
            taken.receipt.ack();
        } else {
            std::mem::forget(taken.receipt);
        }
    }
    store.backend.flush().await;
    backend.crash().await;
    let store = backend.store();
    let taken = store.take_events(4).await;
    assert_eq!(bodies(&taken), bodies_of([1, 3, 4, 5]));
    store.no_event_comes().await;
}

pub async fn an_orderly_end_loses_no_ack<H: Harness>() {
    let mut backend = H::start(Limits::default()).await;
    let store = backend.store();
    store.put_events(0..50).await;
    for taken in store.take_events(50).await {
        taken.receipt.ack();
    }
    backend.restart().await;
    backend.store().no_event_comes().await;
}

pub async fn a_call_that_is_given_up_loses_nothing<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    for n in 0..20 {
        store.put_events(n..n + 1).await;
        // Dropped wherever it is, and its outcome with it, if it has one.
        let patience = Duration::from_millis(u64::from(n / 2));
        let _ = tokio::time::timeout(patience, store.inbox.events(10)).await;
    }
    let mut taken = store.take_events(20).await;
    taken.sort_by_key(|t| (t.message.body.len(), t.message.body.clone()));
    assert_eq!(bodies(&taken), bodies_of(0..20));
    store.no_event_comes().await;
}

pub async fn a_put_wakes_who_waits<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let waiting = tokio::spawn({
        // Without a limit: a paused clock would run ahead of the put.
        let inbox = std::sync::Arc::clone(&store.inbox);
        async move { inbox.events(1).await.unwrap() }
    });
    tokio::task::yield_now().await;
    store.put_events(7..8).await;
    let taken = waiting.await.unwrap();
    assert_eq!(bodies(&taken), bodies_of(7..8));
}

pub async fn a_continuation_is_kept_once<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let rest = |n: u32, after: u32| {
        Parcel::Event(EventMessage {
            resume_after: Some(subscription_id(after)),
            ..event(n)
        })
    };
    store.put(vec![rest(1, 500), rest(1, 500)]).await;
    store.put(vec![rest(1, 500), rest(1, 1000)]).await;
    store.put(vec![rest(2, 500), Parcel::Event(event(1))]).await;
    store.put(vec![Parcel::Event(event(1))]).await;
    let taken = store.take_events(5).await;
    let after = |t: &EventMessage| t.resume_after.as_ref().map(ToString::to_string);
    let found: Vec<_> = taken.iter().map(|t| after(&t.message)).collect();
    let expected = [Some("sub_0500"), Some("sub_1000"), Some("sub_0500")];
    assert_eq!(found[..3], expected.map(|id| id.map(str::to_owned)));
    assert_eq!(found[3..], [None, None], "whole events are each kept");
    store.no_event_comes().await;
    for taken in taken {
        taken.receipt.ack();
    }
    store.backend.flush().await;
    store.put(vec![rest(1, 500)]).await;
    assert_eq!(
        store.take_events(1).await.len(),
        1,
        "one that was settled may come anew"
    );
}
