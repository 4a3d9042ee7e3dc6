//! What a backend must offer to be tested, and the messages that the tests send.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use carillon::codec;
use carillon::codec::subscription::SpecRules;
use carillon::domain::delivery::{DeadLetter, DeadReason, Delivery, EventFacts, LastAttempt};
use carillon::domain::id::{EventId, EventType, SubscriptionId, TenantId};
use carillon::domain::outcome::Reason;
use carillon::domain::retry::{Due, Exponential};
use carillon::domain::signature::{Secret, Secrets};
use carillon::domain::subscription::Subscription;
use carillon::domain::timestamp::UnixMillis;
use carillon::ports::{
    Accounts, AuditLog, Backend, DeadLetterQueue, EndpointHealth, EventMessage, Inbox, Ledger,
    Outbox, Parcel, QuarantineQueue, StoredSubscription, SubscriptionStore, Taken,
};

/// A backend under test.
pub trait Harness: Sized + Send + Sync {
    /// A fresh one that shares nothing with any other.
    fn start(limits: Limits) -> impl Future<Output = Self> + Send;

    /// Its ports as they are now; those from before a crash are dead.
    fn store(&self) -> Store;

    /// Ends it as a crash would, without flushing anything, and starts it again.
    fn crash(&mut self) -> impl Future<Output = ()> + Send;

    /// Makes it impossible to read or write, without telling it.
    fn break_down(&mut self) -> impl Future<Output = ()> + Send;

    /// The time it goes by.
    fn now(&self) -> UnixMillis;

    /// Lets time pass: sets a clock on, or really waits where the backend has its own.
    fn pass(&self, time: Duration) -> impl Future<Output = ()> + Send;

    /// Ends it in order, and starts it again.
    fn restart(&mut self) -> impl Future<Output = ()> + Send {
        async {
            self.store().backend.flush().await;
            self.crash().await;
        }
    }
}

/// How the backend is set up.
#[derive(Clone, Copy)]
pub struct Limits {
    pub dedup_window: Duration,
    pub audit_keep: Duration,
    pub audit_per_subscription: u32,
    pub audit_body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            dedup_window: Duration::from_secs(600),
            audit_keep: Duration::from_secs(168 * 3600),
            audit_per_subscription: 200,
            audit_body_bytes: 65536,
        }
    }
}

/// Every store port.
#[derive(Clone)]
pub struct Store {
    pub inbox: Arc<dyn Inbox>,
    pub outbox: Arc<dyn Outbox>,
    pub ledger: Arc<dyn Ledger>,
    pub health: Arc<dyn EndpointHealth>,
    pub accounts: Arc<dyn Accounts>,
    pub subscriptions: Arc<dyn SubscriptionStore>,
    pub audit: Arc<dyn AuditLog>,
    pub dead_letters: Arc<dyn DeadLetterQueue>,
    pub quarantine: Arc<dyn QuarantineQueue>,
    pub backend: Arc<dyn Backend>,
}

/// Longer than any backend takes to hand out what it has.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long nothing must come, to be believed.
const SILENCE: Duration = Duration::from_secs(2);

impl Store {
    pub async fn put(&self, parcels: Vec<Parcel>) {
        self.outbox.put(parcels).await.unwrap();
    }

    pub async fn put_events(&self, numbers: std::ops::Range<u32>) {
        self.put(numbers.map(|n| Parcel::Event(event(n))).collect())
            .await;
    }

    /// Takes exactly `count` events, or fails.
    pub async fn take_events(&self, count: usize) -> Vec<Taken<EventMessage>> {
        let take = async {
            let mut taken = Vec::new();
            while taken.len() < count {
                taken.extend(self.inbox.events(count - taken.len()).await.unwrap());
            }
            taken
        };
        tokio::time::timeout(PATIENCE, take)
            .await
            .expect("fewer events came than are there")
    }

