//! Since when endpoints fail.

use async_trait::async_trait;

use super::StoreError;
use crate::domain::id::SubscriptionId;
use crate::domain::timestamp::UnixMillis;

/// Remembers since when endpoints fail without a success: shared by all replicas, and beyond
/// restarts. Nothing is remembered of endpoints that do not fail.
#[async_trait]
pub trait EndpointHealth: Send + Sync {
    /// An attempt failed at `at`. Answers since when all have, `at` itself for the first.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn failed(
        &self,
        endpoint: &SubscriptionId,
        at: UnixMillis,
    ) -> Result<UnixMillis, StoreError>;

    /// Attempts succeeded at these times: forgets failures that began at that time or before.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn succeeded(&self, endpoints: &[(SubscriptionId, UnixMillis)])
    -> Result<(), StoreError>;

    /// All endpoints that fail, and since when.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn failing(&self) -> Result<Vec<(SubscriptionId, UnixMillis)>, StoreError>;
}
