//! `/v1/quarantine`: what was not understood: look, and have it taken again.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::StatusCode;
use serde_json::{Value, json};

use super::Api;
use super::auth::Admin;
use super::extract::Query;
use super::problem::Problem;
use crate::ports::Quarantined;

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
        "body": std::str::from_utf8(&message.body).ok(),
        "body_base64": BASE64.encode(&message.body),
    })
}
