//! `GET /v1/overview`: how it is going. `GET /v1/subscriptions/{id}/lane`: how it is going at
//! one endpoint. Counts and lanes are those of the process that answers.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::Api;
use super::auth::Caller;
use super::extract::SubscriptionPath;
use super::problem::Problem;
use super::subscriptions;
use crate::domain::lane::CircuitState;
use crate::domain::recent::Minute;
use crate::domain::timestamp::UnixMillis;

/// Most endpoints that are named.
const WORST_MAX: usize = 10;

/// The last hour's attempts by the minute, the endpoints with most failures and, for the admin,
/// what waits in which queue.
///
/// # Errors
/// [`Problem`].
pub async fn show(State(api): State<Api>, caller: Caller) -> Result<Json<Value>, Problem> {
    let now = api.ports.clock.now();
    let owner = caller.owner();
    let summary = api.insight.recent(owner.as_ref(), WORST_MAX);
    let mut at = UnixMillis(now.seconds().div_euclid(60) * 60_000);
    let mut minutes = Vec::with_capacity(summary.minutes.len());
    for minute in summary.minutes.iter().rev() {
        let mut counted = counts(minute);
        counted["at"] = json!(at.to_string());
        minutes.push(counted);
        at = at.before(Duration::from_secs(60));
    }
    minutes.reverse();
    let worst = summary.worst.iter().map(|(id, sum)| {
        let mut counted = counts(sum);
        counted["subscription_id"] = json!(id.as_str());
        counted
    });
    let worst: Vec<Value> = worst.collect();
    let not_ready = api.insight.ready().await.err();
    let queues = match caller {
        Caller::Admin => api.insight.queues().await.ok(),
        Caller::Tenant(_) => None,
    };
    let named = |(name, size): (&str, u64)| (name.to_owned(), json!(size));
    let queues: Option<Map<_, _>> = queues.map(|sizes| sizes.into_iter().map(named).collect());
    Ok(Json(json!({
        "ready": not_ready.is_none(),
        "not_ready": not_ready.filter(|_| caller == Caller::Admin),
        "last_hour": counts(&summary.sum),
        "minutes": minutes,
        "worst": worst,
        "queues": queues,
    })))
}

fn counts(minute: &Minute) -> Value {
    json!({
        "delivered": minute.delivered,
        "failed": minute.failed,
        "mean_ms": minute.mean_ms(),
    })
}

/// The lane of one subscription's endpoint; all null where it had no traffic of late.
///
/// # Errors
/// [`Problem`].
pub async fn lane(
    State(api): State<Api>,
    caller: Caller,
    SubscriptionPath(id): SubscriptionPath,
) -> Result<Json<Value>, Problem> {
    subscriptions::find(&api, &caller, &id).await?;
    let now = api.ports.clock.now();
    let failing = api.ports.health.failing().await?;
    let failing_since = failing.iter().find(|(failing, _)| *failing == id);
    let failing_since = failing_since.map(|(_, since)| since.to_string());
    let lane = api.insight.lane(&id);
    let open_until = lane.and_then(|lane| match lane.circuit {
        CircuitState::Open(wait) => Some(now.after(wait).to_string()),
        CircuitState::Closed | CircuitState::HalfOpen => None,
    });
    let paused_until = lane.and_then(|lane| lane.paused_for);
    Ok(Json(json!({
        "window": lane.map(|lane| lane.window),
        "in_flight": lane.map(|lane| lane.in_flight),
        "held": lane.map(|lane| lane.held),
        "circuit": lane.map(|lane| lane.circuit.name()),
        "open_until": open_until,
        "paused_until": paused_until.map(|wait| now.after(wait).to_string()),
        "failing_since": failing_since,
    })))
}
