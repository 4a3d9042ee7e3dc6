//! Who wants which events: the list, one with its recent attempts, and what can be done to one.

use askama::Template;
use axum::extract::Path;
use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::super::extract::Query;
use super::asked::Asked;
use super::calls::{Refusal, path_to};
use super::page::{Form, Frame, Notice, Question, ask, failed, go, render, render_as};
use super::view::{Attempt, Lane, List, Secret, Subscription};
use super::visitor::Visitor;

/// Subscriptions on a page.
const SHOWN: &str = "50";
/// Whoever looks for something is shown what is found when it is so many, or after so many asks.
const FOUND_ENOUGH: usize = 50;
const ASKS_MAX: usize = 20;
/// Attempts that are drawn.
const DRAWN: &str = "60";
const DRAWN_MAX: usize = 60;
/// How high the drawing is, in units of its own.
const HEIGHT: u64 = 60;

#[derive(Template)]
#[template(path = "subscriptions.html")]
struct ListPage {
    frame: Frame,
    wanted: Asked,
    subscriptions: Vec<Subscription>,
    /// The address of the next page.
    next: Option<String>,
    notice: Option<Notice>,
}

/// The list. Whoever looks for something has it looked for in many.
pub async fn list(visitor: Visitor, query: Query) -> Response {
    let wanted = Asked::of_query(&query, &["tenant", "text", "state"]);
    let cursor = query.text("cursor").unwrap_or_default();
    let (status, notice, found) = match find(&visitor, &wanted, cursor).await {
        Ok(found) => (StatusCode::OK, None, found),
        Err(refusal) => (refusal.status, Notice::bad(&refusal), List::nothing()),
    };
    let page = ListPage {
        frame: Frame::of(&visitor, "subscriptions", "Subscriptions"),
        next: found
            .next
            .map(|cursor| wanted.at("/subscriptions", &cursor)),
        wanted,
        subscriptions: found.items,
        notice,
    };
    render_as(status, &page)
}

/// Those that are looked for, a page of them or those among the next ten thousand.
async fn find(
    visitor: &Visitor,
    wanted: &Asked,
    cursor: &str,
) -> Result<List<Subscription>, Refusal> {
    // Whoever looks for something looks through more at once.
    let is_picky = !(wanted.get("text").is_empty() && wanted.get("state").is_empty());
    let (limit, asks) = match is_picky {
        true => ("500", ASKS_MAX),
        false => (SHOWN, 1),
    };
    let mut all = List::nothing();
    let mut cursor = cursor.to_owned();
    for _ in 0..asks {
        let pairs = [
            ("tenant", wanted.get("tenant")),
            ("cursor", &cursor),
            ("limit", limit),
        ];
        let page: List<Subscription> = visitor.calls.get(&["subscriptions"], &pairs).await?;
        all.items
            .extend(page.items.into_iter().filter(|one| is_wanted(one, wanted)));
        all.next = page.next;
        match &all.next {
            Some(next) if all.items.len() < FOUND_ENOUGH => cursor = next.clone(),
            _ => break,
        }
    }
    Ok(all)
}

fn is_wanted(one: &Subscription, wanted: &Asked) -> bool {
    let is_state = match wanted.get("state") {
        "enabled" => one.enabled,
        "disabled" => !one.enabled,
        _ => true,
    };
    let text = wanted.get("text").to_lowercase();
    let places = [&one.id, &one.url, &one.description, &one.tenant];
    let mut places = places.into_iter().chain(&one.event_types);
    is_state && places.any(|place| place.to_lowercase().contains(&text))
}

#[derive(Template)]
#[template(path = "subscription.html")]
struct OnePage {
    frame: Frame,
    subscription: Subscription,
    lane: Option<Lane>,
    attempts: Vec<Attempt>,
    /// Why attempts or the lane cannot be shown.
    trouble: Option<Notice>,
    bars: Vec<Bar>,
    /// When the soonest of the waiting deliveries is due.
    next_at: Option<String>,
    done: Done,
}

/// One attempt, drawn.
struct Bar {
    x: usize,
    y: u64,
    height: u64,
    is_delivered: bool,
    delivery: String,
    title: String,
}

/// What came of a test.
#[derive(serde::Deserialize)]
pub struct Tested {
    outcome: String,
    reason: Option<String>,
    detail: String,
    status: Option<u16>,
    latency_ms: u64,
    response_body: Option<String>,
}

/// What was done to it just now.
#[derive(Default)]
pub struct Done {
    /// Its secret, which is shown this once.
    pub secret: Option<Secret>,
    pub notice: Option<Notice>,
    /// Until when the secret before signs too.
    pub overlap_until: Option<String>,
    pub tested: Option<Tested>,
}

/// One, with its recent attempts and its lane.
pub async fn show(visitor: Visitor, Path(id): Path<String>) -> Response {
    one(&visitor, &id, Done::default()).await
}

async fn one(visitor: &Visitor, id: &str, done: Done) -> Response {
    match visitor.calls.get(&["subscriptions", id], &[]).await {
        Ok(subscription) => shown(visitor, subscription, done).await,
        Err(refusal) => failed(visitor, "subscriptions", &refusal),
    }
}

