//! Subscriptions: who wants which events, where, and how they are sent.
//!
//! Every part that exists is valid: [`EndpointUrl`] is allowed by its format,
//! [`CustomHeaders`] override nothing that Carillon sets. The JSON form and its
//! defaults are in `codec::subscription`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::id::{SubscriptionId, TenantId};
use super::pattern::{Pattern, TypeGlob};
use super::retry::RetryOverride;
use super::target::{EndpointUrl, UrlRefusal};
use super::timestamp::UnixMillis;

/// Longest description, in characters.
pub const DESCRIPTION_CHARS_MAX: usize = 256;
/// Most custom headers.
pub const HEADERS_MAX: usize = 20;
/// Longest value of a custom header, in bytes.
pub const HEADER_VALUE_BYTES_MAX: usize = 4096;
/// Most event types of one subscription.
pub const EVENT_TYPES_MAX: usize = 100;

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
        [Self::Standard, Self::Leicbit]
            .into_iter()
            .find(|format| format.name() == name)
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
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::HmacSha256 => "hmac-sha256",
            Self::Ed25519 => "ed25519",
        }
    }

    /// Finds the way of signing that has this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::HmacSha256, Self::Ed25519]
            .into_iter()
            .find(|signing| signing.name() == name)
    }
}

impl DisabledReason {
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
        [Self::Manual, Self::Gone, Self::Failing]
            .into_iter()
            .find(|reason| reason.name() == name)
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
        if !(per_second > 0.0 && per_second <= 1e6) {
            let problem = format!("must be more than 0 and at most 1000000, found {per_second}");
            return Err(FieldFault::new("rate_limit.per_second", problem));
        }
        match u32::try_from(burst) {
            Ok(burst @ 1..=1_000_000) => Ok(Self { per_second, burst }),
            _ => {
                let problem = format!("must be an integer from 1 to 1000000, found {burst}");
                Err(FieldFault::new("rate_limit.burst", problem))
            }
        }
    }
}

/// Headers that a subscription sends along, names in lower case. Its `Debug` shows the names: a value may be a token.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CustomHeaders(Vec<(String, String)>);

impl fmt::Debug for CustomHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

impl CustomHeaders {
    /// Checks names and values.
    ///
    /// # Errors
    /// [`FieldFault`] of `headers`: too many, a name that Carillon or the connection
    /// sets itself, or characters that a header cannot hold.
    pub fn try_new(
        headers: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, FieldFault> {
        let mut checked: Vec<(String, String)> = Vec::new();
        for (name, value) in headers {
            let field = || format!("headers.{}", name.escape_default());
            let lower = name.to_ascii_lowercase();
            if let Some(problem) = name_problem(&lower).or_else(|| value_problem(&value)) {
                return Err(FieldFault::new(field(), problem));
            }
            if checked.iter().any(|(known, _)| *known == lower) {
                return Err(FieldFault::new(field(), "is given twice"));
            }
            checked.push((lower, value));
        }
        if checked.len() > HEADERS_MAX {
            let problem = format!(
                "must be at most {HEADERS_MAX} headers, found {}",
                checked.len()
            );
            return Err(FieldFault::new("headers", problem));
        }
        Ok(Self(checked))
    }

    /// The headers, names in lower case.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Headers that Carillon sets, or that belong to the connection (RFC 9110 section 7.6.1).
const RESERVED_HEADERS: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "x-leicbit-signature",
    "x-webhook-has-more",
];

fn name_problem(lower: &str) -> Option<String> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if lower.is_empty() || lower.len() > 128 || !lower.bytes().all(is_token) {
        return Some("is not a header name (RFC 9110 section 5.1)".to_owned());
    }
    let reserved = RESERVED_HEADERS.contains(&lower)
        || lower.starts_with("webhook-")
        || lower.starts_with("proxy-");
    reserved.then(|| "is set by Carillon or the connection and cannot be overridden".to_owned())
}

fn value_problem(value: &str) -> Option<String> {
    if value.len() > HEADER_VALUE_BYTES_MAX {
        let found = value.len();
        return Some(format!(
            "must be at most {HEADER_VALUE_BYTES_MAX} bytes, found {found}"
        ));
    }
    let fits = |b: u8| b == b'\t' || (b' '..=b'~').contains(&b);
    if !value.bytes().all(fits) {
        return Some("must be visible ASCII, spaces and tabs; no line breaks".to_owned());
    }
    (value.trim() != value).then(|| "must not begin or end with a space".to_owned())
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
    fn headers_override_nothing() {
        let try_one =
            |name: &str, value: &str| CustomHeaders::try_new([(name.to_owned(), value.to_owned())]);
        let kept = try_one("X-Api-Key", "k").unwrap();
        assert_eq!(kept.iter().collect::<Vec<_>>(), [("x-api-key", "k")]);
        assert!(try_one("authorization", "Bearer x").is_ok());
        for name in [
            "Content-Type",
            "webhook-id",
            "Webhook-Anything",
            "HOST",
            "a b",
            "",
            "x:y",
            "é",
        ] {
            assert!(try_one(name, "v").is_err(), "{name}");
        }
        for value in ["a\r\nb", "a\nb", "\0", "é", " a", "a "] {
            assert!(try_one("x-a", value).is_err(), "{value:?}");
        }
        let many = (0..21).map(|i| (format!("x-{i}"), String::new()));
        assert_eq!(CustomHeaders::try_new(many).unwrap_err().field, "headers");
        let twice = [("x-a", "1"), ("X-A", "2")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert!(CustomHeaders::try_new(twice).is_err());
    }

    #[test]
    fn rates_are_positive() {
        assert!(RateLimit::try_new(0.1, 1).is_ok());
        for (per_second, burst) in [(0.0, 1), (-1.0, 1), (f64::NAN, 1), (1.0, 0), (2e6, 1)] {
            assert!(RateLimit::try_new(per_second, burst).is_err());
        }
    }
}
