//! Poison never blocks its neighbour: what one tenant, subscription or client sends that is
//! strange concerns nobody else.

use std::time::{Duration, Instant};

use carillon::codec::proto;
use prost::Message as _;
use serde_json::{Value, json};

use super::harness::{Api, Dispatcher, event, ms, started};
use super::hooks::{Hooks, event_ids, slowly};

/// Creates a subscription of another tenant, publishes an event for it, and then has one
/// delivered to ours.
async fn stranger(api: &Api, hooks: &Hooks, more: Value) -> String {
    let mut document = json!({ "tenant": "strange" });
    document
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let strange = api.subscribe(&hooks.url("strange"), document).await;
    api.subscribe(&hooks.url("ours"), json!({})).await;
    let mut of_stranger = event("theirs");
    of_stranger["tenant"] = json!("strange");
    api.publish(&of_stranger).await;
    api.publish(&event("ours")).await;
    assert_eq!(event_ids(&hooks.arrived("ours", 1).await), ["ours"]);
    strange.path()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_next_to_nothing_slows_nobody_else() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let limit = json!({ "rate_limit": { "per_second": 1e-300, "burst": 1 } });
    stranger(&carillon.api, &hooks, limit).await;
    hooks.arrived("strange", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_leans_on_the_installation_s_can_be_read_again() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::with(|config| config.retry.initial = Duration::from_secs(1)).await;
    let api = &carillon.api;
    let retry = json!({ "retry": { "max_ms": 2000 } });
    let path = stranger(api, &hooks, retry.clone()).await;
    hooks.arrived("strange", 1).await;
    assert_eq!(api.get(&path).await.expect(200)["retry"], retry["retry"]);
    assert_eq!(api.items("/v1/subscriptions").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn header_names_have_no_case() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let headers = json!({ "headers": { "X-Team": "red", "X-Other": "1" } });
    let made = api.subscribe(&hooks.url("all"), headers).await;
    let patch = json!({ "headers": { "X-Team": "blue", "X-OTHER": null } });
    let changed = api.patch(&made.path(), &patch).await.expect(200);
    assert_eq!(changed["headers"], json!({ "x-team": "blue" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_of_an_event_is_replaced() {
    let carillon = Dispatcher::start().await;
    let message = proto::Event {
        id: "e".to_owned(),
        r#type: "a".to_owned(),
        tenant: "acme".to_owned(),
        timestamp: "2026-03-01T12:30:00Z".to_owned(),
        data: b"{\"k\":\"\xff\"}".to_vec().into(),
    };
    let answer = carillon
        .api
        .publish_raw(message.encode_to_vec(), Some("application/x-protobuf"));
    assert_eq!(answer.await.refused(422, "malformed")["field"], "data");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_cannot_be_one_is_not_found() {
    let carillon = Dispatcher::start().await;
    let answer = carillon
        .api
        .post("/v1/quarantine/%FF/requeue", &json!({}))
        .await;
    answer.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_its_grace_nothing_goes_on() {
    let hooks = Hooks::answering(|_, times| slowly(200, ms(if times == 1 { 9000 } else { 0 })));
    let hooks = hooks.await;
    let carillon = Dispatcher::with(|config| config.shutdown.grace = ms(100)).await;
    carillon.api.subscribe(&hooks.url("all"), json!({})).await;
    carillon.api.publish(&event("e")).await;
    hooks.arrived("all", 1).await;
    let begun = Instant::now();
    let (setup, ended) = carillon.stop().await;
    assert!(!ended);
    // Nothing under way holds the file or settles the event any more.
    let config = setup.config.clone();
    assert!(started(&config).await.stop().await);
    let carillon = setup.start().await;
    assert_eq!(event_ids(&hooks.arrived("all", 2).await), ["e", "e"]);
    carillon.api.settled().await;
    assert!(begun.elapsed() < ms(8000), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_go_of_the_file() {
    let mut setup = Dispatcher::start().await.stop().await.0;
    for _ in 0..30 {
        let config = setup.config.clone();
        assert!(started(&config).await.stop().await);
        setup = setup.start().await.stop().await.0;
    }
}
