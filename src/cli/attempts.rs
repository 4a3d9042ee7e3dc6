//! `carillon attempts`: what was sent, and what came back.

use clap::Subcommand;
use comfy_table::Cell;
use serde_json::Value;

use super::args::Since;
use super::client::ApiClient;
use super::output::{Look, Tone, short_time_of, text_of, time_of};
use super::{CliError, Globals, args, output};
use crate::domain::timestamp::UnixMillis;

/// What was sent, and what came back
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// List attempts, newest first
    List(ListArgs),
}

/// Which attempts.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon attempts list --subscription sub_… --outcome failed --since 1h
  carillon attempts list --event evt-123 --verbose
  carillon attempts list --json --limit 1000 | jq '.items[].reason'")]
pub struct ListArgs {
    /// Only for this tenant's events
    #[arg(long)]
    pub tenant: Option<String>,
    /// Only for this subscription
    #[arg(long, value_name = "ID")]
    pub subscription: Option<String>,
    /// Only for this event
    #[arg(long, value_name = "ID")]
    pub event: Option<String>,
    /// Only of this delivery
    #[arg(long, value_name = "ID")]
    pub delivery: Option<String>,
    /// Only with this outcome
    #[arg(long, value_parser = ["delivered", "failed"])]
    pub outcome: Option<String>,
    /// Only since this time, or so long ago: 2026-03-01T12:30:00Z, 1h
    #[arg(long, value_name = "TIME", value_parser = Since::parse)]
    pub since: Option<Since>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,
    /// Show request and response of each
    #[arg(long, short)]
    pub verbose: bool,
}

/// Asks the API and prints.
///
/// # Errors
/// When the API cannot be asked.
pub async fn run(args: Args, globals: &Globals) -> Result<(), CliError> {
    let Action::List(args) = args.action;
    let now = args::now();
    let query = [
        ("tenant", args.tenant),
        ("subscription", args.subscription),
        ("event", args.event),
        ("delivery", args.delivery),
        ("outcome", args.outcome),
        (
            "since",
            args.since.map(|since| since.resolve(now).to_string()),
        ),
    ];
    let client = ApiClient::new(globals)?;
    let page = client.list(&["attempts"], &query, Some(args.limit)).await?;
    if globals.json {
        return output::json(&page);
    }
    let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
    if items.is_empty() {
        output::note("no attempts match");
        return Ok(());
    }
    let look = Look::detect();
    if args.verbose {
        for item in items {
            print_in_full(look, item, now)?;
        }
    } else {
        print_table(look, items, now)?;
        if let Some(failed) = items.iter().find(|item| item["outcome"] == "failed") {
            let id = text_of(failed, "delivery_id");
            output::note(&format!(
                "the last that failed: carillon deliveries show {id}; --verbose shows requests and responses"
            ));
        }
    }
    if !page["next"].is_null() {
        output::note(&format!(
            "there are more: --limit {} shows more of them",
            args.limit * 10
        ));
    }
    Ok(())
}

/// One line for each attempt.
///
/// # Errors
/// When standard output cannot be written.
pub fn print_table(look: Look, items: &[Value], now: UnixMillis) -> Result<(), CliError> {
    let header = [
        "TIME",
        "OUTCOME",
        "WHY",
        "TRY",
        "EVENT TYPE",
        "SUBSCRIPTION",
        "MS",
        "NEXT",
    ];
    let row = |item: &Value| {
        vec![
            Cell::new(short_time_of(item, "at", now)),
            look.cell(tone(item), text_of(item, "outcome")),
            Cell::new(why(item)),
            Cell::new(text_of(item, "attempt")),
            Cell::new(text_of(item, "event_type")),
            Cell::new(text_of(item, "subscription_id")),
            Cell::new(text_of(&item["timing"], "total_ms")),
            Cell::new(next(item, now)),
        ]
    };
    output::table(look, &header, items.iter().map(row).collect())
}

fn tone(item: &Value) -> Tone {
    match item["outcome"].as_str() {
        Some("delivered") => Tone::Good,
        Some("failed") => Tone::Bad,
        _ => Tone::Notable,
    }
}