    /// Takes exactly `count` deliveries, or fails.
    pub async fn take_deliveries(&self, count: usize) -> Vec<Taken<Bytes>> {
        let take = async {
            let mut taken = Vec::new();
            while taken.len() < count {
                taken.extend(self.inbox.deliveries(count - taken.len()).await.unwrap());
            }
            taken
        };
        tokio::time::timeout(PATIENCE, take)
            .await
            .expect("fewer deliveries came than are due")
    }

    pub async fn no_event_comes(&self) {
        let came = tokio::time::timeout(SILENCE, self.inbox.events(10)).await;
        assert!(came.is_err(), "an event came: {came:?}");
    }

    pub async fn no_delivery_comes(&self) {
        let came = tokio::time::timeout(SILENCE, self.inbox.deliveries(10)).await;
        assert!(came.is_err(), "a delivery came: {came:?}");
    }
}

pub fn event(n: u32) -> EventMessage {
    let body = json!({
        "id": format!("evt_{n}"), "type": "a.b", "tenant": "acme",
        "timestamp": "2026-03-01T12:30:00Z", "data": {},
    });
    EventMessage {
        body: body.to_string().into(),
        ..EventMessage::default()
    }
}

pub fn bodies(taken: &[Taken<EventMessage>]) -> Vec<Bytes> {
    taken.iter().map(|t| t.message.body.clone()).collect()
}

pub fn bodies_of(numbers: impl IntoIterator<Item = u32>) -> Vec<Bytes> {
    numbers.into_iter().map(|n| event(n).body).collect()
}

pub fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

pub fn subscription_id(n: u32) -> SubscriptionId {
    SubscriptionId::parse(&format!("sub_{n:04}")).unwrap()
}

/// The delivery of event `n` of tenant acme to subscription 1.
pub fn delivery(n: u32) -> Delivery {
    delivery_to("acme", n, 1)
}

pub fn delivery_to(tenant_name: &str, n: u32, subscription: u32) -> Delivery {
    let facts = EventFacts {
        id: EventId::parse(&format!("evt_{n}")).unwrap(),
        kind: EventType::parse("a.b").unwrap(),
        tenant: tenant(tenant_name),
        taken_at: UnixMillis(1),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
    };
    let body = Bytes::from(format!("{{\"n\":{n}}}"));
    let fresh = Delivery::new(Arc::new(facts), subscription_id(subscription), body, true);
    // As it is when it is put to wait for the first time.
    fresh.moved()
}

/// `delivery` after an attempt that failed.
pub fn failed(delivery: Delivery) -> Delivery {
    let last = LastAttempt {
        status: Some(503),
        reason: Reason::from_code("timeout").unwrap(),
    };
    delivery.attempted(UnixMillis(2), last)
}

/// `delivery` as it is when a person has it sent again from the audit log.
pub fn redelivered(delivery: Delivery, series: u64) -> Delivery {
    Delivery {
        attempts: 0,
        first_attempt_at: None,
        last: None,
        redrives: 1,
        series,
        hops: 1,
        ..delivery
    }
}

pub fn waiting(delivery: Delivery, due: UnixMillis) -> Parcel {
    let due = Due::at(due);
    Parcel::Delivery { delivery, due }
}

pub fn dead(delivery: Delivery, reason: DeadReason, dead_at: UnixMillis) -> DeadLetter {
    DeadLetter {
        delivery,
        reason,
        dead_at,
    }
}

/// What deliveries were taken, decoded.
pub fn decoded(taken: &[Taken<Bytes>]) -> Vec<Delivery> {
    let decode = |t: &Taken<Bytes>| codec::delivery::decode(&t.message).unwrap();
    taken.iter().map(decode).collect()
}

/// The ids of the events that deliveries are of.
pub fn event_ids(taken: &[Taken<Bytes>]) -> Vec<String> {
    let id = |delivery: Delivery| delivery.event.id.as_str().to_owned();
    decoded(taken).into_iter().map(id).collect()
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
            id: subscription_id(n),
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
