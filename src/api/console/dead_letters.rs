//! What was given up: look, send it again, discard it.

use askama::Template;
use axum::response::Response;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::extract::Query;
use super::asked::Asked;
use super::calls::Refusal;
use super::page::{Form, Frame, Notice, Question, ask, failed, render_as};
use super::view::{DeadLetter, List};
use super::visitor::Visitor;
use crate::domain::delivery::DeadReason;

/// Dead letters on a page.
const SHOWN: &str = "100";

#[derive(Template)]
#[template(path = "dead_letters.html")]
struct DeadLettersPage {
    frame: Frame,
    asked: Asked,
    reasons: Vec<&'static str>,
    letters: Vec<DeadLetter>,
    /// How many match in all, until then; `None` where they cannot be counted.
    matched: Option<u64>,
    until: String,
    /// Why they cannot be shown, or not counted.
    trouble: Option<Notice>,
    notice: Option<Notice>,
}

const ASKED: [&str; 4] = ["tenant", "subscription", "reason", "since"];

/// The document of a redrive of those that were given up before `until`.
fn document(asked: &Asked, until: &str, dry_run: bool) -> Value {
    let given = asked.given().chain([("until", until)]);
    let document = given.map(|(name, value)| (name.to_owned(), json!(value)));
    let mut document: Map<_, _> = document.collect();
    document.insert("dry_run".to_owned(), dry_run.into());
    document.into()
}

/// What is asked for, in words that end a question.
fn words(asked: &Asked) -> String {
    let given = asked.given().map(|(name, value)| format!("{name} {value}"));
    let given: Vec<_> = given.collect();
    match given.as_slice() {
        [] => "all there are".to_owned(),
        some => some.join(", "),
    }
}

/// The oldest that match.
pub async fn list(visitor: Visitor, query: Query) -> Response {
    let asked = Asked::of_query(&query, &ASKED);
    page(&visitor, asked, None).await
}

/// Sends again all that match, or discards one.
pub async fn act(visitor: Visitor, form: Form) -> Response {
    let asked = Asked::of_form(&form, &ASKED);
    // What is said yes to is what was there when it was shown.
    let is_about_some = !(form.text("discard").is_empty() && form.text("until").is_empty());
    if !form.is_sure() || !is_about_some {
        return question(&visitor, &asked, &form).await;
    }
    let done = match form.text("discard") {
        "" => redrive(&visitor, &asked, form.text("until"), false)
            .await
            .map(|done| sent(&done)),
        discarded => {
            let path = ["dead-letters", discarded];
            let done = visitor
                .calls
                .send::<Value>(Method::DELETE, &path, &Value::Null);
            done.await
                .map(|_| "The dead letter is discarded.".to_owned())
        }
    };
    let notice = match done {
        Ok(done) => Notice::good(done),
        Err(refusal) => Notice::bad(&refusal),
    };
    page(&visitor, asked, notice).await
}

fn sent(redriven: &Redriven) -> String {
    match redriven.redriven {
        1 => "1 dead letter is sent again.".to_owned(),
        n => format!("{n} dead letters are sent again."),
    }
}

/// Asks first, and says how many it is about.
async fn question(visitor: &Visitor, asked: &Asked, form: &Form) -> Response {
    let back = asked.at("/dead-letters", "");
    let question = |title, text, yes| Question {
        section: "dead-letters",
        title,
        text,
        yes,
        action: "/dead-letters",
        back: &back,
    };
    if !form.text("discard").is_empty() {
        let title = "Discard this dead letter?".to_owned();
        let text = "It is not sent again, and is gone for good.";
        return ask(visitor, question(title, text, "Discard"), form);
    }
    match redrive(visitor, asked, form.text("until"), true).await {
        Ok(Redriven { matched, .. }) => {
            let title = format!("Send {matched} again ({})?", words(asked));
            let text = "Each has a fresh series of attempts. Those given up since the list was \
                        shown stay where they are.";
            ask(visitor, question(title, text, "Send again"), form)
        }
        Err(refusal) => failed(visitor, "dead-letters", &refusal),
    }
}

#[derive(Deserialize)]
struct Redriven {
    matched: u64,
    redriven: u64,
}

/// Sends again what is asked for, or says how many that would be.
async fn redrive(
    visitor: &Visitor,
    asked: &Asked,
    until: &str,
    dry_run: bool,
) -> Result<Redriven, Refusal> {
    let path = ["dead-letters", "redrive"];
    let document = document(asked, until, dry_run);
    visitor.calls.send(Method::POST, &path, &document).await
}

async fn page(visitor: &Visitor, asked: Asked, notice: Option<Notice>) -> Response {
    let until = visitor.now.to_string();
    let pairs = asked.with(&[("limit", SHOWN)]);
    let found: Result<List<DeadLetter>, _> = visitor.calls.get(&["dead-letters"], &pairs).await;
    let counted = match &found {
        Ok(found) if !found.items.is_empty() => Some(redrive(visitor, &asked, &until, true).await),
        _ => None,
    };
    let refusal = found.as_ref().err();
    let refusal = refusal.or(counted.as_ref().and_then(|counted| counted.as_ref().err()));
    let status = found
        .as_ref()
        .err()
        .map_or(StatusCode::OK, |refusal| refusal.status);
    let page = DeadLettersPage {
        frame: Frame::of(visitor, "dead-letters", "Dead letters"),
        reasons: DeadReason::ALL.iter().map(|reason| reason.code()).collect(),
        trouble: refusal.and_then(Notice::bad),
        letters: found.unwrap_or_else(|_| List::nothing()).items,
        matched: counted.and_then(Result::ok).map(|counted| counted.matched),
        asked,
        until,
        notice,
    };
    render_as(status, &page)
}
