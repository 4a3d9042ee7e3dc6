//! `/v1/dead-letters`: what was given up: look, send again, discard.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde_json::{Value, json};

use super::Api;
use super::auth::Caller;
use super::extract::{DeliveryPath, Document, Query};
use super::problem::Problem;
use crate::domain::delivery::{DeadLetter, DeadReason};
use crate::domain::id::{SubscriptionId, TenantId};
use crate::domain::subscription::FieldFault;
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
    caller: Caller,
    query: Query,
) -> Result<Json<Value>, Problem> {
    let query = query.only(&["tenant", "subscription", "reason", "since", "limit"])?;
    let wanted = DeadLetterQuery {
        owner: caller.owner(),
        tenant: query.tenant()?,
        subscription: query.subscription()?,
        delivery: None,
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
    caller: Caller,
    document: Document,
) -> Result<Json<Value>, Problem> {
    let (mut query, dry_run) = read(&document)?;
    query.owner = caller.owner();
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
    caller: Caller,
    DeliveryPath(id): DeliveryPath,
) -> Result<StatusCode, Problem> {
    let now = api.ports.clock.now();
    let owner = caller.owner();
    let letters = &api.ports.dead_letters;
    let discarded = letters.discard(&id, owner.as_ref(), now).await?;
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

fn read(document: &Document) -> Result<(DeadLetterQuery, bool), FieldFault> {
    let mut query = DeadLetterQuery {
        limit: REDRIVE_MAX,
        ..DeadLetterQuery::default()
    };
    let mut dry_run = false;
    for member in document.members() {
        match member.name {
            "tenant" => {
                let parse = |text: &str| TenantId::parse(text).ok();
                query.tenant = Some(member.parsed("a tenant", parse)?);
            }
            "subscription" => {
                let parse = |text: &str| SubscriptionId::parse(text).ok();
                query.subscription = Some(member.parsed("a subscription's id", parse)?);
            }
            "reason" => query.reason = Some(member.parsed(REASONS, DeadReason::from_code)?),
            "since" => query.since = Some(member.time()?),
            "until" => query.until = Some(member.time()?),
            "limit" => query.limit = member.count(REDRIVE_MAX)?,
            "dry_run" => {
                let dry = member.value.as_bool();
                dry_run = dry.ok_or_else(|| member.wrong("true or false"))?;
            }
            _ => return Err(member.unknown()),
        }
    }
    Ok((query, dry_run))
}

/// One as the API shows it.
pub fn show(letter: &DeadLetter) -> Value {
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
