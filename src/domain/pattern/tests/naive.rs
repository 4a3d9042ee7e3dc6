//! The language written down once more, naively, on the JSON of pattern and event; and random patterns and events on
//! which it has to agree with the compiled ones.

use std::net::Ipv4Addr;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use super::super::{Matcher, Pattern, Selection, TypeGlob};
use super::{ample, compiled, event};

fn meets(pattern: &Value, event: &Value) -> bool {
    object_meets(pattern, Some(event))
}

fn object_meets(pattern: &Value, value: Option<&Value>) -> bool {
    if let Some(Value::Array(elements)) = value
        && !elements.is_empty()
    {
        return elements
            .iter()
            .any(|element| object_meets(pattern, Some(element)));
    }
    pattern
        .as_object()
        .expect("a pattern is an object")
        .iter()
        .all(|(key, rule)| match (key.as_str(), rule) {
            ("$or", branches) => branches
                .as_array()
                .expect("an array")
                .iter()
                .any(|branch| object_meets(branch, value)),
            (key, Value::Array(alternatives)) => {
                leaf_meets(alternatives, value.and_then(|value| value.get(key)))
            }
            (key, rule) => object_meets(rule, value.and_then(|value| value.get(key))),
        })
}

fn leaf_meets(alternatives: &[Value], value: Option<&Value>) -> bool {
    let mut scalars = Vec::new();
    value
        .into_iter()
        .for_each(|value| collect(value, &mut scalars));
    if scalars.is_empty() {
        return alternatives.contains(&json!({"exists": false}));
    }
    scalars.iter().any(|scalar| {
        alternatives
            .iter()
            .any(|alternative| is_one(scalar, alternative))
    })
}

fn collect<'v>(value: &'v Value, scalars: &mut Vec<&'v Value>) {
    match value {
        Value::Array(elements) => elements
            .iter()
            .for_each(|element| collect(element, scalars)),
        Value::Object(_) => {}
        scalar => scalars.push(scalar),
    }
}

fn is_one(value: &Value, alternative: &Value) -> bool {
    let Value::Object(operator) = alternative else {
        return is_equal(value, alternative);
    };
    let (name, operand) = operator.iter().next().expect("an operator");
    match name.as_str() {
        "exists" => operand == true,
        "anything-but" => match operand {
            Value::Object(inner) => {
                let (name, operand) = inner.iter().next().expect("an operator");
                !each(operand).iter().any(|one| text_rule(name, value, one))
            }
            _ => !each(operand).iter().any(|one| is_equal(value, one)),
        },
        "numeric" => value.is_number() && in_range(value, operand.as_array().expect("an array")),
        name => text_rule(name, value, operand),
    }
}

fn each(value: &Value) -> Vec<Value> {
    value
        .as_array()
        .cloned()
        .unwrap_or_else(|| vec![value.clone()])
}

fn text_rule(name: &str, value: &Value, operand: &Value) -> bool {
    let Some(text) = value.as_str() else {
        return false;
    };
    if let Some(ignoring_case) = operand.get("equals-ignore-case") {
        return text_rule(
            name,
            &json!(text.to_lowercase()),
            &json!(ignoring_case.as_str().expect("text").to_lowercase()),
        );
    }
    let operand = operand.as_str().expect("a string");
    match name {
        "prefix" => text.starts_with(operand),
        "suffix" => text.ends_with(operand),
        "equals-ignore-case" => text.to_lowercase() == operand.to_lowercase(),
        "wildcard" => glob(operand.as_bytes(), text.as_bytes()),
        "cidr" => {
            let (network, bits) = operand.split_once('/').expect("a network");
            let number = |text: &str| text.parse::<Ipv4Addr>().map(u32::from);
            let host_bits = 32 - bits.parse::<u32>().expect("a number");
            number(text).is_ok_and(|ip| {
                ip >> host_bits == number(network).expect("an address") >> host_bits
            })
        }
        other => panic!("{other}"),
    }
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            glob(rest, text) || (!text.is_empty() && glob(pattern, &text[1..]))
        }
        ([b'\\', c, rest @ ..], [d, text @ ..]) | ([c, rest @ ..], [d, text @ ..]) => {
            c == d && glob(rest, text)
        }
        _ => false,
    }
}

fn is_equal(a: &Value, b: &Value) -> bool {
    if a.is_number() && b.is_number() {
        thousandths(a) == thousandths(b)
    } else {
        a == b
    }
}

