//! The audit log.

use askama::Template;
use axum::response::Response;
use http::StatusCode;

use super::super::extract::Query;
use super::asked::Asked;
use super::page::{Frame, Notice, render_as};
use super::view::{Attempt, List};
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

const ASKED: [&str; 6] = [
    "tenant",
    "subscription",
    "event",
    "delivery",
    "outcome",
    "since",
];

/// The audit log.
pub async fn list(visitor: Visitor, query: Query) -> Response {
    let asked = Asked::of_query(&query, &ASKED);
    let cursor = query.text("cursor").unwrap_or_default();
    let pairs = asked.with(&[("cursor", cursor), ("limit", SHOWN), ("body_bytes", "0")]);
    let found: Result<List<Attempt>, _> = visitor.calls.get(&["attempts"], &pairs).await;
    let (status, notice, found) = match found {
        Ok(found) => (StatusCode::OK, None, found),
        Err(refusal) => (refusal.status, Notice::bad(&refusal), List::nothing()),
    };
    let page = AttemptsPage {
        frame: Frame::of(&visitor, "attempts", "Attempts"),
        next: found.next.map(|cursor| asked.at("/attempts", &cursor)),
        asked,
        attempts: found.items,
        notice,
    };
    render_as(status, &page)
}
