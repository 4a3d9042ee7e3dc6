//! What `/openapi.json` says is so: each operation succeeds as it is described, and what is not
//! described is noticed.

use carillon::api::openapi;
use http::{HeaderMap, Method};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::harness::described::{check, operations};
use super::harness::{Dispatcher, TENANT, event};
use super::hooks::{Hooks, status};
use super::secrets::ring;

#[test]
fn what_is_not_described_is_noticed() {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/json".parse().unwrap());
    let noticed = |method: Method, path: &str, status: u16, body: Value| {
        let headers = headers.clone();
        std::panic::catch_unwind(|| check(&method, path, status, &headers, &body)).is_err()
    };
    let list = "/v1/attempts?limit=1";
    let empty = || json!({ "items": [], "next": null });
    assert!(!noticed(Method::GET, list, 200, empty()));
    assert!(noticed(Method::GET, list, 202, empty()), "status");
    assert!(noticed(Method::GET, "/v1/attempt", 200, empty()), "path");
    assert!(noticed(Method::PUT, list, 200, empty()), "method");
    assert!(noticed(Method::GET, list, 200, Value::Null), "no document");
    assert!(
        noticed(Method::GET, list, 200, json!({ "items": [] })),
        "a member is missing"
    );
    let more = json!({ "items": [], "next": null, "total": 0 });
    assert!(
        noticed(Method::GET, list, 200, more),
        "a member that nobody named"
    );
    let nested = json!({ "items": [{}], "next": null });
    assert!(
        noticed(Method::GET, list, 200, nested),
        "an item that is none"
    );
    assert!(noticed(Method::GET, list, 404, empty()), "content type");
    assert!(
        noticed(Method::DELETE, "/v1/subscriptions/sub_1", 204, empty()),
        "a document"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_is_served_to_whoever_asks() {
    let carillon = Dispatcher::with(|config| {
        config.http.admin_token = Some(SecretString::from("correct-horse-battery"));
    });
    let carillon = carillon.await;
    let api = &carillon.api;
    let answer = api.get("/openapi.json").await;
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["cache-control"], "public, max-age=300");
    let served = answer.expect(200);
    let made: Value = serde_json::from_str(openapi::text()).unwrap();
    assert_eq!(served, made);
    // Nobody else is let in by it.
    api.get("/v1/subscriptions")
        .await
        .refused(401, "unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_method_is_answered_with_those_that_there_are() {
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let others = [
        Method::OPTIONS,
        Method::TRACE,
        Method::from_bytes(b"BREW").unwrap(),
    ];
    for path in ["/v1/events", "/v1/subscriptions/sub_1", "/openapi.json"] {
        for method in &others {
            let answer = api.send(api.request(method.clone(), path)).await;
            assert!(answer.headers.contains_key("allow"), "{method} {path}");
            answer.refused(405, "method_not_allowed");
        }
    }
    // A reading one is answered like `GET`, without the document (RFC 9110 section 9.3.2).
    let head = api
        .send(api.request(Method::HEAD, "/v1/subscriptions"))
        .await;
    assert_eq!(head.expect(200), Value::Null);
    let head = api.send(api.request(Method::HEAD, "/v1/events")).await;
    assert_eq!(head.headers["allow"], "POST");
    assert_eq!(head.expect(405), Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_succeeds_as_it_is_described() {
    let hooks = Hooks::answering(|request, _| {
        status(if request.path.ends_with("gone") {
            410
        } else {
            200
        })
    });
    let hooks = hooks.await;
    let carillon = Dispatcher::with(|config| {
        config.secrets.keys = ring("a");
    });
    let carillon = carillon.await;
    let api = &carillon.api;
    api.get("/openapi.json").await.expect(200);
    let made = api.subscribe(&hooks.url("all"), json!({})).await;
    api.publish(&event("one")).await;
    let delivered = api.items_when("/v1/attempts", 1).await;
    let delivery = format!(
        "/v1/deliveries/{}",
        delivered[0]["delivery_id"].as_str().unwrap()
    );
    assert_eq!(api.get(&delivery).await.expect(200)["state"], "delivered");
    api.post(&format!("{delivery}/redeliver"), &json!({}))
        .await
        .expect(202);

    let overview = api.get("/v1/overview").await.expect(200);
    assert_eq!(overview["minutes"].as_array().unwrap().len(), 60);
    assert_eq!(overview["worst"], json!([]));
    let lane = api.get(&format!("{}/lane", made.path())).await.expect(200);
    assert_eq!(lane["circuit"], "closed");

    let gone = api.subscribe(&hooks.url("gone"), json!({})).await;
    api.publish(&event("two")).await;
    let dead = api.items_when("/v1/dead-letters", 1).await;
    api.get(&format!(
        "/v1/deliveries/{}",
        dead[0]["id"].as_str().unwrap()
    ))
    .await
    .expect(200);
    api.delete(&format!(
        "/v1/dead-letters/{}",
        dead[0]["id"].as_str().unwrap()
    ))
    .await
    .expect(204);
    api.post("/v1/dead-letters/redrive", &json!({ "dry_run": true }))
        .await
        .expect(200);
    api.delete(&gone.path()).await.expect(204);

    api.items("/v1/subscriptions").await;
    let path = made.path();
    let shown = api.get(&path).await.expect(200);
    api.patch(&path, &json!({ "description": "changed" }))
        .await
        .expect(200);
    api.put(&path, &shown).await.expect(200);
    api.put(
        "/v1/subscriptions/sub_chosen",
        &json!({ "tenant": TENANT, "url": hooks.url("all") }),
    )
    .await
    .expect(201);
    api.put("/v1/subscriptions", &json!({ "items": [shown] }))
        .await
        .expect(200);
    api.post(&format!("{path}/test"), &json!({}))
        .await
        .expect(200);
    api.post(&format!("{path}/rotate-secret"), &json!({}))
        .await
        .expect(200);
    api.post("/v1/explain", &json!({ "event": event("three") }))
        .await
        .expect(200);
    api.post("/v1/secrets/rotate", &json!({})).await.expect(200);
    api.post("/v1/tenants/acme/tokens", &json!({}))
        .await
        .expect(201);
    api.items("/v1/quarantine").await;
    api.post("/v1/quarantine/requeue", &json!({}))
        .await
        .expect(202);

    let seen = api.succeeded();
    let mut missing = operations();
    missing.retain(|operation| !seen.contains(operation));
    // Nothing is in quarantine here; `quarantine.rs` has what was requeued.
    assert_eq!(missing, ["POST /v1/quarantine/{id}/requeue"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_known_is_refused() {
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let document: Value = serde_json::from_str(openapi::text()).unwrap();
    let (mut queries, mut bodies) = (0, 0);
    for (path, methods) in document["paths"].as_object().unwrap() {
        let is_of_one = path.contains("{id}");
        let path = path.replace("{tenant}", "acme").replace("{id}", "sub_1");
        for (method, operation) in methods.as_object().unwrap() {
            let method: Method = method.to_ascii_uppercase().parse().unwrap();
            // What anyone may read may be asked for with anything behind it.
            if operation["security"] != json!([]) {
                let asked = api.request(method.clone(), &format!("{path}?colour=red"));
                let refused = api.send(asked).await.refused(422, "invalid_parameter");
                assert_eq!(refused["field"], "colour", "{method} {path}");
                queries += 1;
            }
            // What is not there is not looked into.
            if is_of_one {
                continue;
            }
            let body = &operation["requestBody"]["content"]["application/json"]["schema"];
            let named = body["$ref"]
                .as_str()
                .map(|name| document.pointer(&name[1..]).unwrap());
            if named.unwrap_or(body)["additionalProperties"] == false {
                for value in [json!("red"), json!(null)] {
                    let document = json!({ "colour": value });
                    let asked = api.request(method.clone(), &path).json(&document);
                    let refused = api.send(asked).await.refused(422, "invalid_field");
                    assert_eq!(refused["field"], "colour", "{method} {path}");
                }
                bodies += 1;
            }
        }
    }
    assert!(queries >= 22 && bodies >= 6, "{queries} and {bodies}");
}
