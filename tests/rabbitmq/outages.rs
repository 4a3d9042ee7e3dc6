//! Connections that are cut, refused or hang, and queues that are deleted: puts fail soon,
//! everything comes back unaided, and nothing is lost.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use carillon::adapters::rabbitmq::Rabbit;
use carillon::ports::{Backend as _, Inbox as _, Ledger as _, Outbox as _, Parcel};
use carillon::telemetry::labels::Dependency;

use crate::harness::{
    PATIENCE, Place, dead, delivered, delivery, due_now, event, event_of, now, number_of,
    put_events, put_patiently, take_deliveries, take_events, unavailable, until,
};
use crate::services::Proxy;

/// A place that is reached by a proxy.
struct Cuttable {
    place: Place,
    proxy: Proxy,
    rabbit: Arc<Rabbit>,
}

async fn cuttable(parameters: &str) -> Cuttable {
    let place = Place::shared().await;
    let proxy = Proxy::start(address(&place.url)).await;
    let by_proxy = place
        .url
        .replace(&address(&place.url).to_string(), &proxy.addr().to_string());
    let rabbit = place.open_by(&format!("{by_proxy}{parameters}")).await;
    Cuttable {
        place,
        proxy,
        rabbit,
    }
}

/// The host and port of a URL such as `amqp://guest:guest@127.0.0.1:5672/%2f`.
pub fn address(url: &str) -> SocketAddr {
    let rest = url.split_once("://").unwrap().1;
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    rest.split('/').next().unwrap().parse().unwrap()
}

