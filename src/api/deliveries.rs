//! `/v1/deliveries/{id}`: what became of a delivery; what was sent, sent again.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::json;

use super::attempts::AttemptShown;
use super::auth::Caller;
use super::dead_letters::DeadLetterShown;
use super::extract::{DeliveryPath, Document, Query};
use super::openapi::{Operation, Schemas, parts};
use super::problem::{Code, Problem};
use super::{Api, attempts, dead_letters};
use crate::domain::attempt::{Attempt, NextAction};
use crate::domain::delivery::{DeadLetter, DeadReason};
use crate::domain::id::DeliveryId;
use crate::domain::redelivery::{NotRepeatable, redelivery};
use crate::domain::retry::Due;
use crate::domain::timestamp::UnixMillis;
use crate::ports::{AttemptQuery, DeadLetterQuery, Parcel};
use crate::telemetry::events::DeliveriesBegun;

/// Most attempts that are shown with a delivery, the newest.
const ATTEMPTS_SHOWN: usize = 100;
/// It will be attempted again.
const WAITING: &str = "waiting";
/// All that a delivery may be.
const STATES: [&str; 5] = [
    WAITING,
    "delivered",
    "dead_lettered",
    "failed",
    "redriven_or_discarded",
];

/// What became of a delivery.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Delivery")]
pub struct DeliveryShown {
    /// Its attempts, newest first: the newest hundred.
    attempts: Vec<AttemptShown>,
    /// The dead letter that there is of it, if there is one: it stays beside what a redelivery does,
    /// until it is redriven or discarded.
    dead_letter: Option<DeadLetterShown>,
    /// The event.
    event_id: String,
    /// The event's type.
    event_type: String,
    /// Its id; it is the `webhook-id`.
    #[schemars(schema_with = "parts::field::delivery_id")]
    id: String,
    /// When the next attempt is due, while it waits for one.
    #[schemars(schema_with = "parts::field::maybe_time")]
    next_at: Option<String>,
    /// What became of it, by its newest attempt and whether it was given up since: `failed` is a
    /// test's alone.
    #[schemars(schema_with = "states")]
    state: &'static str,
    /// Whom it is for.
    #[schemars(schema_with = "parts::field::subscription_id")]
    subscription_id: String,
    /// The event's tenant.
    tenant: String,
}

/// That a delivery is sent again.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Redelivered {
    /// The delivery.
    #[schemars(schema_with = "parts::field::delivery_id")]
    delivery: String,
    /// Always true.
    redelivered: bool,
}

fn states(_: &mut Schemas) -> Schema {
    parts::field::word(STATES)
}

/// What became of a delivery, with its attempts, newest first.
///
/// # Errors
/// [`Problem`]: 404 when neither an attempt of it is recorded (any more) nor is it a dead letter.
pub async fn show(
    State(api): State<Api>,
    caller: Caller,
    DeliveryPath(id): DeliveryPath,
    query: Query,
) -> Result<Json<DeliveryShown>, Problem> {
    let body_bytes = query.body_bytes()?;
    let attempts = attempts_of(&api, &caller, &id, ATTEMPTS_SHOWN).await?;
    let newest = attempts.first().map(|(_, attempt)| attempt);
    // To look for one costs a broker a walk through its queue.
    let letter = match may_be_dead(&attempts, api.ports.clock.now()) {
        true => dead_letter(&api, &caller, &id).await?,
        false => None,
    };
    let facts = match (newest, &letter) {
        (Some(attempt), _) => (
            attempt.subscription.to_string(),
            attempt.tenant.to_string(),
            attempt.event.to_string(),
            attempt.kind.to_string(),
        ),
        (None, Some(DeadLetter { delivery, .. })) => (
            delivery.subscription.to_string(),
            delivery.event.tenant.to_string(),
            delivery.event.id.to_string(),
            delivery.event.kind.to_string(),
        ),
        (None, None) => {
            return Err(Problem::not_found(
                "no attempt of such a delivery is recorded, and no dead letter is",
            ));
        }
    };
    let (subscription_id, tenant, event_id, event_type) = facts;
    let state = state_of(newest, letter.as_ref());
    let next_at = newest.and_then(|attempt| attempt.next_at);
    let shown = attempts.iter();
    let shown = shown.map(|(position, attempt)| attempts::show(*position, attempt, body_bytes));
    Ok(Json(DeliveryShown {
        attempts: shown.collect(),
        dead_letter: letter.as_ref().map(dead_letters::show),
        event_id,
        event_type,
        id: id.to_string(),
        next_at: next_at
            .filter(|_| state == WAITING)
            .map(|at| at.to_string()),
        state,
        subscription_id,
        tenant,
    }))
}

/// The newest attempts of it that the caller may see, newest first.
async fn attempts_of(
    api: &Api,
    caller: &Caller,
    id: &DeliveryId,
    limit: usize,
) -> Result<Vec<(u64, Attempt)>, Problem> {
    let wanted = AttemptQuery {
        owner: caller.owner(),
        delivery: Some(id.clone()),
        limit,
        ..AttemptQuery::default()
    };
    Ok(api.ports.audit.attempts(&wanted).await?)
}

/// Whether there may be a dead letter of what was attempted like this, newest first: one was told
/// of, a person had it sent again beside whatever there was, or it was due and may have been given
/// up without an attempt.
fn may_be_dead(attempts: &[(u64, Attempt)], now: UnixMillis) -> bool {
    let Some((_, newest)) = attempts.first() else {
        return true;
    };
    let is_told = |(_, attempt): &(u64, Attempt)| attempt.next_action == NextAction::DeadLetter;
    newest.redrives > 0
        || attempts.iter().any(is_told)
        || newest.next_at.is_some_and(|at| at <= now)
}

