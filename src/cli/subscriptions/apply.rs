//! `carillon subscriptions apply`: declares what a file says, and shows what came of it.

use std::ops::Range;
use std::path::Path;

use comfy_table::Cell;
use serde_json::{Value, json};

use super::super::client::{ApiClient, ApiError, Repeat};
use super::super::output::{Look, Tone, text_of};
use super::super::{CliError, args, output};
use super::show;

/// Most subscriptions that the API takes at a time.
const PART_ITEMS_MAX: usize = 10_000;
/// Bytes in one request; well below what the API takes.
const PART_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Declares what `file` says.
///
/// # Errors
/// When the file cannot be read, or the API cannot be asked or says no.
pub async fn apply(client: &ApiClient, as_json: bool, file: &Path) -> Result<(), CliError> {
    let items = read_items(file, &args::read_input(file).await?)?;
    let mut applied = Vec::with_capacity(items.len());
    for part in parts(&items) {
        let body = Value::from(&items[part.clone()]);
        // A second call would not show again the secrets that the first one made.
        let answer = client.put(&["subscriptions"], &body, Repeat::Never).await;
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                if !applied.is_empty() {
                    show_applied(as_json, &items, &applied)?;
                }
                return Err(CliError::Failed(refusal(&items, &part, &error)));
            }
        };
        let Value::Array(found) = answer["items"].take() else {
            return Err(CliError::Failed(
                "the API answered without `items`".to_owned(),
            ));
        };
        applied.extend(found);
    }
    if items.is_empty() {
        output::note(&format!("{}: no subscriptions", file.display()));
    }
    show_applied(as_json, &items, &applied)
}

/// The subscriptions of a file: an array, an object with `items`, one subscription, or several
/// of these one after the other, as JSON lines are.
fn read_items(file: &Path, text: &[u8]) -> Result<Vec<Value>, CliError> {
    let wrong = |problem: String| CliError::Usage(format!("{}: {problem}", file.display()));
    let mut items = Vec::new();
    for document in serde_json::Deserializer::from_slice(text).into_iter::<Value>() {
        match document.map_err(|error| wrong(format!("must be JSON: {error}")))? {
            Value::Array(several) => items.extend(several),
            Value::Object(mut document) => match document.remove("items") {
                Some(Value::Array(several)) => items.extend(several),
                Some(_) => return Err(wrong("`items` must be an array".to_owned())),
                None => items.push(document.into()),
            },
            _ => {
                return Err(wrong(
                    "must hold subscriptions, which are objects".to_owned(),
                ));
            }
        }
    }
    Ok(items)
}

/// Cuts the items into parts that fit a request each.
fn parts(items: &[Value]) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (n, item) in items.iter().enumerate() {
        let size = item.to_string().len() + 1;
        if n > start && (n - start >= PART_ITEMS_MAX || bytes + size > PART_BYTES_MAX) {
            parts.push(start..n);
            (start, bytes) = (n, 0);
        }
        bytes += size;
    }
    if start < items.len() {
        parts.push(start..items.len());
    }
    parts
}

/// Which item was refused, why, and what that means for the rest.
fn refusal(items: &[Value], part: &Range<usize>, error: &ApiError) -> String {
    let index = error.problem().and_then(|problem| {
        let index = problem.document["index"].as_u64()?;
        usize::try_from(index).ok()
    });
    let which = index.map(|index| {
        let number = part.start + index + 1;
        let item = items.get(number - 1).unwrap_or(&Value::Null);
        let name = [text_of(item, "id"), text_of(item, "url")];
        let name = name.into_iter().find(|name| !name.is_empty());
        let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
        format!("subscription {number}{name}: ")
    });
    let before = match (part.start, error.problem()) {
        (0, Some(_)) => "Nothing was changed.".to_owned(),
        (0, None) => "Whether anything was changed is not known.".to_owned(),
        (n, _) => format!("The first {n} were applied."),
    };
    let error = error.to_string();
    let error = error.trim_end_matches('.');
    format!("{}{error}. {before}", which.unwrap_or_default())
}

/// Prints what was done; as JSON, in the form of the API's answer.
fn show_applied(as_json: bool, items: &[Value], applied: &[Value]) -> Result<(), CliError> {
    let actions = ["created", "updated", "unchanged"];
    let count = |action: &str| applied.iter().filter(|one| one["action"] == action).count();
    if as_json {
        let [created, updated, unchanged] = actions.map(count);
        return output::json(&json!({
            "created": created, "updated": updated, "unchanged": unchanged, "items": applied,
        }));
    }
    if applied.is_empty() {
        return Ok(());
    }
    let look = Look::detect();
    let row = |(item, one): (&Value, &Value)| {
        let tone = match one["action"].as_str() {
            Some("created") => Tone::Good,
            Some("updated") => Tone::Notable,
            _ => Tone::Faint,
        };
        vec![
            Cell::new(text_of(one, "id")),
            look.cell(tone, text_of(one, "action")),
            Cell::new(text_of(item, "tenant")),
            Cell::new(text_of(item, "url")),
        ]
    };
    let rows = items.iter().zip(applied).map(row).collect();
    output::table(look, &["ID", "ACTION", "TENANT", "URL"], rows)?;
    let counts = actions.map(|action| format!("{} {action}", count(action)));
    output::line(&format!("\n{}", counts.join(", ")))?;
    applied.iter().for_each(show::warnings);
    show::made_secrets(look, applied)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Value>, CliError> {
        read_items(Path::new("subs.json"), text.as_bytes())
    }

    #[test]
    fn every_form_of_a_file_is_read() {
        let both = [json!({"id": "sub_1"}), json!({"id": "sub_2"})];
        for text in [
            r#"[{"id":"sub_1"},{"id":"sub_2"}]"#,
            r#"{"items":[{"id":"sub_1"},{"id":"sub_2"}],"next":null}"#,
            "{\"id\":\"sub_1\"}\n{\"id\":\"sub_2\"}\n",
            r#"{"items":[{"id":"sub_1"}]} {"items":[{"id":"sub_2"}]}"#,
        ] {
            assert_eq!(read(text).unwrap(), both, "{text}");
        }
        assert_eq!(read(r#"{"id":"sub_1"}"#).unwrap(), both[..1]);
        assert_eq!(read("").unwrap(), [] as [Value; 0]);
        for text in ["[", "5", r#"{"items":{}}"#, r#"{"id":"sub_1"} nonsense"#] {
            let error = read(text).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{text}");
            assert!(error.to_string().starts_with("subs.json: "), "{error}");
        }
    }

    #[test]
    fn parts_fit_a_request_and_leave_nothing_out() {
        assert!(parts(&[]).is_empty());
        let many = vec![json!({}); PART_ITEMS_MAX + 1];
        let cut = PART_ITEMS_MAX;
        assert_eq!(parts(&many), [0..cut, cut..cut + 1]);
        let big = vec![json!("x".repeat(PART_BYTES_MAX / 2)); 3];
        assert_eq!(parts(&big), [0..1, 1..2, 2..3]);
        assert_eq!(parts(&many[..3]), vec![0..3; 1]);
    }
}
