//! What was not understood: look, and have it taken again.

use askama::Template;
use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::page::{Form, Frame, Notice, Question, ask, render_as};
use super::view::{List, Quarantined};
use super::visitor::Visitor;

/// Messages on a page, and how much of each.
const SHOWN: [(&str, &str); 2] = [("limit", "50"), ("body_bytes", "4096")];

#[derive(Template)]
#[template(path = "quarantine.html")]
struct QuarantinePage {
    frame: Frame,
    messages: Vec<Quarantined>,
    /// What is put aside after the page was made stays when all are taken again.
    until: String,
    /// Why they cannot be shown.
    trouble: Option<Notice>,
    notice: Option<Notice>,
}

/// The oldest.
pub async fn list(visitor: Visitor) -> Response {
    page(&visitor, None).await
}

/// Has one taken again, or all.
pub async fn act(visitor: Visitor, form: Form) -> Response {
    let until = form.text("until");
    let (path, document): (&[&str], _) = match form.text("id") {
        "" if !form.is_sure() => {
            let question = Question {
                section: "quarantine",
                title: "Have all of them taken again?".to_owned(),
                text: "Whatever is still not understood comes back here.",
                yes: "Have all taken again",
                action: "/quarantine",
                back: "/quarantine",
            };
            return ask(&visitor, question, &form);
        }
        "" if until.is_empty() => (&["quarantine", "requeue"], json!({})),
        "" => (&["quarantine", "requeue"], json!({ "until": until })),
        id => (&["quarantine", id, "requeue"], json!({})),
    };
    let done: Result<Value, _> = visitor.calls.send(Method::POST, path, &document).await;
    let notice = match done {
        Ok(done) => Notice::good(format!("Taken again: {}.", done["requeued"])),
        Err(refusal) => Notice::bad(&refusal),
    };
    page(&visitor, notice).await
}

async fn page(visitor: &Visitor, notice: Option<Notice>) -> Response {
    let found: Result<List<Quarantined>, _> = visitor.calls.get(&["quarantine"], &SHOWN).await;
    let refusal = found.as_ref().err();
    let status = refusal.map_or(StatusCode::OK, |refusal| refusal.status);
    let page = QuarantinePage {
        frame: Frame::of(visitor, "quarantine", "Quarantine"),
        trouble: refusal.and_then(Notice::bad),
        messages: found.unwrap_or_else(|_| List::nothing()).items,
        until: visitor.now.to_string(),
        notice,
    };
    render_as(status, &page)
}
