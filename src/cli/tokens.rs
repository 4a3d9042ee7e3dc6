//! `carillon tokens`: tokens for one tenant.

use clap::Subcommand;
use serde_json::json;

use super::client::{ApiClient, Repeat};
use super::{CliError, Globals, output};

/// Make tokens for a tenant
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Make a token that sees and changes what belongs to one tenant
    #[command(after_help = "\
The token stands alone on standard output. It is kept nowhere and cannot be taken back: it ends
when its time is over, or when `http.admin_token` changes.")]
    Create {
        /// Whose things it opens
        tenant: String,
        /// How long it is good for, at most 30 days
        #[arg(long, default_value = "1h")]
        ttl: String,
    },
}

/// Does it.
///
/// # Errors
/// When the API cannot be asked, or says no.
pub async fn run(args: Args, globals: &Globals) -> Result<(), CliError> {
    let client = ApiClient::new(globals)?;
    let Action::Create { tenant, ttl } = args.action;
    let path = ["tenants", tenant.as_str(), "tokens"];
    let request = json!({ "ttl": ttl });
    let made = client.post(&path, &request, Repeat::Safe).await?;
    if globals.json {
        return output::json(&made);
    }
    let text = |name: &str| made[name].as_str().unwrap_or_default();
    output::note(&format!(
        "for {}, until {}",
        text("tenant"),
        text("expires_at")
    ));
    output::line(text("token"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::super::asked::asked;
    use super::super::receiver::{Received, Reply};

    #[tokio::test]
    async fn a_tenant_of_any_name_gets_its_token() {
        let made =
            json!({ "token": "ct_x", "tenant": "acme/eu", "expires_at": "2026-03-01T12:30:00Z" });
        let script = move |_: &Received| Reply {
            body: Bytes::from(made.to_string()),
            ..Reply::status(http::StatusCode::CREATED)
        };
        let (requests, ended) = asked("tokens create acme/eu --ttl 5m", script).await;
        ended.unwrap();
        assert_eq!(requests[0].path, "/v1/tenants/acme%2Feu/tokens");
        let body: Value = serde_json::from_slice(&requests[0].body).unwrap();
        assert_eq!(body, json!({ "ttl": "5m" }));
    }
}
