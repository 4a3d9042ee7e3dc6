//! Deliveries: never early, never two of one, nothing lost.

use std::collections::BTreeSet;
use std::time::Duration;

use carillon::codec;
use carillon::domain::delivery::DeadReason;
use carillon::domain::retry::Due;
use carillon::domain::timestamp::UnixMillis;
use carillon::ports::Parcel;

use crate::harness::{
    Harness, Limits, dead, decoded, delivery, event_ids, failed, redelivered, waiting,
};

const SECOND: Duration = Duration::from_secs(1);

pub async fn none_comes_before_its_time<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let due = backend.now().after(10 * SECOND);
    let sent = failed(delivery(1));
    store.put(vec![waiting(sent.clone(), due)]).await;
    store.no_delivery_comes().await;
    backend.pass(5 * SECOND).await;
    store.no_delivery_comes().await;
    backend.pass(5 * SECOND).await;
    let taken = store.take_deliveries(1).await;
    assert!(backend.now() >= due);
    assert_eq!(taken[0].message, codec::delivery::encode(&sent));
    assert_eq!(format!("{:?}", decoded(&taken)[0]), format!("{sent:?}"));
}

/// A store may wait otherwise than asked, within what is allowed, and says so beforehand.
pub async fn a_rounded_time_holds<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let now = backend.now();
    let far = Due::at(now.after(100_000 * SECOND));
    assert_eq!(store.outbox.rounded(far, now), far);
    // Between two rungs of a ladder, and nearer to the longer one.
    let due = Due {
        earliest: now.after(SECOND * 115 / 100),
        at: now.after(SECOND * 144 / 100),
        latest: now.after(SECOND * 145 / 100),
    };
    let rounded = store.outbox.rounded(due, now);
    assert!(rounded.earliest >= due.earliest);
    let delivery = failed(delivery(1));
    let due = rounded;
    store.put(vec![Parcel::Delivery { delivery, due }]).await;
    let comes = async {
        let taken = store.inbox.deliveries(1).await.unwrap();
        (taken.len(), backend.now())
    };
    let ((count, came), ()) = tokio::join!(comes, backend.pass(2 * SECOND));
    assert_eq!(count, 1);
    assert!(came >= rounded.at, "{came:?} for {rounded:?}");
}

pub async fn they_come_in_the_order_of_their_time<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let at = |s: u32| backend.now().after(s * SECOND);
    let parcels = [(1, 3), (2, 1), (3, 2), (4, 60)];
    let parcels = parcels.map(|(n, s)| waiting(delivery(n), at(s)));
    store.put(parcels.into()).await;
    backend.pass(5 * SECOND).await;
    let first = store.inbox.deliveries(2).await.unwrap();
    assert!(first.len() <= 2, "{}", first.len());
    let rest = store.take_deliveries(3 - first.len()).await;
    let ids = [event_ids(&first), event_ids(&rest)].concat();
    assert_eq!(ids, ["evt_2", "evt_3", "evt_1"]);
    store.no_delivery_comes().await;
}

pub async fn a_sooner_one_wakes_who_waits<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let later = backend.now().after(1000 * SECOND);
    store.put(vec![waiting(delivery(1), later)]).await;
    let taking = tokio::spawn({
        // Without a limit: a paused clock would run ahead of the put.
        let inbox = std::sync::Arc::clone(&store.inbox);
        async move { inbox.deliveries(1).await.unwrap() }
    });
    tokio::task::yield_now().await;
    store.put(vec![waiting(delivery(2), backend.now())]).await;
    assert_eq!(event_ids(&taking.await.unwrap()), ["evt_2"]);
}

pub async fn a_retry_replaces_its_predecessor<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let soon = backend.now().after(SECOND);
    let later = backend.now().after(5 * SECOND);
    store.put(vec![waiting(delivery(1), soon)]).await;
    store.put(vec![waiting(failed(delivery(1)), later)]).await;
    backend.pass(2 * SECOND).await;
    store.no_delivery_comes().await;
    backend.pass(4 * SECOND).await;
    let taken = store.take_deliveries(1).await;
    assert_eq!(decoded(&taken)[0].attempts, 1);
    store.no_delivery_comes().await;
}

