//! One leaf and one value, for every operator.

use serde_json::{Value, json};

use super::{ample, compiled, event};

/// Whether `data.x` with this value (none: absent) meets the leaf.
fn leaf_meets(leaf: &Value, value: Option<Value>) -> bool {
    let pattern = compiled(&json!({"data": {"x": leaf}}));
    let data = value.map_or(json!({}), |value| json!({"x": value}));
    let event = event("t", &data);
    let meets = pattern.matches(&event, &ample());
    assert_eq!(
        pattern.explain(&event, &ample()).is_none(),
        meets,
        "explain disagrees on {leaf} with {data}"
    );
    meets
}

#[test]
fn leaves() {
    let cases = [
        (json!(["a", "b"]), json!("b"), true),
        (json!(["a"]), json!("A"), false),
        (json!(["1"]), json!(1), false),
        (json!([1]), json!(1.0), true),
        (json!([1.5]), json!(1.5), true),
        (
            json!([9_007_199_254_740_993_u64]),
            json!(9_007_199_254_740_992_u64),
            false,
        ),
        (
            json!([9_007_199_254_740_993_u64]),
            json!(9_007_199_254_740_993_u64),
            true,
        ),
        (json!([u64::MAX]), json!(u64::MAX), true),
        (json!([u64::MAX]), json!(u64::MAX - 1), false),
        (json!([true]), json!(true), true),
        (json!([true]), json!(false), false),
        (json!([true]), json!("true"), false),
        (json!([null]), json!(null), true),
        (json!([null]), json!(""), false),
        (json!([""]), json!(null), false),
        (json!([{"prefix": "ab"}]), json!("abc"), true),
        (json!([{"prefix": "ab"}]), json!("ABC"), false),
        (json!([{"prefix": ""}]), json!("x"), true),
        (json!([{"prefix": "1"}]), json!(12), false),
        (
            json!([{"prefix": {"equals-ignore-case": "ab"}}]),
            json!("ABc"),
            true,
        ),
        (json!([{"suffix": ".png"}]), json!("x.png"), true),
        (json!([{"suffix": ".png"}]), json!("x.PNG"), false),
        (
            json!([{"suffix": {"equals-ignore-case": ".Png"}}]),
            json!("x.pNG"),
            true,
        ),
        (
            json!([{"wildcard": "*.example.*"}]),
            json!("login.example.com"),
            true,
        ),
        (
            json!([{"wildcard": "*.example.*"}]),
            json!("example.com"),
            false,
        ),
        (json!([{"wildcard": "a\\*b"}]), json!("a*b"), true),
        (
            json!([{"equals-ignore-case": "ALice"}]),
            json!("aliCE"),
            true,
        ),
        (json!([{"equals-ignore-case": "É"}]), json!("é"), true),
        (json!([{"numeric": ["=", 3.018e2]}]), json!(301.8), true),
        (json!([{"numeric": [">", 0, "<=", 5]}]), json!(5), true),
        (json!([{"numeric": [">", 0, "<=", 5]}]), json!(0), false),
        (json!([{"numeric": ["<", 10]}]), json!(-1e9), true),
        (json!([{"numeric": [">=", 10]}]), json!("11"), false),
        (json!([{"numeric": [">=", 5, "<=", 5]}]), json!(5.0), true),
        (json!([{"cidr": "10.0.0.0/24"}]), json!("10.0.0.33"), true),
        (json!([{"cidr": "10.0.0.0/24"}]), json!("10.0.1.33"), false),
        (
            json!([{"cidr": "2001:db8::/32"}]),
            json!("2001:DB8::1"),
            true,
        ),
        (json!([{"cidr": "10.0.0.0/24"}]), json!("host"), false),
        (
            json!(["a", {"prefix": "z"}, {"numeric": [">", 3]}]),
            json!(4),
            true,
        ),
    ];
    for (leaf, value, expected) in cases {
        assert_eq!(
            leaf_meets(&leaf, Some(value.clone())),
            expected,
            "{leaf} on {value}"
        );
        assert!(!leaf_meets(&leaf, None), "{leaf} on nothing");
    }
}

