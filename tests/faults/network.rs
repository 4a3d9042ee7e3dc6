//! Connections are cut and stalled, to RabbitMQ and to Redis.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::arrivals::SUBSCRIPTIONS;
use super::scene::{FAILING, PREFETCH, Scene, WINDOWS, start_redis, turn};
use crate::services::{Broker, Proxy};

/// Shorter than the heartbeats to RabbitMQ bear, longer than Redis may take to answer.
const STALL: Duration = Duration::from_secs(4);
/// After a cut of RabbitMQ alone, due deliveries that are taken come again and wait for
/// themselves, and what was being put to wait may be there twice. The ledger tells them apart,
/// unless it is cut off in its turn.
const PER_LOSS_OF_RABBITMQ: usize = PREFETCH + WINDOWS;
/// With the ledger gone at the same time, all that is taken and not settled may come again: the
/// deliveries of the events, and those that are due.
const PER_LOSS_OF_BOTH: usize = PREFETCH * SUBSCRIPTIONS + PREFETCH;

#[tokio::test(flavor = "multi_thread")]
async fn connections_cut_and_stalled() {
    let _turn = turn().await;
    let (broker, redis) = tokio::join!(Broker::start(1), start_redis());
    let to_broker = Proxy::start(address(&broker.urls())).await;
    let to_redis = Proxy::start(address(&redis.url())).await;
    let by_proxy = |url: &str, proxy: &Proxy| {
        url.replace(&address(url).to_string(), &proxy.addr().to_string())
    };
    let broker_url = by_proxy(&broker.urls(), &to_broker);
    let redis_url = by_proxy(&redis.url(), &to_redis);
    let mut scene = Scene::new(&broker_url, &broker.urls(), &redis_url, FAILING).await;
    let dispatcher = scene.begin().await;
    let publishing = scene.publish();
    let mut told = Vec::new();
    for (share, broker_too, redis_too) in [
        (0.15, true, false),
        (0.3, false, true),
        (0.4, true, false),
        (0.5, true, true),
        (0.6, false, true),
    ] {
        scene.delivered(share).await;
        told.push(format!("[{}]", dispatcher.metrics().await.in_flight()));
        if broker_too {
            to_broker.cut().await;
        }
        if redis_too {
            to_redis.cut().await;
        }
    }
    scene.delivered(0.75).await;
    told.push(format!("[{}]", dispatcher.metrics().await.in_flight()));
    to_broker.stall();
    to_redis.stall();
    let end_of_stall = Instant::now() + STALL;
    let scraped = tokio::time::timeout(STALL, dispatcher.try_metrics()).await;
    assert!(
        scraped.is_ok_and(|scraped| scraped.is_some()),
        "/metrics hangs"
    );
    // This is the fault itself, and no waiting for something.
    tokio::time::sleep_until(end_of_stall).await;
    to_broker.flow();
    to_redis.flow();
    let again = publishing.await.unwrap();
    let count = scene.finish(dispatcher).await;
    let more = format!(
        "{again} published again; before the faults {}",
        told.join(" ")
    );
    count.report("connections cut and stalled", &more);
    // Two cuts of RabbitMQ alone, and one of both. Without a loss of RabbitMQ nothing comes
    // again, so Redis alone adds nothing, and the stall loses no connection to RabbitMQ.
    let most = 2 * PER_LOSS_OF_RABBITMQ + PER_LOSS_OF_BOTH;
    assert!(count.duplicated <= most, "{} of {most}", count.duplicated);
}

/// The host and port of a URL such as `amqp://guest:guest@127.0.0.1:5672/%2f`.
fn address(url: &str) -> SocketAddr {
    let rest = url.split_once("://").unwrap().1;
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    rest.split('/').next().unwrap().parse().unwrap()
}
