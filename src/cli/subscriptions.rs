//! `carillon subscriptions`: who wants which events, and where they go.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{ApiClient, Repeat};
use super::output::{Look, Tone, text_of};
use super::{CliError, Globals, args, output};

mod apply;
mod document;
mod file;
mod plan;
mod show;

use document::Fields;

/// Who wants which events, and where they go
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// List subscriptions
    #[command(after_help = LIST_EXAMPLES)]
    List {
        /// Only this tenant's
        #[arg(long)]
        tenant: Option<String>,
        /// At most so many [default: all]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
    },
    /// Show one subscription
    Get {
        /// The subscription
        id: String,
    },
    /// Create a subscription, and show its secret once
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Box<Fields>),
    /// Declare subscriptions from a file: say what changes, then create or replace them
    ///
    /// The file holds what `create` takes, as YAML (`.yaml`, `.yml`; several documents may stand
    /// behind each other) or as JSON: an array, `{"items": […]}` as `list --json` prints it, one
    /// subscription, or one a line. Each may have an `id`: the one that is there is replaced (a
    /// field that is not named has its default again), else it is created under that id. Without
    /// an id a new one is created each time. Each may have a `secret` (whsec_… or 64 hexadecimal
    /// digits), to move or restore it; without one the secret that is there is kept, or a new one
    /// is made and shown once. What Carillon itself sets (`created_at`, `disabled_reason` …) is
    /// ignored. Subscriptions that the file does not name stay as they are, but for --prune.
    ///
    /// First the plan is printed: `+` is created, `~` updated, with each field that changes (of
    /// secrets and headers no values), and `-` deleted. Then it is carried out: all that is created
    /// and updated, or none of it (more than 10,000 are sent in parts, each all or none); what is
    /// deleted goes afterwards, one by one.
    ///
    /// It needs the admin token, for the plan as well: whoever chooses ids sees what others have.
    #[command(after_help = APPLY_EXAMPLES)]
    Apply(apply::Args),
    /// Change a subscription; what is not named stays
    #[command(after_help = UPDATE_EXAMPLES)]
    Update {
        /// The subscription
        id: String,
        /// What changes.
        #[command(flatten)]
        fields: Box<Fields>,
    },
    /// Delete a subscription; deliveries that wait for it are dead-lettered
    Delete {
        /// The subscription
        id: String,
        /// Do not ask first
        #[arg(long, short)]
        yes: bool,
    },
    /// Send a test event now, and show what happened; exit code 1 when it failed
    Test {
        /// The subscription
        id: String,
    },
    /// Make a new secret, and show it once
    #[command(after_help = ROTATE_EXAMPLES)]
    RotateSecret {
        /// The subscription
        id: String,
        /// How long the old secret signs too, such as 24h [default: the server's]
        #[arg(long, value_name = "DURATION", value_parser = args::duration)]
        overlap: Option<Duration>,
    },
}

const LIST_EXAMPLES: &str = "\
Examples:
  carillon subscriptions list --tenant acme
  carillon subscriptions list --json | jq '.items[] | select(.enabled | not)'
  carillon subscriptions list --json > subs.json       for `carillon subscriptions apply`";

const CREATE_EXAMPLES: &str = "\
Examples:
  carillon subscriptions create --tenant acme --url https://example.com/hook
  carillon subscriptions create --tenant acme --url https://example.com/hook \\
    --event-type 'lookup_result.*' --rate 10 --burst 20 \\
    --filter '{\"data\":{\"alerts\":{\"alert\":{\"type\":[{\"prefix\":\"dns\"}]}}}}'
  carillon subscriptions create --data @subscription.json";

const APPLY_EXAMPLES: &str = "\
Example of a file, subs.yaml:
  items:
    - id: sub_AcmeAlerts
      tenant: acme
      url: https://hooks.acme.example/alerts
      event_types: ['lookup_result.*']
      rate_limit: { per_second: 10, burst: 20 }
      filter:
        data: { alerts: { result: { risk: [ numeric: ['>=', 60] ] } } }
    - id: sub_AcmeAudit
      tenant: acme
      url: https://audit.acme.example/in
      signing: ed25519
      timeout_ms: 5000

Examples:
  carillon subscriptions apply -f subs.yaml --dry-run
  carillon subscriptions apply -f subs.yaml --prune
  carillon subscriptions list --json > subs.json       a backup, without secrets
  carillon subscriptions apply -f subs.json            after a loss: restores it

