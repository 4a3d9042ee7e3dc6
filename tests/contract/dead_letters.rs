//! Dead letters: kept whole, found by every filter, sent again without loss.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use carillon::domain::delivery::DeadReason;
use carillon::domain::subscription::Scope;
use carillon::domain::timestamp::UnixMillis;
use carillon::ports::{DeadLetterQuery, Parcel, Taken};

use crate::harness::{
    Harness, Limits, Store, dead, decoded, delivery, delivery_to, event_ids, failed,
    subscription_id, tenant, waiting,
};

fn all() -> DeadLetterQuery {
    DeadLetterQuery {
        limit: 10_000,
        ..DeadLetterQuery::default()
    }
}

/// Puts letters of these events, in this order; that of event `n` died at `10 n`.
async fn put_letters(store: &Store, numbers: impl IntoIterator<Item = u32>) {
    let letter = |n: u32| {
        let at = UnixMillis(i64::from(n) * 10);
        Parcel::Dead(dead(failed(delivery(n)), DeadReason::Exhausted, at))
    };
    store.put(numbers.into_iter().map(letter).collect()).await;
}

async fn listed(store: &Store, query: &DeadLetterQuery) -> Vec<String> {
    let letters = store.dead_letters.list(query).await.unwrap();
    let id = |letter: &carillon::domain::delivery::DeadLetter| letter.delivery.event.id.to_string();
    letters.iter().map(id).collect()
}

pub async fn a_dead_letter_keeps_everything<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    for (n, reason) in (0..).zip(DeadReason::ALL) {
        let letter = dead(
            failed(failed(delivery(n))),
            reason,
            UnixMillis(i64::from(n)),
        );
        store.put(vec![Parcel::Dead(letter.clone())]).await;
        let found = store.dead_letters.list(&all()).await.unwrap();
        let last = found.last().unwrap();
        assert_eq!(format!("{last:?}"), format!("{letter:?}"));
    }
    assert_eq!(store.dead_letters.count(&all()).await.unwrap(), 4);
    store.no_delivery_comes().await;
}

pub async fn every_filter_filters<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let letters = [
        (delivery_to("acme", 0, 1), DeadReason::Exhausted, 100),
        (delivery_to("acme", 1, 2), DeadReason::Gone, 200),
        (delivery_to("bell", 2, 1), DeadReason::Exhausted, 300),
        (delivery_to("bell", 3, 3), DeadReason::Gone, 400),
    ];
    let letters = letters.map(|(d, reason, at)| Parcel::Dead(dead(d, reason, UnixMillis(at))));
    store.put(letters.into()).await;
    let acme = || DeadLetterQuery {
        tenant: Some(tenant("acme")),
        ..all()
    };
    let to_1 = || DeadLetterQuery {
        subscription: Some(subscription_id(1)),
        ..all()
    };
    let gone = || DeadLetterQuery {
        reason: Some(DeadReason::Gone),
        ..all()
    };
    let since = |ms| Some(UnixMillis(ms));
    let cases = [
        (all(), vec![0, 1, 2, 3]),
        (acme(), vec![0, 1]),
        (to_1(), vec![0, 2]),
        (gone(), vec![1, 3]),
        (
            DeadLetterQuery {
                delivery: Some(delivery_to("bell", 2, 1).id),
                ..all()
            },
            vec![2],
        ),
        (
            DeadLetterQuery {
                delivery: Some(delivery_to("bell", 2, 1).id),
                ..acme()
            },
            vec![],
        ),
        (
            DeadLetterQuery {
                since: since(200),
                ..all()
            },
            vec![1, 2, 3],
        ),
        (
            DeadLetterQuery {
                until: since(300),
                ..all()
            },
            vec![0, 1],
        ),
        (
            DeadLetterQuery {
                since: since(200),
                until: since(400),
                ..all()
            },
            vec![1, 2],
        ),
        (DeadLetterQuery { limit: 3, ..all() }, vec![0, 1, 2]),
        (
            DeadLetterQuery {
                tenant: Some(tenant("bell")),
                ..to_1()
            },
            vec![2],
        ),
        (
            DeadLetterQuery {
                tenant: Some(tenant("none")),
                ..all()
            },
            vec![],
        ),
        (
            DeadLetterQuery {
                tenant: Some(tenant("bell")),
                limit: 1,
                ..gone()
            },
            vec![3],
        ),
    ];
    for (query, expected) in cases {
        let expected: Vec<_> = expected.iter().map(|n| format!("evt_{n}")).collect();
        assert_eq!(listed(&store, &query).await, expected, "{query:?}");
        let counted = store.dead_letters.count(&query).await.unwrap();
        assert_eq!(counted, expected.len() as u64, "{query:?}");
    }
    let redriven = store.dead_letters.redrive(&gone(), backend.now()).await;
    assert_eq!(redriven.unwrap(), 2);
    assert_eq!(listed(&store, &all()).await, ["evt_0", "evt_2"]);
}

