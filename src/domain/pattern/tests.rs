//! The language as a whole: tables for every operator and every refusal, and the matcher against a naive one that is
//! written on the JSON itself.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Budget, EventView, Matcher, Pattern, Selection, TypeGlob};
use crate::domain::json::Json;

mod hostile;
mod leaves;
mod naive;
mod refusals;

/// More steps than a test takes that is not about them.
fn ample() -> Budget {
    Budget::of_event(1_000)
}

/// An event with these data, of which the other fields are always the same.
fn event<'a>(kind: &'a str, data: &Value) -> EventView<'a> {
    // For as long as the process: an event that a test looks at is small.
    let data: &'static Json = Box::leak(Box::new(Json::from(data)));
    let Json::Object(data) = data else {
        panic!("data is an object");
    };
    EventView {
        id: "evt-1",
        kind,
        tenant: "acme",
        timestamp: "2026-03-01T10:00:00Z",
        data,
    }
}

fn compiled(pattern: &Value) -> Pattern {
    Pattern::compile(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"))
}

#[test]
fn whole_patterns() {
    let people = json!({"people": [
        {"first": "John", "last": "Doe"},
        {"first": "Anna", "last": "Smith", "tags": ["x"]},
        [{"first": "Peter", "last": "Jones", "roles": [{"name": "admin", "level": 3}, {"name": "user", "level": 9}]}],
    ], "a.b": "dotted", "a": {"b": "nested"}, "empty": []});
    let cases = [
        (
            json!({"type": ["t"], "tenant": ["acme"], "id": [{"prefix": "evt"}], "timestamp": [{"prefix": "2026-"}]}),
            true,
        ),
        (json!({"type": ["other"]}), false),
        (json!({"data": {"people": {"first": ["Anna"]}}}), true),
        (
            json!({"data": {"people": {"first": ["Anna"], "last": ["Smith"]}}}),
            true,
        ),
        (
            json!({"data": {"people": {"first": ["Anna"], "last": ["Jones"]}}}),
            false,
        ),
        (
            json!({"data": {"people": {"first": ["Peter"], "last": ["Jones"]}}}),
            true,
        ),
        (
            json!({"data": {"people": {"roles": {"name": ["admin"], "level": [{"numeric": [">", 5]}]}}}}),
            false,
        ),
        (
            json!({"data": {"people": {"roles": {"name": ["user"], "level": [{"numeric": [">", 5]}]}}}}),
            true,
        ),
        (
            json!({"data": {"people": {"first": ["Anna"], "tags": [{"exists": false}]}}}),
            false,
        ),
        (
            json!({"data": {"people": {"first": ["John"], "tags": [{"exists": false}]}}}),
            true,
        ),
        (
            json!({"data": {"people": {"first": ["Anna"], "$or": [{"last": ["Jones"]}, {"tags": ["y"]}]}}}),
            false,
        ),
        (
            json!({"data": {"people": {"first": ["Anna"], "$or": [{"last": ["Jones"]}, {"tags": ["x"]}]}}}),
            true,
        ),
        (
            json!({"data": {"people": {"$or": [{"first": ["Zoe"]}, {"last": ["Doe"], "tags": [{"exists": false}]}]}}}),
            true,
        ),
        (json!({"data": {"a.b": ["dotted"]}}), true),
        (json!({"data": {"a.b": ["nested"]}}), false),
        (json!({"data": {"a": {"b": ["nested"]}}}), true),
        (
            json!({"data": {"gone": {"deep": [{"exists": false}]}}}),
            true,
        ),
        (json!({"data": {"gone": {"deep": ["x"]}}}), false),
        (json!({"data": {"empty": {"x": [{"exists": false}]}}}), true),
        (json!({"data": {"a.b": {"x": [{"exists": false}]}}}), true),
        (
            json!({"$or": [{"type": ["u"]}, {"data": {"a": {"b": ["nested"]}}}]}),
            true,
        ),
        (
            json!({"$or": [{"type": ["u"]}, {"tenant": ["other"]}]}),
            false,
        ),
        (
            json!({"type": ["u"], "$or": [{"id": ["evt-1"]}, {"tenant": ["acme"]}]}),
            false,
        ),
        (
            json!({"$or": [{"type": ["t"], "$or": [{"id": ["no"]}, {"id": ["no"]}]}, {"id": ["no"]}]}),
            false,
        ),
    ];
    let event = event("t", &people);
    for (pattern, expected) in cases {
        let compiled = compiled(&pattern);
        assert_eq!(compiled.matches(&event, &ample()), expected, "{pattern}");
        assert_eq!(
            compiled.explain(&event, &ample()).is_none(),
            expected,
            "explaining {pattern}"
        );
    }
}

#[test]
fn alerts_are_selected() {
    let data = json!({"domain": "example.com", "alerts": [
        {"result": {"score": 3, "kind": "typo"}},
        {"result": {"score": 9, "kind": "typo"}},
        {"result": {"score": 9, "kind": "idn"}},
        "not an object",
        [{"result": {"score": 9, "kind": "typo"}}],
    ]});
    let some = |positions: &[usize]| Selection::Some(positions.to_vec());
    let cases = [
        (json!({"data": {"domain": ["example.com"]}}), Selection::All),
        (json!({"data": {"domain": ["example.org"]}}), some(&[])),
        (
            json!({"data": {"alerts": {"result": {"score": [9], "kind": ["typo"]}}}}),
            some(&[1, 4]),
        ),
        (
            json!({"data": {"alerts": {"result": {"score": [1]}}}}),
            some(&[]),
        ),
        (
            json!({"data": {"domain": ["example.org"], "alerts": {"result": {"score": [9]}}}}),
            some(&[]),
        ),
        (
            json!({"data": {"alerts": {"result": {"score": [{"exists": false}]}}}}),
            some(&[3]),
        ),
        (json!({"data": {"alerts": ["not an object"]}}), some(&[3])),
        (
            json!({"data": {"$or": [{"domain": ["example.com"]}, {"alerts": {"result": {"score": [3]}}}]}}),
            Selection::All,
        ),
        (
            json!({"data": {"$or": [{"domain": ["example.org"]}, {"alerts": {"result": {"score": [3]}}}]}}),
            some(&[0]),
        ),
        (
            json!({"data": {"$or": [{"domain": ["example.org"]}, {"domain": ["example.net"]}]}}),
            some(&[]),
        ),
        (
            json!({"$or": [{"data": {"alerts": {"result": {"kind": ["idn"]}}}}, {"data": {"alerts": {"result": {"score": [3]}}}}]}),
            some(&[0, 2]),
        ),
    ];
    for (pattern, expected) in cases {
        let selection =
            compiled(&pattern).select_alerts(&event("lookup_result.alerts", &data), &ample());
        assert_eq!(selection, expected, "{pattern}");
        assert_eq!(selection.is_empty(), expected == some(&[]));
    }
    let pattern = compiled(&json!({"data": {"alerts": {"result": {"score": [9]}}}}));
    assert_eq!(
        pattern.select_alerts(&event("other", &data), &ample()),
        Selection::All
    );
    let no_array = json!({"alerts": {"result": {"score": 9}}});
    assert_eq!(
        pattern.select_alerts(&event("lookup_result.alerts", &no_array), &ample()),
        Selection::All
    );
    assert_eq!(
        pattern.select_alerts(&event("lookup_result.alerts", &json!({})), &ample()),
        some(&[])
    );
}

#[test]
fn a_mismatch_names_the_place() {
    let data = json!({"user": {"name": "bob"}, "alerts": [{"score": 1}, {"score": 2, "kind": "typo"}], "tags": ["x", 1]});
    let cases = [
        (json!({"type": ["u"]}), "type", r#"["u"]"#, "\"t\""),
        (
            json!({"data": {"user": {"name": ["al"]}}}),
            "data.user.name",
            r#"["al"]"#,
            "\"bob\"",
        ),
        (
            json!({"data": {"user": ["al"]}}),
            "data.user",
            r#"["al"]"#,
            "an object, which is no value",
        ),
        (
            json!({"data": {"no.pe": {"x": [1]}}}),
            "data[\"no.pe\"].x",
            "[1]",
            "absent",
        ),
        (
            json!({"data": {"tags": ["y"]}}),
            "data.tags",
            r#"["y"]"#,
            r#"["x", 1]"#,
        ),
        (
            json!({"data": {"alerts": {"kind": ["typo"], "score": [{"numeric": [">", 5]}]}}}),
            "data.alerts[1].score",
            r#"[{"numeric":[">",5]}]"#,
            "2 (the closest of 2 elements)",
        ),
        (
            json!({"$or": [{"type": ["u"]}, {"type": ["v"]}]}),
            "$or",
            "one of 2 patterns",
            r#"none; the first wants `type` to be ["u"], found "t""#,
        ),
    ];
    for (pattern, path, wanted, found) in cases {
        let mismatch = compiled(&pattern)
            .explain(&event("t", &data), &ample())
            .expect("no match");
        let told = (
            mismatch.path.as_str(),
            mismatch.wanted.as_str(),
            mismatch.found.as_str(),
        );
        assert_eq!(told, (path, wanted, found), "{pattern}");
    }
}

#[test]
fn subscriptions_are_found_by_type_and_filter() {
    let globs = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| TypeGlob::parse(text).expect(text))
            .collect::<Vec<_>>()
    };
    let types = [
        globs(&["*"]),
        globs(&["a.b"]),
        globs(&["a.*", "a.b", "a.b"]),
        globs(&["c"]),
        globs(&[]),
        globs(&["a.*", "*"]),
        globs(&["a.b"]),
    ];
    let filter = |json: Value| Some(Arc::new(compiled(&json)));
    let filters = [
        None,
        filter(json!({"data": {"x": [1, 2]}})),
        filter(json!({"data": {"x": [1], "y": [{"exists": false}]}})),
        None,
        None,
        filter(json!({"$or": [{"data": {"x": [7]}}, {"tenant": ["acme"]}]})),
        filter(json!({"data": {"y": [{"exists": false}]}})),
    ];
    let entries = types
        .iter()
        .zip(filters)
        .enumerate()
        .map(|(i, (types, filter))| (60 - 10 * i as u32, &**types, filter));
    let matcher = Matcher::build(entries);
    let matching = |kind: &str, data: Value| {
        let mut out = vec![99];
        matcher.matching(&event(kind, &data), &ample(), &mut out);
        out
    };
    assert_eq!(
        matching("a.b", json!({"x": [1, 1.0]})),
        [99, 0, 10, 40, 50, 60]
    );
    assert_eq!(matching("a.b", json!({"x": 2, "y": 1})), [99, 10, 50, 60]);
    assert_eq!(matching("a.z", json!({"x": 1})), [99, 10, 40, 60]);
    assert_eq!(matching("c", json!({})), [99, 10, 30, 60]);
}

