//! `carillon secrets`: the signing secrets at rest.

use clap::Subcommand;
use serde_json::json;

use super::client::ApiClient;
use super::steps::pages;
use super::{CliError, Globals, output};

/// Encrypt the signing secrets under another key
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Encrypt all signing secrets under the first key of `secrets.keys`
    #[command(after_help = "\
To change the key, while everything goes on:
  1. put the new key first in secrets.keys, leave the old one behind it, restart every replica
  2. carillon secrets rotate
  3. take the old key away, restart

With several replicas, have all of them know the new key first: put it behind the old one, restart
every replica, and begin then. Until a replica knows it, it cannot read what others write under it.

Receivers notice nothing: the secrets stay the same. Interrupted, the same command begins again.")]
    Rotate,
}

/// Does it.
///
/// # Errors
/// When the API cannot be asked, or says no.
pub async fn run(args: Args, globals: &Globals) -> Result<(), CliError> {
    let client = ApiClient::new(globals)?;
    match args.action {
        Action::Rotate => rotate(&client, globals.json).await,
    }
}

async fn rotate(client: &ApiClient, as_json: bool) -> Result<(), CliError> {
    let progress = output::progress(None, "subscriptions");
    let mut rotated = 0;
    pages(client, &["secrets", "rotate"], json!({}), |answer| {
        rotated += answer["rotated"].as_u64().unwrap_or(0);
        progress.set_position(rotated);
    })
    .await?;
    progress.finish_and_clear();
    if as_json {
        return output::json(&json!({ "rotated": rotated }));
    }
    output::line(&format!(
        "the secrets of {} are encrypted under the first key",
        output::count(rotated, "subscription")
    ))
}
