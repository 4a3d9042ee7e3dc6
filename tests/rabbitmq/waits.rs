//! Waiting: never early, at most a quarter too long, and not for ever.

use std::time::{Duration, Instant};

use carillon::adapters::rabbitmq::Overdue;
use carillon::domain::retry::Due;
use carillon::ports::{Ledger as _, Outbox as _, Parcel};

use crate::harness::{
    PATIENCE, Place, delivery, due_after, due_now, event_of, now, take_deliveries, until,
};
use crate::plain::next;

/// What RabbitMQ and a busy machine may add to a wait.
const SLACK: Duration = Duration::from_millis(1500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wait_is_short_and_none_much_longer() {
    let place = Place::shared().await;
    let (rabbit, plain) = (place.open().await, place.plain().await);
    let mut consumer = plain.consume(&place.name("deliveries"), 100).await;
    // All at once and mixed: a long wait holds up no short one.
    let waits = [4000u32, 300, 1234, 250, 2500, 999, 700, 301, 3100];
    let begun = Instant::now();
    let at = now();
    let parcels = waits.iter().map(|&ms| Parcel::Delivery {
        delivery: delivery(ms),
        due: Due::at(at.after(Duration::from_millis(ms.into()))),
    });
    rabbit.put(parcels.collect()).await.unwrap();
    // It counts from when RabbitMQ has it.
    let putting = begun.elapsed();
    let mut came = Vec::new();
    for _ in waits {
        let found = next(&mut consumer).await;
        let waited = begun.elapsed();
        let body = carillon::codec::delivery::decode(&found.data.into()).unwrap();
        let ms = body.event.id.as_str().trim_start_matches("evt_").to_owned();
        came.push((Duration::from_millis(ms.parse().unwrap()), waited));
    }
    assert_eq!(came.len(), waits.len());
    for (wait, waited) in came {
        assert!(waited >= wait, "{wait:?} was early: {waited:?}");
        let latest = wait.mul_f64(1.25) + putting + SLACK;
        assert!(waited <= latest, "{wait:?} came after {waited:?}");
    }
}

/// With room to choose, a wait is within its room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_with_room_stays_within_it() {
    let place = Place::shared().await;
    let (rabbit, plain) = (place.open().await, place.plain().await);
    let mut consumer = plain.consume(&place.name("deliveries"), 100).await;
    let after = |ms: u64| Duration::from_millis(ms);
    let begun = Instant::now();
    let at = now();
    let parcels = (0..8u32).map(|n| Parcel::Delivery {
        delivery: delivery(n),
        due: Due {
            earliest: at.after(after(1000)),
            at: at.after(after(1000 + 30 * u64::from(n))),
            latest: at.after(after(1250)),
        },
    });
    rabbit.put(parcels.collect()).await.unwrap();
    let putting = begun.elapsed();
    for _ in 0..8 {
        next(&mut consumer).await;
        let waited = begun.elapsed();
        assert!(waited >= after(1000), "early: {waited:?}");
        assert!(waited <= after(1250) + putting + SLACK, "late: {waited:?}");
    }
}

/// What RabbitMQ holds back is delivered as a copy, and what follows waits elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_back_is_put_again() {
    let place = Place::shared().await;
    let mut settings = place.settings();
    settings.overdue = Some(Overdue {
        from: Duration::from_secs(1),
        until: Duration::from_secs(600),
    });
    let (rabbit, plain) = (place.open_with(settings).await, place.plain().await);
    let wait = |n: u32| due_after(delivery(n), Duration::from_secs(2));
    let size = async |rung: &str| plain.ready(&place.name(rung)).await;
    plain.delete_exchange(&place.name("deliveries")).await;
    rabbit.put(vec![wait(1), wait(2)]).await.unwrap();
    // Another process has settled one of them meanwhile.
    let two = delivery(2);
    let settled = vec![(two.wait_key(), two.subscription.clone())];
    place.ledger.record(settled).await.unwrap();
    until("they have waited", PATIENCE, async || {
        size("wait.2316").await == 0
    })
    .await;
    // It has nowhere to hand them on to, and tries again after three minutes.
    let _declares = place.open().await;

    let taken = take_deliveries(&rabbit, 1).await.remove(0);
    assert_eq!(event_of(&taken), 1);
    taken.receipt.ack();
    rabbit.put(vec![due_now(delivery(3))]).await.unwrap();
    let next = take_deliveries(&rabbit, 1).await.remove(0);
    assert_eq!(event_of(&next), 3, "what is settled does not come again");
    rabbit.put(vec![wait(4)]).await.unwrap();
    assert_eq!(size("wait.2316").await, 0);
    assert_eq!(size("wait.2895").await, 1);
}
