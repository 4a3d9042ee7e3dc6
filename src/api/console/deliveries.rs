//! One delivery: what became of it, its attempts with what was sent and what came back.

use askama::Template;
use axum::extract::Path;
use axum::response::Response;
use http::Method;
use serde_json::{Value, json};

use super::super::extract::Query;
use super::calls::{path_to, with_query};
use super::page::{Frame, Notice, failed, render};
use super::view::{Attempt, Delivery, List};
use super::visitor::Visitor;

/// Attempts on a page, and how much of each body.
const SHOWN: &str = "10";
const BODY_BYTES: &str = "65536";

#[derive(Template)]
#[template(path = "delivery.html")]
struct DeliveryPage {
    frame: Frame,
    delivery: Delivery,
    attempts: Vec<Attempt>,
    /// The address of the page with those before.
    next: Option<String>,
    /// Why they cannot be shown.
    trouble: Option<Notice>,
    /// The page's own address, where it is shown as the answer to something else.
    at: Option<String>,
    notice: Option<Notice>,
}

impl DeliveryPage {
    /// Whether the Test action made it, which sends nothing again.
    fn is_test(&self) -> bool {
        self.attempts.first().is_some_and(|attempt| attempt.test)
    }
}

/// What became of one.
pub async fn show(visitor: Visitor, Path(id): Path<String>, query: Query) -> Response {
    let cursor = query.text("cursor").unwrap_or_default();
    one(&visitor, &id, cursor, None).await
}

/// Sends one again.
pub async fn redeliver(visitor: Visitor, Path(id): Path<String>) -> Response {
    let redeliver = ["deliveries", &id, "redeliver"];
    let sent: Result<Value, _> = visitor
        .calls
        .send(Method::POST, &redeliver, &json!({}))
        .await;
    let notice = match sent {
        Ok(_) => Notice::good("It is sent again: its next attempt appears here."),
        Err(refusal) => Notice::bad(&refusal),
    };
    one(&visitor, &id, "", notice).await
}

async fn one(visitor: &Visitor, id: &str, cursor: &str, notice: Option<Notice>) -> Response {
    let calls = &visitor.calls;
    let without_bodies = [("body_bytes", "0")];
    let delivery: Delivery = match calls.get(&["deliveries", id], &without_bodies).await {
        Ok(delivery) => delivery,
        Err(refusal) => return failed(visitor, "attempts", &refusal),
    };
    let query = [
        ("delivery", id),
        ("limit", SHOWN),
        ("cursor", cursor),
        ("body_bytes", BODY_BYTES),
    ];
    let found: Result<List<Attempt>, _> = calls.get(&["attempts"], &query).await;
    let (found, trouble) = match found {
        Ok(found) => (found, None),
        Err(refusal) => (List::nothing(), Notice::bad(&refusal)),
    };
    let own = path_to(&["deliveries", id]);
    let next = found
        .next
        .map(|cursor| with_query(&own, &[("cursor", &cursor)]));
    render(&DeliveryPage {
        frame: Frame::of(visitor, "attempts", format!("Delivery {id}")),
        delivery,
        attempts: found.items,
        next,
        trouble,
        at: notice.is_some().then_some(own),
        notice,
    })
}
