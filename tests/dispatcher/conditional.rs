//! Nobody overwrites what they have not seen, and what is made may be asked for again.

use http::Method;
use serde_json::{Value, json};

use super::harness::{Answer, Api, Dispatcher, TENANT};

const ALL: &str = "/v1/subscriptions";
const ENDPOINT: &str = "http://127.0.0.1:9/";

async fn with_header(
    api: &Api,
    (method, path): (Method, &str),
    (name, value): (&str, &str),
    document: &Value,
) -> Answer {
    let request = api.request(method, path).header(name, value);
    api.send(request.json(document)).await
}

fn tag(answer: &Answer) -> String {
    answer.headers["etag"].to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_made_to_what_was_read() {
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let document = json!({ "tenant": TENANT, "url": ENDPOINT });
    let made = api.post(ALL, &document).await;
    let first = tag(&made);
    let path = made.headers["location"].to_str().unwrap().to_owned();
    assert_eq!(path, format!("{ALL}/{}", made.body["id"].as_str().unwrap()));
    assert_eq!(tag(&api.get(&path).await), first);
    let patch = json!({ "description": "changed" });
    let change =
        async |tag: &str| with_header(api, (Method::PATCH, &path), ("if-match", tag), &patch).await;
    let changed = change(&format!("\"other\", {first}")).await;
    let second = tag(&changed);
    assert_ne!(second, first);
    changed.expect(200);
    let refused = change(&first).await.refused(412, "precondition_failed");
    assert_eq!(refused["etag"], second);
    change(&format!("W/{second}, \"one,two\""))
        .await
        .expect(200);
    change("*").await.expect(200);
    change("unquoted").await.refused(400, "invalid_header");
    for method in [Method::PUT, Method::DELETE] {
        let answer = with_header(api, (method, &path), ("if-match", &first), &document).await;
        answer.refused(412, "precondition_failed");
    }
    let only_new = ("if-none-match", "*");
    let there = with_header(api, (Method::PUT, &path), only_new, &document).await;
    there.refused(412, "precondition_failed");
    let new = format!("{ALL}/sub_new");
    let made = with_header(api, (Method::PUT, &new), only_new, &document).await;
    let latest = tag(&made);
    made.expect(201);
    // What is declared as it is stays as it is.
    let same = api.put(&new, &document).await;
    assert_eq!(tag(&same), latest);
    let nothing = json!({});
    let deleted = with_header(api, (Method::DELETE, &new), ("if-match", &latest), &nothing).await;
    assert_eq!(deleted.status, 204);
    // Made once more under the same id it is another one.
    let again = api.put(&new, &document).await;
    assert_ne!(tag(&again), latest);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_under_a_key_is_made_once() {
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let document = json!({ "tenant": TENANT, "url": ENDPOINT });
    let make = async |key: &str, document: &Value| {
        with_header(api, (Method::POST, ALL), ("idempotency-key", key), document).await
    };
    let first = make("k1", &document).await.expect(201);
    assert!(first["secret"]["whsec"].is_string());
    assert_eq!(make("k1", &document).await.expect(201), first);
    let other = json!({ "tenant": TENANT, "url": ENDPOINT, "description": "other" });
    let refused = make("k1", &other)
        .await
        .refused(409, "idempotency_key_reused");
    assert_eq!(refused["id"], first["id"]);
    assert_ne!(make("k2", &document).await.expect(201)["id"], first["id"]);
    let of_bell = json!({ "tenant": "bell", "url": ENDPOINT });
    assert_ne!(make("k1", &of_bell).await.expect(201)["id"], first["id"]);
    make(&"k".repeat(256), &document)
        .await
        .refused(400, "invalid_header");
    let twice = api
        .request(Method::POST, ALL)
        .header("idempotency-key", "k3");
    let twice = twice.header("idempotency-key", "k4").json(&document);
    let refused = api.send(twice).await.refused(400, "invalid_header");
    assert_eq!(refused["field"], "idempotency-key");
    // Changed since, its secret is not shown any more.
    let path = format!("{ALL}/{}", first["id"].as_str().unwrap());
    api.patch(&path, &json!({ "description": "changed" }))
        .await
        .expect(200);
    make("k1", &document)
        .await
        .refused(409, "idempotency_key_used");
    assert_eq!(api.items(&format!("{ALL}?tenant={TENANT}")).await.len(), 2);
    // The key goes with what it made, and makes it anew.
    api.delete(&path).await.expect(204);
    let anew = make("k1", &document).await.expect(201);
    assert_eq!(anew["id"], first["id"]);
    assert_ne!(anew["secret"], first["secret"]);
}
