//! Reading through the dead letters: a queue without an index, of any length, by several at
//! once, and cut off in the middle.

use std::time::Duration;

use carillon::adapters::rabbitmq::Rabbit;
use carillon::domain::timestamp::UnixMillis;
use carillon::ports::{Backend as _, DeadLetterQuery, DeadLetterQueue as _, Outbox as _, Parcel};
use lapin::types::AMQPValue;

use crate::harness::{
    PATIENCE, Place, dead, delivery, delivery_of, event_of, failed, take_deliveries, tenant,
};

const ALL: DeadLetterQuery = DeadLetterQuery {
    owner: None,
    delivery: None,
    tenant: None,
    subscription: None,
    reason: None,
    since: None,
    until: None,
    limit: 100_000,
};

/// Every tenth letter is tenant bell's.
async fn put_letters(rabbit: &Rabbit, count: u32) {
    for from in (0..count).step_by(1000) {
        let letter = |n: u32| {
            let delivery = match n % 10 {
                0 => delivery_of("bell", n),
                _ => delivery(n),
            };
            Parcel::Dead(dead(failed(delivery), UnixMillis(i64::from(n))))
        };
        let parcels = (from..count.min(from + 1000)).map(letter).collect();
        rabbit.put(parcels).await.unwrap();
    }
}

/// The numbers of the events of the letters that match, in their order.
async fn listed(rabbit: &Rabbit, query: &DeadLetterQuery) -> Vec<u32> {
    let letters = rabbit.list(query).await.unwrap();
    let number = |id: &str| id.trim_start_matches("evt_").parse().unwrap();
    let numbers = letters
        .iter()
        .map(|letter| number(letter.delivery.event.id.as_str()));
    numbers.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_are_listed_and_some_redriven() {
    const COUNT: u32 = 5000;
    let place = Place::shared().await;
    let rabbit = place.open().await;
    put_letters(&rabbit, COUNT).await;
    let of_bell = DeadLetterQuery {
        tenant: Some(tenant("bell")),
        limit: 600,
        ..ALL
    };
    let tenth: Vec<u32> = (0..COUNT).step_by(10).collect();
    assert_eq!(listed(&rabbit, &of_bell).await, tenth);
    let oldest = DeadLetterQuery { limit: 7, ..ALL };
    assert_eq!(listed(&rabbit, &oldest).await, [0, 1, 2, 3, 4, 5, 6]);

    let some = DeadLetterQuery {
        limit: 120,
        ..of_bell
    };
    let redriven = rabbit.redrive(&some, UnixMillis(0)).await.unwrap();
    assert_eq!(redriven, 120);
    let mut sent: Vec<u32> = take_deliveries(&rabbit, 120)
        .await
        .iter()
        .map(event_of)
        .collect();
    sent.sort_unstable();
    assert_eq!(sent, tenth[..120]);
    let others: Vec<u32> = (0..COUNT).filter(|n| !sent.contains(n)).collect();
    assert_eq!(listed(&rabbit, &ALL).await, others);
    let ready = place.plain().await.ready(&place.name("dead-letters")).await;
    assert_eq!(ready as usize, others.len(), "each once");
}

/// A redrive in steps hands out each letter a few times, however many there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redrive_reads_no_further_than_it_needs() {
    let place = Place::shared().await;
    let rabbit = place.open().await;
    put_letters(&rabbit, 6000).await;
    let step = DeadLetterQuery { limit: 1000, ..ALL };
    for _ in 0..3 {
        assert_eq!(rabbit.count(&step).await.unwrap(), 1000);
        assert_eq!(rabbit.redrive(&step, UnixMillis(0)).await.unwrap(), 1000);
    }
    rabbit.flush().await;
    let plain = place.plain().await;
    let (mut times, mut never) = (0, 0);
    while let Some(letter) = plain.get(&place.name("dead-letters")).await {
        times = times.max(times_handed_out(&letter));
        never += u32::from(!letter.redelivered);
    }
    assert!(never >= 500, "the last of 3000 are {never}");
    assert!(times <= 2 * 4, "{times} times");
}

