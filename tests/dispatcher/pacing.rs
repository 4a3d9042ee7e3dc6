//! When things are sent: retries, pauses and rates, measured at the receiver.

use std::time::Duration;

use carillon::cli::receiver::Received;
use carillon::domain::timestamp::UnixMillis;
use serde_json::{Value, json};

use super::harness::{Dispatcher, event, events, ms};
use super::hooks::{Hooks, event_ids, status, webhook_id, with_header};

/// What a busy machine may add between sending and arriving.
const SCHEDULING_EXCUSE_S: f64 = 0.4;

fn time(value: &Value) -> UnixMillis {
    UnixMillis::parse_rfc3339(value.as_str().unwrap()).unwrap()
}

/// No attempt came before the schedule says, nor before its record says.
fn assert_never_early(arrived: &[Received], attempts: &[Value], schedule: &[Duration]) {
    assert_eq!(arrived.len(), schedule.len() + 1, "attempts in all");
    assert_eq!(attempts.len(), arrived.len());
    for (n, delay) in schedule.iter().enumerate() {
        let gap = arrived[n + 1].at.since(arrived[n].at);
        assert!(
            gap >= *delay,
            "attempt {}: {gap:?} after the one before",
            n + 2
        );
        let next_at = time(&attempts[n]["next_at"]);
        let (began, came) = (time(&attempts[n + 1]["at"]), arrived[n + 1].at);
        assert!(
            next_at <= began,
            "attempt {}: due {next_at}, began {began}",
            n + 2
        );
        assert!(
            began <= came,
            "attempt {}: began {began}, came {came}",
            n + 2
        );
        assert!(time(&attempts[n]["at"]).after(*delay) <= next_at);
    }
    for (n, attempt) in attempts.iter().enumerate() {
        assert_eq!(attempt["attempt"], n + 1);
        let last = n == schedule.len();
        let next = if last { "dead_letter" } else { "retry" };
        assert_eq!(attempt["next_action"], next);
        assert_eq!(attempt["outcome"], "failed");
    }
}

