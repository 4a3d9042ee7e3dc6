//! What was given up: look, send it again, discard it.

use askama::Template;
use axum::response::Response;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::extract::Query;
use super::calls::{Refusal, with_query};
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
    /// How many match in all, until then.
    matched: u64,
    until: String,
    /// Whether they cannot be shown.
    is_refused: bool,
    notice: Option<Notice>,
}

/// Which ones, as the fields of the page's form.
struct Asked {
    tenant: String,
    subscription: String,
    reason: String,
    since: String,
}

impl Asked {
    fn read<'a>(text: impl Fn(&str) -> Option<&'a str>) -> Self {
        let text = |name| text(name).unwrap_or_default().trim().to_owned();
        Self {
            tenant: text("tenant"),
            subscription: text("subscription"),
            reason: text("reason"),
            since: text("since"),
        }
    }

    fn pairs(&self) -> [(&str, &str); 4] {
        [
            ("tenant", &self.tenant),
            ("subscription", &self.subscription),
            ("reason", &self.reason),
            ("since", &self.since),
        ]
    }

    /// Whether anything is.
    fn is_any(&self) -> bool {
        self.pairs().iter().any(|(_, value)| !value.is_empty())
    }

    /// The same as the document of a redrive of those that were given up before `until`.
    fn document(&self, until: &str, dry_run: bool) -> Value {
        let pairs = self.pairs().into_iter().chain([("until", until)]);
        let named = pairs.filter(|(_, value)| !value.is_empty());
        let document = named.map(|(name, value)| (name.to_owned(), json!(value)));
        let mut document: Map<_, _> = document.collect();
        document.insert("dry_run".to_owned(), dry_run.into());
        document.into()
    }

    /// What it is, in words that end a question.
    fn words(&self) -> String {
        let named = self
            .pairs()
            .into_iter()
            .filter(|(_, value)| !value.is_empty());
        let named: Vec<_> = named
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        match named.as_slice() {
            [] => "all there are".to_owned(),
            some => some.join(", "),
        }
    }
}

/// The oldest that match.
pub async fn list(visitor: Visitor, query: Query) -> Response {
    let asked = Asked::read(|name| query.text(name));
    page(&visitor, asked, None).await
}

/// Sends again all that match, or discards one.
pub async fn act(visitor: Visitor, form: Form) -> Response {
    let asked = Asked::read(|name| Some(form.text(name)));
    if !form.is_sure() {
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
    let back = with_query("/dead-letters", &asked.pairs());
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
            let title = format!("Send {matched} again ({})?", asked.words());
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
    let document = asked.document(until, dry_run);
    visitor.calls.send(Method::POST, &path, &document).await
}

async fn page(visitor: &Visitor, asked: Asked, mut notice: Option<Notice>) -> Response {
    let mut pairs = asked.pairs().to_vec();
    pairs.push(("limit", SHOWN));
    let until = visitor.now.to_string();
    let found = visitor.calls.get(&["dead-letters"], &pairs).await;
    let found = match found {
        Ok(List { items, .. }) if items.is_empty() => Ok((items, 0)),
        Ok(List { items, .. }) => {
            let counted = redrive(visitor, &asked, &until, true).await;
            counted.map(|counted| (items, counted.matched))
        }
        Err(refusal) => Err(refusal),
    };
    let mut status = StatusCode::OK;
    let (letters, matched) = found.unwrap_or_else(|refusal| {
        notice = Notice::bad(&refusal);
        status = refusal.status;
        (Vec::new(), 0)
    });
    let page = DeadLettersPage {
        frame: Frame::of(visitor, "dead-letters", "Dead letters"),
        asked,
        reasons: DeadReason::ALL.iter().map(|reason| reason.code()).collect(),
        letters,
        matched,
        until,
        is_refused: status != StatusCode::OK,
        notice,
    };
    render_as(status, &page)
}
