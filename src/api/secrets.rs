//! `/v1/secrets/rotate`: encrypts signing secrets under the first key of `secrets.keys`.

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::Api;
use super::extract::Document;
use super::openapi::{Operation, Schemas, parts};
use super::problem::{Code, Problem};
use super::subscriptions::{page, rewrite};
use crate::domain::id::SubscriptionId;
use crate::domain::subscription::FieldFault;
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
pub async fn rotate(
    State(api): State<Api>,
    Document(document): Document,
) -> Result<Json<Rotated>, Problem> {
    if let Some(name) = document.keys().find(|name| *name != "cursor") {
        return Err(FieldFault::new(name.as_str(), "is not known; did you mean `cursor`?").into());
    }
    if !api.encrypts {
        let detail = "`secrets.keys` is not set, so there is no key to encrypt under";
        return Err(Problem::new(Code::NoKeys, detail));
    }
    let cursor = document.get("cursor").filter(|value| !value.is_null());
    let parse = |value: &Value| value.as_str().and_then(|id| SubscriptionId::parse(id).ok());
    let expected = || FieldFault::new("cursor", "must be the `next` of the call before");
    let after = cursor
        .map(|value| parse(value).ok_or_else(expected))
        .transpose()?;
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
