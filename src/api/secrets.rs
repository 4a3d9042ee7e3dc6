//! `/v1/secrets/rotate`: encrypts signing secrets under the first key of `secrets.keys`.

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::Api;
use super::extract::Document;
use super::openapi::{Operation, Schemas, parts};
use super::problem::{Code, Problem};
use super::subscriptions::{page, rewrite};
use crate::domain::id::SubscriptionId;
use crate::ports::StoredSubscription;

/// Subscriptions that one call writes again.
const PAGE: usize = 100;

/// What one call wrote again.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Rotated {
    /// What to ask for as `cursor` to go on; null when all are written.
    next: Option<String>,
    /// How many subscriptions were written again.
    rotated: usize,
}

/// Writes a page of subscriptions again, those after `cursor`, each as it is: what was not
/// encrypted is afterwards, and what was is under the first key. Nothing else of them changes,
/// and deliveries go on.
///
/// # Errors
/// [`Problem`]: 409 when there are no keys.
pub async fn rotate(State(api): State<Api>, document: Document) -> Result<Json<Rotated>, Problem> {
    let mut after = None;
    for member in document.members() {
        if member.name != "cursor" {
            return Err(member.unknown().into());
        }
        let parse = |text: &str| SubscriptionId::parse(text).ok();
        after = member.parsed("the `next` of the call before", parse)?;
    }
    if !api.encrypts {
        let detail = "`secrets.keys` is not set, so there is no key to encrypt under";
        return Err(Problem::new(Code::NoKeys, detail));
    }
    let (found, next) = page(&api, None, after.as_ref(), PAGE).await?;
    let count = found.len();
    for stored in found {
        let as_it_is = |there: &StoredSubscription| {
            Ok(((*there.subscription).clone(), there.secrets.clone(), ()))
        };
        rewrite(&api, stored, as_it_is).await?;
    }
    tracing::info!(count, "signing secrets are encrypted under the first key");
    Ok(Json(Rotated {
        next: next.map(|id| id.to_string()),
        rotated: count,
    }))
}

/// What [`rotate`] is.
pub fn describe_rotate(schemas: &mut Schemas) -> Operation {
    let cursor = parts::about(parts::subscription_id(), "The `next` of the call before.");
    let document = parts::document(json!({ "cursor": cursor }));
    let more = json!({ "cursor": parts::SUBSCRIPTION });
    Operation::new(
        "secrets",
        "rotateSecrets",
        "Encrypt signing secrets under the first key",
    )
    .about(
        "Writes a page of subscriptions again, each as it is: what was not encrypted is \
             afterwards, and what was is under the first key of `secrets.keys`.",
    )
    .takes(document, false, &[("begin", json!({})), ("go on", more)])
    .refuses(&[Code::NoKeys, Code::Conflict])
    .answers(
        200,
        "What was written again.",
        parts::of::<Rotated>(schemas),
        json!({ "next": parts::SUBSCRIPTION, "rotated": PAGE }),
    )
}
