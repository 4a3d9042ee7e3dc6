//! How many deliveries began, and how they ended.

use async_trait::async_trait;

use super::StoreError;
use crate::domain::accounts::Sums;

/// Keeps the accounts of all processes together, and beyond restarts.
///
/// A process that ends without a word takes with it what it has not told yet.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// This process has counted `own` since it began, in place of what it said before: so saying
    /// it again changes nothing. Answers what all have counted.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn tell(&self, own: Sums) -> Result<Sums, StoreError>;
}
