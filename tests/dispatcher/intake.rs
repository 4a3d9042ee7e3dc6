//! Publishing: every rule of contract section 1, arrays, and the three encodings.

use carillon::codec::proto;
use prost::Message as _;
use serde_json::{Value, json};

use super::harness::{Dispatcher, event, events, typed_event};
use super::hooks::{Hooks, event_ids, webhook_id};
use super::rules::{EVENT_BYTES_MAX, broken_bodies, broken_events};

async fn small_events() -> Dispatcher {
    Dispatcher::with(|config| config.intake.max_event_bytes = EVENT_BYTES_MAX).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_rule_is_named_and_nothing_is_taken() {
    let hooks = Hooks::start().await;
    let carillon = small_events().await;
    let api = &carillon.api;
    api.subscribe(&hooks.url("all"), json!({})).await;
    for broken in broken_events().iter().chain(&broken_bodies()) {
        let text = String::from_utf8_lossy(&broken.body).into_owned();
        let answer = api.publish_raw(broken.body.clone(), broken.content_type);
        let problem = answer.await.refused(broken.status, broken.code);
        assert_eq!(problem["field"].as_str(), broken.field, "{text}: {problem}");
        assert!(problem.get("index").is_none(), "{text}: {problem}");
    }
    for broken in broken_events() {
        let bad: Value = serde_json::from_slice(&broken.body).unwrap();
        let array = json!([event("before"), event("between"), bad, event("after")]);
        let answer = api.post("/v1/events", &array).await;
        let problem = answer.refused(broken.status, broken.code);
        assert_eq!(problem["index"], 2, "{bad}");
        assert_eq!(problem["field"].as_str(), broken.field, "{bad}");
    }
    api.publish(&event("good")).await;
    api.settled().await;
    assert_eq!(event_ids(&hooks.seen("all")), ["good"]);
    assert_eq!(api.items("/v1/quarantine").await, [] as [Value; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_rules_allow_is_taken() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    api.subscribe(&hooks.url("all"), json!({})).await;
    let parts = json!({ "domain": {}, "user": {}, "alert": {} });
    let lookup = json!({ "domain": "d", "lookup_id": "l", "alerts": [] });
    let mut unknown_fields = event("unknown-fields");
    unknown_fields["colour"] = json!({ "deep": [1, 2] });
    let mut offset = event("offset");
    offset["timestamp"] = json!("2026-03-01T13:30:00.123456+01:00");
    let longest = event(&"~".repeat(128));
    let good = [
        typed_event("1", "credential_theft_detected", &parts),
        typed_event("2", "domain_compromise_suspected", &parts),
        typed_event("3", "threat_resolved", &parts),
        typed_event("4", "monitoring_started", &parts),
        typed_event(
            "5",
            "monitoring_started",
            &json!({ "domain": {}, "user": {} }),
        ),
        typed_event("6", "lookup_result.alerts", &lookup),
        typed_event("7", "lookup_result.other", &json!({})),
        typed_event("8", &"t".repeat(128), &json!({})),
        unknown_fields,
        offset,
        longest,
    ];
    api.publish(&good.iter().cloned().collect()).await;
    assert_eq!(hooks.arrived("all", good.len()).await.len(), good.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn arrays_have_1_to_1000_events() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    api.subscribe(&hooks.url("all"), json!({})).await;
    for count in [0, 1001] {
        let answer = api.post("/v1/events", &events(count)).await;
        answer.refused(422, "invalid_batch");
    }
    api.publish_raw(b"[{}".to_vec(), None)
        .await
        .refused(422, "malformed");
    api.publish_raw(b"[{}] x".to_vec(), None)
        .await
        .refused(422, "malformed");
    api.publish(&events(1000)).await;
    api.settled().await;
    let mut ids = event_ids(&hooks.seen("all"));
    ids.dedup();
    assert_eq!(ids.len(), 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_three_encodings_arrive_the_same() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::with(|config| config.dedup.window = std::time::Duration::ZERO).await;
    let api = &carillon.api;
    api.subscribe(&hooks.url("all"), json!({})).await;
    let (id, kind, tenant, at) = ("same", "a.b", "acme", "2026-03-01T12:30:00.10+00:00");
    // Numbers and escapes that would change if they were read and written again.
    let data = r#"{"z":1.0,"a":12345678901234567890123,"e":1e2,"u":"\u00e9","n":[ ]}"#;
    let json = format!(
        r#"{{"id":"{id}","type":"{kind}","tenant":"{tenant}","timestamp":"{at}","data":{data}}}"#
    );
    let cloud = format!(
        r#"{{"specversion":"1.0","source":"/x","id":"{id}","type":"{kind}","tenant":"{tenant}","time":"{at}","data":{data}}}"#
    );
    let message = proto::Event {
        id: id.to_owned(),
        r#type: kind.to_owned(),
        tenant: tenant.to_owned(),
        timestamp: at.to_owned(),
        data: data.as_bytes().into(),
    };
    let bodies = [
        (json.clone().into_bytes(), None),
        (
            json.clone().into_bytes(),
            Some("application/json; charset=utf-8"),
        ),
        (
            format!(" [ {json} ] ").into_bytes(),
            Some("Application/JSON"),
        ),
        (
            cloud.into_bytes(),
            Some("application/cloudevents+json; charset=utf-8"),
        ),
        (message.encode_to_vec(), Some("application/x-protobuf")),
    ];
    let count = bodies.len();
    for (body, content_type) in bodies {
        let accepted = api.publish_raw(body, content_type).await.expect(202);
        assert_eq!(accepted, json!({ "accepted": 1 }));
    }
    let seen = hooks.arrived("all", count).await;
    let expected = format!(r#"{{"type":"a.b","timestamp":"{at}","data":{data}}}"#);
    for received in &seen {
        assert_eq!(received.body, expected);
        assert_eq!(webhook_id(received), webhook_id(&seen[0]));
    }
}
