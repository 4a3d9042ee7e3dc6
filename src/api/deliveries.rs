//! `/v1/deliveries/{id}`: what was sent, sent again.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde_json::{Value, json};

use super::Api;
use super::auth::Caller;
use super::extract::{DeliveryPath, Document};
use super::problem::Problem;
use crate::domain::attempt::Attempt;
use crate::domain::delivery::DeadReason;
use crate::domain::redelivery::{NotRepeatable, redelivery};
use crate::domain::retry::Due;
use crate::ports::{AttemptQuery, Parcel};

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
