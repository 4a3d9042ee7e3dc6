//! Every trait to the outside, on one page.
//!
//! The pipeline knows its queue, its store, the network, the time and chance through
//! these alone. Each has at least two implementations or one and a simulated twin.
//! *Invariant: whatever a trait here hands out and is forgotten (dropped) comes back.*

mod accounts;
mod dead_letters;
mod error;
mod health;
mod quarantine;
mod rates;
mod receipt;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use url::Url;

use crate::domain::attempt::{Attempt, Response, Timing};
use crate::domain::delivery::{DeadLetter, Delivery};
use crate::domain::id::{DeliveryId, EventId, EventType, LedgerKey, SubscriptionId, TenantId};
use crate::domain::outcome::Failure;
use crate::domain::retry::Due;
use crate::domain::signature::Secrets;
use crate::domain::subscription::{DisabledReason, Scope, Subscription};
use crate::domain::timestamp::UnixMillis;

pub use accounts::Accounts;
pub use dead_letters::{DeadLetterQuery, DeadLetterQueue};
pub use error::StoreError;
pub use health::EndpointHealth;
pub use quarantine::{QuarantineQuery, QuarantineQueue, Quarantined};
pub use rates::{RateAnswer, RateAsk, SharedRates};
pub use receipt::Receipt;

/// All ports of one process.
#[derive(Clone)]
pub struct Ports {
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub chance: Arc<dyn Chance>,
    /// Where events and due deliveries come from.
    pub inbox: Arc<dyn Inbox>,
    /// Where everything durable goes.
    pub outbox: Arc<dyn Outbox>,
    /// Which subscriptions of an event are settled.
    pub ledger: Arc<dyn Ledger>,
    /// The rate over all replicas; `None` where there is one process.
    pub rates: Option<Arc<dyn SharedRates>>,
    /// Since when endpoints fail.
    pub health: Arc<dyn EndpointHealth>,
    /// How many deliveries began, and how they ended.
    pub accounts: Arc<dyn Accounts>,
    /// Subscriptions.
    pub subscriptions: Arc<dyn SubscriptionStore>,
    /// Attempts.
    pub audit: Arc<dyn AuditLog>,
    /// What was given up.
    pub dead_letters: Arc<dyn DeadLetterQueue>,
    /// What was not understood.
    pub quarantine: Arc<dyn QuarantineQueue>,
    /// The network.
    pub transport: Arc<dyn Transport>,
    /// How the backend is.
    pub backend: Arc<dyn Backend>,
}

/// The time of day.
pub trait Clock: Send + Sync {
    /// Now, by the wall clock.
    fn now(&self) -> UnixMillis;
}

/// Randomness.
pub trait Chance: Send + Sync {
    /// A number in `[0, 1)`, for jitter.
    fn fraction(&self) -> f64;
    /// Fills `bytes` from a cryptographically secure source, for ids and secrets.
    fn fill(&self, bytes: &mut [u8]);
}

/// Where events and due deliveries come from.
#[async_trait]
pub trait Inbox: Send + Sync {
    /// The next events in their order: at least one, at most `max`. Waits for them.
    ///
    /// # Errors
    /// [`StoreError`]; asking again is safe.
    async fn events(&self, max: usize) -> Result<Vec<Taken<EventMessage>>, StoreError>;

    /// The next deliveries that are due, as encoded by `codec::delivery`: at least one,
    /// at most `max`. Waits for them. None comes before its time.
    ///
    /// # Errors
    /// [`StoreError`]; asking again is safe.
    async fn deliveries(&self, max: usize) -> Result<Vec<Taken<Bytes>>, StoreError>;

    /// Nothing more is wanted: what was fetched ahead goes back for others to take.
    /// Receipts go on being settled.
    async fn stop(&self);
}

/// A message and the receipt to settle it with.
#[derive(Debug)]
pub struct Taken<M> {
    /// The message.
    pub message: M,
    /// Acknowledges it.
    pub receipt: Receipt,
}

/// An event as a publisher sent it, before anyone looked inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventMessage {
    /// The encoded event.
    pub body: Bytes,
    /// Its encoding; JSON when absent.
    pub content_type: Option<String>,
    /// The W3C trace context that came with it.
    pub traceparent: Option<String>,
    /// For the rest of a big fan-out: the subscription after which to go on.
    pub resume_after: Option<SubscriptionId>,
    /// All other headers that came with it; only a broker has them.
    pub headers: Vec<(String, HeaderValue)>,
    /// Whether it was handed out before, and came back.
    pub again: bool,
}

