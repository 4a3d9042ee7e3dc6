//! `/v1/dead-letters`: what was given up: look, send again, discard.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::Api;
use super::auth::Admin;
use super::extract::{DeliveryPath, Document, Query};
use super::problem::Problem;
use crate::domain::delivery::{DeadLetter, DeadReason};
use crate::domain::id::{SubscriptionId, TenantId};
use crate::domain::subscription::FieldFault;
use crate::domain::timestamp::UnixMillis;
use crate::ports::DeadLetterQuery;

/// Most that one redrive sends again.
const REDRIVE_MAX: usize = 100_000;
const REASONS: &str = "exhausted, gone, subscription_disabled or subscription_deleted";

/// The oldest that match.
///
/// # Errors
/// [`Problem`].
pub async fn list(
    State(api): State<Api>,
    _admin: Admin,
    query: Query,
) -> Result<Json<Value>, Problem> {
    let query = query.only(&["tenant", "subscription", "reason", "since", "limit"])?;
    let wanted = DeadLetterQuery {
        tenant: query.tenant()?,
        subscription: query.subscription()?,
        reason: query.parsed("reason", REASONS, DeadReason::from_code)?,
        since: query.time("since")?,
        until: None,
        limit: query.limit()?,
    };
    let found = api.ports.dead_letters.list(&wanted).await?;
    let items: Vec<Value> = found.iter().map(show).collect();
    Ok(Json(json!({ "items": items, "next": null })))
}

/// Sends those that match again, or only counts them. The first thousand are due at once, the
/// others a thousand each second. Of a run that is not dry `matched` is what was sent again:
/// nothing is read twice for it.
///
/// # Errors
/// [`Problem`].
pub async fn redrive(
    State(api): State<Api>,
    _admin: Admin,
    Document(document): Document,
) -> Result<Json<Value>, Problem> {
    let (query, dry_run) = read(&document)?;
    let letters = &api.ports.dead_letters;
    let (matched, redriven) = if dry_run {
        (letters.count(&query).await?, 0)
    } else {
        let redriven = letters.redrive(&query, api.ports.clock.now()).await?;
        (redriven, redriven)
    };
    Ok(Json(json!({ "matched": matched, "redriven": redriven })))
}

/// Discards one: the log tells of it, and where there are notices `delivery.discarded`.
///
/// # Errors
/// [`Problem`].
pub async fn discard(
    State(api): State<Api>,
    _admin: Admin,
    DeliveryPath(id): DeliveryPath,
) -> Result<StatusCode, Problem> {
    let now = api.ports.clock.now();
    let discarded = api.ports.dead_letters.discard(&id, now).await?;
    if discarded.is_empty() {
        return Err(Problem::not_found("there is no such dead letter"));
    }
    for letter in &discarded {
        let Some(letter) = letter else {
            tracing::info!(delivery = %id, "a damaged dead letter was discarded");
            continue;
        };
        let delivery = &letter.delivery;
        tracing::info!(
            delivery = %id, subscription = %delivery.subscription,
            tenant = %delivery.event.tenant, event = %delivery.event.id,
            reason = letter.reason.code(), "dead letter discarded"
        );
    }
    Ok(StatusCode::NO_CONTENT)
}

fn read(document: &Map<String, Value>) -> Result<(DeadLetterQuery, bool), FieldFault> {
    let mut query = DeadLetterQuery {
        limit: REDRIVE_MAX,
        ..DeadLetterQuery::default()
    };
    let mut dry_run = false;
    for (name, value) in document.iter().filter(|(_, value)| !value.is_null()) {
        let wrong = |expected: &str| FieldFault::new(name, format!("must be {expected}"));
        let text = value.as_str();
        let time = || text.and_then(UnixMillis::parse_rfc3339);
        let rfc3339 = "RFC 3339 such as 2026-03-01T12:30:00Z";
        match name.as_str() {
            "tenant" => {
                let tenant = text.and_then(|text| TenantId::parse(text).ok());
                query.tenant = Some(tenant.ok_or_else(|| wrong("a tenant"))?);
            }
            "subscription" => {
                let id = text.and_then(|text| SubscriptionId::parse(text).ok());
                query.subscription = Some(id.ok_or_else(|| wrong("a subscription's id"))?);
            }
            "reason" => {
                let reason = text.and_then(DeadReason::from_code);
                query.reason = Some(reason.ok_or_else(|| wrong(REASONS))?);
            }
            "since" => query.since = Some(time().ok_or_else(|| wrong(rfc3339))?),
            "until" => query.until = Some(time().ok_or_else(|| wrong(rfc3339))?),
            "limit" => {
                let limit = value.as_u64().and_then(|n| usize::try_from(n).ok());
                let limit = limit.filter(|n| (1..=REDRIVE_MAX).contains(n));
                query.limit = limit.ok_or_else(|| wrong("an integer from 1 to 100000"))?;
            }
            "dry_run" => dry_run = value.as_bool().ok_or_else(|| wrong("true or false"))?,
            _ => return Err(FieldFault::new(name, "is not known")),
        }
    }
    Ok((query, dry_run))
}

fn show(letter: &DeadLetter) -> Value {
    let delivery = &letter.delivery;
    json!({
        "id": delivery.id.as_str(),
        "subscription_id": delivery.subscription.as_str(),
        "tenant": delivery.event.tenant.as_str(),
        "event_id": delivery.event.id.as_str(),
        "event_type": delivery.event.kind.as_str(),
        "reason": letter.reason.code(),
        "attempts": delivery.attempts,
        "last_status": delivery.last.and_then(|last| last.status),
        "last_reason": delivery.last.map(|last| last.reason.code()),
        "first_attempt_at": delivery.first_attempt_at.map(|at| at.to_string()),
        "dead_at": letter.dead_at.to_string(),
    })
}
