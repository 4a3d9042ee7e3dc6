//! The rules of contract section 1, each broken: what is published, and how it is refused.

use serde_json::{Value, json};

use super::harness::typed_event;

/// An event that breaks a rule.
pub struct Broken {
    /// Its body.
    pub body: Vec<u8>,
    /// Its content type; JSON when absent.
    pub content_type: Option<&'static str>,
    /// The status that answers it.
    pub status: u16,
    /// The reason: `code` of the answer, `reason` in quarantine.
    pub code: &'static str,
    /// The field at fault.
    pub field: Option<&'static str>,
}

/// Largest event of the dispatchers that these are meant for.
pub const EVENT_BYTES_MAX: usize = 4096;

/// JSON objects that break a rule: they may also stand in an array.
pub fn broken_events() -> Vec<Broken> {
    let mut all = Vec::new();
    let mut add = |code, field, event: Value| {
        all.push(Broken {
            body: event.to_string().into_bytes(),
            content_type: None,
            status: 422,
            code,
            field: Some(field),
        });
    };
    let good = || typed_event("bad", "demo.happened", &json!({}));
    let long = "x".repeat(129);
    for field in ["id", "type", "tenant", "timestamp", "data"] {
        let mut event = good();
        event.as_object_mut().unwrap().remove(field);
        add("missing_field", field, event);
    }
    let changes = [
        ("id", json!("")),
        ("id", json!("a b")),
        ("id", json!("é")),
        ("id", json!(long)),
        ("id", json!(7)),
        ("type", json!("")),
        ("type", json!("a..b")),
        ("type", json!("a b")),
        ("type", json!(long)),
        ("type", json!(["a"])),
        ("tenant", json!("")),
        ("tenant", json!("a\tb")),
        ("tenant", json!(long)),
        ("tenant", json!({})),
        ("timestamp", json!("yesterday")),
        ("timestamp", json!("2026-03-01")),
        ("timestamp", json!("2026-13-01T00:00:00Z")),
        ("timestamp", json!(1_772_368_200)),
        ("data", json!([])),
        ("data", json!("text")),
        ("data", json!(1)),
    ];
    for (field, value) in changes {
        let mut event = good();
        event[field] = value;
        add("invalid_field", field, event);
    }
    for (kind, data, code, field) in broken_data() {
        add(code, field, typed_event("bad", kind, &data));
    }
    all
}

/// `data` that lacks what its type needs.
fn broken_data() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    const MISSING: &str = "missing_field";
    const INVALID: &str = "invalid_field";
    let mut all = Vec::new();
    for kind in [
        "credential_theft_detected",
        "domain_compromise_suspected",
        "threat_resolved",
    ] {
        let whole = || json!({ "domain": {}, "user": {}, "alert": {} });
        for (part, path) in [
            ("domain", "data.domain"),
            ("user", "data.user"),
            ("alert", "data.alert"),
        ] {
            let mut data = whole();
            data.as_object_mut().unwrap().remove(part);
            all.push((kind, data, MISSING, path));
            let mut data = whole();
            data[part] = json!("text");
            all.push((kind, data, INVALID, path));
        }
    }
    let started = "monitoring_started";
    all.push((started, json!({ "user": {} }), MISSING, "data.domain"));
    all.push((started, json!({ "domain": {} }), MISSING, "data.user"));
    let listed = json!({ "domain": {}, "user": {}, "alert": [] });
    all.push((started, listed, INVALID, "data.alert"));
    let lookup = "lookup_result.alerts";
    let with = |alerts: Value| json!({ "domain": "d", "lookup_id": "l", "alerts": alerts });
    let no_domain = json!({ "lookup_id": "l", "alerts": [] });
    let no_id = json!({ "domain": "d", "alerts": [] });
    let no_alerts = json!({ "domain": "d", "lookup_id": "l" });
    let number = json!({ "domain": "d", "lookup_id": 5, "alerts": [] });
    let object = json!({ "domain": {}, "lookup_id": "l", "alerts": [] });
    let second = with(json!([{ "alert": {}, "result": {} }, { "alert": {}, "result": 5 }]));
    all.extend([
        (lookup, no_domain, MISSING, "data.domain"),
        (lookup, object, INVALID, "data.domain"),
        (lookup, no_id, MISSING, "data.lookup_id"),
        (lookup, number, INVALID, "data.lookup_id"),
        (lookup, no_alerts, MISSING, "data.alerts"),
        (lookup, with(json!({})), INVALID, "data.alerts"),
        (lookup, with(json!([1])), INVALID, "data.alerts[0]"),
        (lookup, with(json!([{}])), MISSING, "data.alerts[0].alert"),
        (lookup, second, INVALID, "data.alerts[1].result"),
        ("test.delivery", json!({}), "reserved_type", "type"),
    ]);
    all
}

/// Bodies that are no event in their encoding.
pub fn broken_bodies() -> Vec<Broken> {
    let broken = |body: &[u8], content_type, status, code, field| Broken {
        body: body.to_vec(),
        content_type,
        status,
        code,
        field,
    };
    const CLOUD: Option<&str> = Some("application/cloudevents+json");
    const PROTO: Option<&str> = Some("application/x-protobuf");
    let cloud = |change: fn(&mut Value)| {
        let mut event = json!({
            "specversion": "1.0", "source": "/t", "id": "bad", "type": "demo.happened",
            "tenant": "acme", "time": "2026-03-01T12:30:00Z", "data": {},
        });
        change(&mut event);
        event.to_string().into_bytes()
    };
    let remove =
        |event: &mut Value, field: &str| drop(event.as_object_mut().unwrap().remove(field));
    let no_version = cloud(|event| event["specversion"] = Value::Null);
    let old_version = cloud(|event| event["specversion"] = json!("0.3"));
    let bad_time = cloud(|event| event["time"] = json!("noon"));
    let mut base64 = serde_json::from_slice(&cloud(|_| {})).unwrap();
    remove(&mut base64, "data");
    base64["data_base64"] = json!("e30=");
    let base64 = base64.to_string().into_bytes();
    let large = typed_event(
        "bad",
        "demo.happened",
        &json!({ "x": "y".repeat(EVENT_BYTES_MAX) }),
    );
    let (missing, invalid) = ("missing_field", "invalid_field");
    vec![
        broken(b"", None, 422, "malformed", None),
        broken(b"   ", None, 422, "malformed", None),
        broken(b"{", None, 422, "malformed", None),
        broken(b"not json", None, 422, "malformed", None),
        broken(b"5", None, 422, "malformed", None),
        broken(b"null", None, 422, "malformed", None),
        broken(b"{\"id\":\"\xff\"}", None, 422, "malformed", None),
        broken(large.to_string().as_bytes(), None, 413, "too_large", None),
        broken(
            b"{}",
            Some("text/plain"),
            415,
            "unsupported_content_type",
            None,
        ),
        broken(b"\xff\xff\xff", PROTO, 422, "malformed", None),
        broken(b"", PROTO, 422, missing, Some("data")),
        broken(&no_version, CLOUD, 422, missing, Some("specversion")),
        broken(&old_version, CLOUD, 422, invalid, Some("specversion")),
        broken(&bad_time, CLOUD, 422, invalid, Some("time")),
        broken(&base64, CLOUD, 422, invalid, Some("data_base64")),
    ]
}