/// The value of a message header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderValue {
    /// Text, or anything else written as text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// True or false.
    Boolean(bool),
}

/// Takes back what [`Receipt`]s say. Both calls return at once.
pub trait ReceiptDesk: Send + Sync {
    /// The message is done with.
    fn ack(&self, tag: u64);
    /// The message is to come again.
    fn requeue(&self, tag: u64);
}

/// Where everything durable goes.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Makes all parcels durable; resolves when they are, in the order given.
    ///
    /// A delivery or dead letter settles what it came from (`Delivery::settles`): that is
    /// recorded with it, in one step where the store can, so that neither its event nor its
    /// wait before leads to it again.
    ///
    /// # Errors
    /// [`StoreError`]: whether they are durable is unknown; putting again is safe.
    async fn put(&self, parcels: Vec<Parcel>) -> Result<(), StoreError>;

    /// When a delivery that is put at `now` is handed out again, which is to be `due`: a store
    /// that knows only some waits takes the one that fits, and it is no sooner than that.
    fn rounded(&self, due: Due, _now: UnixMillis) -> Due {
        due
    }
}

/// Something to make durable.
#[derive(Clone, Debug)]
pub enum Parcel {
    /// An event to be taken by Carillon alone: the rest of a fan-out, or one requeued.
    Event(EventMessage),
    /// A new event, for all who listen to events of its type.
    Published {
        /// The event, which was checked.
        message: EventMessage,
        /// Its type.
        kind: EventType,
    },
    /// A delivery that waits until it is due.
    Delivery {
        /// The delivery.
        delivery: Delivery,
        /// When.
        due: Due,
    },
    /// A delivery that was given up.
    Dead(DeadLetter),
    /// A message that was not understood.
    Quarantine(Quarantined),
    /// News for the platform around; nobody may be listening.
    Notice(Notice),
}

/// News for the platform: JSON `{"type", "timestamp", "data"}`.
#[derive(Clone, Debug)]
pub struct Notice {
    /// What happened, such as `subscription.disabled`.
    pub kind: &'static str,
    /// The JSON text.
    pub body: Bytes,
}

/// Remembers which subscriptions of an event are settled, and which waits of deliveries.
///
/// Saves duplicates; never a reason to skip: when it cannot be read, deliver.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// The settled subscriptions of each of `keys`, in the same order.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn settled(&self, keys: &[LedgerKey]) -> Result<Vec<Vec<SubscriptionId>>, StoreError>;

    /// Begins to serve events, or chunks of them: says of each what [`Ledger::settled`]
    /// would, or that another process is at it. What is ours is so until [`Ledger::end`], or
    /// for somewhat longer than the longest attempt.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn begin(&self, chunks: &[Chunk]) -> Result<Vec<Begun>, StoreError> {
        // Alone, there is nobody to share with.
        let events: Vec<LedgerKey> = chunks.iter().map(|chunk| chunk.event).collect();
        let settled = self.settled(&events).await?;
        Ok(settled.into_iter().map(Begun::Ours).collect())
    }

    /// What was begun as this chunk is settled, or given back. Returns at once.
    fn end(&self, _chunk: LedgerKey) {}

    /// Remembers all of `settled`; resolves when they are durable.
    ///
    /// # Errors
    /// [`StoreError`]: they are not now, and may become so later.
    async fn record(&self, settled: Vec<(LedgerKey, SubscriptionId)>) -> Result<(), StoreError>;
}

/// A part of an event that is served in one go.
#[derive(Clone, Copy, Debug)]
pub struct Chunk {
    /// The event.
    pub event: LedgerKey,
    /// This part of it; the event itself when it is served whole.
    pub chunk: LedgerKey,
    /// Its message came back from whoever had it: that one is not at it any more.
    pub again: bool,
}

/// What came of beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is ours; these subscriptions are settled already.
    Ours(Vec<SubscriptionId>),
    /// Another process is at it.
    Elsewhere,
}

/// A subscription with its secrets and the version that guards its changes.
#[derive(Clone, Debug)]
pub struct StoredSubscription {
    /// The subscription.
    pub subscription: Arc<Subscription>,
    /// Its secrets.
    pub secrets: Secrets,
    /// Grows with every change.
    pub version: u64,
}

/// The shared truth about subscriptions.
#[async_trait]
pub trait SubscriptionStore: Send + Sync {
    /// All of one scope, by id. An unreachable store is an error, never an empty list.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn of_scope(&self, scope: &Scope) -> Result<Vec<StoredSubscription>, StoreError>;

    /// One by its id.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn get(&self, id: &SubscriptionId) -> Result<Option<StoredSubscription>, StoreError>;

