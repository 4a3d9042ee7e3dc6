//! The worst filters that compile, against the worst events that fit.
//!
//! Bounds are on steps, which are counted, rather than on time.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::super::{Budget, Matcher, Pattern, TypeGlob};
use super::{compiled, event};

/// The steps that `look` took.
fn steps(budget: &Budget, look: impl FnOnce(&Budget)) -> i64 {
    let before = budget.left();
    look(budget);
    before - budget.left()
}

fn object(fields: impl IntoIterator<Item = (String, Value)>) -> Value {
    Value::Object(fields.into_iter().collect::<Map<_, _>>())
}

fn matcher(filters: &[Value], types: &[Vec<TypeGlob>]) -> Matcher {
    let entries = filters.iter().enumerate().map(|(at, filter)| {
        let types = &*types[at % types.len()];
        (at as u32, types, Some(Arc::new(compiled(filter))))
    });
    Matcher::build(entries)
}

fn any_type() -> Vec<Vec<TypeGlob>> {
    vec![vec![TypeGlob::parse("*").unwrap()]]
}

/// Half a million elements that meet none of what begins with a letter.
fn zeros() -> Value {
    json!({"x": vec![json!("0"); 250_000], "y": "1"})
}

/// As many branches as there may be, none of them met, on what is met.
fn branches(field: &str, count: usize) -> Value {
    let branch = |n| json!({"data": {field: [{"prefix": format!("a{n}")}]}});
    json!({"data": {"y": ["1"]}, "$or": (1..count).map(branch).collect::<Vec<_>>()})
}

#[test]
fn leaves_texts_and_depth_are_bounded_whatever_the_filter_is_made_of() {
    let leaves = |count| {
        object([(
            "data".to_owned(),
            object((0..count).map(|n| (format!("k{n}"), json!([1])))),
        )])
    };
    assert!(Pattern::compile(&leaves(512)).is_ok());
    for too_many in [leaves(513), branches("x", 513)] {
        let error = Pattern::compile(&too_many).unwrap_err();
        assert!(error.problem.contains("more than 512 fields"), "{error}");
        assert!(!error.path.is_empty(), "{error}");
        assert!(Pattern::compile_stored(&too_many).is_ok());
    }
    for text in ["x".repeat(128 * 1024), "*a".repeat(64 * 1024)] {
        let operator = if text.starts_with('*') {
            "wildcard"
        } else {
            "prefix"
        };
        let long = json!({"data": {"x": [{operator: text}]}});
        let error = Pattern::compile(&long).unwrap_err();
        assert!(error.problem.contains("at most 131072"), "{error}");
        assert!(error.to_string().len() < 300);
        assert!(Pattern::compile_stored(&long).is_ok());
    }
    // Branches within branches are as many as are written, not as many as their product.
    let mut nested = json!({"data": {"z": [0]}});
    for level in 0..12 {
        let other = json!({"data": {format!("z{level}"): [0]}});
        nested = json!({"$or": [nested, other]});
    }
    let product = json!({"$or": [nested.clone(), nested.clone()], "data": {"y": ["1"]}});
    let pattern = compiled(&product);
    let budget = Budget::of_event(1);
    let taken = steps(&budget, |budget| {
        assert!(!pattern.matches(&event("t", &zeros()), budget));
    });
    assert!(taken < 200, "{taken}");
    let mut deep = nested;
    for _ in 0..20 {
        deep = json!({"$or": [deep, {"type": ["x"]}]});
    }
    let error = Pattern::compile(&deep).unwrap_err();
    assert!(error.problem.contains("deeper than 32 levels"), "{error}");
}

#[test]
fn what_takes_too_many_steps_ends_without_an_answer() {
    let data = zeros();
    let event = event("t", &data);
    let pattern = compiled(&branches("x", 500));
    let budget = Budget::of_event(1);
    let taken = steps(&budget, |budget| {
        let _ = pattern.matches(&event, budget);
    });
    assert!(budget.is_spent());
    assert!(taken < 20_200_000, "{taken}");

    // The same through the index of a tenant, where the branches are waited for.
    for filter in [
        branches("x", 500),
        json!({"$or": (0..500).map(|n| json!({"data": {"x": [{"prefix": format!("a{n}")}]}})).collect::<Vec<_>>()}),
    ] {
        let filters = vec![filter; 20];
        let budget = Budget::of_event(filters.len());
        let before = budget.left();
        let mut out = Vec::new();
        matcher(&filters, &any_type()).matching(&event, &budget, &mut out);
        assert!(budget.is_spent());
        assert!(before - budget.left() < before + 100_000);
    }
}

/// What is no value is passed over, and counted: else it would be passed over for nothing, once
/// for each condition.
#[test]
fn what_is_no_value_is_counted_too() {
    const COUNT: usize = 2_000;
    let conditions = |n: usize| {
        let one = |m| json!({"data": {"x": [{"prefix": format!("{n}-{m}")}]}});
        json!({"$or": (0..100).map(one).collect::<Vec<_>>()})
    };
    let filters: Vec<Value> = (0..3).map(conditions).collect();
    for element in [json!({}), json!({"y": 1}), json!("text"), json!(0)] {
        let data = json!({"x": vec![element.clone(); COUNT]});
        let taken = steps(&Budget::of_event(3), |budget| {
            matcher(&filters, &any_type()).matching(&event("t", &data), budget, &mut Vec::new());
        });
        assert!(taken >= (300 * COUNT) as i64, "{element}: {taken}");
    }
    let data = json!({"x": vec![json!([]); COUNT]});
    let taken = steps(&Budget::of_event(3), |budget| {
        matcher(&filters, &any_type()).matching(&event("t", &data), budget, &mut Vec::new());
    });
    assert!(taken >= COUNT as i64, "{taken}");
    // Many names beside many children are counted by name, in each walk.
    let names: serde_json::Map<_, _> = (0..COUNT).map(|n| (format!("n{n}"), json!({}))).collect();
    let data = json!({ "many": names });
    let children: serde_json::Map<_, _> = (0..20).map(|n| (format!("c{n}"), json!([1]))).collect();
    let globs: Vec<Vec<TypeGlob>> = (1..=10)
        .map(|n| vec![TypeGlob::parse(&"*".repeat(n)).unwrap()])
        .collect();
    let filters = vec![json!({"data": {"many": children}}); 10];
    let taken = steps(&Budget::of_event(10), |budget| {
        matcher(&filters, &globs).matching(&event("t", &data), budget, &mut Vec::new());
    });
    assert!(taken >= (10 * COUNT) as i64, "{taken}");
}

