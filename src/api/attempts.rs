//! `GET /v1/attempts`: the audit log, newest first.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::Api;
use super::auth::Caller;
use super::extract::Query;
use super::problem::Problem;
use crate::codec::attempt::outcome_code;
use crate::domain::attempt::Attempt;
use crate::domain::outcome::Reason;
use crate::ports::AttemptQuery;

const PARAMETERS: &[&str] = &[
    "tenant",
    "subscription",
    "event",
    "delivery",
    "outcome",
    "since",
    "limit",
    "cursor",
];

/// A page of attempts.
///
/// # Errors
/// [`Problem`].
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    query: Query,
) -> Result<Json<Value>, Problem> {
    let query = query.only(PARAMETERS)?;
    let limit = query.limit()?;
    let outcome = |text: &str| match text {
        "delivered" => Some(true),
        "failed" => Some(false),
        _ => None,
    };
    let wanted = AttemptQuery {
        owner: caller.owner(),
        tenant: query.tenant()?,
        subscription: query.subscription()?,
        event: query.event()?,
        delivery: query.delivery()?,
        delivered: query.parsed("outcome", "delivered or failed", outcome)?,
        since: query.time("since")?,
        before: query.parsed("cursor", "the `next` of the page before", |text| {
            text.parse().ok()
        })?,
        // One more than asked for tells whether there is a next page.
        limit: limit + 1,
    };
    let mut found = api.ports.audit.attempts(&wanted).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more);
    let next = next.map(|(position, _)| position.to_string());
    let items: Vec<Value> = found
        .iter()
        .map(|(position, attempt)| show(*position, attempt))
        .collect();
    Ok(Json(json!({ "items": items, "next": next })))
}

/// One attempt as the API shows it.
pub fn show(position: u64, attempt: &Attempt) -> Value {
    let request = &attempt.request;
    let response = attempt.response.as_ref().map(|response| {
        json!({
            "status": response.status,
            "headers": headers(&response.headers),
            "body": String::from_utf8_lossy(&response.body),
            "body_cut": response.body_cut,
        })
    });
    let timing = &attempt.timing;
    let millis = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    json!({
        "id": format!("att_{position}"),
        "delivery_id": attempt.delivery.as_str(),
        "attempt": attempt.number,
        "redrives": attempt.redrives,
        "subscription_id": attempt.subscription.as_str(),
        "tenant": attempt.tenant.as_str(),
        "event_id": attempt.event.as_str(),
        "event_type": attempt.kind.as_str(),
        "at": attempt.at.to_string(),
        "outcome": outcome_code(attempt),
        "reason": attempt.reason.map(Reason::code),
        "detail": attempt.detail,
        "status": attempt.response.as_ref().map(|response| response.status),
        "request": {
            "url": request.url,
            "headers": headers(&request.headers),
            "body": String::from_utf8_lossy(&request.body),
            "body_cut": request.body_cut,
        },
        "response": response,
        "timing": {
            "dns_ms": timing.dns.map(millis),
            "connect_ms": timing.connect.map(millis),
            "first_byte_ms": timing.first_byte.map(millis),
            "total_ms": millis(timing.total),
        },
        "next_action": attempt.next_action.code(),
        "next_at": attempt.next_at.map(|at| at.to_string()),
        "test": attempt.test,
    })
}

/// Headers as an object; values of a name that came several times are joined (RFC 9110
/// section 5.3).
fn headers(pairs: &[(String, String)]) -> Map<String, Value> {
    let mut headers = Map::new();
    for (name, value) in pairs {
        let joined = match headers.get(name).and_then(Value::as_str) {
            Some(before) => format!("{before}, {value}"),
            None => value.clone(),
        };
        headers.insert(name.clone(), joined.into());
    }
    headers
}
