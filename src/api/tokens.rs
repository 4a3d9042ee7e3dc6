//! `POST /v1/tenants/{tenant}/tokens`: a tenant token, such as for embedding the console.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::Api;
use super::extract::{Document, TenantPath};
use super::openapi::{Operation, Schemas, parts};
use super::problem::{Code, Problem};
use crate::codec::tenant_token::TenantToken;
use crate::config::duration;
use crate::domain::timestamp::UnixMillis;

/// How long a token is good for when nothing is said.
const TTL: Duration = Duration::from_secs(3600);
/// The longest that it may be: until then nothing but another admin token ends it.
const TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// A token, shown this once.
#[derive(Serialize, JsonSchema)]
pub struct TenantTokenMade {
    /// When it ends.
    #[schemars(schema_with = "parts::field::time")]
    expires_at: String,
    /// Whose it is.
    tenant: String,
    /// The token: `Authorization: Bearer <token>`.
    token: String,
}

/// Makes a token. It is kept nowhere: whoever loses it has another one made.
///
/// # Errors
/// [`Problem`].
pub async fn create(
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
    document: Document,
) -> Result<(StatusCode, Json<TenantTokenMade>), Problem> {
    let mut ttl = TTL;
    for member in document.members() {
        if member.name != "ttl" {
            return Err(member.unknown().into());
        }
        let expected = "a duration such as \"1h\", from 1s to 30 days";
        let allowed = |ttl: &Duration| (Duration::from_secs(1)..=TTL_MAX).contains(ttl);
        let parse = |text: &str| duration::parse(text).ok().filter(allowed);
        ttl = member.parsed(expected, parse)?.unwrap_or(TTL);
    }
    let expires_at = api.ports.clock.now().after(ttl);
    let token = TenantToken {
        tenant,
        // A token says whole seconds.
        expires_at: UnixMillis(expires_at.seconds() * 1000),
    };
    let text = api.gate.write(&token);
    tracing::info!(tenant = %token.tenant, expires_at = %token.expires_at, "tenant token made");
    let answer = TenantTokenMade {
        expires_at: token.expires_at.to_string(),
        tenant: token.tenant.to_string(),
        token: text.to_string(),
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// What [`create`] is.
pub fn describe_create(schemas: &mut Schemas) -> Operation {
    let ttl = parts::duration("1h", "from 1s to 30 days");
    Operation::new("tokens", "createTenantToken", "Make a tenant token")
        .about("A token that sees and changes what belongs to one tenant, such as for embedding the console. It is kept nowhere.")
        .of("tenant", "Whose it is to be.", parts::tenant(), "acme")
        .takes(parts::document(json!({ "ttl": ttl })), false, &[("for a day", json!({ "ttl": "24h" }))])
        .refuses(&[Code::InvalidField])
        .answers(
            201,
            "The token, shown this once.",
            parts::of::<TenantTokenMade>(schemas),
            json!({ "expires_at": parts::TIME, "tenant": "acme", "token": "ct_eyJ0ZW5hbnQi…" }),
        )
}
