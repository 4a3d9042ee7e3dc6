//! Who wants which events: the list, one with its recent attempts, the form, and what can be
//! done to one.

use askama::Template;
use axum::extract::Path;
use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::super::extract::Query;
use super::calls::{Refusal, with_query};
use super::form::{Fault, Fields};
use super::page::{Form, Frame, Notice, failed, go, render, render_as};
use super::view::{Attempt, Lane, List, Secret, Subscription};
use super::visitor::Visitor;

/// Attempts that are drawn.
const DRAWN: &str = "60";
const DRAWN_MAX: usize = 60;
/// How high the drawing is, in units of its own.
const HEIGHT: u64 = 60;

#[derive(Template)]
#[template(path = "subscriptions.html")]
struct ListPage {
    frame: Frame,
    tenant: String,
    text: String,
    subscriptions: Vec<Subscription>,
    next: Option<String>,
    notice: Option<Notice>,
}

/// The list; with a text to look for, those of the page that have it somewhere.
pub async fn list(visitor: Visitor, query: Query) -> Response {
    let text = |name| query.text(name).unwrap_or_default().trim().to_owned();
    let (tenant, wanted, cursor) = (text("tenant"), text("text"), text("cursor"));
    // Whoever looks for something looks through more at once.
    let limit = if wanted.is_empty() { "50" } else { "1000" };
    let pairs = [
        ("tenant", tenant.as_str()),
        ("cursor", &cursor),
        ("limit", limit),
    ];
    let found: Result<List<Subscription>, _> = visitor.calls.get(&["subscriptions"], &pairs).await;
    let (status, notice, mut found) = match found {
        Ok(found) => (StatusCode::OK, None, found),
        Err(refusal) => {
            let (items, next) = (Vec::new(), None);
            (refusal.status, Notice::bad(&refusal), List { items, next })
        }
    };
    found.items.retain(|one| has(one, &wanted));
    let next = found.next.map(|cursor| {
        let pairs = [
            ("tenant", tenant.as_str()),
            ("text", &wanted),
            ("cursor", &cursor),
        ];
        with_query("/subscriptions", &pairs)
    });
    let page = ListPage {
        frame: Frame::of(&visitor, "subscriptions", "Subscriptions"),
        tenant,
        text: wanted,
        subscriptions: found.items,
        next,
        notice,
    };
    render_as(status, &page)
}

fn has(subscription: &Subscription, text: &str) -> bool {
    let text = text.to_lowercase();
    let places = [
        &subscription.id,
        &subscription.url,
        &subscription.description,
        &subscription.tenant,
    ];
    let types = subscription.event_types.iter();
    places
        .into_iter()
        .chain(types)
        .any(|place| place.to_lowercase().contains(&text))
}