pub async fn looking_changes_nothing<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    put_letters(&store, (0..3).rev()).await;
    let before = format!("{:?}", store.dead_letters.list(&all()).await.unwrap());
    for _ in 0..1000 {
        let now = format!("{:?}", store.dead_letters.list(&all()).await.unwrap());
        assert_eq!(now, before);
    }
    assert_eq!(store.dead_letters.count(&all()).await.unwrap(), 3);
}

pub async fn redriven_ones_are_due_and_new<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    put_letters(&store, 0..2).await;
    let redriven = store.dead_letters.redrive(&all(), backend.now()).await;
    assert_eq!(redriven.unwrap(), 2);
    assert!(listed(&store, &all()).await.is_empty());
    let taken = store.take_deliveries(2).await;
    for found in decoded(&taken) {
        let n = found.event.id.as_str().trim_start_matches("evt_");
        let sent = failed(delivery(n.parse().unwrap())).redriven();
        assert_eq!(format!("{found:?}"), format!("{sent:?}"));
    }
    let again = store.dead_letters.redrive(&all(), backend.now()).await;
    assert_eq!(again.unwrap(), 0);
    store.no_delivery_comes().await;
}

pub async fn redriving_honours_its_limit_oldest_first<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    put_letters(&store, 0..101).await;
    let of = |limit| DeadLetterQuery { limit, ..all() };
    let mut left: Vec<String> = (0..101).map(|n| format!("evt_{n}")).collect();
    for limit in [2, 1, 40] {
        assert_eq!(
            store.dead_letters.count(&of(limit)).await.unwrap(),
            limit as u64,
            "no further than its limit"
        );
        let redriven = store.dead_letters.redrive(&of(limit), backend.now()).await;
        assert_eq!(redriven.unwrap(), limit as u64);
        let mut ids = event_ids(&store.take_deliveries(limit).await);
        ids.sort();
        let mut oldest: Vec<String> = left.drain(..limit).collect();
        oldest.sort();
        assert_eq!(ids, oldest);
        assert_eq!(listed(&store, &all()).await, left);
    }
    let some = DeadLetterQuery {
        until: Some(UnixMillis(1000)),
        ..of(500)
    };
    let redriven = store.dead_letters.redrive(&some, backend.now()).await;
    assert_eq!(redriven.unwrap(), 100 - 43, "fewer match");
    assert_eq!(listed(&store, &all()).await, ["evt_100"]);
}

pub async fn many_are_redriven_once_each_and_spread<H: Harness>() {
    const COUNT: u32 = 2500;
    const STEP: Duration = Duration::from_millis(100);
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    put_letters(&store, 0..COUNT).await;
    let began = backend.now();
    let redriven = store.dead_letters.redrive(&all(), began).await;
    assert_eq!(redriven.unwrap(), u64::from(COUNT));
    assert_eq!(store.dead_letters.count(&all()).await.unwrap(), 0);
    // A thousand at once, then one each millisecond.
    let first = store.take_deliveries(1000).await;
    let mut seen: BTreeSet<u32> = numbers(&first).collect();
    assert_eq!(seen, (0..1000).collect());
    first.into_iter().for_each(|taken| taken.receipt.ack());
    while seen.len() < COUNT as usize {
        let waiting = tokio::time::timeout(STEP, store.inbox.deliveries(1000)).await;
        let Ok(came) = waiting.map(Result::unwrap) else {
            backend.pass(STEP).await;
            continue;
        };
        let passed = backend.now().since(began);
        for n in numbers(&came) {
            assert!(seen.insert(n), "{n} came twice");
            let due = Duration::from_millis(u64::from(n) - 999);
            assert!(passed >= due, "{n} came after {passed:?}");
        }
        came.into_iter().for_each(|taken| taken.receipt.ack());
    }
    assert!(backend.now().since(began) >= Duration::from_millis(1500));
    store.no_delivery_comes().await;
}

