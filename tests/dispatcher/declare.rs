//! Declaring subscriptions: what is there afterwards, which secret signs, what is refused.

use carillon::api::DECLARED_MAX;
use carillon::domain::signature::Secret;
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use super::harness::{Api, Dispatcher, TENANT, event};
use super::hooks::Hooks;

pub const ALL: &str = "/v1/subscriptions";
pub const URL: &str = "https://hooks.example.com/in";

pub fn item(more: &Value) -> Value {
    let mut document = json!({ "tenant": TENANT, "url": URL });
    let fields = more.as_object().unwrap().clone();
    document.as_object_mut().unwrap().extend(fields);
    document
}

fn path(id: &str) -> String {
    format!("{ALL}/{id}")
}

/// Publishes an event and says whether what came to `name` verifies with the secret.
async fn signs(api: &Api, hooks: &Hooks, name: &str, id: &str, whsec: &str) -> bool {
    let before = hooks.seen(name).len();
    api.publish(&event(id)).await;
    let received = hooks.arrived(name, before + 1).await.pop().unwrap();
    let webhook = Webhook::new(whsec).unwrap();
    webhook.verify(&received.body, &received.headers).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_declared_is_there_and_signs_with_its_secret() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let secret = Secret::new([7; 32]);
    let given = json!({
        "id": "sub_given", "url": hooks.url("given"), "secret": { "whsec": *secret.to_whsec() },
    });
    let made = json!({ "id": "sub_made", "url": hooks.url("made"), "enabled": true });
    let fresh = json!({ "url": URL, "enabled": false, "signing": "ed25519" });
    let items = [given, made, fresh].map(|more| item(&more));
    let answer = api.put(ALL, &json!({ "items": items })).await.expect(200);
    assert_eq!(answer["created"], 3);
    assert_eq!([&answer["updated"], &answer["unchanged"]], [0, 0]);
    let done = answer["items"].as_array().unwrap();
    assert_eq!(done[0], json!({ "id": "sub_given", "action": "created" }));
    assert_eq!(done[1]["id"], "sub_made");
    let whsec = done[1]["secret"]["whsec"].as_str().unwrap();
    let fresh = done[2]["id"].as_str().unwrap();
    let public = done[2]["secret"]["public_key"].as_str().unwrap();

    let shown = api.items(ALL).await;
    assert_eq!(shown.len(), 3);
    assert!(shown.iter().all(|item| item.get("secret").is_none()));
    let third = api.get(&path(fresh)).await.expect(200);
    assert_eq!(third["disabled_reason"], "manual");
    assert_eq!(third["public_key"], public);
    let known = secret.to_whsec();
    assert!(signs(api, &hooks, "given", "e1", &known).await);
    assert!(signs(api, &hooks, "made", "e2", whsec).await);
    assert!(!signs(api, &hooks, "made", "e3", &known).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn replacing_keeps_the_secret_and_when_it_was_created() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let old = json!({ "description": "d", "headers": { "x-a": "1" }, "enabled": false });
    let old = api.subscribe(&hooks.url("old"), old).await;
    let same = api.subscribe(URL, json!({ "timeout_ms": 500 })).await;
    let replaced = json!({ "id": old.id, "url": hooks.url("new"), "created_at": "ignored" });
    let unchanged = api.get(&same.path()).await.expect(200);
    let items = json!([item(&replaced), unchanged]);
    let answer = api.put(ALL, &items).await.expect(200);
    let expected = json!({
        "created": 0, "updated": 1, "unchanged": 1,
        "items": [
            { "id": old.id, "action": "updated" },
            { "id": same.id, "action": "unchanged" },
        ],
    });
    assert_eq!(answer, expected);

    let now = api.get(&old.path()).await.expect(200);
    assert_eq!(now["created_at"], old.document["created_at"]);
    assert_ne!(now["updated_at"], old.document["updated_at"]);
    let reset = (
        &now["description"],
        &now["headers"],
        &now["disabled_reason"],
    );
    assert_eq!(reset, (&json!(""), &json!({}), &Value::Null));
    assert!(signs(api, &hooks, "new", "e1", old.whsec()).await);
    assert_eq!(api.get(&same.path()).await.expect(200), unchanged);
    let again = api.put(ALL, &items).await.expect(200);
    assert_eq!(again["unchanged"], 2);
    assert_eq!(api.get(&old.path()).await.expect(200), now);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_changes_when_another_one_is_given_or_needed() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let made = api.subscribe(&hooks.url("all"), json!({})).await;
    let document = |more: Value| {
        let mut document = item(&json!({ "id": made.id, "url": hooks.url("all") }));
        let fields = more.as_object().unwrap().clone();
        document.as_object_mut().unwrap().extend(fields);
        json!([document])
    };
    let declare = async |more: Value| {
        let answer = api.put(ALL, &document(more)).await.expect(200);
        answer["items"][0].clone()
    };
    // The one that is there, given again, is no change, and leaves a rotation under way.
    let rotated = api
        .post(&format!("{}/rotate-secret", made.path()), &json!({}))
        .await
        .expect(200);
    let current = rotated["secret"]["hex"].clone();
    let same = declare(json!({ "secret": current })).await;
    assert_eq!(same["action"], "unchanged");
    assert!(signs(api, &hooks, "all", "e1", made.whsec()).await);

    let other = Secret::new([9; 32]);
    let changed = declare(json!({ "secret": *other.to_hex() })).await;
    assert_eq!(changed, json!({ "id": made.id, "action": "updated" }));
    assert!(signs(api, &hooks, "all", "e2", &other.to_whsec()).await);
    assert!(!signs(api, &hooks, "all", "e3", made.whsec()).await);

    let pair = declare(json!({ "signing": "ed25519" })).await;
    let public = pair["secret"]["public_key"].clone();
    assert!(public.as_str().unwrap().starts_with("whpk_"));
    let shown = api.get(&made.path()).await.expect(200);
    assert_eq!(shown["public_key"], public);
    assert_eq!(
        declare(json!({ "signing": "ed25519" })).await["action"],
        "unchanged"
    );
}

/// Items that break a rule, and the field that the answer names.
fn broken_items() -> Vec<(Value, &'static str)> {
    vec![
        (json!({ "tenant": null }), "tenant"),
        (json!({ "tenant": "globex", "id": "sub_there" }), "tenant"),
        (json!({ "url": "nowhere" }), "url"),
        (json!({ "id": "nonsense" }), "id"),
        (json!({ "id": 5 }), "id"),
        (json!({ "id": "sub_first" }), "id"),
        (json!({ "secret": "short" }), "secret"),
        (json!({ "secret": { "hex": "short" } }), "secret.hex"),
        (json!({ "filter": { "data": { "n": 5 } } }), "filter.data.n"),
        (json!({ "colour": "red" }), "colour"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fault_names_its_item_and_nothing_is_written() {
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let there = item(&json!({ "id": "sub_there" }));
    api.put(ALL, &json!([there])).await.expect(200);
    let before = api.items(ALL).await;
    let first = item(&json!({ "id": "sub_first" }));
    let changed = item(&json!({ "id": "sub_there", "description": "changed" }));
    for (more, field) in broken_items() {
        let also_there = more["id"] == "sub_there";
        let second = if also_there {
            item(&json!({}))
        } else {
            changed.clone()
        };
        let items = json!([first, second, item(&more)]);
        let refused = api.put(ALL, &items).await.refused(422, "invalid_field");
        assert_eq!(
            (&refused["index"], &refused["field"]),
            (&json!(2), &json!(field))
        );
        assert!(!refused.to_string().contains("short"), "{refused}");
    }
    let refused = api.put(ALL, &json!([first, 5])).await;
    assert_eq!(refused.refused(422, "invalid_item")["index"], 1);
    for (body, field) in [
        (json!({}), "items"),
        (json!({ "items": {} }), "items"),
        (json!({ "items": [first], "prune": true }), "prune"),
        (json!({ "subscription": first }), "subscription"),
    ] {
        let refused = api.put(ALL, &body).await.refused(422, "invalid_field");
        assert_eq!(refused["field"], field);
    }
    api.put(ALL, &json!("text")).await.refused(400, "malformed");
    let many = vec![first; DECLARED_MAX + 1];
    api.put(ALL, &json!(many))
        .await
        .refused(422, "invalid_batch");
    assert_eq!(api.items(ALL).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_declared_at_once_and_none_is_nothing_to_do() {
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let one = |n| item(&json!({ "id": format!("sub_{n}"), "description": "x".repeat(200) }));
    let many: Value = (0..2000).map(one).collect();
    assert!(many.to_string().len() > 300 * 1024);
    assert_eq!(api.put(ALL, &many).await.expect(200)["created"], 2000);
    assert_eq!(api.put(ALL, &many).await.expect(200)["unchanged"], 2000);
    let none = json!({ "created": 0, "updated": 0, "unchanged": 0, "items": [] });
    assert_eq!(api.put(ALL, &json!([])).await.expect(200), none);
    // Elsewhere the limit stays what it was.
    let long = item(&json!({ "description": "x".repeat(300_000) }));
    api.put(&path("sub_1"), &long)
        .await
        .refused(413, "too_large");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_declared_under_its_path() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let path = path("sub_mine");
    let document = item(&json!({ "url": hooks.url("one") }));
    let answer = api.put(&path, &document).await;
    assert_eq!(answer.headers["location"], path.as_str());
    let mut created = answer.expect(201);
    let secret = created.as_object_mut().unwrap().remove("secret").unwrap();
    assert_eq!(api.get(&path).await.expect(200), created);
    assert_eq!(api.put(&path, &document).await.expect(200), created);
    assert_eq!(api.put(&path, &created).await.expect(200), created);
    let mut changed = document.clone();
    changed["description"] = json!("changed");
    let updated = api.put(&path, &changed).await.expect(200);
    assert_eq!(updated["description"], "changed");
    assert_eq!(updated["created_at"], created["created_at"]);
    assert!(updated.get("secret").is_none());
    let whsec = secret["whsec"].as_str().unwrap();
    assert!(signs(api, &hooks, "one", "e1", whsec).await);

    for (more, field) in [
        (json!({ "id": "sub_other" }), "id"),
        (json!({ "tenant": "globex" }), "tenant"),
        (json!({ "secret": true }), "secret"),
    ] {
        let refused = api.put(&path, &item(&more)).await;
        assert_eq!(refused.refused(422, "invalid_field")["field"], field);
    }
    assert_eq!(api.get(&path).await.expect(200), updated);
    let nowhere = api.put("/v1/subscriptions/nonsense", &document).await;
    nowhere.refused(404, "not_found");
}
