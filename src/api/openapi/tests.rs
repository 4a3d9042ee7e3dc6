//! The description holds: it is current, whole, and says what the readers do.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use jsonschema::{Draft, Validator};

use super::super::problem::Code;
use super::super::routes;
use super::*;
use crate::codec::subscription::declared::read_declared;
use crate::codec::subscription::{READ_ONLY, SpecRules, WRITABLE, read};
use crate::domain::retry::Exponential;
use serde_json::Value;

fn whole() -> Value {
    serde_json::from_str(text()).unwrap()
}

/// Checks values against `schema`, which may refer to what the document names.
fn validator(document: &Value, schema: &Value) -> Validator {
    let root = json!({ "components": document["components"], "allOf": [schema] });
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .should_validate_formats(true)
        .build(&root)
        .unwrap()
}

/// Each operation, with its method and path.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let method = method.to_ascii_uppercase();
            found.push((format!("{method} {path}"), operation));
        }
    }
    found
}

#[test]
fn the_copy_is_current() {
    let copy = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let copy = std::fs::read_to_string(copy).unwrap_or_default();
    assert!(
        copy == text(),
        "docs/openapi.json is stale: run `make docs`"
    );
}

#[test]
fn every_line_of_the_table_is_described_once() {
    let document = whole();
    let described = operations(&document);
    let lines = routes::table();
    assert_eq!(described.len(), lines.len());
    let ids = described
        .iter()
        .map(|(_, operation)| operation["operationId"].as_str().unwrap());
    assert_eq!(ids.collect::<BTreeSet<_>>().len(), lines.len());
    let tags = document["tags"].as_array().unwrap().iter();
    let tags: BTreeSet<_> = tags.map(|tag| tag["name"].as_str().unwrap()).collect();
    for (name, operation) in &described {
        assert!(
            tags.contains(operation["tags"][0].as_str().unwrap()),
            "{name}"
        );
        let named = name
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let parameters = operation["parameters"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let in_path = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "path");
        let in_path = in_path.map(|parameter| parameter["name"].as_str().unwrap());
        assert!(
            named.eq(in_path),
            "{name}: each name in the path has its parameter"
        );
        let answers = operation["responses"].as_object().unwrap();
        assert!(
            answers.keys().any(|status| status.starts_with('2')),
            "{name}"
        );
        let is_gated = operation["security"] != json!([]);
        assert_eq!(answers.contains_key("401"), is_gated, "{name}");
    }
}