fn times_handed_out(letter: &lapin::message::Delivery) -> i64 {
    let headers = letter.properties.headers().as_ref();
    let count = headers.and_then(|headers| headers.inner().get("x-delivery-count"));
    match count {
        None => 0,
        Some(AMQPValue::LongLongInt(times)) => *times,
        Some(AMQPValue::LongInt(times)) => i64::from(*times),
        Some(other) => panic!("{other:?}"),
    }
}

/// RabbitMQ itself mixes what is given back together, and puts it behind what was before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_leaves_each_letter_in_its_place() {
    let place = Place::shared().await;
    let rabbit = place.open().await;
    put_letters(&rabbit, 1300).await;
    let few = DeadLetterQuery { limit: 70, ..ALL };
    rabbit.count(&few).await.unwrap();
    rabbit.list(&few).await.unwrap();
    rabbit.count(&few).await.unwrap();
    let of_nobody = DeadLetterQuery {
        tenant: Some(tenant("nobody")),
        ..ALL
    };
    assert_eq!(rabbit.redrive(&of_nobody, UnixMillis(0)).await.unwrap(), 0);
    assert_eq!(rabbit.redrive(&few, UnixMillis(0)).await.unwrap(), 70);
    let plain = place.plain().await;
    for n in 70..1300 {
        let letter = plain.wait_for(&place.name("dead-letters")).await;
        let letter = carillon::codec::delivery::decode(&letter.data.into()).unwrap();
        assert_eq!(letter.event.id.as_str(), format!("evt_{n}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_read_at_once() {
    let place = Place::shared().await;
    let (one, two) = (place.open().await, place.open().await);
    put_letters(&one, 300).await;
    let expected: Vec<u32> = (0..300).collect();
    for _ in 0..5 {
        let (by_one, by_two) = tokio::join!(listed(&one, &ALL), listed(&two, &ALL));
        assert_eq!(by_one, expected);
        assert_eq!(by_two, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_cut_off_loses_nothing() {
    let place = Place::shared().await;
    let (rabbit, other) = (place.open().await, place.open().await);
    put_letters(&rabbit, 500).await;
    let expected: Vec<u32> = (0..500).collect();
    // At any moment of it.
    for ms in [0, 1, 2, 4, 8, 12, 16, 24, 32, 48, 64] {
        let cut_off = Duration::from_millis(ms);
        let _ = tokio::time::timeout(cut_off, rabbit.list(&ALL)).await;
        assert_eq!(listed(&rabbit, &ALL).await, expected, "after {cut_off:?}");
        let _ = tokio::time::timeout(cut_off, rabbit.list(&ALL)).await;
        assert_eq!(listed(&other, &ALL).await, expected, "after {cut_off:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_looks_see_the_same() {
    let place = Place::shared().await;
    let rabbit = place.open().await;
    put_letters(&rabbit, 60).await;
    let first = format!("{:?}", rabbit.list(&ALL).await.unwrap());
    for _ in 0..50 {
        assert_eq!(format!("{:?}", rabbit.list(&ALL).await.unwrap()), first);
    }
    assert_eq!(rabbit.count(&ALL).await.unwrap(), 60);
}

/// A redrive that is cut off leaves each letter in one of the two queues, or in both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redrive_that_is_cut_off_loses_nothing() {
    let place = Place::shared().await;
    let rabbit = place.open().await;
    put_letters(&rabbit, 1500).await;
    let mut sent = std::collections::BTreeSet::new();
    for ms in [20, 40, 60, 80, 120] {
        let cut_off = Duration::from_millis(ms);
        let _ = tokio::time::timeout(cut_off, rabbit.redrive(&ALL, UnixMillis(0))).await;
    }
    rabbit.redrive(&ALL, UnixMillis(0)).await.unwrap();
    let take = async {
        while sent.len() < 1500 {
            for taken in carillon::ports::Inbox::deliveries(&*rabbit, 500)
                .await
                .unwrap()
            {
                sent.insert(event_of(&taken));
                taken.receipt.ack();
            }
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, take).await.is_ok();
    assert!(in_time, "{} of 1500 came", sent.len());
    assert_eq!(rabbit.count(&ALL).await.unwrap(), 0);
    rabbit.flush().await;
}
