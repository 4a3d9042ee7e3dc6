//! Making a subscription and changing one: the form.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, Method, StatusCode, header};

use super::super::extract::Query;
use super::Pages;
use super::calls::{Refusal, path_to};
use super::form::{Fault, Fields, patch};
use super::page::{Form, Frame, Notice, Question, ask, failed, render_as};
use super::subscriptions::{Done, shown};
use super::view::Subscription;
use super::visitor::Visitor;

#[derive(Template)]
#[template(path = "subscription_form.html")]
struct FormPage {
    frame: Frame,
    /// Which one is changed; empty for a new one.
    id: String,
    /// Which version of it the form shows.
    etag: String,
    /// Makes the form create one, however often it is sent.
    key: String,
    fields: Fields,
    fault: Fault,
    /// Whether somebody else changed it meanwhile.
    is_late: bool,
}

/// What the form shows beside its fields.
struct Shown<'a> {
    id: &'a str,
    etag: &'a str,
    key: &'a str,
}

/// The form for a new one.
pub async fn new(State(pages): State<Pages>, visitor: Visitor, query: Query) -> Response {
    let mut random = [0; 16];
    pages.api.ports.chance.fill(&mut random);
    let fields = Fields {
        tenant: visitor.tenant().to_owned(),
        format: query.text("format").unwrap_or_default().to_owned(),
        ..Fields::default()
    };
    let shown = Shown {
        id: "",
        etag: "",
        key: &URL_SAFE_NO_PAD.encode(random),
    };
    page(&visitor, &shown, fields, Ok(()))
}

/// Creates one, and shows it with its secret.
pub async fn create(visitor: Visitor, form: Form) -> Response {
    let (fields, key) = (Fields::read(&form), form.text("key"));
    let created = match fields.document() {
        Ok(document) => {
            let key = Some((HeaderName::from_static("idempotency-key"), key));
            let path = ["subscriptions"];
            let sent = visitor.calls.send_with(Method::POST, &path, key, &document);
            sent.await.map_err(|refusal| fault_of(&refusal))
        }
        Err(fault) => Err((StatusCode::UNPROCESSABLE_ENTITY, fault)),
    };
    match created {
        Ok(created) => {
            let said = "It is created. Test it, then wait for events.";
            saved(&visitor, created, said).await
        }
        Err(fault) => {
            let (id, etag) = ("", "");
            page(&visitor, &Shown { id, etag, key }, fields, Err(fault))
        }
    }
}

/// The form for one that is there.
pub async fn edit(visitor: Visitor, Path(id): Path<String>) -> Response {
    let path = ["subscriptions", id.as_str()];
    match visitor.calls.get_tagged::<Subscription>(&path).await {
        Ok((subscription, etag)) => {
            let (id, etag, key) = (id.as_str(), etag.as_str(), "");
            let fields = Fields::of(&subscription);
            page(&visitor, &Shown { id, etag, key }, fields, Ok(()))
        }
        Err(refusal) => failed(&visitor, "subscriptions", &refusal),
    }
}

/// Changes what the form has changed of one, if nobody else has meanwhile.
pub async fn change(visitor: Visitor, Path(id): Path<String>, form: Form) -> Response {
    let fields = Fields::read(&form);
    let path = ["subscriptions", id.as_str()];
    let current: Subscription = match visitor.calls.get(&path, &[]).await {
        Ok(current) => current,
        Err(refusal) => return failed(&visitor, "subscriptions", &refusal),
    };
    if fields.signing != current.signing && !form.is_sure() {
        let own = path_to(&["subscriptions", &id, "edit"]);
        let question = Question {
            section: "subscriptions",
            title: "Sign in another way?".to_owned(),
            text: "It gets another secret, shown once, and the old one ends at once: a receiver \
                   that does not know the new one refuses everything from now on.",
            yes: "Sign in the other way",
            action: &own,
            back: &own,
        };
        return ask(&visitor, question, &form);
    }
    let etag = form.text("etag");
    let changed = match patch(&Fields::of(&current), &fields) {
        Ok(patch) => {
            let if_match = Some((header::IF_MATCH, etag));
            let sent = visitor
                .calls
                .send_with(Method::PATCH, &path, if_match, &patch);
            sent.await.map_err(|refusal| fault_of(&refusal))
        }
        Err(fault) => Err((StatusCode::UNPROCESSABLE_ENTITY, fault)),
    };
    match changed {
        Ok(changed) => saved(&visitor, changed, "It is saved.").await,
        Err(fault) => {
            let (id, key) = (id.as_str(), "");
            page(&visitor, &Shown { id, etag, key }, fields, Err(fault))
        }
    }
}

/// Shows what was written; with what the API warns of, and a secret if there is a new one.
async fn saved(visitor: &Visitor, mut written: Subscription, said: &str) -> Response {
    let warnings = written.warnings.iter();
    let warnings: Vec<&str> = warnings.map(|warning| warning.detail.as_str()).collect();
    let notice = match warnings.as_slice() {
        [] => Notice::good(said),
        some => Some(Notice {
            is_bad: true,
            text: format!("{said} But: {}.", some.join("; ")),
        }),
    };
    let done = Done {
        secret: written.secret.take(),
        notice,
        ..Done::default()
    };
    shown(visitor, written, done).await
}

fn fault_of(refusal: &Refusal) -> (StatusCode, Fault) {
    let fault = Fault {
        field: refusal.field().unwrap_or_default().to_owned(),
        detail: refusal.detail().to_owned(),
    };
    (refusal.status, fault)
}

fn page(
    visitor: &Visitor,
    shown: &Shown<'_>,
    fields: Fields,
    checked: Result<(), (StatusCode, Fault)>,
) -> Response {
    let title = match shown.id {
        "" => "New subscription".to_owned(),
        id => format!("Edit {id}"),
    };
    let (status, fault) = checked.err().unwrap_or((StatusCode::OK, Fault::default()));
    let page = FormPage {
        frame: Frame::of(visitor, "subscriptions", title),
        id: shown.id.to_owned(),
        etag: shown.etag.to_owned(),
        key: shown.key.to_owned(),
        fields,
        fault,
        is_late: status == StatusCode::PRECONDITION_FAILED,
    };
    render_as(status, &page)
}
