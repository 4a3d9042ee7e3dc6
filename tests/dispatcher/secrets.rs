//! Secrets: signatures of every kind checked at the receiver, rotations, changes of kind.

use carillon::cli::receiver::{Received, signed_headers};
use carillon::domain::keys::{KeyRing, MasterKey};
use carillon::domain::signature::{Secret, VerificationKey};
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use super::harness::{Dispatcher, event, poll_until};
use super::hooks::{Hooks, webhook_id};

/// Whether the reference library accepts the request with this secret.
fn verifies(received: &Received, whsec: &str) -> bool {
    let webhook = Webhook::new(whsec).unwrap();
    webhook.verify(&received.body, &received.headers).is_ok()
}

fn signatures(received: &Received) -> Vec<String> {
    let header = received.header("webhook-signature").unwrap();
    header.split(' ').map(ToOwned::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_secrets_sign_while_a_rotation_overlaps() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let made = api.subscribe(&hooks.url("all"), json!({})).await;
    api.publish(&event("first")).await;
    let first = hooks.arrived("all", 1).await.remove(0);
    assert!(verifies(&first, made.whsec()));
    assert_eq!(signatures(&first).len(), 1);

    let path = format!("{}/rotate-secret", made.path());
    let rotated = api
        .post(&path, &json!({ "overlap": "1h" }))
        .await
        .expect(200);
    let new = rotated["secret"]["whsec"].as_str().unwrap();
    assert_eq!(rotated["secret"]["hex"].as_str().unwrap().len(), 64);
    assert_ne!(new, made.whsec());
    let shown = api.get(&made.path()).await.expect(200).to_string();
    assert!(!shown.contains("whsec"), "{shown}");
    api.publish(&event("second")).await;
    let second = hooks.arrived("all", 2).await.remove(1);
    assert!(verifies(&second, made.whsec()) && verifies(&second, new));
    let both = signatures(&second);
    assert_eq!(both.len(), 2);
    let mut newest_first = second.clone();
    let newest = both[0].parse().unwrap();
    newest_first.headers.insert("webhook-signature", newest);
    assert!(verifies(&newest_first, new));

    // Without an overlap the ones before are worth nothing at once.
    let rotated = api
        .post(&path, &json!({ "overlap": "0s" }))
        .await
        .expect(200);
    let newest = rotated["secret"]["whsec"].as_str().unwrap();
    api.publish(&event("third")).await;
    let third = hooks.arrived("all", 3).await.remove(2);
    assert!(verifies(&third, newest));
    assert!(!verifies(&third, new) && !verifies(&third, made.whsec()));
    assert_eq!(signatures(&third).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overlap_ends_on_its_own() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let made = api.subscribe(&hooks.url("all"), json!({})).await;
    let path = format!("{}/rotate-secret", made.path());
    let rotated = api
        .post(&path, &json!({ "overlap": "300ms" }))
        .await
        .expect(200);
    let mut published = 0;
    let late = poll_until("a single signature", async || {
        published += 1;
        api.publish(&event(&format!("e{published}"))).await;
        let last = hooks.arrived("all", published).await.pop().unwrap();
        (signatures(&last).len() == 1).then_some(last)
    })
    .await;
    assert!(!verifies(&late, made.whsec()));
    assert!(verifies(
        &late,
        rotated["secret"]["whsec"].as_str().unwrap()
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rotation_does_not_understand_changes_nothing() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let made = api.subscribe(&hooks.url("all"), json!({})).await;
    let path = format!("{}/rotate-secret", made.path());
    for (document, field) in [
        (json!({ "overlap": "soon" }), "overlap"),
        (json!({ "overlap": 5 }), "overlap"),
        (json!({ "overlap": "31d" }), "overlap"),
        (json!({ "overlaps": "1h" }), "overlaps"),
    ] {
        let answer = api.post(&path, &document).await;
        assert_eq!(answer.refused(422, "invalid_field")["field"], field);
    }
    api.publish(&event("e")).await;
    let seen = hooks.arrived("all", 1).await.remove(0);
    assert!(verifies(&seen, made.whsec()));
    assert_eq!(signatures(&seen).len(), 1);
    // Null stands for what is absent.
    let rotated = api
        .post(&path, &json!({ "overlap": null }))
        .await
        .expect(200);
    api.publish(&event("f")).await;
    let seen = hooks.arrived("all", 2).await.remove(1);
    let new = rotated["secret"]["whsec"].as_str().unwrap();
    assert!(verifies(&seen, made.whsec()) && verifies(&seen, new));
}

fn verifies_publicly(received: &Received, public_key: &Value) -> bool {
    let key = VerificationKey::parse(public_key.as_str().unwrap()).unwrap();
    let headers = signed_headers(&received.headers);
    key.verify_standard(&headers, &received.body, received.at, 300)
        .is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ed25519_key_pair_shows_its_public_key_always() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let made = api
        .subscribe(&hooks.url("all"), json!({ "signing": "ed25519" }))
        .await;
    let public = &made.document["secret"]["public_key"];
    assert!(public.as_str().unwrap().starts_with("whpk_"));
    assert_eq!(made.document["secret"], json!({ "public_key": public }));
    let read = api.get(&made.path()).await.expect(200);
    assert_eq!(read["public_key"], *public);
    api.publish(&event("first")).await;
    let first = hooks.arrived("all", 1).await.remove(0);
    assert!(verifies_publicly(&first, public));
    assert!(signatures(&first)[0].starts_with("v1a,"));

    let path = format!("{}/rotate-secret", made.path());
    let rotated = api.post(&path, &json!({})).await.expect(200);
    let new = &rotated["secret"]["public_key"];
    assert_eq!(api.get(&made.path()).await.expect(200)["public_key"], *new);
    api.publish(&event("second")).await;
    let second = hooks.arrived("all", 2).await.remove(1);
    assert!(verifies_publicly(&second, public) && verifies_publicly(&second, new));
    assert_eq!(webhook_id(&second).len(), webhook_id(&first).len());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_way_of_signing_shows_another_secret() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let made = api.subscribe(&hooks.url("all"), json!({})).await;
    let to_pair = json!({ "signing": "ed25519" });
    let pair = api.patch(&made.path(), &to_pair).await.expect(200);
    let public = pair["secret"]["public_key"].clone();
    assert_eq!(pair["public_key"], public);
    let same = api.patch(&made.path(), &to_pair).await.expect(200);
    assert!(same.get("secret").is_none(), "nothing changed: {same}");
    api.publish(&event("pair")).await;
    let seen = hooks.arrived("all", 1).await.remove(0);
    assert!(verifies_publicly(&seen, &public));

    let to_shared = json!({ "signing": null });
    let shared = api.patch(&made.path(), &to_shared).await.expect(200);
    let whsec = shared["secret"]["whsec"].as_str().unwrap();
    assert_ne!(whsec, made.whsec());
    assert!(shared.get("public_key").is_none());
    api.publish(&event("shared")).await;
    let seen = hooks.arrived("all", 2).await.remove(1);
    assert!(verifies(&seen, whsec) && !verifies(&seen, made.whsec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_within_an_overlap_ends_no_secret() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    let made = api.subscribe(&hooks.url("all"), json!({})).await;
    let path = format!("{}/rotate-secret", made.path());
    let mut secrets = vec![made.whsec().to_owned()];
    for n in 1..5 {
        let rotated = api
            .post(&path, &json!({ "overlap": "1h" }))
            .await
            .expect(200);
        secrets.push(rotated["secret"]["whsec"].as_str().unwrap().to_owned());
        api.publish(&event(&format!("e{n}"))).await;
        let last = hooks.arrived("all", n).await.pop().unwrap();
        assert_eq!(signatures(&last).len(), n + 1);
        assert!(secrets.iter().all(|secret| verifies(&last, secret)), "{n}");
    }
    let answer = api.post(&path, &json!({ "overlap": "1h" })).await;
    answer.refused(409, "too_many_secrets");
    api.post(&path, &json!({ "overlap": "0s" }))
        .await
        .expect(200);
    api.publish(&event("last")).await;
    let last = hooks.arrived("all", 5).await.pop().unwrap();
    assert!(!secrets.iter().any(|secret| verifies(&last, secret)));
}

/// A ring of keys, each named by the letter that it is made of.
pub fn ring(names: &str) -> KeyRing {
    let mut keys = KeyRing::default();
    for name in names.chars() {
        let key = MasterKey {
            id: name.to_string(),
            key: Secret::new([name as u8; 32]),
        };
        keys.add(key).unwrap();
    }
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_changed_one_after_the_other() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::start().await;
    let made = carillon.api.subscribe(&hooks.url("all"), json!({})).await;
    let others: Vec<_> = (0..120)
        .map(|n| {
            json!({
                "tenant": "other", "url": hooks.url(&format!("other-{n}")), "event_types": ["none"],
            })
        })
        .collect();
    carillon
        .api
        .put("/v1/subscriptions", &json!(others))
        .await
        .expect(200);
    let rotate = "/v1/secrets/rotate";
    carillon
        .api
        .post(rotate, &json!({}))
        .await
        .refused(409, "no_keys");
    let mut carillon = carillon;
    for (n, (names, next)) in [("a", "ba"), ("ba", "b"), ("b", "b")]
        .into_iter()
        .enumerate()
    {
        let (mut setup, _) = carillon.stop().await;
        setup.config.secrets.keys = ring(names);
        carillon = setup.start().await;
        let api = &carillon.api;
        let first = api.post(rotate, &json!({})).await.expect(200);
        assert_eq!(first["rotated"], 100);
        let rest = json!({ "cursor": first["next"] });
        let rest = api.post(rotate, &rest).await.expect(200);
        assert_eq!(rest, json!({ "rotated": 21, "next": null }));
        // What is left of the ring opens all.
        let (mut setup, _) = carillon.stop().await;
        setup.config.secrets.keys = ring(next);
        carillon = setup.start().await;
        carillon.api.publish(&event(&format!("e{n}"))).await;
        let last = hooks.arrived("all", n + 1).await.pop().unwrap();
        assert!(verifies(&last, made.whsec()), "{names}");
    }
    // Without the key nothing is lost: events wait for it.
    let (mut setup, _) = carillon.stop().await;
    setup.config.secrets.keys = ring("c");
    let carillon = setup.start().await;
    let api = &carillon.api;
    for path in [&made.path(), "/v1/subscriptions"] {
        let problem = api.get(path).await.refused(503, "key_missing");
        assert_eq!(problem["key"], "b");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("`b`") && detail.contains("secrets.keys"),
            "{detail}"
        );
    }
    // Others, of another key, go on.
    let others = json!({ "tenant": "others" });
    api.subscribe(&hooks.url("others"), others.clone()).await;
    let mut theirs = event("theirs");
    theirs["tenant"] = others["tenant"].clone();
    api.publish(&theirs).await;
    hooks.arrived("others", 1).await;
    assert_eq!(api.ops("/readyz").await.0, 200);
    carillon.api.publish(&event("waits")).await;
    let (mut setup, _) = carillon.stop().await;
    assert_eq!(hooks.seen("all").len(), 3);
    setup.config.secrets.keys = ring("cb");
    let carillon = setup.start().await;
    let last = hooks.arrived("all", 4).await.pop().unwrap();
    assert!(verifies(&last, made.whsec()));
    drop(carillon);
}
