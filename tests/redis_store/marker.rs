//! The marker: who makes it, and what its absence means.

use carillon::ports::{Backend as _, StoreError, SubscriptionStore as _};
use carillon::telemetry::labels::Dependency;

use crate::changes::Heard;
use crate::harness::{
    PATIENCE, descriptions, id, looked, open, open_with, prefix, scope, settings, subscription,
    unavailable, until,
};
use crate::services::{self, RedisServer};

#[tokio::test]
async fn an_empty_redis_is_unavailable_until_it_is_ours() {
    let (url, prefix) = (services::redis_url().await, prefix());
    let redis = open(&url, &prefix).await;
    let acme = scope("acme");
    for why in [
        unavailable(redis.of_scope(&acme).await),
        unavailable(redis.get(&id(1)).await),
        unavailable(redis.list(None, None, 10).await),
        unavailable(redis.delete(&id(1), None).await),
        redis.ready().await.unwrap_err(),
    ] {
        assert!(
            why.contains("carillon init") && why.contains(&prefix),
            "{why}"
        );
    }
    // A change of what is not there makes no marker.
    let conflict = redis.put(subscription("acme", 1, ""), Some(1)).await;
    assert!(matches!(conflict, Err(StoreError::Conflict)));
    unavailable(redis.of_scope(&acme).await);

    redis.put(subscription("acme", 1, "a"), None).await.unwrap();
    assert_eq!(descriptions(&redis.of_scope(&acme).await.unwrap()), ["a"]);
    redis.ready().await.unwrap();
    assert!(!redis.init().await.unwrap(), "it is there");
}

#[tokio::test]
async fn init_marks_once() {
    let (url, prefix) = (services::redis_url().await, prefix());
    let (one, two) = (open(&url, &prefix).await, open(&url, &prefix).await);
    assert!(one.init().await.unwrap());
    assert!(!two.init().await.unwrap());
    assert!(two.of_scope(&scope("acme")).await.unwrap().is_empty());
    two.ready().await.unwrap();
}

#[tokio::test]
async fn a_loss_is_no_new_beginning() {
    let server = RedisServer::start().await;
    let redis = open(&server.url(), "c").await;
    let heard = Heard::by(&*redis);
    let acme = scope("acme");
    redis.put(subscription("acme", 1, "a"), None).await.unwrap();
    redis.of_scope(&acme).await.unwrap();
    assert_eq!(heard.take(), ["acme"]);

    server.cli(&["flushall"]).await;
    unavailable(redis.of_scope(&acme).await);
    let why = unavailable(redis.put(subscription("acme", 2, ""), None).await);
    assert!(
        why.contains("subscriptions apply") && why.contains("carillon init"),
        "{why}"
    );
    assert!(redis.ready().await.unwrap_err().contains("lost"));
    unavailable(redis.delete(&id(1), None).await);
    looked(&server, 2).await;
    assert!(heard.take().is_empty(), "what was loaded is served on");

    redis
        .put_all(vec![subscription("acme", 3, "c")])
        .await
        .unwrap();
    assert_eq!(heard.take(), ["acme"]);
    assert_eq!(descriptions(&redis.of_scope(&acme).await.unwrap()), ["c"]);
    redis.ready().await.unwrap();
    redis.put(subscription("acme", 4, "d"), None).await.unwrap();
}

/// A Redis that answers and has lost everything does not count as up.
#[tokio::test]
async fn the_metric_tells_of_a_loss() {
    let server = RedisServer::start().await;
    let settings = settings(&server.url(), "c");
    let redis = open_with(settings.clone()).await;
    let up = async |expected: i64| {
        until("the metric tells", PATIENCE, async || {
            let gauge = &settings.telemetry.metrics().dependency_up;
            gauge.get(Dependency::Redis) == expected
        })
        .await;
    };
    redis.put(subscription("acme", 1, ""), None).await.unwrap();
    up(1).await;
    server.cli(&["flushall"]).await;
    up(0).await;
    assert!(redis.init().await.unwrap());
    up(1).await;
}

#[tokio::test]
async fn a_loss_can_be_accepted() {
    let server = RedisServer::start().await;
    let redis = open(&server.url(), "c").await;
    assert!(redis.init().await.unwrap());
    server.cli(&["flushall"]).await;
    unavailable(redis.of_scope(&scope("acme")).await);
    assert!(redis.init().await.unwrap());
    assert!(redis.of_scope(&scope("acme")).await.unwrap().is_empty());
    redis.put(subscription("acme", 1, ""), None).await.unwrap();
}

#[tokio::test]
async fn other_data_than_before_drops_what_was_loaded() {
    let server = RedisServer::start().await;
    let one = open(&server.url(), "c").await;
    one.put(subscription("acme", 1, "a"), None).await.unwrap();
    one.put(subscription("bell", 2, "b"), None).await.unwrap();
    one.of_scope(&scope("acme")).await.unwrap();
    one.of_scope(&scope("bell")).await.unwrap();
    one.of_scope(&scope("none")).await.unwrap();
    let heard = Heard::by(&*one);
    let two = open(&server.url(), "c").await;
    server.cli(&["flushall"]).await;
    two.put_all(vec![subscription("acme", 1, "new")])
        .await
        .unwrap();
    until("all scopes are told", PATIENCE, async || {
        ["acme", "bell", "none"].iter().all(|name| heard.has(name))
    })
    .await;
    let acme = one.of_scope(&scope("acme")).await.unwrap();
    assert_eq!(descriptions(&acme), ["new"]);
    assert!(one.of_scope(&scope("bell")).await.unwrap().is_empty());
}

/// An eviction policy may take any of the keys; none of them is missed silently.
#[tokio::test]
async fn a_part_that_is_lost_is_noticed_and_mended() {
    let (url, prefix) = (services::redis_url().await, prefix());
    let redis = open(&url, &prefix).await;
    let all = || {
        (1..4)
            .map(|n| subscription("acme", n, ""))
            .collect::<Vec<_>>()
    };
    redis.put_all(all()).await.unwrap();
    let mut client = ::redis::Client::open(url.as_str())
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    for part in [
        "ids",
        "scopes",
        "versions",
        "stamp",
        "marker",
        "subscriptions",
    ] {
        let key = format!("{{{prefix}}}:{part}");
        let gone: i64 = ::redis::cmd("DEL")
            .arg(&key)
            .query_async(&mut client)
            .await
            .unwrap();
        assert_eq!(gone, 1, "{part}");
        for redis in [&redis, &open(&url, &prefix).await] {
            unavailable(redis.of_scope(&scope("acme")).await);
            unavailable(redis.get(&id(1)).await);
            unavailable(redis.put(subscription("acme", 9, ""), None).await);
            redis.ready().await.unwrap_err();
        }
        assert!(redis.init().await.unwrap());
        let left = if part == "subscriptions" { 0 } else { 3 };
        let found = redis.of_scope(&scope("acme")).await.unwrap();
        assert_eq!(found.len(), left, "{part}");
        let listed = redis.list(None, None, 10).await.unwrap();
        assert_eq!(listed.len(), left, "{part}");
    }
    redis.put_all(all()).await.unwrap();
    assert_eq!(redis.of_scope(&scope("acme")).await.unwrap().len(), 3);
}
