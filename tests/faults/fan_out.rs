//! An event that very many want, and the events of others beside it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use carillon::cli::receiver::{Behaviour, Received, Receiver, ReceiverSettings, Reply};
use http::StatusCode;
use serde_json::{Value, json};

use super::dispatcher::{Dispatcher, until_true};
use super::publisher::{Publisher, event};
use super::scene::{Scene, say, start_redis, turn_alone};
use crate::services::Broker;

/// Who wants the one event.
const WIDE: usize = 20_000;
/// The most that are declared by one call.
const DECLARED_MAX: usize = 10_000;
const NEIGHBOURS: usize = 5;
/// How often one of the neighbours has an event.
const EVERY: Duration = Duration::from_millis(20);
/// How many events of theirs there are in the idle run.
const IDLE_EVENTS: usize = 500;
/// Twice what was measured, without optimization.
const PEAK_BYTES_MAX: usize = 360 * 1024 * 1024;
/// The most deliveries of the many that one of a neighbour waits for: one and a half times the
/// default of `plan.chunk` are in flight, and it shares the machine with them.
const AHEAD_MAX: usize = 4 * 500;

/// What arrived: how often at each path of the many, and when each event of the neighbours.
#[derive(Default)]
struct Seen {
    wide: HashMap<String, usize>,
    near: HashMap<usize, Instant>,
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_for_twenty_thousand() {
    let _turn = turn_alone().await;
    let (broker, redis) = tokio::join!(Broker::start(1), start_redis());
    let urls = broker.urls();
    let scene = Scene::new(&urls, &urls, &redis.url(), u64::MAX).await;
    let dispatcher = scene.dispatcher().await;
    let seen = Arc::<Mutex<Seen>>::default();
    let receiver = receiver(&seen).await;
    declare(&dispatcher, &receiver.url()).await;

    let wide = || seen.lock().unwrap().wide.len();
    let idle = neighbours(&urls, &seen, 0, |sent| sent < IDLE_EVENTS).await;
    let begun = Instant::now();
    let one = event("wide", "for-all", 0);
    assert_eq!(Publisher::new(&urls).publish(&[one]).await, 0);
    let beside = neighbours(&urls, &seen, IDLE_EVENTS, |_| wide() < WIDE).await;
    until_true("all to be served", || wide() == WIDE).await;
    let took = begun.elapsed();
    until_true("the receiver to be quiet", || {
        receiver.counts().in_flight == 0
    })
    .await;
    super::dispatcher::until("the queues to be empty", async || {
        dispatcher.metrics().await.is_at_rest().then_some(())
    })
    .await;
    let peak = dispatcher.peak_bytes();
    let (count, longest) = (beside.len(), *beside.last().unwrap());
    say(&format!(
        "fan-out: {WIDE} deliveries of one event in {:.1} s, peak memory {} MiB; neighbours idle p99 {:?}, beside it p99 {:?}, longest {longest:?} of {count}",
        took.as_secs_f64(),
        peak / (1024 * 1024),
        p99(&idle),
        p99(&beside),
    ));
    assert!(dispatcher.terminate().await.success());
    let seen = seen.lock().unwrap();
    assert_eq!(seen.wide.len(), WIDE);
    assert!(
        seen.wide.values().all(|times| *times == 1),
        "each is served once"
    );
    assert!(peak < PEAK_BYTES_MAX, "{peak} bytes");
    let most = took.mul_f64(AHEAD_MAX as f64 / WIDE as f64);
    assert!(longest < most, "{longest:?} of {most:?}");
}

async fn receiver(seen: &Arc<Mutex<Seen>>) -> Receiver {
    let seen = Arc::clone(seen);
    let behaviour = Behaviour::scripted(move |received: &Received| {
        let now = Instant::now();
        let mut seen = seen.lock().unwrap();
        if received.path.starts_with("/wide") {
            *seen.wide.entry(received.path.clone()).or_default() += 1;
        } else {
            let body: Value = serde_json::from_slice(&received.body).unwrap();
            let n = body["data"]["n"].as_u64().unwrap() as usize;
            seen.near.entry(n).or_insert(now);
        }
        Reply::status(StatusCode::OK)
    });
    let settings = ReceiverSettings {
        behaviour,
        ..ReceiverSettings::default()
    };
    Receiver::start(settings).await.unwrap()
}

/// The many of one tenant, spread over three paths, and one of each neighbour.
async fn declare(dispatcher: &Dispatcher, url: &str) {
    let near = |n| json!({ "tenant": format!("near{n}"), "url": format!("{url}/near/{n}") });
    let near: Vec<Value> = (0..NEIGHBOURS).map(near).collect();
    dispatcher.declare(&near).await;
    let wide = |n| json!({ "tenant": "wide", "url": format!("{url}/wide/{}?n={n}", n % 3) });
    let wide: Vec<Value> = (0..WIDE).map(wide).collect();
    for some in wide.chunks(DECLARED_MAX) {
        let answer = dispatcher.declare(some).await;
        assert_eq!(answer["items"].as_array().unwrap().len(), some.len());
    }
}

/// Publishes events of the neighbours, one after the other, as long as `more` says. Returns
/// how long each took from publishing to its arrival, in order of length.
async fn neighbours(
    urls: &str,
    seen: &Mutex<Seen>,
    from: usize,
    more: impl Fn(usize) -> bool,
) -> Vec<Duration> {
    let mut publisher = Publisher::new(urls);
    let mut published = Vec::new();
    let mut ticks = tokio::time::interval(EVERY);
    while more(published.len()) {
        ticks.tick().await;
        let n = from + published.len();
        let tenant = format!("near{}", n % NEIGHBOURS);
        let message = event(&tenant, &format!("n{n}"), n);
        published.push((n, Instant::now()));
        publisher.publish(&[message]).await;
    }
    let arrived = |n: &usize| seen.lock().unwrap().near.get(n).copied();
    let all = || published.iter().all(|(n, _)| arrived(n).is_some());
    until_true("the events of neighbours to arrive", all).await;
    let mut took: Vec<Duration> = published
        .iter()
        .map(|(n, at)| arrived(n).unwrap().duration_since(*at))
        .collect();
    took.sort_unstable();
    took
}

fn p99(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() * 99 / 100]
}
