//! `POST /v1/events`: one event, or an array of them, all or none.

use std::fmt;

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::auth::Caller;
use super::extract::Body;
use super::openapi::{Operation, Schemas, content, parts};
use super::problem::{Code, Problem};
use super::{Api, EVENTS_MAX};
use crate::codec;
use crate::codec::event::Encoding;
use crate::domain::event::FaultReason;
use crate::domain::subscription::Scope;
use crate::ports::{EventMessage, Parcel};

/// That events were taken.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Accepted {
    /// How many: all that were sent.
    accepted: usize,
}

/// Takes events; answers 202 when they are durable.
///
/// # Errors
/// [`Problem`]: what is wrong with which event; then none was taken.
pub async fn publish(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<(StatusCode, Json<Accepted>), Problem> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let content_type = text("content-type").map(ToOwned::to_owned);
    let traceparent = text("traceparent").map(ToOwned::to_owned);
    let encoding = Encoding::of(content_type.as_deref())?;
    let is_batch = encoding == Encoding::Json && codec::event::first_byte(&body) == Some(b'[');
    let bodies = if is_batch { split(&body)? } else { vec![body] };
    let mut parcels = Vec::with_capacity(bodies.len());
    for (index, body) in bodies.into_iter().enumerate() {
        let decoded = codec::event::decode(&body, content_type.as_deref(), api.event_bytes_max);
        let checked = decoded.map_err(Problem::from).and_then(|event| {
            caller.check(&Scope::One(event.tenant.clone()))?;
            Ok(event)
        });
        let event = checked.map_err(|problem| match is_batch {
            true => problem.with("index", index),
            false => problem,
        })?;
        let message = EventMessage {
            body,
            content_type: content_type.clone(),
            traceparent: traceparent.clone(),
            ..EventMessage::default()
        };
        let kind = event.kind;
        parcels.push(Parcel::Published { message, kind });
    }
    let accepted = parcels.len();
    api.ports.outbox.put(parcels).await?;
    Ok((StatusCode::ACCEPTED, Json(Accepted { accepted })))
}

/// The elements of an array, as many as are taken, and how many there are.
struct Batch<'a> {
    events: Vec<&'a RawValue>,
    found: usize,
}

impl<'de> Deserialize<'de> for Batch<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(BatchVisitor)
    }
}

struct BatchVisitor;

impl<'de> Visitor<'de> for BatchVisitor {
    type Value = Batch<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Batch<'de>, A::Error> {
        let mut events = Vec::new();
        while events.len() < EVENTS_MAX
            && let Some(event) = access.next_element()?
        {
            events.push(event);
        }
        let mut found = events.len();
        // Those behind are counted, not kept: there may be millions.
        while access.next_element::<IgnoredAny>()?.is_some() {
            found += 1;
        }
        Ok(Batch { events, found })
    }
}

/// The events of an array, each with its own bytes.
fn split(body: &Bytes) -> Result<Vec<Bytes>, Problem> {
    let Batch { events, found } = serde_json::from_slice(body).map_err(|error| {
        let detail = format!("the body cannot be read as a JSON array: {error}");
        Problem::new(Code::Event(FaultReason::Malformed), detail)
    })?;
    if !(1..=EVENTS_MAX).contains(&found) {
        let detail = format!("an array must have 1 to {EVENTS_MAX} events, found {found}");
        return Err(Problem::new(Code::InvalidBatch, detail));
    }
    Ok(events
        .into_iter()
        .map(|raw| body.slice_ref(raw.get().as_bytes()))
        .collect())
}

/// What [`publish`] is.
pub fn describe_publish(schemas: &mut Schemas) -> Operation {
    let event = parts::named(schemas, "Event", event);
    let cloud = parts::named(schemas, "CloudEvent", cloud_event);
    let several = json!({ "type": "array", "minItems": 1, "maxItems": EVENTS_MAX, "items": event });
    let json = json!({ "oneOf": [event, several] });
    let examples = [("one", example()), ("several", json!([example()]))];
    let cloud_example = json!({
        "specversion": "1.0", "source": "/scanner", "id": "scan-4711", "type": "scan.finished",
        "tenant": "acme", "time": "2026-03-01T12:30:00Z", "data": { "findings": 3 },
    });
    let protobuf = json!({
        "description": "The message `carillon.v1.Event` of `proto/carillon/v1/event.proto`.",
    });
    let content = json!({
        "application/json": content(json, &examples),
        "application/cloudevents+json": content(cloud, &[("one", cloud_example)]),
        "application/x-protobuf": { "schema": protobuf },
    });
    let trace = json!({ "type": "string" });
    Operation::new("events", "publishEvents", "Publish events")
        .about(
            "One event, or an array of them: all are taken or none. 202 says that they are durable. \
             An `id` that a tenant published within `dedup.window` is delivered once. An event has at \
             most `intake.max_event_bytes` (1 MiB). The types of Leicbit and `lookup_result.alerts` have \
             rules for their `data`; `test.delivery` is reserved.",
        )
        .takes_one_of(true, content)
        .header("traceparent", "The trace that it belongs to (W3C Trace Context).", trace)
        .refuses(&Code::OF_EVENTS)
        .refuses(&[Code::Forbidden, Code::InvalidBatch])
        .answers(
            202,
            "They are durable.",
            parts::of::<Accepted>(schemas),
            json!({ "accepted": 1 }),
        )
}

/// An event in examples.
pub fn example() -> Value {
    json!({
        "id": "scan-4711", "type": "scan.finished", "tenant": "acme",
        "timestamp": "2026-03-01T12:30:00Z", "data": { "findings": 3 },
    })
}

/// The members of an event; more are ignored.
pub fn event() -> Value {
    let data = json!({ "type": "object" });
    let id = "The publisher's idempotency key.";
    json!({
        "type": "object",
        "required": ["id", "type", "tenant", "timestamp", "data"],
        "properties": {
            "id": parts::about(parts::event_id(), id),
            "type": parts::about(parts::event_type(), "What happened."),
            "tenant": parts::about(parts::tenant(), "The account whose subscriptions may match."),
            "timestamp": parts::about(parts::time(), "When it happened."),
            "data": parts::about(data, "The details."),
        },
        "additionalProperties": true,
    })
}

fn cloud_event() -> Value {
    let mut schema = event();
    schema["required"] = json!(["specversion", "id", "type", "tenant", "time", "data"]);
    schema["properties"]["specversion"] = json!({ "const": "1.0" });
    if let Some(members) = schema["properties"].as_object_mut() {
        let time = members.remove("timestamp");
        members.extend(time.map(|time| ("time".to_owned(), time)));
    }
    parts::about(
        schema,
        "An event of CloudEvents 1.0 in its structured form, with the extension `tenant`.",
    )
}
