//! Names of things: events, tenants, event types, subscriptions, deliveries.
//!
//! Each is a checked string that is cheap to clone. Making an identifier from
//! randomness takes the random bytes as an argument.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::timestamp::UnixMillis;

/// Longest event id, tenant and event type, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// What an identifier had to look like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be {expected}, found {found}")]
pub struct IdFault {
    /// The rule, to follow "must be".
    pub expected: &'static str,
    /// What came instead, shortened.
    pub found: String,
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes over `text`.
            ///
            /// # Errors
            /// [`IdFault`] with the rule and what came instead.
            pub fn parse(text: &str) -> Result<Self, IdFault> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(IdFault { expected: $expected, found: shown(text) })
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

identifier!(
    /// The publisher's idempotency key: 1 to 128 visible ASCII characters.
    EventId,
    "1 to 128 visible ASCII characters",
    is_visible_name
);
identifier!(
    /// The account whose subscriptions may match: 1 to 128 visible ASCII characters.
    TenantId,
    "1 to 128 visible ASCII characters",
    is_visible_name
);
identifier!(
    /// What happened: dot-separated words of `[A-Za-z0-9_-]`, at most 128 characters.
    EventType,
    "dot-separated words of [A-Za-z0-9_-], at most 128 characters",
    is_event_type
);
identifier!(
    /// `sub_` and 1 to 64 of `[A-Za-z0-9]`.
    SubscriptionId,
    "sub_ followed by 1 to 64 of [A-Za-z0-9]",
    |text| is_prefixed(text, "sub_")
);
identifier!(
    /// One event for one subscription: `msg_` and 1 to 64 of `[A-Za-z0-9]`. It is the
    /// `webhook-id`, and so the same on every attempt, resend and republish.
    DeliveryId,
    "msg_ followed by 1 to 64 of [A-Za-z0-9]",
    |text| is_prefixed(text, "msg_")
);

impl SubscriptionId {
    /// A new id: ids made later sort later.
    pub fn make(now: UnixMillis, random: [u8; 10]) -> Self {
        let at = now.0.to_be_bytes();
        Self(format!("sub_{}{}", hex::encode(&at[2..]), hex::encode(random)).into())
    }

    /// The id of the one that is made in `scope` under an idempotency key: always the same.
    pub fn of_key(scope: &str, key: &str) -> Self {
        let digest = digest_of("carillon.idempotency.v1", &[scope, key]);
        Self(format!("sub_{}", hex::encode(&digest[..16])).into())
    }
}

impl DeliveryId {
    /// Derives the id from what makes a delivery one: tenant, event id, subscription.
    ///
    /// A truncated SHA-256 (FIPS 180-4) over the length-prefixed parts, so that two
    /// different triples never share their input and nothing a publisher chose shows.
    pub fn derive(tenant: &TenantId, event: &EventId, subscription: &SubscriptionId) -> Self {
        let parts = [tenant.as_str(), event.as_str(), subscription.as_str()];
        let digest = digest_of("carillon.delivery.v1", &parts);
        Self(format!("msg_{}", hex::encode(&digest[..16])).into())
    }
}

/// What the ledger remembers things by: a hash of their identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LedgerKey(pub [u8; 16]);

impl LedgerKey {
    /// The key of `event` within `tenant`: its publisher's idempotency key.
    pub fn of_event(tenant: &TenantId, event: &EventId) -> Self {
        let digest = digest_of("carillon.event.v1", &[tenant.as_str(), event.as_str()]);
        Self::shortened(&digest)
    }

    /// The key of the part of `event` that begins after a subscription.
    pub fn of_rest(event: Self, after: &SubscriptionId) -> Self {
        let event = hex::encode(event.0);
        Self::shortened(&digest_of("carillon.rest.v1", &[&event, after.as_str()]))
    }

    /// The key of one wait of `delivery`: that after its move number `hops` within `series`,
    /// counted since its event was taken at `taken_at`.
    pub fn of_wait(delivery: &DeliveryId, taken_at: UnixMillis, series: u64, hops: u32) -> Self {
        let numbers = [taken_at.0.to_string(), series.to_string(), hops.to_string()];
        let [taken_at, series, hops] = numbers.each_ref().map(String::as_str);
        let parts = [delivery.as_str(), taken_at, series, hops];
        Self::shortened(&digest_of("carillon.wait.v1", &parts))
    }

    fn shortened(digest: &[u8; 32]) -> Self {
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        Self(key)
    }
}

impl fmt::Debug for LedgerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

fn digest_of(domain: &str, parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(domain.as_bytes());
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

fn is_visible_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

fn is_event_type(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX
        && text.split('.').all(|word| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        })
}

fn is_prefixed(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|rest| {
        (1..=64).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

/// `text` quoted and shortened for an error message.
pub fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let mut short: String = text.chars().take(CHARS_MAX).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        short.push('…');
    }
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_rules() {
        let longest = "x".repeat(128);
        for good in ["a", "a b".trim_end_matches(" b"), "!~", longest.as_str()] {
            assert!(EventId::parse(good).is_ok(), "{good}");
            assert!(TenantId::parse(good).is_ok(), "{good}");
        }
        let too_long = "x".repeat(129);
        for bad in ["", " ", "a b", "é", "a\n", "\u{7f}", too_long.as_str()] {
            assert!(EventId::parse(bad).is_err(), "{bad}");
            assert!(TenantId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn event_types_keep_their_rules() {
        for good in [
            "a",
            "a.b",
            "credential_theft_detected",
            "lookup_result.alerts",
            "A-1.b_2",
        ] {
            assert!(EventType::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a b",
            "a*",
            "é",
            &"x".repeat(129),
        ] {
            assert!(EventType::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn delivery_ids_depend_on_every_part_and_show_none() {
        let id = |tenant: &str, event: &str, subscription: &str| {
            DeliveryId::derive(
                &TenantId::parse(tenant).unwrap(),
                &EventId::parse(event).unwrap(),
                &SubscriptionId::parse(subscription).unwrap(),
            )
        };
        let base = id("acme", "evt1", "sub_1");
        assert_eq!(base, id("acme", "evt1", "sub_1"));
        assert_eq!(base.as_str().len(), "msg_".len() + 32);
        for other in [
            id("acm", "eevt1", "sub_1"),
            id("acme", "evt2", "sub_1"),
            id("acme", "evt1", "sub_2"),
        ] {
            assert_ne!(base, other);
        }
        assert!(DeliveryId::parse(base.as_str()).is_ok());
    }

    #[test]
    fn subscription_ids_sort_by_when_they_were_made() {
        let early = SubscriptionId::make(UnixMillis(1_000), [255; 10]);
        let late = SubscriptionId::make(UnixMillis(1_001), [0; 10]);
        assert!(early < late);
        assert!(SubscriptionId::parse(early.as_str()).is_ok());
        assert!(SubscriptionId::parse("sub_").is_err());
        assert!(SubscriptionId::parse("sub_a-b").is_err());
    }
}