/// `500 server_error`, `timeout`, `200`.
fn why(item: &Value) -> String {
    let status = match text_of(item, "status") {
        status if status.is_empty() || status == "0" => text_of(&item["response"], "status"),
        status => status,
    };
    let reason = text_of(item, "reason");
    format!("{status} {reason}").trim().to_owned()
}

/// `retry in 20s`, `dead_letter`; nothing after a delivery.
fn next(item: &Value, now: UnixMillis) -> String {
    let action = match text_of(item, "next_action") {
        action if action == "none" || action == "delivered" => String::new(),
        action => action,
    };
    match UnixMillis::parse_rfc3339(&text_of(item, "next_at")) {
        Some(at) => format!("{action} {}", at.beside(now)),
        None => action,
    }
}

fn print_in_full(look: Look, item: &Value, now: UnixMillis) -> Result<(), CliError> {
    let outcome = look.paint(tone(item), &text_of(item, "outcome"));
    let test = if item["test"] == true { " (test)" } else { "" };
    let number = text_of(item, "attempt");
    output::line(&format!(
        "{} attempt {number}: {outcome}{test}",
        time_of(item, "at", now)
    ))?;
    let pairs = [
        ("  why", why(item)),
        ("  detail", text_of(item, "detail")),
        (
            "  event",
            format!(
                "{} {}",
                text_of(item, "event_id"),
                text_of(item, "event_type")
            ),
        ),
        ("  tenant", text_of(item, "tenant")),
        ("  subscription", text_of(item, "subscription_id")),
        ("  delivery", text_of(item, "delivery_id")),
        ("  timing", timing(&item["timing"])),
        ("  next", next(item, now)),
    ];
    output::fields(look, &pairs)?;
    let url = text_of(&item["request"], "url");
    print_message(look, &format!("> POST {url}"), "> ", &item["request"])?;
    if item["response"].is_object() {
        let status = text_of(&item["response"], "status");
        print_message(look, &format!("< {status}"), "< ", &item["response"])?;
    }
    output::line("")
}

fn timing(timing: &Value) -> String {
    let parts = ["dns_ms", "connect_ms", "first_byte_ms", "total_ms"];
    let shown = parts.iter().filter_map(|name| {
        let ms = timing[*name].as_f64()?;
        Some(format!(
            "{} {ms} ms",
            name.trim_end_matches("_ms").replace('_', " ")
        ))
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn print_message(look: Look, start: &str, mark: &str, message: &Value) -> Result<(), CliError> {
    output::line(&look.paint(Tone::Strong, start))?;
    for (name, value) in headers(&message["headers"]) {
        output::line(&format!("{mark}{name}: {value}"))?;
    }
    let body = match &message["body"] {
        Value::Null => return Ok(()),
        Value::String(text) => output::visible(text),
        other => other.to_string(),
    };
    if !body.is_empty() {
        output::line(&format!("{mark}\n{body}"))?;
    }
    if message["body_cut"] == true {
        output::line(&look.paint(Tone::Faint, "(cut)"))?;
    }
    Ok(())
}

/// Headers as an object, or as an array of pairs.
fn headers(headers: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| match value {
        Value::String(text) => output::visible(text),
        other => other.to_string(),
    };
    match headers {
        Value::Object(map) => map
            .iter()
            .map(|(name, value)| (output::visible(name), text(value)))
            .collect(),
        Value::Array(pairs) => pairs
            .iter()
            .map(|pair| (text(&pair[0]), text(&pair[1])))
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_members_leave_gaps_only() {
        let now = UnixMillis::parse_rfc3339("2026-03-01T12:00:00Z").unwrap();
        assert_eq!(why(&json!({})), "");
        assert_eq!(
            why(&json!({"reason": "timeout", "status": null})),
            "timeout"
        );
        let answered = json!({"reason": "server_error", "response": {"status": 500}});
        assert_eq!(why(&answered), "500 server_error");
        assert_eq!(next(&json!({"next_action": "none"}), now), "");
        let retry = json!({"next_action": "retry", "next_at": "2026-03-01T12:00:20Z"});
        assert_eq!(next(&retry, now), "retry in 20s");
        assert_eq!(
            timing(&json!({"dns_ms": 1, "total_ms": 12.5})),
            "dns 1 ms, total 12.5 ms"
        );
        assert_eq!(headers(&json!({"a": "b"})), headers(&json!([["a", "b"]])));
    }
}
