//! What does not compile, with the place and the sentence.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::Pattern;

fn refused(pattern: &Value) -> (String, String) {
    let error = Pattern::compile(pattern).expect_err(&pattern.to_string());
    let place = if error.path.is_empty() {
        String::new()
    } else {
        format!("at `{}`: ", error.path)
    };
    assert_eq!(
        error.to_string(),
        format!("filter: {place}{}", error.problem)
    );
    (error.path, error.problem)
}

#[test]
fn faults_carry_their_place_and_a_sentence() {
    let cases = [
        (json!([]), "", "expected an object"),
        (json!(null), "", "found null"),
        (json!({}), "", "at least one field"),
        (json!({"source": ["x"]}), "source", "`type` here"),
        (json!({"detail": {"x": ["x"]}}), "detail", "`data` here"),
        (json!({"subject": ["x"]}), "subject", "below `data`"),
        (
            json!({"type": {"x": ["y"]}}),
            "type",
            "is a string in every event",
        ),
        (
            json!({"data": ["x"]}),
            "data",
            "is an object in every event",
        ),
        (json!({"data": "x"}), "data", "is an object in every event"),
        (json!({"data": {}}), "data", "empty object"),
        (
            json!({"type": "x"}),
            "type",
            r#"put it into an array: ["x"]"#,
        ),
        (
            json!({"data": {"x": true}}),
            "data.x",
            "put it into an array: [true]",
        ),
        (
            json!({"data": {"x": {"prefix": "a"}}}),
            "data.x.prefix",
            r#"[{"prefix": …}]"#,
        ),
        (json!({"data": {"x": []}}), "data.x", "empty array"),
        (json!({"data": {"x": [[1]]}}), "data.x[0]", "not nested"),
        (
            json!({"data": {"x": ["a", {}]}}),
            "data.x[1]",
            "found an empty object",
        ),
        (
            json!({"data": {"x": [{"prefix": "a", "suffix": "b"}]}}),
            "data.x[0]",
            "`prefix` and `suffix`",
        ),
        (
            json!({"data": {"x": [{"like": "a"}]}}),
            "data.x[0].like",
            "found `like`",
        ),
        (
            json!({"data": {"x": [{"exactly": "a"}]}}),
            "data.x[0].exactly",
            "write the value itself",
        ),
        (
            json!({"data": {"x": [{"$or": []}]}}),
            "data.x[0].$or",
            "beside fields",
        ),
        (
            json!({"data": {"a.b": [{"prefix": 1}]}}),
            r#"data["a.b"][0].prefix"#,
            "found the number 1",
        ),
        (
            json!({"data": {"": [1, []]}}),
            r#"data[""][1]"#,
            "not nested",
        ),
        (
            json!({"data": {"x": [{"prefix": {"suffix": "a"}}]}}),
            "data.x[0].prefix",
            "equals-ignore-case",
        ),
        (
            json!({"data": {"x": [{"suffix": {"equals-ignore-case": 1}}]}}),
            "data.x[0].suffix",
            "equals-ignore-case",
        ),
        (
            json!({"data": {"x": [{"equals-ignore-case": ["a"]}]}}),
            "data.x[0].equals-ignore-case",
            "found an array",
        ),
        (
            json!({"data": {"x": [{"wildcard": "a**"}]}}),
            "data.x[0].wildcard",
            "two `*`",
        ),
        (
            json!({"data": {"x": [{"wildcard": "a\\d"}]}}),
            "data.x[0].wildcard",
            "backslash",
        ),
        (
            json!({"data": {"x": [{"wildcard": 1}]}}),
            "data.x[0].wildcard",
            "expected a string",
        ),
        (
            json!({"data": {"x": [{"cidr": "10.0.0.0/33"}]}}),
            "data.x[0].cidr",
            "`10.0.0.0/33`",
        ),
        (
            json!({"data": {"x": [{"cidr": "10.0.0.1"}]}}),
            "data.x[0].cidr",
            "/32",
        ),
        (
            json!({"data": {"x": [{"exists": "yes"}]}}),
            "data.x[0].exists",
            "true or false",
        ),
        (
            json!({"data": {"x": [{"anything-but": []}]}}),
            "data.x[0].anything-but",
            "empty list",
        ),
        (
            json!({"data": {"x": [{"anything-but": ["a", 1]}]}}),
            "data.x[0].anything-but[1]",
            "found both",
        ),
        (
            json!({"data": {"x": [{"anything-but": true}]}}),
            "data.x[0].anything-but",
            "found true",
        ),
        (
            json!({"data": {"x": [{"anything-but": [null]}]}}),
            "data.x[0].anything-but[0]",
            "found null",
        ),
        (
            json!({"data": {"x": [{"anything-but": {"numeric": [1]}}]}}),
            "data.x[0].anything-but.numeric[0]",
            "found the number 1",
        ),
        (
            json!({"data": {"x": [{"anything-but": {"cidr": "a"}}]}}),
            "data.x[0].anything-but.cidr",
            "found `cidr`",
        ),
        (
            json!({"data": {"x": [{"anything-but": {}}]}}),
            "data.x[0].anything-but",
            "empty object",
        ),
        (
            json!({"data": {"x": [{"anything-but": {"prefix": ""}}]}}),
            "data.x[0].anything-but.prefix",
            "empty string",
        ),
        (
            json!({"data": {"x": [{"anything-but": {"suffix": ["a", 2]}}]}}),
            "data.x[0].anything-but.suffix[1]",
            "number 2",
        ),
        (
            json!({"data": {"x": [{"anything-but": {"wildcard": ["a", "**"]}}]}}),
            "data.x[0].anything-but.wildcard[1]",
            "two `*`",
        ),
        (
            json!({"data": {"x": [{"numeric": 5}]}}),
            "data.x[0].numeric",
            "found the number 5",
        ),
        (
            json!({"data": {"x": [{"numeric": []}]}}),
            "data.x[0].numeric",
            "found 0 terms",
        ),
        (
            json!({"data": {"x": [{"numeric": ["<", 1, ">"]}]}}),
            "data.x[0].numeric",
            "found 3 terms",
        ),
        (
            json!({"data": {"x": [{"numeric": ["<", "1"]}]}}),
            "data.x[0].numeric[1]",
            r#"found the string "1""#,
        ),
        (
            json!({"data": {"x": [{"numeric": ["!=", 1]}]}}),
            "data.x[0].numeric[0]",
            "found `!=`",
        ),
        (
            json!({"data": {"x": [{"numeric": [1, 1]}]}}),
            "data.x[0].numeric[0]",
            "as a string",
        ),
        (
            json!({"data": {"x": [{"numeric": ["=", null]}]}}),
            "data.x[0].numeric[1]",
            "expected a number",
        ),
        (
            json!({"data": {"x": [{"numeric": [">", 1, "=", 2]}]}}),
            "data.x[0].numeric[2]",
            "stands alone",
        ),
        (
            json!({"data": {"x": [{"numeric": [">", 5, "<", 5]}]}}),
            "data.x[0].numeric",
            "no number",
        ),
        (
            json!({"data": {"x": [{"numeric": [">=", 5, "<=", 4]}]}}),
            "data.x[0].numeric",
            "no number",
        ),
        (
            json!({"data": {"x": [{"numeric": ["<", 5, ">", 1]}]}}),
            "data.x[0].numeric",
            "lower end to its upper",
        ),
        (
            json!({"data": {"x": [{"numeric": [">", 5, ">", 1]}]}}),
            "data.x[0].numeric",
            "lower end to its upper",
        ),
        (
            json!({"$or": {"type": ["x"]}}),
            "$or",
            "at least two patterns",
        ),
        (json!({"$or": [{"type": ["x"]}]}), "$or", "found 1"),
        (
            json!({"$or": [{"type": ["x"]}, "y"]}),
            "$or[1]",
            "expected an object",
        ),
        (
            json!({"$or": [{"type": ["x"]}, {}]}),
            "$or[1]",
            "empty object",
        ),
        (
            json!({"$or": [{"type": ["x"]}, {"x": ["y"]}]}),
            "$or[1].x",
            "expected one of id",
        ),
        (
            json!({"data": {"$or": [{"numeric": [">", 5]}, {"numeric": ["<", 1]}]}}),
            "data.$or[0].numeric",
            "put it into a leaf",
        ),
    ];
    for (pattern, path, sentence) in cases {
        let (at, problem) = refused(&pattern);
        assert_eq!(at, path, "{pattern}: {problem}");
        assert!(problem.contains(sentence), "{pattern}: {problem}");
    }
}

