//! `/v1/dead-letters`: what was given up: look, send again, discard.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::Api;
use super::answer::List;
use super::auth::Caller;
use super::extract::{DeliveryPath, Document, Query};
use super::openapi::{Operation, Schemas, parts};
use super::problem::Problem;
use crate::domain::delivery::{DeadLetter, DeadReason};
use crate::domain::id::{SubscriptionId, TenantId};
use crate::domain::subscription::FieldFault;
use crate::ports::DeadLetterQuery;

/// Most that one redrive sends again.
const REDRIVE_MAX: usize = 100_000;
const REASONS: &str = "exhausted, gone, subscription_disabled or subscription_deleted";

/// A delivery that was given up.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DeadLetter")]
pub struct DeadLetterShown {
    /// How many attempts were made.
    attempts: u32,
    /// When it was given up.
    #[schemars(schema_with = "parts::field::time")]
    dead_at: String,
    /// The event.
    event_id: String,
    /// The event's type.
    event_type: String,
    /// When the first attempt was made, if any was.
    #[schemars(schema_with = "parts::field::maybe_time")]
    first_attempt_at: Option<String>,
    /// The delivery.
    #[schemars(schema_with = "parts::field::delivery_id")]
    id: String,
    /// Why the last attempt failed.
    #[schemars(schema_with = "parts::field::reason")]
    last_reason: Option<&'static str>,
    /// The status that answered the last attempt.
    last_status: Option<u16>,
    /// Why it was given up.
    #[schemars(schema_with = "parts::field::dead_reason")]
    reason: &'static str,
    /// Whom it was for.
    #[schemars(schema_with = "parts::field::subscription_id")]
    subscription_id: String,
    /// The event's tenant.
    tenant: String,
}

/// What a redrive did.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Redriven {
    /// How many match; of a run that is not dry, how many were sent again.
    matched: u64,
    /// How many were sent again.
    redriven: u64,
}

/// The oldest that match.
///
/// # Errors
/// [`Problem`].
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    query: Query,
) -> Result<Json<List<DeadLetterShown>>, Problem> {
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
    let items = found.iter().map(show).collect();
    Ok(Json(List { items, next: None }))
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
) -> Result<Json<Redriven>, Problem> {
    let (mut query, dry_run) = read(&document)?;
    query.owner = caller.owner();
    let letters = &api.ports.dead_letters;
    let (matched, redriven) = if dry_run {
        (letters.count(&query).await?, 0)
    } else {
        let redriven = letters.redrive(&query, api.ports.clock.now()).await?;
        (redriven, redriven)
    };
    Ok(Json(Redriven { matched, redriven }))
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
                query.tenant = member.parsed("a tenant", parse)?;
            }
            "subscription" => {
                let parse = |text: &str| SubscriptionId::parse(text).ok();
                query.subscription = member.parsed("a subscription's id", parse)?;
            }
            "reason" => query.reason = member.parsed(REASONS, DeadReason::from_code)?,
            "since" => query.since = member.time()?,
            "until" => query.until = member.time()?,
            "limit" => query.limit = member.count(REDRIVE_MAX)?.unwrap_or(REDRIVE_MAX),
            "dry_run" => dry_run = member.flag()?.unwrap_or(false),
            _ => return Err(member.unknown()),
        }
    }
    Ok((query, dry_run))
}

/// One as the API shows it.
pub fn show(letter: &DeadLetter) -> DeadLetterShown {
    let delivery = &letter.delivery;
    DeadLetterShown {
        attempts: delivery.attempts,
        dead_at: letter.dead_at.to_string(),
        event_id: delivery.event.id.to_string(),
        event_type: delivery.event.kind.to_string(),
        first_attempt_at: delivery.first_attempt_at.map(|at| at.to_string()),
        id: delivery.id.to_string(),
        last_reason: delivery.last.map(|last| last.reason.code()),
        last_status: delivery.last.and_then(|last| last.status),
        reason: letter.reason.code(),
        subscription_id: delivery.subscription.to_string(),
        tenant: delivery.event.tenant.to_string(),
    }
}

fn reasons() -> Value {
    parts::one_of(DeadReason::ALL.map(DeadReason::code))
}

/// What [`list`] is.
pub fn describe_list(schemas: &mut Schemas) -> Operation {
    Operation::new(
        "dead-letters",
        "listDeadLetters",
        "List dead letters, oldest first",
    )
    .about("The oldest that match. Reading moves, loses and ages none.")
    .query("tenant", "Of this tenant's events.", parts::scope())
    .query(
        "subscription",
        "For this subscription.",
        parts::subscription_id(),
    )
    .query("reason", "Given up for this reason.", reasons())
    .query("since", "Not given up before then.", parts::time())
    .query("limit", "How many at most.", parts::limit())
    .answers(
        200,
        "The oldest that match.",
        parts::of::<List<DeadLetterShown>>(schemas),
        json!({ "items": [example()], "next": null }),
    )
}

/// What [`redrive`] is.
pub fn describe_redrive(schemas: &mut Schemas) -> Operation {
    let document = parts::document(json!({
        "tenant": parts::about(parts::scope(), "Those of this tenant's events."),
        "subscription": parts::about(parts::subscription_id(), "Those for this subscription."),
        "reason": parts::about(reasons(), "Those given up for this reason."),
        "since": parts::about(parts::time(), "Those not given up before then."),
        "until": parts::about(parts::time(), "Those given up before then."),
        "limit": {
            "type": "integer", "minimum": 1, "maximum": REDRIVE_MAX, "default": REDRIVE_MAX,
            "description": "How many at most, the oldest.",
        },
        "dry_run": {
            "type": "boolean", "default": false,
            "description": "Whether to count them, and send none.",
        },
    }));
    let one = json!({ "subscription": parts::SUBSCRIPTION, "dry_run": true });
    Operation::new(
        "dead-letters",
        "redriveDeadLetters",
        "Send dead letters again",
    )
    .about(
        "Sends those that match again, or counts them. The first thousand are due at once, the \
             others a thousand each second. Nothing is lost if it stops half way.",
    )
    .takes(
        document,
        false,
        &[("count those of one", one), ("all", json!({}))],
    )
    .answers(
        200,
        "What was done.",
        parts::of::<Redriven>(schemas),
        json!({ "matched": 12, "redriven": 0 }),
    )
}

/// What [`discard`] is.
pub fn describe_discard(_: &mut Schemas) -> Operation {
    Operation::new("dead-letters", "discardDeadLetter", "Discard a dead letter")
        .about("It is gone for good; the log tells of it, and where there are notices `delivery.discarded`.")
        .of("id", "The delivery.", parts::delivery_id(), parts::DELIVERY)
        .answers_nothing(204, "It was discarded.")
}

/// A dead letter in examples.
pub fn example() -> Value {
    json!({
        "attempts": 10,
        "dead_at": "2026-03-02T20:30:00.000Z",
        "event_id": "scan-4711",
        "event_type": "scan.finished",
        "first_attempt_at": parts::TIME,
        "id": parts::DELIVERY,
        "last_reason": "unavailable",
        "last_status": 503,
        "reason": "exhausted",
        "subscription_id": parts::SUBSCRIPTION,
        "tenant": "acme",
    })
}
