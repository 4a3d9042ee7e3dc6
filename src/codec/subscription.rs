//! Subscriptions as JSON: what the API reads and shows, and the record at rest.
//!
//! Reading names the field at fault and what it must look like (contract section 2).

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::domain::event::kind_of;
use crate::domain::pattern::{Pattern, TypeGlob};
use crate::domain::retry::Exponential;
use crate::domain::signature::{Secret, Secrets};
use crate::domain::subscription::{
    CustomHeaders, DESCRIPTION_CHARS_MAX, DisabledReason, EVENT_TYPES_MAX, FieldFault, Filter,
    Format, RateLimit, Scope, Signing, Spec, Subscription,
};
use crate::domain::target::EndpointUrl;

pub mod declared;
mod patch;
mod record;
mod retry;
mod survey;

pub use patch::merge_patch;
pub use record::{decode_record, encode_record};
use retry::{retry, show_retry};
pub use survey::Survey;

/// How long an attempt may take, in milliseconds.
pub const TIMEOUT_MS: RangeInclusive<u64> = 100..=60_000;

/// What the installation says about subscriptions.
#[derive(Clone, Copy, Debug)]
pub struct SpecRules {
    /// Whether it was accepted before: what came since does not apply.
    pub is_stored: bool,
    /// `egress.require_https`
    pub require_https: bool,
    /// `delivery.timeout`
    pub timeout: Duration,
    /// `[retry]`, which a subscription's own settings change.
    pub retry: Exponential,
}

/// A subscription as its owner wrote it.
#[derive(Clone, Debug)]
pub struct Written {
    /// Whose events it wants.
    pub tenant: Scope,
    /// All else.
    pub spec: Spec,
    /// Whether it is to be enabled.
    pub enabled: bool,
}

/// What an owner may write.
pub const WRITABLE: &[&str] = &[
    "tenant",
    "url",
    "format",
    "description",
    "enabled",
    "event_types",
    "filter",
    "headers",
    "rate_limit",
    "timeout_ms",
    "retry",
    "signing",
];
/// Shown, and ignored when written back as they were shown.
pub const READ_ONLY: &[&str] = &[
    "id",
    "disabled_reason",
    "created_at",
    "updated_at",
    "public_key",
    "warnings",
];

/// Reads a whole subscription; what is absent or null has its default.
///
/// # Errors
/// [`FieldFault`] of the first field that breaks its rule.
pub fn read(document: &Map<String, Value>, rules: &SpecRules) -> Result<Written, FieldFault> {
    known_fields("", document, &[WRITABLE, READ_ONLY])?;
    let field = |name: &str| document.get(name).filter(|value| !value.is_null());
    let format = match field("format") {
        None => Format::Standard,
        Some(value) => {
            let expected = "must be \"standard\" or \"leicbit\"";
            one_of("format", value, expected, Format::from_name)?
        }
    };
    let signing = match field("signing") {
        None => Signing::HmacSha256,
        Some(value) => {
            let expected = "must be \"hmac-sha256\" or \"ed25519\"";
            one_of("signing", value, expected, Signing::from_name)?
        }
    };
    if (format, signing) == (Format::Leicbit, Signing::Ed25519) {
        let problem =
            "must be \"hmac-sha256\" with the format leicbit, whose own signature is an HMAC";
        return Err(FieldFault::new("signing", problem));
    }
    let required = |name: &str| {
        let missing = || FieldFault::new(name, "is missing");
        text(name, field(name).ok_or_else(missing)?)
    };
    Ok(Written {
        tenant: Scope::parse(required("tenant")?)?,
        enabled: field("enabled").map_or(Ok(true), |value| boolean("enabled", value))?,
        spec: Spec {
            url: url(required("url")?, format, rules)?,
            format,
            description: field("description")
                .map_or(Ok(String::new()), |value| description(value, rules))?,
            event_types: field("event_types").map_or_else(any_type, event_types)?,
            filter: field("filter")
                .map(|value| filter(value, rules))
                .transpose()?,
            headers: field("headers").map_or_else(
                || Ok(CustomHeaders::default()),
                |value| headers(value, rules),
            )?,
            rate_limit: field("rate_limit").map(rate_limit).transpose()?,
            timeout: field("timeout_ms").map_or(Ok(rules.timeout), timeout)?,
            retry: field("retry")
                .map(|value| retry(value, &rules.retry))
                .transpose()?,
            signing,
        },
    })
}

