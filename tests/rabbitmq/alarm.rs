//! RabbitMQ short of memory: what is taken goes on being settled, what is put waits, and new
//! events are refused.

use std::time::{Duration, Instant};

use carillon::ports::{Backend as _, Outbox as _, Parcel};

use crate::harness::{
    PATIENCE, Place, delivery, due_now, event, event_of, kind, moody_broker, put_events,
    take_deliveries, take_events, unavailable, until,
};

/// Longer than a confirm may take when publishing is not held.
const LONG: Duration = Duration::from_secs(33);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_of_memory_it_takes_acks_and_holds_what_is_put() {
    let broker = moody_broker().await;
    let place = Place::at(&broker.url(1));
    let (rabbit, plain) = (place.open().await, place.plain().await);
    let (events, deliveries) = (place.name("events"), place.name("deliveries"));
    put_events(&rabbit, 0..200).await;
    let held = take_events(&rabbit, 50).await;
    let blocked = &place.telemetry.metrics().broker_blocked;
    assert_eq!(blocked.get(), 0);

    broker
        .ctl(1, &["set_vm_memory_high_watermark", "absolute", "1"])
        .await;
    let mut putting = tokio::spawn({
        let rabbit = rabbit.clone();
        let parcels = vec![due_now(delivery(1)), due_now(delivery(2))];
        async move { rabbit.put(parcels).await }
    });
    until("it is known", PATIENCE, async || blocked.get() == 1).await;
    let since = Instant::now();
    // What is taken is settled all the same, and more comes.
    for taken in held.into_iter().chain(take_events(&rabbit, 150).await) {
        taken.receipt.ack();
    }
    rabbit.flush().await;
    // The queue works through what was written to it.
    let line = format!("{events}\t0");
    until("all are settled", PATIENCE, async || {
        let queues = broker.ctl(1, &["list_queues", "name", "messages"]).await;
        queues.lines().any(|found| found == line)
    })
    .await;

    let asked = Instant::now();
    let published = || Parcel::Published {
        message: event(500),
        kind: kind("a.b"),
    };
    let why = unavailable(rabbit.put(vec![published()]).await);
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
    assert!(why.contains("memory") && why.contains("try again"), "{why}");
    assert!(rabbit.ready().await.is_ok(), "deliveries go on");
    // RabbitMQ tells who publishes, and not before: the first to come is refused as well.
    let late = place.open().await;
    let asked = Instant::now();
    let refused = tokio::time::timeout(PATIENCE, late.put(vec![published()])).await;
    let why = unavailable(refused.expect("it waits"));
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
    assert!(why.contains("memory") && why.contains("try again"), "{why}");

    let waits = tokio::time::timeout(LONG.saturating_sub(since.elapsed()), &mut putting);
    assert!(waits.await.is_err(), "it waits");
    broker
        .ctl(1, &["set_vm_memory_high_watermark", "0.4"])
        .await;
    let put = tokio::time::timeout(PATIENCE, putting).await.unwrap();
    put.unwrap().unwrap();
    until("it is known", PATIENCE, async || blocked.get() == 0).await;
    assert_eq!(plain.ready(&deliveries).await, 2, "once each");
    let mut numbers: Vec<u32> = take_deliveries(&rabbit, 2)
        .await
        .iter()
        .map(event_of)
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2]);
}
