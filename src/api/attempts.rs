//! `GET /v1/attempts`: the audit log, newest first.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::{Value, json};

use super::Api;
use super::answer::List;
use super::auth::Caller;
use super::extract::Query;
use super::openapi::{Operation, Schemas, parts};
use super::problem::Problem;
use crate::codec::attempt::outcome_code;
use crate::domain::attempt::{Attempt, NextAction};
use crate::domain::outcome::Reason;
use crate::ports::AttemptQuery;

/// One request of a delivery: what was sent, what came back, and what follows.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Attempt")]
pub struct AttemptShown {
    /// When the request began.
    #[schemars(schema_with = "parts::field::time")]
    at: String,
    /// Its number within the delivery, from 1 each time that somebody has it sent again.
    attempt: u32,
    /// The delivery; it is the `webhook-id`.
    #[schemars(schema_with = "parts::field::delivery_id")]
    delivery_id: String,
    /// A sentence on what went wrong; empty when it was delivered.
    detail: String,
    /// The event.
    event_id: String,
    /// The event's type.
    event_type: String,
    /// Its place in the log.
    #[schemars(regex(pattern = "^att_[0-9]+$"))]
    id: String,
    /// What follows.
    #[schemars(schema_with = "next_actions")]
    next_action: &'static str,
    /// When the retry is due, if one follows.
    #[schemars(schema_with = "parts::field::maybe_time")]
    next_at: Option<String>,
    /// How it ended.
    #[schemars(schema_with = "parts::field::outcome")]
    outcome: &'static str,
    /// Why it failed; null when it was delivered.
    #[schemars(schema_with = "parts::field::reason")]
    reason: Option<&'static str>,
    /// How often somebody had the delivery sent again before.
    redrives: u32,
    /// What was sent.
    request: RequestShown,
    /// What came back; null when no answer came.
    response: Option<ResponseShown>,
    /// The status that came back.
    status: Option<u16>,
    /// Whom it was for.
    #[schemars(schema_with = "parts::field::subscription_id")]
    subscription_id: String,
    /// The event's tenant.
    tenant: String,
    /// Whether the Test action made it.
    test: bool,
    /// How long its parts took, where it is known.
    timing: TimingShown,
}

/// A request as it went out.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SentRequest")]
struct RequestShown {
    /// Its body; what is not UTF-8 is replaced.
    body: String,
    /// Whether only the beginning of the body was kept (`audit.body_bytes`), or asked for.
    body_cut: bool,
    /// Its headers, names in lower case.
    headers: BTreeMap<String, String>,
    /// Where to.
    url: String,
}

/// An answer as it came in.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ReceivedResponse")]
struct ResponseShown {
    /// The first 16 KiB of its body; what is not UTF-8 is replaced.
    body: String,
    /// Whether the body went on, broke off, or was not asked for whole.
    body_cut: bool,
    /// Its headers, names in lower case.
    headers: BTreeMap<String, String>,
    /// The status code.
    status: u16,
}

/// How long the parts of an attempt took, in milliseconds.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Timing")]
struct TimingShown {
    /// Until the connection was there.
    connect_ms: Option<u64>,
    /// Until the name was looked up.
    dns_ms: Option<u64>,
    /// Until the first byte of the answer came.
    first_byte_ms: Option<u64>,
    /// All of it.
    total_ms: u64,
}

fn next_actions(_: &mut Schemas) -> Schema {
    parts::field::word(
        [NextAction::None, NextAction::Retry, NextAction::DeadLetter].map(NextAction::code),
    )
}

/// A page of attempts.
///
/// # Errors
/// [`Problem`].
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    query: Query,
) -> Result<Json<List<AttemptShown>>, Problem> {
    let (limit, body_bytes) = (query.limit()?, query.body_bytes()?);
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
    let items = found.iter();
    let items = items.map(|(position, attempt)| show(*position, attempt, body_bytes));
    let items = items.collect();
    Ok(Json(List { items, next }))
}