/// The attempts of one delivery, oldest first, once there are `count`.
async fn attempts_of(carillon: &Dispatcher, id: &str, count: usize) -> Vec<Value> {
    let path = format!("/v1/attempts?delivery={id}");
    let mut attempts = carillon.api.items_when(&path, count).await;
    attempts.reverse();
    attempts
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_follow_the_schedule_and_end_with_it() {
    let hooks = Hooks::answering(|_, _| status(500)).await;
    let schedule = vec![ms(60), ms(250), ms(20), ms(120)];
    let carillon = Dispatcher::with(|config| config.retry.schedule = Some(schedule.clone()));
    let carillon = carillon.await;
    let api = &carillon.api;
    api.subscribe(&hooks.url("all"), json!({})).await;
    api.publish(&events(5)).await;
    api.settled().await;
    let all = hooks.seen("all");
    assert_eq!(all.len(), 5 * 5);
    for received in &all[..5] {
        let id = webhook_id(received);
        let same = |other: &&Received| webhook_id(other) == id;
        let arrived: Vec<_> = all.iter().filter(same).cloned().collect();
        let attempts = attempts_of(&carillon, id, 5).await;
        assert_never_early(&arrived, &attempts, &schedule);
    }
    let letters = api.items("/v1/dead-letters?reason=exhausted").await;
    assert_eq!(letters.len(), 5);
    assert!(letters.iter().all(|letter| letter["attempts"] == 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_may_have_a_schedule_of_its_own() {
    let hooks = Hooks::answering(|_, _| status(500)).await;
    let carillon = Dispatcher::with(|config| config.retry.schedule = Some(vec![ms(1)])).await;
    let api = &carillon.api;
    let retry = json!({ "max_attempts": 4, "initial_ms": 30, "multiplier": 3, "max_ms": 200 });
    api.subscribe(&hooks.url("own"), json!({ "retry": retry }))
        .await;
    api.subscribe(
        &hooks.url("once"),
        json!({ "retry": { "max_attempts": 1 } }),
    )
    .await;
    api.publish(&event("e")).await;
    api.settled().await;
    assert_eq!(hooks.seen("once").len(), 1);
    let own = hooks.seen("own");
    let attempts = attempts_of(&carillon, webhook_id(&own[0]), 4).await;
    assert_never_early(&own, &attempts, &[ms(30), ms(90), ms(200)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schedule_goes_on_over_a_restart() {
    let hooks = Hooks::answering(|_, _| status(500)).await;
    let schedule = vec![ms(100), ms(1500), ms(50)];
    let carillon = Dispatcher::with(|config| config.retry.schedule = Some(schedule.clone()));
    let carillon = carillon.await;
    carillon.api.subscribe(&hooks.url("all"), json!({})).await;
    carillon.api.publish(&event("e")).await;
    hooks.arrived("all", 2).await;
    let carillon = carillon.restart().await;
    carillon.api.settled().await;
    let seen = hooks.seen("all");
    let attempts = attempts_of(&carillon, webhook_id(&seen[0]), 4).await;
    assert_never_early(&seen, &attempts, &schedule);
    assert_eq!(carillon.api.items("/v1/dead-letters").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_pauses_the_whole_endpoint() {
    for code in [503, 429] {
        let hooks = Hooks::answering(move |received, times| match received.path.as_str() {
            "/paused" if times == 1 && is_first(received) => {
                with_header(status(code), "retry-after", "2")
            }
            _ => status(200),
        });
        let hooks = hooks.await;
        let carillon = Dispatcher::with(|config| config.retry.schedule = Some(vec![ms(10)]));
        let carillon = carillon.await;
        let api = &carillon.api;
        api.subscribe(&hooks.url("paused"), json!({})).await;
        api.subscribe(&hooks.url("other"), json!({})).await;
        api.publish(&event("first")).await;
        let path = "/v1/attempts?outcome=failed";
        let attempts = api.items_when(path, 1).await;
        let began = hooks.arrived("paused", 1).await[0].at;
        api.publish(&json!([event("second"), event("third")])).await;
        let other = hooks.arrived("other", 3).await;
        let seen = hooks.arrived("paused", 4).await;
        for received in &seen[1..] {
            let gap = received.at.since(began);
            assert!(gap >= ms(2000), "{gap:?} after `retry-after: 2`");
        }
        assert!(
            other
                .iter()
                .all(|received| received.at.since(began) < ms(2000))
        );
        let next_at = time(&attempts[0]["next_at"]);
        assert!(next_at >= began.after(ms(2000)), "{attempts:?}");
        assert_eq!(event_ids(&seen[1..]), ["first", "second", "third"]);
        assert!(
            api.metric("carillon_deferrals_total{reason=\"paused\"}")
                .await
                >= 2.0
        );
    }
}

fn is_first(received: &Received) -> bool {
    super::hooks::json_body(received)["data"]["n"] == "first"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_never_exceeded_and_waiting_uses_no_attempt() {
    const RATE: u32 = 20;
    const BURST: u32 = 5;
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let limit = json!({ "per_second": RATE, "burst": BURST });
    api.subscribe(&hooks.url("slow"), json!({ "rate_limit": limit }))
        .await;
    api.subscribe(&hooks.url("free"), json!({})).await;
    api.publish(&events(60)).await;
    hooks.arrived("free", 60).await;
    assert!(
        hooks.seen("slow").len() < 60,
        "the limit holds nobody else up"
    );
    api.settled().await;
    let attempts = api.items_when("/v1/attempts?limit=1000", 120).await;
    assert_eq!(attempts.len(), 120);
    assert!(attempts.iter().all(|attempt| attempt["attempt"] == 1));

    let mut ids = event_ids(&hooks.seen("slow"));
    ids.dedup();
    assert_eq!(ids.len(), 60);
    let mut arrivals: Vec<UnixMillis> = hooks.seen("slow").iter().map(|r| r.at).collect();
    arrivals.sort_unstable();
    assert_within(&arrivals, RATE, BURST);
    let all = arrivals[59].since(arrivals[0]).as_secs_f64();
    assert!(
        all >= 2.5,
        "60 at 20 a second after a burst of 5 take 2.75 s: {all} s"
    );
}

/// In no window there are more than the burst and what the rate allows in it, and one.
pub fn assert_within(arrivals: &[UnixMillis], rate: u32, burst: u32) {
    for (i, from) in arrivals.iter().enumerate() {
        for (j, to) in arrivals.iter().enumerate().skip(i) {
            let t = to.since(*from).as_secs_f64() + SCHEDULING_EXCUSE_S;
            let count = (j - i + 1) as f64;
            assert!(
                count <= f64::from(burst) + f64::from(rate) * t + 1.0,
                "{count} within {t} s"
            );
        }
    }
}