pub async fn a_retry_outlives_the_old_receipt<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let mut attempt = delivery(1);
    store
        .put(vec![waiting(attempt.clone(), backend.now())])
        .await;
    for n in 1..=3 {
        let mut taken = store.take_deliveries(1).await;
        attempt = failed(attempt);
        let due = backend.now().after(4 * SECOND);
        store.put(vec![waiting(attempt.clone(), due)]).await;
        taken.remove(0).receipt.ack();
        store.backend.flush().await;
        store.no_delivery_comes().await;
        backend.pass(4 * SECOND).await;
        assert_eq!(attempt.attempts, n);
    }
    let taken = store.take_deliveries(1).await;
    assert_eq!(decoded(&taken)[0].attempts, 3);
}

pub async fn a_replaced_one_that_is_dropped_is_gone<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    store.put(vec![waiting(delivery(1), backend.now())]).await;
    let old = store.take_deliveries(1).await;
    let due = backend.now().after(4 * SECOND);
    store.put(vec![waiting(failed(delivery(1)), due)]).await;
    drop(old);
    store.no_delivery_comes().await;
    backend.pass(4 * SECOND).await;
    let taken = store.take_deliveries(1).await;
    assert_eq!(decoded(&taken)[0].attempts, 1);
    store.no_delivery_comes().await;
}

pub async fn a_dropped_receipt_requeues<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let parcels = (0..3).map(|n| waiting(delivery(n), backend.now()));
    store.put(parcels.collect()).await;
    for _ in 0..3 {
        drop(store.take_deliveries(3).await);
    }
    let taken = store.take_deliveries(3).await;
    let ids: BTreeSet<_> = event_ids(&taken).into_iter().collect();
    assert_eq!(ids.len(), 3);
    store.no_delivery_comes().await;
    for taken in taken {
        taken.receipt.ack();
    }
    store.no_delivery_comes().await;
}

pub async fn many_of_one_time_come_once_each<H: Harness>() {
    const COUNT: u32 = 1500;
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let due = backend.now();
    let parcels = (0..COUNT).map(|n| waiting(delivery(n), due));
    store.put(parcels.collect()).await;
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    while seen.len() < COUNT as usize {
        let taken = store.inbox.deliveries(7).await.unwrap();
        for id in event_ids(&taken) {
            assert!(seen.insert(id), "one came twice");
        }
        out.extend(taken);
    }
    store.no_delivery_comes().await;
    drop(out);
}

pub async fn one_put_into_the_past_comes<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let begin = backend.now();
    backend.pass(3 * SECOND).await;
    store.put(vec![waiting(delivery(1), backend.now())]).await;
    let first = store.take_deliveries(1).await;
    let past = [begin, UnixMillis(0), begin.after(SECOND)];
    for (n, due) in (2..).zip(past) {
        store.put(vec![waiting(delivery(n), due)]).await;
        let taken = store.take_deliveries(1).await;
        assert_eq!(event_ids(&taken), [format!("evt_{n}")]);
        for taken in taken {
            taken.receipt.ack();
        }
    }
    store.no_delivery_comes().await;
    drop(first);
}

pub async fn unsettled_comes_again_after_a_crash<H: Harness>() {
    let mut backend = H::start(Limits::default()).await;
    let store = backend.store();
    let later = backend.now().after(10 * SECOND);
    let mut parcels: Vec<_> = (0..4)
        .map(|n| waiting(delivery(n), backend.now()))
        .collect();
    parcels.push(waiting(delivery(4), later));
    store.put(parcels).await;
    let mut taken = store.take_deliveries(4).await;
    taken.remove(0).receipt.ack();
    store.backend.flush().await;
    std::mem::forget(taken);
    backend.crash().await;
    let store = backend.store();
    let taken = store.take_deliveries(3).await;
    assert_eq!(event_ids(&taken), ["evt_1", "evt_2", "evt_3"]);
    store.no_delivery_comes().await;
    backend.pass(10 * SECOND).await;
    assert_eq!(event_ids(&store.take_deliveries(1).await), ["evt_4"]);
}