Secrets are not in the backup. After a loss new ones are made and shown, which the
receivers must be given, unless the file has `secret` where it is known.";

const UPDATE_EXAMPLES: &str = "\
Examples:
  carillon subscriptions update sub_… --disabled
  carillon subscriptions update sub_… --url https://example.com/new --timeout 5s
  carillon subscriptions update sub_… --header 'X-Old:'      takes a header away
  carillon subscriptions update sub_… --data '{\"filter\":null}'";

const ROTATE_EXAMPLES: &str = "\
Examples:
  carillon subscriptions rotate-secret sub_… --overlap 24h";

/// Does it.
///
/// # Errors
/// When the API cannot be asked or says no; [`CliError::Reported`] when a test delivery
/// failed.
pub async fn run(args: Args, globals: &Globals) -> Result<(), CliError> {
    let client = ApiClient::new(globals)?;
    let as_json = globals.json;
    match args.action {
        Action::List { tenant, limit } => {
            let query = [("tenant", tenant)];
            let page = client.list(&["subscriptions"], &query, limit).await?;
            show::list(as_json, &page)
        }
        Action::Get { id } => {
            let found = client.get(&["subscriptions", &id], &[]).await?;
            show::one(as_json, &found)
        }
        Action::Create(fields) => {
            let document = fields.document().await?;
            let path = ["subscriptions"];
            let created = client.post(&path, &document, Repeat::Never).await?;
            show::one(as_json, &created)
        }
        Action::Apply(args) => apply::apply(&client, as_json, &args).await,
        Action::Update { id, fields } => {
            let patch = fields.patch().await?;
            let updated = client.patch(&["subscriptions", &id], &patch).await?;
            show::one(as_json, &updated)
        }
        Action::Delete { id, yes } => delete(&client, as_json, &id, yes).await,
        Action::Test { id } => test(&client, as_json, &id).await,
        Action::RotateSecret { id, overlap } => {
            let body = match overlap {
                // Milliseconds are too fine for a rotation; less than one is no overlap.
                Some(overlap) => json!({"overlap": format!("{}s", overlap.as_secs())}),
                None => json!({}),
            };
            let path = ["subscriptions", &id, "rotate-secret"];
            let rotated = client.post(&path, &body, Repeat::Never).await?;
            show::rotated(as_json, &rotated)
        }
    }
}

async fn delete(client: &ApiClient, as_json: bool, id: &str, yes: bool) -> Result<(), CliError> {
    let path = ["subscriptions", id];
    if !yes && std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
        let found = client.get(&path, &[]).await?;
        let (tenant, url) = (text_of(&found, "tenant"), text_of(&found, "url"));
        if !confirmed(&format!("Delete {id} of {tenant} ({url})?"))? {
            return Err(CliError::Failed("nothing was deleted".to_owned()));
        }
    }
    client.delete(&path).await?;
    if as_json {
        return output::json(&json!({"deleted": id}));
    }
    output::line(&format!("deleted {id}"))
}

fn confirmed(question: &str) -> Result<bool, CliError> {
    output::note(&format!("{question} [y/N]"));
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    read.map_err(|error| CliError::io("standard input", &error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

async fn test(client: &ApiClient, as_json: bool, id: &str) -> Result<(), CliError> {
    let path = ["subscriptions", id, "test"];
    let result = client.post(&path, &json!({}), Repeat::Never).await?;
    let delivered = result["outcome"] == "delivered";
    if as_json {
        output::json(&result)?;
    } else {
        print_test(&result, delivered)?;
    }
    if delivered {
        Ok(())
    } else {
        Err(CliError::Reported)
    }
}

fn print_test(result: &Value, delivered: bool) -> Result<(), CliError> {
    let look = Look::detect();
    let tone = if delivered { Tone::Good } else { Tone::Bad };
    let latency = match text_of(result, "latency_ms") {
        latency if latency.is_empty() => latency,
        latency => format!("{latency} ms"),
    };
    let pairs = [
        ("outcome", look.paint(tone, &text_of(result, "outcome"))),
        ("reason", text_of(result, "reason")),
        ("detail", text_of(result, "detail")),
        ("status", text_of(result, "status")),
        ("latency", latency),
        ("response", text_of(result, "response_body")),
    ];
    output::fields(look, &pairs)
}
