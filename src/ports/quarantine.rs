//! What was not understood.

use async_trait::async_trait;

use super::{EventMessage, StoreError};
use crate::domain::event::{EventFault, FaultReason};
use crate::domain::timestamp::UnixMillis;

/// A message that was not understood, as it came.
#[derive(Clone, Debug)]
pub struct Quarantined {
    /// As it came.
    pub message: EventMessage,
    /// Why it was not understood.
    pub fault: EventFault,
    /// When it was put aside.
    pub at: UnixMillis,
}

/// Messages that were not understood.
#[async_trait]
pub trait QuarantineQueue: Send + Sync {
    /// The oldest `limit` as the store orders them, each with its id. Reading changes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn list(&self, limit: usize) -> Result<Vec<(String, Quarantined)>, StoreError>;

    /// Has one taken again as an event; says whether it was there.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn requeue(&self, id: &str) -> Result<bool, StoreError>;

    /// Has those that match taken again, the oldest as the store orders them; says how many.
    /// None is lost if it stops half way, and none of those put aside meanwhile is meant: what
    /// is not understood again does not go round.
    ///
    /// # Errors
    /// [`StoreError`]; what was taken out before stays so.
    async fn requeue_all(&self, query: &QuarantineQuery) -> Result<u64, StoreError>;
}

/// Which messages; what is absent does not restrict.
#[derive(Clone, Debug, Default)]
pub struct QuarantineQuery {
    /// Put aside for this reason.
    pub reason: Option<FaultReason>,
    /// Put aside before this time.
    pub until: Option<UnixMillis>,
    /// At most so many.
    pub limit: usize,
}
