//! Refusals: their form, and who is let in.

use carillon::api::auth::Access;
use carillon::api::routes;
use http::Method;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::harness::{Dispatcher, TENANT};
use super::hooks::Hooks;

const TOKEN: &str = "correct-horse-battery";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said_to_be_not_there() {
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    for path in ["/v1", "/v1/nothing", "/v2/events", "/v1/subscriptions/"] {
        api.get(path).await.refused(404, "not_found");
    }
    for (method, path) in [
        (Method::PATCH, "/v1/subscriptions"),
        (Method::DELETE, "/v1/subscriptions"),
        (Method::POST, "/v1/subscriptions/sub_1"),
        (Method::GET, "/v1/events"),
        (Method::GET, "/v1/dead-letters/redrive"),
        (Method::POST, "/v1/attempts"),
        (Method::GET, "/v1/quarantine/1/requeue"),
    ] {
        let answer = api.send(api.request(method.clone(), path)).await;
        assert!(answer.headers.contains_key("allow"), "{method} {path}");
        answer.refused(405, "method_not_allowed");
    }
    let missing = [
        (Method::DELETE, "/v1/dead-letters/msg_1"),
        (Method::DELETE, "/v1/dead-letters/nonsense"),
        (Method::POST, "/v1/quarantine/7/requeue"),
        (Method::POST, "/v1/subscriptions/sub_1/test"),
    ];
    for (method, path) in missing {
        let answer = api.send(api.request(method, path)).await;
        answer.refused(404, "not_found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_must_be_json_objects() {
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let post = |path: &str, kind: &'static str, body: &'static str| {
        let request = api.request(Method::POST, path).body(body);
        api.send(request.header("content-type", kind))
    };
    for path in ["/v1/subscriptions", "/v1/dead-letters/redrive"] {
        for kind in ["text/plain", "application/x-www-form-urlencoded"] {
            let answer = post(path, kind, "{}").await;
            answer.refused(415, "unsupported_content_type");
        }
        for body in ["{", "[]", "5", "\"text\"", "{} {}"] {
            let answer = post(path, "application/json", body).await;
            answer.refused(400, "malformed");
        }
    }
    let long = json!({ "tenant": TENANT, "description": "x".repeat(300_000) });
    let answer = api.post("/v1/subscriptions", &long).await;
    answer.refused(413, "too_large");
    let plain = format!(r#"{{"tenant":"{TENANT}","url":"https://example.com/"}}"#);
    let without_type = api.request(Method::POST, "/v1/subscriptions").body(plain);
    api.send(without_type).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_admin_token_nobody_is_let_in() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::with(|config| {
        config.http.admin_token = Some(SecretString::from(TOKEN));
    });
    let carillon = carillon.await;
    let mut api = carillon.api.clone();
    let gated = |route: &routes::Route| route.access != Access::Anyone;
    for route in routes::table().into_iter().filter(gated) {
        let method = &route.method;
        let path = &route
            .path
            .replace("{id}", "sub_1")
            .replace("{tenant}", "acme");
        let none = api.request(method.clone(), path);
        let header = |value: &str| {
            let request = api.request(method.clone(), path);
            request.header("authorization", value)
        };
        let forged = header("Bearer ct_eyJ0ZW5hbnQiOiJhY21lIn0.AAAA");
        let longer = header(&format!("Bearer {TOKEN}x"));
        let scheme = header("Basic Og==");
        for request in [none, forged, longer, scheme, header(TOKEN)] {
            let answer = api.send(request).await;
            let challenge = answer.headers["www-authenticate"].to_str().unwrap();
            assert!(challenge.starts_with("Bearer"), "{method} {path}");
            answer.refused(401, "unauthorized");
        }
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(api.ops(path).await.0, 200, "{path}");
    }
    let lower_case = api.request(Method::GET, "/v1/subscriptions");
    let lower_case = lower_case.header("authorization", format!("bearer {TOKEN}"));
    api.send(lower_case).await.expect(200);
    api.token = Some(TOKEN.to_owned());
    assert_eq!(api.items("/v1/subscriptions").await, [] as [Value; 0]);
    let made = api.subscribe(&hooks.url("all"), json!({})).await;
    let tested = api.post(&format!("{}/test", made.path()), &json!({})).await;
    assert_eq!(tested.expect(200)["outcome"], "delivered");
    let request = &hooks.seen("all")[0];
    assert!(!format!("{request:?}").contains(TOKEN));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_not_to_be_kept_or_sniffed() {
    let carillon = Dispatcher::start().await;
    for path in ["/v1/subscriptions", "/v1/nothing"] {
        let answer = carillon.api.get(path).await;
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    }
}
