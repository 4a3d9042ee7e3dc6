//! The dispatcher is killed, and begun again.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carillon::adapters::rabbitmq::declared;
use carillon::codec;
use carillon::domain::id::{DeliveryId, EventId, LedgerKey, SubscriptionId, TenantId};

use super::arrivals::{Key, SUBSCRIPTIONS, TENANT, id};
use super::dispatcher::until_true;
use super::publisher::{connect, look_through, name};
use super::scene::{EVENTS, FAILING, Scene, start_redis, turn};
use crate::services::Broker;

const KILLS: usize = 3;

/// After each kill the servers say what the dead process had settled. What the receivers have
/// acknowledged beyond that was in flight; nothing else may arrive twice.
#[tokio::test(flavor = "multi_thread")]
async fn killed_three_times() {
    let _turn = turn().await;
    let (broker, redis) = tokio::join!(Broker::start(1), start_redis());
    let (urls, redis) = (broker.urls(), redis.url());
    let mut scene = Scene::new(&urls, &urls, &redis, FAILING).await;
    let mut dispatcher = scene.begin().await;
    let publishing = scene.publish();
    let mut in_flight = Vec::new();
    let mut told = Vec::new();
    for kill in 1..=KILLS {
        scene.delivered(kill as f64 / (KILLS + 1) as f64).await;
        told.push(format!("[{}]", dispatcher.metrics().await.in_flight()));
        dispatcher.kill();
        // What is on its way from the dead process's sockets still arrives.
        until_true("the receivers to be quiet", || scene.endpoints.are_quiet()).await;
        in_flight.extend(unsettled(&scene, &urls, &redis).await);
        dispatcher = scene.dispatcher().await;
    }
    let again = publishing.await.unwrap();
    let count = scene.finish(dispatcher).await;
    let more = format!(
        "{} not settled at the kills, {again} published again; before them {}",
        in_flight.len(),
        told.join(" ")
    );
    count.report("killed three times", &more);
    // Each kill has what was in flight arrive once more, and nothing else.
    assert!(count.duplicated <= in_flight.len());
    let in_flight: HashSet<Key> = in_flight.into_iter().collect();
    assert!(count.duplicates.is_subset(&in_flight));
}

/// Deliveries that are not settled: a first attempt that was acknowledged and is not in its
/// event's record; one that came back, was acknowledged, and is not in the record of its wait;
/// one that was put to wait while the record does not know yet that it was.
async fn unsettled(scene: &Scene, urls: &str, redis: &str) -> HashSet<Key> {
    let arrivals = scene.endpoints.arrivals().clone();
    let is_acknowledged = |key: &Key| arrivals.get(key).is_some_and(|one| one.acknowledged > 0);
    let client = redis::Client::open(redis).unwrap();
    let mut ledger = client.get_multiplexed_async_connection().await.unwrap();
    let tenant = TenantId::parse(TENANT).unwrap();
    let ids: Vec<_> = (0..SUBSCRIPTIONS)
        .map(|n| SubscriptionId::parse(&id(n)).unwrap())
        .collect();
    let mut unsettled = HashSet::new();

    let events: Vec<_> = (0..EVENTS)
        .map(|n| EventId::parse(&name(n)).unwrap())
        .collect();
    let keys: Vec<_> = events
        .iter()
        .map(|event| LedgerKey::of_event(&tenant, event))
        .collect();
    for (event, settled) in events.iter().zip(remembered(&mut ledger, &keys).await) {
        for (n, id) in ids.iter().enumerate() {
            let key = (n, DeliveryId::derive(&tenant, event, id).to_string());
            if is_acknowledged(&key) && !settled.contains(id.as_str()) {
                unsettled.insert(key);
            }
        }
    }

    let (mut queues, _) = declared("carillon");
    queues.retain(|queue| queue == "carillon.deliveries" || queue.contains(".wait."));
    let connection = connect(urls).await;
    let messages = look_through(&connection, &queues).await;
    let deliveries: Vec<_> = messages
        .into_iter()
        .map(|body| codec::delivery::decode(&body.into()).unwrap())
        .collect();
    let (came_from, waits): (Vec<_>, Vec<_>) = deliveries
        .iter()
        .map(|delivery| (delivery.settles(), delivery.wait_key()))
        .unzip();
    let came_from = remembered(&mut ledger, &came_from).await;
    let waits = remembered(&mut ledger, &waits).await;
    for (delivery, (from, wait)) in deliveries.iter().zip(came_from.iter().zip(waits)) {
        let id = &delivery.subscription;
        let n = ids.iter().position(|one| one == id).unwrap();
        let key = (n, delivery.id.to_string());
        let is_open = is_acknowledged(&key) && !wait.contains(id.as_str());
        if is_open || !from.contains(id.as_str()) {
            unsettled.insert(key);
        }
    }
    let _ = connection.close(200, "done".into()).await;
    unsettled
}

/// Whom the ledger remembers under each of `keys`.
async fn remembered(
    ledger: &mut redis::aio::MultiplexedConnection,
    keys: &[LedgerKey],
) -> Vec<HashSet<String>> {
    let mut found = Vec::new();
    for some in keys.chunks(500) {
        let mut ask = redis::pipe();
        for key in some {
            ask.smembers(format!("carillon:l:{}", URL_SAFE_NO_PAD.encode(key.0)));
        }
        let answers: Vec<HashSet<String>> = ask.query_async(ledger).await.unwrap();
        found.extend(answers);
    }
    found
}
