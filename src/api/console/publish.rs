//! Trying an event: who would want it, and publishing it.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::Pages;
use super::calls::Refusal;
use super::page::{Form, Frame, Notice, render_as};
use super::view::{Explained, List};
use super::visitor::Visitor;
use crate::domain::json::{Json, Object, read_slice};

#[derive(Template)]
#[template(path = "publish.html")]
struct PublishPage {
    frame: Frame,
    event: String,
    /// The id of an event that has none: the form sent twice is one event.
    id: String,
    explained: Option<Vec<Explained>>,
    /// Those of them who want it.
    matched: usize,
    /// The event's id, once it is published.
    published: Option<String>,
    notice: Option<Notice>,
}

/// The form, with an event to begin with.
pub async fn show(State(pages): State<Pages>, visitor: Visitor) -> Response {
    let tenant = match visitor.tenant() {
        "" => "acme",
        own => own,
    };
    let event = json!({
        "type": "demo.happened",
        "tenant": tenant,
        "data": { "severity": "high", "asset": { "name": "example.com" } },
    });
    let event = serde_json::to_string_pretty(&event).unwrap_or_default();
    let id = new_id(&pages);
    page(&visitor, event, id, Ok(Done::Nothing))
}

/// Says who would want the event, or publishes it.
pub async fn act(State(pages): State<Pages>, visitor: Visitor, form: Form) -> Response {
    let (event, id) = (form.text("event").to_owned(), form.text("id").to_owned());
    let done = match form.text("do") {
        "publish" => publish(&visitor, &event, &id).await,
        _ => explain(&visitor, &event).await,
    };
    let id = match done {
        Ok(Done::Published(_)) => new_id(&pages),
        _ => id,
    };
    page(&visitor, event, id, done)
}

/// What was done with an event.
enum Done {
    Nothing,
    Explained(Vec<Explained>),
    Published(String),
}

async fn explain(visitor: &Visitor, event: &str) -> Result<Done, Refusal> {
    read(event)?;
    let request = format!("{{\"event\":{event}}}");
    let answer: List<Explained> = visitor.calls.send_text(&["explain"], request).await?;
    Ok(Done::Explained(answer.items))
}

/// Publishes it as it was written; what a person does not care about is put in front.
async fn publish(visitor: &Visitor, event: &str, id: &str) -> Result<Done, Refusal> {
    let own = read(event)?;
    let mut missing = Map::new();
    for (name, value) in [
        ("id", id.to_owned()),
        ("timestamp", visitor.now.to_string()),
    ] {
        if own.get(name).is_none() {
            missing.insert(name.to_owned(), value.into());
        }
    }
    let published = match own.get("id") {
        Some(Json::Text(id)) => id.to_string(),
        _ => id.to_owned(),
    };
    let event = with_members(event, missing);
    let _: Value = visitor.calls.send_text(&["events"], event).await?;
    Ok(Done::Published(published))
}

/// The text of an object with more members, and all else as it was written.
fn with_members(object: &str, members: Map<String, Value>) -> String {
    let members = Value::from(members).to_string();
    let own = object.trim_start().strip_prefix('{').unwrap_or_default();
    let has_own = !own.trim_start().starts_with('}');
    match members.strip_suffix('}') {
        Some("{") | None => object.to_owned(),
        Some(more) if has_own => format!("{more},{own}"),
        Some(more) => format!("{more}{own}"),
    }
}

/// The event's members.
fn read(event: &str) -> Result<Object, Refusal> {
    let refuse = |detail: String| Refusal {
        status: StatusCode::UNPROCESSABLE_ENTITY,
        problem: json!({ "detail": detail }),
    };
    match read_slice(event.as_bytes()) {
        Ok(Json::Object(members)) => Ok(members),
        Ok(_) => Err(refuse("An event is a JSON object.".to_owned())),
        Err(fault) if fault.path.is_empty() => Err(refuse(format!("The event {}.", fault.problem))),
        Err(fault) => Err(refuse(format!("`{}` {}.", fault.path, fault.problem))),
    }
}

fn new_id(pages: &Pages) -> String {
    let mut random = [0; 8];
    pages.api.ports.chance.fill(&mut random);
    format!("console-{}", hex::encode(random))
}

fn page(visitor: &Visitor, event: String, id: String, done: Result<Done, Refusal>) -> Response {
    let mut page = PublishPage {
        frame: Frame::of(visitor, "publish", "Publish"),
        event,
        id,
        explained: None,
        matched: 0,
        published: None,
        notice: None,
    };
    let mut status = StatusCode::OK;
    match done {
        Ok(Done::Nothing) => {}
        Ok(Done::Published(id)) => page.published = Some(id),
        Ok(Done::Explained(all)) => {
            page.matched = all.iter().filter(|one| one.matches).count();
            page.explained = Some(all);
        }
        Err(refusal) => {
            page.notice = Notice::bad(&refusal);
            status = refusal.status;
        }
    }
    render_as(status, &page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_stays_as_it_is_written() {
        let one = || Map::from_iter([("id".to_owned(), json!("e\"1"))]);
        for (object, members, expected) in [
            (
                " {\n\"n\": 1.50}",
                one(),
                "{\"id\":\"e\\\"1\",\n\"n\": 1.50}",
            ),
            ("{ }", one(), "{\"id\":\"e\\\"1\" }"),
            ("{\"n\": 1}", Map::new(), "{\"n\": 1}"),
        ] {
            assert_eq!(with_members(object, members), expected);
            assert!(read(expected).is_ok());
        }
        assert!(read("[]").is_err() && read("{\"a\":1,\"a\":2}").is_err());
    }
}
