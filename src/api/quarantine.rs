//! `/v1/quarantine`: what was not understood: look, and have it taken again.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::StatusCode;
use schemars::{JsonSchema, Schema, json_schema};
use serde::Serialize;
use serde_json::{Value, json};

use super::Api;
use super::answer::List;
use super::extract::{Document, Query};
use super::openapi::{Operation, Schemas, parts};
use super::problem::Problem;
use crate::domain::event::FaultReason;
use crate::domain::subscription::FieldFault;
use crate::ports::{EventMessage, HeaderValue, QuarantineQuery, Quarantined};

/// Most that one call has taken again.
const REQUEUE_MAX: usize = 100_000;

/// What was not understood, as it came.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Quarantined")]
pub struct QuarantinedShown {
    /// Its body as text; null where it is not UTF-8.
    body: Option<String>,
    /// Its body in base64.
    #[schemars(extend("contentEncoding" = "base64"))]
    body_base64: String,
    /// Whether the body is longer than was asked for.
    body_cut: bool,
    /// The content type that it came with.
    content_type: Option<String>,
    /// What is wrong with it, and what to do.
    error: String,
    /// The field at fault, where it is one.
    field: Option<String>,
    /// The headers that it came with.
    #[schemars(schema_with = "header_values")]
    headers: BTreeMap<String, Value>,
    /// Its id in quarantine.
    id: String,
    /// When it was put aside.
    #[schemars(schema_with = "parts::field::time")]
    quarantined_at: String,
    /// Why it was put aside.
    #[schemars(schema_with = "parts::field::fault_reason")]
    reason: &'static str,
}

/// How many were taken again.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Requeued {
    /// How many.
    requeued: u64,
}

fn header_values(_: &mut Schemas) -> Schema {
    json_schema!({
        "type": "object",
        "additionalProperties": { "type": ["string", "integer", "boolean"] },
    })
}

/// The oldest.
///
/// # Errors
/// [`Problem`].
pub async fn list(
    State(api): State<Api>,
    query: Query,
) -> Result<Json<List<QuarantinedShown>>, Problem> {
    let (limit, body_bytes) = (query.limit()?, query.body_bytes()?);
    let found = api.ports.quarantine.list(limit).await?;
    let items = found.iter();
    let items = items.map(|(id, item)| show(id, item, body_bytes));
    let items = items.collect();
    Ok(Json(List { items, next: None }))
}

/// Has one taken again.
///
/// # Errors
/// [`Problem`].
pub async fn requeue(
    State(api): State<Api>,
    id: Result<Path<String>, PathRejection>,
) -> Result<(StatusCode, Json<Requeued>), Problem> {
    // An id that cannot be one names nothing.
    let id = id.map(|Path(id)| id).unwrap_or_default();
    if api.ports.quarantine.requeue(&id).await? {
        Ok((StatusCode::ACCEPTED, Json(Requeued { requeued: 1 })))
    } else {
        Err(Problem::not_found("there is no such message in quarantine"))
    }
}

/// Has those that match taken again: the oldest, up to `limit`.
///
/// # Errors
/// [`Problem`].
pub async fn requeue_all(
    State(api): State<Api>,
    document: Document,
) -> Result<(StatusCode, Json<Requeued>), Problem> {
    let query = read(&document)?;
    let requeued = api.ports.quarantine.requeue_all(&query).await?;
    Ok((StatusCode::ACCEPTED, Json(Requeued { requeued })))
}

fn read(document: &Document) -> Result<QuarantineQuery, FieldFault> {
    let mut query = QuarantineQuery {
        limit: REQUEUE_MAX,
        ..QuarantineQuery::default()
    };
    for member in document.members() {
        match member.name {
            "reason" => {
                let expected = format!(
                    "one of {}",
                    FaultReason::ALL.map(FaultReason::code).join(", ")
                );
                query.reason = member.parsed(&expected, FaultReason::from_code)?;
            }
            "until" => query.until = member.time()?,
            "limit" => query.limit = member.count(REQUEUE_MAX)?.unwrap_or(REQUEUE_MAX),
            _ => return Err(member.unknown()),
        }
    }
    Ok(query)
}

