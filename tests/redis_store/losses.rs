//! Redis takes no attempts, or nothing at all: all else goes on, what is lost is counted, and
//! attempts are kept again without a restart.

use std::sync::atomic::Ordering;

use carillon::adapters::redis::Redis;
use carillon::domain::id::SubscriptionId;
use carillon::ports::{
    AttemptQuery, AuditLog as _, Backend as _, Ledger as _, SubscriptionStore as _,
};

use crate::harness::{
    PATIENCE, attempt, id, key, open_with, settings, subscription, unavailable, until,
};
use crate::services::{RedisCluster, RedisServer};

async fn numbers(redis: &Redis, subscription: SubscriptionId) -> Vec<u32> {
    let query = AttemptQuery {
        subscription: Some(subscription),
        limit: 100,
        ..AttemptQuery::default()
    };
    let found = redis.attempts(&query).await.unwrap();
    found.iter().map(|(_, attempt)| attempt.number).collect()
}

#[tokio::test]
async fn attempts_that_are_refused_are_counted_and_all_else_goes_on() {
    let server = RedisServer::start().await;
    let mut settings = settings(&server.url(), "c");
    settings.audit_per_subscription = 100_000;
    let dropped = || settings.audit_dropped.load(Ordering::Relaxed);
    let redis = open_with(settings.clone()).await;
    // What only the audit log uses.
    server.cli(&["acl", "setuser", "default", "-lpush"]).await;
    for number in 0..21_000 {
        redis.append(attempt(1, number, number));
    }
    assert_eq!(dropped(), 1000, "the buffer is bounded");
    redis.put(subscription("acme", 1, ""), None).await.unwrap();
    redis.record(vec![(key(1), id(1))]).await.unwrap();
    assert_eq!(redis.settled(&[key(1)]).await.unwrap(), [[id(1)]]);
    redis.ready().await.unwrap();
    until("a group to be given up", PATIENCE, async || {
        dropped() > 1000
    })
    .await;

    server.cli(&["acl", "setuser", "default", "+lpush"]).await;
    redis.append(attempt(1, 21_000, 21_000));
    let kept = async || {
        let length = server.cli(&["llen", "c:a:sub_000001"]).await;
        length.parse::<u64>().unwrap()
    };
    until("each to be kept or counted", PATIENCE, async || {
        kept().await + dropped() == 21_001
    })
    .await;
    assert!(kept().await > 0);
    assert_eq!(numbers(&redis, id(1)).await[0], 21_000);
}

#[tokio::test]
async fn a_full_redis_holds_nothing_up_and_takes_all_later() {
    let server = RedisServer::start().await;
    let settings = settings(&server.url(), "c");
    let redis = open_with(settings.clone()).await;
    redis.put(subscription("acme", 1, ""), None).await.unwrap();
    server.cli(&["config", "set", "maxmemory", "1"]).await;
    for number in 0..100 {
        redis.append(attempt(1, number, number));
    }
    let why = unavailable(redis.record(vec![(key(1), id(1))]).await);
    assert!(why.contains("OOM"), "{why}");
    redis.ready().await.unwrap();
    server.cli(&["config", "set", "maxmemory", "0"]).await;
    until("all to be written", PATIENCE, async || {
        let settled = redis.settled(&[key(1)]).await.unwrap();
        settled == [[id(1)]] && numbers(&redis, id(1)).await.len() == 100
    })
    .await;
    assert_eq!(settings.audit_dropped.load(Ordering::Relaxed), 0);
}

/// What the others of a cluster took is not written again and again: that would push out older
/// attempts, which nobody counts.
#[tokio::test]
async fn one_of_a_cluster_that_refuses_costs_the_others_nothing() {
    let cluster = RedisCluster::start(2).await;
    let mut settings = settings(&cluster.url(), "c");
    settings.audit_per_subscription = 3;
    let dropped = || settings.audit_dropped.load(Ordering::Relaxed);
    let redis = open_with(settings.clone()).await;
    for n in 0..20 {
        for number in 0..3 {
            redis.append(attempt(n, number, number));
        }
    }
    redis.flush().await;
    cluster
        .cli(1, &["acl", "setuser", "default", "-lpush"])
        .await;
    for n in 0..20 {
        redis.append(attempt(n, 3, 3));
    }
    until("a group to be given up", PATIENCE, async || dropped() > 0).await;
    let mut refused = 0;
    for n in 0..20 {
        let numbers = numbers(&redis, id(n)).await;
        if numbers[0] == 2 {
            refused += 1;
            assert_eq!(numbers, [2, 1, 0]);
        } else {
            assert_eq!(numbers, [3, 2, 1]);
        }
    }
    assert!((1..20).contains(&refused), "{refused} are kept by that one");
    assert_eq!(dropped(), refused);
}
