//! Trying an event: who would want it, and publishing it.

use askama::Template;
use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::calls::Refusal;
use super::page::{Form, Frame, Notice, render, render_as};
use super::view::{Explained, List};
use super::visitor::Visitor;

#[derive(Template)]
#[template(path = "publish.html")]
struct PublishPage {
    frame: Frame,
    event: String,
    explained: Option<Vec<Explained>>,
    /// Those of them who want it.
    matched: usize,
    /// The event's id, once it is published.
    published: Option<String>,
    notice: Option<Notice>,
}

/// The form, with an event to begin with.
pub async fn show(visitor: Visitor) -> Response {
    let event = example(&visitor);
    render(&PublishPage {
        frame: Frame::of(&visitor, "publish", "Publish"),
        event,
        explained: None,
        matched: 0,
        published: None,
        notice: None,
    })
}

/// Says who would want the event, or publishes it.
pub async fn act(visitor: Visitor, form: Form) -> Response {
    let text = form.text("event").to_owned();
    let mut page = PublishPage {
        frame: Frame::of(&visitor, "publish", "Publish"),
        event: text.clone(),
        explained: None,
        matched: 0,
        published: None,
        notice: None,
    };
    let done = match serde_json::from_str::<Value>(&text) {
        Err(error) => {
            page.notice = Some(Notice {
                is_bad: true,
                text: format!("The event is no JSON: {error}."),
            });
            return render_as(StatusCode::UNPROCESSABLE_ENTITY, &page);
        }
        Ok(event) if form.text("do") == "publish" => publish(&visitor, event, &mut page).await,
        Ok(event) => explain(&visitor, &event, &mut page).await,
    };
    match done {
        Ok(()) => render(&page),
        Err(refusal) => {
            page.notice = Notice::bad(&refusal);
            render_as(refusal.status, &page)
        }
    }
}

async fn explain(visitor: &Visitor, event: &Value, page: &mut PublishPage) -> Result<(), Refusal> {
    let request = json!({ "event": event });
    let answer: List<Explained> = visitor
        .calls
        .send(Method::POST, &["explain"], &request)
        .await?;
    page.matched = answer.items.iter().filter(|item| item.matches).count();
    page.explained = Some(answer.items);
    Ok(())
}

/// Publishes it; what a person does not care about is filled in.
async fn publish(visitor: &Visitor, event: Value, page: &mut PublishPage) -> Result<(), Refusal> {
    let mut event = event;
    if let Value::Object(fields) = &mut event {
        let now = visitor.now.to_string();
        let id = || json!(format!("console-{}", now.replace([':', '.'], "-")));
        fields.entry("id").or_insert_with(id);
        fields.entry("timestamp").or_insert_with(|| json!(now));
    }
    let _: Value = visitor
        .calls
        .send(Method::POST, &["events"], &event)
        .await?;
    page.published = event["id"].as_str().map(str::to_owned);
    Ok(())
}

fn example(visitor: &Visitor) -> String {
    let tenant = match visitor.tenant() {
        "" => "acme",
        own => own,
    };
    let event = json!({
        "type": "demo.happened",
        "tenant": tenant,
        "data": { "severity": "high", "asset": { "name": "example.com" } },
    });
    serde_json::to_string_pretty(&event).unwrap_or_default()
}
