//! How much memory an event takes that is made of as many values as fit: while it is decoded,
//! matched and rendered, and while many of them wait; and how much the worst filter takes. A
//! test binary of its own, with one test, which runs itself again for each thing it measures.

// A test that cannot go on is to end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/memory.rs"]
mod memory;

use std::sync::Arc;

use bytes::Bytes;
use carillon::codec;
use carillon::domain::event::Event;
use carillon::domain::id::SubscriptionId;
use carillon::domain::pattern::{Budget, Matcher, Pattern, Selection, TypeGlob};
use carillon::domain::payload;
use memory::memory_bytes;
use serde_json::json;

/// `intake.max_event_bytes`
const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// How many times its own size an event may take on its way through.
const RATIO_MAX: u64 = 60;
/// Events that wait at once, and how many times their size they may take.
const WAITING: u64 = 32;
const WAITING_RATIO_MAX: u64 = 5;

/// Filters of one tenant, and how much each may take.
const FILTERS: u64 = 40;
const FILTER_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// How much more memory than before `act` needs at its worst.
fn growth<T>(act: impl FnOnce() -> T) -> (T, u64) {
    let before = memory_bytes("VmRSS");
    let done = act();
    (done, memory_bytes("VmHWM").saturating_sub(before))
}

/// An event of the largest size, whose data are `open`, as many of `piece` as fit, and `close`.
fn crowded(open: &str, piece: impl Fn(usize) -> String, close: &str) -> Bytes {
    let head = r#"{"id":"e","type":"lookup_result.alerts","tenant":"acme","timestamp":"2026-03-01T12:30:00Z","data":{"domain":"d","lookup_id":"l""#;
    let mut text = format!("{head}{open}");
    let mut pieces = (0..).map(piece).peekable();
    text.push_str(&pieces.next().unwrap());
    while let Some(piece) = pieces.next_if(|piece| text.len() + piece.len() + 8 < EVENT_BYTES_MAX) {
        text.push(',');
        text.push_str(&piece);
    }
    text.push_str(close);
    text.push_str("}}");
    text.into()
}

