//! The console as a browser without script has it: pages and forms. What only a browser shows is
//! tested in one.

mod access;
mod visitor;

use carillon::config::Config;
use reqwest::Client;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::harness::{Dispatcher, event, poll_until};
use super::hooks::{Hooks, status};
use visitor::Visitor;

const ADMIN: &str = "correct-horse-battery-staple";
fn with_token(config: &mut Config) {
    config.http.admin_token = Some(SecretString::from(ADMIN));
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
        ("signing", "hmac-sha256"),
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
    // What was given up since the list was shown is not meant.
    let before = [("until", "2026-01-01T00:00:00Z")];
    let none = admin.surely("/dead-letters", &before, "Send 0 again (all there are)?");
    none.await.has("0 dead letters are sent again.").has("e1");
    let list = admin.get(&format!("/dead-letters?subscription={id}")).await;
    let redriven = admin.in_its_form(&list, "/dead-letters", "Send 1 again (subscription sub_");
    redriven
        .await
        .has("1 dead letter is sent again.")
        .has("No dead letters like that");
    hooks.arrived("console", 2).await;
    admin.post(&delivery, &[]).await.has("It is sent again");
    hooks.arrived("console", 3).await;

    let disabled = admin.surely(&path, &[("do", "disable")], "Disable this subscription?");
    disabled.await.has("It is disabled");
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
    let deleted = admin.surely(&path, &[("do", "delete")], "Delete this subscription?");
    assert_eq!(deleted.await.location, "/subscriptions");
    let gone = admin.get(&path).await;
    assert_eq!(gone.status, 404);
    gone.has("Not found");
}

/// Two people edit at the same time: the second is told, and overwrites nothing.
async fn edited(admin: &mut Visitor, path: &str, fields: &[(&str, &str)]) {
    let edit = format!("{path}/edit");
    let form = admin.get(&edit).await;
    let tag = tag_of(&form.text);
    let mut changed = fields.to_vec();
    changed.retain(|(name, _)| *name != "description");
    changed.extend([("etag", tag.as_str()), ("description", "ours")]);
    admin
        .post(&edit, &changed)
        .await
        .has("It is saved.")
        .has("<h1>ours</h1>");
    // What the form has no more is taken away, also within a field.
    let read = format!("{}/v1{path}", admin.base);
    let read = async |admin: &Visitor| -> Value {
        let request = admin.client.get(&read).bearer_auth(ADMIN);
        request.send().await.unwrap().json().await.unwrap()
    };
    assert_eq!(read(admin).await["headers"], json!({ "x-own": "yes" }));
    let mut less = changed.clone();
    less.retain(|(name, _)| !["headers", "event_types", "etag"].contains(name));
    let tag = tag_of(&admin.get(&edit).await.text);
    less.extend([("etag", tag.as_str()), ("event_types", "demo.*")]);
    admin.post(&edit, &less).await.has("It is saved.");
    let now = read(admin).await;
    assert_eq!(
        (&now["headers"], &now["event_types"]),
        (&json!({}), &json!(["demo.*"]))
    );
    let late = admin.post(&edit, &changed).await;
    assert_eq!(late.status, 412);
    late.has("Somebody else has changed it meanwhile");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_page_hears_of_news_until_the_end() {
    let hooks = Hooks::answering(|_, _| status(200)).await;
    let carillon = Dispatcher::start().await;
    let api = &carillon.api;
    api.subscribe(&hooks.url("news"), json!({})).await;
    let request = Client::new().get(format!("{}/live", api.base()));
    let mut answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let hello = answer.chunk().await.unwrap().unwrap();
    assert_eq!(&hello[..], b"retry: 3000\n\n");
    api.publish(&event("e1")).await;
    // A sign of life comes every ten seconds; news are something else.
    let mut heard = Vec::new();
    while heard.len() < 3 && !heard.contains(&"event: news\ndata: {}\n\n".into()) {
        heard.push(answer.chunk().await.unwrap().unwrap());
    }
    assert!(
        heard.contains(&"event: news\ndata: {}\n\n".into()),
        "{heard:?}"
    );
    // Whoever listens does not hold up the end, and is told of it properly.
    carillon.stop().await;
    while let Some(chunk) = answer.chunk().await.expect("ended, not cut off") {
        assert!(chunk.starts_with(b"event: "));
    }
}

/// The version that a form shows.
fn tag_of(form: &str) -> String {
    let tag = form.split("name=\"etag\" value=\"").nth(1).unwrap();
    let tag = tag.split('"').next().unwrap();
    tag.replace("&#34;", "\"").replace("&quot;", "\"")
}
