//! `/v1/quarantine`: what was not understood: look, and have it taken again.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::Api;
use super::extract::{Document, Query};
use super::problem::Problem;
use crate::domain::event::FaultReason;
use crate::domain::subscription::FieldFault;
use crate::ports::{EventMessage, HeaderValue, QuarantineQuery, Quarantined};

/// Most that one call has taken again.
const REQUEUE_MAX: usize = 100_000;

/// The oldest.
///
/// # Errors
/// [`Problem`].
pub async fn list(State(api): State<Api>, query: Query) -> Result<Json<Value>, Problem> {
    let limit = query.only(&["limit"])?.limit()?;
    let found = api.ports.quarantine.list(limit).await?;
    let items: Vec<Value> = found.iter().map(|(id, item)| show(id, item)).collect();
    Ok(Json(json!({ "items": items, "next": null })))
}

/// Has one taken again.
///
/// # Errors
/// [`Problem`].
pub async fn requeue(
    State(api): State<Api>,
    id: Result<Path<String>, PathRejection>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    // An id that cannot be one names nothing.
    let id = id.map(|Path(id)| id).unwrap_or_default();
    if api.ports.quarantine.requeue(&id).await? {
        Ok((StatusCode::ACCEPTED, Json(json!({ "requeued": 1 }))))
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
) -> Result<(StatusCode, Json<Value>), Problem> {
    let query = read(&document)?;
    let requeued = api.ports.quarantine.requeue_all(&query).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "requeued": requeued }))))
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
                query.reason = Some(member.parsed(&expected, FaultReason::from_code)?);
            }
            "until" => query.until = Some(member.time()?),
            "limit" => query.limit = member.count(REQUEUE_MAX)?,
            _ => return Err(member.unknown()),
        }
    }
    Ok(query)
}

/// Bodies that are not UTF-8 are shown in base64 alone.
fn show(id: &str, item: &Quarantined) -> Value {
    let message = &item.message;
    json!({
        "id": id,
        "reason": item.fault.reason.code(),
        "field": item.fault.field,
        "error": item.fault.sentence,
        "quarantined_at": item.at.to_string(),
        "content_type": message.content_type,
        "headers": headers(message),
        "body": std::str::from_utf8(&message.body).ok(),
        "body_base64": BASE64.encode(&message.body),
    })
}

/// The headers that came with it; only a broker has them.
fn headers(message: &EventMessage) -> Map<String, Value> {
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
