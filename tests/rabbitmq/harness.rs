//! Opening the adapter under a prefix of a test's own, and what the tests put into it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::json;

use carillon::adapters::rabbitmq::{Rabbit, RabbitError, RabbitSettings, declared};
use carillon::adapters::system::{SystemChance, SystemClock};
use carillon::codec;
use carillon::domain::delivery::{DeadLetter, DeadReason, Delivery, EventFacts, LastAttempt};
use carillon::domain::id::{EventId, EventType, LedgerKey, SubscriptionId, TenantId};
use carillon::domain::outcome::Reason;
use carillon::domain::retry::Due;
use carillon::domain::timestamp::UnixMillis;
use carillon::ports::{
    Clock as _, EventMessage, Inbox as _, Ledger, Outbox as _, Parcel, StoreError, Taken,
};
use carillon::telemetry::Telemetry;

use crate::plain::Plain;
use crate::services::{self, Broker, delete_declared};

#[path = "../support/until.rs"]
pub mod until;

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A prefix in some RabbitMQ, with all that is declared under it; taken away when dropped.
pub struct Place {
    /// Where tests look from, and what is taken away is taken away.
    pub url: String,
    pub prefix: String,
    pub ledger: Arc<Memory>,
    pub telemetry: Telemetry,
    is_shared: bool,
    opened: Mutex<Vec<Arc<Rabbit>>>,
}

impl Place {
    /// In the shared RabbitMQ.
    pub async fn shared() -> Self {
        Self::new(&services::broker_url().await, true)
    }

    /// In a private one, which takes all away with it.
    pub fn at(url: &str) -> Self {
        Self::new(url, false)
    }

    fn new(url: &str, is_shared: bool) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            url: url.to_owned(),
            is_shared,
            prefix: format!("rmq{}-{count}", std::process::id()),
            ledger: Arc::default(),
            telemetry: Telemetry::new().unwrap(),
            opened: Mutex::default(),
        }
    }

    pub fn settings(&self) -> RabbitSettings {
        self.settings_by(&self.url)
    }

    /// With other ways to RabbitMQ, separated by commas.
    pub fn settings_by(&self, urls: &str) -> RabbitSettings {
        RabbitSettings {
            urls: urls.split(',').map(Into::into).collect(),
            ca_file: None::<PathBuf>,
            prefix: self.prefix.clone(),
            prefetch: 2000,
            overdue: None,
            ledger: self.ledger.clone(),
            clock: Arc::new(SystemClock),
            chance: Arc::new(SystemChance),
            telemetry: self.telemetry.clone(),
        }
    }

    pub async fn open(&self) -> Arc<Rabbit> {
        self.open_with(self.settings()).await
    }

    pub async fn open_by(&self, urls: &str) -> Arc<Rabbit> {
        self.open_with(self.settings_by(urls)).await
    }

    pub async fn open_with(&self, settings: RabbitSettings) -> Arc<Rabbit> {
        self.try_open(settings).await.unwrap()
    }

    pub async fn try_open(&self, settings: RabbitSettings) -> Result<Arc<Rabbit>, RabbitError> {
        let rabbit = Rabbit::open(settings).await?;
        self.opened.lock().unwrap().push(Arc::clone(&rabbit));
        Ok(rabbit)
    }

    /// The whole name of a queue or an exchange.
    pub fn name(&self, rest: &str) -> String {
        format!("{}.{rest}", self.prefix)
    }

    /// A connection beside the adapter's.
    pub async fn plain(&self) -> Plain {
        Plain::connect(&self.url).await
    }
}

impl Drop for Place {
    /// The adapter first: it would declare again what is deleted under it.
    fn drop(&mut self) {
        let opened = std::mem::take(&mut *self.opened.lock().unwrap());
        let ending = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                for rabbit in opened {
                    let _ = tokio::time::timeout(PATIENCE, rabbit.crash()).await;
                }
            });
        });
        let _ = ending.join();
        if self.is_shared {
            delete_declared(&self.url, declared(&self.prefix));
        }
    }
}

/// A RabbitMQ that tests ask what it holds, and have run short of memory: there, nobody can
/// count on being able to publish. It ends with this process.
pub async fn moody_broker() -> &'static Broker {
    static BROKER: tokio::sync::OnceCell<Broker> = tokio::sync::OnceCell::const_new();
    BROKER.get_or_init(|| Broker::start(1)).await
}

/// A ledger in memory.
#[derive(Default)]
pub struct Memory(Mutex<HashMap<LedgerKey, Vec<SubscriptionId>>>);

#[async_trait]
impl Ledger for Memory {
    async fn settled(&self, keys: &[LedgerKey]) -> Result<Vec<Vec<SubscriptionId>>, StoreError> {
        let all = self.0.lock().unwrap();
        let of = |key| all.get(key).cloned().unwrap_or_default();
        Ok(keys.iter().map(of).collect())
    }

    async fn record(&self, settled: Vec<(LedgerKey, SubscriptionId)>) -> Result<(), StoreError> {
        let mut all = self.0.lock().unwrap();
        for (key, subscription) in settled {
            all.entry(key).or_default().push(subscription);
        }
        Ok(())
    }
}

