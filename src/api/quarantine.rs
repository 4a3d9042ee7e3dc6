//! `/v1/quarantine`: what was not understood: look, and have it taken again.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::Api;
use super::auth::Admin;
use super::extract::{Document, Query};
use super::problem::Problem;
use crate::domain::event::FaultReason;
use crate::domain::subscription::FieldFault;
use crate::domain::timestamp::UnixMillis;
use crate::ports::{EventMessage, HeaderValue, QuarantineQuery, Quarantined};

/// Most that one call has taken again.
const REQUEUE_MAX: usize = 100_000;

/// The oldest.
///
/// # Errors
/// [`Problem`].
pub async fn list(
    State(api): State<Api>,
    _admin: Admin,
    query: Query,
) -> Result<Json<Value>, Problem> {
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
    _admin: Admin,
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
    _admin: Admin,
    Document(document): Document,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let query = read(&document)?;
    let requeued = api.ports.quarantine.requeue_all(&query).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "requeued": requeued }))))
}

fn read(document: &Map<String, Value>) -> Result<QuarantineQuery, FieldFault> {
    let mut query = QuarantineQuery {
        limit: REQUEUE_MAX,
        ..QuarantineQuery::default()
    };
    for (name, value) in document.iter().filter(|(_, value)| !value.is_null()) {
        let wrong = |expected: &str| FieldFault::new(name, format!("must be {expected}"));
        let text = value.as_str();
        match name.as_str() {
            "reason" => {
                let reason = text.and_then(FaultReason::from_code);
                let known = || FaultReason::ALL.map(FaultReason::code).join(", ");
                query.reason = Some(reason.ok_or_else(|| wrong(&format!("one of {}", known())))?);
            }
            "until" => {
                let until = text.and_then(UnixMillis::parse_rfc3339);
                let rfc3339 = "RFC 3339 such as 2026-03-01T12:30:00Z";
                query.until = Some(until.ok_or_else(|| wrong(rfc3339))?);
            }
            "limit" => {
                let limit = value.as_u64().and_then(|n| usize::try_from(n).ok());
                let limit = limit.filter(|n| (1..=REQUEUE_MAX).contains(n));
                let expected = format!("an integer from 1 to {REQUEUE_MAX}");
                query.limit = limit.ok_or_else(|| wrong(&expected))?;
            }
            _ => return Err(FieldFault::new(name, "is not known")),
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
