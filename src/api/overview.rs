//! `GET /v1/overview`: how it is going. `GET /v1/subscriptions/{id}/lane`: how it is going at
//! one endpoint. Counts and lanes are those of the process that answers.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::json;

use super::Api;
use super::auth::Caller;
use super::extract::SubscriptionPath;
use super::openapi::{Operation, Schemas, parts};
use super::problem::Problem;
use super::subscriptions;
use crate::domain::lane::CircuitState;
use crate::domain::recent::Minute;
use crate::domain::timestamp::UnixMillis;

/// Most endpoints that are named.
const WORST_MAX: usize = 10;

/// How it is going in the process that answers.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Overview")]
pub struct OverviewShown {
    /// The attempts of the last hour.
    last_hour: CountsShown,
    /// The same by the minute, the oldest first.
    minutes: Vec<MinuteShown>,
    /// For the admin: why events are not taken and delivered; null when they are.
    not_ready: Option<String>,
    /// For the admin: how many messages wait in which queue; null when they cannot be counted.
    queues: Option<BTreeMap<String, u64>>,
    /// Whether events are taken and delivered.
    ready: bool,
    /// The endpoints with most failures, at most ten.
    worst: Vec<WorstShown>,
}

/// How many attempts there were.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AttemptCounts")]
struct CountsShown {
    /// Those that were delivered.
    delivered: u32,
    /// The others.
    failed: u32,
    /// How long one took on average, in milliseconds; null without any.
    mean_ms: Option<u64>,
}

/// The attempts of one minute.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AttemptMinute")]
struct MinuteShown {
    /// When it began.
    #[schemars(schema_with = "parts::field::time")]
    at: String,
    /// Those that were delivered.
    delivered: u32,
    /// The others.
    failed: u32,
    /// How long one took on average, in milliseconds; null without any.
    mean_ms: Option<u64>,
}

/// The attempts of one endpoint.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "EndpointCounts")]
struct WorstShown {
    /// Those that were delivered.
    delivered: u32,
    /// The others.
    failed: u32,
    /// How long one took on average, in milliseconds.
    mean_ms: Option<u64>,
    /// Whose endpoint it is.
    #[schemars(schema_with = "parts::field::subscription_id")]
    subscription_id: String,
}

/// How it is going at one endpoint, in the process that answers; null where it had no traffic
/// there of late.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Lane")]
pub struct LaneShown {
    /// Whether requests pass: one at a time when it is half open.
    #[schemars(schema_with = "circuits")]
    circuit: Option<&'static str>,
    /// Since when every attempt has failed, in any process.
    #[schemars(schema_with = "parts::field::maybe_time")]
    failing_since: Option<String>,
    /// Deliveries that wait in memory.
    held: Option<usize>,
    /// Requests at this moment.
    in_flight: Option<u32>,
    /// Until when an open circuit lets nothing pass.
    #[schemars(schema_with = "parts::field::maybe_time")]
    open_until: Option<String>,
    /// Until when the endpoint has asked to be left alone.
    #[schemars(schema_with = "parts::field::maybe_time")]
    paused_until: Option<String>,
    /// Requests that may be under way at once.
    window: Option<u32>,
}

fn circuits(_: &mut Schemas) -> Schema {
    let open = CircuitState::Open(Duration::ZERO);
    let all = [CircuitState::Closed, open, CircuitState::HalfOpen];
    parts::field::maybe_word(all.map(CircuitState::name))
}

impl CountsShown {
    fn of(minute: &Minute) -> Self {
        Self {
            delivered: minute.delivered,
            failed: minute.failed,
            mean_ms: minute.mean_ms(),
        }
    }
}

