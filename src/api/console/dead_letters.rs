//! What was given up: look, send it again, discard it.

use askama::Template;
use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::super::extract::Query;
use super::calls::Refusal;
use super::page::{Form, Frame, Notice, render_as};
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
    /// How many match in all.
    matched: u64,
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

    /// The same as the document of a redrive.
    fn document(&self, dry_run: bool) -> Value {
        let named = self
            .pairs()
            .into_iter()
            .filter(|(_, value)| !value.is_empty());
        let mut document: Map<_, _> = named
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        document.insert("dry_run".to_owned(), dry_run.into());
        document.into()
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
    let discarded = form.text("discard");
    let done = if discarded.is_empty() {
        let done = redrive(&visitor, &asked, false).await;
        done.map(|done| match done["redriven"].as_u64() {
            Some(1) => "1 dead letter is sent again.".to_owned(),
            n => format!("{} dead letters are sent again.", n.unwrap_or(0)),
        })
    } else {
        let path = ["dead-letters", discarded];
        let done = visitor
            .calls
            .send::<Value>(Method::DELETE, &path, &Value::Null);
        done.await
            .map(|_| "The dead letter is discarded.".to_owned())
    };
    let notice = match done {
        Ok(done) => Notice::good(done),
        Err(refusal) => Notice::bad(&refusal),
    };
    page(&visitor, asked, notice).await
}

/// Sends again what is asked for, or says how many that would be.
async fn redrive(visitor: &Visitor, asked: &Asked, dry_run: bool) -> Result<Value, Refusal> {
    let path = ["dead-letters", "redrive"];
    let document = asked.document(dry_run);
    visitor.calls.send(Method::POST, &path, &document).await
}

async fn page(visitor: &Visitor, asked: Asked, mut notice: Option<Notice>) -> Response {
    let mut pairs = asked.pairs().to_vec();
    pairs.push(("limit", SHOWN));
    let found = visitor.calls.get(&["dead-letters"], &pairs).await;
    let (status, letters) = match found {
        Ok(List { items, .. }) => (StatusCode::OK, items),
        Err(refusal) => {
            notice = Notice::bad(&refusal);
            (refusal.status, Vec::new())
        }
    };
    let matched = match letters.len() {
        0 => 0,
        _ => {
            let preview = redrive(visitor, &asked, true).await.ok();
            preview
                .and_then(|preview| preview["matched"].as_u64())
                .unwrap_or(0)
        }
    };
    let page = DeadLettersPage {
        frame: Frame::of(visitor, "dead-letters", "Dead letters"),
        asked,
        reasons: DeadReason::ALL.iter().map(|reason| reason.code()).collect(),
        letters,
        matched,
        notice,
    };
    render_as(status, &page)
}
