//! Messages that cannot be understood, among those that can.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::Value;

use super::dispatcher::{until, until_true};
use super::publisher::{Message, Publisher, connect, events, name, ready_in};
use super::scene::{Scene, say, start_redis, turn_alone};
use crate::services::Broker;

const GOOD: usize = 10_000;
const POISON: usize = 10_000;
/// Over the default of `intake.max_event_bytes`.
const TOO_LARGE_BYTES: usize = 1024 * 1024 + 1;
/// No delivery fails: retries would measure their delays.
const FAILING: u64 = u64::MAX;
/// A consumer of a quorum queue has at most so many at a time.
const PREFETCH_MAX: u16 = 2000;

#[tokio::test(flavor = "multi_thread")]
async fn poison_among_good_events() {
    let _turn = turn_alone().await;
    let (broker, redis) = tokio::join!(Broker::start(1), start_redis());
    let urls = broker.urls();
    let scene = Scene::new(&urls, &urls, &redis.url(), FAILING).await;
    let dispatcher = scene.dispatcher().await;
    dispatcher.declare(&scene.endpoints.declared()[..1]).await;
    assert!(dispatcher.terminate().await.success());

    let clean = through(&scene, &urls, &events(0..GOOD)).await;
    let good = events(GOOD..2 * GOOD);
    let poison = (0..POISON).map(poison);
    let mixed: Vec<Message> = good
        .into_iter()
        .zip(poison)
        .flat_map(|(good, poison)| [poison, good])
        .collect();
    let among_poison = through(&scene, &urls, &mixed).await;

    let reasons = reasons(&urls).await;
    let (clean_s, mixed_s) = (clean.as_secs_f64(), among_poison.as_secs_f64());
    say(&format!(
        "poison: {GOOD} good events alone {clean_s:.1} s, among {POISON} poisonous ones {mixed_s:.1} s; in quarantine {reasons:?}"
    ));
    assert_eq!(reasons.values().sum::<usize>(), POISON);
    for reason in [
        "malformed",
        "missing_field",
        "invalid_field",
        "unsupported_content_type",
        "too_large",
    ] {
        assert!(reasons.contains_key(reason), "{reason}");
    }
    // What it costs is said above, and depends on what else the machine does (1.2 to 1.5 times as
    // long on an idle one). Here it matters that no poison holds up what is behind it.
    assert!(
        mixed_s <= 10.0 * clean_s,
        "{mixed_s} s instead of {clean_s} s"
    );
    let arrivals = scene.endpoints.arrivals();
    assert_eq!(arrivals.len(), 2 * GOOD);
    assert!(
        arrivals.values().all(|one| one.attempts == 1),
        "each arrives once"
    );
}

/// Has a dispatcher deliver these, all of which are there when it begins. Returns how long
/// the good ones took, from the first that arrived to the last.
async fn through(scene: &Scene, urls: &str, messages: &[Message]) -> Duration {
    let before = scene.endpoints.delivered();
    assert_eq!(Publisher::new(urls).publish(messages).await, 0);
    let dispatcher = scene.dispatcher().await;
    let delivered = |count| move || scene.endpoints.delivered() >= before + count;
    until_true("the first to arrive", delivered(1)).await;
    let begun = Instant::now();
    until_true("the good ones to arrive", delivered(GOOD)).await;
    let took = begun.elapsed();
    until("the queues to be empty", async || {
        dispatcher.metrics().await.is_at_rest().then_some(())
    })
    .await;
    let bad = messages.len() - GOOD;
    assert_eq!(dispatcher.metrics().await.queue("quarantine"), bad);
    if bad > 0 {
        let shown = dispatcher.get("/v1/quarantine?limit=100").await;
        let shown = shown["items"].as_array().unwrap();
        assert_eq!(shown.len(), 100);
        let explained = |item: &Value| {
            let has = |field: &str| item[field].as_str().is_some_and(|text| !text.is_empty());
            has("reason") && has("error") && has("quarantined_at")
        };
        assert!(shown.iter().all(explained), "{shown:?}");
    }
    assert!(dispatcher.terminate().await.success());
    took
}

fn poison(n: usize) -> Message {
    let whole = r#""type": "scan.finished", "timestamp": "2026-03-01T12:30:00Z", "data": {}"#;
    let (content_type, body) = match (n, n % 4) {
        (0, _) => (None, " ".repeat(TOO_LARGE_BYTES)),
        (_, 0) => (None, format!("{} is not JSON", name(n))),
        (_, 1) => (None, format!(r#"{{"id": "{}", {whole}}}"#, name(n))),
        (_, 2) => (None, format!(r#"{{"id": {n}, "tenant": "acme", {whole}}}"#)),
        _ => (Some("text/csv"), name(n)),
    };
    Message {
        kind: "scan.finished".to_owned(),
        content_type,
        body: body.into_bytes(),
    }
}

/// How many messages are in quarantine for each reason. Each says why and since when.
async fn reasons(urls: &str) -> HashMap<String, usize> {
    let connection = connect(urls).await;
    let channel = connection.create_channel().await.unwrap();
    let queue = "carillon.quarantine";
    let left = ready_in(&channel, queue).await;
    let each = BasicQosOptions { global: false };
    channel.basic_qos(PREFETCH_MAX, each).await.unwrap();
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let consumer = channel.basic_consume(queue.into(), "".into(), options, none);
    let mut consumer = consumer.await.unwrap();
    let mut reasons = HashMap::new();
    let mut ids = HashSet::new();
    for _ in 0..left {
        let message = consumer.next().await.unwrap().unwrap();
        let headers = message.properties.headers().clone().unwrap();
        let text = |name: &str| match headers.inner().get(name) {
            Some(AMQPValue::LongString(text)) => text.to_string(),
            other => panic!("{name}: {other:?}"),
        };
        assert!(!text("x-carillon-error").is_empty());
        assert!(text("x-carillon-quarantined-at").starts_with("20"));
        *reasons.entry(text("x-carillon-reason")).or_default() += 1;
        ids.insert(message.properties.message_id().clone());
        message.acker.ack(Default::default()).await.unwrap();
    }
    assert_eq!(ids.len(), left, "each has a name of its own");
    reasons
}