/// The event of that name.
fn shape(name: &str) -> Bytes {
    let alerts = r#","alerts":["#;
    let x = r#","alerts":[],"x":["#;
    let same = |text: &'static str| move |_| text.to_owned();
    match name {
        "one text" => {
            let text = "x".repeat(EVENT_BYTES_MAX - 300);
            crowded(x, move |_| format!("\"{text}\""), "]")
        }
        "zeros" => crowded(x, same("0"), "]"),
        "texts" => crowded(x, same(r#""""#), "]"),
        "arrays" => crowded(x, same("[]"), "]"),
        "arrays in arrays" => crowded(x, same("[[[0]]]"), "]"),
        "empty objects" => crowded(x, same("{}"), "]"),
        "objects" => crowded(x, same(r#"{"":0}"#), "]"),
        "names" => crowded(r#","alerts":[],"x":{"#, |n| format!("\"{n:x}\":0"), "}"),
        "alerts" => crowded(alerts, same(r#"{"alert":{},"result":{}}"#), "]"),
        other => panic!("no shape {other}"),
    }
}

/// The shapes that there are.
const SHAPES: &[&str] = &[
    "one text",
    "zeros",
    "texts",
    "arrays",
    "arrays in arrays",
    "empty objects",
    "objects",
    "names",
    "alerts",
];

fn decode(body: &Bytes) -> Event {
    codec::event::decode(body, None, EVENT_BYTES_MAX).unwrap()
}

/// A tenant of some filters that look at every value.
fn matcher() -> Matcher {
    let all = [TypeGlob::parse("*").unwrap()];
    let filters = [
        json!({"data": {"x": ["nothing"]}}),
        json!({"data": {"x": {"": ["nothing"]}}}),
        json!({"data": {"x": [{"exists": false}], "alerts": {"alert": {"k": [{"exists": false}]}}}}),
        json!({"data": {"x": [{"wildcard": "a*b"}, {"numeric": [">", 5]}]}}),
    ];
    let compiled = filters.map(|filter| Some(Arc::new(Pattern::compile(&filter).unwrap())));
    Matcher::build(
        (0u32..)
            .zip(compiled)
            .map(|(n, filter)| (n, &all[..], filter)),
    )
}

/// As many fields and alternatives as there may be, none of them in another filter.
fn worst_filter(n: u64) -> Pattern {
    let field = |f: u64| {
        let values: Vec<String> = (0..8).map(|v| format!("{n:x}-{f:x}-{v}")).collect();
        (format!("{n:x}-{f:x}"), json!(values))
    };
    let fields: serde_json::Map<String, serde_json::Value> = (0..512).map(field).collect();
    Pattern::compile(&json!({ "data": fields })).unwrap()
}

/// What a tenant of the worst filters takes, in bytes for each.
fn filter_bytes() -> u64 {
    let all = [TypeGlob::parse("*").unwrap()];
    let build = || {
        let filters = (0..FILTERS).map(|n| Some(Arc::new(worst_filter(n))));
        Matcher::build(
            (0u32..)
                .zip(filters)
                .map(|(n, filter)| (n, &all[..], filter)),
        )
    };
    let (_matcher, grown) = growth(build);
    grown / FILTERS
}

/// What is measured, each in a process of its own: what one leaves behind would hide what the
/// next one takes.
fn measure(what: &str) -> u64 {
    match what {
        "filters" => filter_bytes(),
        "waiting" => {
            let body = shape("objects");
            let one = || {
                let mut event = decode(&body);
                event.data.let_go();
                event
            };
            let all = || std::iter::repeat_with(one).take(WAITING as usize);
            let (waiting, grown) = growth(|| all().collect::<Vec<Event>>());
            // Each is what it was.
            assert!(waiting[0].data.fields().get("x").is_some());
            grown
        }
        name => {
            let body = shape(name);
            growth(|| pass_through(&body)).1
        }
    }
}

fn pass_through(body: &Bytes) {
    let matcher = matcher();
    let event = decode(body);
    let budget = Budget::of_event(4);
    matcher.matching(&event.view(), &budget, &mut Vec::new());
    assert!(!budget.is_spent());
    let standard = payload::standard(&event, &Selection::All);
    let subscription = SubscriptionId::parse("sub_1").unwrap();
    let leicbit = payload::leicbit(&event, &subscription);
    assert!(standard.body.len() + leicbit.body.len() > 200);
}

/// Names to a process of this test what it measures.
const MEASURE: &str = "CARILLON_TEST_CROWDED";
/// What comes before the bytes it says.
const SAYS: &str = "bytes: ";

/// Has another process measure it.
fn measured(what: &str) -> u64 {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--nocapture", "--test-threads=1"])
        .env(MEASURE, what)
        .output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let bytes = said.lines().find_map(|line| line.split(SAYS).nth(1));
    let bytes = bytes.and_then(|bytes| bytes.parse().ok());
    bytes.unwrap_or_else(|| panic!("{what}: {said}{}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn crowded_events_and_filters_take_a_bounded_multiple_of_their_size() {
    if let Ok(what) = std::env::var(MEASURE) {
        println!("\n{SAYS}{}", measure(&what));
        return;
    }
    if !cfg!(target_os = "linux") {
        return;
    }
    let event_bytes = EVENT_BYTES_MAX as u64;
    for name in SHAPES {
        let ratio = measured(name) / event_bytes;
        println!("{name}: {ratio} times its size");
        assert!(ratio < RATIO_MAX, "{name}: {ratio}");
    }
    let waiting = measured("waiting");
    println!("{WAITING} that wait: {} MiB", waiting >> 20);
    assert!(waiting < (WAITING * WAITING_RATIO_MAX + RATIO_MAX) * event_bytes);
    let filter = measured("filters");
    println!("a filter: {} KiB", filter >> 10);
    assert!(filter < FILTER_BYTES_MAX);
}
