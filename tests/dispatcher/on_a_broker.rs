//! What only a broker and several replicas can show.

use std::time::{Duration, Instant};

use carillon::app::Carillon;
use carillon::codec::proto;
use carillon::domain::timestamp::UnixMillis;
use futures_util::StreamExt as _;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};
use prost::Message as _;
use serde_json::{Value, json};

use crate::dispatcher::harness::{Dispatcher, event, events, ms, poll_until};
use crate::dispatcher::hooks::{Hooks, event_ids, slowly, status};
use crate::dispatcher::pacing::assert_within;

/// A client of the same RabbitMQ.
pub struct Client {
    channel: Channel,
    prefix: String,
    _connection: Connection,
}

impl Client {
    async fn of(carillon: &Dispatcher) -> Self {
        let broker = &carillon.config().broker;
        let url = broker.url.as_ref().unwrap().expose().next().unwrap();
        Self::at(url, &broker.prefix).await
    }

    /// One of the RabbitMQ at `url`, where names have this prefix.
    pub async fn at(url: &str, prefix: &str) -> Self {
        let connected = Connection::connect(url, ConnectionProperties::default()).await;
        let connection = connected.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let confirm = ConfirmSelectOptions::default();
        channel.confirm_select(confirm).await.unwrap();
        Self {
            channel,
            prefix: prefix.to_owned(),
            _connection: connection,
        }
    }

    async fn publish(&self, kind: &str, body: &[u8], properties: BasicProperties) {
        let exchange = format!("{}.events", self.prefix);
        let mandatory = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let published = self.channel.basic_publish(
            exchange.into(),
            kind.into(),
            mandatory,
            body,
            properties.with_delivery_mode(2),
        );
        let confirmed = published.await.unwrap().await.unwrap();
        assert!(confirmed.is_ack() && confirmed.take_message().is_none());
    }

    /// What comes to an exchange under a key from now on.
    pub async fn listen(&self, exchange: &str, key: &str) -> Consumer {
        let exclusive = QueueDeclareOptions::exclusive();
        let none = FieldTable::default;
        let queue = self.channel.queue_declare("".into(), exclusive, none());
        let queue = queue.await.unwrap().name().clone();
        let exchange = format!("{}.{exchange}", self.prefix);
        let bind = QueueBindOptions::default();
        let bound =
            self.channel
                .queue_bind(queue.clone(), exchange.into(), key.into(), bind, none());
        bound.await.unwrap();
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let consumer = self
            .channel
            .basic_consume(queue, "".into(), options, none());
        consumer.await.unwrap()
    }
}

async fn next(consumer: &mut Consumer) -> lapin::message::Delivery {
    let within = Duration::from_secs(30);
    let next = tokio::time::timeout(within, consumer.next()).await;
    next.expect("nothing came").unwrap().unwrap()
}

