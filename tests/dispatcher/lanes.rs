//! What an endpoint that fails, is slow or says that it has enough, is sent and is not, and
//! what becomes of one that fails for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use carillon::cli::receiver::Received;
use carillon::domain::timestamp::UnixMillis;
use serde_json::{Value, json};

use super::harness::{Api, Dispatcher, Subscribed, event, events, ms, poll_until, typed_event};
use super::hooks::{Hooks, event_ids, slowly, status};
use super::pacing::time;

/// Receivers that fail until they are told not to.
async fn failing_until(healthy: &Arc<AtomicBool>) -> Hooks {
    let healthy = Arc::clone(healthy);
    Hooks::answering(move |received, _| {
        let fails = received.path == "/failing" && !healthy.load(Ordering::Relaxed);
        status(if fails { 500 } else { 200 })
    })
    .await
}

/// Retries every 200 ms, for long.
async fn impatient(disable_after: Duration) -> Dispatcher {
    Dispatcher::with(|config| {
        config.retry.schedule = Some(vec![ms(200); 90]);
        config.delivery.disable_after = disable_after;
    })
    .await
}

async fn disabled(api: &Api, subscription: &Subscribed) -> Value {
    poll_until("the subscription to be disabled", async || {
        let found = api.get(&subscription.path()).await.expect(200);
        (found["enabled"] == false).then_some(found)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_only_fails_gets_a_probe_now_and_then() {
    let healthy = Arc::new(AtomicBool::new(false));
    let hooks = failing_until(&healthy).await;
    let carillon = Dispatcher::with(|config| {
        config.retry.schedule = Some(vec![ms(500); 90]);
    });
    let carillon = carillon.await;
    let api = &carillon.api;
    api.subscribe(&hooks.url("failing"), json!({})).await;
    api.subscribe(&hooks.url("well"), json!({})).await;
    api.publish(&events(40)).await;
    hooks.arrived("well", 40).await;
    poll_until("the circuit to open", async || {
        let open = api.metric("carillon_endpoints{state=\"open\"}").await;
        (open == 1.0).then_some(())
    })
    .await;
    let before = hooks.seen("failing").len();
    hooks.arrived("failing", before + 5).await;
    // One each half second; without a circuit, forty of each half second. Those that were under
    // way when it opened came before.
    let failed = api.items_when("/v1/attempts?outcome=failed&limit=1000", before + 5);
    let mut probes: Vec<UnixMillis> = failed.await.iter().map(|one| time(&one["at"])).collect();
    probes.sort_unstable();
    for pair in probes[before + 1..].windows(2) {
        let gap = pair[1].since(pair[0]);
        // Times are kept in whole milliseconds.
        assert!(gap >= ms(499), "{gap:?}");
    }
    let deferred = "carillon_deferrals_total{reason=\"circuit_open\"}";
    assert!(api.metric(deferred).await > 0.0);

    healthy.store(true, Ordering::Relaxed);
    api.settled().await;
    let attempts = api.items("/v1/attempts?outcome=delivered&limit=1000").await;
    assert_eq!(attempts.len(), 80);
    // Being turned away is no attempt.
    let failed = hooks.seen("failing").len() - 40;
    let used: u64 = attempts
        .iter()
        .map(|one| one["attempt"].as_u64().unwrap() - 1)
        .sum();
    assert_eq!(used, failed as u64);
    let open = api.metric("carillon_endpoints{state=\"open\"}").await;
    assert_eq!(open, 0.0);
}

/// The most requests that were under way at once when each stays for `stays`.
fn most_at_once(arrived: &[Received], stays: Duration) -> usize {
    let mut times: Vec<UnixMillis> = arrived.iter().map(|received| received.at).collect();
    times.sort_unstable();
    let beside = |at: &UnixMillis| {
        times
            .iter()
            .filter(|other| at.after(stays) > **other && **other >= *at)
            .count()
    };
    times.iter().map(beside).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_once_grow_with_successes_and_shrink_with_overload() {
    let busy = Arc::new(AtomicBool::new(false));
    let is_busy = Arc::clone(&busy);
    let answers_after = ms(30);
    // A little less: whoever is answered may be followed at once.
    let stays = ms(20);
    let hooks = Hooks::answering(move |received, _| {
        if received.path != "/adaptive" {
            return status(200);
        }
        let turns_away = is_busy.load(Ordering::Relaxed);
        slowly(if turns_away { 429 } else { 200 }, answers_after)
    });
    let hooks = hooks.await;
    let carillon = Dispatcher::with(|config| {
        config.retry.schedule = Some(vec![ms(100); 90]);
        config.delivery.endpoint_max_in_flight = 12;
    });
    let carillon = carillon.await;
    let api = &carillon.api;
    api.subscribe(&hooks.url("adaptive"), json!({})).await;
    api.publish(&events(4)).await;
    let first = hooks.arrived("adaptive", 4).await;
    assert!(most_at_once(&first, stays) <= 4, "it begins with four");
    let more: Vec<Value> = (0..300).map(|n| event(&format!("more{n}"))).collect();
    api.publish(&json!(more)).await;
    let all = hooks.arrived("adaptive", 304).await;
    let grown = most_at_once(&all[4..], stays);
    assert!((6..=12).contains(&grown), "{grown} at once");
    api.settled().await;

    busy.store(true, Ordering::Relaxed);
    let late: Vec<Value> = (0..30).map(|n| event(&format!("late{n}"))).collect();
    api.publish(&json!(late)).await;
    let all = hooks.arrived("adaptive", 304 + 26).await;
    let shrunk = most_at_once(&all[304 + 20..304 + 26], stays);
    assert!(shrunk <= 3, "{shrunk} at once, of {grown}");
    busy.store(false, Ordering::Relaxed);
    api.settled().await;
    let mut arrived = event_ids(&hooks.seen("adaptive"));
    arrived.dedup();
    assert_eq!(arrived.len(), 334);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fails_for_long_is_disabled_and_begins_afresh_when_enabled() {
    let healthy = Arc::new(AtomicBool::new(false));
    let hooks = failing_until(&healthy).await;
    let carillon = impatient(ms(1500)).await;
    let api = &carillon.api;
    let failing = api.subscribe(&hooks.url("failing"), json!({})).await;
    api.publish(&events(8)).await;
    let found = disabled(api, &failing).await;
    assert_eq!(found["disabled_reason"], "failing");
    assert!(failed_for(api, &found).await >= ms(1500));
    // What waits is given up, and kept.
    let letters = api.items_when("/v1/dead-letters", 8).await;
    let reasons = letters.iter().map(|letter| &letter["reason"]);
    assert!(
        reasons
            .clone()
            .all(|reason| reason == "subscription_disabled"),
        "{letters:?}"
    );
    api.publish(&event("unwanted")).await;

    let enabled = json!({ "enabled": true });
    api.patch(&failing.path(), &enabled).await.expect(200);
    api.publish(&event("again")).await;
    let before = hooks.seen("failing").len();
    hooks.arrived("failing", before + 2).await;
    let found = api.get(&failing.path()).await.expect(200);
    assert_eq!(found["enabled"], true, "the time begins anew");
    healthy.store(true, Ordering::Relaxed);
    let redriven = api
        .post("/v1/dead-letters/redrive", &json!({}))
        .await
        .expect(200);
    assert_eq!(redriven["redriven"], 8);
    api.settled().await;
    let delivered = api.items("/v1/attempts?outcome=delivered").await;
    assert_eq!(delivered.len(), 9);
    assert_eq!(api.get(&failing.path()).await.expect(200)["enabled"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_now_and_then_keeps_it_enabled() {
    let count = Arc::new(AtomicUsize::new(0));
    let hooks = Hooks::answering(move |_, _| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        status(if n % 4 == 3 { 200 } else { 500 })
    });
    let hooks = hooks.await;
    let carillon = impatient(ms(1500)).await;
    let api = &carillon.api;
    let made = api.subscribe(&hooks.url("moody"), json!({})).await;
    let begun = Instant::now();
    for n in 0..12 {
        api.publish(&event(&format!("e{n}"))).await;
        // Three failures, 200 ms apart, and a success.
        hooks.arrived("moody", 4 * (n + 1)).await;
    }
    api.settled().await;
    assert!(begun.elapsed() > ms(3000));
    assert_eq!(api.get(&made.path()).await.expect(200)["enabled"], true);
    assert_eq!(event_ids(&hooks.seen("moody")).len(), 48);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_does_not_forget_since_when_it_fails() {
    let hooks = failing_until(&Arc::default()).await;
    let carillon = impatient(Duration::from_secs(4)).await;
    let failing = carillon
        .api
        .subscribe(&hooks.url("failing"), json!({}))
        .await;
    carillon.api.publish(&event("e")).await;
    // The eighth comes seven times 200 ms after the first.
    hooks.arrived("failing", 8).await;
    let carillon = carillon.restart().await;
    let restarted = Instant::now();
    let found = disabled(&carillon.api, &failing).await;
    // Counted from the restart it would take the whole time.
    assert!(restarted.elapsed() < ms(3500), "{:?}", restarted.elapsed());
    let failed_for = failed_for(&carillon.api, &found).await;
    assert!(failed_for >= Duration::from_secs(4), "{failed_for:?}");
}

/// How long after its first attempt a subscription was disabled.
async fn failed_for(api: &Api, disabled: &Value) -> Duration {
    let attempts = api.items("/v1/attempts?limit=1000").await;
    let first = time(&attempts.last().unwrap()["at"]);
    time(&disabled["updated_at"]).since(first)
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_never_answer_leave_room_for_the_others() {
    const SILENT: usize = 8;
    let never = Duration::from_secs(60);
    let hooks = Hooks::answering(move |received, _| match received.path.as_str() {
        "/well" => status(200),
        _ => slowly(200, never),
    });
    let hooks = hooks.await;
    let carillon = Dispatcher::with(|config| {
        config.intake.prefetch = 40;
        config.shutdown.grace = ms(0);
    });
    let carillon = carillon.await;
    let api = &carillon.api;
    let of_kind = |n: usize, count: usize| -> Vec<Value> {
        let event = |i| {
            typed_event(
                &format!("{n}-{i}"),
                &format!("of.k{n}"),
                &json!({ "n": "x" }),
            )
        };
        (0..count).map(event).collect()
    };
    for n in 0..SILENT {
        let wants = json!({ "event_types": [format!("of.k{n}")] });
        api.subscribe(&hooks.url(&format!("silent{n}")), wants)
            .await;
    }
    let wants = json!({ "event_types": ["of.k99"] });
    api.subscribe(&hooks.url("well"), wants).await;
    let begun = Instant::now();
    // Three hundred for those that will not answer, in front of a hundred.
    for n in 0..SILENT {
        api.publish(&json!(of_kind(n, 38))).await;
    }
    api.publish(&json!(of_kind(99, 100))).await;
    hooks.arrived("well", 100).await;
    let took = begun.elapsed();
    // The first attempts of the others end after ten seconds, four at a time.
    assert!(took < Duration::from_secs(9), "{took:?}");
    let failed = api.items("/v1/attempts?outcome=failed").await;
    assert!(failed.is_empty(), "nobody has given up yet");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_one_tenant_is_set_aside_for_another() {
    let hooks = Hooks::answering(|received, _| match received.path.as_str() {
        "/storm" => slowly(200, ms(50)),
        _ => status(200),
    });
    let hooks = hooks.await;
    let carillon = Dispatcher::with(|config| {
        config.intake.prefetch = 20;
        config.delivery.endpoint_max_in_flight = 4;
        config.delivery.rate_limit = None;
    });
    let carillon = carillon.await;
    let api = &carillon.api;
    let of = |tenant: &str, id: &str| {
        let mut event = event(id);
        event["tenant"] = json!(tenant);
        event
    };
    for tenant in ["storm", "quiet"] {
        api.subscribe(&hooks.url(tenant), json!({ "tenant": tenant }))
            .await;
    }
    api.publish(&of("quiet", "before")).await;
    hooks.arrived("quiet", 1).await;
    let storm: Vec<Value> = (0..600).map(|n| of("storm", &format!("s{n}"))).collect();
    api.publish(&json!(storm)).await;
    api.publish(&of("quiet", "behind")).await;
    hooks.arrived("quiet", 2).await;
    // At eighty a second all of it takes more than seven seconds.
    let of_storm = hooks.seen("storm").len();
    assert!(of_storm < 400, "{of_storm} of the storm came first");
    let aside = "carillon_deferrals_total{reason=\"tenant_share\"}";
    assert!(api.metric(aside).await > 0.0);
    let all = hooks.arrived("storm", 600).await;
    let mut ids = event_ids(&all);
    ids.dedup();
    assert_eq!(ids.len(), 600, "each once");
    let failed = api.items("/v1/attempts?outcome=failed").await;
    assert!(failed.is_empty());
}