/// Hands each schema of the document that has examples on, with where it is.
fn walk(at: &str, value: &Value, found: &mut Vec<(String, Value, Value)>) {
    match value {
        Value::Object(members) => {
            if let Some(schema) = members.get("schema") {
                let named = members.get("examples").and_then(Value::as_object);
                let named = named
                    .into_iter()
                    .flatten()
                    .map(|(_, example)| &example["value"]);
                for example in named.chain(members.get("example")) {
                    found.push((at.to_owned(), schema.clone(), example.clone()));
                }
            }
            if let Some(examples) = members.get("examples").and_then(Value::as_array) {
                let examples = examples.iter();
                found.extend(examples.map(|one| (at.to_owned(), value.clone(), one.clone())));
            }
            if let Some(default) = members.get("default") {
                found.push((at.to_owned(), value.clone(), default.clone()));
            }
            for (name, member) in members {
                // What is an example is not looked into.
                if !matches!(name.as_str(), "example" | "examples" | "default") {
                    walk(&format!("{at}/{name}"), member, found);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(&format!("{at}/{index}"), item, found);
            }
        }
        _ => {}
    }
}

#[test]
fn every_example_and_default_is_one() {
    let document = whole();
    let mut examples = Vec::new();
    walk("#", &document, &mut examples);
    assert!(examples.len() > 150, "{}", examples.len());
    for (at, schema, example) in examples {
        let faults = validator(&document, &schema);
        let faults: Vec<_> = faults
            .iter_errors(&example)
            .map(|fault| fault.to_string())
            .collect();
        assert!(faults.is_empty(), "{at}: {example}: {faults:?}");
    }
}

#[test]
fn what_is_taken_and_answered_has_an_example() {
    for (name, operation) in operations(&whole()) {
        let taken = operation["requestBody"]["content"]
            .as_object()
            .into_iter()
            .flatten();
        let taken = taken.filter(|(kind, _)| kind.ends_with("json"));
        for (kind, content) in taken {
            assert!(
                !content["examples"].as_object().unwrap().is_empty(),
                "{name}: {kind}"
            );
        }
        for (status, answer) in operation["responses"].as_object().unwrap() {
            let answered = answer["content"].as_object().into_iter().flatten();
            for (kind, content) in answered {
                assert!(content.get("example").is_some(), "{name}: {status} {kind}");
            }
        }
    }
}

#[test]
fn every_code_is_answered_somewhere() {
    let text = text();
    for code in Code::all().filter(|code| *code != Code::MethodNotAllowed) {
        let told = format!("- `{}`: ", code.name());
        assert!(text.contains(&told), "no operation refuses with {code:?}");
    }
}

#[test]
fn every_field_of_a_subscription_is_described() {
    let document = whole();
    let schemas = &document["components"]["schemas"];
    for name in WRITABLE.iter().chain(READ_ONLY) {
        for schema in [
            "NewSubscription",
            "SubscriptionPatch",
            "DeclaredSubscription",
        ] {
            assert!(
                schemas[schema]["properties"].get(name).is_some(),
                "{schema}: {name}"
            );
        }
        let is_warning = *name == "warnings";
        let shown = schemas["Subscription"]["properties"].get(name).is_some();
        assert!(shown || is_warning, "{name} is shown");
    }
    let written = schemas["NewSubscription"]["properties"]
        .as_object()
        .unwrap();
    assert_eq!(written.len(), WRITABLE.len() + READ_ONLY.len());
}

fn rules() -> SpecRules {
    SpecRules {
        is_stored: false,
        require_https: false,
        timeout: Duration::from_secs(10),
        retry: Exponential::default(),
    }
}

/// Each value is for the field of that name: at a bound, and beyond it.
fn fields_at_their_bounds() -> Vec<(&'static str, Value)> {
    let many = |count: usize| -> Value { (0..count).map(|n| json!(format!("a.{n}"))).collect() };
    let headers = |count: usize| -> Value {
        let headers = (0..count).map(|n| (format!("x-{n}"), json!("v")));
        Value::Object(headers.collect())
    };
    let both = |per_second: f64, burst: u64| json!({ "per_second": per_second, "burst": burst });
    let of =
        |name: &'static str, values: Vec<Value>| values.into_iter().map(move |value| (name, value));
    let long = |length: usize| json!(format!("https://example.com/{}", "x".repeat(length - 20)));
    let texts = |texts: &[&str]| texts.iter().map(|text| json!(text)).collect::<Vec<_>>();
    let mut all = Vec::new();
    all.extend(of("tenant", texts(&["a", "*", "", "a b", "é"])));
    all.extend(of(
        "tenant",
        vec![
            json!("x".repeat(128)),
            json!("x".repeat(129)),
            json!(null),
            json!(1),
        ],
    ));
    all.extend(of(
        "url",
        texts(&[
            "https://example.com",
            "HTTP://example.com:8443/a?b=c",
            "ftp://example.com",
            "example.com",
            "https://a@example.com/",
            "https://example.com/#f",
            "https:/example.com",
            "https:///a",
            "",
        ]),
    ));
    all.extend(of("url", vec![long(2048), long(2049)]));
    all.extend(of(
        "format",
        texts(&["standard", "leicbit", "Standard", "xml"]),
    ));
    all.extend(of(
        "description",
        texts(&["", "a\n\tb", "a\u{0}", "a\u{1b}[0m", "\u{9b}"]),
    ));
    all.extend(of(
        "description",
        vec![json!("é".repeat(256)), json!("é".repeat(257)), json!(5)],
    ));
    all.extend(of("enabled", vec![json!(true), json!("true"), json!(null)]));
    all.extend(of(
        "event_types",
        vec![
            many(0),
            many(1),
            many(100),
            many(101),
            json!(["*"]),
            json!(["a.*.b*"]),
            json!(["a..b"]),
            json!(["a..*"]),
            json!([".a"]),
            json!(["a b"]),
            json!([""]),
            json!(["x".repeat(128)]),
            json!(["x".repeat(129)]),
            json!("a"),
            json!([1]),
        ],
    ));
    all.extend(of(
        "headers",
        vec![
            headers(0),
            headers(20),
            headers(21),
            json!({"": "v"}),
            json!({"a b": "v"}),
            json!({"a": ""}),
            json!({"a": "b c"}),
            json!({"a": " b"}),
            json!({"a": "b\n"}),
            json!({"a": 1}),
            json!({"x".repeat(128): "v"}),
            json!({"x".repeat(129): "v"}),
            json!({"a": "v".repeat(4096)}),
            json!({"a": "v".repeat(4097)}),
            json!([]),
        ],
    ));
    all.extend(of(
        "rate_limit",
        vec![
            both(0.0, 1),
            both(0.01, 1),
            both(1e6, 1_000_000),
            both(1e6 + 1.0, 1),
            both(1.0, 0),
            both(1.0, 1_000_001),
            json!({}),
            json!({"per_second": 1}),
            json!({"burst": 1}),
            json!({"per_second": 1, "burst": 1, "more": 1}),
            json!(null),
        ],
    ));
    let numbers = |numbers: &[i64]| {
        numbers
            .iter()
            .map(|number| json!(number))
            .collect::<Vec<_>>()
    };
    all.extend(of("timeout_ms", numbers(&[99, 100, 60_000, 60_001, -1])));
    all.extend(of(
        "retry",
        vec![
            json!({}),
            json!(null),
            json!({"max_attempts": 0}),
            json!({"max_attempts": 1}),
            json!({"max_attempts": 100}),
            json!({"max_attempts": 101}),
            json!({"max_attempts": null}),
            json!({"initial_ms": 0}),
            json!({"initial_ms": 1}),
            json!({"initial_ms": 86_400_001}),
            json!({"max_ms": 86_400_000}),
            json!({"max_ms": 86_400_001}),
            json!({"multiplier": 0.9}),
            json!({"multiplier": 1}),
            json!({"multiplier": 100}),
            json!({"multiplier": 101}),
            json!({"tries": 1}),
        ],
    ));
    all.extend(of("signing", texts(&["hmac-sha256", "ed25519", "rsa"])));
    all.extend(of(
        "filter",
        vec![
            json!(null),
            json!({"data": {"a": [1]}}),
            json!([]),
            json!({}),
            json!(1),
        ],
    ));
    all.extend(of("colour", texts(&["red"])));
    all
}

#[test]
fn what_describes_a_subscription_says_what_its_reader_does() {
    let document = whole();
    let of = |name: &str| validator(&document, &document["components"]["schemas"][name]);
    let (new, declared) = (of("NewSubscription"), of("DeclaredSubscription"));
    let mut accepted = 0;
    let cases = fields_at_their_bounds();
    for (field, value) in &cases {
        let mut document = json!({ "tenant": "acme", "url": "https://example.com/" });
        document[*field] = value.clone();
        let taken = read(document.as_object().unwrap(), &rules());
        assert_eq!(
            new.is_valid(&document),
            taken.is_ok(),
            "{field}: {value} {taken:?}"
        );
        let taken = read_declared(document.as_object().unwrap().clone(), &rules());
        assert_eq!(
            declared.is_valid(&document),
            taken.is_ok(),
            "{field}: {value}"
        );
        accepted += usize::from(taken.is_ok());
    }
    assert!(accepted > 30 && accepted < cases.len() - 30, "{accepted}");
    let (hex, base64) = ("0a".repeat(32), format!("whsec_{}=", "A".repeat(43)));
    for (field, value) in [
        ("id", json!("sub_1")),
        ("id", json!("msg_1")),
        ("id", json!(null)),
        ("secret", json!(hex)),
        ("secret", json!(base64)),
        ("secret", json!({ "hex": hex })),
        ("secret", json!({ "hex": hex, "whsec": null })),
        ("secret", json!({})),
        ("secret", json!({ "whsec": hex })),
        ("secret", json!("abc")),
        ("secret", json!({ "public_key": "whpk_" })),
        ("secret", json!(1)),
    ] {
        let mut document = json!({ "tenant": "acme", "url": "https://example.com/" });
        document[field] = value.clone();
        let taken = read_declared(document.as_object().unwrap().clone(), &rules());
        assert_eq!(
            declared.is_valid(&document),
            taken.is_ok(),
            "{field}: {value}"
        );
    }
}