#[test]
fn anything_but_needs_a_value_and_takes_any_other() {
    let cases = [
        (json!("a"), json!("b"), true),
        (json!("a"), json!("a"), false),
        (json!("a"), json!(1), true),
        (json!("a"), json!(null), true),
        (json!("a"), json!(true), true),
        (json!(5), json!(5.0), false),
        (json!(5), json!("5"), true),
        (json!([1, 2]), json!(2), false),
        (json!(["a", "b"]), json!("c"), true),
        (json!(["a", "b"]), json!("b"), false),
        (json!({"prefix": "ab"}), json!("abc"), false),
        (json!({"prefix": ["ab", "x"]}), json!("xyz"), false),
        (json!({"prefix": "ab"}), json!(7), true),
        (json!({"suffix": [".png", ".jpg"]}), json!("a.jpg"), false),
        (json!({"suffix": ".png"}), json!("a.gif"), true),
        (
            json!({"equals-ignore-case": ["AB", "c"]}),
            json!("aB"),
            false,
        ),
        (json!({"wildcard": "*/lib/*"}), json!("/usr/lib/x"), false),
        (
            json!({"wildcard": ["*/lib/*", "*.so"]}),
            json!("/a.so"),
            false,
        ),
        (json!({"wildcard": "*/lib/*"}), json!("/usr/x"), true),
    ];
    for (named, value, expected) in cases {
        let leaf = json!([{ "anything-but": named }]);
        assert_eq!(
            leaf_meets(&leaf, Some(value.clone())),
            expected,
            "{leaf} on {value}"
        );
        assert!(!leaf_meets(&leaf, None), "{leaf} on nothing");
    }
}

#[test]
fn presence_is_about_values() {
    let cases = [
        (Some(json!(0)), true),
        (Some(json!(null)), true),
        (Some(json!("")), true),
        (Some(json!([[], ["a"]])), true),
        (Some(json!([{"y": 1}, 2])), true),
        (Some(json!({"y": 1})), false),
        (Some(json!([])), false),
        (Some(json!([[], [[]]])), false),
        (Some(json!([{"y": 1}])), false),
        (None, false),
    ];
    for (value, present) in cases {
        assert_eq!(
            leaf_meets(&json!([{"exists": true}]), value.clone()),
            present,
            "{value:?}"
        );
        assert_eq!(
            leaf_meets(&json!([{"exists": false}]), value.clone()),
            !present,
            "{value:?}"
        );
    }
    assert!(leaf_meets(&json!(["a", {"exists": false}]), None));
    assert!(leaf_meets(
        &json!(["a", {"exists": false}]),
        Some(json!("a"))
    ));
    assert!(!leaf_meets(
        &json!(["a", {"exists": false}]),
        Some(json!("b"))
    ));
}

#[test]
fn an_array_is_met_by_one_of_its_values() {
    assert!(leaf_meets(&json!(["b"]), Some(json!(["a", "b"]))));
    assert!(leaf_meets(&json!(["b"]), Some(json!([["a"], [["b"]]]))));
    assert!(!leaf_meets(&json!(["c"]), Some(json!(["a", "b"]))));
    assert!(leaf_meets(
        &json!([{"anything-but": "a"}]),
        Some(json!(["a", "b"]))
    ));
    assert!(!leaf_meets(
        &json!([{"anything-but": "a"}]),
        Some(json!(["a", "a"]))
    ));
    assert!(!leaf_meets(
        &json!([{"anything-but": "a"}]),
        Some(json!([]))
    ));
}

/// A filter is kept as JSON and read again; found by fuzzing.
#[test]
fn a_long_number_is_the_same_after_it_was_kept() {
    let written = "900719925474184467440737095516160993";
    let filter = format!(r#"{{"data": {{"x": [{written}]}}}}"#);
    let filter: serde_json::Value = serde_json::from_str(&filter).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&filter.to_string()).unwrap();
    let data: serde_json::Value = serde_json::from_str(&format!(r#"{{"x": {written}}}"#)).unwrap();
    for filter in [filter, kept] {
        assert!(
            compiled(&filter).matches(&event("t", &data), &ample()),
            "{filter}"
        );
    }
}
