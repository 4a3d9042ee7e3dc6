//! The audit log.

use askama::Template;
use axum::response::Response;
use http::StatusCode;

use super::super::extract::Query;
use super::calls::with_query;
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
    pairs.extend([("limit", SHOWN), ("body_bytes", "0")]);
    let found: Result<List<Attempt>, _> = visitor.calls.get(&["attempts"], &pairs).await;
    let (status, notice, found) = match found {
        Ok(found) => (StatusCode::OK, None, found),
        Err(refusal) => (refusal.status, Notice::bad(&refusal), List::nothing()),
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
