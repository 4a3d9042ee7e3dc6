//! Bytes to domain and back: events in three encodings, deliveries, attempts, subscriptions.
//!
//! Knows encodings, not where bytes come from or go to.

pub mod attempt;
pub mod delivery;
pub mod event;
pub mod notice;
pub mod proto;
pub mod subscription;
pub mod tenant_token;
pub mod vault;
