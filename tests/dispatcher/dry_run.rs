//! What declaring subscriptions would change, said and not done.

use carillon::domain::signature::Secret;
use serde_json::json;

use super::declare::{ALL, URL, item};
use super::harness::Dispatcher;

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_change_and_changes_nothing() {
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let old = json!({ "description": "d", "enabled": false, "headers": { "x-a": "1" } });
    let old = api.subscribe(URL, old).await;
    let same = api.subscribe(URL, json!({ "signing": "ed25519" })).await;
    let before = api.items(ALL).await;
    let unchanged = api.get(&same.path()).await.expect(200);
    let secret = Secret::new([7; 32]).to_whsec();
    let items = json!([
        item(&json!({ "id": old.id, "headers": { "x-a": "2" }, "secret": *secret })),
        unchanged,
        item(&json!({ "id": "sub_new" })),
        item(&json!({ "signing": "ed25519" })),
    ]);
    let dry = format!("{ALL}?dry_run=true");
    let answer = api.put(&dry, &items).await.expect(200);
    let changes = json!(["description", "enabled", "headers", "secret"]);
    let expected = json!({
        "dry_run": true, "created": 2, "updated": 1, "unchanged": 1,
        "items": [
            { "id": old.id, "action": "updated", "changes": changes },
            { "id": same.id, "action": "unchanged", "changes": [] },
            { "id": "sub_new", "action": "created", "changes": [] },
            { "id": null, "action": "created", "changes": [] },
        ],
    });
    assert_eq!(answer, expected);
    assert_eq!(api.items(ALL).await, before);
    // Another way of signing brings another secret.
    let resigned = json!([item(&json!({ "id": same.id }))]);
    let answer = api.put(&dry, &resigned).await.expect(200);
    assert_eq!(answer["items"][0]["changes"], json!(["signing", "secret"]));
    // What would be refused is, and what cannot be meant too.
    let bad = json!([item(&json!({ "url": "nowhere" }))]);
    let refused = api.put(&dry, &bad).await;
    assert_eq!(refused.refused(422, "invalid_field")["index"], 0);
    for query in [
        "?dry_run=maybe",
        "?dryrun=true",
        "?dry_run",
        "?dry_run=",
        "?dryrun=",
    ] {
        let refused = api.put(&format!("{ALL}{query}"), &items).await;
        refused.refused(422, "invalid_parameter");
    }
    assert_eq!(api.items(ALL).await, before);
    let answer = api
        .put(&format!("{ALL}?dry_run=false"), &items)
        .await
        .expect(200);
    assert_eq!(answer["created"], 2);
    assert!(answer.get("dry_run").is_none() && answer["items"][0].get("changes").is_none());
    assert_eq!(api.items(ALL).await.len(), 4);
}