/// One attempt as the API shows it, with at most `body_bytes` of each body.
pub fn show(position: u64, attempt: &Attempt, body_bytes: usize) -> AttemptShown {
    let request = &attempt.request;
    let response = attempt.response.as_ref();
    let timing = &attempt.timing;
    AttemptShown {
        at: attempt.at.to_string(),
        attempt: attempt.number,
        delivery_id: attempt.delivery.to_string(),
        detail: attempt.detail.clone(),
        event_id: attempt.event.to_string(),
        event_type: attempt.kind.to_string(),
        id: format!("att_{position}"),
        next_action: attempt.next_action.code(),
        next_at: attempt.next_at.map(|at| at.to_string()),
        outcome: outcome_code(attempt),
        reason: attempt.reason.map(Reason::code),
        redrives: attempt.redrives,
        request: RequestShown {
            body: text_of(&request.body, body_bytes),
            body_cut: request.body_cut || request.body.len() > body_bytes,
            headers: headers(&request.headers),
            url: request.url.clone(),
        },
        response: response.map(|response| ResponseShown {
            body: text_of(&response.body, body_bytes),
            body_cut: response.body_cut || response.body.len() > body_bytes,
            headers: headers(&response.headers),
            status: response.status,
        }),
        status: response.map(|response| response.status),
        subscription_id: attempt.subscription.to_string(),
        tenant: attempt.tenant.to_string(),
        test: attempt.test,
        timing: TimingShown {
            connect_ms: timing.connect.map(millis),
            dns_ms: timing.dns.map(millis),
            first_byte_ms: timing.first_byte.map(millis),
            total_ms: millis(timing.total),
        },
    }
}

/// The beginning of a body as text; a character that does not fit whole is left out.
fn text_of(body: &[u8], most: usize) -> String {
    let beginning = body.get(..most).unwrap_or(body);
    let mut text = String::from_utf8_lossy(beginning).into_owned();
    if beginning.len() < body.len() {
        text.truncate(text.trim_end_matches('\u{fffd}').len());
    }
    text
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Headers as an object; values of a name that came several times are joined (RFC 9110
/// section 5.3).
fn headers(pairs: &[(String, String)]) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::<String, String>::new();
    for (name, value) in pairs {
        let joined = match headers.get(name) {
            Some(before) => format!("{before}, {value}"),
            None => value.clone(),
        };
        headers.insert(name.clone(), joined);
    }
    headers
}

/// What [`list`] is.
pub fn describe_list(schemas: &mut Schemas) -> Operation {
    let outcome = parts::one_of(parts::OUTCOMES);
    Operation::new("attempts", "listAttempts", "List attempts, newest first")
        .about(
            "The audit log: each attempt's request, answer, timing and what follows. It is kept for \
             `audit.keep`, and at most `audit.per_subscription` of each subscription.",
        )
        .query("tenant", "Of this tenant's events.", parts::scope())
        .query("subscription", "For this subscription.", parts::subscription_id())
        .query("event", "Of the event with this id.", parts::event_id())
        .query("delivery", "Of this delivery.", parts::delivery_id())
        .query("outcome", "That ended like this.", outcome)
        .query("since", "Not made before then.", parts::time())
        .query("limit", "How many at most.", parts::limit())
        .query("cursor", "The `next` of the page before.", parts::number_cursor())
        .query("body_bytes", "How much of each body at most; `body_cut` says where there is more.", parts::body_bytes())
        .answers(
            200,
            "A page of attempts.",
            parts::of::<List<AttemptShown>>(schemas),
            json!({ "items": [example()], "next": "17" }),
        )
}

/// An attempt in examples.
pub fn example() -> Value {
    json!({
        "at": parts::TIME,
        "attempt": 1,
        "delivery_id": parts::DELIVERY,
        "detail": "the endpoint answered 503",
        "event_id": "scan-4711",
        "event_type": "scan.finished",
        "id": "att_18",
        "next_action": "retry",
        "next_at": "2026-03-01T12:30:05.500Z",
        "outcome": "failed",
        "reason": "unavailable",
        "redrives": 0,
        "request": {
            "body": "{\"type\":\"scan.finished\",\"timestamp\":\"2026-03-01T12:30:00Z\",\"data\":{\"findings\":3}}",
            "body_cut": false,
            "headers": { "content-type": "application/json", "webhook-id": parts::DELIVERY },
            "url": "https://hooks.example.com/carillon",
        },
        "response": {
            "body": "busy", "body_cut": false, "headers": { "retry-after": "5" }, "status": 503,
        },
        "status": 503,
        "subscription_id": parts::SUBSCRIPTION,
        "tenant": "acme",
        "test": false,
        "timing": { "connect_ms": 12, "dns_ms": 3, "first_byte_ms": 48, "total_ms": 49 },
    })
}