    /// A page by id: those after `after`, of one scope or of all.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn list(
        &self,
        scope: Option<&Scope>,
        after: Option<&SubscriptionId>,
        limit: usize,
    ) -> Result<Vec<StoredSubscription>, StoreError>;

    /// Writes one: `expected` is the version it replaces, `None` for a new one.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when another version is there.
    async fn put(
        &self,
        stored: StoredSubscription,
        expected: Option<u64>,
    ) -> Result<(), StoreError>;

    /// Writes several, all or none, whatever is there; their `version` is ignored. For
    /// declaring what there is to be, also to a store that has lost it.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn put_all(&self, stored: Vec<StoredSubscription>) -> Result<(), StoreError>;

    /// Disables one, unless it is disabled already; says whether it was changed.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn disable(
        &self,
        id: &SubscriptionId,
        reason: DisabledReason,
        now: UnixMillis,
    ) -> Result<bool, StoreError>;

    /// Deletes one; says whether it was there. `expected` is the version that may go, `None`
    /// for whatever is there, and be it damaged. Versions begin anew with each creation: one that
    /// was deleted and made again in between, and has the same, goes too.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when another version is there.
    async fn delete(&self, id: &SubscriptionId, expected: Option<u64>) -> Result<bool, StoreError>;

    /// Has `listener` called with a scope whenever something in it changed, before the
    /// call that changed it returns.
    fn on_change(&self, listener: Box<dyn Fn(&Scope) + Send + Sync>);
}

/// The record of every attempt.
#[async_trait]
pub trait AuditLog: Send + Sync {
    /// Keeps `attempt`. Returns at once: what cannot be kept is counted as dropped.
    fn append(&self, attempt: Arc<Attempt>);

    /// Attempts, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn attempts(&self, query: &AttemptQuery) -> Result<Vec<(u64, Attempt)>, StoreError>;
}

/// Which attempts; what is absent does not restrict.
#[derive(Clone, Debug, Default)]
pub struct AttemptQuery {
    /// What belongs to this tenant: of its events, for its own subscriptions.
    pub owner: Option<TenantId>,
    /// Of this tenant's events.
    pub tenant: Option<TenantId>,
    /// For this subscription.
    pub subscription: Option<SubscriptionId>,
    /// Of this event.
    pub event: Option<EventId>,
    /// Of this delivery.
    pub delivery: Option<DeliveryId>,
    /// Delivered (`true`) or failed.
    pub delivered: Option<bool>,
    /// Begun at this time or later.
    pub since: Option<UnixMillis>,
    /// Before this position: the last of the page before.
    pub before: Option<u64>,
    /// At most so many.
    pub limit: usize,
}

impl AttemptQuery {
    /// The tenant whose attempts are looked through, if it is one's.
    pub fn whose(&self) -> Option<&TenantId> {
        self.owner.as_ref().or(self.tenant.as_ref())
    }
}

/// A request ready to be sent.
#[derive(Clone)]
pub struct WebhookRequest {
    /// Where to.
    pub url: Url,
    /// All headers but those of the connection, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// How long the whole attempt may take.
    pub timeout: Duration,
}

impl std::fmt::Debug for WebhookRequest {
    /// Without the query, the values of headers and the body: there may be tokens in them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("WebhookRequest")
            .field("host", &self.url.host_str())
            .field("path", &self.url.path())
            .field("headers", &names)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// What came of a request.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The answer, or why there is none.
    pub result: Result<Response, Failure>,
    /// A sentence on what went wrong; empty when an answer came.
    pub detail: String,
    /// How long its parts took.
    pub timing: Timing,
}

/// The network.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Sends `request` as an HTTP POST and waits for what comes of it, no longer than its
    /// timeout. Never follows a redirect, never connects to a denied address.
    async fn send(&self, request: WebhookRequest) -> Exchange;
}

/// How the backend is.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Whether everything needed for delivering works; else what does not.
    ///
    /// # Errors
    /// A sentence on what does not work.
    async fn ready(&self) -> Result<(), String>;

    /// Messages in each queue, by the queue's name without prefix.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn queue_sizes(&self) -> Result<Vec<(&'static str, u64)>, StoreError>;

    /// Whether what is taken and not settled is among these.
    fn counts_taken(&self) -> bool {
        false
    }

    /// Makes durable what was accepted without waiting (acks, audit).
    async fn flush(&self);

    /// The end: flushes, and lets go of files and connections. Calls after it are errors.
    async fn close(&self);

    /// The end of whoever cannot wait for [`Self::close`]: connects and declares no more.
    fn halt(&self) {}
}
