//! Quarantine: what is not an event is put aside whole, and holds up nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use carillon::domain::timestamp::UnixMillis;
use carillon::ports::{EventMessage, Parcel};
use serde_json::{Value, json};

use super::harness::{Api, Dispatcher, Setup, event, ms, poll_until, typed_event};
use super::hooks::{Hooks, event_ids};
use super::rules::{Broken, EVENT_BYTES_MAX, broken_bodies, broken_events};

/// Puts messages into the store of a dispatcher that does not run, as a publisher would that
/// nobody checks.
async fn put(setup: &Setup, messages: Vec<EventMessage>) {
    let parcels = messages.into_iter().map(Parcel::Event).collect();
    setup.put(parcels).await;
}

fn message(body: impl Into<Bytes>, content_type: Option<&str>) -> EventMessage {
    EventMessage {
        body: body.into(),
        content_type: content_type.map(ToOwned::to_owned),
        ..EventMessage::default()
    }
}

pub fn original(item: &Value) -> Vec<u8> {
    BASE64
        .decode(item["body_base64"].as_str().unwrap())
        .unwrap()
}

/// A dispatcher that has run once, so that it has a subscription.
pub async fn subscribed(url: &str) -> Setup {
    let carillon = Dispatcher::with(|config| {
        config.intake.max_event_bytes = EVENT_BYTES_MAX;
        config.retry.schedule = Some(vec![ms(1)]);
    });
    let carillon = carillon.await;
    carillon.api.subscribe(url, json!({})).await;
    carillon.stop().await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_events_are_put_aside_between_good_ones() {
    let hooks = Hooks::start().await;
    let setup = subscribed(&hooks.url("all")).await;
    let bad: Vec<Broken> = broken_events().into_iter().chain(broken_bodies()).collect();
    let mut messages = Vec::new();
    for (n, broken) in bad.iter().enumerate() {
        messages.push(message(event(&format!("good{n}")).to_string(), None));
        messages.push(message(broken.body.clone(), broken.content_type));
    }
    messages.push(message(event("last").to_string(), None));
    put(&setup, messages).await;
    let carillon = setup.start().await;
    let api = &carillon.api;
    api.settled().await;
    let mut ids = event_ids(&hooks.seen("all"));
    ids.dedup();
    assert_eq!(ids.len(), bad.len() + 1);

    let items = api.items("/v1/quarantine?limit=1000").await;
    assert_eq!(items.len(), bad.len());
    for (item, broken) in items.iter().zip(&bad) {
        assert_eq!(original(item), broken.body, "{item}");
        assert_eq!(
            item["body"].as_str(),
            std::str::from_utf8(&broken.body).ok()
        );
        assert_eq!(item["content_type"].as_str(), broken.content_type, "{item}");
        assert_eq!(item["reason"], broken.code, "{item}");
        assert_eq!(item["field"].as_str(), broken.field, "{item}");
        assert!(item["error"].as_str().unwrap().len() > 10, "{item}");
        let at = item["quarantined_at"].as_str().unwrap();
        assert!(UnixMillis::parse_rfc3339(at).is_some(), "{item}");
    }
    let counted = api.metric("carillon_events_total{result=\"quarantined\"}");
    assert_eq!(counted.await, bad.len() as f64);
}

/// Waits until the only message in quarantine is another than `id`.
async fn put_aside_again(api: &Api, id: &str) -> Value {
    poll_until("put aside again", async || {
        let items = api.items("/v1/quarantine").await;
        let other = items.into_iter().next();
        other.filter(|item| item["id"] != id)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requeued_message_is_judged_again() {
    let hooks = Hooks::start().await;
    let setup = subscribed(&hooks.url("all")).await;
    let data = json!({ "n": "large", "x": "y".repeat(EVENT_BYTES_MAX) });
    let large = typed_event("large", "demo.happened", &data).to_string();
    put(&setup, vec![message(large.clone(), None)]).await;
    let carillon = setup.start().await;
    let api = &carillon.api;
    let first = api.items_when("/v1/quarantine", 1).await.remove(0);
    assert_eq!(first["reason"], "too_large");
    let requeue = |item: &Value| {
        let id = item["id"].as_str().unwrap();
        format!("/v1/quarantine/{id}/requeue")
    };
    let requeued = api.post(&requeue(&first), &json!({})).await.expect(202);
    assert_eq!(requeued, json!({ "requeued": 1 }));
    let again = put_aside_again(api, first["id"].as_str().unwrap()).await;
    assert_eq!(original(&again), large.as_bytes());
    assert_eq!(again["reason"], "too_large");
    for gone in [requeue(&first), "/v1/quarantine/none/requeue".to_owned()] {
        api.post(&gone, &json!({})).await.refused(404, "not_found");
    }

    // Once the rule allows it, it is an event like any other.
    let (mut setup, _) = carillon.stop().await;
    setup.config.intake.max_event_bytes = 1024 * 1024;
    let carillon = setup.start().await;
    let api = &carillon.api;
    api.post(&requeue(&again), &json!({})).await.expect(202);
    assert_eq!(event_ids(&hooks.arrived("all", 1).await), ["large"]);
    assert_eq!(api.items("/v1/quarantine").await, [] as [Value; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn those_put_aside_for_one_reason_are_requeued_together() {
    let hooks = Hooks::start().await;
    let setup = subscribed(&hooks.url("all")).await;
    let large = |n: usize| {
        let data = json!({ "n": format!("large{n}"), "x": "y".repeat(EVENT_BYTES_MAX) });
        typed_event(&format!("large{n}"), "demo.happened", &data).to_string()
    };
    let mut messages = vec![message("{", None)];
    messages.extend((0..3).map(|n| message(large(n), None)));
    put(&setup, messages).await;
    let carillon = setup.start().await;
    let api = &carillon.api;
    api.items_when("/v1/quarantine", 4).await;
    let path = "/v1/quarantine/requeue";
    for (document, field) in [
        (json!({ "reason": "tired" }), "reason"),
        (json!({ "until": "noon" }), "until"),
        (json!({ "limit": 0 }), "limit"),
        (json!({ "reasons": [] }), "reasons"),
    ] {
        let answer = api.post(path, &document).await;
        assert_eq!(answer.refused(422, "invalid_field")["field"], field);
    }
    let requeue = async |api: &Api, document: Value| {
        let answer = api.post(path, &document).await.expect(202);
        answer["requeued"].as_u64().unwrap()
    };
    let old = json!({ "until": "2026-01-01T00:00:00Z" });
    assert_eq!(requeue(api, old).await, 0);
    assert_eq!(requeue(api, json!({ "reason": "unroutable" })).await, 0);
    // What is not understood this time either comes back, and is not taken a second time.
    assert_eq!(requeue(api, json!({ "reason": "too_large" })).await, 3);
    let again = api.items_when("/v1/quarantine", 4).await;
    assert_eq!(again.len(), 4);

    let (mut setup, _) = carillon.stop().await;
    setup.config.intake.max_event_bytes = 1024 * 1024;
    let carillon = setup.start().await;
    let api = &carillon.api;
    let two = json!({ "reason": "too_large", "limit": 2 });
    assert_eq!(requeue(api, two).await, 2);
    hooks.arrived("all", 2).await;
    assert_eq!(requeue(api, json!({ "reason": "too_large" })).await, 1);
    let mut ids = event_ids(&hooks.arrived("all", 3).await);
    ids.sort();
    assert_eq!(ids, ["large0", "large1", "large2"]);
    let left = api.items("/v1/quarantine").await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["reason"], "malformed");
}
