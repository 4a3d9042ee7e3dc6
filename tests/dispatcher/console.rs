//! The console as a browser without script has it: pages, forms, cookies. What only a browser
//! shows is tested in one.

use std::time::Duration;

use carillon::config::Config;
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::harness::{Api, Dispatcher, event, poll_until};
use super::hooks::{Hooks, status};

const ADMIN: &str = "correct-horse-battery-staple";
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

fn with_token(config: &mut Config) {
    config.http.admin_token = Some(SecretString::from(ADMIN));
}

/// Someone with a browser: keeps one cookie, follows no redirect.
struct Visitor {
    client: Client,
    base: String,
    cookie: String,
}

struct Page {
    status: u16,
    location: String,
    text: String,
}

impl Visitor {
    fn at(api: &Api) -> Self {
        let client = Client::builder().redirect(Policy::none());
        Self {
            client: client.build().unwrap(),
            base: api.base().to_owned(),
            cookie: String::new(),
        }
    }

    async fn signed_in(api: &Api, token: &str) -> Self {
        let mut visitor = Self::at(api);
        let page = visitor.post("/sign-in", &[("token", token)]).await;
        assert_eq!(
            (page.status, page.location.as_str()),
            (303, "/"),
            "{}",
            page.text
        );
        assert!(visitor.cookie.starts_with("carillon_session="));
        visitor
    }

    async fn get(&mut self, path: &str) -> Page {
        self.send(self.client.get(format!("{}{path}", self.base)))
            .await
    }

    async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let request = self.client.post(format!("{}{path}", self.base));
        let request = request.header("sec-fetch-site", "same-origin");
        let kind = "application/x-www-form-urlencoded";
        self.send(request.header("content-type", kind).body(body))
            .await
    }

    async fn send(&mut self, request: RequestBuilder) -> Page {
        let answer = request.header("cookie", &self.cookie).send().await.unwrap();
        let header = |name: &str| {
            let value = answer.headers().get(name);
            value.map_or("", |value| value.to_str().unwrap()).to_owned()
        };
        let policy = header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        let set = header("set-cookie");
        if !set.is_empty() {
            assert!(
                set.contains("; HttpOnly; ") && set.contains("SameSite="),
                "{set}"
            );
            self.cookie = set.split(';').next().unwrap().to_owned();
        }
        let (status, location) = (answer.status().as_u16(), header("location"));
        let text = answer.text().await.unwrap();
        Page {
            status,
            location,
            text,
        }
    }
}