pub async fn a_crash_between_retry_and_ack_leaves_the_retry<H: Harness>() {
    let mut backend = H::start(Limits::default()).await;
    let store = backend.store();
    store.put(vec![waiting(delivery(1), backend.now())]).await;
    let taken = store.take_deliveries(1).await;
    let due = backend.now().after(6 * SECOND);
    store.put(vec![waiting(failed(delivery(1)), due)]).await;
    std::mem::forget(taken);
    backend.crash().await;
    let store = backend.store();
    store.no_delivery_comes().await;
    backend.pass(6 * SECOND).await;
    let taken = store.take_deliveries(1).await;
    assert_eq!(decoded(&taken)[0].attempts, 1);
    store.no_delivery_comes().await;
}

pub async fn a_call_that_is_given_up_loses_nothing<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    for n in 0..20 {
        store.put(vec![waiting(delivery(n), backend.now())]).await;
        // Its outcome is dropped with it, whether it has one or not.
        let patience = Duration::from_millis(u64::from(n % 4) * 60);
        let _ = tokio::time::timeout(patience, store.inbox.deliveries(10)).await;
    }
    let taken = store.take_deliveries(20).await;
    let ids: BTreeSet<_> = event_ids(&taken).into_iter().collect();
    assert_eq!(ids.len(), 20);
    store.no_delivery_comes().await;
}

/// A retry waits while the same delivery is redelivered twice: three come, and what becomes of
/// one is nothing to the others.
pub async fn redeliveries_and_a_retry_are_beside_each_other<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let soon = backend.now().after(4 * SECOND);
    let again = |series| redelivered(delivery(1), series);
    let due = |series| waiting(again(series), backend.now());
    store.put(vec![waiting(failed(delivery(1)), soon)]).await;
    store.put(vec![due(7)]).await;
    store.put(vec![due(8)]).await;
    let mut taken = store.take_deliveries(2).await;
    let mut series: Vec<u64> = decoded(&taken).iter().map(|one| one.series).collect();
    series.sort_unstable();
    assert_eq!(series, [7, 8]);
    let first = decoded(&taken).remove(0);
    // One is delivered, the other fails and waits on.
    taken.remove(0).receipt.ack();
    let other = again(if first.series == 7 { 8 } else { 7 });
    store.put(vec![waiting(failed(other.clone()), soon)]).await;
    taken.remove(0).receipt.ack();
    store.no_delivery_comes().await;
    backend.pass(5 * SECOND).await;
    let taken = store.take_deliveries(2).await;
    let mut came: Vec<(u64, u32)> = decoded(&taken)
        .iter()
        .map(|one| (one.series, one.attempts))
        .collect();
    came.sort_unstable();
    assert_eq!(came, [(0, 1), (other.series, 1)]);
    store.no_delivery_comes().await;
}

/// The end of the series that the event led to is no end of a redelivery, nor the other way
/// round.
pub async fn a_dead_letter_ends_its_own_series_alone<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let now = || backend.now();
    let dead = |delivery| Parcel::Dead(dead(failed(delivery), DeadReason::Exhausted, now()));
    let (first, again) = (delivery(1), redelivered(delivery(1), 7));
    let later = now().after(4 * SECOND);
    store
        .put(vec![
            waiting(first.clone(), now()),
            waiting(again.clone(), later),
        ])
        .await;
    let mut taken = store.take_deliveries(1).await;
    store.put(vec![dead(first)]).await;
    taken.remove(0).receipt.ack();
    store.no_delivery_comes().await;
    backend.pass(5 * SECOND).await;
    let mut taken = store.take_deliveries(1).await;
    assert_eq!(decoded(&taken)[0].series, 7);
    let later = now().after(4 * SECOND);
    store.put(vec![waiting(failed(delivery(1)), later)]).await;
    store.put(vec![dead(again)]).await;
    taken.remove(0).receipt.ack();
    store.no_delivery_comes().await;
    backend.pass(5 * SECOND).await;
    let taken = store.take_deliveries(1).await;
    assert_eq!(decoded(&taken)[0].series, 0);
}
