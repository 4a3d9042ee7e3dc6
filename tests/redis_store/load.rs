//! Much at once: what is many must stay few round trips and bounded memory.

use std::collections::BTreeSet;

use carillon::ports::{
    AttemptQuery, AuditLog as _, Backend as _, Ledger as _, SubscriptionStore as _,
};

use crate::harness::{attempt, id, key, open, open_with, prefix, scope, settings, subscription};
use crate::services::{self, RedisServer};

/// How often a command was called, by what the server counts.
async fn calls(server: &RedisServer, command: &str) -> u64 {
    let stats = server.cli(&["info", "commandstats"]).await;
    let head = format!("cmdstat_{command}:calls=");
    let line = stats.lines().find_map(|line| line.strip_prefix(&head));
    let count = line.and_then(|rest| rest.split(',').next());
    count.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn thousands_are_applied_at_once() {
    let (url, prefix) = (services::redis_url().await, prefix());
    let redis = open(&url, &prefix).await;
    let all = |text: &str| {
        let one = |n: u32| subscription(&format!("t{}", n % 700), n, text);
        (0..5000).map(one).collect::<Vec<_>>()
    };
    redis.put_all(all("a")).await.unwrap();
    redis.put_all(all("b")).await.unwrap();
    let mut found = BTreeSet::new();
    let mut after = None;
    loop {
        let page = redis.list(None, after.as_ref(), 1500).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.subscription.id.clone());
        assert!(page.iter().all(|stored| stored.version == 2));
        found.extend(page.iter().map(|stored| stored.subscription.id.clone()));
    }
    assert_eq!(found.len(), 5000);
    assert_eq!(redis.of_scope(&scope("t3")).await.unwrap().len(), 8);
}

#[tokio::test]
async fn twenty_thousand_of_one_scope_are_read() {
    let (url, prefix) = (services::redis_url().await, prefix());
    let redis = open(&url, &prefix).await;
    for part in 0..4 {
        let part = part * 5000..(part + 1) * 5000;
        let part = part.map(|n| subscription("acme", n, "")).collect();
        redis.put_all(part).await.unwrap();
    }
    redis
        .put(subscription("acmf", 30_000, ""), None)
        .await
        .unwrap();
    let found = redis.of_scope(&scope("acme")).await.unwrap();
    let ids: Vec<_> = found
        .iter()
        .map(|stored| stored.subscription.id.clone())
        .collect();
    assert_eq!(ids, (0..20_000).map(id).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_ledger_writes_in_groups() {
    let server = RedisServer::start().await;
    let redis = open(&server.url(), "c").await;
    let before = calls(&server, "exec").await;
    let records = (0..10_000).map(|n| redis.record(vec![(key(n % 100), id(n))]));
    for result in futures_util::future::join_all(records).await {
        result.unwrap();
    }
    let round_trips = calls(&server, "exec").await - before;
    assert!((1..=50).contains(&round_trips), "{round_trips}");
    let keys: Vec<_> = (0..100).map(key).collect();
    let found = redis.settled(&keys).await.unwrap();
    assert!(found.iter().all(|settled| settled.len() == 100));
    let ttl = server.cli(&["eval", TTLS, "0"]).await;
    let ttls: Vec<i64> = ttl.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(ttls.len(), 100);
    assert!(ttls.iter().all(|ttl| (1..=600_000).contains(ttl)));
}

/// What each key of the ledger has left to live.
const TTLS: &str = "local all = {} for i, key in ipairs(redis.call('KEYS', 'c:l:*')) do all[i] = redis.call('PTTL', key) end return all";

#[tokio::test]
async fn without_a_window_nothing_is_asked() {
    let (url, prefix) = (services::redis_url().await, prefix());
    let mut settings = settings(&url, &prefix);
    settings.dedup_window = std::time::Duration::ZERO;
    let redis = open_with(settings).await;
    redis.crash();
    redis.record(vec![(key(1), id(1))]).await.unwrap();
    assert!(redis.settled(&[key(1)]).await.unwrap()[0].is_empty());
}

/// The rings are walked newest first, and only as far as needed.
#[tokio::test]
async fn the_newest_attempts_of_many_rings_are_found() {
    let server = RedisServer::start().await;
    let redis = open(&server.url(), "c").await;
    for n in 0..3000_u32 {
        redis.append(attempt(n % 1500, n, n));
    }
    redis.flush().await;
    let before = calls(&server, "lrange").await;
    let mut query = AttemptQuery {
        limit: 40,
        ..AttemptQuery::default()
    };
    let mut seen = Vec::new();
    for _ in 0..3 {
        let found = redis.attempts(&query).await.unwrap();
        query.before = found.last().map(|(position, _)| *position);
        seen.extend(found.iter().map(|(_, attempt)| attempt.number));
    }
    assert_eq!(seen, (2880..3000).rev().collect::<Vec<_>>());
    let looked = calls(&server, "lrange").await - before;
    assert!(looked < 1500, "{looked} reads of 1500 rings");

    query.before = None;
    query.delivery = Some(attempt(77, 77, 77).delivery.clone());
    let found = redis.attempts(&query).await.unwrap();
    assert_eq!(
        found.iter().map(|(_, a)| a.number).collect::<Vec<_>>(),
        [77]
    );
    query.delivery = None;
    query.delivered = Some(true);
    query.subscription = Some(id(8));
    let found = redis.attempts(&query).await.unwrap();
    assert_eq!(
        found.iter().map(|(_, a)| a.number).collect::<Vec<_>>(),
        [1508, 8]
    );
}

#[tokio::test]
async fn a_damaged_attempt_hides_no_other() {
    let server = RedisServer::start().await;
    let redis = open(&server.url(), "c").await;
    redis.append(attempt(1, 1, 1));
    redis.flush().await;
    let ring = format!("c:a:{}", id(1));
    server.cli(&["lpush", &ring, "short"]).await;
    server.cli(&["lpush", &ring, &"x".repeat(60)]).await;
    redis.append(attempt(1, 2, 2));
    redis.flush().await;
    let query = AttemptQuery {
        limit: 10,
        ..AttemptQuery::default()
    };
    let found = redis.attempts(&query).await.unwrap();
    assert_eq!(
        found.iter().map(|(_, a)| a.number).collect::<Vec<_>>(),
        [2, 1]
    );
}
