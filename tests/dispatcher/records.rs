//! The audit log and the dead letters: finding, sending again, discarding.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::harness::{Api, Dispatcher, TENANT, event, events, ms};
use super::hooks::{Hooks, event_ids, status, webhook_id};

/// Receivers at `/broken` that fail until they are mended, and at `/gone`.
struct Broken {
    hooks: Hooks,
    mended: Arc<AtomicBool>,
    carillon: Dispatcher,
    /// Subscriptions of acme and of globex to `/broken`, and of acme to `/gone`.
    ids: [String; 3],
}

async fn broken() -> Broken {
    let mended = Arc::new(AtomicBool::new(false));
    let works = Arc::clone(&mended);
    let hooks = Hooks::answering(move |received, _| match received.path.as_str() {
        "/gone" => status(410),
        _ if works.load(Ordering::Relaxed) => status(200),
        _ => status(500),
    });
    let hooks = hooks.await;
    let carillon = Dispatcher::with(|config| config.retry.schedule = Some(vec![ms(1)])).await;
    let api = &carillon.api;
    let one = api.subscribe(&hooks.url("broken"), json!({})).await;
    let other = json!({ "tenant": "globex" });
    let other = api.subscribe(&hooks.url("broken"), other).await;
    let gone = json!({ "event_types": ["goes"] });
    let gone = api.subscribe(&hooks.url("gone"), gone).await;
    let mut of_globex = event("of-globex");
    of_globex["tenant"] = json!("globex");
    let mut goes = event("goes");
    goes["type"] = json!("goes");
    api.publish(&json!([event("a"), event("b")])).await;
    api.settled().await;
    api.publish(&json!([of_globex, goes])).await;
    api.settled().await;
    Broken {
        ids: [one.id, other.id, gone.id],
        hooks,
        mended,
        carillon,
    }
}