fn in_range(value: &Value, terms: &[Value]) -> bool {
    terms.chunks(2).all(|term| {
        let (a, b) = (thousandths(value), thousandths(&term[1]));
        match term[0].as_str().expect("a comparison") {
            "<" => a < b,
            "<=" => a <= b,
            ">" => a > b,
            ">=" => a >= b,
            _ => a == b,
        }
    })
}

/// The numbers drawn below have at most three decimals, or none when they are large.
fn thousandths(number: &Value) -> i128 {
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(whole), _, _) => i128::from(whole) * 1_000,
        (_, Some(whole), _) => i128::from(whole) * 1_000,
        (_, _, Some(float)) if float.fract() == 0.0 => float as i128 * 1_000,
        (_, _, Some(float)) => (float * 1_000.0).round() as i128,
        _ => panic!("{number}"),
    }
}

fn text() -> impl Strategy<Value = String> {
    select(vec![
        "",
        "a",
        "b",
        "ab",
        "AB",
        "aB",
        "aab",
        "ba",
        "a*",
        "1",
        "é",
        "É",
        "10.0.0.1",
        "10.0.1.1",
        "10.0.0.200",
    ])
    .prop_map(str::to_owned)
}

fn number() -> impl Strategy<Value = Value> {
    let large = 1_u64 << 53;
    select(vec![
        json!(0),
        json!(1),
        json!(1.0),
        json!(-1),
        json!(1.5),
        json!(2),
        json!(large),
        json!(large as f64),
        json!(large + 1),
    ])
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => text().prop_map(Value::from),
        3 => number(),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ]
}

fn alternative() -> impl Strategy<Value = Value> {
    let filled = || text().prop_filter("not empty", |text| !text.is_empty());
    let wildcard = || select(vec!["*", "a*", "*b", "a*b", "*a*b*", "a\\*", "ab", "*É"]);
    let network = select(vec![
        "10.0.0.0/24",
        "10.0.0.0/16",
        "10.0.0.128/25",
        "10.0.0.1/32",
        "0.0.0.0/1",
    ]);
    let comparison = |low: &str, high: &str| {
        (
            select(vec![low.to_owned(), format!("{low}=")]),
            select(vec![high.to_owned(), format!("{high}=")]),
        )
    };
    prop_oneof![
        6 => scalar(),
        1 => (text(), select(vec!["prefix", "suffix", "equals-ignore-case"])).prop_map(|(text, name)| json!({name: text})),
        1 => (text(), select(vec!["prefix", "suffix"])).prop_map(|(text, name)| json!({name: {"equals-ignore-case": text}})),
        1 => wildcard().prop_map(|text| json!({"wildcard": text})),
        1 => network.prop_map(|text| json!({"cidr": text})),
        1 => any::<bool>().prop_map(|exists| json!({"exists": exists})),
        1 => text().prop_map(|text| json!({"anything-but": text})),
        1 => prop::collection::vec(text(), 1..3).prop_map(|texts| json!({"anything-but": texts})),
        1 => prop::collection::vec(number(), 1..3).prop_map(|numbers| json!({"anything-but": numbers})),
        1 => (prop::collection::vec(filled(), 1..3), select(vec!["prefix", "suffix", "equals-ignore-case"]))
            .prop_map(|(texts, name)| json!({"anything-but": {name: texts}})),
        1 => wildcard().prop_map(|text| json!({"anything-but": {"wildcard": text}})),
        1 => (number(), select(vec!["=", "<", "<=", ">", ">="])).prop_map(|(number, is)| json!({"numeric": [is, number]})),
        1 => (comparison(">", "<"), number(), number()).prop_map(|((low, high), a, b)| {
            if thousandths(&a) < thousandths(&b) { json!({"numeric": [low, a, high, b]}) } else { json!({"numeric": [low, a]}) }
        }),
    ]
}

fn key() -> impl Strategy<Value = String> {
    select(vec!["a", "b", "alerts", "a.b"]).prop_map(str::to_owned)
}

/// A pattern for an object in the data.
fn inner_pattern() -> impl Strategy<Value = Value> {
    let leaf = || prop::collection::vec(alternative(), 1..4).prop_map(Value::from);
    let object = (key(), leaf()).prop_map(|(key, leaf)| json!({key: leaf}));
    object.prop_recursive(3, 16, 3, move |inner| {
        let field = prop_oneof![3 => leaf(), 2 => inner.clone()];
        let fields = prop::collection::vec((key(), field), 1..4);
        let branches = prop::option::weighted(0.3, prop::collection::vec(inner, 2..4));
        (fields, branches).prop_map(|(fields, branches)| {
            let branches = branches.map(|branches| ("$or".to_owned(), Value::from(branches)));
            Value::Object(fields.into_iter().chain(branches).collect::<Map<_, _>>())
        })
    })
}

