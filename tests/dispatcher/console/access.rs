//! Who sees which page, and who changes what: signing in, other origins, frames, other tenants.

use carillon::config::PageOrigin;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::visitor::Visitor;
use super::{ADMIN, with_token};
use crate::dispatcher::harness::{Dispatcher, event};
use crate::dispatcher::hooks::{Hooks, status};

const PAGES: [&str; 8] = [
    "/",
    "/subscriptions",
    "/subscriptions/new",
    "/attempts",
    "/attempts?outcome=failed",
    "/dead-letters",
    "/quarantine",
    "/publish",
];

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_a_page_without_signing_in() {
    let carillon = Dispatcher::with(with_token).await;
    let mut nobody = Visitor::at(&carillon.api);
    for path in PAGES {
        let page = nobody.get(path).await;
        assert_eq!(page.status, 303, "{path}");
        assert!(
            page.location.starts_with("/sign-in"),
            "{path}: {}",
            page.location
        );
    }
    let asked = nobody.get("/attempts?outcome=failed").await;
    assert_eq!(asked.location, "/sign-in?to=%2Fattempts%3Foutcome%3Dfailed");
    nobody.get("/sign-in").await.has("name=\"token\"");
    let wrong = nobody.post("/sign-in", &[("token", "wrong")]).await;
    assert_eq!(wrong.status, 401);
    wrong.has("the token is not valid");
    for path in [
        "/subscriptions/new",
        "/dead-letters",
        "/publish",
        "/deliveries/msg_1",
    ] {
        assert_eq!(nobody.post(path, &[]).await.status, 303, "{path}");
    }
    // The cookie is for the console: the API wants the token.
    let mut admin = Visitor::signed_in(&carillon.api, ADMIN).await;
    let request = admin.client.get(format!("{}/v1/subscriptions", admin.base));
    assert_eq!(admin.send(request).await.status, 401);
    for path in PAGES {
        assert_eq!(admin.get(path).await.status, 200, "{path}");
    }
    let to = [("token", ADMIN), ("to", "/attempts?outcome=failed")];
    assert_eq!(
        admin.post("/sign-in", &to).await.location,
        "/attempts?outcome=failed"
    );
    let away = [("token", ADMIN), ("to", "//evil.example")];
    assert_eq!(admin.post("/sign-in", &away).await.location, "/");
    admin.post("/sign-out", &[]).await;
    assert_eq!(admin.get("/").await.status, 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_origin_changes_nothing() {
    let carillon = Dispatcher::with(with_token).await;
    let mut admin = Visitor::signed_in(&carillon.api, ADMIN).await;
    let publish = format!("{}/publish", admin.base);
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
        ("accept", "text/html"),
    ] {
        let request = admin.client.post(&publish).header(name, value);
        let refused = admin.send(request.body("do=publish&event=%7B%7D")).await;
        assert_eq!(refused.status, 403, "{name}: {value}");
    }
    let own = admin.client.post(&publish).header("origin", &admin.base);
    assert_ne!(admin.send(own).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_nothing_of_another() {
    let hooks = Hooks::answering(|_, _| status(500)).await;
    let carillon = Dispatcher::with(|config| {
        with_token(config);
        config.retry.max_attempts = 1;
    });
    let mut carillon = carillon.await;
    carillon.api.token = Some(ADMIN.to_owned());
    let api = &carillon.api;
    let mut theirs = String::new();
    for (tenant, name) in [("acme", "own"), ("bluebell", "bluebell")] {
        let made = json!({ "tenant": tenant, "url": hooks.url(name), "description": name });
        let made = api.post("/v1/subscriptions", &made).await.expect(201);
        theirs = made["id"].as_str().unwrap().to_owned();
        let mut event = event(name);
        event["tenant"] = json!(tenant);
        api.publish(&event).await;
    }
    let letters = api.items_when("/v1/dead-letters", 2).await;
    let is_theirs = |letter: &&Value| letter["tenant"] == "bluebell";
    let delivery = letters.iter().find(is_theirs).unwrap()["id"]
        .as_str()
        .unwrap();
    let token = api
        .post("/v1/tenants/acme/tokens", &json!({}))
        .await
        .expect(201);
    let mut tenant = Visitor::signed_in(api, token["token"].as_str().unwrap()).await;
    for path in PAGES {
        let page = tenant.get(path).await;
        assert!(!page.text.contains("bluebell"), "{path}: {}", page.text);
        assert_eq!(
            page.status,
            if path == "/quarantine" { 403 } else { 200 },
            "{path}"
        );
    }
    tenant.get("/subscriptions").await.has("own");
    for path in [
        format!("/subscriptions/{theirs}"),
        format!("/deliveries/{delivery}"),
    ] {
        for page in [
            tenant.get(&path).await,
            tenant.post(&path, &[("do", "test")]).await,
        ] {
            assert_eq!(page.status, 404, "{path}");
            assert!(!page.text.contains("bluebell"));
        }
    }
    let list = tenant.get("/dead-letters").await;
    let redriven = tenant.in_its_form(&list, "/dead-letters", "Send 1 again (all there are)?");
    redriven.await.has("1 dead letter is sent again.");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_signed_in_by_another_site() {
    let carillon = Dispatcher::with(with_token).await;
    let visitor = Visitor::at(&carillon.api);
    for (name, value, expected) in [
        ("sec-fetch-site", "cross-site", 403),
        ("origin", "null", 403),
        ("origin", visitor.base.as_str(), 303),
    ] {
        let sign_in = visitor.client.post(format!("{}/sign-in", visitor.base));
        let sign_in = sign_in.header(name, value).body(format!("token={ADMIN}"));
        let page = Visitor::at(&carillon.api).send(sign_in).await;
        assert_eq!(
            (page.status, page.kept.len()),
            (expected, usize::from(expected == 303))
        );
    }
    let long = "x".repeat(10_000);
    let page = Visitor::at(&carillon.api)
        .post("/sign-in", &[("token", &long)])
        .await;
    assert_eq!(page.status, 413);
}

/// Where no token is needed, forms work all the same, and for this machine alone.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_the_own_pages_work() {
    let carillon = Dispatcher::start().await;
    let mut anyone = Visitor::at(&carillon.api);
    let publish = anyone.get("/publish").await;
    assert_eq!(publish.status, 200);
    publish.has("demo.happened");
    let event = event("e1").to_string();
    let explained = anyone
        .post("/publish", &[("event", &event), ("do", "explain")])
        .await;
    explained.has("0 of 0 subscriptions want it");
    let foreign = anyone.client.post(format!("{}/publish", anyone.base));
    let foreign = foreign
        .header("origin", "null")
        .body("do=publish&event=%7B%7D");
    assert_eq!(anyone.send(foreign).await.status, 403);
}

/// A tenant's pages may be shown in the frames that the installation names, the admin's in none.
#[tokio::test(flavor = "multi_thread")]
async fn a_frame_is_for_tenants() {
    let carillon = Dispatcher::with(|config| {
        with_token(config);
        config.http.embed_in = vec![PageOrigin::parse("https://app.example.com").unwrap()];
    });
    let mut carillon = carillon.await;
    carillon.api.token = Some(ADMIN.to_owned());
    let api = &carillon.api;
    let token = api
        .post("/v1/tenants/acme/tokens", &json!({}))
        .await
        .expect(201);
    let token = token["token"].as_str().unwrap();
    let framed = "frame-ancestors https://app.example.com";
    let mut tenant = Visitor::signed_in(api, token).await;
    assert!(tenant.get("/").await.policy.ends_with(framed));
    assert!(tenant.get("/sign-in").await.policy.ends_with(framed));
    let mut admin = Visitor::signed_in(api, ADMIN).await;
    assert!(
        admin
            .get("/")
            .await
            .policy
            .ends_with("frame-ancestors 'none'")
    );

    let mut visitor = Visitor::at(api);
    let sign_in = visitor.client.post(format!("{}/sign-in", visitor.base));
    let sign_in = sign_in
        .header("sec-fetch-site", "same-origin")
        .header("sec-fetch-dest", "iframe");
    let sign_in = sign_in
        .header("x-forwarded-proto", "https")
        .body(format!("token={token}"));
    let kept = visitor.send(sign_in).await.kept;
    assert!(kept[0].starts_with("__Host-carillon_frame=ct_"), "{kept:?}");
    assert!(
        kept[0].ends_with("; SameSite=None; Secure; Partitioned"),
        "{kept:?}"
    );
    let out = visitor.client.post(format!("{}/sign-out", visitor.base));
    let out = out
        .header("sec-fetch-site", "same-origin")
        .header("x-forwarded-proto", "https");
    let ended = visitor.send(out).await.kept;
    assert!(
        ended
            .iter()
            .all(|kept| kept.contains("=; Path=/; HttpOnly; Max-Age=0; "))
    );
    assert!(
        ended.iter().any(|kept| kept.ends_with("; Partitioned")),
        "{ended:?}"
    );
}

/// A page is one of its tenant's requests, whatever it has to ask for.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_one_request() {
    let mut carillon = Dispatcher::with(with_token).await;
    carillon.api.token = Some(ADMIN.to_owned());
    let api = &carillon.api;
    let made = json!({ "tenant": "acme", "url": "https://a.example/" });
    let made = api.post("/v1/subscriptions", &made).await.expect(201);
    let token = api
        .post("/v1/tenants/acme/tokens", &json!({}))
        .await
        .expect(201);
    let tenant = Visitor::signed_in(api, token["token"].as_str().unwrap()).await;
    // The page asks for three things: that often it would be more than a tenant may ask.
    let page = format!(
        "{}/subscriptions/{}",
        tenant.base,
        made["id"].as_str().unwrap()
    );
    let asked = (0..450).map(|_| {
        tenant
            .client
            .get(&page)
            .header("cookie", &tenant.cookie)
            .send()
    });
    let statuses = stream::iter(asked).buffer_unordered(16);
    let statuses = statuses.map(|answer| answer.unwrap().status().as_u16());
    let statuses: Vec<u16> = statuses.collect().await;
    assert_eq!(statuses, [200; 450]);
}
