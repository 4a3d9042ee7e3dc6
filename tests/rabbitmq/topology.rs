//! What is declared: exactly the exchanges, queues and bindings that are documented, of the
//! right kind, and again without harm. What is there and differs is named.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};

use carillon::adapters::rabbitmq::{Conflict, RabbitError, TopologyError, declared};
use carillon::ports::{Backend as _, Outbox as _, Parcel};

use crate::harness::{
    PATIENCE, Place, delivery, due_after, event, event_of, moody_broker, put_patiently,
    take_deliveries, take_events, until,
};
use crate::plain::{table, text};
use crate::services::Broker;

/// The lines of a `rabbitmqctl list_…` that begin with `prefix`: name, and all that follows.
async fn listed(broker: &Broker, words: &[&str], prefix: &str) -> BTreeMap<String, String> {
    let output = broker.ctl(1, words).await;
    let lines = output.lines().filter(|line| line.starts_with(prefix));
    let pair = |line: &str| {
        let (name, rest) = line.split_once('\t').unwrap_or((line, ""));
        (name.to_owned(), rest.to_owned())
    };
    lines.map(pair).collect()
}

/// Each rung of the ladder waits at most a quarter longer than the one before, from 250 ms to
/// a day.
fn check_ladder(rungs: &BTreeSet<u64>) {
    let rungs: Vec<u64> = rungs.iter().copied().collect();
    assert_eq!(rungs.first(), Some(&250));
    assert_eq!(rungs.last(), Some(&86_400_000));
    for pair in rungs.windows(2) {
        assert!(pair[1] * 4 <= pair[0] * 5, "{pair:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_meant_is_declared_and_nothing_else() {
    let broker = moody_broker().await;
    let place = Place::at(&broker.url(1));
    let prefix = place.prefix.clone();
    place.open().await;
    let queues = ["list_queues", "name", "type", "durable", "arguments"];
    let exchanges = ["list_exchanges", "name", "type", "durable", "arguments"];
    let found = listed(broker, &queues, &prefix).await;
    let mut rungs = BTreeSet::new();
    let mut others = BTreeSet::new();
    for (name, rest) in &found {
        assert!(rest.starts_with("quorum\ttrue\t"), "{name}: {rest}");
        let has =
            |argument: &str| assert!(rest.contains(argument), "{name} lacks {argument}: {rest}");
        let at_least_once = || {
            has(r#"{"x-dead-letter-strategy","at-least-once"}"#);
            has(r#"{"x-overflow","reject-publish"}"#);
        };
        match name.strip_prefix(&format!("{prefix}.wait.")) {
            Some(ms) => {
                rungs.insert(ms.parse().unwrap());
                has(&format!(r#"{{"x-message-ttl",{ms}}}"#));
                has(&format!(
                    r#"{{"x-dead-letter-exchange","{prefix}.deliveries"}}"#
                ));
                at_least_once();
            }
            None if name.ends_with(".events") || name.ends_with(".deliveries") => {
                has(r#"{"x-delivery-limit",100}"#);
                has(&format!(
                    r#"{{"x-dead-letter-exchange","{prefix}.unrouted"}}"#
                ));
                at_least_once();
                others.insert(name.clone());
            }
            None => {
                // Looking counts as a delivery: thousands of looks must not lose a message.
                has(r#"{"x-delivery-limit",2000000000}"#);
                assert!(!rest.contains("x-message-ttl"), "{name}: {rest}");
                others.insert(name.clone());
            }
        }
    }
    check_ladder(&rungs);
    let named = ["dead-letters", "deliveries", "events", "quarantine"];
    assert_eq!(others, named.map(|name| place.name(name)).into());

    let found_exchanges = listed(broker, &exchanges, &prefix).await;
    let kinds = found_exchanges.iter().map(|(name, rest)| {
        let kind = rest.split('\t').next().unwrap();
        assert!(rest.starts_with(&format!("{kind}\ttrue")), "{name}: {rest}");
        let alternate = rest.contains("alternate-exchange");
        (
            name.trim_start_matches(&format!("{prefix}.")),
            kind,
            alternate,
        )
    });
    let expected = [
        ("deliveries", "topic", true),
        ("events", "topic", true),
        ("notices", "topic", false),
        ("unrouted", "fanout", false),
    ];
    assert_eq!(kinds.collect::<Vec<_>>(), expected);
    for name in ["events", "deliveries"] {
        let rest = &found_exchanges[&place.name(name)];
        assert!(rest.contains(&place.name("unrouted")), "{name}: {rest}");
    }

    let bindings = [
        "list_bindings",
        "source_name",
        "destination_name",
        "routing_key",
    ];
    let found_bindings = broker.ctl(1, &bindings).await;
    let found_bindings: BTreeSet<&str> = found_bindings
        .lines()
        .filter(|line| line.starts_with(&prefix))
        .collect();
    let line = |exchange: &str, queue: &str, key: &str| {
        format!("{}\t{}\t{key}", place.name(exchange), place.name(queue))
    };
    let expected = [
        line("deliveries", "deliveries", "#"),
        line("events", "events", "#"),
        line("unrouted", "quarantine", ""),
    ];
    assert_eq!(
        found_bindings,
        expected.iter().map(String::as_str).collect()
    );

    place.open().await.ready().await.unwrap();
    assert_eq!(listed(broker, &queues, &prefix).await, found);
    assert_eq!(listed(broker, &exchanges, &prefix).await, found_exchanges);
}

/// Opens where something differs; returns the conflict and what is told.
async fn conflict_at(place: &Place) -> (Conflict, String) {
    let begun = std::time::Instant::now();
    let refused = place.try_open(place.settings()).await;
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "waiting does not mend it"
    );
    let error = refused.map(|_| ()).unwrap_err();
    let told = error.to_string();
    match error {
        RabbitError::Topology(TopologyError::Conflict(conflict)) => (conflict, told),
        other => panic!("expected a conflict: {other}"),
    }
}

/// Each part of the conflict is there, and stands in the sentence with what to do.
async fn names(place: &Place, name: &str, argument: &str, found: &str, wanted: &str) {
    let (conflict, told) = conflict_at(place).await;
    assert_eq!(conflict.name, place.name(name), "{told}");
    assert_eq!(conflict.argument.as_deref(), Some(argument), "{told}");
    assert_eq!(conflict.found.as_deref(), Some(found), "{told}");
    assert_eq!(conflict.wanted.as_deref(), Some(wanted), "{told}");
    for part in [name, argument, found, wanted, "delete it", "broker.prefix"] {
        assert!(told.contains(part), "{part:?} is not in: {told}");
    }
}

fn rung(deliveries: &str, ttl: i64) -> FieldTable {
    table(&[
        ("x-queue-type", text("quorum")),
        ("x-dead-letter-exchange", text(deliveries)),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
        ("x-message-ttl", AMQPValue::LongLongInt(ttl)),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_with_another_time_is_a_conflict() {
    let place = Place::shared().await;
    let plain = place.plain().await;
    let arguments = rung(&place.name("deliveries"), 300);
    let (name, durable) = (place.name("wait.250"), QueueDeclareOptions::durable());
    let declared = plain.channel.queue_declare(name.into(), durable, arguments);
    declared.await.unwrap();
    names(&place, "wait.250", "x-message-ttl", "300", "250").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_classic_queue_is_a_conflict() {
    let place = Place::shared().await;
    let plain = place.plain().await;
    let (name, durable) = (place.name("events"), QueueDeclareOptions::durable());
    let declared = plain
        .channel
        .queue_declare(name.into(), durable, FieldTable::default());
    declared.await.unwrap();
    // RabbitMQ names the first argument that differs, which is the type or another.
    let (conflict, told) = conflict_at(&place).await;
    assert_eq!(conflict.name, place.name("events"), "{told}");
    assert_eq!(conflict.found.as_deref(), Some("none"), "{told}");
    for part in [
        &*place.name("events"),
        "wanted",
        "delete it",
        "broker.prefix",
    ] {
        assert!(told.contains(part), "{part:?} is not in: {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_of_another_kind_is_a_conflict() {
    let place = Place::shared().await;
    let plain = place.plain().await;
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    let name = place.name("events").into();
    let declared =
        plain
            .channel
            .exchange_declare(name, ExchangeKind::Direct, durable, FieldTable::default());
    declared.await.unwrap();
    names(&place, "events", "type", "direct", "topic").await;
}

/// What another program deletes under Carillon comes back, and nothing that was accepted is
/// lost for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_wait_queue_comes_back() {
    let place = Place::shared().await;
    let (rabbit, plain) = (place.open().await, place.plain().await);
    let waits = declared(&place.prefix).0;
    let longer_than_a_minute = |name: &&String| {
        let ms = name.rsplit_once(".wait.").map(|(_, ms)| ms.parse::<u64>());
        ms.is_some_and(|ms| ms.unwrap() >= 60_000)
    };
    let wait = waits.iter().find(longer_than_a_minute).unwrap();
    plain.delete_queue(wait).await;
    // An accepted message is one that has a queue. Made anew each time: one that is asked for
    // again and again finds a shorter wait at last.
    for n in 0..2 {
        let put = async || {
            let parcel = due_after(delivery(n), Duration::from_secs(60));
            rabbit.put(vec![parcel]).await.is_ok()
        };
        until("it is put", PATIENCE, put).await;
    }
    assert_eq!(plain.try_size(wait).await.map(|(ready, _)| ready), Some(2));
    // The shorter ones went on all the time.
    put_patiently(
        &rabbit,
        vec![due_after(delivery(2), Duration::from_millis(200))],
    )
    .await;
    assert_eq!(event_of(&take_deliveries(&rabbit, 1).await[0]), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_queue_of_events_comes_back() {
    let place = Place::shared().await;
    let (rabbit, plain) = (place.open().await, place.plain().await);
    let events = place.name("events");
    rabbit.put(vec![Parcel::Event(event(0))]).await.unwrap();
    take_events(&rabbit, 1).await.remove(0).receipt.ack();
    plain.delete_queue(&events).await;
    until("it is there and consumed", PATIENCE, async || {
        plain
            .try_size(&events)
            .await
            .is_some_and(|(_, consumers)| consumers > 0)
    })
    .await;
    put_patiently(&rabbit, vec![Parcel::Event(event(1))]).await;
    let taken = take_events(&rabbit, 1).await;
    assert_eq!(taken[0].message.body, event(1).body);
}