/// A pattern for an event.
fn pattern() -> impl Strategy<Value = Value> {
    let data = || inner_pattern().prop_map(|inner| json!({"data": inner}));
    let kinds = select(vec![
        json!(["lookup_result.alerts"]),
        json!(["t", "u"]),
        json!([{"prefix": "lookup"}]),
    ]);
    prop_oneof![
        4 => data(),
        1 => (kinds, data()).prop_map(|(kinds, mut pattern)| { pattern["type"] = kinds; pattern }),
        1 => prop::collection::vec(data(), 2..4).prop_map(|branches| json!({"$or": branches})),
        1 => (data(), prop::collection::vec(data(), 2..3))
            .prop_map(|(mut pattern, branches)| { pattern["$or"] = json!(branches); pattern }),
    ]
}

fn data() -> impl Strategy<Value = Value> {
    let value = scalar().prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            2 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            3 => prop::collection::btree_map(key(), inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    prop::collection::btree_map(key(), value, 0..4)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
}

fn kind() -> impl Strategy<Value = &'static str> {
    select(vec!["lookup_result.alerts", "t"])
}

fn as_json(kind: &str, data: &Value) -> Value {
    json!({"id": "evt-1", "type": kind, "tenant": "acme", "timestamp": "2026-03-01T10:00:00Z", "data": data})
}

fn naive_selection(pattern: &Value, kind: &str, data: &Value) -> Option<Vec<usize>> {
    let alerts = data
        .get("alerts")?
        .as_array()
        .filter(|_| kind == "lookup_result.alerts")?;
    let alone = |alert: &Value| {
        let mut data = data.clone();
        data["alerts"] = json!([alert]);
        meets(pattern, &as_json(kind, &data))
    };
    Some((0..alerts.len()).filter(|at| alone(&alerts[*at])).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn one_pattern_agrees(pattern in pattern(), kind in kind(), data in data()) {
        let expected = meets(&pattern, &as_json(kind, &data));
        let compiled = compiled(&pattern);
        let event = event(kind, &data);
        prop_assert_eq!(compiled.matches(&event, &ample()), expected);
        prop_assert_eq!(compiled.explain(&event, &ample()).is_none(), expected);
        match (compiled.select_alerts(&event, &ample()), naive_selection(&pattern, kind, &data)) {
            (Selection::All, Some(alone)) => prop_assert_eq!(alone.len(), data["alerts"].as_array().expect("alerts").len()),
            (Selection::Some(positions), Some(alone)) => prop_assert_eq!(positions, alone),
            (selection, None) => prop_assert_eq!(selection.is_empty(), !expected),
        }
    }

    #[test]
    fn many_patterns_together_agree(
        patterns in prop::collection::vec((prop::option::weighted(0.9, pattern()), 0..4_usize), 0..24),
        kind in kind(),
        data in data(),
    ) {
        let globs = [vec!["*"], vec!["lookup_result.*", "t"], vec!["t"], vec!["u", "lookup_result.alerts", "*.alerts"]]
            .map(|texts| texts.iter().map(|text| TypeGlob::parse(text).expect(text)).collect::<Vec<_>>());
        let entries = patterns.iter().enumerate().map(|(at, (pattern, types))| {
            (at as u32, &*globs[*types], pattern.as_ref().map(|pattern| Arc::new(compiled(pattern))))
        });
        let mut out = Vec::new();
        Matcher::build(entries).matching(&event(kind, &data), &ample(), &mut out);
        let expected: Vec<u32> = (patterns.iter().enumerate())
            .filter(|(_, (_, types))| globs[*types].iter().any(|glob| glob.matches(kind)))
            .filter(|(_, (pattern, _))| pattern.as_ref().is_none_or(|pattern| meets(pattern, &as_json(kind, &data))))
            .map(|(at, _)| at as u32)
            .collect();
        prop_assert_eq!(out, expected);
    }

    #[test]
    fn an_absent_field_is_met_by_nothing_else(leaf in prop::collection::vec(alternative(), 1..3)) {
        let pattern = json!({"data": {"x": leaf}});
        let expected = leaf.contains(&json!({"exists": false}));
        prop_assert_eq!(Pattern::compile(&pattern).expect("valid").matches(&event("t", &json!({})), &ample()), expected);
    }
}
