//! The demo's events: of every type, as detection systems publish them.

use serde_json::{Value, json};

use super::TENANT;

/// How many alerts the lookup has.
pub const LOOKUP_ALERTS: u64 = 40;

/// All events, in the batches in which they are published.
pub fn batches() -> Vec<Vec<Value>> {
    let thefts: Vec<Value> = (0..12).map(theft).collect();
    let mut rest = vec![
        compromise(0),
        compromise(1),
        started(0),
        started(1),
        resolved(0),
        resolved(1),
        lookup(),
        json!({
            "id": "demo-scan-0", "type": "scan.finished", "tenant": TENANT,
            "timestamp": "2026-03-01T12:40:00Z", "data": {"findings": 3},
        }),
    ];
    // The same event once more: it is delivered once per subscription all the same.
    rest.push(theft(0));
    // Somebody else's event: no subscription of this tenant sees it.
    let mut other = theft(99);
    other["tenant"] = "globex".into();
    rest.push(other);
    vec![thefts, rest]
}

/// An event that breaks a rule.
pub fn invalid() -> Value {
    let mut event = theft(0);
    if let Some(data) = event["data"].as_object_mut() {
        data.remove("domain");
    }
    event
}

fn event(kind: &str, number: u32, data: &Value) -> Value {
    json!({
        "id": format!("demo-{kind}-{number}"),
        "type": kind,
        "tenant": TENANT,
        "timestamp": format!("2026-03-01T12:30:{:02}Z", number % 60),
        "data": data,
    })
}

fn theft(number: u32) -> Value {
    let severity = if number.is_multiple_of(3) {
        "high"
    } else {
        "medium"
    };
    let data = json!({
        "domain": {"name": "acme.example", "id": "dom_1"},
        "user": {"email": format!("user{number}@acme.example")},
        "alert": {"severity": severity, "source": "stealer-log", "password": "h******2"},
    });
    event("credential_theft_detected", number, &data)
}

fn compromise(number: u32) -> Value {
    let data = json!({
        "domain": {"name": "acme.example", "id": "dom_1"},
        "user": {"email": "admin@acme.example"},
        "alert": {"severity": "medium", "source": "combo-list"},
    });
    event("domain_compromise_suspected", number, &data)
}

fn started(number: u32) -> Value {
    let data = json!({
        "domain": {"name": "shop.acme.example", "id": "dom_2"},
        "user": {"email": "admin@acme.example"},
    });
    event("monitoring_started", number, &data)
}

fn resolved(number: u32) -> Value {
    let data = json!({
        "domain": {"name": "acme.example", "id": "dom_1"},
        "user": {"email": "admin@acme.example"},
        "alert": {"severity": "info", "resolved_by": "password reset"},
    });
    event("threat_resolved", number, &data)
}

fn lookup() -> Value {
    let alert = |n: u64| {
        json!({
            "alert": {"kind": "new_registration", "n": n},
            "result": {"domain": format!("acme-{n}.example"), "risk": (n * 5) % 100},
        })
    };
    let alerts: Vec<Value> = (0..LOOKUP_ALERTS).map(alert).collect();
    let data = json!({"domain": "acme.example", "lookup_id": "lookup_1", "alerts": alerts});
    event("lookup_result.alerts", 0, &data)
}