#[test]
fn nested_arrays_with_the_same_element_cost_no_more_than_their_product() {
    // Each level asks for fields of one element, and none has them all.
    let mut rows = json!([{"a": 1}, {"b": 2}]);
    let mut filter = json!({"a": [1], "b": [2]});
    for _ in 0..13 {
        rows = json!([{"r": rows.clone(), "a": 1}, {"r": rows, "b": 2}]);
        filter = json!({"r": filter, "$or": [{"a": [1]}, {"b": [2]}]});
    }
    let data = json!({"r": rows});
    let pattern = compiled(&json!({"data": {"r": filter}}));
    let budget = Budget::of_event(1);
    let taken = steps(&budget, |budget| {
        assert!(!pattern.matches(&event("t", &data), budget));
    });
    // 2¹⁴ objects, each visited by the one rule of its depth.
    assert!(taken < (1 << 14) * 20, "{taken}");
    assert!(!budget.is_spent());
}

#[test]
fn a_tenant_of_many_costly_filters_has_a_bound_as_a_whole() {
    let wildcards = |n: usize| {
        let one = |m| json!({"wildcard": format!("*{m:x}*a*a*a*b{n:x}")});
        json!({"data": {"text": (0..200).map(one).collect::<Vec<_>>()}})
    };
    let filters: Vec<Value> = (0..100).map(wildcards).collect();
    let data = json!({"text": "a".repeat(1 << 20), "y": "1"});
    let budget = Budget::of_event(filters.len());
    let before = budget.left();
    let mut out = Vec::new();
    matcher(&filters, &any_type()).matching(&event("t", &data), &budget, &mut out);
    assert!(budget.is_spent());
    // One leaf at most is tried beyond what there is.
    assert!(
        before - budget.left() < before + 200 * (1 << 18) + 1_000,
        "{budget:?}"
    );

    // Many globs are many walks over the event.
    let globs: Vec<Vec<TypeGlob>> = (0..100)
        .map(|n| {
            let stars = "*".repeat(n % 50 + 1) + &"t".repeat(n / 50);
            vec![TypeGlob::parse(&stars).unwrap()]
        })
        .collect();
    let filters = vec![json!({"data": {"x": ["nothing"]}}); 100];
    let budget = Budget::of_event(filters.len());
    let mut out = Vec::new();
    matcher(&filters, &globs).matching(&event("t", &zeros()), &budget, &mut out);
    assert!(budget.is_spent() && out.is_empty());
}

#[test]
fn ordinary_filters_and_events_stay_far_below() {
    let filter = |n: usize| {
        json!({
            "type": ["lookup_result.alerts"],
            "data": {"alerts": {
                "alert": {"kind": ["phishing", "parked"], "score": [{"numeric": [">=", n % 100]}]},
                "result": {"host": [{"suffix": ".example"}, {"wildcard": "*login*"}]},
            }},
        })
    };
    let filters: Vec<Value> = (0..1_000).map(filter).collect();
    let alert = |n: usize| {
        let kind = ["phishing", "typo"][n % 2];
        json!({
            "alert": {"kind": kind, "score": n % 100},
            "result": {"host": format!("host-{n}.shop.example"), "login": true},
        })
    };
    let data =
        json!({"domain": "d", "lookup_id": "l", "alerts": (0..500).map(alert).collect::<Vec<_>>()});
    let event = event("lookup_result.alerts", &data);
    let matcher = matcher(&filters, &any_type());
    let budget = Budget::of_event(filters.len());
    let mut found = Vec::new();
    let taken = steps(&budget, |budget| {
        matcher.matching(&event, budget, &mut found);
        for index in &found {
            let selected = compiled(&filters[*index as usize]).select_alerts(&event, budget);
            assert!(!selected.is_empty());
        }
    });
    assert!(found.len() > 900, "{}", found.len());
    assert!(taken < budget.left(), "{taken}, {budget:?} left");
}

#[test]
fn case_is_folded_by_character_and_nothing_else() {
    let met = |filter: &str, text: &str| {
        let pattern = compiled(&json!({"data": {"x": [{"equals-ignore-case": filter}]}}));
        pattern.matches(&event("t", &json!({"x": text})), &Budget::of_event(1))
    };
    for (filter, text, expected) in [
        ("İ", "i\u{307}", true),
        ("İstanbul", "istanbul", false),
        ("ß", "ẞ", true),
        ("ß", "SS", false),
        ("ΟΔΟΣ", "οδοσ", true),
        ("\u{212a}elvin", "kelvin", true),
        ("é", "e\u{301}", false),
        ("a\0B", "A\0b", true),
        ("ﬁ", "FI", false),
    ] {
        assert_eq!(met(filter, text), expected, "{filter} and {text}");
    }
}
