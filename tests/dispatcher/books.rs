//! The books of deliveries, and the series of single endpoints: what a scrape adds up to.

use serde_json::json;

use super::harness::{Api, Dispatcher, event, events, ms, poll_until};
use super::hooks::{Hooks, status, webhook_id};

/// How much is in an account.
async fn account(api: &Api, name: &str) -> f64 {
    let series = format!("carillon_accounted_deliveries_total{{account=\"{name}\"}}");
    api.metric(&series).await
}

/// What began and has not ended, by the books.
async fn open(api: &Api) -> f64 {
    let ended = account(api, "delivered").await + account(api, "dead_lettered").await;
    account(api, "begun").await - ended - account(api, "quarantined").await
}

/// Waits until the books say that so many began, and of these so many are open, as many as wait.
async fn balanced(api: &Api, begun: f64, still_open: f64) {
    poll_until(&format!("{begun} begun, {still_open} open"), async || {
        let books = (account(api, "begun").await, open(api).await);
        (books == (begun, still_open) && api.waiting().await == still_open).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_began_ends_or_waits_over_restarts_redrives_and_redeliveries() {
    let hooks = Hooks::answering(|received, _| match received.path.as_str() {
        "/late" => status(500),
        _ => status(200),
    });
    let hooks = hooks.await;
    let schedule = |first| {
        move |config: &mut carillon::config::Config| {
            config.retry.schedule = Some(vec![first]);
        }
    };
    let carillon = Dispatcher::with(schedule(ms(3_600_000))).await;
    let api = &carillon.api;
    balanced(api, 0.0, 0.0).await;
    // Three are delivered at once, three wait for an hour.
    for name in ["good", "late"] {
        api.subscribe(&hooks.url(name), json!({})).await;
    }
    api.publish(&events(3)).await;
    hooks.arrived("good", 3).await;
    balanced(api, 6.0, 3.0).await;
    assert_eq!(api.metric("carillon_deliveries_planned_total").await, 6.0);
    // It is the same after a restart, though the process counts from zero.
    let carillon = carillon.restart().await;
    let api = &carillon.api;
    assert_eq!(api.metric("carillon_deliveries_planned_total").await, 0.0);
    balanced(api, 6.0, 3.0).await;
    // What is sent again by a person is one more.
    let first = hooks.seen("good").remove(0);
    let path = format!("/v1/deliveries/{}/redeliver", webhook_id(&first));
    api.items_when(&format!("/v1/attempts?delivery={}", webhook_id(&first)), 1)
        .await;
    api.post(&path, &json!({})).await.expect(202);
    hooks.arrived("good", 4).await;
    balanced(api, 7.0, 3.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_ends_and_a_redrive_begins_again() {
    let hooks = Hooks::answering(|_, times| status(if times <= 2 { 500 } else { 200 })).await;
    let carillon = Dispatcher::with(|config| config.retry.schedule = Some(vec![ms(1)])).await;
    let api = &carillon.api;
    api.subscribe(&hooks.url("all"), json!({})).await;
    api.publish(&events(2)).await;
    poll_until("both are given up", async || {
        (account(api, "dead_lettered").await == 2.0).then_some(())
    })
    .await;
    balanced(api, 2.0, 0.0).await;
    let all = json!({ "reason": "exhausted" });
    api.post("/v1/dead-letters/redrive", &all).await.expect(200);
    hooks.arrived("all", 6).await;
    balanced(api, 4.0, 0.0).await;
    assert_eq!(account(api, "delivered").await, 2.0);
    assert_eq!(account(api, "dead_lettered").await, 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_worst_endpoints_have_series_of_their_own() {
    let hooks = Hooks::answering(|received, _| match received.path.as_str() {
        "/broken" => status(500),
        _ => status(200),
    });
    let hooks = hooks.await;
    let carillon = Dispatcher::with(|config| {
        config.telemetry.endpoint_series = 1;
        config.retry.schedule = Some(vec![ms(3_600_000)]);
    })
    .await;
    let api = &carillon.api;
    let good = api.subscribe(&hooks.url("good"), json!({})).await;
    api.publish(&event("one")).await;
    let attempts = |id: &str, result: &str| {
        format!("carillon_endpoint_attempts_total{{result=\"{result}\",subscription=\"{id}\"}}")
    };
    let counted = async |id: &str, result: &str, count: f64| {
        let series = attempts(id, result);
        poll_until(&format!("{series} is {count}"), async || {
            (api.metric(&series).await == count).then_some(())
        })
        .await;
    };
    counted(&good.id, "delivered", 1.0).await;
    let broken = api.subscribe(&hooks.url("broken"), json!({})).await;
    api.publish(&event("two")).await;
    counted(&broken.id, "failed", 1.0).await;
    counted(&broken.id, "delivered", 0.0).await;
    let (_, text) = api.ops("/metrics").await;
    let of_one = |name: &str| {
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    // The other one is evicted: no series tells of it.
    assert!(!text.contains(&good.id), "{text}");
    let state = format!(
        "carillon_endpoint_state{{state=\"healthy\",subscription=\"{}\"}} 1",
        broken.id
    );
    assert_eq!(of_one("carillon_endpoint_state{"), [state]);
    assert_eq!(of_one("carillon_endpoint_held{").len(), 1);
    assert_eq!(of_one("carillon_endpoint_window{").len(), 1);
    assert_eq!(of_one("carillon_endpoint_attempt_seconds_total{").len(), 1);
}
