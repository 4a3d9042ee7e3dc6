//! What stores answer when they cannot do as asked.

/// Why a store did not do as asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached or cannot write; asking again later makes sense.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// It answers, and what it held is gone: until someone says what there is to be, nothing
    /// is known, which is not the same as nothing.
    #[error("the store has lost what it held: {0}")]
    Lost(String),
    /// It holds something that cannot be read.
    #[error("the store holds a damaged record: {0}")]
    Damaged(String),
    /// It holds a secret that is encrypted with a key that we do not have. Like damage, it is the
    /// trouble of whom the record belongs to; it ends with a restart that brings the key.
    #[error(
        "the secret of subscription {subscription} is encrypted with the key `{key}`, which \
         `secrets.keys` does not have: put that key back, behind the others, and restart; if it \
         is lost, delete the subscription and create it again"
    )]
    KeyMissing {
        /// Whose secret.
        subscription: String,
        /// The id of the key.
        key: String,
    },
    /// The record was changed in between.
    #[error("the record was changed by someone else in the meantime")]
    Conflict,
}

impl StoreError {
    /// Whether asking again later makes sense, without anything being mended in the record.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Lost(_))
    }
}
