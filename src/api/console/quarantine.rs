//! What was not understood: look, and have it taken again.

use askama::Template;
use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::page::{Form, Frame, Notice, failed, render_as};
use super::view::{List, Quarantined};
use super::visitor::Visitor;

#[derive(Template)]
#[template(path = "quarantine.html")]
struct QuarantinePage {
    frame: Frame,
    messages: Vec<Quarantined>,
    notice: Option<Notice>,
}

/// The oldest.
pub async fn list(visitor: Visitor) -> Response {
    page(&visitor, None).await
}

/// Has one taken again, or all.
pub async fn act(visitor: Visitor, form: Form) -> Response {
    let id = form.text("id");
    let path: &[&str] = match id {
        "" => &["quarantine", "requeue"],
        id => &["quarantine", id, "requeue"],
    };
    let done: Result<Value, _> = visitor.calls.send(Method::POST, path, &json!({})).await;
    let notice = match done {
        Ok(done) => Notice::good(format!("Taken again: {}.", done["requeued"])),
        Err(refusal) => Notice::bad(&refusal),
    };
    page(&visitor, notice).await
}

async fn page(visitor: &Visitor, notice: Option<Notice>) -> Response {
    let found = visitor.calls.get(&["quarantine"], &[]).await;
    match found {
        Ok(List { items, .. }) => render_as(
            StatusCode::OK,
            &QuarantinePage {
                frame: Frame::of(visitor, "quarantine", "Quarantine"),
                messages: items,
                notice,
            },
        ),
        Err(refusal) => failed(visitor, "quarantine", &refusal),
    }
}
