//! Schemas of what several resources take and show: ids, times, names, lists.
//!
//! Each says what the reader of `domain` or `config` accepts, in JSON Schema (2020-12).

use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use super::Schemas;
use crate::domain::delivery::DeadReason;
use crate::domain::event::FaultReason;
use crate::domain::id::NAME_BYTES_MAX;
use crate::domain::outcome::REASONS;

/// A subscription's id in examples.
pub const SUBSCRIPTION: &str = "sub_019ce3a1b2c0f1d2c3b4a5968778695a";
/// A delivery's id in examples.
pub const DELIVERY: &str = "msg_4f2a90c1d7e85b36a1f0c9d8e7b6a594";
/// A point in time in examples.
pub const TIME: &str = "2026-03-01T12:30:00.000Z";

/// A subscription's id (`SubscriptionId`).
pub fn subscription_id() -> Value {
    json!({ "type": "string", "pattern": "^sub_[A-Za-z0-9]{1,64}$", "examples": [SUBSCRIPTION] })
}

/// A delivery's id (`DeliveryId`).
pub fn delivery_id() -> Value {
    json!({ "type": "string", "pattern": "^msg_[A-Za-z0-9]{1,64}$", "examples": [DELIVERY] })
}

/// A publisher's name for an event (`EventId`).
pub fn event_id() -> Value {
    visible("scan-4711")
}

/// A tenant, or `*` for all of them (`Scope`).
pub fn scope() -> Value {
    visible("acme")
}

/// One tenant (`TenantId`), where `*` is none.
pub fn tenant() -> Value {
    let mut schema = scope();
    schema["not"] = json!({ "const": "*" });
    schema
}

fn visible(example: &str) -> Value {
    let pattern = format!("^[!-~]{{1,{NAME_BYTES_MAX}}}$");
    json!({ "type": "string", "pattern": pattern, "examples": [example] })
}

/// An event's type (`EventType`).
pub fn event_type() -> Value {
    json!({
        "type": "string",
        "maxLength": NAME_BYTES_MAX,
        "pattern": "^[A-Za-z0-9_-]+(\\.[A-Za-z0-9_-]+)*$",
        "examples": ["scan.finished"],
    })
}

/// A point in time (RFC 3339).
pub fn time() -> Value {
    json!({ "type": "string", "format": "date-time", "examples": [TIME] })
}

/// A duration (`config::duration`).
pub fn duration(default: &str, bounds: &str) -> Value {
    json!({
        "type": "string",
        "description": format!("A duration such as `90s`, `24h` or `1h30m`, {bounds}."),
        "pattern": "^(0|([0-9]+(ms|s|m|h|d))+)$",
        "default": default,
        "examples": [default],
    })
}

/// The number of items of a page, as `Query::limit` reads it.
pub fn limit() -> Value {
    json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 })
}

/// How much of each body is shown at most.
pub fn body_bytes() -> Value {
    json!({ "type": "integer", "minimum": 0, "maximum": super::super::extract::BODY_BYTES_MAX })
}

/// What goes on where the page before ended, where it is not said what it looks like.
pub fn number_cursor() -> Value {
    json!({ "type": "string", "pattern": "^[0-9]{1,19}$" })
}

/// One of these words.
pub fn one_of(words: impl IntoIterator<Item = &'static str>) -> Value {
    let words: Vec<_> = words.into_iter().collect();
    json!({ "type": "string", "enum": words })
}

/// The same, or null.
pub fn or_null(mut schema: Value) -> Value {
    if let Some(kind) = schema.get("type").cloned() {
        schema["type"] = json!([kind, "null"]);
        if let Some(words) = schema.get_mut("enum").and_then(Value::as_array_mut) {
            words.push(Value::Null);
        }
        schema
    } else {
        json!({ "anyOf": [schema, { "type": "null" }] })
    }
}

/// The same, with a sentence.
pub fn about(mut schema: Value, description: &str) -> Value {
    schema["description"] = description.into();
    schema
}

/// An object that may have these members and no others; null stands for what is absent.
pub fn document(members: Value) -> Value {
    let members = match members {
        Value::Object(members) => members,
        _ => serde_json::Map::new(),
    };
    let members = members
        .into_iter()
        .map(|(name, schema)| (name, or_null(schema)));
    let members: serde_json::Map<_, _> = members.collect();
    json!({ "type": "object", "properties": members, "additionalProperties": false })
}

/// An object whose members mean nothing yet.
pub fn nothing() -> Value {
    json!({ "type": "object", "description": "Nothing is read from it; it may be absent." })
}

/// The schema of a type that is answered, by its name.
pub fn of<T: JsonSchema>(schemas: &mut Schemas) -> Value {
    schemas.subschema_for::<T>().to_value()
}

/// Gives a schema that is written by hand a name, and refers to it.
pub fn named(schemas: &mut Schemas, name: &str, schema: impl FnOnce() -> Value) -> Value {
    if !schemas.definitions().contains_key(name) {
        schemas.definitions_mut().insert(name.to_owned(), schema());
    }
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// Schemas that derived ones name (`schemars(schema_with = …)`).
pub mod field {
    use super::*;

    /// A subscription's id.
    pub fn subscription_id(_: &mut Schemas) -> Schema {
        schema(super::subscription_id())
    }

    /// A delivery's id.
    pub fn delivery_id(_: &mut Schemas) -> Schema {
        schema(super::delivery_id())
    }

    /// A point in time.
    pub fn time(_: &mut Schemas) -> Schema {
        schema(super::time())
    }

    /// A point in time, if there is one.
    pub fn maybe_time(_: &mut Schemas) -> Schema {
        schema(or_null(super::time()))
    }

    /// `delivered` or `failed`.
    pub fn outcome(_: &mut Schemas) -> Schema {
        schema(one_of(OUTCOMES))
    }

    /// Why an attempt failed, if it did.
    pub fn reason(_: &mut Schemas) -> Schema {
        schema(or_null(one_of(REASONS.iter().map(|(code, _)| *code))))
    }

    /// Why a delivery was given up.
    pub fn dead_reason(_: &mut Schemas) -> Schema {
        schema(one_of(DeadReason::ALL.map(DeadReason::code)))
    }

    /// Why something is in quarantine.
    pub fn fault_reason(_: &mut Schemas) -> Schema {
        schema(one_of(FaultReason::ALL.map(FaultReason::code)))
    }

    /// One of these words.
    pub fn word(words: impl IntoIterator<Item = &'static str>) -> Schema {
        schema(one_of(words))
    }

    /// One of these words, or null.
    pub fn maybe_word(words: impl IntoIterator<Item = &'static str>) -> Schema {
        schema(or_null(one_of(words)))
    }

    /// One that is written by hand.
    pub fn schema(value: Value) -> Schema {
        // An object is a schema; anything else allows everything.
        Schema::try_from(value).unwrap_or_default()
    }
}

/// What an attempt may come to.
pub const OUTCOMES: [&str; 2] = ["delivered", "failed"];
