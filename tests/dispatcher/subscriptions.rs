//! Subscriptions over the API: create, read, list, change, delete, and every rule.

use carillon::domain::timestamp::UnixMillis;
use http::Method;
use serde_json::{Value, json};

use super::harness::{Api, Dispatcher, Subscribed, TENANT, event, typed_event};
use super::hooks::{Hooks, event_ids};

const URL: &str = "https://hooks.example.com/in";

#[tokio::test(flavor = "multi_thread")]
async fn creating_one_shows_it_whole_with_its_secret_this_once() {
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let document = json!({ "tenant": TENANT, "url": URL });
    let answer = api.post("/v1/subscriptions", &document).await;
    let location = answer.headers["location"].to_str().unwrap().to_owned();
    let mut created = answer.expect(201);
    let id = created["id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("sub_"), "{id}");
    assert_eq!(location, format!("/v1/subscriptions/{id}"));
    let secret = created.as_object_mut().unwrap().remove("secret").unwrap();
    let hex = hex::decode(secret["hex"].as_str().unwrap()).unwrap();
    assert_eq!(hex.len(), 32);
    let whsec = secret["whsec"]
        .as_str()
        .unwrap()
        .strip_prefix("whsec_")
        .unwrap();
    use base64::Engine as _;
    let whsec = base64::engine::general_purpose::STANDARD
        .decode(whsec)
        .unwrap();
    assert_eq!(hex, whsec);

    assert_eq!(api.get(&location).await.expect(200), created);
    assert_eq!(api.items("/v1/subscriptions").await, [created.clone()]);
    for time in ["created_at", "updated_at"] {
        let text = created.as_object_mut().unwrap().remove(time).unwrap();
        assert!(UnixMillis::parse_rfc3339(text.as_str().unwrap()).is_some());
    }
    let defaults = json!({
        "id": id, "tenant": TENANT, "url": URL, "format": "standard", "description": "",
        "enabled": true, "event_types": ["*"], "filter": null, "headers": {},
        "rate_limit": null, "timeout_ms": 10000, "retry": null, "signing": "hmac-sha256",
        "disabled_reason": null,
    });
    assert_eq!(created, defaults);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages() {
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let mut made = Vec::new();
    for n in 0..7 {
        let tenant = if n < 5 { TENANT } else { "globex" };
        made.push(api.subscribe(URL, json!({ "tenant": tenant })).await.id);
    }
    let all = api.items("/v1/subscriptions").await;
    let mut ids: Vec<_> = all
        .iter()
        .map(|item| item["id"].as_str().unwrap())
        .collect();
    ids.sort_unstable();
    made.sort_unstable();
    assert_eq!(ids, made);

    let (mut sizes, mut seen, mut cursor) = (Vec::new(), Vec::new(), String::new());
    loop {
        let path = format!("/v1/subscriptions?tenant={TENANT}&limit=2&cursor={cursor}");
        let page = api.get(&path).await.expect(200);
        let items = page["items"].as_array().unwrap();
        assert!(items.iter().all(|item| item["tenant"] == TENANT));
        sizes.push(items.len());
        seen.extend(
            items
                .iter()
                .map(|item| item["id"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(sizes, [2, 2, 1]);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 5);
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("cursor=nonsense", "cursor"),
        ("tenant=a%20b", "tenant"),
        ("colour=red", "colour"),
        ("limit=1&limit=2", "limit"),
    ] {
        let answer = api.get(&format!("/v1/subscriptions?{query}")).await;
        assert_eq!(answer.refused(422, "invalid_parameter")["field"], field);
    }
}

/// Fields with values that break their rules, and the field that the answer names.
fn broken_fields() -> Vec<(Value, &'static str)> {
    let mut all = broken_settings();
    all.extend(broken_headers());
    all.extend(broken_addresses());
    all
}

fn broken_addresses() -> Vec<(Value, &'static str)> {
    vec![
        (json!({ "tenant": "" }), "tenant"),
        (json!({ "tenant": 5 }), "tenant"),
        (json!({ "tenant": "x".repeat(129) }), "tenant"),
        (json!({ "url": "hooks.example.com" }), "url"),
        (json!({ "url": "ftp://example.com" }), "url"),
        (json!({ "url": "https://me@example.com/" }), "url"),
        (json!({ "url": "https://me:pw@example.com/" }), "url"),
        (json!({ "url": "https://example.com/#part" }), "url"),
        (
            json!({ "url": "http://example.com", "format": "leicbit" }),
            "url",
        ),
    ]
}

fn broken_headers() -> Vec<(Value, &'static str)> {
    let many: Value = (0..21).map(|n| (format!("x-{n}"), json!(""))).collect();
    let mut all = vec![
        (json!({ "headers": [] }), "headers"),
        (json!({ "headers": many }), "headers"),
        (json!({ "headers": { "x-a": 1 } }), "headers.x-a"),
        (
            json!({ "headers": { "x-a": "1\r\nx-b: 2" } }),
            "headers.x-a",
        ),
        (
            json!({ "headers": { "not a name": "1" } }),
            "headers.not a name",
        ),
    ];
    for (name, field) in [
        ("webhook-id", "headers.webhook-id"),
        ("Webhook-Signature", "headers.Webhook-Signature"),
        ("Content-Type", "headers.Content-Type"),
        ("User-Agent", "headers.User-Agent"),
        ("host", "headers.host"),
        ("x-webhook-has-more", "headers.x-webhook-has-more"),
        ("X-Leicbit-Signature", "headers.X-Leicbit-Signature"),
    ] {
        all.push((json!({ "headers": { name: "mine" } }), field));
    }
    all
}

fn broken_settings() -> Vec<(Value, &'static str)> {
    let many_types: Value = (0..101).map(|n| json!(format!("t{n}"))).collect();
    vec![
        (json!({ "format": "xml" }), "format"),
        (json!({ "description": "é".repeat(257) }), "description"),
        (json!({ "enabled": "yes" }), "enabled"),
        (json!({ "event_types": [] }), "event_types"),
        (json!({ "event_types": "a" }), "event_types"),
        (json!({ "event_types": ["ok", "not ok"] }), "event_types[1]"),
        (json!({ "event_types": many_types }), "event_types"),
        (
            json!({ "rate_limit": { "per_second": 0, "burst": 1 } }),
            "rate_limit.per_second",
        ),
        (
            json!({ "rate_limit": { "per_second": -1, "burst": 1 } }),
            "rate_limit.per_second",
        ),
        (
            json!({ "rate_limit": { "per_second": 1, "burst": 0 } }),
            "rate_limit.burst",
        ),
        (
            json!({ "rate_limit": { "per_second": 1 } }),
            "rate_limit.burst",
        ),
        (json!({ "timeout_ms": 99 }), "timeout_ms"),
        (json!({ "timeout_ms": 60001 }), "timeout_ms"),
        (json!({ "timeout_ms": 1.5 }), "timeout_ms"),
        (
            json!({ "retry": { "max_attempts": 0 } }),
            "retry.max_attempts",
        ),
        (
            json!({ "retry": { "multiplier": 0.5 } }),
            "retry.multiplier",
        ),
        (
            json!({ "retry": { "initial_ms": 100, "max_ms": 99 } }),
            "retry.max_ms",
        ),
        (json!({ "retry": { "tries": 3 } }), "retry.tries"),
        (json!({ "signing": "rsa" }), "signing"),
        (
            json!({ "signing": "ed25519", "format": "leicbit" }),
            "signing",
        ),
        (json!({ "event_type": ["a"] }), "event_type"),
        (json!({ "filter": [] }), "filter"),
        (json!({ "filter": { "data": { "n": 5 } } }), "filter.data.n"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rule_names_its_field_and_changes_nothing() {
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let kept = api.subscribe(URL, json!({})).await;
    let before = api.get(&kept.path()).await.expect(200);
    for missing in ["tenant", "url"] {
        let mut document = json!({ "tenant": TENANT, "url": URL });
        document.as_object_mut().unwrap().remove(missing);
        let problem = api.post("/v1/subscriptions", &document).await;
        assert_eq!(problem.refused(422, "invalid_field")["field"], missing);
    }
    for (change, field) in broken_fields() {
        let mut document = json!({ "tenant": TENANT, "url": URL });
        let fields = change.as_object().unwrap().clone();
        document.as_object_mut().unwrap().extend(fields);
        let problem = api.post("/v1/subscriptions", &document).await;
        let problem = problem.refused(422, "invalid_field");
        assert_eq!(problem["field"], field, "created with {change}: {problem}");
        let problem = api.patch(&kept.path(), &change).await;
        let problem = problem.refused(422, "invalid_field");
        assert_eq!(problem["field"], field, "changed to {change}: {problem}");
    }
    let near = api.patch(&kept.path(), &json!({ "filtre": {} })).await;
    let detail = near.refused(422, "invalid_field")["detail"].clone();
    assert!(detail.as_str().unwrap().contains("`filter`"), "{detail}");
    assert_eq!(api.items("/v1/subscriptions").await, [before]);
}

#[tokio::test(flavor = "multi_thread")]
async fn http_can_be_ruled_out() {
    let carillon = Dispatcher::with(|config| config.egress.require_https = true).await;
    let document = json!({ "tenant": TENANT, "url": "http://example.com/" });
    let answer = carillon.api.post("/v1/subscriptions", &document).await;
    assert_eq!(answer.refused(422, "invalid_field")["field"], "url");
    carillon.api.subscribe(URL, json!({})).await;
}

async fn patched(api: &Api, subscription: &Subscribed, patch: Value) -> Value {
    let changed = api.patch(&subscription.path(), &patch).await.expect(200);
    assert_eq!(api.get(&subscription.path()).await.expect(200), changed);
    changed
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_merge_patches() {
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let fields = json!({
        "description": "d", "event_types": ["a.*"], "filter": { "data": { "n": [1] } },
        "headers": { "x-a": "1", "x-b": "2" }, "rate_limit": { "per_second": 2.5, "burst": 3 },
        "timeout_ms": 500, "retry": { "max_attempts": 3, "initial_ms": 10 },
    });
    let made = api.subscribe(URL, fields.clone()).await;
    let shown = api.get(&made.path()).await.expect(200);
    for (name, value) in fields.as_object().unwrap() {
        assert_eq!(shown[name], *value);
    }
    assert_eq!(patched(api, &made, json!({})).await["description"], "d");
    let patch = json!({ "headers": { "x-a": null, "x-c": "3" }, "retry": { "max_ms": 20 } });
    let changed = patched(api, &made, patch).await;
    assert_eq!(changed["headers"], json!({ "x-b": "2", "x-c": "3" }));
    assert_eq!(changed["retry"]["max_attempts"], 3);
    assert_eq!(changed["retry"]["max_ms"], 20);
    assert!(changed.get("secret").is_none());

    // What is null has its default again, and what was shown may be written back.
    let names = fields.as_object().unwrap().keys();
    let nulls: Value = names.map(|name| (name.clone(), Value::Null)).collect();
    let reset = patched(api, &made, nulls).await;
    for (name, default) in [
        ("description", json!("")),
        ("event_types", json!(["*"])),
        ("filter", Value::Null),
        ("headers", json!({})),
        ("rate_limit", Value::Null),
        ("timeout_ms", json!(10_000)),
        ("retry", Value::Null),
    ] {
        assert_eq!(reset[name], default, "{name}");
    }
    let again = patched(api, &made, reset.clone()).await;
    assert_eq!(again["created_at"], reset["created_at"]);
    for (patch, field) in [
        (json!({ "id": "sub_1" }), "id"),
        (
            json!({ "created_at": "2026-03-01T12:30:00Z" }),
            "created_at",
        ),
        (json!({ "tenant": "globex" }), "tenant"),
        (json!({ "url": null }), "url"),
    ] {
        let refused = api.patch(&made.path(), &patch).await;
        assert_eq!(refused.refused(422, "invalid_field")["field"], field);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_one_is_gone() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let deleted = api.subscribe(&hooks.url("deleted"), json!({})).await;
    api.subscribe(&hooks.url("kept"), json!({})).await;
    api.publish(&event("before")).await;
    hooks.arrived("deleted", 1).await;
    let answer = api.delete(&deleted.path()).await;
    assert_eq!((answer.status, answer.body), (204, Value::Null));
    let (path, none) = (deleted.path(), json!({}));
    api.get(&path).await.refused(404, "not_found");
    api.patch(&path, &none).await.refused(404, "not_found");
    api.delete(&path).await.refused(404, "not_found");
    for action in ["test", "rotate-secret"] {
        let answer = api.post(&format!("{path}/{action}"), &none).await;
        answer.refused(404, "not_found");
    }
    for id in ["nonsense", "sub_", "sub_a-b", "%FF"] {
        let answer = api.get(&format!("/v1/subscriptions/{id}")).await;
        answer.refused(404, "not_found");
    }
    api.publish(&event("after")).await;
    hooks.arrived("kept", 2).await;
    api.settled().await;
    assert_eq!(event_ids(&hooks.seen("deleted")), ["before"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_one_gets_nothing_until_it_is_enabled_again() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let made = api.subscribe(&hooks.url("all"), json!({})).await;
    let disabled = patched(api, &made, json!({ "enabled": false })).await;
    assert_eq!(disabled["disabled_reason"], "manual");
    assert_eq!(disabled["enabled"], false);
    api.publish(&event("while-disabled")).await;
    api.settled().await;
    // Another change leaves it as it is.
    let still = patched(api, &made, json!({ "description": "d" })).await;
    assert_eq!(still["disabled_reason"], "manual");
    let enabled = patched(api, &made, json!({ "enabled": true })).await;
    assert_eq!(enabled["disabled_reason"], Value::Null);
    api.publish(&event("enabled-again")).await;
    hooks.arrived("all", 1).await;
    api.settled().await;
    assert_eq!(event_ids(&hooks.seen("all")), ["enabled-again"]);

    let off = api
        .subscribe(&hooks.url("off"), json!({ "enabled": false }))
        .await;
    assert_eq!(off.document["disabled_reason"], "manual");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_star_is_every_tenant_and_others_are_kept_apart() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    api.subscribe(&hooks.url("every"), json!({ "tenant": "*" }))
        .await;
    api.subscribe(&hooks.url("acme"), json!({})).await;
    api.subscribe(&hooks.url("globex"), json!({ "tenant": "globex" }))
        .await;
    let mut other = event("of-globex");
    other["tenant"] = json!("globex");
    let mut nobody = event("of-nobody");
    nobody["tenant"] = json!("acme2");
    api.publish(&json!([event("of-acme"), other, nobody])).await;
    api.settled().await;
    assert_eq!(
        event_ids(&hooks.seen("every")),
        ["of-acme", "of-globex", "of-nobody"]
    );
    assert_eq!(event_ids(&hooks.seen("acme")), ["of-acme"]);
    assert_eq!(event_ids(&hooks.seen("globex")), ["of-globex"]);
    let every = api.items("/v1/subscriptions?tenant=*").await;
    assert_eq!(every.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn event_types_select_by_glob() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    for (name, types) in [
        ("exact", json!(["a.b"])),
        ("glob", json!(["a.*", "x"])),
        ("any", json!(["*"])),
        ("none", json!(["b", "a.b.c.d"])),
    ] {
        api.subscribe(&hooks.url(name), json!({ "event_types": types }))
            .await;
    }
    let published: Value = ["a.b", "a.b.c", "ab", "x"]
        .iter()
        .map(|kind| typed_event(kind, kind, &json!({ "n": kind })))
        .collect();
    api.publish(&published).await;
    api.settled().await;
    assert_eq!(event_ids(&hooks.seen("exact")), ["a.b"]);
    assert_eq!(event_ids(&hooks.seen("glob")), ["a.b", "a.b.c", "x"]);
    assert_eq!(event_ids(&hooks.seen("any")), ["a.b", "a.b.c", "ab", "x"]);
    assert_eq!(hooks.seen("none").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_counts_from_the_next_event_on() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let made = api.subscribe(&hooks.url("old"), json!({})).await;
    api.publish(&event("first")).await;
    hooks.arrived("old", 1).await;
    patched(
        api,
        &made,
        json!({ "url": hooks.url("new"), "headers": { "x-team": "blue" } }),
    )
    .await;
    api.publish(&event("second")).await;
    let seen = hooks.arrived("new", 1).await;
    assert_eq!(seen[0].header("x-team"), Some("blue"));
    assert_eq!(seen[0].method, Method::POST);
    assert_eq!(hooks.seen("old").len(), 1);
}
