//! A file of subscriptions, as JSON or YAML.
//!
//! A name that is given twice is refused, as readers differ on which one counts; so is a number
//! that JSON does not have. No error repeats the text of the file: there may be secrets in it.

use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::super::CliError;

/// Levels of YAML: each takes some of the stack, of which a thread has 2 MiB.
const YAML_DEPTH_MAX: usize = 64;
/// Enough for a hundred thousand subscriptions; what aliases stand for counts too.
const YAML_NODES_MAX: usize = 10_000_000;
/// Values that aliases stand for: a filter of twenty for each of those. What they stand for has at
/// most 64 MiB of text (the library's bound), so that no file asks for more memory than it is worth.
const YAML_ALIASED_MAX: usize = 2_000_000;

/// The subscriptions of a file: an array, an object with `items`, one subscription, or several of
/// these one after the other, as JSON lines and YAML documents are. Where it has to be the whole
/// list, one page of a list is refused.
///
/// # Errors
/// [`CliError::Usage`] with what is wrong and where.
pub fn read_items(file: &Path, text: &[u8], is_whole: bool) -> Result<Vec<Value>, CliError> {
    let wrong = |problem: String| CliError::Usage(format!("{}: {problem}", file.display()));
    let documents = match is_yaml(file, text) {
        true => yaml(text),
        false => json(text),
    };
    let mut items = Vec::new();
    for document in documents.map_err(wrong)? {
        match document {
            Value::Array(several) => items.extend(several),
            Value::Object(document)
                if is_whole && document.get("next").is_some_and(Value::is_string) =>
            {
                let problem = "has `next`: it is one page of a list, and what is on the others would be \
                               deleted (`carillon subscriptions list --json` gives all)";
                return Err(wrong(problem.to_owned()));
            }
            Value::Object(mut document) => match document.remove("items") {
                Some(Value::Array(several)) => items.extend(several),
                Some(_) => return Err(wrong("`items` must be an array".to_owned())),
                None => items.push(document.into()),
            },
            _ => {
                let problem = "must hold subscriptions, which are objects";
                return Err(wrong(problem.to_owned()));
            }
        }
    }
    Ok(items)
}

/// By the file's ending; without one that is known, what begins like a JSON document is one.
fn is_yaml(file: &Path, text: &[u8]) -> bool {
    let ending = file.extension().and_then(|ending| ending.to_str());
    match ending.map(str::to_ascii_lowercase).as_deref() {
        Some("yaml" | "yml") => true,
        Some("json" | "jsonl" | "ndjson") => false,
        _ => {
            let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
            !matches!(first, None | Some(b'{' | b'['))
        }
    }
}

fn json(text: &[u8]) -> Result<Vec<Value>, String> {
    let documents = serde_json::Deserializer::from_slice(text).into_iter::<Strict>();
    documents
        .map(|document| document.map(|Strict(value)| value))
        .collect::<Result<_, _>>()
        .map_err(|error| format!("must be JSON: {error}"))
}

/// YAML 1.2, of which `true` and `false` are the only booleans. A document without anything in it
/// is passed over.
fn yaml(text: &[u8]) -> Result<Vec<Value>, String> {
    let text = std::str::from_utf8(text).map_err(|_| "must be YAML in UTF-8".to_owned())?;
    let options = serde_saphyr::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_depth: YAML_DEPTH_MAX,
            max_documents: YAML_NODES_MAX,
            max_events: YAML_NODES_MAX,
            max_nodes: YAML_NODES_MAX,
            max_aliases: YAML_ALIASED_MAX,
            max_merge_keys: YAML_ALIASED_MAX,
            // One filter that all subscriptions share is what anchors are for.
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: YAML_ALIASED_MAX,
        },
    };
    let documents = serde_saphyr::from_multiple_with_options::<Strict>(text, options);
    let documents = documents.map_err(|error| yaml_fault(&error))?;
    let documents = documents.into_iter().map(|Strict(value)| value);
    Ok(documents.filter(|value| !value.is_null()).collect())
}

