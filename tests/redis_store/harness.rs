//! Opening the adapter, and what the tests write into it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;

use carillon::adapters::redis::{Redis, RedisSettings};
use carillon::adapters::system::SystemClock;
use carillon::codec;
use carillon::codec::subscription::SpecRules;
use carillon::codec::vault::Vault;
use carillon::config::Config;
use carillon::domain::attempt::{Attempt, NextAction, Response, SentRequest, Timing};
use carillon::domain::id::{DeliveryId, EventId, EventType, LedgerKey, SubscriptionId, TenantId};
use carillon::domain::outcome::Reason;
use carillon::domain::retry::Exponential;
use carillon::domain::signature::{Secret, Secrets};
use carillon::domain::subscription::{Scope, Subscription};
use carillon::domain::timestamp::UnixMillis;
use carillon::ports::{Clock as _, StoreError, StoredSubscription, SubscriptionStore as _};
use carillon::telemetry::Telemetry;

use crate::services::RedisServer;

#[path = "../support/until.rs"]
pub mod until;

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How soon a change must be known everywhere.
pub const PROMPT: Duration = Duration::from_secs(1);

pub fn settings(url: &str, prefix: &str) -> RedisSettings {
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let env = [
        set("CARILLON_BROKER__URL", "amqp://unused"),
        set("CARILLON_REDIS__URL", url),
    ];
    let config = Config::load(None, env).unwrap().config;
    RedisSettings {
        vault: Vault::default(),
        url: config.redis.url.unwrap(),
        ca_file: None::<PathBuf>,
        prefix: prefix.to_owned(),
        dedup_window: Duration::from_secs(600),
        audit_keep: Duration::from_secs(3600),
        audit_per_subscription: 200,
        audit_body_bytes: 65536,
        clock: Arc::new(SystemClock),
        telemetry: Telemetry::new().unwrap(),
        audit_dropped: Arc::default(),
    }
}

/// One that is connected.
pub async fn open(url: &str, prefix: &str) -> Arc<Redis> {
    open_with(settings(url, prefix)).await
}

pub async fn open_with(settings: RedisSettings) -> Arc<Redis> {
    let redis = Redis::open(settings).unwrap();
    redis.connected(PATIENCE).await.unwrap();
    redis
}

/// Tests share one server: each has a prefix of its own.
pub fn prefix() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("t{}-{count}", std::process::id())
}

pub fn scope(name: &str) -> Scope {
    Scope::parse(name).unwrap()
}

pub fn id(n: u32) -> SubscriptionId {
    SubscriptionId::parse(&format!("sub_{n:06}")).unwrap()
}

pub fn key(n: u32) -> LedgerKey {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&n.to_be_bytes());
    LedgerKey(key)
}

pub fn subscription(tenant: &str, n: u32, description: &str) -> StoredSubscription {
    let rules = SpecRules {
        is_stored: false,
        require_https: false,
        timeout: Duration::from_secs(10),
        retry: Exponential::default(),
    };
    let document = json!({
        "tenant": tenant, "url": "https://example.com/hook", "description": description,
    });
    let written = codec::subscription::read(document.as_object().unwrap(), &rules).unwrap();
    StoredSubscription {
        subscription: Arc::new(Subscription {
            id: id(n),
            tenant: written.tenant,
            spec: written.spec,
            disabled_reason: None,
            created_at: UnixMillis(1),
            updated_at: UnixMillis(1),
        }),
        secrets: Secrets::only(Secret::new([7; 32])),
        version: 1,
    }
}

/// Attempt `number` of event `event` of tenant acme to subscription `n`.
pub fn attempt(n: u32, event: u32, number: u32) -> Arc<Attempt> {
    let tenant = TenantId::parse("acme").unwrap();
    let event = EventId::parse(&format!("evt_{event}")).unwrap();
    Arc::new(Attempt {
        delivery: DeliveryId::derive(&tenant, &event, &id(n)),
        number,
        redrives: 0,
        subscription: id(n),
        shared: false,
        tenant,
        event,
        kind: EventType::parse("a.b").unwrap(),
        at: SystemClock.now(),
        request: SentRequest {
            url: "https://example.com/hook".to_owned(),
            headers: Vec::new(),
            body: Bytes::from_static(b"{}"),
            body_cut: false,
        },
        response: Some(Response {
            status: 204,
            ..Response::default()
        }),
        reason: (number % 2 == 1).then(|| Reason::from_code("timeout").unwrap()),
        detail: String::new(),
        timing: Timing::default(),
        next_action: NextAction::None,
        next_at: None,
        test: false,
    })
}

pub fn descriptions(found: &[StoredSubscription]) -> Vec<&str> {
    let texts = found.iter();
    texts
        .map(|stored| stored.subscription.spec.description.as_str())
        .collect()
}

/// The sentence of an error that says that the store is unavailable.
pub fn unavailable<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Unavailable(why) | StoreError::Lost(why)) => why,
        other => panic!("expected it to be unavailable: {other:?}"),
    }
}

/// Asks until `done` says so; fails after `limit`. Returns how long it took.
pub async fn until(what: &str, limit: Duration, mut done: impl AsyncFnMut() -> bool) -> Duration {
    let begin = Instant::now();
    until::until(what, limit, async || done().await.then_some(())).await;
    begin.elapsed()
}

/// Waits until the one that has this server for itself has looked how it is so many times more.
pub async fn looked(server: &RedisServer, times: u64) {
    let looks = async || {
        let told = server.cli(&["info", "commandstats"]).await;
        // A look is the one command of its kind.
        let line = told
            .lines()
            .find_map(|line| line.strip_prefix("cmdstat_mget:calls="));
        let calls = line.and_then(|rest| rest.split(',').next());
        calls.map_or(0, |calls| calls.parse::<u64>().unwrap())
    };
    let before = looks().await;
    // The first may have been under way.
    until("it to look", PATIENCE, async || {
        looks().await > before + times
    })
    .await;
}

/// Waits until subscriptions can be read.
pub async fn until_readable(redis: &Redis) -> Duration {
    until("readable", PATIENCE, async || {
        redis.list(None, None, 1).await.is_ok()
    })
    .await
}