/// The dead letter that it is, and be it beside a delivery; of several, that of the latest series.
async fn dead_letter(
    api: &Api,
    caller: &Caller,
    id: &DeliveryId,
) -> Result<Option<DeadLetter>, Problem> {
    let wanted = DeadLetterQuery {
        owner: caller.owner(),
        delivery: Some(id.clone()),
        limit: ATTEMPTS_SHOWN,
        ..DeadLetterQuery::default()
    };
    let found = api.ports.dead_letters.list(&wanted).await?;
    Ok(found
        .into_iter()
        .max_by_key(|letter| letter.delivery.redrives))
}

/// In one word, by its newest attempt and the dead letter that there is.
fn state_of(newest: Option<&Attempt>, letter: Option<&DeadLetter>) -> &'static str {
    let Some(newest) = newest else {
        return "dead_lettered";
    };
    // What was given up before it was sent again is beside what came of that.
    let is_last = |letter: &DeadLetter| letter.delivery.redrives >= newest.redrives;
    match newest.next_action {
        _ if newest.reason.is_none() => "delivered",
        _ if newest.test => "failed",
        NextAction::Retry if !letter.is_some_and(is_last) => WAITING,
        _ if letter.is_some() => "dead_lettered",
        // It was given up, and is no dead letter any more.
        _ => "redriven_or_discarded",
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
) -> Result<(StatusCode, Json<Redelivered>), Problem> {
    let found = attempts_of(&api, &caller, &id, 1).await?;
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
    api.telemetry.emit(DeliveriesBegun { count: 1 });
    tracing::info!(
        delivery = %id, subscription = %attempt.subscription, tenant = %attempt.tenant,
        event = %attempt.event, "delivery is sent again"
    );
    let answer = Redelivered {
        delivery: id.to_string(),
        redelivered: true,
    };
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
    Err(Problem::new(Code::Dead(reason), detail))
}

fn refused(why: NotRepeatable) -> Problem {
    match why {
        NotRepeatable::Test => Problem::new(
            Code::TestDelivery,
            "the Test action made it, outside the queue: test the subscription again instead",
        ),
        NotRepeatable::BodyNotKept => Problem::new(
            Code::BodyNotKept,
            "only the beginning of its body was kept (`audit.body_bytes`): publish its event again",
        ),
    }
}

/// What [`show`] is.
pub fn describe_show(schemas: &mut Schemas) -> Operation {
    let mut attempt = attempts::example();
    attempt["next_action"] = "dead_letter".into();
    attempt["next_at"] = json!(null);
    Operation::new(
        "deliveries",
        "readDelivery",
        "Read what became of a delivery",
    )
    .about("Its state, and its attempts as far as the audit log has them.")
    .of("id", "The delivery.", parts::delivery_id(), parts::DELIVERY)
    .query(
        "body_bytes",
        "How much of each body at most.",
        parts::body_bytes(),
    )
    .answers(
        200,
        "The delivery.",
        parts::of::<DeliveryShown>(schemas),
        json!({
            "attempts": [attempt],
            "dead_letter": dead_letters::example(),
            "event_id": "scan-4711",
            "event_type": "scan.finished",
            "id": parts::DELIVERY,
            "next_at": null,
            "state": "dead_lettered",
            "subscription_id": parts::SUBSCRIPTION,
            "tenant": "acme",
        }),
    )
}

/// What [`redeliver`] is.
pub fn describe_redeliver(schemas: &mut Schemas) -> Operation {
    Operation::new("deliveries", "redeliver", "Send a delivery again")
        .about(
            "The same `webhook-id` and body, and a fresh series of attempts. It is beside whatever \
             else there is of the delivery: a retry that waits is made too, and a dead letter stays \
             where it is.",
        )
        .of("id", "The delivery.", parts::delivery_id(), parts::DELIVERY)
        .takes(parts::nothing(), false, &[("nothing", json!({}))])
        .refuses(&Code::OF_REDELIVERIES)
        .answers(
            202,
            "It waits its turn at its endpoint.",
            parts::of::<Redelivered>(schemas),
            json!({ "delivery": parts::DELIVERY, "redelivered": true }),
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::attempt::tests::plain;
    use crate::domain::outcome::Reason;

    fn attempt(next_action: NextAction, next_at: Option<i64>, redrives: u32) -> (u64, Attempt) {
        let attempt = Attempt {
            redrives,
            reason: Reason::from_code("gone").filter(|_| next_action != NextAction::None),
            next_action,
            next_at: next_at.map(UnixMillis),
            ..plain()
        };
        (1, attempt)
    }

    #[test]
    fn dead_letters_are_looked_through_only_where_there_may_be_one() {
        use NextAction::{DeadLetter, None as Nothing, Retry};
        let now = UnixMillis(100);
        for (attempts, expected) in [
            (vec![], true),
            (vec![attempt(Nothing, None, 0)], false),
            (vec![attempt(Retry, Some(101), 0)], false),
            (vec![attempt(Retry, Some(100), 0)], true),
            (vec![attempt(DeadLetter, None, 0)], true),
            (
                vec![attempt(Nothing, None, 0), attempt(DeadLetter, None, 0)],
                true,
            ),
            (
                vec![attempt(Nothing, None, 0), attempt(Retry, Some(50), 0)],
                false,
            ),
            (vec![attempt(Nothing, None, 1)], true),
        ] {
            assert_eq!(may_be_dead(&attempts, now), expected, "{attempts:?}");
        }
    }
}
