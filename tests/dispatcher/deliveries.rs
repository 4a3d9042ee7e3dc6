//! What became of a delivery, in one answer.

use serde_json::{Value, json};

use super::harness::{Api, Dispatcher, event, ms, poll_until};
use super::hooks::{Hooks, status, webhook_id};

/// The delivery `id`, once it is in `state` and as many attempts of it are recorded: the audit
/// log comes a little later than what is durable.
async fn in_state(api: &Api, id: &str, state: &str, attempts: usize) -> Value {
    let wanted = format!("{id} is {state} after {attempts} attempts");
    poll_until(&wanted, async || {
        let answer = api.get(&format!("/v1/deliveries/{id}")).await;
        let found = answer.body["attempts"].as_array().map(Vec::len);
        let is_so = answer.body["state"] == state && found == Some(attempts);
        is_so.then_some(answer.body)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn its_way_is_told_from_waiting_to_the_end() {
    let hooks = Hooks::answering(|received, times| match received.path.as_str() {
        "/well" => status(200),
        "/later" if times > 1 => status(200),
        _ => status(500),
    })
    .await;
    let carillon = Dispatcher::with(|config| {
        config.retry.schedule = Some(vec![ms(3000)]);
    });
    let carillon = carillon.await;
    let api = &carillon.api;
    for (name, ways) in [
        ("well", &["delivered"][..]),
        ("later", &["waiting", "delivered"]),
        ("never", &["waiting", "dead_lettered"]),
    ] {
        let made = api.subscribe(&hooks.url(name), json!({})).await;
        api.publish(&event(name)).await;
        let id = webhook_id(&hooks.arrived(name, 1).await[0]).to_owned();
        for (n, state) in ways.iter().enumerate() {
            let told = in_state(api, &id, state, n + 1).await;
            assert_eq!((&told["id"], &told["event_id"]), (&json!(id), &json!(name)));
            assert_eq!(told["next_at"].is_string(), *state == "waiting", "{told}");
            let is_dead = *state == "dead_lettered";
            assert_eq!(
                told["dead_letter"]["reason"] == "exhausted",
                is_dead,
                "{told}"
            );
        }
        if name == "never" {
            let discarded = api.delete(&format!("/v1/dead-letters/{id}")).await;
            assert_eq!(discarded.status, 204);
            in_state(api, &id, "redriven_or_discarded", 2).await;
        }
        api.delete(&made.path()).await.expect(204);
    }
    api.get("/v1/deliveries/msg_0")
        .await
        .refused(404, "not_found");
    api.get("/v1/deliveries/nonsense")
        .await
        .refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_given_up_unsent_is_told_too() {
    let hooks = Hooks::answering(|_, _| status(500)).await;
    let carillon = Dispatcher::with(|config| {
        config.retry.schedule = Some(vec![ms(1000); 9]);
        config.audit.per_subscription = 1;
    });
    let carillon = carillon.await;
    let api = &carillon.api;
    let made = api.subscribe(&hooks.url("all"), json!({})).await;
    api.publish(&event("e")).await;
    let id = webhook_id(&hooks.arrived("all", 1).await[0]).to_owned();
    in_state(api, &id, "waiting", 1).await;
    let disabled = json!({ "enabled": false });
    api.patch(&made.path(), &disabled).await.expect(200);
    let told = in_state(api, &id, "dead_lettered", 1).await;
    assert_eq!(told["dead_letter"]["reason"], "subscription_disabled");
}
