//! What arrives: body bytes and headers of both formats (contract section 3).

use std::time::Duration;

use carillon::cli::receiver::Received;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use standardwebhooks::Webhook;

use super::harness::{Dispatcher, Setup, TENANT, event, ms, typed_event};
use super::hooks::{Hooks, json_body, status, webhook_id};

const AT: &str = "2026-03-01T12:30:00Z";

/// `msg_` and at least 26 letters and digits, nothing that the publisher chose.
fn assert_webhook_id(received: &Received) {
    let id = webhook_id(received);
    let rest = id.strip_prefix("msg_").unwrap_or_default();
    assert!(rest.len() >= 26, "{id}");
    assert!(rest.bytes().all(|b| b.is_ascii_alphanumeric()), "{id}");
}

fn assert_common_headers(received: &Received) {
    assert_webhook_id(received);
    assert_eq!(received.method, http::Method::POST);
    assert_eq!(received.header("content-type"), Some("application/json"));
    let agent = format!("Carillon/{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(received.header("user-agent"), Some(agent.as_str()));
    let timestamp: i64 = received
        .header("webhook-timestamp")
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        (received.at.seconds() - timestamp).abs() <= 30,
        "{timestamp}"
    );
    for absent in ["accept-encoding", "referer", "transfer-encoding"] {
        assert_eq!(received.header(absent), None, "{absent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_bodies_and_headers() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let more = json!({ "headers": { "X-Api-Key": "k e y", "authorization": "Bearer theirs" } });
    let made = api.subscribe(&hooks.url("all?x=1"), more).await;
    let data = r#"{ "b":1.50, "a":[1e3,"\u00e9é"] }"#;
    let event = format!(
        r#"{{"data":{data},"timestamp":"{AT}","tenant":"{TENANT}","type":"demo.x","id":"my-own-id"}}"#
    );
    api.publish_raw(event, None).await.expect(202);
    let received = hooks.arrived("all?x=1", 1).await.remove(0);
    assert_common_headers(&received);
    let body = format!(r#"{{"type":"demo.x","timestamp":"{AT}","data":{data}}}"#);
    assert_eq!(received.body, body);
    assert_eq!(received.header("x-api-key"), Some("k e y"));
    assert_eq!(received.header("authorization"), Some("Bearer theirs"));
    assert_eq!(received.header("x-webhook-has-more"), None);
    assert_eq!(received.header("x-leicbit-signature"), None);
    let length = body.len().to_string();
    assert_eq!(received.header("content-length"), Some(length.as_str()));
    let webhook = Webhook::new(made.whsec()).unwrap();
    webhook.verify(&received.body, &received.headers).unwrap();
}

/// An event with `count` alerts, of which every second is high.
fn lookup(id: &str, count: usize) -> Value {
    let alert = |n: usize| {
        let level = if n.is_multiple_of(2) { "high" } else { "low" };
        json!({ "alert": { "n": n, "level": level }, "result": { "risk": n } })
    };
    let alerts: Vec<Value> = (0..count).map(alert).collect();
    let data = json!({ "domain": "example.com", "lookup_id": "l1", "alerts": alerts });
    typed_event(id, "lookup_result.alerts", &data)
}

#[tokio::test(flavor = "multi_thread")]
async fn lookups_carry_the_first_25_alerts_that_match() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let filter = |level: &str| json!({ "data": { "alerts": { "alert": { "level": [level] } } } });
    api.subscribe(&hooks.url("all"), json!({})).await;
    api.subscribe(&hooks.url("high"), json!({ "filter": filter("high") }))
        .await;
    api.subscribe(&hooks.url("none"), json!({ "filter": filter("medium") }))
        .await;
    for (count, total_high) in [(25, 13), (26, 13), (60, 30), (0, 0)] {
        let before = hooks.seen("high").len();
        api.publish(&lookup(&format!("l{count}"), count)).await;
        api.settled().await;
        let all = hooks.seen("all").pop().unwrap();
        assert_lookup(&all, count);
        let high = hooks.seen("high").split_off(before);
        assert_eq!(high.len(), usize::from(total_high > 0), "{count}");
        for received in &high {
            let data = assert_lookup(received, total_high);
            let alerts = data["alerts"].as_array().unwrap();
            assert!(alerts.iter().all(|alert| alert["alert"]["level"] == "high"));
        }
    }
    assert_eq!(hooks.seen("none").len(), 0);
    assert_eq!(hooks.seen("all").len(), 4);
}

/// Checks the sums of a body with `total` alerts that matched; returns its `data`.
fn assert_lookup(received: &Received, total: usize) -> Value {
    let body = json_body(received);
    let data = &body["data"];
    let has_more = total > 25;
    assert_eq!(data["total"], total, "{body}");
    assert_eq!(data["count"], total.min(25), "{body}");
    assert_eq!(data["alerts"].as_array().unwrap().len(), total.min(25));
    assert_eq!(data["has_more"], has_more);
    assert_eq!(
        (&data["domain"], &data["lookup_id"]),
        (&json!("example.com"), &json!("l1"))
    );
    let header = received.header("x-webhook-has-more");
    assert_eq!(header, has_more.then_some("true"), "{body}");
    data.clone()
}

/// A dispatcher that trusts the receiver it is given, which speaks HTTPS.
async fn leicbit(
    script: impl Fn(&Received, usize) -> carillon::cli::receiver::Reply + Send + Sync + 'static,
) -> (Hooks, Dispatcher) {
    let (hooks, authority) = Hooks::secure(script).await;
    let mut setup = Setup::new(|config| config.retry.schedule = Some(vec![ms(1), ms(1)]));
    let ca_file = setup.file("ca.pem");
    std::fs::write(&ca_file, authority).unwrap();
    setup.config.egress.ca_file = Some(ca_file);
    (hooks, setup.start().await)
}

/// What a receiver computes: the HMAC over timestamp and body, keyed with the hex text.
fn leicbit_signature(received: &Received, hex_secret: &str) -> String {
    let header = received.header("x-leicbit-signature").unwrap();
    let timestamp = header
        .strip_prefix("t=")
        .unwrap()
        .split(',')
        .next()
        .unwrap();
    let mut hmac = Hmac::<Sha256>::new_from_slice(hex_secret.as_bytes()).unwrap();
    hmac.update(timestamp.as_bytes());
    hmac.update(&received.body);
    let digest = hex::encode(hmac.finalize().into_bytes());
    format!("t={timestamp},v1={digest}")
}

#[tokio::test(flavor = "multi_thread")]
async fn leicbit_bodies_and_headers() {
    let (hooks, carillon) = leicbit(|_, _| status(200)).await;
    let api = &carillon.api;
    let made = api
        .subscribe(&hooks.url("in"), json!({ "format": "leicbit" }))
        .await;
    let (domain, user, alert) = (
        r#"{"name":"d","n":1.0}"#,
        r#"{"u":"\u00e9"}"#,
        r#"{"a":[]}"#,
    );
    let event = |id: &str, kind: &str, data: &str| {
        format!(
            r#"{{"id":"{id}","type":"{kind}","tenant":"{TENANT}","timestamp":"{AT}","data":{data}}}"#
        )
    };
    let cases = [
        (
            "credential_theft_detected",
            format!(r#"{{"user":{user},"alert":{alert},"domain":{domain},"x":1}}"#),
            format!(r#""domain":{domain},"alert":{alert},"user":{user}"#),
        ),
        (
            "monitoring_started",
            format!(r#"{{"domain":{domain},"user":{user}}}"#),
            format!(r#""domain":{domain},"alert":null,"user":{user}"#),
        ),
        (
            "something.else",
            format!(r#"{{"domain":"text","user":[],"alert":{alert}}}"#),
            format!(r#""domain":null,"alert":{alert},"user":null"#),
        ),
    ];
    for (n, (kind, data, parts)) in cases.iter().enumerate() {
        let id = format!("e-{n}");
        api.publish_raw(event(&id, kind, data), None)
            .await
            .expect(202);
        let received = hooks.arrived("in", n + 1).await.remove(n);
        let sub = &made.id;
        let body = format!(
            r#"{{"event_id":"{id}","event_type":"{kind}","timestamp":"{AT}",{parts},"webhook_id":"{sub}"}}"#
        );
        assert_eq!(received.body, body);
        assert_common_headers(&received);
        let hex = made.document["secret"]["hex"].as_str().unwrap();
        let expected = leicbit_signature(&received, hex);
        assert_eq!(
            received.header("x-leicbit-signature"),
            Some(expected.as_str())
        );
        let webhook = Webhook::new(made.whsec()).unwrap();
        webhook.verify(&received.body, &received.headers).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_signs_leicbit_twice() {
    let (hooks, carillon) = leicbit(|_, _| status(200)).await;
    let api = &carillon.api;
    let made = api
        .subscribe(&hooks.url("in"), json!({ "format": "leicbit" }))
        .await;
    let path = format!("{}/rotate-secret", made.path());
    let rotated = api.post(&path, &json!({})).await.expect(200);
    api.publish(&event("e")).await;
    let received = hooks.arrived("in", 1).await.remove(0);
    let hex = |document: &Value| document["secret"]["hex"].as_str().unwrap().to_owned();
    let newest = leicbit_signature(&received, &hex(&rotated));
    let before = leicbit_signature(&received, &hex(&made.document));
    let (_, before) = before.split_once(',').unwrap();
    let both = format!("{newest},{before}");
    assert_eq!(received.header("x-leicbit-signature"), Some(both.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn leicbit_is_acknowledged_by_200_alone() {
    let (hooks, carillon) = leicbit(|_, times| status([204, 201, 200][times - 1])).await;
    let api = &carillon.api;
    api.subscribe(&hooks.url("in"), json!({ "format": "leicbit" }))
        .await;
    api.publish(&event("e")).await;
    let attempts = api.items_when("/v1/attempts", 3).await;
    let outcomes = |name: &str| -> Vec<Value> {
        attempts
            .iter()
            .rev()
            .map(|attempt| attempt[name].clone())
            .collect()
    };
    assert_eq!(outcomes("status"), [204, 201, 200]);
    assert_eq!(outcomes("outcome"), ["failed", "failed", "delivered"]);
    assert_eq!(
        outcomes("reason"),
        [
            json!("not_acknowledged"),
            json!("not_acknowledged"),
            Value::Null
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_has_the_same_id_and_body_and_a_fresh_signature() {
    let hooks = Hooks::answering(|_, times| status(if times == 3 { 200 } else { 500 })).await;
    let carillon = Dispatcher::with(|config| {
        config.retry.schedule = Some(vec![Duration::from_millis(1100); 2]);
        config.retry.jitter = 0.0;
    });
    let carillon = carillon.await;
    let api = &carillon.api;
    let made = api.subscribe(&hooks.url("all"), json!({})).await;
    api.publish(&event("e")).await;
    let seen = hooks.arrived("all", 3).await;
    let webhook = Webhook::new(made.whsec()).unwrap();
    for pair in seen.windows(2) {
        assert_eq!(webhook_id(&pair[0]), webhook_id(&pair[1]));
        assert_eq!(pair[0].body, pair[1].body);
        for fresh in ["webhook-timestamp", "webhook-signature"] {
            assert_ne!(pair[0].header(fresh), pair[1].header(fresh));
        }
    }
    for received in &seen {
        webhook.verify(&received.body, &received.headers).unwrap();
        assert_common_headers(received);
    }
}
