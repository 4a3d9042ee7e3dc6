//! Which subscriptions want an event, and which rule of the others says no.

use serde_json::{Value, json};

use super::harness::{Api, Dispatcher, event, typed_event};

const ENDPOINT: &str = "http://127.0.0.1:9/";

/// What `explain` says of a subscription: whether it matches, the rule, the detail.
async fn said(api: &Api, request: &Value, id: &str) -> Value {
    let answer = api.post("/v1/explain", request).await.expect(200);
    let items = answer["items"].as_array().unwrap();
    let item = items.iter().find(|item| item["subscription_id"] == id);
    item.unwrap_or_else(|| panic!("{id} is not in {answer}"))
        .clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rule_that_says_no_is_named() {
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let filter = json!({ "data": { "severity": [{ "numeric": [">=", 7] }] } });
    for (more, rule, detail) in [
        (json!({}), None, ""),
        (
            json!({ "enabled": false }),
            Some("enabled"),
            "it is disabled",
        ),
        (
            json!({ "event_types": ["other.*"] }),
            Some("event_types"),
            "its event types are `other.*`, and the event's is `demo.happened`",
        ),
        (
            json!({ "filter": filter }),
            Some("filter"),
            "`data.severity`, where the event has 3",
        ),
        (json!({ "filter": { "data": { "n": ["e"] } } }), None, ""),
    ] {
        let made = api.subscribe(ENDPOINT, more).await;
        let mut explained = event("e");
        explained["data"]["severity"] = json!(3);
        let item = said(api, &json!({ "event": explained }), &made.id).await;
        assert_eq!(item["matches"], rule.is_none(), "{item}");
        assert_eq!(item["rule"], json!(rule), "{item}");
        assert!(item["detail"].as_str().unwrap().contains(detail), "{item}");
        if rule == Some("filter") {
            assert_eq!(
                (&item["path"], &item["found"]),
                (&json!("data.severity"), &json!("3"))
            );
        }
    }
    let answer = api
        .post("/v1/explain", &json!({ "event": event("e") }))
        .await;
    let answer = answer.expect(200);
    assert_eq!(
        (&answer["matched"], &answer["next"]),
        (&json!(2), &Value::Null)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_and_the_alerts_are_explained() {
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let filter = json!({ "data": { "alerts": { "alert": { "kind": ["dns"] } } } });
    let made = api.subscribe(ENDPOINT, json!({ "filter": filter })).await;
    let every = json!({ "tenant": "*", "url": ENDPOINT });
    let every = api.post("/v1/subscriptions", &every).await.expect(201);
    let alerts = |kinds: &[&str]| {
        let alert = |kind| json!({ "alert": { "kind": kind }, "result": {} });
        let alerts: Vec<_> = kinds.iter().map(alert).collect();
        let data = json!({ "domain": "example.com", "lookup_id": "l", "alerts": alerts });
        typed_event("e", "lookup_result.alerts", &data)
    };
    let found = said(
        api,
        &json!({ "event": alerts(&["tls", "dns", "dns"]) }),
        &made.id,
    )
    .await;
    assert_eq!(
        (&found["matches"], &found["alerts"]),
        (&json!(true), &json!([1, 2]))
    );
    let none = said(api, &json!({ "event": alerts(&["tls"]) }), &made.id).await;
    assert_eq!(
        (&none["matches"], &none["rule"]),
        (&json!(false), &json!("filter"))
    );
    // As published by somebody else, it is not this tenant's.
    let mut foreign = alerts(&["dns"]);
    foreign["tenant"] = json!("bell");
    let asked = json!({ "event": foreign, "tenant": "acme" });
    assert_eq!(said(api, &asked, &made.id).await["rule"], "tenant");
    assert_eq!(
        said(api, &asked, every["id"].as_str().unwrap()).await["matches"],
        true
    );
    // What is not asked for here may be left out.
    let short = json!({ "event": { "type": "a.b", "data": {} }, "tenant": "acme" });
    assert_eq!(said(api, &short, &made.id).await["rule"], "filter");
    for (request, code) in [
        (json!({}), "invalid_field"),
        (json!({ "event": [] }), "invalid_field"),
        (
            json!({ "event": { "type": "a b", "data": {} }, "tenant": "acme" }),
            "invalid_field",
        ),
        (
            json!({ "event": { "type": "a.b", "data": {} } }),
            "missing_field",
        ),
        (
            json!({ "event": event("e"), "tennant": "acme" }),
            "invalid_field",
        ),
    ] {
        api.post("/v1/explain", &request).await.refused(422, code);
    }
}
