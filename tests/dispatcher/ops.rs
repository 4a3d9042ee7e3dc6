//! The operations listener: health, and metrics that name nobody.

use serde_json::{Value, json};

use super::harness::{Dispatcher, event, ms, poll_until};
use super::hooks::{Hooks, slowly, status};

/// The metrics of contract section 9 that the embedded backend has.
const METRICS: &[&str] = &[
    "carillon_events_total",
    "carillon_deliveries_total",
    "carillon_attempts_total",
    "carillon_attempt_duration_seconds",
    "carillon_delivery_latency_seconds",
    "carillon_event_age_seconds",
    "carillon_retries_total",
    "carillon_deferrals_total",
    "carillon_in_flight",
    "carillon_endpoints",
    "carillon_subscriptions_cached",
    "carillon_cache_requests_total",
    "carillon_queue_messages",
    "carillon_oldest_unsettled_seconds",
    "carillon_audit_dropped_total",
    "carillon_egress_blocked_total",
    "carillon_build_info",
    "process_resident_memory_bytes",
];

/// Three endpoints, of which one fails and one pauses, an address that is refused, and
/// three events. Returns the subscriptions' ids as well.
async fn eventful() -> (Hooks, Dispatcher, Vec<String>) {
    let hooks = Hooks::answering(|received, times| match received.path.as_str() {
        "/pause" if times == 1 => super::hooks::with_header(status(503), "retry-after", "3"),
        "/broken" => status(500),
        _ => status(200),
    });
    let hooks = hooks.await;
    let carillon = Dispatcher::with(|config| config.retry.schedule = Some(vec![ms(1)])).await;
    let api = &carillon.api;
    let tenant = json!({ "tenant": "tenant-to-be-hidden" });
    let mut ids = Vec::new();
    for name in ["good", "broken", "pause"] {
        ids.push(api.subscribe(&hooks.url(name), tenant.clone()).await.id);
    }
    ids.push(api.subscribe("http://10.1.2.3/", tenant).await.id);
    for id in ["first-to-be-hidden", "second-to-be-hidden"] {
        let mut event = event(id);
        event["tenant"] = json!("tenant-to-be-hidden");
        api.publish(&event).await;
        // The second one meets the pause.
        let paused = format!("/v1/attempts?outcome=failed&subscription={}", ids[2]);
        api.items_when(&paused, 1).await;
    }
    api.publish(&event("of-nobody")).await;
    api.settled().await;
    (hooks, carillon, ids)
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_what_happened_and_to_nobody_by_name() {
    let (hooks, carillon, ids) = eventful().await;
    let api = &carillon.api;
    let (code, text) = api.ops("/metrics").await;
    assert_eq!(code, 200);
    for name in METRICS {
        let line = format!("# TYPE {name} ");
        assert!(text.lines().any(|l| l.starts_with(&line)), "{name}\n{text}");
    }
    let port = hooks.url("").rsplit_once(':').unwrap().1.to_owned();
    let secret = [
        "to-be-hidden",
        "127.0.0.1",
        "10.1.2.3",
        "http:",
        "msg_",
        port.as_str(),
    ];
    // Single endpoints have series, bounded in number, by their ids alone.
    let of_endpoints = |line: &str| line.starts_with("carillon_endpoint_");
    for line in text.lines().filter(|line| of_endpoints(line)) {
        let (labels, _) = line.rsplit_once(' ').unwrap();
        assert!(
            !secret.iter().any(|hidden| labels.contains(hidden)),
            "{line}"
        );
    }
    let told = text.lines().filter(|line| line.starts_with("carillon_"));
    for line in told.filter(|line| !of_endpoints(line)) {
        for hidden in secret.iter().copied().chain(ids.iter().map(String::as_str)) {
            let (labels, _) = line.rsplit_once(' ').unwrap();
            assert!(!labels.contains(hidden), "{line}");
        }
    }
    for (series, value) in [
        ("carillon_events_total{result=\"accepted\"}", 2.0),
        ("carillon_events_total{result=\"unmatched\"}", 1.0),
        (
            "carillon_deliveries_total{reason=\"none\",result=\"delivered\"}",
            4.0,
        ),
        (
            "carillon_deliveries_total{reason=\"exhausted\",result=\"dead_lettered\"}",
            4.0,
        ),
        ("carillon_attempts_total{outcome=\"server_error\"}", 4.0),
        ("carillon_retries_total{reason=\"server_error\"}", 2.0),
        ("carillon_queue_messages{queue=\"dead-letters\"}", 4.0),
        ("carillon_subscriptions_cached", 4.0),
        ("carillon_audit_dropped_total", 0.0),
    ] {
        // Counted just after what is counted is durable.
        poll_until(&format!("{series} is {value}"), async || {
            (api.metric(series).await == value).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_live_and_ready_until_it_drains() {
    let hooks = Hooks::answering(|_, _| slowly(200, ms(1500))).await;
    let carillon = Dispatcher::start().await;
    let api = carillon.api.clone();
    assert_eq!(api.ops("/livez").await.0, 200);
    let (code, text) = api.ops("/readyz").await;
    assert_eq!(code, 200, "{text}");
    api.subscribe(&hooks.url("slow"), json!({})).await;
    api.publish(&event("e")).await;
    hooks.arrived("slow", 1).await;
    let stopping = tokio::spawn(carillon.stop());
    let reason = poll_until("not ready while it drains", async || {
        let (code, text) = api.ops("/readyz").await;
        (code == 503).then_some(text)
    });
    let reason: Value = serde_json::from_str(&reason.await).unwrap();
    assert_eq!(reason["reason"], "draining");
    assert_eq!(api.ops("/livez").await.0, 200);
    let (_, ended) = stopping.await.unwrap();
    assert!(ended);
    assert_eq!(hooks.seen("slow").len(), 1);
}
