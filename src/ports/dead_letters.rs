//! What was given up.

use async_trait::async_trait;

use super::StoreError;
use crate::domain::delivery::{DeadLetter, DeadReason};
use crate::domain::id::{DeliveryId, SubscriptionId, TenantId};
use crate::domain::timestamp::UnixMillis;

/// Deliveries that were given up.
#[async_trait]
pub trait DeadLetterQueue: Send + Sync {
    /// The oldest that match, by when they were given up. Reading changes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn list(&self, query: &DeadLetterQuery) -> Result<Vec<DeadLetter>, StoreError>;

    /// Sends those that match again; says how many, and tells of each part as soon as it is durable
    /// (`telemetry::events::DeliveriesBegun`). None is lost if it stops half way: each
    /// is durable again before it is taken out.
    ///
    /// With a limit, the oldest as the store orders them: a file by when they were given up, a
    /// broker in the order of its queue. That is the order in which they came, which is that of
    /// their age for all practical purposes; but those that do not match, and were passed over
    /// by a redrive with a limit, may stand behind the others then. It reads no further than it
    /// has to.
    ///
    /// The first thousand are due at `now`, the others one after the other
    /// (`Due::of_redriven`).
    ///
    /// # Errors
    /// [`StoreError`]; what was sent again before stays so.
    async fn redrive(&self, query: &DeadLetterQuery, now: UnixMillis) -> Result<u64, StoreError>;

    /// How many match, up to the query's limit. It reads no further than it has to.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn count(&self, query: &DeadLetterQuery) -> Result<u64, StoreError>;

    /// Discards one delivery's; says what was there, `None` for what could not be read. A
    /// broker may have several: redelivered, a delivery can be given up once more. With an
    /// `owner`, only what can be read and belongs to that tenant.
    ///
    /// Where there are notices, the notice of it is out before anything is: around a fault
    /// there may be one too many, never one too few.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn discard(
        &self,
        id: &DeliveryId,
        owner: Option<&TenantId>,
        now: UnixMillis,
    ) -> Result<Vec<Option<DeadLetter>>, StoreError>;
}

/// Which dead letters; what is absent does not restrict.
#[derive(Clone, Debug, Default)]
pub struct DeadLetterQuery {
    /// What belongs to this tenant: of its events, for its own subscriptions.
    pub owner: Option<TenantId>,
    /// Of this tenant's events.
    pub tenant: Option<TenantId>,
    /// For this subscription.
    pub subscription: Option<SubscriptionId>,
    /// Of this delivery.
    pub delivery: Option<DeliveryId>,
    /// Given up for this reason.
    pub reason: Option<DeadReason>,
    /// Given up at this time or later.
    pub since: Option<UnixMillis>,
    /// Given up before this time.
    pub until: Option<UnixMillis>,
    /// At most so many.
    pub limit: usize,
}