/// The numbers of the events that deliveries are of.
fn numbers(taken: &[Taken<Bytes>]) -> impl Iterator<Item = u32> {
    let number = |id: String| id.trim_start_matches("evt_").parse().unwrap();
    event_ids(taken).into_iter().map(number)
}

/// What was for a subscription of every tenant is none of the event's tenant's business.
pub async fn an_owner_reaches_its_own<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let letters = [
        delivery_to("acme", 0, 1),
        delivery_to("acme", 1, 2).within(&Scope::Every),
        delivery_to("bell", 2, 3),
        delivery_to("acme", 3, 1),
    ];
    let [own, shared, foreign, _] = letters.each_ref().map(|delivery| delivery.id.clone());
    let dead = |(at, delivery)| Parcel::Dead(dead(delivery, DeadReason::Gone, UnixMillis(at)));
    store.put((100..).zip(letters).map(dead).collect()).await;
    let acme = tenant("acme");
    let of_acme = DeadLetterQuery {
        owner: Some(acme.clone()),
        ..all()
    };
    let of_bell_for_acme = DeadLetterQuery {
        tenant: Some(tenant("bell")),
        ..of_acme.clone()
    };
    assert_eq!(listed(&store, &of_acme).await, ["evt_0", "evt_3"]);
    assert!(listed(&store, &of_bell_for_acme).await.is_empty());
    assert_eq!(store.dead_letters.count(&of_acme).await.unwrap(), 2);
    let discard = async |id| {
        let discarded = store.dead_letters.discard(id, Some(&acme), backend.now());
        discarded.await.unwrap().len()
    };
    assert_eq!(discard(&shared).await, 0);
    assert_eq!(discard(&foreign).await, 0);
    assert_eq!(discard(&own).await, 1);
    let redrive = async |query| {
        let redriven = store.dead_letters.redrive(query, backend.now());
        redriven.await.unwrap()
    };
    assert_eq!(redrive(&of_bell_for_acme).await, 0);
    assert_eq!(redrive(&of_acme).await, 1);
    assert_eq!(listed(&store, &all()).await, ["evt_1", "evt_2"]);
}

pub async fn one_is_discarded_once<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    put_letters(&store, 0..3).await;
    let letter = store.dead_letters.list(&all()).await.unwrap().remove(1);
    let discard = async || {
        let discarded = store
            .dead_letters
            .discard(&letter.delivery.id, None, backend.now());
        discarded.await.unwrap()
    };
    let discarded = discard().await;
    assert_eq!(format!("{discarded:?}"), format!("{:?}", [Some(&letter)]));
    assert!(discard().await.is_empty());
    assert_eq!(listed(&store, &all()).await, ["evt_0", "evt_2"]);
}

pub async fn it_survives_a_crash<H: Harness>() {
    let mut backend = H::start(Limits::default()).await;
    let store = backend.store();
    store.put(vec![waiting(delivery(0), backend.now())]).await;
    let taken = store.take_deliveries(1).await;
    put_letters(&store, 0..1).await;
    for taken in taken {
        taken.receipt.ack();
    }
    store.backend.flush().await;
    backend.crash().await;
    let store = backend.store();
    assert_eq!(listed(&store, &all()).await, ["evt_0"]);
    store.no_delivery_comes().await;
}

/// The dead letter is durable, its acknowledgement is not: it does not wait as well.
pub async fn a_dead_letter_does_not_wait_any_more<H: Harness>() {
    let mut backend = H::start(Limits::default()).await;
    let store = backend.store();
    store.put(vec![waiting(delivery(1), backend.now())]).await;
    let taken = store.take_deliveries(1).await;
    let letter = dead(failed(delivery(1)), DeadReason::Exhausted, backend.now());
    store.put(vec![Parcel::Dead(letter)]).await;
    drop((taken, store));
    backend.restart().await;
    let store = backend.store();
    store.no_delivery_comes().await;
    assert_eq!(listed(&store, &all()).await.len(), 1);
}