fn url(text: &str, format: Format, rules: &SpecRules) -> Result<EndpointUrl, FieldFault> {
    let url = match rules.is_stored {
        true => EndpointUrl::parse_stored(text),
        false => EndpointUrl::parse(text, format.needs_https(rules.require_https)),
    };
    Ok(url?)
}

/// The subscription as the API shows it. `secrets` only serves the public key.
pub fn show(subscription: &Subscription, secrets: &Secrets) -> Map<String, Value> {
    let spec = &subscription.spec;
    let types: Vec<&str> = spec.event_types.iter().map(TypeGlob::as_str).collect();
    let headers: Map<String, Value> = spec
        .headers
        .iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    let mut shown = Map::new();
    let mut set = |name: &str, value: Value| shown.insert(name.to_owned(), value);
    set("id", subscription.id.as_str().into());
    set("tenant", subscription.tenant.as_str().into());
    set("url", spec.url.as_str().into());
    set("format", spec.format.name().into());
    set("description", spec.description.as_str().into());
    set("enabled", subscription.disabled_reason.is_none().into());
    set("event_types", types.into());
    set(
        "filter",
        spec.filter.as_ref().map_or(Value::Null, |f| f.json.clone()),
    );
    set("headers", headers.into());
    set(
        "rate_limit",
        spec.rate_limit.map_or(Value::Null, show_rate_limit),
    );
    set("timeout_ms", json!(millis(spec.timeout)));
    set(
        "retry",
        spec.retry.map_or(Value::Null, |retry| show_retry(&retry)),
    );
    set("signing", spec.signing.name().into());
    let disabled = subscription.disabled_reason.map(DisabledReason::name);
    set("disabled_reason", disabled.into());
    set("created_at", subscription.created_at.to_string().into());
    set("updated_at", subscription.updated_at.to_string().into());
    if spec.signing == Signing::Ed25519 {
        set("public_key", secrets.current.public_key().into());
    }
    shown
}

/// The secret as it is shown once.
pub fn show_secret(secret: &Secret, signing: Signing) -> Value {
    match signing {
        Signing::HmacSha256 => json!({"hex": *secret.to_hex(), "whsec": *secret.to_whsec()}),
        Signing::Ed25519 => json!({"public_key": secret.public_key()}),
    }
}

fn known_fields(
    path: &str,
    object: &Map<String, Value>,
    known: &[&[&str]],
) -> Result<(), FieldFault> {
    for name in object.keys() {
        if known.iter().any(|names| names.contains(&name.as_str())) {
            continue;
        }
        let nearest = known
            .iter()
            .flat_map(|names| names.iter())
            .max_by(|a, b| strsim::jaro(a, name).total_cmp(&strsim::jaro(b, name)));
        let problem = match nearest.filter(|near| strsim::jaro(near, name) > 0.7) {
            Some(near) => format!("is not known; did you mean `{near}`?"),
            None => "is not known".to_owned(),
        };
        return Err(FieldFault::new(format!("{path}{name}"), problem));
    }
    Ok(())
}

/// A value as a fault names it: longer text only by its kind, as it may be a secret that was
/// written in the wrong place.
fn named(value: &Value) -> String {
    const CHARS_MAX: usize = 20;
    match value {
        Value::String(text) if text.chars().count() > CHARS_MAX => kind_of(value).to_owned(),
        Value::Array(_) | Value::Object(_) => kind_of(value).to_owned(),
        short => short.to_string(),
    }
}

fn wrong(field: &str, expected: &str, found: &Value) -> FieldFault {
    FieldFault::new(
        field,
        format!("must be {expected}, found {}", kind_of(found)),
    )
}

fn text<'a>(field: &str, value: &'a Value) -> Result<&'a str, FieldFault> {
    value
        .as_str()
        .ok_or_else(|| wrong(field, "a string", value))
}

fn boolean(field: &str, value: &Value) -> Result<bool, FieldFault> {
    value
        .as_bool()
        .ok_or_else(|| wrong(field, "true or false", value))
}

fn object<'a>(field: &str, value: &'a Value) -> Result<&'a Map<String, Value>, FieldFault> {
    value
        .as_object()
        .ok_or_else(|| wrong(field, "an object", value))
}

