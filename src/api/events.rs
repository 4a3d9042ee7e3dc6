//! `POST /v1/events`: one event, or an array of them, all or none.

use std::fmt;

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::auth::Caller;
use super::extract::Body;
use super::problem::Problem;
use super::{Api, EVENTS_MAX};
use crate::codec;
use crate::codec::event::Encoding;
use crate::domain::subscription::Scope;
use crate::ports::{EventMessage, Parcel};

/// Takes events; answers 202 when they are durable.
///
/// # Errors
/// [`Problem`]: what is wrong with which event; then none was taken.
pub async fn publish(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
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
    Ok((StatusCode::ACCEPTED, Json(json!({ "accepted": accepted }))))
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
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    let Batch { events, found } = serde_json::from_slice(body).map_err(|error| {
        let detail = format!("the body cannot be read as a JSON array: {error}");
        Problem::new(status, "malformed", detail)
    })?;
    if !(1..=EVENTS_MAX).contains(&found) {
        let detail = format!("an array must have 1 to {EVENTS_MAX} events, found {found}");
        return Err(Problem::new(status, "invalid_batch", detail));
    }
    Ok(events
        .into_iter()
        .map(|raw| body.slice_ref(raw.get().as_bytes()))
        .collect())
}