pub fn now() -> UnixMillis {
    SystemClock.now()
}

pub fn event(n: u32) -> EventMessage {
    let body = json!({
        "id": format!("evt_{n}"), "type": "a.b", "tenant": "acme",
        "timestamp": "2026-03-01T12:30:00Z", "data": {},
    });
    EventMessage {
        body: body.to_string().into(),
        content_type: Some("application/json".to_owned()),
        ..EventMessage::default()
    }
}

pub fn kind(name: &str) -> EventType {
    EventType::parse(name).unwrap()
}

pub fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

pub fn subscription_id(n: u32) -> SubscriptionId {
    SubscriptionId::parse(&format!("sub_{n:04}")).unwrap()
}

/// The delivery of event `n` of tenant acme to subscription 1, as it is put to wait for the
/// first time.
pub fn delivery(n: u32) -> Delivery {
    delivery_of("acme", n)
}

pub fn delivery_of(name: &str, n: u32) -> Delivery {
    let facts = EventFacts {
        id: EventId::parse(&format!("evt_{n}")).unwrap(),
        kind: kind("a.b"),
        tenant: tenant(name),
        taken_at: UnixMillis(1),
        traceparent: None,
    };
    let body = Bytes::from(format!("{{\"n\":{n}}}"));
    Delivery::new(Arc::new(facts), subscription_id(1), body, false).moved()
}

/// `delivery` after an attempt at 2026-03-01T12:30:00Z that was answered by a 503.
pub fn failed(delivery: Delivery) -> Delivery {
    let last = LastAttempt {
        status: Some(503),
        reason: Reason::from_code("timeout").unwrap(),
    };
    let began = UnixMillis::parse_rfc3339("2026-03-01T12:30:00Z").unwrap();
    delivery.attempted(began, last)
}

pub fn due_now(delivery: Delivery) -> Parcel {
    due_after(delivery, Duration::ZERO)
}

pub fn due_after(delivery: Delivery, wait: Duration) -> Parcel {
    let due = Due::at(now().after(wait));
    Parcel::Delivery { delivery, due }
}

pub fn dead(delivery: Delivery, dead_at: UnixMillis) -> DeadLetter {
    DeadLetter {
        delivery,
        reason: DeadReason::Exhausted,
        dead_at,
    }
}

pub async fn put_events(rabbit: &Rabbit, numbers: std::ops::Range<u32>) {
    let parcels = numbers.map(|n| Parcel::Event(event(n))).collect();
    rabbit.put(parcels).await.unwrap();
}

/// Takes exactly `count` events, or fails.
pub async fn take_events(rabbit: &Rabbit, count: usize) -> Vec<Taken<EventMessage>> {
    let mut taken = Vec::new();
    let take = async {
        while taken.len() < count {
            taken.extend(rabbit.events(count - taken.len()).await.unwrap());
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, take).await.is_ok();
    assert!(in_time, "{} of {count} events came", taken.len());
    taken
}

/// Takes exactly `count` due deliveries, or fails.
pub async fn take_deliveries(rabbit: &Rabbit, count: usize) -> Vec<Taken<Bytes>> {
    let mut taken = Vec::new();
    let take = async {
        while taken.len() < count {
            taken.extend(rabbit.deliveries(count - taken.len()).await.unwrap());
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, take).await.is_ok();
    assert!(in_time, "{} of {count} deliveries came", taken.len());
    taken
}

/// The number in an event's id.
pub fn number_of(taken: &Taken<EventMessage>) -> u32 {
    let event: serde_json::Value = serde_json::from_slice(&taken.message.body).unwrap();
    let id = event["id"].as_str().unwrap();
    id.trim_start_matches("evt_").parse().unwrap()
}

pub fn delivered(taken: &Taken<Bytes>) -> Delivery {
    codec::delivery::decode(&taken.message).unwrap()
}

/// The number of the event that a due delivery is of.
pub fn event_of(taken: &Taken<Bytes>) -> u32 {
    let id = delivered(taken).event.id.as_str().to_owned();
    id.trim_start_matches("evt_").parse().unwrap()
}

/// The sentence of an error that says that the store is unavailable.
pub fn unavailable<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Unavailable(why)) => why,
        other => panic!("expected it to be unavailable: {other:?}"),
    }
}

/// Asks until `done` says so; fails after `limit`. Returns how long it took.
pub async fn until(what: &str, limit: Duration, mut done: impl AsyncFnMut() -> bool) -> Duration {
    let begin = Instant::now();
    until::until(what, limit, async || done().await.then_some(())).await;
    begin.elapsed()
}

/// Puts until it is taken, as the pipeline does. Returns how often it was tried.
pub async fn put_patiently(rabbit: &Rabbit, parcels: Vec<Parcel>) -> u32 {
    let mut tries = 0;
    until("it is put", PATIENCE, async || {
        tries += 1;
        rabbit.put(parcels.clone()).await.is_ok()
    })
    .await;
    tries
}
