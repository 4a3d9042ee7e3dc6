//! Redis goes away, hangs and comes back: calls fail soon, and all works again unaided.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use carillon::adapters::redis::Redis;
use carillon::domain::timestamp::UnixMillis;
use carillon::ports::{
    AttemptQuery, AuditLog as _, Backend as _, EndpointHealth as _, Ledger as _, SharedRates as _,
    SubscriptionStore as _,
};
use carillon::telemetry::labels::Dependency;

use crate::changes::Heard;
use crate::harness::{
    PATIENCE, attempt, id, key, open, open_with, scope, settings, subscription, unavailable, until,
    until_readable,
};
use crate::rates::ask;
use crate::services::RedisServer;

fn all() -> AttemptQuery {
    AttemptQuery {
        limit: 1000,
        ..AttemptQuery::default()
    }
}

/// Every call fails, and none takes longer than `limit`.
async fn every_call_fails_within(redis: &Redis, limit: Duration) {
    let acme = scope("acme");
    let begin = Instant::now();
    let query = all();
    let success = [(id(1), UnixMillis(1))];
    let calls = async {
        let failed: [bool; 12] = tokio::join!(
            async { redis.of_scope(&acme).await.is_err() },
            async { redis.get(&id(1)).await.is_err() },
            async { redis.list(None, None, 1).await.is_err() },
            async { redis.put(subscription("acme", 9, ""), None).await.is_err() },
            async { redis.ready().await.is_err() },
            async { redis.settled(&[key(1)]).await.is_err() },
            async { redis.record(vec![(key(1), id(1))]).await.is_err() },
            async { redis.attempts(&query).await.is_err() },
            async { redis.take(&[ask(1, 1.0, 1, 1)]).await.is_err() },
            async { redis.failed(&id(1), UnixMillis(1)).await.is_err() },
            async { redis.succeeded(&success).await.is_err() },
            async { redis.failing().await.is_err() },
        )
        .into();
        failed
    };
    let failed = tokio::time::timeout(PATIENCE, calls).await.unwrap();
    assert_eq!(failed, [true; 12]);
    assert!(begin.elapsed() < limit, "{:?}", begin.elapsed());
}

/// The gauge of the connection.
fn is_up(settings: &carillon::adapters::redis::RedisSettings) -> bool {
    let gauge = &settings.telemetry.metrics().dependency_up;
    gauge.get(Dependency::Redis) == 1
}

#[tokio::test]
async fn it_works_again_after_a_restart() {
    let server = RedisServer::start().await;
    let settings = settings(&server.url(), "c");
    let redis = open_with(settings.clone()).await;
    let heard = Heard::by(&*redis);
    redis.put(subscription("acme", 1, ""), None).await.unwrap();
    redis.record(vec![(key(1), id(1))]).await.unwrap();
    // It is so as soon as the mark, which the first subscription made, is seen.
    until("it is up", PATIENCE, async || is_up(&settings)).await;
    for _ in 0..2 {
        server.kill().await;
        until("it is noticed", PATIENCE, async || !is_up(&settings)).await;
        every_call_fails_within(&redis, Duration::from_millis(500)).await;
        server.restart().await;
        until_readable(&redis).await;
        assert_eq!(redis.of_scope(&scope("acme")).await.unwrap().len(), 1);
        assert_eq!(redis.settled(&[key(1)]).await.unwrap()[0], [id(1)]);
        redis.record(vec![(key(2), id(1))]).await.unwrap();
        assert!(is_up(&settings));
    }
    let other = open(&server.url(), "c").await;
    heard.take();
    other.put(subscription("acme", 2, ""), None).await.unwrap();
    until("changes are heard", PATIENCE, async || heard.has("acme")).await;
}

#[tokio::test]
async fn what_was_settled_during_an_outage_is_remembered_afterwards() {
    let server = RedisServer::start().await;
    let redis = open(&server.url(), "c").await;
    redis.put(subscription("acme", 1, ""), None).await.unwrap();
    server.kill().await;
    for n in 1..=2500 {
        let record = vec![(key(n), id(n))];
        assert!(redis.record(record).await.is_err());
    }
    server.restart().await;
    until("all are remembered", PATIENCE, async || {
        let keys: Vec<_> = (1..=2500).map(key).collect();
        let settled = redis.settled(&keys).await.unwrap_or_default();
        let of = |(n, ids): (u32, &Vec<_>)| *ids == [id(n)];
        settled.len() == 2500 && (1..).zip(&settled).all(of)
    })
    .await;
}

