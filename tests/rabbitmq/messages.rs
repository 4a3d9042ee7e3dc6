//! What messages look like to other programs, read back with a plain client.

use lapin::types::AMQPValue;

use carillon::codec;
use carillon::domain::delivery::DeadReason;
use carillon::domain::timestamp::UnixMillis;
use carillon::ports::{EventMessage, HeaderValue, Notice, Outbox as _, Parcel};

use crate::harness::{Place, dead, delivery, due_now, event, failed, kind};
use crate::plain::{header, headers, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_published_for_all_who_listen() {
    let place = Place::shared().await;
    let (rabbit, plain) = (place.open().await, place.plain().await);
    let exchange = place.name("events");
    let mine = plain.listen(&exchange, "lookup.*").await;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let message = EventMessage {
        traceparent: Some(traceparent.to_owned()),
        headers: vec![
            ("team".to_owned(), HeaderValue::Text("blue".to_owned())),
            ("tries".to_owned(), HeaderValue::Integer(-3)),
            ("hot".to_owned(), HeaderValue::Boolean(true)),
        ],
        ..event(1)
    };
    let published = |name: &str| Parcel::Published {
        message: message.clone(),
        kind: kind(name),
    };
    rabbit
        .put(vec![published("other.thing"), published("lookup.done")])
        .await
        .unwrap();
    let found = plain.wait_for(&mine).await;
    assert_eq!(found.routing_key.as_str(), "lookup.done");
    assert_eq!(found.exchange.as_str(), exchange);
    assert_eq!(found.data, message.body);
    let properties = &found.properties;
    assert_eq!(*properties.delivery_mode(), Some(2), "persistent");
    let content_type = properties.content_type().as_ref().unwrap();
    assert_eq!(content_type.as_str(), "application/json");
    let expected = [
        ("hot", AMQPValue::Boolean(true)),
        ("team", text("blue")),
        ("traceparent", text(traceparent)),
        ("tries", AMQPValue::LongLongInt(-3)),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value));
    assert_eq!(headers(&found), expected);
    assert!(plain.get(&mine).await.is_none(), "only what it listens to");
    assert_eq!(plain.ready(&place.name("events")).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_says_what_it_is() {
    let place = Place::shared().await;
    let (rabbit, plain) = (place.open().await, place.plain().await);
    let at = UnixMillis::parse_rfc3339("2026-03-02T01:02:03.500Z").unwrap();
    let mut letter = dead(failed(failed(delivery(7))), at);
    letter.reason = DeadReason::Gone;
    rabbit
        .put(vec![Parcel::Dead(letter.clone())])
        .await
        .unwrap();
    let found = plain.wait_for(&place.name("dead-letters")).await;
    let expected = [
        ("x-carillon-attempts", AMQPValue::LongLongInt(2)),
        ("x-carillon-dead-at", text("2026-03-02T01:02:03.500Z")),
        ("x-carillon-event-id", text("evt_7")),
        ("x-carillon-event-type", text("a.b")),
        (
            "x-carillon-first-attempt-at",
            text("2026-03-01T12:30:00.000Z"),
        ),
        ("x-carillon-last-status", AMQPValue::LongLongInt(503)),
        ("x-carillon-reason", text("gone")),
        ("x-carillon-subscription", text("sub_0001")),
        ("x-carillon-tenant", text("acme")),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value));
    assert_eq!(headers(&found), expected);
    assert_eq!(*found.properties.delivery_mode(), Some(2), "persistent");
    let content_type = found.properties.content_type().as_ref().unwrap();
    assert_eq!(content_type.as_str(), "application/x-protobuf");
    let body = codec::delivery::decode(&found.data.into()).unwrap();
    assert_eq!(format!("{body:?}"), format!("{:?}", letter.delivery));

    // Of one that was never attempted there is less to say.
    rabbit
        .put(vec![Parcel::Dead(dead(delivery(8), at))])
        .await
        .unwrap();
    let found = plain.wait_for(&place.name("dead-letters")).await;
    assert_eq!(header(&found, "x-carillon-last-status"), None);
    assert_eq!(header(&found, "x-carillon-first-attempt-at"), None);
    let attempts = header(&found, "x-carillon-attempts");
    assert_eq!(attempts, Some(AMQPValue::LongLongInt(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_stands_in_its_queue_as_protobuf() {
    let place = Place::shared().await;
    let (rabbit, plain) = (place.open().await, place.plain().await);
    rabbit.put(vec![due_now(delivery(1))]).await.unwrap();
    let found = plain.wait_for(&place.name("deliveries")).await;
    assert_eq!(*found.properties.delivery_mode(), Some(2), "persistent");
    let kind = found.properties.kind().as_ref().unwrap();
    assert_eq!(kind.as_str(), "carillon.v1.Delivery");
    let body = codec::delivery::decode(&found.data.into()).unwrap();
    assert_eq!(format!("{body:?}"), format!("{:?}", delivery(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_goes_to_who_listens_and_nobody_need() {
    let place = Place::shared().await;
    let (rabbit, plain) = (place.open().await, place.plain().await);
    let notice = || {
        Parcel::Notice(Notice {
            kind: "subscription.disabled",
            body: "{\"type\":\"subscription.disabled\"}".into(),
        })
    };
    rabbit.put(vec![notice()]).await.unwrap();
    let mine = plain.listen(&place.name("notices"), "subscription.*").await;
    rabbit.put(vec![notice()]).await.unwrap();
    let found = plain.wait_for(&mine).await;
    assert_eq!(found.routing_key.as_str(), "subscription.disabled");
    assert_eq!(*found.properties.delivery_mode(), Some(2), "persistent");
    let content_type = found.properties.content_type().as_ref().unwrap();
    assert_eq!(content_type.as_str(), "application/json");
    assert!(plain.get(&mine).await.is_none());
}
