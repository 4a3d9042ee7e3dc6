//! The quarantine: poison keeps its bytes and headers, and what RabbitMQ puts there has a
//! reason too.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lapin::options::BasicNackOptions;
use lapin::types::{AMQPValue, FieldArray, FieldTable};

use carillon::adapters::rabbitmq::Rabbit;
use carillon::domain::event::{EventFault, FaultReason};
use carillon::ports::{
    EventMessage, HeaderValue, Outbox as _, Parcel, QuarantineQueue as _, Quarantined,
};

use crate::harness::{
    PATIENCE, Place, delivery, due_now, event, event_of, now, number_of, put_events, put_patiently,
    take_deliveries, take_events, until,
};
use crate::plain::{Plain, header, headers, table, text, with_headers};

/// Takes one event and puts it into quarantine, as the pipeline does.
async fn put_aside(rabbit: &Rabbit) -> EventMessage {
    let taken = take_events(rabbit, 1).await.remove(0);
    let parcel = Parcel::Quarantine(Quarantined {
        message: taken.message.clone(),
        fault: EventFault::missing("tenant", "the account"),
        at: now(),
    });
    rabbit.put(vec![parcel]).await.unwrap();
    taken.receipt.ack();
    taken.message
}

async fn quarantined(rabbit: &Rabbit) -> Vec<(String, Quarantined)> {
    rabbit.list(100).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_keeps_its_bytes_and_headers() {
    let place = Place::shared().await;
    let (rabbit, plain) = (place.open().await, place.plain().await);
    let nested = table(&[("name", text("inner")), ("n", AMQPValue::LongInt(5))]);
    let way = table(&[
        ("queue", text("elsewhere")),
        ("count", AMQPValue::LongLongInt(3)),
    ]);
    let ways = FieldArray::from(vec![AMQPValue::FieldTable(way)]);
    let properties = with_headers(&[
        ("team", text("blue")),
        ("tries", AMQPValue::LongInt(-7)),
        ("hot", AMQPValue::Boolean(true)),
        ("share", AMQPValue::Double(0.5)),
        ("nested", AMQPValue::FieldTable(nested)),
        ("x-death", AMQPValue::FieldArray(ways)),
        ("x-first-death-queue", text("elsewhere")),
        ("x-last-death-reason", text("expired")),
    ])
    .with_content_type("application/json".into());
    let exchange = place.name("events");
    plain
        .publish(&exchange, "some.key", properties, b"\xff not JSON")
        .await;
    put_aside(&rabbit).await;

    let found = plain.wait_for(&place.name("quarantine")).await;
    assert_eq!(found.data, b"\xff not JSON");
    assert_eq!(*found.properties.delivery_mode(), Some(2), "persistent");
    let content_type = found.properties.content_type().as_ref().unwrap();
    assert_eq!(content_type.as_str(), "application/json");
    assert_eq!(header(&found, "team"), Some(text("blue")));
    assert_eq!(header(&found, "tries"), Some(AMQPValue::LongLongInt(-7)));
    assert_eq!(header(&found, "hot"), Some(AMQPValue::Boolean(true)));
    assert_eq!(
        header(&found, "x-carillon-reason"),
        Some(text("missing_field"))
    );
    let Some(AMQPValue::LongString(error)) = header(&found, "x-carillon-error") else {
        panic!("{:?}", headers(&found));
    };
    assert!(
        error.to_string().contains("`tenant` is missing"),
        "{error:?}"
    );
    let at = header(&found, "x-carillon-quarantined-at");
    assert!(
        matches!(&at, Some(AMQPValue::LongString(at)) if at.to_string().ends_with('Z')),
        "{at:?}"
    );
    // What has no counterpart is kept as text that a person can read.
    for (name, part) in [("share", "0.5"), ("nested", "inner"), ("nested", "name")] {
        let Some(AMQPValue::LongString(kept)) = header(&found, name) else {
            panic!("`{name}` is gone: {:?}", headers(&found));
        };
        let kept = kept.to_string();
        assert!(kept.contains(part), "{part} is not in {name}: {kept}");
    }
    for (name, _) in headers(&found) {
        assert!(!name.contains("-death"), "{name} travels on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_headers_are_there_again_when_it_is_requeued() {
    let place = Place::shared().await;
    let (rabbit, plain) = (place.open().await, place.plain().await);
    let properties = with_headers(&[("team", text("blue")), ("tries", AMQPValue::LongInt(7))]);
    plain
        .publish(&place.name("events"), "k", properties, b"{}")
        .await;
    let sent = put_aside(&rabbit).await;
    let listed = quarantined(&rabbit).await;
    assert_eq!(listed.len(), 1);
    let (id, found) = &listed[0];
    assert_eq!(found.message, sent);
    assert_eq!(found.fault.reason, FaultReason::MissingField);
    assert_eq!(found.fault.field.as_deref(), Some("tenant"));
    assert!(rabbit.requeue(id).await.unwrap());
    let again = take_events(&rabbit, 1).await.remove(0);
    assert_eq!(again.message, sent);
    let tries = ("tries".to_owned(), HeaderValue::Integer(7));
    assert!(again.message.headers.contains(&tries), "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_queue_wants_is_unroutable() {
    let place = Place::shared().await;
    let (rabbit, plain) = (place.open().await, place.plain().await);
    let events = place.name("events");
    let unbound = plain.channel.queue_unbind(
        events.as_str().into(),
        events.as_str().into(),
        "#".into(),
        FieldTable::default(),
    );
    unbound.await.unwrap();
    plain
        .publish(
            &events,
            "a.b",
            with_headers(&[("team", text("blue"))]),
            &event(3).body,
        )
        .await;
    let listed = quarantined(&rabbit).await;
    let (id, found) = &listed[0];
    assert_eq!(found.fault.reason, FaultReason::Unroutable);
    assert!(
        found.fault.sentence.contains("requeue it"),
        "{:?}",
        found.fault
    );
    assert_eq!(found.message.body, event(3).body);
    assert!(rabbit.requeue(id).await.unwrap());
    assert_eq!(number_of(&take_events(&rabbit, 1).await[0]), 3);
    assert!(quarantined(&rabbit).await.is_empty());
}

/// Takes the first message of a queue again and again, until it does not come any more. Returns
/// how often it came.
async fn refuse_for_ever(plain: &Plain, queue: &str) -> u32 {
    let mut consumer = plain.consume(queue, 1).await;
    let mut count = 0;
    loop {
        let next = tokio::time::timeout(Duration::from_secs(3), consumer.next()).await;
        let Ok(found) = next else { return count };
        count += 1;
        let again = BasicNackOptions {
            requeue: true,
            multiple: false,
        };
        found.unwrap().unwrap().acker.nack(again).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_never_settled_is_put_aside() {
    let place = Place::shared().await;
    let (rabbit, plain) = (place.open().await, place.plain().await);
    rabbit
        .put(vec![Parcel::Event(event(4)), due_now(delivery(5))])
        .await
        .unwrap();
    let other = place.plain().await;
    let (events, deliveries) = (place.name("events"), place.name("deliveries"));
    let counts = tokio::join!(
        refuse_for_ever(&plain, &events),
        refuse_for_ever(&other, &deliveries)
    );
    assert_eq!(counts, (101, 101));
    until("both are there", PATIENCE, async || {
        plain.ready(&place.name("quarantine")).await == 2
    })
    .await;
    let listed = quarantined(&rabbit).await;
    for (_, found) in &listed {
        assert_eq!(found.fault.reason, FaultReason::DeliveryLimit);
        assert!(
            found.fault.sentence.contains("requeue it"),
            "{:?}",
            found.fault
        );
    }
    // Each goes back to where it came from, and can be handed out as often again.
    drop((plain, other));
    for (id, _) in &listed {
        assert!(rabbit.requeue(id).await.unwrap());
    }
    let event = take_events(&rabbit, 1).await.remove(0);
    assert_eq!(number_of(&event), 4);
    assert_eq!(event.message.headers, [], "nothing of its way");
    assert_eq!(event_of(&take_deliveries(&rabbit, 1).await[0]), 5);
}

/// Headers that fill a frame leave no room for a reason beside them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_with_huge_headers_does_not_block() {
    let place = Place::shared().await;
    let (rabbit, plain) = (place.open().await, place.plain().await);
    let names: Vec<String> = (0..13).map(|n| format!("filler-{n}")).collect();
    let filler = text(&"x".repeat(10_000));
    let many: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), filler.clone()))
        .collect();
    let numbers = (0..8000).map(AMQPValue::LongInt).collect::<Vec<_>>();
    let array = AMQPValue::FieldArray(FieldArray::from(numbers));
    for headers in [&many[..], &[("array", array)]] {
        plain
            .publish(
                &place.name("events"),
                "k",
                with_headers(headers),
                b"not JSON",
            )
            .await;
    }
    for _ in 0..2 {
        let taken = take_events(&rabbit, 1).await.remove(0);
        let poison = Parcel::Quarantine(Quarantined {
            message: taken.message.clone(),
            fault: EventFault::whole(FaultReason::Malformed, "no JSON".repeat(100)),
            at: now(),
        });
        let begun = Instant::now();
        put_patiently(&rabbit, vec![poison]).await;
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
        // The rest of a fan-out has a header more as well.
        let rest = EventMessage {
            resume_after: Some(crate::harness::subscription_id(500)),
            ..taken.message.clone()
        };
        put_patiently(&rabbit, vec![Parcel::Event(rest)]).await;
        taken.receipt.ack();
        take_events(&rabbit, 1).await.remove(0).receipt.ack();
    }
    put_events(&rabbit, 0..1).await;
    let listed = quarantined(&rabbit).await;
    assert_eq!(listed.len(), 2);
    for (_, found) in listed {
        assert_eq!(found.fault.reason, FaultReason::Malformed);
        assert_eq!(found.message.body, "not JSON");
    }
}
