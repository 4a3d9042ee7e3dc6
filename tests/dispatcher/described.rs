//! No answer without a description: what the API answers to any test is held against
//! `/openapi.json`: path, method, status, content type, headers and the whole document.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use carillon::api::openapi;
use http::{HeaderMap, Method};
use jsonschema::{Draft, Validator};
use serde_json::{Value, json};

/// The document, in which a type has the members that are named and no others.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut document: Value = serde_json::from_str(openapi::text()).unwrap();
    close(&mut document["components"]);
    close(&mut document["paths"]);
    document
});
/// What checks an answer, by its place in the document.
static CHECKS: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);

/// A client may meet members that are newer than it; a test may not.
fn close(value: &mut Value) {
    match value {
        Value::Object(members) => {
            let is_type = members.get("properties").is_some_and(Value::is_object);
            if is_type && !members.contains_key("additionalProperties") {
                members.insert("additionalProperties".to_owned(), false.into());
            }
            // What only narrows another type does not name all of its members.
            let others = members.iter_mut().filter(|(name, _)| *name != "allOf");
            others.for_each(|(_, member)| close(member));
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// The described path that `path` is one of: the one with the most words in common.
fn described_path(path: &str) -> Option<&'static str> {
    let path = path.split('?').next().unwrap();
    let fits = |described: &str| {
        let (mut given, mut parts) = (path.split('/'), described.split('/'));
        loop {
            match (given.next(), parts.next()) {
                (None, None) => return true,
                (Some(given), Some(part)) if part.starts_with('{') && !given.is_empty() => {}
                (Some(given), Some(part)) if given == part => {}
                _ => return false,
            }
        }
    };
    let paths = DOCUMENT["paths"].as_object().unwrap().keys();
    let fitting = paths.filter(|described| fits(described));
    fitting
        .map(String::as_str)
        .min_by_key(|described| described.matches('{').count())
}

fn check_document(place: &str, schema: &Value, body: &Value, what: &str) {
    let validator = {
        let mut checks = CHECKS.lock().unwrap();
        let check = checks.entry(place.to_owned()).or_insert_with(|| {
            let root = json!({ "components": DOCUMENT["components"], "allOf": [schema] });
            let options = jsonschema::options().with_draft(Draft::Draft202012);
            Arc::new(options.should_validate_formats(true).build(&root).unwrap())
        });
        check.clone()
    };
    let faults = validator.iter_errors(body);
    let faults: Vec<_> = faults
        .map(|fault| format!("{}: {fault}", fault.instance_path()))
        .collect();
    assert!(
        faults.is_empty(),
        "{what} is not as it is described: {faults:#?}\n{body:#}"
    );
}

/// Which operation was asked for, if it is one; fails when the answer is none of it.
pub fn check(
    method: &Method,
    path: &str,
    status: u16,
    headers: &HeaderMap,
    body: &Value,
) -> Option<String> {
    let what = format!("{method} {path}: {status}");
    let problem = json!({ "$ref": "#/components/schemas/Problem" });
    let Some(described) = described_path(path) else {
        assert_eq!(status, 404, "{what}: the path is not described");
        check_document("Problem", &problem, body, &what);
        return None;
    };
    let asked = if *method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    let asked = asked.as_str().to_ascii_lowercase();
    let Some(operation) = DOCUMENT["paths"][described].get(&asked) else {
        assert_eq!(status, 405, "{what}: the method is not described");
        assert!(
            headers.contains_key("allow"),
            "{what}: which methods are allowed"
        );
        if *method != Method::HEAD {
            check_document("Problem", &problem, body, &what);
        }
        return None;
    };
    let mut answer = &operation["responses"][status.to_string()];
    if let Some(reference) = answer["$ref"].as_str() {
        answer = DOCUMENT.pointer(&reference[1..]).unwrap();
    }
    assert!(
        answer.is_object(),
        "{what}: the status is not described\n{body:#}"
    );
    let named = answer["headers"].as_object().into_iter().flatten();
    for (name, header) in named.filter(|(_, header)| header["required"] == true) {
        assert!(
            headers.contains_key(name),
            "{what}: the header {name} is missing"
        );
        let is = headers[name].to_str().unwrap();
        let wanted = header["schema"]["const"].as_str().unwrap_or(is);
        assert_eq!(is, wanted, "{what}: the header {name}");
    }
    let place = format!("{asked} {described} {status}");
    match answer.get("content").and_then(Value::as_object) {
        _ if *method == Method::HEAD => {}
        None => assert!(body.is_null(), "{what}: no document is described\n{body:#}"),
        Some(content) => {
            let kind = headers["content-type"].to_str().unwrap();
            let content = content.get(kind);
            let content = content.unwrap_or_else(|| panic!("{what}: {kind} is not described"));
            check_document(&place, &content["schema"], body, &what);
        }
    }
    Some(format!("{method} {described}"))
}

/// Every operation that is described: method and path.
#[allow(
    dead_code,
    reason = "only some of the binaries with this module need it"
)]
pub fn operations() -> Vec<String> {
    let described = DOCUMENT["paths"].as_object().unwrap().iter();
    let all = described.flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().keys();
        methods.map(move |method| format!("{} {path}", method.to_ascii_uppercase()))
    });
    all.collect()
}