fn one_of<T>(
    field: &str,
    value: &Value,
    expected: &str,
    find: impl Fn(&str) -> Option<T>,
) -> Result<T, FieldFault> {
    value
        .as_str()
        .and_then(find)
        .ok_or_else(|| FieldFault::new(field, format!("{expected}, found {}", named(value))))
}

fn description(value: &Value, rules: &SpecRules) -> Result<String, FieldFault> {
    let text = text("description", value)?;
    let found = text.chars().count();
    if found > DESCRIPTION_CHARS_MAX {
        let problem = format!("must be at most {DESCRIPTION_CHARS_MAX} characters, found {found}");
        return Err(FieldFault::new("description", problem));
    }
    // It is shown on terminals and in logs.
    let control = |c: &char| c.is_control() && !matches!(c, '\n' | '\t');
    if let Some(c) = text.chars().find(control).filter(|_| !rules.is_stored) {
        let problem =
            format!("must have no control characters but line breaks and tabs, found {c:?}");
        return Err(FieldFault::new("description", problem));
    }
    Ok(text.to_owned())
}

fn any_type() -> Result<Vec<TypeGlob>, FieldFault> {
    TypeGlob::parse("*")
        .map(|any| vec![any])
        .map_err(|fault| FieldFault::new("event_types", fault.to_string()))
}

fn event_types(value: &Value) -> Result<Vec<TypeGlob>, FieldFault> {
    let field = "event_types";
    let types = value
        .as_array()
        .ok_or_else(|| wrong(field, "an array of event types or globs", value))?;
    if !(1..=EVENT_TYPES_MAX).contains(&types.len()) {
        let found = types.len();
        let problem = format!("must have 1 to {EVENT_TYPES_MAX} entries, found {found}");
        return Err(FieldFault::new(field, problem));
    }
    let read_one = |(i, value): (usize, &Value)| {
        let field = format!("{field}[{i}]");
        let glob = text(&field, value)?;
        TypeGlob::parse(glob).map_err(|fault| FieldFault::new(field, fault.to_string()))
    };
    types.iter().enumerate().map(read_one).collect()
}

fn filter(value: &Value, rules: &SpecRules) -> Result<Filter, FieldFault> {
    object("filter", value)?;
    let compiled = match rules.is_stored {
        true => Pattern::compile_stored(value),
        false => Pattern::compile(value),
    };
    let pattern = compiled.map_err(|error| {
        let field = match error.path.as_str() {
            "" => "filter".to_owned(),
            path => format!("filter.{path}"),
        };
        FieldFault::new(field, error.problem)
    })?;
    Ok(Filter {
        json: value.clone(),
        pattern: Arc::new(pattern),
    })
}

fn headers(value: &Value, rules: &SpecRules) -> Result<CustomHeaders, FieldFault> {
    let mut read = Vec::new();
    for (name, value) in object("headers", value)? {
        let field = format!("headers.{name}");
        read.push((name.clone(), text(&field, value)?.to_owned()));
    }
    match rules.is_stored {
        true => CustomHeaders::try_stored(read),
        false => CustomHeaders::try_new(read),
    }
}

fn rate_limit(value: &Value) -> Result<RateLimit, FieldFault> {
    let field = "rate_limit";
    let parts = object(field, value)?;
    known_fields("rate_limit.", parts, &[&["per_second", "burst"]])?;
    let per_second = match parts.get("per_second") {
        None => return Err(FieldFault::new("rate_limit.per_second", "is missing")),
        Some(value) => value
            .as_f64()
            .ok_or_else(|| wrong("rate_limit.per_second", "a number", value))?,
    };
    let burst = match parts.get("burst") {
        None => return Err(FieldFault::new("rate_limit.burst", "is missing")),
        Some(value) => value
            .as_u64()
            .ok_or_else(|| wrong("rate_limit.burst", "an integer of at least 1", value))?,
    };
    RateLimit::try_new(per_second, burst)
}

fn timeout(value: &Value) -> Result<Duration, FieldFault> {
    match value.as_u64() {
        Some(ms) if TIMEOUT_MS.contains(&ms) => Ok(Duration::from_millis(ms)),
        _ => {
            let (min, max) = (TIMEOUT_MS.start(), TIMEOUT_MS.end());
            let found = named(value);
            let problem = format!("must be an integer from {min} to {max}, found {found}");
            Err(FieldFault::new("timeout_ms", problem))
        }
    }
}