#[test]
fn what_only_looks_wrong_compiles() {
    for pattern in [
        json!({"data": {"prefix": ["a"]}}),
        json!({"data": {"numeric": [">", 5]}}),
        json!({"data": {"x": {"exists": [true]}}}),
        json!({"data": {"x": [{"prefix": ""}]}}),
        json!({"data": {"x": [{"cidr": "10.1.2.3/8"}]}}),
        json!({"data": {"x": [1, "1", null, true, {"exists": false}]}}),
    ] {
        assert!(Pattern::compile(&pattern).is_ok(), "{pattern}");
    }
}

#[test]
fn size_and_depth_are_bounded() {
    let many = |count: u32| json!({"data": {"x": (0..count).collect::<Vec<_>>()}});
    assert!(Pattern::compile(&many(4_096)).is_ok());
    assert!(
        refused(&many(4_097))
            .1
            .contains("more than 4096 alternatives")
    );

    let tried = |count: usize| json!({"data": {"x": vec![json!({"wildcard": "a*"}); count]}});
    assert!(Pattern::compile(&tried(256)).is_ok());
    assert!(refused(&tried(257)).1.contains("more than 256"));

    let nested = |depth: usize| {
        let deep = (0..depth).fold(json!(["x"]), |inner, _| {
            Value::from(Map::from_iter([("k".to_owned(), inner)]))
        });
        Value::from(Map::from_iter([("data".to_owned(), deep)]))
    };
    assert!(Pattern::compile(&nested(30)).is_ok());
    let (path, problem) = refused(&nested(100));
    assert!(problem.contains("deeper than 32 levels"), "{problem}");
    assert!(path.len() < 100, "{path}");
}

