//! What subscriptions look like, as schemas: written, shown, declared.
//!
//! The readers are in `codec::subscription`; bounds come from the constants that they check by.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::super::openapi::{Schemas, parts};
use crate::codec::subscription::{READ_ONLY, TIMEOUT_MS, WRITABLE};
use crate::domain::address::EgressRule;
use crate::domain::pattern::GLOB_BYTES_MAX;
use crate::domain::retry::{ATTEMPTS_MAX, DELAY_MAX};
use crate::domain::subscription::{
    DESCRIPTION_CHARS_MAX, DisabledReason, EVENT_TYPES_MAX, Format, HEADER_VALUE_BYTES_MAX,
    HEADERS_MAX, RATE_MAX, Signing,
};
use crate::domain::target::URL_BYTES_MAX;

/// What a subscription cannot be without.
const REQUIRED: [&str; 2] = ["tenant", "url"];

/// A subscription as it is shown, which `codec::subscription::show` makes.
pub struct Shown;

impl JsonSchema for Shown {
    fn schema_name() -> Cow<'static, str> {
        "Subscription".into()
    }

    fn json_schema(_: &mut Schemas) -> Schema {
        parts::field::schema(object_of_shown(shown_members()))
    }
}

/// The same, with warnings and, where it was made just now, its secret.
pub fn made(schemas: &mut Schemas) -> Value {
    let secret = secret_made(schemas);
    parts::named(schemas, "SubscriptionWritten", || {
        let mut members = shown_members();
        members.insert("secret".to_owned(), secret);
        members.insert("warnings".to_owned(), warnings());
        object_of_shown(members)
    })
}

/// What a new subscription is made of.
pub fn written(schemas: &mut Schemas) -> Value {
    parts::named(schemas, "NewSubscription", || whole(written_members()))
}

/// A merge patch of one.
pub fn patch(schemas: &mut Schemas) -> Value {
    parts::named(schemas, "SubscriptionPatch", || {
        let mut document = document_of(written_members());
        // What is there is merged with what comes: a part will do.
        if let Some(limit) = document["properties"]["rate_limit"].as_object_mut() {
            limit.remove("required");
        }
        document["properties"]["headers"]["additionalProperties"] = parts::or_null(header_value());
        let about = "A JSON merge patch (RFC 7396): what is named is changed, null gives the default, \
            and what is not named stays as it is. `id`, `created_at` and `tenant` stay as they are.";
        parts::about(document, about)
    })
}

/// One as it is to be, with the id and the secret that it is to have.
pub fn declared(schemas: &mut Schemas) -> Value {
    parts::named(schemas, "DeclaredSubscription", || {
        let mut members = written_members();
        let id = parts::about(
            parts::subscription_id(),
            "Its id; one is made when it has none.",
        );
        members.insert("id".to_owned(), id);
        members.insert("secret".to_owned(), given_secret());
        whole(members)
    })
}

/// What declaring did to each.
pub fn declarations(schemas: &mut Schemas) -> Value {
    let secret = secret_made(schemas);
    let item = json!({
        "type": "object",
        "required": ["id", "action"],
        "properties": {
            "id": parts::about(
                parts::or_null(parts::subscription_id()),
                "Null in a dry run where it has none yet.",
            ),
            "action": parts::one_of(["created", "updated", "unchanged"]),
            "changes": {
                "type": "array",
                "items": { "type": "string" },
                "description": "In a dry run: the fields that would change.",
            },
            "secret": secret,
            "warnings": warnings(),
        },
    });
    parts::named(schemas, "Declarations", || {
        let count = json!({ "type": "integer", "minimum": 0 });
        json!({
            "type": "object",
            "required": ["created", "updated", "unchanged", "items"],
            "properties": {
                "created": count, "updated": count, "unchanged": count,
                "items": { "type": "array", "items": item },
                "dry_run": { "const": true, "description": "Nothing was done." },
            },
        })
    })
}

/// The same, where there may be one.
fn secret_made(schemas: &mut Schemas) -> Value {
    let about = "Its secret, shown this once: where it was made by this call.";
    parts::about(secret(schemas), about)
}

