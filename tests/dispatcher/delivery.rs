//! What an answer leads to (contract section 4), duplicates, filters and big fan-outs.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Dispatcher, event, ms, typed_event};
use super::hooks::{Hooks, event_ids, status, webhook_id, with_header};

#[tokio::test(flavor = "multi_thread")]
async fn every_2xx_acknowledges() {
    let hooks = Hooks::answering(|received, _| {
        let code = received.path.trim_start_matches('/').parse();
        status(code.unwrap())
    });
    let hooks = hooks.await;
    let carillon = Dispatcher::with(|config| config.retry.schedule = Some(vec![ms(1)])).await;
    let api = &carillon.api;
    let good = ["200", "201", "202", "204", "299"];
    let bad = [
        ("301", "redirect"),
        ("304", "redirect"),
        ("400", "client_error"),
        ("404", "client_error"),
        ("429", "rate_limited"),
        ("500", "server_error"),
        ("502", "bad_gateway"),
        ("503", "unavailable"),
        ("504", "gateway_timeout"),
    ];
    for code in good.iter().chain(bad.iter().map(|(code, _)| code)) {
        let more = json!({ "description": code });
        api.subscribe(&hooks.url(code), more).await;
    }
    api.publish(&event("e")).await;
    api.settled().await;
    for code in good {
        assert_eq!(hooks.seen(code).len(), 1, "{code}");
    }
    let letters = api.items("/v1/dead-letters").await;
    assert_eq!(letters.len(), bad.len());
    for (code, reason) in bad {
        assert_eq!(hooks.seen(code).len(), 2, "{code}");
        let status: u16 = code.parse().unwrap();
        let letter = letters
            .iter()
            .find(|letter| letter["last_status"] == status);
        let letter = letter.unwrap_or_else(|| panic!("no dead letter of {code}"));
        assert_eq!(letter["last_reason"], reason);
        assert_eq!(letter["reason"], "exhausted");
        assert_eq!(letter["attempts"], 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gone_disables_and_dead_letters_at_once() {
    let hooks = Hooks::answering(|_, _| status(410)).await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let made = api.subscribe(&hooks.url("gone"), json!({})).await;
    api.publish(&event("first")).await;
    api.settled().await;
    let shown = api.get(&made.path()).await.expect(200);
    assert_eq!(shown["disabled_reason"], "gone");
    assert_eq!(shown["enabled"], false);
    let letters = api.items("/v1/dead-letters").await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["reason"], "gone");
    assert_eq!(letters[0]["attempts"], 1);
    assert_eq!(letters[0]["last_status"], 410);
    let attempts = api.items_when("/v1/attempts", 1).await;
    assert_eq!(attempts[0]["next_action"], "dead_letter");
    assert_eq!(attempts[0]["reason"], "gone");
    api.publish(&event("second")).await;
    api.settled().await;
    assert_eq!(hooks.seen("gone").len(), 1);
    let enabled = api.patch(&made.path(), &json!({ "enabled": true })).await;
    assert_eq!(enabled.expect(200)["disabled_reason"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_not_followed() {
    let hooks = Hooks::answering(|received, _| match received.path.as_str() {
        "/elsewhere" => status(200),
        path => {
            let code = path.trim_start_matches('/').parse().unwrap();
            with_header(status(code), "location", "/elsewhere")
        }
    });
    let hooks = hooks.await;
    let carillon = Dispatcher::with(|config| config.retry.schedule = Some(vec![ms(1)])).await;
    let api = &carillon.api;
    let codes = ["301", "302", "303", "307", "308"];
    for code in codes {
        api.subscribe(&hooks.url(code), json!({})).await;
    }
    api.publish(&event("e")).await;
    api.settled().await;
    for code in codes {
        assert_eq!(hooks.seen(code).len(), 2, "{code}");
    }
    assert_eq!(hooks.seen("elsewhere").len(), 0);
    let letters = api.items("/v1/dead-letters").await;
    assert_eq!(letters.len(), codes.len());
    assert!(
        letters
            .iter()
            .all(|letter| letter["last_reason"] == "redirect")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_deliveries_end_with_their_subscription() {
    let hooks = Hooks::answering(|_, _| status(500)).await;
    let carillon = Dispatcher::with(|config| config.retry.schedule = Some(vec![ms(1500)])).await;
    let api = &carillon.api;
    let disabled = api.subscribe(&hooks.url("disabled"), json!({})).await;
    let deleted = api.subscribe(&hooks.url("deleted"), json!({})).await;
    api.publish(&event("e")).await;
    hooks.arrived("disabled", 1).await;
    hooks.arrived("deleted", 1).await;
    let off = json!({ "enabled": false });
    api.patch(&disabled.path(), &off).await.expect(200);
    api.delete(&deleted.path()).await.expect(204);
    let letters = api.items_when("/v1/dead-letters", 2).await;
    for (made, reason) in [
        (&disabled, "subscription_disabled"),
        (&deleted, "subscription_deleted"),
    ] {
        let letter = letters
            .iter()
            .find(|l| l["subscription_id"] == made.id.as_str());
        assert_eq!(letter.unwrap()["reason"], reason);
        assert_eq!(letter.unwrap()["attempts"], 1);
    }
    assert_eq!(
        hooks.seen("disabled").len() + hooks.seen("deleted").len(),
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_event_is_delivered_once_to_each() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    api.subscribe(&hooks.url("one"), json!({})).await;
    api.subscribe(&hooks.url("two"), json!({})).await;
    let mut other_tenant = event("same");
    other_tenant["tenant"] = json!("globex");
    api.subscribe(&hooks.url("other"), json!({ "tenant": "globex" }))
        .await;
    api.publish(&json!([
        event("same"),
        event("same"),
        event("new"),
        other_tenant
    ]))
    .await;
    api.settled().await;
    api.publish(&event("same")).await;
    api.settled().await;
    // Whoever comes later gets it once too.
    api.subscribe(&hooks.url("late"), json!({})).await;
    api.publish(&json!([event("same"), event("same")])).await;
    api.settled().await;
    for name in ["one", "two"] {
        assert_eq!(event_ids(&hooks.seen(name)), ["new", "same"], "{name}");
    }
    assert_eq!(event_ids(&hooks.seen("other")), ["same"]);
    assert_eq!(event_ids(&hooks.seen("late")), ["same"]);
    let duplicates = api.metric("carillon_events_total{result=\"duplicate\"}");
    assert!(duplicates.await > 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_window_nothing_is_a_duplicate() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::with(|config| config.dedup.window = Duration::ZERO).await;
    let api = &carillon.api;
    api.subscribe(&hooks.url("all"), json!({})).await;
    api.publish(&json!([event("same"), event("same")])).await;
    api.settled().await;
    api.publish(&event("same")).await;
    api.settled().await;
    let seen = hooks.seen("all");
    assert_eq!(event_ids(&seen), ["same"; 3]);
    let ids: HashSet<&str> = seen.iter().map(webhook_id).collect();
    assert_eq!(ids.len(), 1, "the webhook-id is the same on republish");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_is_over_forgets() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::with(|config| config.dedup.window = ms(200)).await;
    let api = &carillon.api;
    api.subscribe(&hooks.url("all"), json!({})).await;
    super::harness::poll_until("the event is delivered again", async || {
        api.publish(&event("same")).await;
        api.settled().await;
        (hooks.seen("all").len() == 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_select_events() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    for (name, filter) in [
        ("high", json!({ "data": { "level": ["high"] } })),
        (
            "not-low",
            json!({ "data": { "level": [{ "anything-but": "low" }] } }),
        ),
        (
            "scored",
            json!({ "data": { "score": [{ "numeric": [">=", 7] }] } }),
        ),
        (
            "id",
            json!({ "id": [{ "prefix": "a" }], "tenant": ["acme"] }),
        ),
    ] {
        api.subscribe(&hooks.url(name), json!({ "filter": filter }))
            .await;
    }
    let published: Value = [("a1", "high", 9), ("b1", "low", 7), ("a2", "medium", 1)]
        .iter()
        .map(|(id, level, score)| {
            let data = json!({ "n": id, "level": level, "score": score });
            typed_event(id, "demo.scored", &data)
        })
        .collect();
    api.publish(&published).await;
    api.settled().await;
    assert_eq!(event_ids(&hooks.seen("high")), ["a1"]);
    assert_eq!(event_ids(&hooks.seen("not-low")), ["a1", "a2"]);
    assert_eq!(event_ids(&hooks.seen("scored")), ["a1", "b1"]);
    assert_eq!(event_ids(&hooks.seen("id")), ["a1", "a2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_big_fan_out_reaches_everyone_once() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::with(|config| config.plan.chunk = 7).await;
    let api = &carillon.api;
    let names: Vec<String> = (0..40).map(|n| format!("s{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        // Some for every tenant, among the others.
        let tenant = if n % 3 == 0 { "*" } else { "acme" };
        api.subscribe(&hooks.url(name), json!({ "tenant": tenant }))
            .await;
    }
    // Twice at once: the second is a duplicate for each chunk.
    api.publish(&json!([event("a"), event("b"), event("a")]))
        .await;
    api.settled().await;
    api.publish(&event("b")).await;
    api.settled().await;
    for name in &names {
        assert_eq!(event_ids(&hooks.seen(name)), ["a", "b"], "{name}");
    }
    let ids: HashSet<String> = names
        .iter()
        .flat_map(|name| hooks.seen(name))
        .map(|received| webhook_id(&received).to_owned())
        .collect();
    assert_eq!(ids.len(), 80, "each delivery has an id of its own");
}
