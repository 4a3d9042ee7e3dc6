//! What can be done with a subscription: the Test action, and another secret.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::Value;

use super::super::Api;
use super::super::auth::Caller;
use super::super::extract::{Document, SubscriptionPath};
use super::super::openapi::{Schemas, parts};
use super::super::problem::{Code, Problem};
use super::{find, new_secret, schema, update};
use crate::codec::attempt::outcome_code;
use crate::codec::subscription::show_secret;
use crate::config::duration;
use crate::domain::signature::SECRETS_MAX;

/// How long the secret before signs too when nothing is said.
const OVERLAP: Duration = Duration::from_secs(24 * 3600);
/// The longest that it may.
const OVERLAP_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// What came of a test event.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TestResult {
    /// A sentence on what went wrong; empty when it was delivered.
    detail: String,
    /// How long it took, in milliseconds.
    latency_ms: u64,
    /// How it ended.
    #[schemars(schema_with = "parts::field::outcome")]
    outcome: &'static str,
    /// Why it failed; null when it was delivered.
    #[schemars(schema_with = "parts::field::reason")]
    reason: Option<&'static str>,
    /// The first 16 KiB of what came back; null when no answer came.
    response_body: Option<String>,
    /// The status that came back.
    status: Option<u16>,
}

/// A new secret.
#[derive(Serialize, JsonSchema)]
pub struct Rotation {
    /// The subscription.
    #[schemars(schema_with = "parts::field::subscription_id")]
    id: String,
    /// Until when the one before signs too.
    #[schemars(schema_with = "parts::field::time")]
    overlap_until: String,
    /// The new one, shown this once.
    #[schemars(schema_with = "secret_schema")]
    secret: Value,
}

fn secret_schema(schemas: &mut Schemas) -> Schema {
    parts::field::schema(schema::secret(schemas))
}

/// Sends a test event to one, now, and answers with what happened.
///
/// # Errors
/// [`Problem`].
pub async fn test(
    State(api): State<Api>,
    caller: Caller,
    SubscriptionPath(id): SubscriptionPath,
    Document(_): Document,
) -> Result<Json<TestResult>, Problem> {
    let stored = find(&api, &caller, &id).await?;
    let tested = api.tester.test(&stored.subscription).await;
    let attempt = tested.map_err(|error| {
        tracing::error!(subscription = %id, error, "the test event could not be sent");
        Problem::internal()
    })?;
    let response = attempt.response.as_ref();
    let body = response.map(|response| String::from_utf8_lossy(&response.body));
    Ok(Json(TestResult {
        detail: attempt.detail.clone(),
        latency_ms: u64::try_from(attempt.timing.total.as_millis()).unwrap_or(u64::MAX),
        outcome: outcome_code(&attempt),
        reason: attempt.reason.map(|reason| reason.code()),
        response_body: body.map(Into::into),
        status: response.map(|response| response.status),
    }))
}

/// Makes a new secret; the one before signs too until the overlap is over.
///
/// # Errors
/// [`Problem`].
pub async fn rotate_secret(
    State(api): State<Api>,
    caller: Caller,
    SubscriptionPath(id): SubscriptionPath,
    document: Document,
) -> Result<Json<Rotation>, Problem> {
    let mut overlap = OVERLAP;
    for member in document.members() {
        if member.name != "overlap" {
            return Err(member.unknown().into());
        }
        let expected = "a duration such as \"24h\", at most 30 days";
        let allowed = |overlap: &Duration| *overlap <= OVERLAP_MAX;
        let parse = |text: &str| duration::parse(text).ok().filter(allowed);
        overlap = member.parsed(expected, parse)?.unwrap_or(OVERLAP);
    }
    let now = api.ports.clock.now();
    let until = now.after(overlap);
    let (rotated, ()) = update(&api, &caller, &id, |stored| {
        let secrets = stored.secrets.rotated(new_secret(&api), now, until);
        let secrets = secrets.ok_or_else(too_many_secrets)?;
        Ok((stored.subscription.as_ref().clone(), secrets, ()))
    })
    .await?;
    let signing = rotated.subscription.spec.signing;
    Ok(Json(Rotation {
        id: id.to_string(),
        overlap_until: until.to_string(),
        secret: show_secret(&rotated.secrets.current, signing),
    }))
}

fn too_many_secrets() -> Problem {
    let detail = format!(
        "{SECRETS_MAX} secrets sign for this subscription already: wait until an overlap is over"
    );
    Problem::new(Code::TooManySecrets, detail)
}
