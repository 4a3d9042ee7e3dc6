//! Stopping and starting again on the same file: nothing is lost, nothing is sent twice.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::json;

use super::harness::{Dispatcher, event, events, ms, poll_until};
use super::hooks::{Hooks, event_ids, slowly, status, webhook_id};

/// How often each delivery came.
fn times(hooks: &Hooks, name: &str) -> HashMap<String, usize> {
    let mut times = HashMap::new();
    for received in hooks.seen(name) {
        *times.entry(webhook_id(&received).to_owned()).or_default() += 1;
    }
    times
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_the_middle_loses_and_repeats_nothing() {
    const EVENTS: usize = 40;
    let hooks = Hooks::answering(|received, _| match received.path.as_str() {
        "/slow" => slowly(200, ms(150)),
        _ => status(200),
    });
    let hooks = hooks.await;
    let carillon = Dispatcher::with(|config| config.delivery.endpoint_max_in_flight = 4).await;
    carillon.api.subscribe(&hooks.url("slow"), json!({})).await;
    carillon.api.subscribe(&hooks.url("quick"), json!({})).await;
    carillon.api.publish(&events(EVENTS)).await;
    hooks.arrived("slow", 6).await;
    let (setup, ended) = carillon.stop().await;
    assert!(ended, "requests in flight are waited for");
    let before = hooks.seen("slow").len();
    assert!(before < EVENTS, "it was stopped in the middle");
    let carillon = setup.start().await;
    carillon.api.settled().await;
    for name in ["slow", "quick"] {
        let times = times(&hooks, name);
        assert_eq!(times.len(), EVENTS, "{name}");
        assert!(times.values().all(|n| *n == 1), "{name}: {times:?}");
    }
    let attempts = carillon
        .api
        .items_when("/v1/attempts?limit=1000", 2 * EVENTS);
    assert_eq!(
        attempts.await.len(),
        2 * EVENTS,
        "every attempt is on the record"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_longer_than_its_grace() {
    // The first answer comes too late for its timeout, and long after the grace.
    let hooks = Hooks::answering(|_, times| slowly(200, ms(if times == 1 { 9000 } else { 0 })));
    let hooks = hooks.await;
    let carillon = Dispatcher::with(|config| {
        config.shutdown.grace = ms(100);
        config.retry.schedule = Some(vec![ms(1)]);
    });
    let carillon = carillon.await;
    let quick = json!({ "timeout_ms": 3000 });
    carillon.api.subscribe(&hooks.url("all"), quick).await;
    carillon.api.publish(&event("e")).await;
    hooks.arrived("all", 1).await;
    let begun = Instant::now();
    let (setup, ended) = carillon.stop().await;
    assert!(!ended);
    assert!(begun.elapsed() < ms(2900), "{:?}", begun.elapsed());
    let carillon = setup.start().await;
    let seen = hooks.arrived("all", 2).await;
    assert_eq!(
        event_ids(&seen),
        ["e", "e"],
        "what was cut off is sent again"
    );
    carillon.api.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_retries_and_dead_letters_are_there_after_a_restart() {
    let hooks = Hooks::answering(|received, times| match received.path.as_str() {
        "/dead" => status(500),
        _ => status(if times == 1 { 503 } else { 200 }),
    });
    let hooks = hooks.await;
    let carillon = Dispatcher::with(|config| config.retry.schedule = Some(vec![ms(1000)])).await;
    let api = &carillon.api;
    let once = json!({ "retry": { "max_attempts": 1 } });
    api.subscribe(&hooks.url("dead"), once).await;
    let later = api
        .subscribe(&hooks.url("later"), json!({ "description": "d" }))
        .await;
    api.publish(&event("e")).await;
    poll_until("one waits and one is dead", async || {
        let dead = api.items("/v1/dead-letters").await.len();
        (dead == 1 && api.waiting().await == 1.0).then_some(())
    })
    .await;
    let subscriptions = api.items("/v1/subscriptions").await;
    let letters = api.items("/v1/dead-letters").await;
    let carillon = carillon.restart().await;
    let api = &carillon.api;
    assert_eq!(api.items("/v1/subscriptions").await, subscriptions);
    assert_eq!(api.items("/v1/dead-letters").await, letters);
    let seen = hooks.arrived("later", 2).await;
    // The secret is the same as before.
    let webhook = standardwebhooks::Webhook::new(later.whsec()).unwrap();
    webhook.verify(&seen[1].body, &seen[1].headers).unwrap();
    api.publish(&event("e")).await;
    api.settled().await;
    assert_eq!(
        hooks.seen("later").len(),
        2,
        "the event is still a duplicate"
    );
    assert_eq!(hooks.seen("dead").len(), 1);
}