#[tokio::test]
async fn what_changed_during_an_outage_is_told() {
    let server = RedisServer::start().await;
    let one = open(&server.url(), "c").await;
    one.put(subscription("acme", 1, ""), None).await.unwrap();
    one.put(subscription("bell", 2, ""), None).await.unwrap();
    for name in ["acme", "bell"] {
        one.of_scope(&scope(name)).await.unwrap();
    }
    let heard = Heard::by(&*one);
    server
        .cli(&["client", "kill", "type", "normal", "skipme", "yes"])
        .await;
    server.cli(&["client", "kill", "type", "pubsub"]).await;
    let two = open(&server.url(), "c").await;
    two.put(subscription("acme", 3, ""), None).await.unwrap();
    until("it is told", PATIENCE, async || heard.has("acme")).await;
    assert!(!heard.has("bell"), "it did not change");
}

#[tokio::test]
async fn one_that_hangs_holds_nobody_up() {
    let server = RedisServer::start().await;
    let redis = open(&server.url(), "c").await;
    redis.put(subscription("acme", 1, ""), None).await.unwrap();
    server.pause().await;
    every_call_fails_within(&redis, Duration::from_millis(2500)).await;
    until("the connection is given up", PATIENCE, async || {
        let begin = Instant::now();
        assert!(redis.get(&id(1)).await.is_err());
        begin.elapsed() < Duration::from_millis(100)
    })
    .await;
    server.resume().await;
    let took = until_readable(&redis).await;
    assert!(took < Duration::from_secs(6), "{took:?}");
    redis.record(vec![(key(1), id(1))]).await.unwrap();
}

/// As after a failover that left the connection open.
#[tokio::test]
async fn a_server_that_lost_its_office_is_left() {
    let server = RedisServer::start().await;
    let redis = open(&server.url(), "c").await;
    redis.put(subscription("acme", 1, ""), None).await.unwrap();
    server.cli(&["replicaof", "127.0.0.1", "1"]).await;
    redis.record(vec![(key(1), id(1))]).await.unwrap_err();
    until("it is noticed", PATIENCE, async || {
        let read = redis.get(&id(1)).await;
        read.is_err_and(|error| error.to_string().contains("replica"))
    })
    .await;
    server.cli(&["replicaof", "no", "one"]).await;
    until_readable(&redis).await;
    redis.record(vec![(key(1), id(1))]).await.unwrap();
}

#[tokio::test]
async fn attempts_wait_through_an_outage() {
    let server = RedisServer::start().await;
    let settings = settings(&server.url(), "c");
    let redis = open_with(settings.clone()).await;
    server.kill().await;
    for number in 0..300 {
        redis.append(attempt(number % 3, number, number));
    }
    redis.flush().await;
    server.restart().await;
    until("they are there", PATIENCE, async || {
        redis
            .attempts(&all())
            .await
            .is_ok_and(|found| found.len() == 300)
    })
    .await;
    let found = redis.attempts(&all()).await.unwrap();
    let numbers: Vec<_> = found.iter().map(|(_, attempt)| attempt.number).collect();
    assert_eq!(numbers, (0..300).rev().collect::<Vec<_>>());
    assert_eq!(settings.audit_dropped.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn without_redis_it_opens_and_says_why_it_is_not_ready() {
    let server = RedisServer::start().await;
    let settings = settings(&server.url(), "c");
    server.kill().await;
    let redis = Redis::open(settings.clone()).unwrap();
    let why = unavailable(redis.connected(Duration::from_millis(300)).await);
    assert!(why.contains("Redis cannot be reached"), "{why}");
    every_call_fails_within(&redis, Duration::from_millis(500)).await;
    for number in 0..25_000 {
        redis.append(attempt(1, number, number));
    }
    let dropped = settings.audit_dropped.load(Ordering::Relaxed);
    assert_eq!(dropped, 5000, "the buffer is bounded");
    server.restart().await;
    redis.connected(PATIENCE).await.unwrap();
    assert!(redis.init().await.unwrap());
    redis.ready().await.unwrap();
}

#[tokio::test]
async fn after_the_end_every_call_fails() {
    let server = RedisServer::start().await;
    let redis = open(&server.url(), "c").await;
    redis.put(subscription("acme", 1, ""), None).await.unwrap();
    redis.append(attempt(1, 1, 1));
    redis.close().await;
    every_call_fails_within(&redis, Duration::from_millis(200)).await;
    let other = open(&server.url(), "c").await;
    assert_eq!(
        other.attempts(&all()).await.unwrap().len(),
        1,
        "it was flushed"
    );
    other.crash();
    every_call_fails_within(&other, Duration::from_millis(200)).await;
    until("connections are gone", PATIENCE, async || {
        let clients = server.cli(&["client", "list"]).await;
        clients.lines().count() == 1
    })
    .await;
}
