//! `carillon metrics`: the reference of all metrics.

use serde_json::json;

use super::{CliError, Globals, output};
use crate::telemetry::{Metrics, page};

/// Print the reference of all metrics
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon metrics
  carillon metrics --json | jq -r '.metrics[].name'
  curl http://127.0.0.1:9464/metrics")]
pub struct Args {}

/// Prints the page, or with `--json` what it is made of.
///
/// # Errors
/// When it cannot be written.
pub fn run(globals: &Globals) -> Result<(), CliError> {
    if !globals.json {
        return output::write(page::page().as_bytes());
    }
    let described: Vec<_> = Metrics::described().into_iter().map(|metric| {
        let labels = metric.labels.into_iter();
        let labels: serde_json::Map<_, _> = labels
            .map(|(name, values)| (name.to_owned(), json!(values)))
            .collect();
        json!({ "name": metric.name, "type": metric.kind, "help": metric.help, "labels": labels })
    })
    .collect();
    output::json(&json!({ "metrics": described }))
}