async fn until_ready(rabbit: &Rabbit) -> Duration {
    until("it is ready", PATIENCE, async || {
        rabbit.ready().await.is_ok()
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_comes_back_and_nothing_is_lost() {
    let Cuttable {
        place,
        proxy,
        rabbit,
    } = cuttable("").await;
    // Events come and are acknowledged all the time, and connections are cut: once in each fifth.
    let came = AtomicUsize::new(0);
    let counts = async {
        let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
        while counts.len() < 1000 {
            let taken = tokio::time::timeout(PATIENCE, rabbit.events(20)).await;
            let taken = taken.unwrap_or_else(|_| panic!("only {} came", counts.len()));
            for taken in taken.unwrap() {
                *counts.entry(number_of(&taken)).or_default() += 1;
                taken.receipt.ack();
            }
            came.store(counts.len(), Ordering::Relaxed);
        }
        counts
    };
    let putting = async {
        for from in (0..1000).step_by(100) {
            let some = (from..from + 100)
                .map(|n| Parcel::Event(event(n)))
                .collect();
            put_patiently(&rabbit, some).await;
        }
    };
    let cutting = async {
        for count in [100, 300, 500, 700] {
            until("so many to come", PATIENCE, async || {
                came.load(Ordering::Relaxed) >= count
            })
            .await;
            proxy.cut().await;
            until_ready(&rabbit).await;
        }
    };
    let (counts, (), ()) = tokio::join!(counts, putting, cutting);
    assert_eq!(counts.len(), 1000);
    rabbit.flush().await;
    let plain = place.plain().await;
    assert_eq!(plain.ready(&place.name("quarantine")).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_is_refused_puts_fail_soon() {
    let Cuttable {
        place,
        proxy,
        rabbit,
    } = cuttable("").await;
    put_events(&rabbit, 0..10).await;
    let held = take_events(&rabbit, 10).await;
    let is_up = || {
        let up = &place.telemetry.metrics().dependency_up;
        up.get(Dependency::RabbitMq)
    };
    assert_eq!(is_up(), 1);
    proxy.refuse().await;
    proxy.cut().await;
    until("it is noticed", PATIENCE, async || {
        rabbit.ready().await.is_err()
    })
    .await;
    until("it is told", PATIENCE, async || is_up() == 0).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        let asked = Instant::now();
        let why = unavailable(rabbit.put(vec![due_now(delivery(1))]).await);
        assert!(
            asked.elapsed() < Duration::from_secs(1),
            "{:?}",
            asked.elapsed()
        );
        assert!(why.contains("RabbitMQ"), "{why}");
    }
    let why = rabbit.ready().await.unwrap_err();
    assert!(why.contains(&proxy.addr().to_string()), "where? {why}");
    assert!(why.to_lowercase().contains("refused"), "why? {why}");
    proxy.accept().await;
    let took = until_ready(&rabbit).await;
    assert!(took < Duration::from_secs(8), "{took:?}");
    until("it is told", PATIENCE, async || is_up() == 1).await;
    // The receipts are of a connection that is gone: all come again.
    for taken in held {
        taken.receipt.ack();
    }
    put_patiently(&rabbit, vec![due_now(delivery(2))]).await;
    assert_eq!(event_of(&take_deliveries(&rabbit, 1).await[0]), 2);
    let again = take_events(&rabbit, 10).await;
    assert_eq!(again.len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_hangs_is_given_up() {
    let Cuttable {
        place: _place,
        proxy,
        rabbit,
    } = cuttable("?heartbeat=2").await;
    put_events(&rabbit, 0..5).await;
    take_events(&rabbit, 5)
        .await
        .into_iter()
        .for_each(|taken| taken.receipt.ack());
    proxy.stall();
    let begun = Instant::now();
    let why = unavailable(rabbit.put(vec![Parcel::Event(event(100))]).await);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}: {why}");
    until("it is noticed", PATIENCE, async || {
        rabbit.ready().await.is_err()
    })
    .await;
    proxy.flow();
    proxy.cut().await;
    put_patiently(&rabbit, vec![Parcel::Event(event(101))]).await;
    until("the new one comes", PATIENCE, async || {
        let taken = take_events(&rabbit, 1).await.remove(0);
        let number = number_of(&taken);
        taken.receipt.ack();
        number == 101
    })
    .await;
}

/// What was given to RabbitMQ and not confirmed is put again; who takes it sees it once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_whose_confirm_was_cut_off_is_handed_out_once() {
    let Cuttable {
        place,
        proxy,
        rabbit,
    } = cuttable("").await;
    let plain = place.plain().await;
    let queue = place.name("deliveries");
    // The answers are late: RabbitMQ has the message, and its confirm is on the way.
    proxy.delay(Duration::from_millis(800));
    let putting = async {
        let why = unavailable(rabbit.put(vec![due_now(delivery(1))]).await);
        assert!(!why.is_empty());
    };
    let cutting = async {
        until("RabbitMQ has it", PATIENCE, async || {
            plain.ready(&queue).await == 1
        })
        .await;
        proxy.cut().await;
    };
    tokio::join!(putting, cutting);
    proxy.delay(Duration::ZERO);
    put_patiently(&rabbit, vec![due_now(delivery(1))]).await;
    assert_eq!(plain.ready(&queue).await, 2, "it is there twice");
    // Asked for many, as the pipeline does, and again while the first is under way.
    let mut taken = rabbit.deliveries(10).await.unwrap();
    let more = tokio::time::timeout(Duration::from_millis(1500), rabbit.deliveries(10)).await;
    taken.extend(more.map_or(Vec::new(), Result::unwrap));
    assert_eq!(taken.len(), 1, "two attempts");
    let key = delivered(&taken[0]).wait_key();
    taken.remove(0).receipt.ack();
    until("the ledger knows", PATIENCE, async || {
        !place.ledger.settled(&[key]).await.unwrap()[0].is_empty()
    })
    .await;
    let more = tokio::time::timeout(Duration::from_millis(1500), rabbit.deliveries(10)).await;
    assert!(more.is_err(), "{more:?}");
    rabbit.close().await;
    until("both are settled", PATIENCE, async || {
        plain.try_size(&queue).await == Some((0, 0))
    })
    .await;
}

/// One that is under way when the connection is lost comes again by the next, and waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_is_not_handed_out_a_second_time() {
    let Cuttable {
        place,
        proxy,
        rabbit,
    } = cuttable("").await;
    rabbit
        .put(vec![due_now(delivery(1)), due_now(delivery(2))])
        .await
        .unwrap();
    let taken = take_deliveries(&rabbit, 2).await;
    proxy.cut().await;
    let plain = place.plain().await;
    until("it consumes again", PATIENCE, async || {
        let size = plain.try_size(&place.name("deliveries")).await;
        size == Some((0, 1)) && rabbit.ready().await.is_ok()
    })
    .await;
    let more = tokio::time::timeout(Duration::from_secs(1), rabbit.deliveries(10)).await;
    assert!(more.is_err(), "two attempts: {more:?}");
    let mut taken = taken.into_iter();
    let (first, second) = (taken.next().unwrap(), taken.next().unwrap());
    let expected = event_of(&second);
    first.receipt.ack();
    drop(second);
    // The one that was settled is settled, the one that was not comes again.
    assert_eq!(event_of(&take_deliveries(&rabbit, 1).await[0]), expected);
    rabbit.close().await;
    until("one is left", PATIENCE, async || {
        plain.try_size(&place.name("deliveries")).await == Some((1, 0))
    })
    .await;
}

/// A delivery that succeeds while the connection is down is not made again after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_settled_while_cut_off_does_not_come_again() {
    let Cuttable {
        place,
        proxy,
        rabbit,
    } = cuttable("").await;
    let all = (0..50).map(|n| due_now(delivery(n))).collect();
    rabbit.put(all).await.unwrap();
    let taken = take_deliveries(&rabbit, 50).await;
    proxy.refuse().await;
    proxy.cut().await;
    until("it is noticed", PATIENCE, async || {
        rabbit.ready().await.is_err()
    })
    .await;
    for (taken, n) in taken.into_iter().zip(0..) {
        let key = delivered(&taken).wait_key();
        taken.receipt.ack();
        if n % 10 == 0 {
            // What comes after is another settlement.
            until("the ledger knows", PATIENCE, async || {
                !place.ledger.settled(&[key]).await.unwrap()[0].is_empty()
            })
            .await;
        }
    }
    proxy.accept().await;
    until_ready(&rabbit).await;
    let came = tokio::time::timeout(Duration::from_secs(2), rabbit.deliveries(50)).await;
    let came: Vec<u32> = came.map_or(Vec::new(), |came| {
        came.unwrap().iter().map(event_of).collect()
    });
    assert!(came.is_empty(), "made twice: {came:?}");
}

/// What was fetched ahead when the connection was lost is of no use any more: it comes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_fetched_ahead_is_forgotten_with_its_connection() {
    let Cuttable {
        place,
        proxy,
        rabbit,
    } = cuttable("").await;
    let plain = place.plain().await;
    put_events(&rabbit, 0..300).await;
    for round in 0..4 {
        take_events(&rabbit, 1).await.remove(0).receipt.ack();
        rabbit.flush().await;
        until("all is fetched", PATIENCE, async || {
            plain.ready(&place.name("events")).await == 0
        })
        .await;
        proxy.cut().await;
        until("all is back", PATIENCE, async || {
            let (ready, consumers) = plain.try_size(&place.name("events")).await.unwrap();
            ready > 0 || consumers == 1 && rabbit.ready().await.is_ok()
        })
        .await;
        until_ready(&rabbit).await;
        let left = 299 - round;
        let taken = take_events(&rabbit, left).await;
        let mut numbers: Vec<u32> = taken.iter().map(number_of).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), left, "round {round}: some came twice");
        drop(taken);
        // They come again a second later.
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_rabbitmq_ends_begins_again() {
    let place = Place::shared().await;
    let (rabbit, plain) = (place.open().await, place.plain().await);
    put_events(&rabbit, 0..3).await;
    let held = take_events(&rabbit, 3).await;
    for round in 0..3 {
        plain.delete_queue(&place.name("events")).await;
        until("it is declared again", PATIENCE, async || {
            plain.try_size(&place.name("events")).await.is_some()
        })
        .await;
        put_patiently(&rabbit, vec![Parcel::Event(event(10 + round))]).await;
        let taken = take_events(&rabbit, 1).await.remove(0);
        assert_eq!(number_of(&taken), 10 + round);
        taken.receipt.ack();
    }
    // Receipts of a queue that is gone settle nothing, and harm nothing.
    held.into_iter().for_each(|taken| taken.receipt.ack());
    rabbit.flush().await;
    put_events(&rabbit, 20..21).await;
    assert_eq!(number_of(&take_events(&rabbit, 1).await[0]), 20);
}

/// An accepted message is one that has a queue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_queue_is_not_accepted() {
    let place = Place::shared().await;
    let (rabbit, plain) = (place.open().await, place.plain().await);
    plain.delete_queue(&place.name("dead-letters")).await;
    let letter = Parcel::Dead(dead(delivery(1), now()));
    // Together with many that have one: each is accepted or not, and none that has no queue is.
    let others = (0..50).map(|n| vec![due_now(delivery(n))]);
    let others = futures_util::future::join_all(others.map(|some| rabbit.put(some)));
    let (refused, _) = tokio::join!(rabbit.put(vec![letter.clone()]), others);
    if let Err(why) = refused {
        let why = why.to_string();
        assert!(
            why.contains("dead-letters") && why.contains("missing"),
            "{why}"
        );
    } else {
        let size = plain.try_size(&place.name("dead-letters")).await;
        assert!(
            size.is_some_and(|(ready, _)| ready > 0),
            "accepted, and nowhere"
        );
    }
}
