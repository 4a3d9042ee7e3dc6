//! What was sent, sent again because a person asks for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use carillon::cli::receiver::Received;
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use super::harness::{Answer, Api, Dispatcher, event, ms, poll_until, typed_event};
use super::hooks::{Hooks, status, webhook_id};

async fn redeliver(api: &Api, delivery: &str) -> Answer {
    let path = format!("/v1/deliveries/{delivery}/redeliver");
    api.post(&path, &json!({})).await
}

/// The delivery that `received` was an attempt of, once that is in the audit log.
async fn recorded(api: &Api, received: &Received) -> String {
    let delivery = webhook_id(received).to_owned();
    let path = format!("/v1/attempts?delivery={delivery}");
    api.items_when(&path, 1).await;
    delivery
}

fn timestamp(received: &Received) -> i64 {
    let timestamp = received.header("webhook-timestamp").unwrap();
    timestamp.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_arrives_as_it_was_signed_anew() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let made = api.subscribe(&hooks.url("all"), json!({})).await;
    let alert = json!({ "alert": { "type": "dns" }, "result": {} });
    let alerts = vec![alert; 26];
    let data = json!({ "domain": "example.com", "lookup_id": "l1", "alerts": alerts });
    let more = typed_event("more", "lookup_result.alerts", &data);
    api.publish(&json!([more, event("plain")])).await;
    for first in hooks.arrived("all", 2).await {
        let delivery = recorded(api, &first).await;
        poll_until("the next second", async || {
            let now = time::OffsetDateTime::now_utc().unix_timestamp();
            (now > timestamp(&first)).then_some(())
        })
        .await;
        let answer = redeliver(api, &delivery).await.expect(202);
        let expected = json!({ "delivery": delivery, "redelivered": true });
        assert_eq!(answer, expected);
        let again = poll_until("it arrives again", async || {
            let seen = hooks.seen("all").into_iter();
            let same: Vec<_> = seen.filter(|r| webhook_id(r) == delivery).collect();
            (same.len() == 2).then_some(same)
        });
        let again = again.await.remove(1);
        assert_eq!(again.body, first.body, "byte by byte");
        for name in ["x-webhook-has-more", "content-type", "webhook-id"] {
            assert_eq!(again.header(name), first.header(name), "{name}");
        }
        assert!(timestamp(&again) > timestamp(&first));
        let webhook = Webhook::new(made.whsec()).unwrap();
        webhook.verify(&again.body, &again.headers).unwrap();
        let path = format!("/v1/attempts?delivery={delivery}");
        let attempts = api.items_when(&path, 2).await;
        let numbers = |name: &str| [&attempts[1][name], &attempts[0][name]].map(Value::as_u64);
        assert_eq!(numbers("attempt"), [Some(1), Some(1)]);
        assert_eq!(numbers("redrives"), [Some(0), Some(1)]);
    }
    let has_more = |r: &&Received| r.header("x-webhook-has-more") == Some("true");
    assert_eq!(hooks.seen("all").iter().filter(has_more).count(), 2);
    api.settled().await;
    assert_eq!(hooks.seen("all").len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_for_twice_it_is_sent_twice() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    api.subscribe(&hooks.url("all"), json!({})).await;
    api.publish(&event("e")).await;
    let first = hooks.arrived("all", 1).await.remove(0);
    let delivery = recorded(api, &first).await;
    let (one, two) = tokio::join!(redeliver(api, &delivery), redeliver(api, &delivery));
    one.expect(202);
    two.expect(202);
    redeliver(api, &delivery).await.expect(202);
    let seen = hooks.arrived("all", 4).await;
    assert!(
        seen.iter()
            .all(|r| webhook_id(r) == delivery && r.body == first.body)
    );
    api.settled().await;
    assert_eq!(hooks.seen("all").len(), 4);
    // The event itself is still known: a publisher's copy is none of these.
    api.publish(&event("e")).await;
    api.settled().await;
    assert_eq!(hooks.seen("all").len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_again_is_refused_with_why() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::with(|config| config.audit.body_bytes = 200).await;
    let api = &carillon.api;
    let made = api.subscribe(&hooks.url("all"), json!({})).await;
    for unknown in ["msg_0123456789abcdef", "msg_", "nonsense"] {
        redeliver(api, unknown).await.refused(404, "not_found");
    }

    let long = typed_event("long", "demo.x", &json!({ "x": "y".repeat(200) }));
    api.publish(&long).await;
    let cut = hooks.arrived("all", 1).await.remove(0);
    let cut = recorded(api, &cut).await;
    redeliver(api, &cut).await.refused(409, "body_not_kept");

    let tested = format!("{}/test", made.path());
    api.post(&tested, &json!({})).await.expect(200);
    let test = hooks.arrived("all", 2).await.remove(1);
    let test = recorded(api, &test).await;
    redeliver(api, &test).await.refused(409, "test_delivery");

    api.publish(&event("short")).await;
    let short = hooks.arrived("all", 3).await.remove(2);
    let short = recorded(api, &short).await;
    let enable = async |on: bool| {
        let change = json!({ "enabled": on });
        api.patch(&made.path(), &change).await.expect(200);
    };
    enable(false).await;
    let refused = redeliver(api, &short).await;
    refused.refused(409, "subscription_disabled");
    enable(true).await;
    redeliver(api, &short).await.expect(202);
    hooks.arrived("all", 4).await;
    api.delete(&made.path()).await.expect(204);
    let refused = redeliver(api, &short).await;
    refused.refused(409, "subscription_deleted");
    api.settled().await;
    assert_eq!(hooks.seen("all").len(), 4);
    assert_eq!(api.items("/v1/dead-letters").await, [] as [Value; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_stays_and_the_attempts_begin_anew() {
    let mended = Arc::new(AtomicBool::new(false));
    let works = Arc::clone(&mended);
    let hooks = Hooks::answering(move |_, _| match works.load(Ordering::Relaxed) {
        true => status(200),
        false => status(500),
    });
    let hooks = hooks.await;
    let carillon = Dispatcher::with(|config| config.retry.schedule = Some(vec![ms(1)])).await;
    let api = &carillon.api;
    api.subscribe(&hooks.url("all"), json!({})).await;
    api.publish(&event("e")).await;
    api.settled().await;
    let first = hooks.seen("all").remove(0);
    let delivery = recorded(api, &first).await;
    let letters = api.items("/v1/dead-letters").await;
    assert_eq!(letters.len(), 1);

    redeliver(api, &delivery).await.expect(202);
    api.settled().await;
    assert_eq!(hooks.seen("all").len(), 4, "both attempts again");
    let letters = api.items("/v1/dead-letters").await;
    assert!(
        letters
            .iter()
            .all(|letter| letter["id"] == delivery.as_str())
    );
    assert!(letters.iter().all(|letter| letter["attempts"] == 2));

    mended.store(true, Ordering::Relaxed);
    redeliver(api, &delivery).await.expect(202);
    api.settled().await;
    assert_eq!(hooks.seen("all").len(), 5);
    assert_eq!(api.items("/v1/dead-letters").await, letters, "they stay");
    let told = async || {
        let path = format!("/v1/deliveries/{delivery}");
        let attempts = format!("/v1/attempts?delivery={delivery}");
        api.items_when(&attempts, 5).await;
        api.get(&path).await.expect(200)
    };
    let there = told().await;
    assert_eq!(there["state"], "delivered");
    assert_eq!(there["dead_letter"]["reason"], "exhausted", "{there}");
    let path = format!("/v1/dead-letters/{delivery}");
    api.delete(&path).await.expect(204);
    let gone = told().await;
    assert_eq!(
        (&gone["state"], &gone["dead_letter"]),
        (&json!("delivered"), &json!(null))
    );
    assert_eq!(api.items("/v1/dead-letters").await, [] as [Value; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_goes_on_waiting() {
    let hooks = Hooks::answering(|_, times| status(if times == 1 { 500 } else { 200 })).await;
    let carillon = Dispatcher::with(|config| config.retry.schedule = Some(vec![ms(10_000)])).await;
    let api = &carillon.api;
    api.subscribe(&hooks.url("all"), json!({})).await;
    api.publish(&event("e")).await;
    let waiting = async |count: f64| {
        poll_until("deliveries to wait", async || {
            let all = api.waiting().await;
            (all == count).then_some(())
        })
        .await;
    };
    waiting(1.0).await;
    let first = hooks.seen("all").remove(0);
    let delivery = recorded(api, &first).await;
    for sends in [2, 3] {
        redeliver(api, &delivery).await.expect(202);
        let seen = hooks.arrived("all", sends).await;
        assert_eq!(seen.len(), sends, "the retry is not due");
    }
    waiting(1.0).await;
    let all = hooks.arrived("all", 4).await;
    assert!(all.iter().all(|r| webhook_id(r) == delivery));
    api.settled().await;
    assert_eq!(hooks.seen("all").len(), 4);
}