#[derive(Template)]
#[template(path = "subscription.html")]
struct OnePage {
    frame: Frame,
    subscription: Subscription,
    lane: Option<Lane>,
    attempts: Vec<Attempt>,
    bars: Vec<Bar>,
    /// When the soonest of the waiting deliveries is due.
    next_at: Option<String>,
    /// The secret, which is shown this once.
    secret: Option<Secret>,
    /// Until when the one before signs too.
    overlap_until: Option<String>,
    tested: Option<Tested>,
    notice: Option<Notice>,
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
struct Tested {
    outcome: String,
    reason: Option<String>,
    detail: String,
    status: Option<u16>,
    latency_ms: u64,
    response_body: Option<String>,
}

/// What was done to it just now.
#[derive(Default)]
struct Done {
    secret: Option<Secret>,
    overlap_until: Option<String>,
    tested: Option<Tested>,
    notice: Option<Notice>,
}

/// One, with its recent attempts and its lane.
pub async fn show(visitor: Visitor, Path(id): Path<String>) -> Response {
    one(&visitor, &id, Done::default()).await
}

async fn one(visitor: &Visitor, id: &str, done: Done) -> Response {
    let calls = &visitor.calls;
    let subscription: Subscription = match calls.get(&["subscriptions", id], &[]).await {
        Ok(subscription) => subscription,
        Err(refusal) => return failed(visitor, "subscriptions", &refusal),
    };
    let query = [("subscription", id), ("limit", DRAWN)];
    let attempts = calls.get(&["attempts"], &query).await;
    let attempts = attempts.map_or(Vec::new(), |list: List<Attempt>| list.items);
    let lane = calls.get(&["subscriptions", id, "lane"], &[]).await.ok();
    let now = visitor.now.to_string();
    let due = attempts
        .iter()
        .filter_map(|attempt| attempt.next_at.clone());
    let page = OnePage {
        frame: Frame::of(visitor, "subscriptions", subscription.name()),
        bars: bars(&attempts),
        next_at: due.filter(|at| *at > now).min(),
        subscription,
        lane,
        attempts,
        secret: done.secret,
        overlap_until: done.overlap_until,
        tested: done.tested,
        notice: done.notice,
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
    let (calls, path) = (&visitor.calls, ["subscriptions", id.as_str()]);
    let mut done = Done::default();
    let result: Result<(), Refusal> = match form.text("do") {
        "enable" | "disable" => {
            let enabled = form.text("do") == "enable";
            let patch = json!({ "enabled": enabled });
            let changed: Result<Value, _> = calls.send(Method::PATCH, &path, &patch).await;
            let said = if enabled {
                "It is enabled."
            } else {
                "It is disabled: nothing is sent."
            };
            changed.map(|_| done.notice = Notice::good(said))
        }
        "test" => {
            let path = ["subscriptions", &id, "test"];
            let tested = calls.send(Method::POST, &path, &json!({})).await;
            tested.map(|tested| done.tested = Some(tested))
        }
        "rotate" => {
            let path = ["subscriptions", &id, "rotate-secret"];
            let overlap = match form.text("overlap") {
                "" => json!({}),
                overlap => json!({ "overlap": overlap }),
            };
            let rotated = calls.send(Method::POST, &path, &overlap).await;
            rotated.map(|rotated: Rotated| {
                done.secret = Some(rotated.secret);
                done.overlap_until = Some(rotated.overlap_until);
            })
        }
        "delete" => match calls
            .send::<Value>(Method::DELETE, &path, &Value::Null)
            .await
        {
            Ok(_) => return go("/subscriptions"),
            Err(refusal) => Err(refusal),
        },
        _ => Ok(()),
    };
    if let Err(refusal) = result {
        done.notice = Notice::bad(&refusal);
    }
    one(&visitor, &id, done).await
}

#[derive(serde::Deserialize)]
struct Rotated {
    secret: Secret,
    overlap_until: String,
}

#[derive(Template)]
#[template(path = "subscription_form.html")]
struct FormPage {
    frame: Frame,
    /// Which one is changed; empty for a new one.
    id: String,
    etag: String,
    fields: Fields,
    fault: Fault,
}

/// The form for a new one.
pub async fn new(visitor: Visitor, query: Query) -> Response {
    let fields = Fields {
        tenant: visitor.tenant().to_owned(),
        format: query.text("format").unwrap_or_default().to_owned(),
        ..Fields::default()
    };
    form_page(
        &visitor,
        StatusCode::OK,
        "",
        String::new(),
        fields,
        Fault::default(),
    )
}

/// Creates one, and shows it with its secret.
pub async fn create(visitor: Visitor, form: Form) -> Response {
    let fields = Fields::read(&form);
    let created = match fields.document() {
        Ok(document) => visitor
            .calls
            .send(Method::POST, &["subscriptions"], &document.into())
            .await
            .map_err(|refusal| fault_of(&refusal)),
        Err(fault) => Err((StatusCode::UNPROCESSABLE_ENTITY, fault)),
    };
    match created {
        Ok(created) => {
            saved(
                &visitor,
                created,
                "It is created. Test it, then wait for events.",
            )
            .await
        }
        Err((status, fault)) => form_page(&visitor, status, "", String::new(), fields, fault),
    }
}

/// The form for one that is there.
pub async fn edit(visitor: Visitor, Path(id): Path<String>) -> Response {
    let path = ["subscriptions", id.as_str()];
    match visitor.calls.get_tagged::<Subscription>(&path).await {
        Ok((subscription, etag)) => {
            let fields = Fields::of(&subscription);
            form_page(
                &visitor,
                StatusCode::OK,
                &id,
                etag,
                fields,
                Fault::default(),
            )
        }
        Err(refusal) => failed(&visitor, "subscriptions", &refusal),
    }
}

/// Changes one as the form says, if nobody else has meanwhile.
pub async fn change(visitor: Visitor, Path(id): Path<String>, form: Form) -> Response {
    let fields = Fields::read(&form);
    let etag = form.text("etag").to_owned();
    let path = ["subscriptions", id.as_str()];
    let changed = match fields.document() {
        Ok(document) => {
            let patch: Map<_, _> = document
                .into_iter()
                .filter(|(name, _)| name != "tenant")
                .collect();
            visitor
                .calls
                .change(&path, &etag, &patch.into())
                .await
                .map_err(|refusal| fault_of(&refusal))
        }
        Err(fault) => Err((StatusCode::UNPROCESSABLE_ENTITY, fault)),
    };
    match changed {
        Ok(changed) => saved(&visitor, changed, "It is saved.").await,
        Err((status, fault)) => form_page(&visitor, status, &id, etag, fields, fault),
    }
}

/// Shows what was written; with what the API warns of, and a secret if there is a new one.
async fn saved(visitor: &Visitor, written: Subscription, said: &str) -> Response {
    let warnings = written
        .warnings
        .iter()
        .map(|warning| warning.detail.as_str());
    let warnings: Vec<&str> = warnings.collect();
    let notice = match warnings.as_slice() {
        [] => Notice::good(said),
        some => Some(Notice {
            is_bad: true,
            text: format!("{said} But: {}.", some.join("; ")),
        }),
    };
    let done = Done {
        secret: written.secret,
        notice,
        ..Done::default()
    };
    one(visitor, &written.id, done).await
}

fn fault_of(refusal: &Refusal) -> (StatusCode, Fault) {
    let fault = Fault {
        field: refusal.field().unwrap_or_default().to_owned(),
        detail: refusal.detail().to_owned(),
    };
    (refusal.status, fault)
}

fn form_page(
    visitor: &Visitor,
    status: StatusCode,
    id: &str,
    etag: String,
    fields: Fields,
    fault: Fault,
) -> Response {
    let title = match id {
        "" => "New subscription".to_owned(),
        id => format!("Edit {id}"),
    };
    let page = FormPage {
        frame: Frame::of(visitor, "subscriptions", title),
        id: id.to_owned(),
        etag,
        fields,
        fault,
    };
    render_as(status, &page)
}