/// A secret as it is shown once.
pub fn secret(schemas: &mut Schemas) -> Value {
    parts::named(schemas, "Secret", || {
        let hmac = json!({
            "title": "HMAC-SHA256",
            "type": "object",
            "required": ["hex", "whsec"],
            "properties": {
                "hex": { "type": "string", "pattern": "^[0-9a-f]{64}$" },
                "whsec": { "type": "string", "pattern": "^whsec_[A-Za-z0-9+/]{43}=$" },
            },
        });
        let ed25519 = json!({
            "title": "Ed25519",
            "type": "object",
            "required": ["public_key"],
            "properties": { "public_key": public_key() },
        });
        json!({
            "description": "A shared secret in both its forms, or the public key that verifies.",
            "oneOf": [hmac, ed25519],
        })
    })
}

fn shown_members() -> Map<String, Value> {
    let reasons = parts::or_null(parts::one_of(DisabledReason::ALL.map(DisabledReason::name)));
    let mut members = written_members();
    for (name, schema) in &mut members {
        // It may have been written by older rules.
        let is_name = matches!(name.as_str(), "url" | "description");
        if let Some(schema) = schema.as_object_mut().filter(|_| is_name) {
            schema.retain(|key, _| matches!(key.as_str(), "type" | "description"));
        }
        if matches!(name.as_str(), "filter" | "rate_limit" | "retry") {
            *schema = parts::or_null(schema.take());
        }
    }
    if let Some(headers) = members.get_mut("headers") {
        *headers = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    }
    let mut add = |name: &str, schema: Value| members.insert(name.to_owned(), schema);
    add("id", parts::subscription_id());
    add(
        "disabled_reason",
        parts::about(reasons, "Why it is disabled, if it is."),
    );
    add("created_at", parts::time());
    add("updated_at", parts::time());
    add("public_key", public_key());
    members
}