/// The last hour's attempts by the minute, the endpoints with most failures and, for the admin,
/// what waits in which queue.
///
/// # Errors
/// [`Problem`].
pub async fn show(State(api): State<Api>, caller: Caller) -> Result<Json<OverviewShown>, Problem> {
    let summary = api.insight.recent(caller.owner().as_ref(), WORST_MAX);
    let now = api.ports.clock.now();
    let mut at = UnixMillis(now.seconds().div_euclid(60) * 60_000);
    let mut minutes = Vec::with_capacity(summary.minutes.len());
    for minute in summary.minutes.iter().rev() {
        minutes.push(MinuteShown {
            at: at.to_string(),
            delivered: minute.delivered,
            failed: minute.failed,
            mean_ms: minute.mean_ms(),
        });
        at = at.before(Duration::from_secs(60));
    }
    minutes.reverse();
    let worst = summary.worst.iter().map(|(id, sum)| WorstShown {
        delivered: sum.delivered,
        failed: sum.failed,
        mean_ms: sum.mean_ms(),
        subscription_id: id.to_string(),
    });
    let not_ready = api.insight.ready().await.err();
    let queues = match caller {
        Caller::Admin => api.insight.queues().await.ok(),
        Caller::Tenant(_) => None,
    };
    let named = |(name, size): (&str, u64)| (name.to_owned(), size);
    Ok(Json(OverviewShown {
        last_hour: CountsShown::of(&summary.sum),
        minutes,
        ready: not_ready.is_none(),
        not_ready: not_ready.filter(|_| caller == Caller::Admin),
        queues: queues.map(|sizes| sizes.into_iter().map(named).collect()),
        worst: worst.collect(),
    }))
}

/// The lane of one subscription's endpoint; all null where it had no traffic of late.
///
/// # Errors
/// [`Problem`].
pub async fn lane(
    State(api): State<Api>,
    caller: Caller,
    SubscriptionPath(id): SubscriptionPath,
) -> Result<Json<LaneShown>, Problem> {
    subscriptions::find(&api, &caller, &id).await?;
    let now = api.ports.clock.now();
    let failing = api.ports.health.failing().await?;
    let failing_since = failing.iter().find(|(failing, _)| *failing == id);
    let lane = api.insight.lane(&id);
    let open_for = lane.and_then(|lane| match lane.circuit {
        CircuitState::Open(wait) => Some(wait),
        CircuitState::Closed | CircuitState::HalfOpen => None,
    });
    let paused_for = lane.and_then(|lane| lane.paused_for);
    let after = |wait: Duration| now.after(wait).to_string();
    Ok(Json(LaneShown {
        circuit: lane.map(|lane| lane.circuit.name()),
        failing_since: failing_since.map(|(_, since)| since.to_string()),
        held: lane.map(|lane| lane.held),
        in_flight: lane.map(|lane| lane.in_flight),
        open_until: open_for.map(after),
        paused_until: paused_for.map(after),
        window: lane.map(|lane| lane.window),
    }))
}

/// What [`show`] is.
pub fn describe_show(schemas: &mut Schemas) -> Operation {
    let counts = json!({ "delivered": 5, "failed": 1, "mean_ms": 42 });
    let minute = json!({ "at": parts::TIME, "delivered": 5, "failed": 1, "mean_ms": 42 });
    let worst = json!({
        "delivered": 0, "failed": 1, "mean_ms": 30, "subscription_id": parts::SUBSCRIPTION,
    });
    Operation::new("overview", "readOverview", "Read how it is going")
        .about(
            "The last hour's attempts by the minute and the endpoints with most failures, of the \
             process that answers; for the admin also what waits in which queue.",
        )
        .answers(
            200,
            "How it is going.",
            parts::of::<OverviewShown>(schemas),
            json!({
                "last_hour": counts, "minutes": [minute], "not_ready": null,
                "queues": { "events": 0, "deliveries": 3, "wait": 12 }, "ready": true, "worst": [worst],
            }),
        )
}

/// What [`lane`] is.
pub fn describe_lane(schemas: &mut Schemas) -> Operation {
    Operation::new("overview", "readLane", "Read how an endpoint is doing")
        .about("What the process that answers knows of the subscription's endpoint.")
        .of(
            "id",
            "The subscription.",
            parts::subscription_id(),
            parts::SUBSCRIPTION,
        )
        .answers(
            200,
            "Its lane.",
            parts::of::<LaneShown>(schemas),
            json!({
                "circuit": "closed", "failing_since": null, "held": 0, "in_flight": 2,
                "open_until": null, "paused_until": null, "window": 8,
            }),
        )
}
