//! What only a file can suffer: damage, and a second process.

use serde_json::json;

use crate::dispatcher::harness::{Dispatcher, Setup, event, ms, poll_until};
use crate::dispatcher::hooks::{Hooks, event_ids, status};
use crate::dispatcher::quarantine::{original, subscribed};

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_subscription_holds_up_its_tenant_alone() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let theirs = json!({ "tenant": "strange" });
    let damaged = carillon.api.subscribe(&hooks.url("strange"), theirs).await;
    carillon.api.subscribe(&hooks.url("ours"), json!({})).await;
    let (setup, _) = carillon.stop().await;
    let store = rusqlite::Connection::open(&setup.config.embedded.path).unwrap();
    let record = |sql: &str| store.execute(sql, ()).unwrap();
    let changed = record("UPDATE subscriptions SET record = x'00' WHERE scope = 'strange'");
    assert_eq!(changed, 1);
    drop(store);

    let carillon = setup.start().await;
    let mut of_stranger = event("theirs");
    of_stranger["tenant"] = json!("strange");
    carillon.api.publish(&of_stranger).await;
    carillon.api.publish(&event("ours")).await;
    assert_eq!(event_ids(&hooks.arrived("ours", 1).await), ["ours"]);
    assert!(hooks.seen("strange").is_empty());
    // Nothing is lost: without the damaged one, the event that waited finds nobody.
    carillon.api.delete(&damaged.path()).await.expect(204);
    carillon.api.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_due_delivery_that_is_damaged_is_put_aside() {
    let hooks = Hooks::answering(|_, times| status(if times == 1 { 500 } else { 200 })).await;
    let mut setup = subscribed(&hooks.url("all")).await;
    setup.config.retry.schedule = Some(vec![ms(3_600_000)]);
    let carillon = setup.start().await;
    carillon
        .api
        .publish(&json!([event("a"), event("b"), event("c")]))
        .await;
    poll_until("three retries wait", async || {
        let waiting = carillon
            .api
            .metric("carillon_queue_messages{queue=\"wait\"}");
        (waiting.await >= 3.0).then_some(())
    })
    .await;
    let (setup, _) = carillon.stop().await;
    damage_the_first(&setup);
    let carillon = setup.start().await;
    carillon.api.settled().await;
    let mut ids = event_ids(&hooks.seen("all"));
    ids.dedup();
    assert_eq!(ids.len(), 3);
    assert_eq!(
        hooks.seen("all").len(),
        3 + 2,
        "the other two are tried again"
    );
    let items = carillon.api.items("/v1/quarantine").await;
    assert_eq!(items.len(), 1);
    assert_eq!(original(&items[0]), b"\xff\xff damaged");
    assert_eq!(items[0]["reason"], "malformed");
}

/// Makes all retries due, and the first of them unreadable.
fn damage_the_first(setup: &Setup) {
    let conn = rusqlite::Connection::open(&setup.config.embedded.path).unwrap();
    conn.execute("UPDATE deliveries SET due_ms = 0", ())
        .unwrap();
    let damage = "UPDATE deliveries SET envelope = ?
                  WHERE seq = (SELECT MIN(seq) FROM deliveries)";
    let changed = conn.execute(damage, [&b"\xff\xff damaged"[..]]).unwrap();
    assert_eq!(changed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_one_on_the_same_file_is_refused() {
    let first = Dispatcher::start().await;
    let (setup, _) = first.stop().await;
    let config = setup.config.clone();
    let running = setup.start().await;
    let Err(error) = carillon::app::Carillon::start(&config).await else {
        panic!("two dispatchers share a file");
    };
    assert!(
        error.to_string().contains("another Carillon process"),
        "{error}"
    );
    assert_eq!(running.api.ops("/readyz").await.0, 200);
}
