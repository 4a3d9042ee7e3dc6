//! `/v1/deliveries/{id}`: what became of a delivery; what was sent, sent again.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde_json::{Value, json};

use super::auth::Caller;
use super::extract::{DeliveryPath, Document};
use super::problem::Problem;
use super::{Api, attempts, dead_letters};
use crate::domain::attempt::{Attempt, NextAction};
use crate::domain::delivery::{DeadLetter, DeadReason};
use crate::domain::id::DeliveryId;
use crate::domain::redelivery::{NotRepeatable, redelivery};
use crate::domain::retry::Due;
use crate::ports::{AttemptQuery, DeadLetterQuery, Parcel};

/// Most attempts that are shown with a delivery, the newest.
const ATTEMPTS_SHOWN: usize = 100;
/// It will be attempted again.
const WAITING: &str = "waiting";

/// What became of a delivery, with its attempts, newest first.
///
/// # Errors
/// [`Problem`]: 404 when neither an attempt of it is recorded (any more) nor is it a dead letter.
pub async fn show(
    State(api): State<Api>,
    caller: Caller,
    DeliveryPath(id): DeliveryPath,
) -> Result<Json<Value>, Problem> {
    let wanted = AttemptQuery {
        owner: caller.owner(),
        delivery: Some(id.clone()),
        limit: ATTEMPTS_SHOWN,
        ..AttemptQuery::default()
    };
    let attempts = api.ports.audit.attempts(&wanted).await?;
    let newest = attempts.first().map(|(_, attempt)| attempt);
    // To look for one costs a broker a walk through its queue; what arrived is none.
    let letter = match newest {
        Some(attempt) if attempt.reason.is_none() || attempt.test => None,
        _ => dead_letter(&api, &caller, &id).await?,
    };
    let mut document = match (newest, &letter) {
        (Some(attempt), _) => json!({
            "id": id.as_str(),
            "subscription_id": attempt.subscription.as_str(),
            "tenant": attempt.tenant.as_str(),
            "event_id": attempt.event.as_str(),
            "event_type": attempt.kind.as_str(),
        }),
        (None, Some(letter)) => json!({
            "id": id.as_str(),
            "subscription_id": letter.delivery.subscription.as_str(),
            "tenant": letter.delivery.event.tenant.as_str(),
            "event_id": letter.delivery.event.id.as_str(),
            "event_type": letter.delivery.event.kind.as_str(),
        }),
        (None, None) => {
            return Err(Problem::not_found(
                "no attempt of such a delivery is recorded, and no dead letter is",
            ));
        }
    };
    let state = state_of(newest, letter.is_some());
    let next_at = newest.and_then(|attempt| attempt.next_at);
    document["state"] = json!(state);
    document["next_at"] = json!(
        next_at
            .filter(|_| state == WAITING)
            .map(|at| at.to_string())
    );
    document["dead_letter"] = json!(letter.as_ref().map(dead_letters::show));
    let shown = attempts
        .iter()
        .map(|(position, attempt)| attempts::show(*position, attempt));
    document["attempts"] = shown.collect();
    Ok(Json(document))
}

async fn dead_letter(
    api: &Api,
    caller: &Caller,
    id: &DeliveryId,
) -> Result<Option<DeadLetter>, Problem> {
    let wanted = DeadLetterQuery {
        owner: caller.owner(),
        delivery: Some(id.clone()),
        limit: 1,
        ..DeadLetterQuery::default()
    };
    let found = api.ports.dead_letters.list(&wanted).await?;
    Ok(found.into_iter().next())
}

/// In one word, by its newest attempt and whether it is a dead letter now.
fn state_of(newest: Option<&Attempt>, is_dead: bool) -> &'static str {
    match newest {
        _ if is_dead => "dead_lettered",
        Some(attempt) if attempt.reason.is_none() => "delivered",
        Some(attempt) if attempt.test => "failed",
        Some(attempt) => match attempt.next_action {
            NextAction::Retry => WAITING,
            // It was given up, and is no dead letter any more.
            NextAction::DeadLetter | NextAction::None => "redriven_or_discarded",
        },
        None => "unknown",
    }
}

/// Sends a delivery again of which an attempt is recorded: the same `webhook-id` and body, a
/// fresh series of attempts, due now. It waits its turn at its endpoint like any other.
///
/// It is beside whatever else there is of the same delivery. A retry that waits is made too,
/// and a dead letter stays where it is: redrive or discard that.
///
/// # Errors
/// [`Problem`]: 404 when no attempt is recorded (any more), 409 with a code when it cannot be
/// sent again.
pub async fn redeliver(
    State(api): State<Api>,
    caller: Caller,
    DeliveryPath(id): DeliveryPath,
    Document(_): Document,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let newest = AttemptQuery {
        owner: caller.owner(),
        delivery: Some(id.clone()),
        limit: 1,
        ..AttemptQuery::default()
    };
    let found = api.ports.audit.attempts(&newest).await?;
    let Some((_, attempt)) = found.first() else {
        return Err(Problem::not_found(
            "no attempt of such a delivery is recorded; `audit.keep` and \
             `audit.per_subscription` say how many are",
        ));
    };
    let mut random = [0; 8];
    api.ports.chance.fill(&mut random);
    let now = api.ports.clock.now();
    let delivery = redelivery(attempt, now, u64::from_be_bytes(random)).map_err(refused)?;
    check_subscription(&api, &caller, attempt).await?;
    let due = Due::at(now);
    let parcel = Parcel::Delivery { delivery, due };
    api.ports.outbox.put(vec![parcel]).await?;
    tracing::info!(
        delivery = %id, subscription = %attempt.subscription, tenant = %attempt.tenant,
        event = %attempt.event, "delivery is sent again"
    );
    let answer = json!({ "delivery": id.as_str(), "redelivered": true });
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

/// What nobody would send is refused here, rather than given up a moment later.
async fn check_subscription(api: &Api, caller: &Caller, attempt: &Attempt) -> Result<(), Problem> {
    let id = &attempt.subscription;
    let found = api.ports.subscriptions.get(id).await?;
    // An id may have been given to somebody else's since.
    let found = found.filter(|stored| {
        let scope = &stored.subscription.tenant;
        caller.sees(scope) && scope.covers(&attempt.tenant)
    });
    let (reason, detail) = match found {
        None => (
            DeadReason::SubscriptionDeleted,
            format!("its subscription {id} was deleted: there is nowhere to send it"),
        ),
        Some(stored) if stored.subscription.disabled_reason.is_some() => (
            DeadReason::SubscriptionDisabled,
            format!("its subscription {id} is disabled: enable it first"),
        ),
        Some(_) => return Ok(()),
    };
    Err(conflict(reason.code(), detail))
}

fn refused(why: NotRepeatable) -> Problem {
    match why {
        NotRepeatable::Test => conflict(
            "test_delivery",
            "the Test action made it, outside the queue: test the subscription again instead",
        ),
        NotRepeatable::BodyNotKept => conflict(
            "body_not_kept",
            "only the beginning of its body was kept (`audit.body_bytes`): publish its event again",
        ),
    }
}

fn conflict(code: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::CONFLICT, code, detail)
}
