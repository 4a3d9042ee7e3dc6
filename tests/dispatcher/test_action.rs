//! The Test action: sent now, outside the queue, once, and on the record.

use bytes::Bytes;
use carillon::cli::receiver::Reply;
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use super::harness::{Api, Dispatcher, Subscribed, ms};
use super::hooks::{Hooks, json_body, status};

async fn test(api: &Api, subscribed: &Subscribed) -> Value {
    let path = format!("{}/test", subscribed.path());
    api.post(&path, &json!({})).await.expect(200)
}

/// The only row of the audit log, which must say that it was a test.
async fn audited(api: &Api, subscribed: &Subscribed) -> Value {
    let path = format!("/v1/attempts?subscription={}", subscribed.id);
    let mut attempts = api.items_when(&path, 1).await;
    assert_eq!(attempts.len(), 1);
    let attempt = attempts.remove(0);
    assert_eq!(attempt["test"], true);
    assert_eq!(attempt["attempt"], 1);
    assert_eq!(attempt["event_type"], "test.delivery");
    assert_eq!(attempt["next_action"], "none");
    assert_eq!(attempt["next_at"], Value::Null);
    attempt
}

#[tokio::test(flavor = "multi_thread")]
async fn it_arrives_signed() {
    let hooks = Hooks::answering(|_, _| Reply {
        body: Bytes::from_static(b"thank you"),
        ..status(202)
    });
    let hooks = hooks.await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    // Whether it matches does not matter.
    let made = api
        .subscribe(&hooks.url("in"), json!({ "event_types": ["never"] }))
        .await;
    let tested = test(api, &made).await;
    assert_eq!(tested["outcome"], "delivered");
    assert_eq!(tested["reason"], Value::Null);
    assert_eq!(tested["status"], 202);
    assert_eq!(tested["response_body"], "thank you");
    assert!(tested["latency_ms"].is_u64());
    let received = hooks.seen("in").remove(0);
    assert_eq!(json_body(&received)["type"], "test.delivery");
    let webhook = Webhook::new(made.whsec()).unwrap();
    webhook.verify(&received.body, &received.headers).unwrap();
    let attempt = audited(api, &made).await;
    assert_eq!(attempt["outcome"], "delivered");
    assert_eq!(attempt["response"]["body"], "thank you");

    let every = api
        .subscribe(&hooks.url("every"), json!({ "tenant": "*" }))
        .await;
    assert_eq!(test(api, &every).await["outcome"], "delivered");
    assert_eq!(audited(api, &every).await["tenant"], "*");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_told_and_not_tried_again() {
    let hooks = Hooks::answering(|received, _| match received.path.as_str() {
        "/gone" => status(410),
        _ => status(500),
    });
    let hooks = hooks.await;
    let carillon = Dispatcher::with(|config| config.retry.schedule = Some(vec![ms(1); 3])).await;
    let api = &carillon.api;
    for (name, code, reason) in [("in", 500, "server_error"), ("gone", 410, "gone")] {
        let made = api.subscribe(&hooks.url(name), json!({})).await;
        let tested = test(api, &made).await;
        assert_eq!(tested["outcome"], "failed");
        assert_eq!(tested["reason"], reason);
        assert_eq!(tested["status"], code);
        let attempt = audited(api, &made).await;
        assert_eq!(attempt["outcome"], "failed");
        assert_eq!(attempt["reason"], reason);
        let after = api.get(&made.path()).await.expect(200);
        assert_eq!(after["enabled"], true, "a test disables nothing");
    }
    api.settled().await;
    assert_eq!(hooks.seen("in").len(), 1);
    assert_eq!(api.items("/v1/dead-letters").await, [] as [Value; 0]);
    assert_eq!(
        api.metric("carillon_queue_messages{queue=\"deliveries\"}")
            .await,
        0.0
    );

    let dead = api.subscribe("http://127.0.0.1:1/", json!({})).await;
    let tested = test(api, &dead).await;
    assert_eq!(tested["reason"], "connection_refused");
    assert_eq!(tested["status"], Value::Null);
    assert_eq!(tested["response_body"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn internal_addresses_are_refused() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::with(|config| config.egress.allow = Vec::new()).await;
    let api = &carillon.api;
    let port = hooks.url("").rsplit_once(':').unwrap().1.to_owned();
    let mut urls = vec![
        "http://10.0.0.1/".to_owned(),
        "http://192.168.1.1/".to_owned(),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://[::1]/".to_owned(),
        "http://[fd00::1]/".to_owned(),
        hooks.url("direct"),
    ];
    for host in [
        "localhost",
        "127.1",
        "0x7f.1",
        "2130706433",
        "[::ffff:127.0.0.1]",
    ] {
        urls.push(format!("http://{host}:{port}"));
    }
    for url in urls {
        let made = api.subscribe(&url, json!({})).await;
        let tested = test(api, &made).await;
        assert_eq!(tested["outcome"], "failed", "{url}: {tested}");
        assert_eq!(tested["reason"], "blocked_address", "{url}: {tested}");
        assert_eq!(tested["status"], Value::Null, "{url}");
        assert_eq!(audited(api, &made).await["reason"], "blocked_address");
    }
    assert_eq!(hooks.connections(), 0);
}
