//! The forms of `redis.url`: a cluster, sentinels, TLS.

use std::time::Duration;

use carillon::adapters::redis::{OpenError, Redis};
use carillon::domain::timestamp::UnixMillis;
use carillon::ports::{
    AttemptQuery, AuditLog as _, Backend as _, EndpointHealth as _, Ledger as _, SharedRates as _,
    SubscriptionStore as _,
};

use crate::changes::Heard;
use crate::harness::{
    PATIENCE, PROMPT, attempt, descriptions, id, key, open, open_with, scope, settings,
    subscription, unavailable, until, until_readable,
};
use crate::rates::a_hundred;
use crate::services::{RedisCluster, RedisSentinel, RedisServer};

/// A little of everything.
async fn everything_works(one: &Redis, two: &Redis) {
    let acme = scope("acme");
    let heard = Heard::by(two);
    // Not marked yet; from here on it is told of changes.
    unavailable(two.of_scope(&acme).await);
    one.put(subscription("acme", 1, "a"), None).await.unwrap();
    until("the other hears", PROMPT, async || heard.has("acme")).await;
    assert_eq!(descriptions(&two.of_scope(&acme).await.unwrap()), ["a"]);
    one.put_all(vec![
        subscription("acme", 1, "b"),
        subscription("*", 2, "c"),
    ])
    .await
    .unwrap();
    assert_eq!(
        descriptions(&two.list(None, None, 10).await.unwrap()),
        ["b", "c"]
    );
    assert!(one.delete(&id(2), None).await.unwrap());

    let records = (0..300).map(|n| (key(n % 30), id(n))).collect();
    one.record(records).await.unwrap();
    let keys: Vec<_> = (0..30).map(key).collect();
    let settled = two.settled(&keys).await.unwrap();
    assert!(settled.iter().all(|settled| settled.len() == 10));

    for n in 0..100 {
        one.append(attempt(n % 40, n, n));
    }
    one.flush().await;
    let query = AttemptQuery {
        limit: 20,
        ..AttemptQuery::default()
    };
    let found = two.attempts(&query).await.unwrap();
    let numbers: Vec<_> = found.iter().map(|(_, attempt)| attempt.number).collect();
    assert_eq!(numbers, (80..100).rev().collect::<Vec<_>>());
    two.ready().await.unwrap();
    rates_and_health_work(one, two).await;
}

/// Subscription 1 is there.
async fn rates_and_health_work(one: &Redis, two: &Redis) {
    a_hundred(one, two).await;
    until("each counts both", PATIENCE, async || {
        one.replicas() == 2 && two.replicas() == 2
    })
    .await;

    let (first, later) = (UnixMillis(1000), UnixMillis(2000));
    assert_eq!(one.failed(&id(1), first).await.unwrap(), first);
    assert_eq!(two.failed(&id(1), later).await.unwrap(), first);
    let successes: Vec<_> = (2..2000).map(|n| (id(n), later)).collect();
    one.succeeded(&successes).await.unwrap();
    assert_eq!(one.failing().await.unwrap(), [(id(1), first)]);
    assert!(two.delete(&id(1), None).await.unwrap());
    assert_eq!(one.failing().await.unwrap(), []);
}

#[tokio::test]
async fn a_cluster_works() {
    let cluster = RedisCluster::start(3).await;
    let (one, two) = (
        open(&cluster.url(), "c").await,
        open(&cluster.url(), "c").await,
    );
    everything_works(&one, &two).await;
    // The keys are spread: each node has some.
    for node in 1..=3 {
        let size = cluster.cli(node, &["dbsize"]).await;
        assert_ne!(size, "0", "node {node}");
    }
}

#[tokio::test]
async fn a_cluster_of_one_works() {
    let cluster = RedisCluster::start(1).await;
    let (one, two) = (
        open(&cluster.url(), "c").await,
        open(&cluster.url(), "c").await,
    );
    everything_works(&one, &two).await;
}

#[tokio::test]
async fn a_cluster_comes_back() {
    let cluster = RedisCluster::start(3).await;
    let redis = open(&cluster.url(), "c").await;
    redis.put(subscription("acme", 1, "a"), None).await.unwrap();
    for node in 1..=3 {
        cluster.kill(node).await;
        cluster.restart(node).await;
        until("all nodes answer", 2 * PATIENCE, async || {
            let records = (0..30).map(|n| (key(n), id(n))).collect();
            redis.record(records).await.is_ok() && redis.get(&id(1)).await.is_ok()
        })
        .await;
    }
}

#[tokio::test]
async fn a_master_behind_a_sentinel_works() {
    let sentinel = RedisSentinel::start().await;
    let (one, two) = (
        open(&sentinel.url(), "c").await,
        open(&sentinel.url(), "c").await,
    );
    everything_works(&one, &two).await;
    sentinel.kill_master().await;
    until("it is noticed", PATIENCE, async || {
        one.get(&id(1)).await.is_err()
    })
    .await;
    sentinel.restart_master().await;
    until_readable(&one).await;
}

#[tokio::test]
async fn the_sentinels_must_know_the_master() {
    let sentinel = RedisSentinel::start().await;
    let other = sentinel.url().replace("/mymaster", "/nobody");
    let redis = Redis::open(settings(&other, "c")).unwrap();
    let why = unavailable(redis.connected(Duration::from_secs(2)).await);
    assert!(why.contains("master"), "{why}");
}

#[tokio::test]
async fn tls_needs_the_authority() {
    let (server, authority) = RedisServer::start_tls().await;
    let mut trusting = settings(&server.url(), "c");
    trusting.ca_file = Some(authority);
    let one = open_with(trusting.clone()).await;
    let two = open_with(trusting).await;
    everything_works(&one, &two).await;

    let redis = Redis::open(settings(&server.url(), "c")).unwrap();
    let why = unavailable(redis.connected(Duration::from_secs(2)).await);
    assert!(why.contains("certificate"), "{why}");
}

#[tokio::test]
async fn a_file_that_is_no_authority_is_refused() {
    let mut settings = settings("rediss://127.0.0.1:1", "c");
    settings.ca_file = Some("/no/such/file.pem".into());
    let refused = Redis::open(settings).map(|_| ());
    assert!(matches!(refused, Err(OpenError::CaFile { .. })));
}