fn show_rate_limit(limit: RateLimit) -> Value {
    json!({"per_second": limit.per_second, "burst": limit.burst})
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> SpecRules {
        SpecRules {
            is_stored: false,
            require_https: false,
            timeout: Duration::from_secs(10),
            retry: Exponential::default(),
        }
    }

    pub(super) fn try_read(document: &Value) -> Result<Written, FieldFault> {
        read(document.as_object().unwrap(), &rules())
    }

    #[test]
    fn defaults_fill_what_is_absent() {
        let written = try_read(&json!({"tenant": "acme", "url": "https://example.com/"})).unwrap();
        assert!(written.enabled);
        assert_eq!(written.spec.format, Format::Standard);
        assert_eq!(written.spec.timeout, Duration::from_secs(10));
        assert_eq!(written.spec.event_types[0].as_str(), "*");
    }

    #[test]
    fn every_field_names_its_fault() {
        let cases = [
            (json!({"tenant": null}), "tenant"),
            (json!({"tenant": "a b"}), "tenant"),
            (json!({"url": 5}), "url"),
            (
                json!({"url": "http://example.com", "format": "leicbit"}),
                "url",
            ),
            (json!({"format": "xml"}), "format"),
            (json!({"description": "x".repeat(257)}), "description"),
            (json!({"description": 1}), "description"),
            (json!({"description": "a\u{0}"}), "description"),
            (json!({"description": "\u{1b}[31m"}), "description"),
            (json!({"description": "\u{9b}31m"}), "description"),
            (json!({"enabled": "yes"}), "enabled"),
            (json!({"event_types": "*"}), "event_types"),
            (json!({"event_types": []}), "event_types"),
            (json!({"event_types": ["a", 1]}), "event_types[1]"),
            (json!({"event_types": ["a b"]}), "event_types[0]"),
            (json!({"headers": []}), "headers"),
            (json!({"headers": {"x-a": 1}}), "headers.x-a"),
            (
                json!({"headers": {"Webhook-Id": "x"}}),
                "headers.Webhook-Id",
            ),
            (json!({"rate_limit": 5}), "rate_limit"),
            (json!({"rate_limit": {"burst": 1}}), "rate_limit.per_second"),
            (json!({"rate_limit": {"per_second": 1}}), "rate_limit.burst"),
            (
                json!({"rate_limit": {"per_second": 0, "burst": 1}}),
                "rate_limit.per_second",
            ),
            (
                json!({"rate_limit": {"per_second": 1, "burst": 1.5}}),
                "rate_limit.burst",
            ),
            (json!({"timeout_ms": 99}), "timeout_ms"),
            (json!({"timeout_ms": 60001}), "timeout_ms"),
            (json!({"retry": {"max_attempts": 0}}), "retry.max_attempts"),
            (json!({"retry": {"initial_ms": 0}}), "retry.initial_ms"),
            (json!({"retry": {"multiplier": 0.5}}), "retry.multiplier"),
            (json!({"retry": {"max_ms": 10}}), "retry.max_ms"),
            (json!({"retry": {"tries": 10}}), "retry.tries"),
            (json!({"signing": "rsa"}), "signing"),
            (
                json!({"signing": "ed25519", "format": "leicbit"}),
                "signing",
            ),
            (json!({"colour": "red"}), "colour"),
        ];
        for (change, field) in cases {
            let mut document = json!({"tenant": "acme", "url": "https://example.com/"});
            let target = document.as_object_mut().unwrap();
            for (key, value) in change.as_object().unwrap() {
                target.insert(key.clone(), value.clone());
            }
            assert_eq!(try_read(&document).unwrap_err().field, field, "{change}");
        }
        let fault = try_read(&json!({"tenant": "a", "URL": "https://example.com"})).unwrap_err();
        assert!(fault.problem.contains("not known"), "{fault}");
        let fault = try_read(&json!({"tenant": "a", "event_type": []})).unwrap_err();
        assert!(fault.problem.contains("`event_types`"), "{fault}");
        let filtered =
            json!({"tenant": "a", "url": "https://example.com/", "filter": {"nope": [1]}});
        assert!(try_read(&filtered).unwrap_err().field.starts_with("filter"));
    }
}