impl Page {
    #[track_caller]
    fn has(&self, wanted: &str) -> &Self {
        assert!(self.text.contains(wanted), "{wanted}: {}", self.text);
        self
    }
}

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
async fn from_a_new_subscription_to_its_first_delivery_and_again() {
    let hooks = Hooks::answering(|received, times| {
        let is_test = received
            .body
            .windows(13)
            .any(|part| part == b"test.delivery");
        status(if times == 1 && !is_test { 500 } else { 200 })
    })
    .await;
    let carillon = Dispatcher::with(|config| {
        with_token(config);
        config.retry.max_attempts = 1;
    });
    let mut carillon = carillon.await;
    carillon.api.token = Some(ADMIN.to_owned());
    let mut admin = Visitor::signed_in(&carillon.api, ADMIN).await;

    let wrong = [
        ("tenant", "acme"),
        ("url", "ftp://a.example"),
        ("filter", "{}"),
    ];
    let refused = admin.post("/subscriptions/new", &wrong).await;
    assert_eq!(refused.status, 422);
    refused
        .has("id=\"url-fault\"")
        .has("value=\"ftp://a.example\"");
    let hook = hooks.url("console");
    let fields = [
        ("tenant", "acme"),
        ("url", hook.as_str()),
        ("description", "<script>alert(1)</script> & \"co\""),
        ("event_types", "demo.*\nother"),
        ("headers", "x-own: yes"),
    ];
    let made = admin.post("/subscriptions/new", &fields).await;
    made.has("shown this once").has("whsec_");
    assert!(
        !made.text.contains("<script>alert"),
        "what people write is text"
    );
    let all = carillon.api.items("/v1/subscriptions").await;
    let id = all[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(all[0]["event_types"], json!(["demo.*", "other"]));
    let path = format!("/subscriptions/{id}");
    let shown = admin.get(&path).await;
    assert!(!shown.text.contains("whsec_"), "once is once");

    let event = event("e1").to_string();
    let explained = admin
        .post("/publish", &[("event", &event), ("do", "explain")])
        .await;
    explained.has("1 of 1 subscriptions want it");
    let published = admin
        .post("/publish", &[("event", &event), ("do", "publish")])
        .await;
    published.has("Published as <code>e1</code>");
    hooks.arrived("console", 1).await;
    let page = poll_until("the failed attempt is shown", async || {
        let page = admin.get("/attempts?outcome=failed").await;
        page.text.contains("e1").then_some(page)
    });
    let page = page.await;
    let from = page.text.find("/deliveries/msg_").unwrap();
    let delivery: String = page.text[from..]
        .chars()
        .take_while(|c| *c != '"')
        .collect();
    admin
        .get(&delivery)
        .await
        .has("curl -sS -X POST")
        .has("x-own");
    let letters = poll_until("the dead letter is shown", async || {
        let page = admin.get("/dead-letters").await;
        page.text.contains("e1").then_some(page)
    });
    letters.await.has("Send it again");
    let redriven = admin.post("/dead-letters", &[("subscription", &id)]).await;
    redriven
        .has("1 dead letter is sent again.")
        .has("No dead letters like that");
    hooks.arrived("console", 2).await;
    admin.post(&delivery, &[]).await.has("It is sent again");
    hooks.arrived("console", 3).await;

    admin
        .post(&path, &[("do", "disable")])
        .await
        .has("It is disabled");
    admin
        .post(&path, &[("do", "enable")])
        .await
        .has("It is enabled");
    admin
        .post(&path, &[("do", "test")])
        .await
        .has("Test delivered");
    admin
        .post(&path, &[("do", "rotate"), ("overlap", "1h")])
        .await
        .has("signs too, until");
    edited(&mut admin, &path, &fields).await;
    assert_eq!(
        admin.post(&path, &[("do", "delete")]).await.location,
        "/subscriptions"
    );
    let gone = admin.get(&path).await;
    assert_eq!(gone.status, 404);
    gone.has("Not found");
}

/// Two people edit at the same time: the second is told, and overwrites nothing.
async fn edited(admin: &mut Visitor, path: &str, fields: &[(&str, &str)]) {
    let edit = format!("{path}/edit");
    let form = admin.get(&edit).await;
    let tag = form.text.split("name=\"etag\" value=\"").nth(1).unwrap();
    let tag = tag
        .split('"')
        .next()
        .unwrap()
        .replace("&#34;", "\"")
        .replace("&quot;", "\"");
    let mut changed = fields.to_vec();
    changed.retain(|(name, _)| *name != "description");
    changed.extend([("etag", tag.as_str()), ("description", "ours")]);
    admin
        .post(&edit, &changed)
        .await
        .has("It is saved.")
        .has("<h1>ours</h1>");
    let late = admin.post(&edit, &changed).await;
    assert_eq!(late.status, 412);
    late.has("another version");
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
    let redriven = tenant.post("/dead-letters", &[]).await;
    redriven.has("1 dead letter is sent again.");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_page_hears_of_news() {
    let hooks = Hooks::answering(|_, _| status(200)).await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    api.subscribe(&hooks.url("news"), json!({})).await;
    let request = Client::new().get(format!("{}/live", api.base()));
    let mut answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    api.publish(&event("e1")).await;
    let heard = tokio::time::timeout(Duration::from_secs(30), answer.chunk()).await;
    let heard = heard.unwrap().unwrap().unwrap();
    assert_eq!(&heard[..], b"event: news\ndata: {}\n\n");
}
