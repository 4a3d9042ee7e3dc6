//! Compiling any filter ends, without a panic; what compiles answers every question about an
//! event alike: alone, explained, within `$or`, alert by alert, and in the matcher of a tenant.
//! An `anything-but` says the opposite of what it names.
//!
//! Input, in lines: a pattern, another, the event's type, its data.
#![no_main]

use std::sync::Arc;

use carillon::domain::event::kind_of;
use carillon::domain::json::{self, Json, Object};
use carillon::domain::pattern::{
    ALERTS_EVENT_TYPE, Budget, EventView, Matcher, Pattern, Selection, TypeGlob,
};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};

fuzz_target!(|text: &str| {
    let mut lines = text.splitn(4, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let read = |line: &str| serde_json::from_str::<Value>(line).unwrap_or_default();
    let (one, two) = (read(line()), read(line()));
    let kind = line();
    let data = match read(line()) {
        Value::Object(data) => data,
        _ => Map::new(),
    };
    let compiled = [&one, &two].map(Pattern::compile);
    let Some(seen) = seen(&data) else {
        return;
    };
    let event = EventView {
        id: "evt-1",
        kind,
        tenant: "acme",
        timestamp: "2026-03-01T10:00:00Z",
        data: &seen,
    };
    for pattern in compiled.iter().flatten() {
        explains_and_selects_as_it_matches(pattern, &event, &data);
    }
    if let [Ok(a), Ok(b)] = &compiled {
        or_is_symmetric([&one, &two], [a, b], &event);
    }
    let patterns: Vec<Pattern> = compiled.into_iter().flatten().collect();
    the_matcher_agrees(&patterns, &event);
    leaves_agree_with_their_twins(&data);
});

/// The data as filters see it; `None` for what an event may not hold.
fn seen(data: &Map<String, Value>) -> Option<Object> {
    match json::read(&Value::from(data.clone()).to_string()) {
        Ok(Json::Object(seen)) => Some(seen),
        _ => None,
    }
}

/// Steps for whatever fits into an input.
fn ample() -> Budget {
    Budget::of_event(1000)
}

fn explains_and_selects_as_it_matches(
    pattern: &Pattern,
    event: &EventView<'_>,
    data: &Map<String, Value>,
) {
    let matches = pattern.matches(event, &ample());
    assert_eq!(pattern.explain(event, &ample()).is_none(), matches);
    let selection = pattern.select_alerts(event, &ample());
    let alerts = data.get("alerts").and_then(Value::as_array);
    let Some(alerts) = alerts.filter(|_| event.kind == ALERTS_EVENT_TYPE) else {
        assert_eq!(selection.is_empty(), !matches);
        return;
    };
    // More would make this quadratic.
    if alerts.len() > 16 {
        return;
    }
    let alone = |alert: &Value| {
        let mut data = data.clone();
        data.insert("alerts".to_owned(), json!([alert]));
        let event = EventView {
            data: &seen(&data).expect("a part of what was read"),
            ..*event
        };
        pattern.matches(&event, &ample())
    };
    let selected: Vec<usize> = (0..alerts.len()).filter(|at| alone(&alerts[*at])).collect();
    match selection {
        Selection::All => assert_eq!(selected.len(), alerts.len()),
        Selection::Some(positions) => assert_eq!(positions, selected),
    }
}

fn or_is_symmetric(json: [&Value; 2], compiled: [&Pattern; 2], event: &EventView<'_>) {
    let either = compiled
        .iter()
        .any(|pattern| pattern.matches(event, &ample()));
    for branches in [[json[0], json[1]], [json[1], json[0]]] {
        // Both together may be more than one filter is allowed.
        if let Ok(pattern) = Pattern::compile(&json!({"$or": branches})) {
            assert_eq!(pattern.matches(event, &ample()), either);
        }
    }
}

fn the_matcher_agrees(patterns: &[Pattern], event: &EventView<'_>) {
    let globs = |texts: &[&str]| -> Vec<TypeGlob> {
        texts
            .iter()
            .filter_map(|text| TypeGlob::parse(text).ok())
            .collect()
    };
    let types = [
        globs(&["*"]),
        globs(&[event.kind, "lookup_result.*"]),
        globs(&["lookup_result.alerts", "*.alerts", "lookup_result.alerts"]),
    ];
    let shared: Vec<Arc<Pattern>> = patterns.iter().cloned().map(Arc::new).collect();
    let filters: Vec<Option<Arc<Pattern>>> = shared.into_iter().map(Some).chain([None]).collect();
    let entries: Vec<_> = types
        .iter()
        .flat_map(|types| filters.iter().map(move |filter| (types, filter)))
        .zip(0..)
        .map(|((types, filter), index)| (index, &types[..], filter.clone()))
        .collect();
    let expected: Vec<u32> = entries
        .iter()
        .filter(|(_, types, _)| types.iter().any(|glob| glob.matches(event.kind)))
        .filter(|(_, _, filter)| {
            filter
                .as_ref()
                .is_none_or(|filter| filter.matches(event, &ample()))
        })
        .map(|(index, _, _)| *index)
        .collect();
    let mut found = Vec::new();
    Matcher::build(entries).matching(event, &ample(), &mut found);
    assert_eq!(found, expected);
}

/// Each operator against the same said in another way, on the first two values of the data.
fn leaves_agree_with_their_twins(data: &Map<String, Value>) {
    let mut values = data
        .values()
        .filter(|value| !value.is_array() && !value.is_object());
    let (Some(value), Some(named)) = (values.next(), values.next()) else {
        return;
    };
    let says = |leaf: Value| -> Option<bool> {
        let pattern = Pattern::compile(&json!({"data": {"x": [leaf]}})).ok()?;
        let data = Map::from_iter([("x".to_owned(), value.clone())]);
        let event = EventView {
            id: "evt-1",
            kind: "t",
            tenant: "acme",
            timestamp: "2026-03-01T10:00:00Z",
            data: &seen(&data).expect("a part of what was read"),
        };
        Some(pattern.matches(&event, &ample()))
    };
    let are = |a: Value, b: Value, twins: bool| {
        if let (Some(left), Some(right)) = (says(a.clone()), says(b.clone())) {
            assert_eq!(left == right, twins, "{a} and {b} on {value}");
        }
    };
    assert_eq!(says(value.clone()), Some(true), "{value}");
    are(named.clone(), json!({"anything-but": named}), false);
    are(named.clone(), json!({"anything-but": [named]}), false);
    for operator in ["prefix", "suffix", "equals-ignore-case", "wildcard"] {
        let inner = json!({operator: named});
        are(inner.clone(), json!({"anything-but": inner}), false);
    }
    if let Some(text) = named.as_str().filter(|text| !text.contains(['*', '\\'])) {
        are(
            json!({"prefix": text}),
            json!({"wildcard": format!("{text}*")}),
            true,
        );
        are(
            json!({"suffix": text}),
            json!({"wildcard": format!("*{text}")}),
            true,
        );
        are(json!(text), json!({"wildcard": text}), true);
    }
    if kind_of(value) == kind_of(named) && named.is_number() {
        are(named.clone(), json!({"numeric": ["=", named]}), true);
        are(
            json!({"numeric": ["<", named]}),
            json!({"numeric": [">=", named]}),
            false,
        );
        are(
            json!({"numeric": [">", named]}),
            json!({"numeric": ["<=", named]}),
            false,
        );
    }
}
