//! What a user does: everything that there is to do, and what can go wrong.

use carillon::ports::{EventMessage, Parcel};
use http::Method;
use serde_json::{Value, json};

use super::run::{Canaries, Run};
use super::search::every_look;
use crate::backend::Place;
use crate::dispatcher::harness::{TENANT, poll_until, typed_event};

const ALL: &str = "/v1/subscriptions";
const SEED: [u8; 32] = *b"\x91\x02\xfe\x33\x14\xd5\xa6\x77\x08\xb9\xca\x1b\x6c\xed\x5e\x8f\
    \x29\x0a\xfb\x3c\x4d\x95\xae\x7f\x10\xb1\xc2\x13\x64\xe5\x56\x87";

/// All of it.
pub async fn all(run: &mut Run) {
    subscribe(run).await;
    publish(run, "first").await;
    as_tenant(run).await;
    rotate(run).await;
    publish(run, "second").await;
    send_again(run).await;
    misplace(run).await;
    look(run).await;
    by_command_line(run).await;
    change_keys(run).await;
    look(run).await;
}

/// Subscriptions of every kind, and to every kind of endpoint.
pub async fn subscribe(run: &mut Run) {
    let header = run.canary_text(Canaries::HEADER);
    let url = run.hooks.url("fine");
    run.subscribe(&url, json!({ "headers": { "x-canary": header } }))
        .await;
    for name in ["fails", "gone", "slow"] {
        let url = run.hooks.url(name);
        run.subscribe(&url, json!({ "timeout_ms": 100 })).await;
    }
    let secure = run.secure.url("leicbit");
    run.subscribe(&secure, json!({ "format": "leicbit" })).await;
    run.subscribe("http://127.0.0.1:1/refused", json!({})).await;
    run.subscribe("http://127.0.0.2/blocked", json!({})).await;
    run.subscribe("http://nowhere.invalid/", json!({})).await;
    // With secrets that were given: shared ones, and the seed of a pair.
    let mut given = [0; 32];
    getrandom::fill(&mut given).unwrap();
    let mut seed = SEED;
    getrandom::fill(&mut seed[8..]).unwrap();
    for (id, secret, signing) in [
        ("sub_given", given, "hmac-sha256"),
        ("sub_pair", seed, "ed25519"),
    ] {
        let secret = hex::encode(secret);
        run.knows(&secret);
        let url = run.hooks.url(id);
        let declared =
            json!({ "tenant": TENANT, "url": url, "secret": secret, "signing": signing });
        run.tell(Method::PUT, &format!("{ALL}/{id}"), &declared)
            .await
            .expect(201);
        run.tell(Method::PUT, &format!("{ALL}/{id}"), &declared)
            .await
            .expect(200);
    }
    // Declared without one: made, and shown by contract.
    let declared = json!([{ "id": "sub_made", "tenant": TENANT, "url": run.hooks.url("made") }]);
    let answer = run.api.put(ALL, &declared).await.expect(200);
    run.was_shown(&answer["items"][0]);
}

/// An event that goes to all, with canaries; returns when it is settled everywhere.
pub async fn publish(run: &mut Run, name: &str) {
    let id = format!("{}-{name}", run.canary_text(Canaries::EVENT));
    let data = run.canary(Canaries::DATA);
    let looks = every_look(data).into_iter();
    let looks = looks.map(|(_, look)| String::from_utf8(look).unwrap());
    // Those that JSON can hold just so.
    let looks = looks.filter(|look| serde_json::from_str::<Value>(look).is_ok());
    let looks = looks.collect::<Vec<_>>().join(",");
    let event = format!(
        r#"{{"id":"{id}","type":"demo.happened","tenant":"{TENANT}",
            "timestamp":"2026-03-01T12:30:00Z","data":{{"looks":[{looks}]}}}}"#
    );
    let request = run.api.request(Method::POST, "/v1/events");
    let request = request
        .header("content-type", "application/json")
        .body(event);
    run.ask(request).await.expect(202);
    let alert = json!({ "domain": { "name": "d" }, "user": {}, "alert": {} });
    let alert = typed_event(&format!("{id}-alert"), "threat_resolved", &alert);
    run.tell(Method::POST, "/v1/events", &alert)
        .await
        .expect(202);
    run.api.settled().await;
}