/// What is wrong, without the library's advice to whoever calls it.
fn yaml_fault(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    let mut inner = error;
    while let Error::WithSnippet { error, .. } | Error::AliasError { error, .. } = inner {
        inner = error;
    }
    match inner {
        Error::Budget { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => format!(
            "is too much: at most {YAML_NODES_MAX} values, {YAML_ALIASED_MAX} that aliases stand for, \
             {YAML_DEPTH_MAX} levels and 64 MiB of text are read at once; cut it into several files"
        ),
        _ => {
            let told = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
            format!("must be YAML: {told}")
        }
    }
}

/// A value that JSON has, in which no object has a name twice.
struct Strict(Value);

struct StrictVisitor;

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON has")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Value, E> {
        Ok(truth.into())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        let number = Number::from_f64(number);
        number
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(Strict(element)) = access.next_element()? {
            elements.push(element);
        }
        Ok(elements.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let Strict(value) = access.next_value()?;
            if members.contains_key(&name) {
                return Err(A::Error::custom(format!("`{name}` is given twice")));
            }
            members.insert(name, value);
        }
        Ok(members.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::codec::subscription::SpecRules;
    use crate::codec::subscription::declared::read_declared;
    use crate::domain::retry::Exponential;

    fn read(file: &str, text: &str) -> Result<Vec<Value>, CliError> {
        read_items(Path::new(file), text.as_bytes(), true)
    }

    #[test]
    fn every_form_of_a_file_is_read() {
        let both = [json!({"id": "sub_1"}), json!({"id": "sub_2"})];
        for (file, text) in [
            ("subs.json", r#"[{"id":"sub_1"},{"id":"sub_2"}]"#),
            (
                "-",
                r#"{"items":[{"id":"sub_1"},{"id":"sub_2"}],"next":null}"#,
            ),
            ("subs.jsonl", "{\"id\":\"sub_1\"}\n{\"id\":\"sub_2\"}\n"),
            (
                "subs",
                r#"{"items":[{"id":"sub_1"}]} {"items":[{"id":"sub_2"}]}"#,
            ),
            ("subs.yaml", "- id: sub_1\n- id: sub_2\n"),
            ("subs.yml", "items:\n  - id: sub_1\n  - {id: 'sub_2'}\n"),
            ("-", "# ours\n---\nid: sub_1\n---\n- id: sub_2\n...\n"),
            ("SUBS.YAML", "[{id: sub_1}, {\"id\": sub_2}]"),
        ] {
            assert_eq!(read(file, text).unwrap(), both, "{text}");
        }
        assert_eq!(read("-", r#"{"id":"sub_1"}"#).unwrap(), both[..1]);
        for (file, text) in [("-", ""), ("a.yaml", ""), ("a.yaml", "# none\n---\n")] {
            assert_eq!(read(file, text).unwrap(), [] as [Value; 0], "{text}");
        }
    }

    #[test]
    fn a_wrong_file_is_wrong_usage() {
        for (file, text, part) in [
            ("subs.json", "[", "must be JSON"),
            ("subs.json", "5", "objects"),
            ("subs.json", r#"{"items":{}}"#, "`items`"),
            ("subs.json", r#"{"items":[],"next":"sub_9"}"#, "one page"),
            ("subs.json", r#"{"id":"sub_1"} nonsense"#, "must be JSON"),
            ("subs.json", r#"{"url":"a","url":"b"}"#, "`url`"),
            ("subs.json", "- id: sub_1", "must be JSON"),
            ("subs.yaml", "a: [", "must be YAML"),
            ("subs.yaml", "just text", "objects"),
            ("subs.yaml", "url: a\nurl: b\n", "url"),
            ("subs.yaml", "timeout_ms: .inf", "finite"),
            (
                "subs.yaml",
                &format!("a: {}", "[".repeat(5000)),
                "must be YAML",
            ),
            ("subs.yaml", &"- ".repeat(200), "levels"),
            (
                "subs.json",
                &format!("[{}", "[".repeat(5000)),
                "must be JSON",
            ),
        ] {
            let error = read(file, text).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{text}");
            let error = error.to_string();
            assert!(error.starts_with(&format!("{file}: ")), "{error}");
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn many_documents_are_read() {
        let text = "---\nid: sub_1\ntenant: acme\n".repeat(20_000);
        assert_eq!(read("a.yaml", &text).unwrap().len(), 20_000);
    }

    #[test]
    fn an_anchor_may_be_used_as_often_as_there_are_subscriptions() {
        let one = "- {id: sub_1, filter: *ours}\n";
        let text = format!(
            "- id: sub_0\n  filter: &ours {{type: [a]}}\n{}",
            one.repeat(5000)
        );
        let read = read("a.yaml", &text).unwrap();
        assert_eq!(read.len(), 5001);
        assert_eq!(read[5000]["filter"], json!({"type": ["a"]}));
    }

    #[test]
    fn a_few_lines_do_not_stand_for_more_than_fits_in_memory() {
        let mut laughs = "- &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]\n".to_owned();
        for n in 1..10 {
            let before = format!("*a{}, ", n - 1).repeat(10);
            laughs += &format!("- &a{n} [{before}]\n");
        }
        let long = format!(
            "- &long {}\n{}",
            "x".repeat(1 << 20),
            "- *long\n".repeat(1000)
        );
        for text in [laughs, long] {
            let error = read("a.yaml", &text).unwrap_err().to_string();
            assert!(error.contains("aliases stand for"), "{error}");
            assert!(
                !error.contains("Budget") && !error.contains("Options"),
                "{error}"
            );
        }
    }

    #[test]
    fn yaml_means_what_json_would() {
        let text = "
tenant: acme
enabled: false
description: no
event_types: ['*', on]
timeout_ms: 500
rate_limit: {per_second: 0.5, burst: 2}
filter: null
headers:
  x-number: 012
  x-grouped: 1_000
  x-text: a b
retry: ~
";
        let expected = json!({
            "tenant": "acme", "enabled": false, "description": "no", "event_types": ["*", "on"],
            "timeout_ms": 500, "rate_limit": {"per_second": 0.5, "burst": 2}, "filter": null,
            "headers": {"x-number": "012", "x-grouped": "1_000", "x-text": "a b"}, "retry": null,
        });
        assert_eq!(read("a.yaml", text).unwrap(), [expected]);
    }

    #[test]
    fn the_example_of_the_help_can_be_applied() {
        let help = super::super::APPLY_EXAMPLES;
        let example = help.split("subs.yaml:\n").nth(1).unwrap();
        let example = example.split("\n\n").next().unwrap();
        let rules = SpecRules {
            is_stored: false,
            require_https: true,
            timeout: std::time::Duration::from_secs(10),
            retry: Exponential::default(),
        };
        let items = read("subs.yaml", example).unwrap();
        assert_eq!(items.len(), 2);
        for item in items {
            let Value::Object(document) = item else {
                panic!("an object: {item}");
            };
            let declared = read_declared(document, &rules);
            assert!(declared.unwrap().id.is_some());
        }
    }

    #[test]
    fn a_fault_does_not_repeat_the_file() {
        let secret = "whsec_aHVudGVyMg";
        for text in [
            format!("secret: {secret}\n  url: [\n"),
            format!("secret: {secret}\nsecret: {secret}\n"),
            format!("secret: \"{secret}\n"),
        ] {
            let error = read("a.yaml", &text).unwrap_err().to_string();
            assert!(!error.contains(secret), "{error}");
        }
    }
}
