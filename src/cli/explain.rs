//! `carillon explain`: which subscriptions want an event, and why not the others.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::client::ApiClient;
use super::output::{Look, Tone, text_of};
use super::steps::pages;
use super::{CliError, Globals, args, output};

/// Which subscriptions want an event, and which rule of the others says no
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Nothing is sent. The event needs `type` and `data`; `tenant` may be named here instead.

Examples:
  carillon explain event.json
  echo '{\"type\": \"demo.happened\", \"data\": {}}' | carillon explain - --tenant acme")]
pub struct Args {
    /// The event, as JSON; `-` for standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
    /// Whose subscriptions to ask; the event's tenant when absent
    #[arg(long)]
    pub tenant: Option<String>,
}

/// Asks the API and prints.
///
/// # Errors
/// When the file cannot be read, or the API says no.
pub async fn run(args: Args, globals: &Globals) -> Result<(), CliError> {
    let bytes = args::read_input(&args.file).await?;
    let event: Value = serde_json::from_slice(&bytes).map_err(|error| {
        let file = args.file.display();
        CliError::Usage(format!(
            "{file} cannot be read as one event in JSON: {error}"
        ))
    })?;
    let client = ApiClient::new(globals)?;
    let mut request = json!({ "event": event });
    if let Some(tenant) = &args.tenant {
        request["tenant"] = json!(tenant);
    }
    let mut items = Vec::new();
    pages(&client, &["explain"], request, |mut answer| {
        if let Value::Array(some) = answer["items"].take() {
            items.extend(some);
        }
    })
    .await?;
    if globals.json {
        return output::json(&json!({ "items": items }));
    }
    print(&items)
}

fn print(items: &[Value]) -> Result<(), CliError> {
    if items.is_empty() {
        output::note("the tenant has no subscriptions");
        return Ok(());
    }
    let look = Look::detect();
    let row = |item: &Value| {
        let (tone, says) = match item["matches"].as_bool() {
            Some(true) => (Tone::Good, "yes".to_owned()),
            _ => (Tone::Faint, format!("no: {}", text_of(item, "rule"))),
        };
        vec![
            look.cell(Tone::Strong, text_of(item, "subscription_id")),
            look.cell(tone, says),
            look.cell(Tone::Faint, text_of(item, "detail")),
            look.cell(Tone::Faint, text_of(item, "description")),
        ]
    };
    let header = ["SUBSCRIPTION", "WANTS IT", "BECAUSE", "DESCRIPTION"];
    output::table(look, &header, items.iter().map(row).collect())?;
    let matched = items.iter().filter(|item| item["matches"] == true).count();
    output::note(&format!("{matched} of {} want the event", items.len()));
    Ok(())
}