/// A tenant's token is made and used, rightly and wrongly.
async fn as_tenant(run: &mut Run) {
    let path = format!("/v1/tenants/{TENANT}/tokens");
    let made = run.api.post(&path, &json!({})).await.expect(201);
    let token = made["token"].as_str().unwrap().to_owned();
    run.knows_tenant_token(&token);
    let misplaced = json!({ "tenant": token, "url": token, "filter": [token], "x": token });
    let broken = format!("{token}x");
    for (method, path, given, document) in [
        (Method::GET, ALL.to_owned(), &token, Value::Null),
        (
            Method::GET,
            "/v1/quarantine".to_owned(),
            &token,
            Value::Null,
        ),
        (Method::GET, ALL.to_owned(), &broken, Value::Null),
        (
            Method::GET,
            format!("{ALL}?token={token}"),
            &token,
            Value::Null,
        ),
        (Method::GET, format!("{ALL}/{token}"), &token, Value::Null),
        (Method::POST, ALL.to_owned(), &token, misplaced.clone()),
        (Method::POST, "/v1/events".to_owned(), &token, misplaced),
    ] {
        let mut as_given = run.api.clone();
        as_given.token = Some(given.clone());
        let request = as_given.request(method, &path);
        run.ask(request.json(&document)).await;
    }
}

/// Rotations and changes of kind, and the Test action.
async fn rotate(run: &mut Run) {
    let items = run.api.items(ALL).await;
    for item in items {
        let path = format!("{ALL}/{}", item["id"].as_str().unwrap());
        for overlap in ["1h", "2h"] {
            let document = json!({ "overlap": overlap });
            let rotated = run
                .api
                .post(&format!("{path}/rotate-secret"), &document)
                .await;
            run.was_shown(&rotated.expect(200));
        }
        run.tell(Method::POST, &format!("{path}/test"), &json!({}))
            .await
            .expect(200);
    }
    let path = format!("{ALL}/sub_made");
    for signing in ["ed25519", "hmac-sha256"] {
        let patched = run.api.patch(&path, &json!({ "signing": signing })).await;
        run.was_shown(&patched.expect(200));
    }
    let more = json!({ "description": "changed" });
    run.tell(Method::PATCH, &path, &more).await.expect(200);
}

/// Redriven, redelivered, discarded.
async fn send_again(run: &mut Run) {
    let letters = run.look("dead letters", "/v1/dead-letters").await;
    let first = letters["items"][0]["id"].as_str().unwrap().to_owned();
    run.tell(
        Method::DELETE,
        &format!("/v1/dead-letters/{first}"),
        &json!({}),
    )
    .await
    .expect(204);
    let some = json!({ "limit": 2 });
    run.tell(Method::POST, "/v1/dead-letters/redrive", &some)
        .await
        .expect(200);
    let attempts = run
        .look("attempts", "/v1/attempts?outcome=delivered&limit=1")
        .await;
    let delivery = attempts["items"][0]["delivery_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/v1/deliveries/{delivery}/redeliver");
    run.tell(Method::POST, &path, &json!({})).await;
    run.api.settled().await;
}

