//! Subscriptions on a terminal.

use comfy_table::Cell;
use serde_json::Value;

use super::super::output::{Look, Tone, text_of, time_of};
use super::super::{CliError, args, output};

/// A page of subscriptions.
///
/// # Errors
/// When standard output cannot be written.
pub fn list(as_json: bool, page: &Value) -> Result<(), CliError> {
    if as_json {
        return output::json(page);
    }
    let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
    if items.is_empty() {
        output::note("no subscriptions; `carillon subscriptions create --help` shows how");
        return Ok(());
    }
    let look = Look::detect();
    let header = [
        "ID",
        "TENANT",
        "STATE",
        "FORMAT",
        "EVENT TYPES",
        "URL",
        "DESCRIPTION",
    ];
    let row = |item: &Value| {
        let (tone, state) = state(item);
        vec![
            Cell::new(text_of(item, "id")),
            Cell::new(text_of(item, "tenant")),
            look.cell(tone, state),
            Cell::new(text_of(item, "format")),
            Cell::new(event_types(item)),
            Cell::new(text_of(item, "url")),
            Cell::new(text_of(item, "description")),
        ]
    };
    output::table(look, &header, items.iter().map(row).collect())
}

/// One subscription; with its secret, if the answer has it.
///
/// # Errors
/// When standard output cannot be written.
pub fn one(as_json: bool, item: &Value) -> Result<(), CliError> {
    if as_json {
        return output::json(item);
    }
    let look = Look::detect();
    let now = args::now();
    let (tone, state) = state(item);
    let json_of = |name: &str| match &item[name] {
        Value::Object(members) if members.is_empty() => String::new(),
        _ => text_of(item, name),
    };
    let pairs = [
        ("id", text_of(item, "id")),
        ("tenant", text_of(item, "tenant")),
        ("url", text_of(item, "url")),
        ("state", look.paint(tone, &state)),
        ("format", text_of(item, "format")),
        ("description", text_of(item, "description")),
        ("event types", event_types(item)),
        ("filter", json_of("filter")),
        ("headers", json_of("headers")),
        ("rate limit", rate_limit(item)),
        ("timeout", timeout(item)),
        ("retry", json_of("retry")),
        ("signing", text_of(item, "signing")),
        ("public key", text_of(item, "public_key")),
        ("created", time_of(item, "created_at", now)),
        ("updated", time_of(item, "updated_at", now)),
    ];
    output::fields(look, &pairs)?;
    warnings(item);
    secret(look, &item["secret"])
}

/// What the answer warns of.
fn warnings(item: &Value) {
    warnings_of("", item);
}

/// The same of one among several, which is `named`.
pub fn warnings_of(named: &str, item: &Value) {
    let colon = if named.is_empty() { "" } else { ": " };
    let warnings = item["warnings"].as_array().map_or(&[][..], Vec::as_slice);
    for warning in warnings {
        let (field, detail) = (text_of(warning, "field"), text_of(warning, "detail"));
        let detail = output::visible(&detail);
        output::note(&format!("warning: {named}{colon}{field}: {detail}"));
    }
}

/// The answer to a rotation: the new secret, and until when the old one signs too.
///
/// # Errors
/// When standard output cannot be written.
pub fn rotated(as_json: bool, answer: &Value) -> Result<(), CliError> {
    if as_json {
        return output::json(answer);
    }
    let look = Look::detect();
    let shown = match &answer["secret"] {
        Value::Object(_) => &answer["secret"],
        _ => answer,
    };
    secret(look, shown)?;
    let until = ["previous_until", "overlap_until", "until"];
    let until = until.map(|name| time_of(answer, name, args::now()));
    match until.iter().find(|text| !text.is_empty()) {
        Some(until) => output::line(&format!("The old secret signs too until {until}.")),
        None => Ok(()),
    }
}

/// The secrets that declaring made, each below its subscription.
///
/// # Errors
/// When standard output cannot be written.
pub fn made_secrets(look: Look, items: &[Value]) -> Result<(), CliError> {
    let mut made = items
        .iter()
        .filter(|item| item["secret"].is_object())
        .peekable();
    if made.peek().is_none() {
        return Ok(());
    }
    let title = "Secrets that were made, shown this once: give them to the receivers now.";
    output::line(&format!("\n{}", look.paint(Tone::Notable, title)))?;
    for item in made {
        output::line(&text_of(item, "id"))?;
        let secret = &item["secret"];
        let pairs = [
            ("  whsec", text_of(secret, "whsec")),
            ("  hex", text_of(secret, "hex")),
            ("  whpk", text_of(secret, "public_key")),
        ];
        output::fields(look, &pairs)?;
    }
    Ok(())
}

fn secret(look: Look, secret: &Value) -> Result<(), CliError> {
    let pairs = [
        ("  whsec", text_of(secret, "whsec")),
        ("  hex", text_of(secret, "hex")),
    ];
    if pairs.iter().any(|(_, value)| !value.is_empty()) {
        let title = "The secret, shown this once: give it to the receiver now.";
        output::line(&format!("\n{}", look.paint(Tone::Notable, title)))?;
        return output::fields(look, &pairs);
    }
    let key = text_of(secret, "public_key");
    if key.is_empty() {
        return Ok(());
    }
    output::line("\nThe public key, for the receiver:")?;
    output::fields(look, &[("  whpk", key)])
}

fn state(item: &Value) -> (Tone, String) {
    if item["enabled"] == false {
        let reason = text_of(item, "disabled_reason");
        return (Tone::Bad, format!("disabled {reason}").trim().to_owned());
    }
    (Tone::Good, "enabled".to_owned())
}

fn event_types(item: &Value) -> String {
    let types = item["event_types"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let types: Vec<&str> = types.iter().filter_map(Value::as_str).collect();
    output::visible(&types.join(" "))
}

fn rate_limit(item: &Value) -> String {
    let limit = &item["rate_limit"];
    match (&limit["per_second"], &limit["burst"]) {
        (Value::Number(rate), Value::Number(burst)) => {
            let rate = rate.to_string();
            let rate = rate.trim_end_matches(".0");
            format!("{rate} a second, {burst} at once after a quiet time")
        }
        _ => String::new(),
    }
}

fn timeout(item: &Value) -> String {
    match text_of(item, "timeout_ms") {
        ms if ms.is_empty() => ms,
        ms => format!("{ms} ms"),
    }
}
