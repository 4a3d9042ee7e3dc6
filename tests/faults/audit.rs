//! The audit log's store takes nothing, hangs or goes: deliveries go on, each arrives once, and
//! each attempt is kept or counted as dropped. Afterwards attempts are kept again.

use rusqlite::Connection;
use serde_json::Value;

use super::arrivals::{Endpoints, SUBSCRIPTIONS, id};
use super::dispatcher::{Dispatcher, Variables, until, until_true};
use super::publisher::{events, name};
use super::scene::{FAILING, Scene, say, start_redis, turn};
use crate::services::Broker;

const DROPPED: &str = "carillon_audit_dropped_total";
/// More than there are.
const RING: (&str, &str) = ("CARILLON_AUDIT__PER_SUBSCRIPTION", "100000");
/// Events through a file.
const EVENTS: usize = 1500;

#[tokio::test(flavor = "multi_thread")]
async fn redis_full_then_hung_then_restarted() {
    let _turn = turn().await;
    let (broker, redis) = tokio::join!(Broker::start(1), start_redis());
    let mut scene = Scene::new(&broker.urls(), &broker.urls(), &redis.url(), FAILING).await;
    scene.set(RING.0, RING.1);
    let dispatcher = scene.begin().await;
    let publishing = scene.publish();

    scene.delivered(0.1).await;
    redis.cli(&["config", "set", "maxmemory", "1"]).await;
    scene.delivered(0.4).await;
    assert_eq!(dispatcher.readiness().await, Some(200));
    dropped_some(&dispatcher).await;
    redis.cli(&["config", "set", "maxmemory", "0"]).await;

    scene.delivered(0.5).await;
    redis.pause().await;
    scene.delivered(0.65).await;
    redis.resume().await;

    scene.delivered(0.75).await;
    redis.restart().await;
    publishing.await.unwrap();
    scene.delivered(0.95).await;
    let kept = async || kept_in_redis(&dispatcher).await;
    let told = each_is_kept_or_counted(&scene.endpoints, &dispatcher, kept).await;
    let count = scene.finish(dispatcher).await;
    count.report("audit store full, hung, restarted", &told);
    // RabbitMQ was there all the time, so nothing came again.
    assert_eq!(count.duplicated, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_takes_no_attempts() {
    let _turn = turn().await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let endpoints = Endpoints::start(FAILING).await;
    let folder = tempfile::tempdir().unwrap();
    let variables: Variables = vec![
        ("CARILLON_EGRESS__ALLOW", r#"["127.0.0.1/32"]"#.to_owned()),
        ("CARILLON_DELIVERY__RATE_LIMIT__PER_SECOND", "0".to_owned()),
        ("CARILLON_RETRY__INITIAL", "300ms".to_owned()),
        (RING.0, RING.1.to_owned()),
    ];
    let dispatcher = Dispatcher::start(folder.path(), &variables);
    dispatcher.ready().await;
    dispatcher.declare(&endpoints.declared()).await;
    let file = Connection::open(folder.path().join("carillon.db")).unwrap();
    let delivered = async |events: usize| {
        until_true("deliveries to arrive", || {
            endpoints.delivered() >= events * SUBSCRIPTIONS
        })
        .await;
    };

    dispatcher.publish(&events(0..500)).await;
    delivered(500).await;
    let refuse = "CREATE TRIGGER fault BEFORE INSERT ON attempts
        BEGIN SELECT RAISE(ABORT, 'no attempts today'); END";
    file.execute_batch(refuse).unwrap();
    dispatcher.publish(&events(500..1000)).await;
    delivered(1000).await;
    dropped_some(&dispatcher).await;
    assert_eq!(dispatcher.readiness().await, Some(200));
    file.execute_batch("DROP TRIGGER fault").unwrap();
    dispatcher.publish(&events(1000..EVENTS)).await;
    delivered(EVENTS).await;

    let count = |sql: &str| file.query_row(sql, (), |row| row.get::<_, u32>(0));
    let kept = async || count("SELECT COUNT(*) FROM attempts").unwrap() as usize;
    let told = each_is_kept_or_counted(&endpoints, &dispatcher, kept).await;
    say(&format!("a file that takes no attempts: {told}"));
    let last = name(EVENTS - 1);
    let of_last =
        format!("SELECT COUNT(DISTINCT delivery_id) FROM attempts WHERE event_id = '{last}'");
    assert_eq!(count(&of_last).unwrap() as usize, SUBSCRIPTIONS);
    until("all to be settled", async || {
        dispatcher.metrics().await.is_at_rest().then_some(())
    })
    .await;
    assert!(dispatcher.terminate().await.success());
    let arrivals = endpoints.arrivals();
    assert_eq!(arrivals.len(), EVENTS * SUBSCRIPTIONS);
    assert!(arrivals.values().all(|arrived| arrived.acknowledged == 1));
    for table in ["events", "deliveries", "dead_letters"] {
        let left = count(&format!("SELECT COUNT(*) FROM {table}")).unwrap();
        assert_eq!(left, 0, "{table}");
    }
}

async fn dropped_some(dispatcher: &Dispatcher) {
    until("attempts to be dropped", async || {
        (dispatcher.try_metrics().await?.value(DROPPED) > 0).then_some(())
    })
    .await;
}

/// Waits until what is kept and what is dropped are all attempts that were made; says how many
/// they are.
async fn each_is_kept_or_counted(
    endpoints: &Endpoints,
    dispatcher: &Dispatcher,
    kept: impl AsyncFn() -> usize,
) -> String {
    until("each attempt to be kept or counted", async || {
        let metrics = dispatcher.try_metrics().await?;
        if !metrics.is_at_rest() {
            return None;
        }
        let made: usize = endpoints.arrivals().values().map(|it| it.attempts).sum();
        let (kept, dropped) = (kept().await, metrics.value(DROPPED));
        (kept + dropped == made).then(|| format!("{made} attempts, {kept} kept, {dropped} dropped"))
    })
    .await
}

/// How many the audit log has, by the API.
async fn kept_in_redis(dispatcher: &Dispatcher) -> usize {
    let mut kept = 0;
    for n in 0..SUBSCRIPTIONS {
        let first = format!("/v1/attempts?subscription={}&limit=1000", id(n));
        let mut path = first.clone();
        loop {
            let page = dispatcher.get(&path).await;
            kept += page["items"].as_array().unwrap().len();
            match &page["next"] {
                Value::String(next) => path = format!("{first}&cursor={next}"),
                _ => break,
            }
        }
    }
    kept
}