/// Secrets and tokens where they do not belong. All of it is refused, and not repeated.
async fn misplace(run: &mut Run) {
    let token = run.token.clone();
    let made = run
        .subscribe(&run.hooks.url("misplaced"), json!({ "enabled": false }))
        .await;
    let (whsec, hex) = (
        made.whsec().to_owned(),
        made.document["secret"]["hex"].clone(),
    );
    let url = run.hooks.url("x");
    let plain = json!({ "tenant": TENANT, "url": url });
    let with = |more: Value| {
        let mut document = plain.clone();
        document
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        document
    };
    let port = url.rsplit_once(':').unwrap().1.to_owned();
    for document in [
        with(json!({ "secert": whsec })),
        with(json!({ "secret": whsec })),
        with(json!({ "signing": whsec })),
        with(json!({ "format": hex })),
        with(json!({ "timeout_ms": whsec })),
        with(json!({ "enabled": whsec })),
        with(json!({ "retry": { "max_attempts": whsec } })),
        with(json!({ "rate_limit": whsec })),
        with(json!({ "event_types": whsec })),
        with(json!({ "filter": whsec })),
        with(json!({ "headers": { "authorization": format!("Bearer {token}\r\n") } })),
        with(json!({ "headers": { "x-a": [whsec] } })),
        with(json!({ "url": format!("http://user:{token}@127.0.0.1:{port}") })),
        with(json!({ "url": format!("http://{token}@127.0.0.1:{port}") })),
        with(json!({ "url": format!("http://u:{token}@127.0.0.1:port/") })),
        with(json!({ "url": format!("//u:{token}@127.0.0.1/") })),
        json!([whsec]),
    ] {
        let answer = run.tell(Method::POST, ALL, &document).await;
        assert!(
            (400..500).contains(&answer.status),
            "{document}: {answer:?}"
        );
    }
    let broken = format!("{{\"secret\": \"{whsec}\", \"tenant\": \"{token}");
    let request = run
        .api
        .request(Method::POST, ALL)
        .header("content-type", "application/json");
    run.ask(request.body(broken))
        .await
        .refused(400, "malformed");
    for secret in [
        json!([whsec]),
        json!(&whsec[..40]),
        json!({ "hex": whsec }),
        json!({ "a": whsec }),
    ] {
        let document = with(json!({ "secret": secret }));
        let answer = run
            .tell(Method::PUT, &format!("{ALL}/sub_new"), &document)
            .await;
        answer.refused(422, "invalid_field");
    }
    let document = with(json!({ "id": whsec }));
    run.tell(Method::PUT, ALL, &json!([document]))
        .await
        .refused(422, "invalid_field");
    let overlap = json!({ "overlap": whsec });
    let path = format!("{}/rotate-secret", made.path());
    run.tell(Method::POST, &path, &overlap)
        .await
        .refused(422, "invalid_field");
    for path in [
        format!("{ALL}?token={token}"),
        format!("{ALL}?access_token={token}&secret={whsec}"),
        format!("{ALL}?cursor={whsec}"),
        format!("{ALL}/{whsec}"),
        format!("/v1/attempts?subscription={whsec}"),
        format!("/v1/attempts?since={token}"),
        format!("/v1/{token}"),
    ] {
        let answer = run.ask(run.api.request(Method::GET, &path)).await;
        assert!((400..500).contains(&answer.status), "{path}: {answer:?}");
    }
    let cursor = json!({ "cursor": whsec });
    run.tell(Method::POST, "/v1/secrets/rotate", &cursor)
        .await
        .refused(422, "invalid_field");
    wrong_credentials(run, &token).await;
}

/// Tokens that are wrong, or in another place than the header that they belong to.
async fn wrong_credentials(run: &mut Run, token: &str) {
    let knows = run.api.token.take();
    for (name, value) in [
        ("authorization", token.to_owned()),
        ("authorization", format!("Basic {token}")),
        ("authorization", format!("Bearer {token}x")),
        ("authorization", format!("Bearer  x {token}")),
        ("x-api-key", token.to_owned()),
        ("cookie", format!("token={token}")),
    ] {
        let request = run.api.request(Method::GET, ALL).header(name, value);
        run.ask(request).await.refused(401, "unauthorized");
    }
    let as_user = run
        .api
        .base()
        .replace("http://", &format!("http://admin:{token}@"));
    let request = reqwest::Client::new().get(format!("{as_user}{ALL}"));
    run.ask(request).await.refused(401, "unauthorized");
    run.api.token = knows;
}

/// Everything that can be read.
async fn look(run: &mut Run) {
    let listed = run.look("answers", &format!("{ALL}?limit=1000")).await;
    for item in listed["items"].as_array().unwrap() {
        let path = format!("{ALL}/{}", item["id"].as_str().unwrap());
        run.look("answers", &path).await;
    }
    run.look("answers", "/v1/attempts?limit=1").await;
    run.look("attempts", "/v1/attempts?limit=1000").await;
    run.look("dead letters", "/v1/dead-letters?limit=1000")
        .await;
    run.look("quarantine", "/v1/quarantine?limit=1000").await;
    for path in ["/metrics", "/livez", "/readyz"] {
        let (status, text) = run.api.ops(path).await;
        assert_eq!(status, 200, "{path}");
        run.keep("metrics", text);
    }
}