/// One, and what was done to it just now.
pub async fn shown(visitor: &Visitor, subscription: Subscription, done: Done) -> Response {
    let (calls, id) = (&visitor.calls, subscription.id.as_str());
    let query = [("subscription", id), ("limit", DRAWN), ("body_bytes", "0")];
    let attempts: Result<List<Attempt>, _> = calls.get(&["attempts"], &query).await;
    let lane: Result<Lane, _> = calls.get(&["subscriptions", id, "lane"], &[]).await;
    let trouble = attempts.as_ref().err().or(lane.as_ref().err());
    let trouble = trouble.and_then(Notice::bad);
    let attempts = attempts.unwrap_or_else(|_| List::nothing()).items;
    let now = visitor.now.to_string();
    let due = attempts
        .iter()
        .filter_map(|attempt| attempt.next_at.clone());
    let page = OnePage {
        frame: Frame::of(visitor, "subscriptions", subscription.name()),
        bars: bars(&attempts),
        next_at: due.filter(|at| *at > now).min(),
        subscription,
        lane: lane.ok(),
        attempts,
        trouble,
        done,
    };
    render(&page)
}

/// The attempts as bars, the oldest first, each as high as it was long.
fn bars(attempts: &[Attempt]) -> Vec<Bar> {
    let longest = attempts
        .iter()
        .map(|attempt| attempt.timing.total_ms)
        .max()
        .unwrap_or(0);
    let bars = attempts.iter().rev().enumerate().map(|(n, attempt)| {
        let height = (attempt.timing.total_ms * HEIGHT / longest.max(1)).max(4);
        Bar {
            x: (DRAWN_MAX - attempts.len().min(DRAWN_MAX) + n) * 10,
            y: HEIGHT - height,
            height,
            is_delivered: attempt.is_delivered(),
            delivery: attempt.delivery_id.clone(),
            title: format!(
                "{}: {} in {} ms",
                attempt.at,
                attempt.result(),
                attempt.timing.total_ms
            ),
        }
    });
    bars.collect()
}

/// Enables, disables, tests, deletes one, or makes it a new secret.
pub async fn act(visitor: Visitor, Path(id): Path<String>, form: Form) -> Response {
    if let Some((title, text, yes)) = question(&form).filter(|_| !form.is_sure()) {
        let own = path_to(&["subscriptions", &id]);
        let question = Question {
            section: "subscriptions",
            title: title.to_owned(),
            text,
            yes,
            action: &own,
            back: &own,
        };
        return ask(&visitor, question, &form);
    }
    match done(&visitor, &id, &form).await {
        Ok(Some((Some(subscription), done))) => shown(&visitor, subscription, done).await,
        Ok(Some((None, done))) => one(&visitor, &id, done).await,
        Ok(None) => go("/subscriptions"),
        Err(refusal) => {
            let notice = Notice::bad(&refusal);
            let done = Done {
                notice,
                ..Done::default()
            };
            one(&visitor, &id, done).await
        }
    }
}

/// What has to be meant: its question, what would happen, and the button.
fn question(form: &Form) -> Option<(&'static str, &'static str, &'static str)> {
    match (form.text("do"), form.text("overlap")) {
        ("disable", _) => Some((
            "Disable this subscription?",
            "Nothing more is sent there. What waits for it becomes a dead letter when it is due, \
             and what is published meanwhile does not reach it later.",
            "Disable",
        )),
        ("rotate", "0s") => Some((
            "End the old secret at once?",
            "A receiver that does not know the new secret refuses everything from now on.",
            "Rotate, and end the old one",
        )),
        ("delete", _) => Some((
            "Delete this subscription?",
            "What waits for it becomes a dead letter when it is due. Its secret is gone for good.",
            "Delete",
        )),
        _ => None,
    }
}

/// What was done to a subscription, with itself where it is known.
type Told = (Option<Subscription>, Done);

/// Does what the form wants; `None` when it is deleted.
async fn done(visitor: &Visitor, id: &str, form: &Form) -> Result<Option<Told>, Refusal> {
    let (calls, path) = (&visitor.calls, ["subscriptions", id]);
    let (mut known, mut done) = (None, Done::default());
    match form.text("do") {
        wanted @ ("enable" | "disable") => {
            let (enabled, said) = match wanted {
                "enable" => (true, "It is enabled."),
                _ => (false, "It is disabled: nothing is sent."),
            };
            let change = json!({ "enabled": enabled });
            known = calls.send(Method::PATCH, &path, &change).await?;
            done.notice = Notice::good(said);
        }
        "test" => {
            let path = ["subscriptions", id, "test"];
            done.tested = Some(calls.send(Method::POST, &path, &json!({})).await?);
        }
        "rotate" => {
            // Read first: what is shown but once must not fail to be shown.
            known = calls.get(&path, &[]).await?;
            let path = ["subscriptions", id, "rotate-secret"];
            let overlap = match form.text("overlap") {
                "" => json!({}),
                overlap => json!({ "overlap": overlap }),
            };
            let rotated: Rotated = calls.send(Method::POST, &path, &overlap).await?;
            done.secret = Some(rotated.secret);
            done.overlap_until = Some(rotated.overlap_until);
        }
        "delete" => {
            let _: Value = calls.send(Method::DELETE, &path, &Value::Null).await?;
            return Ok(None);
        }
        _ => {}
    }
    Ok(Some((known, done)))
}

#[derive(serde::Deserialize)]
struct Rotated {
    secret: Secret,
    overlap_until: String,
}
