//! Subscriptions: who wants which events, where, and how they are sent.
//!
//! Every part that exists is valid: [`EndpointUrl`] is allowed by its format,
//! [`CustomHeaders`] override nothing that Carillon sets. The JSON form and its
//! defaults are in `codec::subscription`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::event::Event;
use super::id::{SubscriptionId, TenantId};
use super::pattern::{Budget, Pattern, Selection, TypeGlob};
use super::retry::RetryOverride;
use super::target::{EndpointUrl, UrlRefusal};
use super::timestamp::UnixMillis;

mod headers;

pub use self::headers::{CustomHeaders, HEADER_VALUE_BYTES_MAX, HEADERS_MAX};

/// Longest description, in characters.
pub const DESCRIPTION_CHARS_MAX: usize = 256;
/// Most event types of one subscription.
pub const EVENT_TYPES_MAX: usize = 100;
/// Most requests per second, and most at once, of a rate limit.
pub const RATE_MAX: u32 = 1_000_000;

/// A subscription without its secrets.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Its name: `sub_…`.
    pub id: SubscriptionId,
    /// Whose events it wants.
    pub tenant: Scope,
    /// What its owner may write.
    pub spec: Spec,
    /// Why it is disabled; `None` while it is enabled.
    pub disabled_reason: Option<DisabledReason>,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When it was changed last.
    pub updated_at: UnixMillis,
}

/// What an owner may write of a subscription.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Where to.
    pub url: EndpointUrl,
    /// The shape of body and signatures.
    pub format: Format,
    /// For people.
    pub description: String,
    /// Which event types; one match suffices.
    pub event_types: Vec<TypeGlob>,
    /// Which events of those types.
    pub filter: Option<Filter>,
    /// Headers sent along.
    pub headers: CustomHeaders,
    /// The endpoint's own rate limit; `None` for the installation's.
    pub rate_limit: Option<RateLimit>,
    /// How long a whole attempt may take.
    pub timeout: Duration,
    /// The endpoint's own retry settings; `None` for the installation's.
    pub retry: Option<RetryOverride>,
    /// How requests are signed.
    pub signing: Signing,
}

impl Spec {
    /// What is sent of an event that matches; `None` for nothing, when none of its alerts does.
    pub fn selection(&self, event: &Event, budget: &Budget) -> Option<Selection> {
        let selecting = self
            .filter
            .as_ref()
            .filter(|_| event.has_selectable_alerts());
        let selection = selecting.map_or(Selection::All, |filter| {
            filter.pattern.select_alerts(&event.view(), budget)
        });
        (!selection.is_empty()).then_some(selection)
    }
}

/// Whose events a subscription wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Every tenant's: written `"*"`.
    Every,
    /// One tenant's.
    One(TenantId),
}

/// The shape of body and signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Standard Webhooks.
    Standard,
    /// Leicbit webhooks.
    Leicbit,
}

/// How requests are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signing {
    /// A shared secret (`v1`).
    HmacSha256,
    /// A key pair (`v1a`).
    Ed25519,
}

/// Why a subscription is disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisabledReason {
    /// Its owner said so.
    Manual,
    /// Its endpoint answered 410.
    Gone,
    /// It failed for too long without a success.
    Failing,
}

/// An event pattern as it was written, and compiled.
#[derive(Clone, Debug)]
pub struct Filter {
    /// As it was written.
    pub json: Value,
    /// Compiled.
    pub pattern: Arc<Pattern>,
}

/// Requests per second, and how many at once after a quiet time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    /// Sustained requests per second; more than 0.
    pub per_second: f64,
    /// Requests at once after a quiet time; at least 1.
    pub burst: u32,
}

/// What a field had to look like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {problem}")]
pub struct FieldFault {
    /// The field at fault, as a path.
    pub field: String,
    /// What was expected and what came, to follow the field's name.
    pub problem: String,
}