async fn found(api: &Api, query: &str) -> Vec<String> {
    let letters = api.items(&format!("/v1/dead-letters?{query}")).await;
    let id = |letter: &Value| letter["event_id"].as_str().unwrap().to_owned();
    let mut ids: Vec<String> = letters.iter().map(id).collect();
    ids.sort();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_found_by_what_they_are() {
    let broken = broken().await;
    let api = &broken.carillon.api;
    let [one, other, gone] = &broken.ids;
    assert_eq!(
        found(api, "").await,
        ["a", "b", "goes", "goes", "of-globex"]
    );
    assert_eq!(found(api, "tenant=globex").await, ["of-globex"]);
    assert_eq!(found(api, "tenant=nobody").await, [""; 0]);
    assert_eq!(found(api, "reason=gone").await, ["goes"]);
    assert_eq!(found(api, "reason=subscription_deleted").await, [""; 0]);
    assert_eq!(found(api, &format!("subscription={gone}")).await, ["goes"]);
    assert_eq!(
        found(api, &format!("subscription={other}")).await,
        ["of-globex"]
    );
    let both = format!("subscription={one}&reason=exhausted&tenant={TENANT}");
    assert_eq!(found(api, &both).await, ["a", "b", "goes"]);
    assert_eq!(found(api, "since=2999-01-01T00:00:00Z").await, [""; 0]);
    assert_eq!(
        found(api, "since=2026-01-01T00:00:00Z&limit=1").await.len(),
        1
    );
    let oldest = found(api, "limit=2").await;
    assert_eq!(oldest, ["a", "b"], "the oldest come first");
    for (query, field) in [
        ("reason=tired", "reason"),
        ("since=noon", "since"),
        ("limit=1001", "limit"),
        ("subscription=x", "subscription"),
        ("cursor=1", "cursor"),
    ] {
        let answer = api.get(&format!("/v1/dead-letters?{query}")).await;
        assert_eq!(answer.refused(422, "invalid_parameter")["field"], field);
    }
    // Looking changes nothing, however often.
    let before = api.items("/v1/dead-letters").await;
    for _ in 0..25 {
        assert_eq!(api.items("/v1/dead-letters").await, before);
    }
    for letter in &before {
        for time in ["first_attempt_at", "dead_at"] {
            assert!(letter[time].as_str().unwrap().ends_with('Z'), "{letter}");
        }
        assert!(letter["id"].as_str().unwrap().starts_with("msg_"));
    }
}

async fn redrive(api: &Api, document: Value) -> Value {
    api.post("/v1/dead-letters/redrive", &document)
        .await
        .expect(200)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_sends_the_same_again() {
    let broken = broken().await;
    let api = &broken.carillon.api;
    let [one, ..] = &broken.ids;
    for (document, field) in [
        (json!({ "limit": 0 }), "limit"),
        (json!({ "reason": "tired" }), "reason"),
        (json!({ "dry_run": "yes" }), "dry_run"),
        (json!({ "until": "noon" }), "until"),
        (json!({ "tenants": "acme" }), "tenants"),
    ] {
        let answer = api.post("/v1/dead-letters/redrive", &document).await;
        assert_eq!(answer.refused(422, "invalid_field")["field"], field);
    }
    let of_one = json!({ "subscription": one, "reason": "exhausted" });
    let mut dry = of_one.clone();
    dry["dry_run"] = json!(true);
    assert_eq!(
        redrive(api, dry).await,
        json!({ "matched": 3, "redriven": 0 })
    );
    let old = json!({ "until": "2026-01-01T00:00:00Z" });
    assert_eq!(
        redrive(api, old).await,
        json!({ "matched": 0, "redriven": 0 })
    );
    api.settled().await;
    assert_eq!(found(api, "").await.len(), 5, "nothing has moved yet");

    let before = broken.hooks.seen("broken");
    broken.mended.store(true, Ordering::Relaxed);
    assert_eq!(
        redrive(api, of_one).await,
        json!({ "matched": 3, "redriven": 3 })
    );
    api.settled().await;
    assert_eq!(found(api, "").await, ["goes", "of-globex"]);
    let again = broken.hooks.seen("broken").split_off(before.len());
    assert_eq!(event_ids(&again), ["a", "b", "goes"]);
    for received in &again {
        let first = before
            .iter()
            .find(|r| webhook_id(r) == webhook_id(received));
        assert_eq!(first.unwrap().body, received.body);
    }
    let limited = redrive(api, json!({ "tenant": "globex", "limit": 1 })).await;
    assert_eq!(limited, json!({ "matched": 1, "redriven": 1 }));
    api.settled().await;
    assert_eq!(found(api, "").await, ["goes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_again_after_a_redrive_is_a_dead_letter_again() {
    let broken = broken().await;
    let api = &broken.carillon.api;
    let before = broken.hooks.seen("broken").len();
    assert_eq!(
        redrive(api, json!({})).await,
        json!({ "matched": 5, "redriven": 5 })
    );
    api.settled().await;
    assert_eq!(found(api, "").await.len(), 5);
    assert_eq!(found(api, "reason=subscription_disabled").await, ["goes"]);
    assert_eq!(
        broken.hooks.seen("broken").len(),
        before + 4 * 2,
        "all attempts anew"
    );
    assert_eq!(broken.hooks.seen("gone").len(), 1, "it is disabled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discarded_dead_letter_is_gone() {
    let broken = broken().await;
    let api = &broken.carillon.api;
    let letters = api.items("/v1/dead-letters?tenant=globex").await;
    let path = format!("/v1/dead-letters/{}", letters[0]["id"].as_str().unwrap());
    let answer = api.delete(&path).await;
    assert_eq!((answer.status, answer.body), (204, Value::Null));
    api.delete(&path).await.refused(404, "not_found");
    assert_eq!(found(api, "").await, ["a", "b", "goes", "goes"]);
    let counted = api.metric("carillon_queue_messages{queue=\"dead-letters\"}");
    assert_eq!(counted.await, 4.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_found_by_what_they_are() {
    let broken = broken().await;
    let api = &broken.carillon.api;
    let [one, other, gone] = &broken.ids;
    broken.mended.store(true, Ordering::Relaxed);
    api.publish(&event("works")).await;
    let all = api.items_when("/v1/attempts", 10).await;
    let delivery = webhook_id(&broken.hooks.seen("gone")[0]).to_owned();
    for (query, count) in [
        ("outcome=delivered".to_owned(), 1),
        ("outcome=failed".to_owned(), 9),
        ("tenant=globex".to_owned(), 2),
        ("tenant=nobody".to_owned(), 0),
        ("event=goes".to_owned(), 3),
        (format!("event=goes&subscription={one}"), 2),
        (format!("delivery={delivery}"), 1),
        (format!("subscription={other}&outcome=failed"), 2),
        (format!("subscription={gone}&tenant=globex"), 0),
        ("since=2999-01-01T00:00:00Z".to_owned(), 0),
        ("since=2026-01-01T00:00:00Z".to_owned(), 10),
    ] {
        let found = api.items(&format!("/v1/attempts?{query}")).await;
        assert_eq!(found.len(), count, "{query}");
    }
    let position = |attempt: &Value| -> u64 {
        let id = attempt["id"].as_str().unwrap();
        id.strip_prefix("att_").unwrap().parse().unwrap()
    };
    assert!(all.is_sorted_by_key(|attempt| std::cmp::Reverse(position(attempt))));
    for (query, field) in [
        ("outcome=good", "outcome"),
        ("event=", ""),
        ("cursor=x", "cursor"),
        ("delivery=x", "delivery"),
        ("before=1", "before"),
    ] {
        let answer = api.get(&format!("/v1/attempts?{query}")).await;
        match field {
            // What is empty is absent.
            "" => drop(answer.expect(200)),
            field => assert_eq!(answer.refused(422, "invalid_parameter")["field"], field),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_come_in_pages() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    api.subscribe(&hooks.url("all"), json!({})).await;
    api.publish(&events(7)).await;
    let all = api.items_when("/v1/attempts", 7).await;
    let (mut paged, mut cursor, mut sizes) = (Vec::new(), String::new(), Vec::new());
    loop {
        let path = format!("/v1/attempts?limit=3&cursor={cursor}");
        let page = api.get(&path).await.expect(200);
        let items = page["items"].as_array().unwrap();
        sizes.push(items.len());
        paged.extend(items.iter().cloned());
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(sizes, [3, 3, 1]);
    assert_eq!(paged, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_tells_all_but_a_long_body() {
    let hooks = Hooks::answering(|_, _| carillon::cli::receiver::Reply {
        body: vec![b'x'; 20_000].into(),
        ..super::hooks::with_header(status(200), "x-request-id", "r1")
    });
    let hooks = hooks.await;
    let carillon = Dispatcher::with(|config| {
        config.audit.body_bytes = 100;
        config.audit.per_subscription = 3;
    });
    let carillon = carillon.await;
    let api = &carillon.api;
    let made = api.subscribe(&hooks.url("all"), json!({})).await;
    let long = super::harness::typed_event("long", "demo.x", &json!({ "n": "y".repeat(500) }));
    api.publish(&json!([long, event("short")])).await;
    let attempts = api.items_when("/v1/attempts", 2).await;
    let of = |id: &str| attempts.iter().find(|a| a["event_id"] == id).unwrap();
    let seen = hooks.seen("all");
    for (attempt, cut) in [(of("long"), true), (of("short"), false)] {
        let request = &attempt["request"];
        let same = |r: &&carillon::cli::receiver::Received| attempt["delivery_id"] == webhook_id(r);
        let received = seen.iter().find(same).unwrap();
        let kept = received.body.len().min(100);
        assert_eq!(
            request["body"].as_str().unwrap().as_bytes(),
            &received.body[..kept]
        );
        assert_eq!(request["body_cut"], cut);
        assert_eq!(request["url"], hooks.url("all"));
        for (name, value) in request["headers"].as_object().unwrap() {
            assert_eq!(received.header(name), value.as_str(), "{name}");
        }
        let response = &attempt["response"];
        assert_eq!(response["body"], "x".repeat(16 * 1024));
        assert_eq!(response["body_cut"], true);
        assert_eq!(response["headers"]["x-request-id"], "r1");
        assert!(attempt["timing"]["total_ms"].is_u64());
        assert_eq!(attempt["subscription_id"], made.id.as_str());
    }
    assert!(!json!(attempts).to_string().contains(made.whsec()));
    api.publish(&events(5)).await;
    api.settled().await;
    super::harness::poll_until("only the newest attempts are kept", async || {
        let kept = api.items("/v1/attempts").await;
        (kept.len() == 3 && kept.iter().all(|a| a["event_id"] != "long")).then_some(())
    })
    .await;
}