/// Each field that an owner may write.
fn written_members() -> Map<String, Value> {
    let members = json!({
        "tenant": parts::about(parts::scope(), "Whose events it wants; `*` is every tenant's, and the admin's alone."),
        "url": url(),
        "format": parts::about(
            with_default(parts::one_of(Format::ALL.map(Format::name)), "standard"),
            "The shape of body and signatures. `leicbit` is sent by HTTPS only.",
        ),
        "description": {
            "type": "string", "maxLength": DESCRIPTION_CHARS_MAX, "default": "",
            "pattern": "^[^\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f]*$",
            "description": "For people: no control characters but line breaks and tabs.",
        },
        "enabled": { "type": "boolean", "default": true },
        "event_types": {
            "type": "array", "minItems": 1, "maxItems": EVENT_TYPES_MAX, "default": ["*"],
            "items": {
                "type": "string", "maxLength": GLOB_BYTES_MAX,
                "pattern": "^([A-Za-z0-9_-]+(\\.[A-Za-z0-9_-]+)*|[A-Za-z0-9_.-]*\\*[A-Za-z0-9_.*-]*)$",
            },
            "description": "Which event types: exact ones, or globs such as `lookup_result.*`. One match suffices.",
        },
        "filter": {
            "type": "object", "minProperties": 1, "additionalProperties": true,
            "description": "Which events of those types: an event pattern of Amazon EventBridge over `id`, \
                `type`, `tenant`, `timestamp` and `data`.",
        },
        "headers": {
            "type": "object", "maxProperties": HEADERS_MAX, "default": {},
            "propertyNames": { "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$" },
            "additionalProperties": header_value(),
            "description": "Sent along with each request; none that Carillon or the connection sets.",
        },
        "rate_limit": rate_limit(),
        "timeout_ms": {
            "type": "integer", "minimum": TIMEOUT_MS.start(), "maximum": TIMEOUT_MS.end(),
            "description": "How long a whole attempt may take; the installation's when absent.",
        },
        "retry": retry(),
        "signing": parts::about(
            with_default(parts::one_of(Signing::ALL.map(Signing::name)), "hmac-sha256"),
            "How requests are signed; `leicbit` needs `hmac-sha256`.",
        ),
    });
    match members {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

fn url() -> Value {
    json!({
        "type": "string", "format": "uri", "maxLength": URL_BYTES_MAX,
        "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@\\\\]+([/?][^#\\\\]*)?$",
        "description": "Where to: https, or http with the format `standard` unless `egress.require_https` \
            is set. No user name, no fragment, no port of another service.",
    })
}

fn header_value() -> Value {
    json!({
        "type": "string", "maxLength": HEADER_VALUE_BYTES_MAX,
        "pattern": "^([!-~]([\\t -~]*[!-~])?)?$",
    })
}

fn rate_limit() -> Value {
    json!({
        "type": "object",
        "required": ["per_second", "burst"],
        "properties": {
            "per_second": {
                "type": "number", "exclusiveMinimum": 0, "maximum": RATE_MAX,
                "description": "Requests per second.",
            },
            "burst": {
                "type": "integer", "minimum": 1, "maximum": RATE_MAX,
                "description": "Requests at once after a quiet time.",
            },
        },
        "additionalProperties": false,
        "description": "The endpoint's own rate limit; `delivery.rate_limit` when null.",
    })
}

fn retry() -> Value {
    let delay_max = u64::try_from(DELAY_MAX.as_millis()).unwrap_or(u64::MAX);
    let delay = json!({ "type": "integer", "minimum": 1, "maximum": delay_max });
    let retry = parts::document(json!({
        "max_attempts": { "type": "integer", "minimum": 1, "maximum": ATTEMPTS_MAX },
        "initial_ms": delay,
        "multiplier": { "type": "number", "minimum": 1, "maximum": 100 },
        "max_ms": parts::about(delay, "At least `initial_ms`."),
    }));
    parts::about(
        retry,
        "The endpoint's own settings; those of `[retry]` when null.",
    )
}

fn public_key() -> Value {
    json!({ "type": "string", "pattern": "^whpk_[A-Za-z0-9+/]{43}=$" })
}

/// A secret as it may be given: either form, or both of the same.
fn given_secret() -> Value {
    let hex = || json!({ "type": "string", "pattern": "^[0-9A-Fa-f]{64}$" });
    let base64 = "^whsec_[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$";
    let whsec = || json!({ "type": "string", "pattern": base64 });
    json!({
        "description": "Its secret; the one that is there is kept, or one is made, when it has none.",
        "anyOf": [
            hex(),
            whsec(),
            {
                "type": "object",
                "minProperties": 1,
                "properties": { "hex": parts::or_null(hex()), "whsec": parts::or_null(whsec()) },
                "additionalProperties": false,
            },
            { "type": "null" },
        ],
    })
}

/// Why nothing would be sent, as things are.
fn warnings() -> Value {
    json!({
        "type": "array",
        "description": "There when nothing would be sent, as things are.",
        "items": {
            "type": "object",
            "required": ["field", "code", "rule", "detail"],
            "properties": {
                "field": { "const": "url" },
                "code": { "const": "blocked_address" },
                "rule": parts::one_of(EgressRule::ALL.map(EgressRule::code)),
                "detail": { "type": "string" },
            },
        },
    })
}

fn with_default(mut schema: Value, default: &str) -> Value {
    schema["default"] = default.into();
    schema
}

/// A document of these members, in which what names and leads is there.
fn whole(members: Map<String, Value>) -> Value {
    let mut document = document_of(members);
    document["required"] = json!(REQUIRED);
    document
}

/// A document of these members, and of those that are only shown. What is shown may be written
/// back: it is not looked at.
fn document_of(members: Map<String, Value>) -> Value {
    let never_null = REQUIRED.map(|name| (name, members[name].clone()));
    let mut document = parts::document(Value::Object(members));
    for (name, schema) in never_null {
        document["properties"][name] = schema;
    }
    for name in READ_ONLY {
        let members = &mut document["properties"];
        if members.get(name).is_none() {
            members[*name] =
                json!({ "description": "Shown, and ignored when it is written back." });
        }
    }
    document
}

/// An object that has all that is always shown: `public_key` is with `ed25519` alone, `warnings`
/// where something was written.
fn object_of_shown(members: Map<String, Value>) -> Value {
    let is_always = |name: &&&str| !matches!(**name, "public_key" | "warnings");
    let shown = WRITABLE.iter().chain(READ_ONLY).filter(is_always);
    let mut schema = json!({ "type": "object", "required": shown.collect::<Vec<_>>() });
    schema["properties"] = members.into();
    schema
}
