//! The audit log, and what became of one delivery.

use askama::Template;
use axum::extract::Path;
use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::super::extract::Query;
use super::calls::with_query;
use super::page::{Frame, Notice, failed, render, render_as};
use super::view::{Attempt, Delivery, List};
use super::visitor::Visitor;

/// Attempts on a page.
const SHOWN: &str = "50";

#[derive(Template)]
#[template(path = "attempts.html")]
struct AttemptsPage {
    frame: Frame,
    asked: Asked,
    attempts: Vec<Attempt>,
    /// The address of the next page.
    next: Option<String>,
    notice: Option<Notice>,
}

/// What is asked for, as the fields of the page's form.
#[derive(Default)]
struct Asked {
    tenant: String,
    subscription: String,
    event: String,
    delivery: String,
    outcome: String,
    since: String,
}

impl Asked {
    fn read(query: &Query) -> Self {
        let text = |name| query.text(name).unwrap_or_default().trim().to_owned();
        Self {
            tenant: text("tenant"),
            subscription: text("subscription"),
            event: text("event"),
            delivery: text("delivery"),
            outcome: text("outcome"),
            since: text("since"),
        }
    }

    fn pairs(&self) -> [(&str, &str); 6] {
        [
            ("tenant", &self.tenant),
            ("subscription", &self.subscription),
            ("event", &self.event),
            ("delivery", &self.delivery),
            ("outcome", &self.outcome),
            ("since", &self.since),
        ]
    }

    /// Whether anything is.
    fn is_any(&self) -> bool {
        self.pairs().iter().any(|(_, value)| !value.is_empty())
    }

    /// The address of the page that begins at `cursor`.
    fn at(&self, cursor: &str) -> String {
        let mut pairs = self.pairs().to_vec();
        pairs.push(("cursor", cursor));
        with_query("/attempts", &pairs)
    }
}

/// The audit log.
pub async fn list(visitor: Visitor, query: Query) -> Response {
    let asked = Asked::read(&query);
    let mut pairs = asked.pairs().to_vec();
    pairs.push(("cursor", query.text("cursor").unwrap_or_default()));
    pairs.push(("limit", SHOWN));
    let found: Result<List<Attempt>, _> = visitor.calls.get(&["attempts"], &pairs).await;
    let (status, notice, found) = match found {
        Ok(found) => (StatusCode::OK, None, found),
        Err(refusal) => {
            let nothing = List {
                items: Vec::new(),
                next: None,
            };
            (refusal.status, Notice::bad(&refusal), nothing)
        }
    };
    let page = AttemptsPage {
        frame: Frame::of(&visitor, "attempts", "Attempts"),
        next: found.next.map(|cursor| asked.at(&cursor)),
        asked,
        attempts: found.items,
        notice,
    };
    render_as(status, &page)
}

#[derive(Template)]
#[template(path = "delivery.html")]
struct DeliveryPage {
    frame: Frame,
    delivery: Delivery,
    notice: Option<Notice>,
}

impl DeliveryPage {
    /// What became of it, as a sentence.
    fn state(&self) -> &str {
        match self.delivery.state.as_str() {
            "delivered" => "delivered",
            "waiting" => "waiting for another attempt",
            "dead_lettered" => "given up: a dead letter",
            "failed" => "failed: a test has one attempt",
            _ => "given up, then sent again or discarded",
        }
    }

    fn mark(&self) -> &str {
        match self.delivery.state.as_str() {
            "delivered" => "good",
            "waiting" => "wait",
            _ => "bad",
        }
    }
}

/// What became of one delivery.
pub async fn delivery(visitor: Visitor, Path(id): Path<String>) -> Response {
    one(&visitor, &id, None).await
}

/// Sends a delivery again.
pub async fn redeliver(visitor: Visitor, Path(id): Path<String>) -> Response {
    let path = ["deliveries", &id, "redeliver"];
    let sent: Result<Value, _> = visitor.calls.send(Method::POST, &path, &json!({})).await;
    let notice = match sent {
        Ok(_) => Notice::good("It is sent again: its next attempt appears here."),
        Err(refusal) => Notice::bad(&refusal),
    };
    one(&visitor, &id, notice).await
}

async fn one(visitor: &Visitor, id: &str, notice: Option<Notice>) -> Response {
    match visitor.calls.get(&["deliveries", id], &[]).await {
        Ok(delivery) => render(&DeliveryPage {
            frame: Frame::of(visitor, "attempts", format!("Delivery {id}")),
            delivery,
            notice,
        }),
        Err(refusal) => failed(visitor, "attempts", &refusal),
    }
}