#[test]
fn a_huge_value_makes_no_huge_sentence() {
    let huge = "x".repeat(1 << 20);
    for pattern in [
        json!({"type": huge}),
        json!({huge.clone(): ["x"]}),
        json!({"data": {"x": [{"cidr": huge}]}}),
        json!({"data": {"x": [{huge.clone(): 1}]}}),
        json!({"data": {"x": [{"prefix": {huge.clone(): 1}}]}}),
    ] {
        let (path, problem) = refused(&pattern);
        assert!(path.len() + problem.len() < 500);
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(vec!["=", "<", ">=", "*", "**", "\\", "10.0.0.0/8", "", "é"])
            .prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "data",
        "type",
        "$or",
        "x",
        "prefix",
        "suffix",
        "wildcard",
        "equals-ignore-case",
        "anything-but",
        "numeric",
        "cidr",
        "exists",
        "",
    ]);
    leaf.prop_recursive(6, 48, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..3).prop_map(|pairs| {
                Value::Object(
                    pairs
                        .into_iter()
                        .map(|(key, value)| (key.to_owned(), value))
                        .collect(),
                )
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_compiles_or_is_refused_without_panic(x in any_json(), y in any_json()) {
        for pattern in [x.clone(), json!({"data": {"x": x}, "$or": [y.clone(), y.clone()]}), json!({"data": {"x": [y]}})] {
            if let Err(error) = Pattern::compile(&pattern) {
                prop_assert!(!error.problem.is_empty());
            }
        }
    }
}