impl FieldFault {
    /// A fault of `field`.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

impl From<UrlRefusal> for FieldFault {
    fn from(refusal: UrlRefusal) -> Self {
        Self::new("url", refusal.problem)
    }
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 2] = [Self::Standard, Self::Leicbit];

    /// Why an endpoint of this format must be https, if it must.
    pub fn needs_https(self, require_https: bool) -> Option<&'static str> {
        match self {
            Self::Leicbit => Some("the format leicbit is sent by HTTPS only"),
            Self::Standard => require_https.then_some("`egress.require_https` is set"),
        }
    }

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Leicbit => "leicbit",
        }
    }

    /// Finds the format that has this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Whether `status` means that the endpoint has the delivery.
    pub fn acknowledges(self, status: u16) -> bool {
        match self {
            Self::Standard => (200..300).contains(&status),
            Self::Leicbit => status == 200,
        }
    }
}

impl Signing {
    /// Every way of signing.
    pub const ALL: [Self; 2] = [Self::HmacSha256, Self::Ed25519];

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::HmacSha256 => "hmac-sha256",
            Self::Ed25519 => "ed25519",
        }
    }

    /// Finds the way of signing that has this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signing| signing.name() == name)
    }
}

impl DisabledReason {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Manual, Self::Gone, Self::Failing];

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Gone => "gone",
            Self::Failing => "failing",
        }
    }

    /// Finds the reason that has this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

impl Scope {
    /// Reads a tenant, or `*` for every tenant.
    ///
    /// # Errors
    /// [`FieldFault`] of `tenant`.
    pub fn parse(text: &str) -> Result<Self, FieldFault> {
        if text == "*" {
            return Ok(Self::Every);
        }
        TenantId::parse(text)
            .map(Self::One)
            .map_err(|fault| FieldFault::new("tenant", fault.to_string()))
    }

    /// As it is written: the tenant, or `*`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Every => "*",
            Self::One(tenant) => tenant.as_str(),
        }
    }

    /// Whether `tenant`'s events are wanted.
    pub fn covers(&self, tenant: &TenantId) -> bool {
        match self {
            Self::Every => true,
            Self::One(own) => own == tenant,
        }
    }
}

impl RateLimit {
    /// Checks both numbers.
    ///
    /// # Errors
    /// [`FieldFault`] of `rate_limit.per_second` or `rate_limit.burst`.
    pub fn try_new(per_second: f64, burst: u64) -> Result<Self, FieldFault> {
        if !(per_second > 0.0 && per_second <= f64::from(RATE_MAX)) {
            let problem = format!("must be more than 0 and at most {RATE_MAX}, found {per_second}");
            return Err(FieldFault::new("rate_limit.per_second", problem));
        }
        match u32::try_from(burst) {
            Ok(burst @ 1..=RATE_MAX) => Ok(Self { per_second, burst }),
            _ => {
                let problem = format!("must be an integer from 1 to {RATE_MAX}, found {burst}");
                Err(FieldFault::new("rate_limit.burst", problem))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_keep_the_rules_of_their_format() {
        use Format::{Leicbit, Standard};
        let parse = |text, format: Format, https| {
            EndpointUrl::parse(text, format.needs_https(https)).map_err(FieldFault::from)
        };
        let ok = |text, format, https| parse(text, format, https).is_ok();
        assert!(ok("https://example.com/hook?x=1", Standard, true));
        assert!(ok("https://example.com", Leicbit, false));
        assert!(ok("http://example.com", Standard, false));
        assert!(!ok("http://example.com", Standard, true));
        assert!(!ok("http://example.com", Leicbit, false));
        assert_eq!(
            parse("ftp://example.com", Standard, false)
                .unwrap_err()
                .field,
            "url"
        );
    }

    #[test]
    fn rates_are_positive() {
        assert!(RateLimit::try_new(0.1, 1).is_ok());
        for (per_second, burst) in [(0.0, 1), (-1.0, 1), (f64::NAN, 1), (1.0, 0), (2e6, 1)] {
            assert!(RateLimit::try_new(per_second, burst).is_err());
        }
    }
}