fn content_type(text: &str) -> BasicProperties {
    BasicProperties::default().with_content_type(text.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_by_the_exchange_in_every_encoding() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    carillon.api.subscribe(&hooks.url("all"), json!({})).await;
    let client = Client::of(&carillon).await;
    let kind = "demo.happened";
    let of_json = event("json").to_string();
    let plain = BasicProperties::default();
    client.publish(kind, of_json.as_bytes(), plain).await;
    let message = proto::Event {
        id: "protobuf".to_owned(),
        r#type: kind.to_owned(),
        tenant: "acme".to_owned(),
        timestamp: "2026-03-01T12:30:00Z".to_owned(),
        data: json!({ "n": "protobuf" }).to_string().into_bytes().into(),
    };
    let protobuf = content_type("application/x-protobuf");
    client
        .publish(kind, &message.encode_to_vec(), protobuf)
        .await;
    let cloud = json!({
        "specversion": "1.0", "id": "cloud", "source": "/scanner", "type": kind,
        "time": "2026-03-01T12:30:00Z", "tenant": "acme", "data": { "n": "cloud" },
    });
    let cloudevents = content_type("application/cloudevents+json; charset=utf-8");
    client
        .publish(kind, cloud.to_string().as_bytes(), cloudevents)
        .await;
    let arrived = hooks.arrived("all", 3).await;
    let mut ids = event_ids(&arrived);
    ids.sort();
    assert_eq!(ids, ["cloud", "json", "protobuf"]);
    carillon.api.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_by_the_api_are_on_the_exchange_for_others() {
    let carillon = Dispatcher::start().await;
    let client = Client::of(&carillon).await;
    let mut others = client.listen("events", "demo.*").await;
    carillon.api.publish(&event("e")).await;
    let found = next(&mut others).await;
    assert_eq!(found.routing_key.as_str(), "demo.happened");
    assert_eq!(found.properties.delivery_mode(), &Some(2));
    let body: Value = serde_json::from_slice(&found.data).unwrap();
    assert_eq!(body, event("e"));
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_tell_what_was_given_up_and_disabled() {
    let hooks = Hooks::answering(|_, _| status(410)).await;
    let carillon = Dispatcher::start().await;
    let subscribed = carillon.api.subscribe(&hooks.url("gone"), json!({})).await;
    let client = Client::of(&carillon).await;
    let mut notices = client.listen("notices", "#").await;
    carillon.api.publish(&event("e")).await;
    let mut told = Vec::new();
    for _ in 0..2 {
        let found = next(&mut notices).await;
        let notice: Value = serde_json::from_slice(&found.data).unwrap();
        assert_eq!(notice["type"], found.routing_key.as_str());
        assert_eq!(notice["data"]["subscription"], subscribed.id, "{notice}");
        assert_eq!(notice["data"]["reason"], "gone", "{notice}");
        assert_eq!(notice["data"]["tenant"], "acme", "{notice}");
        assert!(notice["timestamp"].as_str().unwrap().ends_with('Z'));
        told.push(found.routing_key.as_str().to_owned());
    }
    told.sort();
    assert_eq!(told, ["delivery.dead_lettered", "subscription.disabled"]);
    // With nobody listening a notice is no fault: the event settles all the same.
    drop(client);
    carillon.api.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_tells_what_was_discarded() {
    let hooks = Hooks::answering(|_, _| status(500)).await;
    let carillon = Dispatcher::with(|config| config.retry.schedule = Some(vec![ms(1)])).await;
    let api = &carillon.api;
    let subscribed = api.subscribe(&hooks.url("all"), json!({})).await;
    api.publish(&json!([event("a"), event("b")])).await;
    api.settled().await;
    let client = Client::of(&carillon).await;
    let mut notices = client.listen("notices", "#").await;
    let letters = api.items("/v1/dead-letters").await;
    let id = letters[1]["id"].as_str().unwrap();
    let path = format!("/v1/dead-letters/{id}");
    api.delete(&path).await.expect(204);
    api.delete(&path).await.refused(404, "not_found");
    let found = next(&mut notices).await;
    assert_eq!(found.routing_key.as_str(), "delivery.discarded");
    let notice: Value = serde_json::from_slice(&found.data).unwrap();
    assert_eq!(notice["type"], "delivery.discarded");
    assert!(notice["timestamp"].as_str().unwrap().ends_with('Z'));
    let data = &notice["data"];
    assert_eq!(data["delivery"], id);
    assert_eq!(data["subscription"], subscribed.id);
    assert_eq!(data["tenant"], "acme");
    assert_eq!(data["event_id"], letters[1]["event_id"]);
    assert_eq!(data["reason"], "exhausted");
    let none = tokio::time::timeout(ms(300), notices.next()).await;
    assert!(none.is_err(), "one alone was discarded");
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantine_shows_the_headers_that_came() {
    let carillon = Dispatcher::start().await;
    let client = Client::of(&carillon).await;
    let mut headers = FieldTable::default();
    headers.insert("x-source".into(), AMQPValue::LongString("scanner".into()));
    headers.insert("x-try".into(), AMQPValue::LongLongInt(3));
    headers.insert(
        "traceparent".into(),
        AMQPValue::LongString("00-1-2-01".into()),
    );
    let properties = BasicProperties::default().with_headers(headers);
    client.publish("demo.x", b"{", properties).await;
    let item = carillon.api.items_when("/v1/quarantine", 1).await.remove(0);
    let expected = json!({ "x-source": "scanner", "x-try": 3, "traceparent": "00-1-2-01" });
    assert_eq!(item["headers"], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_effective_on_every_replica_within_a_second() {
    let hooks = Hooks::start().await;
    let one = Dispatcher::start().await;
    let two = Carillon::start(one.config()).await.unwrap();
    let subscribed = one.api.subscribe(&hooks.url("old"), json!({})).await;
    let first: Value = (0..50).map(|n| event(&format!("early{n}"))).collect();
    one.api.publish(&first).await;
    hooks.arrived("old", 50).await;
    let to_new = json!({ "url": hooks.url("new") });
    one.api.patch(&subscribed.path(), &to_new).await.expect(200);
    let changed = Instant::now();
    // One after the other, whoever takes it, until the second is over and some more.
    let mut late = 0;
    for n in 0.. {
        let is_late = changed.elapsed() >= Duration::from_secs(1);
        let name = format!("{}{n}", if is_late { "late" } else { "between" });
        one.api.publish(&event(&name)).await;
        poll_until("its arrival", async || {
            let count = hooks.seen("old").len() + hooks.seen("new").len();
            (count > 50 + n).then_some(())
        })
        .await;
        late += usize::from(is_late);
        if late == 30 {
            break;
        }
    }
    let old = event_ids(&hooks.seen("old"));
    assert!(!old.iter().any(|id| id.starts_with("late")), "{old:?}");
    assert!(two.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_come_and_go_and_nothing_is_lost_or_repeated() {
    let hooks = Hooks::start().await;
    let one = Dispatcher::start().await;
    one.api.subscribe(&hooks.url("all"), json!({})).await;
    let (first, rest) = (events(600), events(1200));
    one.api.publish(&first).await;
    let two = Carillon::start(one.config()).await.unwrap();
    let rest = Value::from(rest.as_array().unwrap()[600..].to_vec());
    one.api.publish(&rest).await;
    let three = Carillon::start(one.config()).await.unwrap();
    assert!(two.stop().await);
    hooks.arrived("all", 1200).await;
    one.api.settled().await;
    assert!(three.stop().await);
    let mut ids = event_ids(&hooks.seen("all"));
    assert_eq!(ids.len(), 1200, "none twice");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 1200, "none lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_often_is_delivered_once_whoever_takes_it() {
    let hooks = Hooks::answering(|_, _| slowly(200, ms(50))).await;
    let one = Dispatcher::with(|config| config.intake.prefetch = 20).await;
    one.api.subscribe(&hooks.url("all"), json!({})).await;
    let two = Carillon::start(one.config()).await.unwrap();
    // Copies stand far enough apart to be taken by both.
    for _ in 0..6 {
        one.api.publish(&events(60)).await;
    }
    hooks.arrived("all", 60).await;
    one.api.settled().await;
    let mut ids = event_ids(&hooks.seen("all"));
    assert_eq!(ids.len(), 60, "none twice");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 60, "none lost");
    assert!(two.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_keep_one_rate_and_waiting_uses_no_attempt() {
    const EVENTS: usize = 150;
    const RATE: u32 = 20;
    const BURST: u32 = 5;
    let hooks = Hooks::start().await;
    let one = Dispatcher::start().await;
    let limit = json!({ "rate_limit": { "per_second": RATE, "burst": BURST } });
    one.api.subscribe(&hooks.url("slow"), limit).await;
    let two = Carillon::start(one.config()).await.unwrap();
    let three = Carillon::start(one.config()).await.unwrap();
    one.api.publish(&events(EVENTS)).await;
    let seen = hooks.arrived("slow", EVENTS).await;
    one.api.settled().await;
    assert!(two.stop().await && three.stop().await);
    let mut ids = event_ids(&hooks.seen("slow"));
    assert_eq!(ids.len(), EVENTS, "each once");
    ids.dedup();
    assert_eq!(ids.len(), EVENTS);
    let mut arrivals: Vec<UnixMillis> = seen.iter().map(|received| received.at).collect();
    arrivals.sort_unstable();
    assert_within(&arrivals, RATE, BURST);
    let attempts = one.api.items("/v1/attempts?limit=1000").await;
    assert!(attempts.iter().all(|attempt| attempt["attempt"] == 1));
    assert!(
        attempts
            .iter()
            .all(|attempt| attempt["outcome"] == "delivered")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_what_it_depends_on() {
    let carillon = Dispatcher::start().await;
    for name in ["rabbitmq", "redis"] {
        let series = format!("carillon_dependency_up{{name=\"{name}\"}}");
        poll_until(name, async || {
            (carillon.api.metric(&series).await > 0.0).then_some(())
        })
        .await;
    }
    assert_eq!(carillon.api.metric("carillon_broker_blocked").await, 0.0);
    assert_eq!(carillon.api.ops("/readyz").await.0, 200);
}