#[test]
fn many_paths_and_many_equal_leaves_are_told_apart() {
    let all = [TypeGlob::parse("*").expect("a glob")];
    let filters: Vec<Value> = (0..200)
        .map(|i| match i % 4 {
            0 => json!({"data": {format!("k{}", i / 4): ["v"]}}),
            1 => json!({"data": {"k1": ["v"], "k2": [{"numeric": [">", i / 4]}]}}),
            2 => json!({"data": {"rows": {format!("k{}", i / 4): ["v"], "sum": [{"numeric": [">", 5]}]}}}),
            _ => json!({"data": {"k1": ["v"], format!("k{}", i / 4): [{"exists": false}]}}),
        })
        .collect();
    let patterns: Vec<Arc<Pattern>> = filters
        .iter()
        .map(|filter| Arc::new(compiled(filter)))
        .collect();
    let entries = patterns
        .iter()
        .enumerate()
        .map(|(i, pattern)| (i as u32, &all[..], Some(Arc::clone(pattern))));
    let matcher = Matcher::build(entries);
    for data in [
        json!({"k1": "v", "k2": 7, "k3": ["x", "v"], "rows": [{"k5": "v", "sum": 9}, {"k6": "v", "sum": 1}, {"sum": 9}]}),
        json!({"k1": ["v"], "k2": [1, 30], "rows": {"k7": "v", "sum": 6, "k8": ["v"]}}),
        json!({"k2": 7, "rows": []}),
    ] {
        let event = event("t", &data);
        let expected: Vec<u32> = (0..200)
            .filter(|i| patterns[*i as usize].matches(&event, &ample()))
            .collect();
        let mut out = Vec::new();
        matcher.matching(&event, &ample(), &mut out);
        assert_eq!(out, expected, "{data}");
    }
    assert!(patterns[22].matches(
        &event("t", &json!({"rows": [{"k5": "v", "sum": 9}]})),
        &ample()
    ));
    assert!(!patterns[22].matches(
        &event("t", &json!({"rows": [{"k5": "v"}, {"sum": 9}]})),
        &ample()
    ));
}

#[test]
fn hostile_events_are_matched_in_bounded_time_and_depth() {
    let deep = (0..500).fold(json!("x"), |inner, _| Value::from(vec![inner, json!([])]));
    let wide: Vec<Value> = (0..200_000)
        .map(|i| {
            if i % 2 == 0 {
                json!([])
            } else {
                json!({"a": [i]})
            }
        })
        .collect();
    let data = json!({"deep": deep, "alerts": wide});
    let pattern = compiled(
        &json!({"data": {"deep": ["x"], "alerts": {"a": [{"numeric": [">=", 199_999]}], "b": [{"exists": false}]}}}),
    );
    let event = event("lookup_result.alerts", &data);
    assert!(pattern.matches(&event, &ample()));
    assert_eq!(
        pattern.select_alerts(&event, &ample()),
        Selection::Some(vec![199_999])
    );
    let mut out = Vec::new();
    let all = [TypeGlob::parse("*").expect("a glob")];
    Matcher::build([(1, &all[..], Some(Arc::new(pattern)))]).matching(&event, &ample(), &mut out);
    assert_eq!(out, [1]);
}

#[test]
fn compiled_patterns_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Pattern>();
    shared::<Matcher>();
    shared::<TypeGlob>();
}