async fn by_command_line(run: &mut Run) {
    for args in [
        &["config", "check"][..],
        &["config", "print"],
        &["subscriptions", "list"],
        &["subscriptions", "list", "--json"],
        &["subscriptions", "get", "sub_given"],
        &["subscriptions", "test", "sub_given"],
        &["attempts", "list", "--json"],
        &["dead-letters", "list", "--json"],
        &["quarantine", "list"],
    ] {
        run.command_line(args).await;
    }
    let token = run.token.clone();
    let [first, second] = run.keys.clone();
    let as_user = run
        .api
        .base()
        .replace("http://", &format!("http://u:{token}@"));
    let wrong_keys = format!("[\"{first}\", \"k2{}\"]", &second[3..]);
    let same_keys = format!("[\"{first}\", \"{first}\"]");
    let short_key = format!("[\"{}\"]", &first[..40]);
    let keys = "CARILLON_SECRETS__KEYS";
    for (args, name, value) in [
        (
            &["subscriptions", "list"][..],
            "CARILLON_TOKEN",
            format!("{token}x"),
        ),
        (&["subscriptions", "list"], "CARILLON_API", as_user),
        (
            &["subscriptions", "list"],
            "CARILLON_API",
            format!("ftp://u:{token}@h/"),
        ),
        (
            &["subscriptions", "list"],
            "CARILLON_API",
            format!("http://u:{token}@h:port/"),
        ),
        (&["config", "check"], keys, wrong_keys),
        (&["config", "check"], keys, same_keys.clone()),
        (&["config", "print"], keys, short_key),
        (&["config", "check"], keys, first.clone()),
        (&["serve"], keys, same_keys),
        (&["config", "check"], "CARILLON_SECRETS__KEY", first.clone()),
        (
            &["config", "check"],
            "CARILLON_HTTP__ADMIN_TOKEN",
            format!("{token} x"),
        ),
        (
            &["config", "check"],
            "CARILLON_HTTP__ADMINTOKEN",
            token.clone(),
        ),
        (&["config", "check"], "CARILLON_HTTP__LISTEN", token.clone()),
    ] {
        let change = |command: &mut std::process::Command| {
            command.env(name, value);
        };
        let (code, out, err) = run.command_line_with(args, change).await;
        assert_ne!(code, 0, "{args:?} with {name}: {out}{err}");
    }
}

/// Another key, step by step, with what is not understood in between.
async fn change_keys(run: &mut Run) {
    let [first, second] = run.keys.clone();
    run.stop().await;
    let canary = run.canary_text(Canaries::PUT_ASIDE);
    let message = EventMessage {
        body: format!("{{\"no event\": \"{canary}\"").into(),
        ..EventMessage::default()
    };
    Place::new()
        .put(&run.config(), vec![Parcel::Event(message)])
        .await;
    run.set_keys(&[&second, &first]);
    run.start().await;
    poll_until("the quarantine", async || {
        (!run.api.items("/v1/quarantine").await.is_empty()).then_some(())
    })
    .await;
    run.command_line(&["secrets", "rotate"]).await;
    publish(run, "third").await;
    run.stop().await;
    without_the_key(run, &first).await;
    run.set_keys(&[&second]);
    run.start().await;
    publish(run, "fourth").await;
}

/// The key is not there: what needs it fails and says so, and the log tells of it once.
async fn without_the_key(run: &mut Run, another: &str) {
    run.set_keys(&[another]);
    run.start().await;
    for n in 0..5 {
        let id = format!("{}-waits-{n}", run.canary_text(Canaries::EVENT));
        let event = typed_event(&id, "demo.happened", &json!({}));
        run.tell(Method::POST, "/v1/events", &event)
            .await
            .expect(202);
        let listed = run.ask(run.api.request(Method::GET, ALL)).await;
        listed.refused(503, "key_missing");
    }
    poll_until("events that met the missing key", async || {
        let series = "carillon_cache_requests_total{result=\"error\"}";
        (run.api.metric(series).await >= 3.0).then_some(())
    })
    .await;
    run.stop().await;
    assert_eq!(run.last_log().matches("a key is missing").count(), 1);
}