/// At most `body_bytes` of its body; one that is not UTF-8 is shown in base64 alone.
fn show(id: &str, item: &Quarantined, body_bytes: usize) -> QuarantinedShown {
    let message = &item.message;
    let text = std::str::from_utf8(&message.body).ok();
    let shown = match text {
        Some(text) => text.floor_char_boundary(body_bytes),
        None => message.body.len().min(body_bytes),
    };
    QuarantinedShown {
        body: text
            .and_then(|text| text.get(..shown))
            .map(ToOwned::to_owned),
        body_base64: BASE64.encode(message.body.get(..shown).unwrap_or_default()),
        body_cut: shown < message.body.len(),
        content_type: message.content_type.clone(),
        error: item.fault.sentence.clone(),
        field: item.fault.field.clone(),
        headers: headers(message),
        id: id.to_owned(),
        quarantined_at: item.at.to_string(),
        reason: item.fault.reason.code(),
    }
}

/// The headers that came with it; only a broker has them.
fn headers(message: &EventMessage) -> BTreeMap<String, Value> {
    let plain = |value: &HeaderValue| match value {
        HeaderValue::Text(text) => json!(text),
        HeaderValue::Integer(number) => json!(number),
        HeaderValue::Boolean(value) => json!(value),
    };
    let own = message.traceparent.iter();
    let own = own.map(|traceparent| ("traceparent".to_owned(), json!(traceparent)));
    let others = message.headers.iter();
    own.chain(others.map(|(name, value)| (name.clone(), plain(value))))
        .collect()
}

/// What [`list`] is.
pub fn describe_list(schemas: &mut Schemas) -> Operation {
    let example = json!({
        "body": "{\"id\":\"scan-4711\"}",
        "body_base64": BASE64.encode("{\"id\":\"scan-4711\"}"),
        "body_cut": false,
        "content_type": "application/json",
        "error": "`type` is missing: an event of this kind needs a string there",
        "field": "type",
        "headers": { "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" },
        "id": "7",
        "quarantined_at": parts::TIME,
        "reason": "missing_field",
    });
    Operation::new(
        "quarantine",
        "listQuarantined",
        "List what is in quarantine, oldest first",
    )
    .query("limit", "How many at most.", parts::limit())
    .query(
        "body_bytes",
        "How much of each body at most.",
        parts::body_bytes(),
    )
    .answers(
        200,
        "The oldest.",
        parts::of::<List<QuarantinedShown>>(schemas),
        json!({ "items": [example], "next": null }),
    )
}

/// What [`requeue`] is.
pub fn describe_requeue(schemas: &mut Schemas) -> Operation {
    let id = json!({ "type": "string", "minLength": 1 });
    Operation::new("quarantine", "requeueQuarantined", "Have one taken again")
        .of("id", "Its id in quarantine.", id, "7")
        .answers(
            202,
            "It is taken again.",
            parts::of::<Requeued>(schemas),
            json!({ "requeued": 1 }),
        )
}

/// What [`requeue_all`] is.
pub fn describe_requeue_all(schemas: &mut Schemas) -> Operation {
    let reasons = parts::one_of(FaultReason::ALL.map(FaultReason::code));
    let document = parts::document(json!({
        "reason": parts::about(reasons, "Those put aside for this reason."),
        "until": parts::about(parts::time(), "Those put aside before then."),
        "limit": {
            "type": "integer", "minimum": 1, "maximum": REQUEUE_MAX, "default": REQUEUE_MAX,
            "description": "How many at most, the oldest.",
        },
    }));
    let some = json!({ "reason": "missing_field", "limit": 100 });
    Operation::new(
        "quarantine",
        "requeueAllQuarantined",
        "Have those that match taken again",
    )
    .takes(
        document,
        false,
        &[("some for one reason", some), ("all", json!({}))],
    )
    .answers(
        202,
        "They are taken again.",
        parts::of::<Requeued>(schemas),
        json!({ "requeued": 12 }),
    )
}
