//! Several processes on one queue: bounded prefetch, a share for each, nothing twice.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use carillon::adapters::rabbitmq::{Rabbit, RabbitSettings};
use carillon::ports::{Backend as _, Inbox as _};

use crate::harness::{PATIENCE, Place, number_of, put_events, take_events, until};

fn with_prefetch(place: &Place, prefetch: u16) -> RabbitSettings {
    RabbitSettings {
        prefetch,
        ..place.settings()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_is_out_than_the_prefetch() {
    let place = Place::shared().await;
    let plain = place.plain().await;
    let rabbit = place.open_with(with_prefetch(&place, 50)).await;
    put_events(&rabbit, 0..500).await;
    let queue = place.name("events");
    let ready = async || plain.ready(&queue).await;
    assert_eq!(ready().await, 500, "nobody asked yet");
    let mut taken = take_events(&rabbit, 20).await;
    until("all it may is fetched", PATIENCE, async || {
        ready().await <= 450
    })
    .await;
    taken.extend(take_events(&rabbit, 30).await);
    // Nothing was settled: so nothing more comes, and nobody is handed more.
    for _ in 0..20 {
        assert_eq!(ready().await, 450);
    }
    let came = tokio::time::timeout(Duration::from_millis(300), rabbit.events(1)).await;
    assert!(came.is_err(), "{came:?}");
    for taken in taken.drain(..10) {
        taken.receipt.ack();
    }
    until("as many as were settled", PATIENCE, async || {
        ready().await <= 440
    })
    .await;
    for _ in 0..20 {
        assert_eq!(ready().await, 440);
    }
}

/// Takes and acknowledges until nothing comes for a while.
async fn work_off(rabbit: &Rabbit) -> Vec<u32> {
    let mut numbers = Vec::new();
    while let Ok(taken) = tokio::time::timeout(Duration::from_secs(2), rabbit.events(10)).await {
        for taken in taken.unwrap() {
            numbers.push(number_of(&taken));
            taken.receipt.ack();
        }
        tokio::task::yield_now().await;
    }
    numbers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_share_and_none_comes_twice() {
    let place = Place::shared().await;
    let one = place.open_with(with_prefetch(&place, 100)).await;
    let two = place.open_with(with_prefetch(&place, 100)).await;
    let putting = async {
        for from in (0..3000).step_by(500) {
            put_events(&one, from..from + 500).await;
        }
    };
    let (by_one, by_two, ()) = tokio::join!(work_off(&one), work_off(&two), putting);
    let counts = (by_one.len(), by_two.len());
    let all: BTreeSet<u32> = by_one.into_iter().chain(by_two).collect();
    assert_eq!(counts.0 + counts.1, 3000, "{counts:?}");
    assert_eq!(all.len(), 3000);
    assert!(counts.0 >= 300 && counts.1 >= 300, "{counts:?}");
    one.flush().await;
    two.flush().await;
    assert_eq!(place.plain().await.ready(&place.name("events")).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stops_gives_back_at_once() {
    let place = Place::shared().await;
    let (one, two) = (place.open().await, place.open().await);
    let plain = place.plain().await;
    // More than it may fetch: what it gives back makes room that must not be filled again.
    put_events(&one, 0..3000).await;
    let mut held = take_events(&one, 10).await;
    until("it fetches ahead", PATIENCE, async || {
        plain.ready(&place.name("events")).await == 1000
    })
    .await;
    let begun = Instant::now();
    one.stop().await;
    let mut numbers: BTreeSet<u32> = BTreeSet::new();
    while numbers.len() < 2990 {
        let taken = tokio::time::timeout(PATIENCE, two.events(500)).await;
        let taken = taken.unwrap_or_else(|_| panic!("only {} came back", numbers.len()));
        for taken in taken.unwrap() {
            assert!(numbers.insert(number_of(&taken)), "twice");
            taken.receipt.ack();
        }
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    // What it had handed out goes on being settled, and the rest comes again.
    let last = held.split_off(9);
    for taken in held {
        assert!(!numbers.contains(&number_of(&taken)));
        taken.receipt.ack();
    }
    let expected = number_of(&last[0]);
    drop(last);
    let again = take_events(&two, 1).await;
    assert_eq!(number_of(&again[0]), expected);
    one.close().await;
    drop(again);
    assert_eq!(number_of(&take_events(&two, 1).await[0]), expected);
}
