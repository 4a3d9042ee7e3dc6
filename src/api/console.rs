//! The console: pages for people, at `/`.
//!
//! Rendered here, and read without script; the little script that comes with them makes them
//! live. *Invariant: the console is a client of the API* (`calls`): it knows and may do what
//! the visitor's token does there, and nothing else. Its look is in `assets/`, its pages are in
//! `templates/`.

mod assets;
mod attempts;
mod calls;
mod dead_letters;
mod form;
mod live;
mod overview;
mod page;
mod publish;
mod quarantine;
mod sign_in;
mod subscriptions;
mod view;
mod visitor;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use http::HeaderValue;
use http::header::{self, HeaderName};
use tokio::sync::Semaphore;
use tower_http::set_header::SetResponseHeaderLayer;

use super::{Api, routes};

/// Largest form: an event that is tried out.
const FORM_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Pages that are told of news at the same time.
const LISTENERS_MAX: usize = 200;

/// What every page needs.
pub struct Console {
    api: Api,
    /// The API, for what this process asks of itself.
    routes: Router,
    listeners: Arc<Semaphore>,
}

type Pages = Arc<Console>;

/// The console's routes.
#[rustfmt::skip] // One line each.
pub fn router(api: &Api) -> Router<Api> {
    let pages = Arc::new(Console {
        api: Arc::clone(api),
        routes: routes::router(api).with_state(Arc::clone(api)),
        listeners: Arc::new(Semaphore::new(LISTENERS_MAX)),
    });
    Router::new()
        .route("/", get(overview::show))
        .route("/sign-in", get(sign_in::show).post(sign_in::enter))
        .route("/sign-out", post(sign_in::leave))
        .route("/subscriptions", get(subscriptions::list))
        .route("/subscriptions/new", get(subscriptions::new).post(subscriptions::create))
        .route("/subscriptions/{id}", get(subscriptions::show).post(subscriptions::act))
        .route("/subscriptions/{id}/edit", get(subscriptions::edit).post(subscriptions::change))
        .route("/attempts", get(attempts::list))
        .route("/deliveries/{id}", get(attempts::delivery).post(attempts::redeliver))
        .route("/dead-letters", get(dead_letters::list).post(dead_letters::act))
        .route("/quarantine", get(quarantine::list).post(quarantine::act))
        .route("/publish", get(publish::show).post(publish::act))
        .route("/live", get(live::listen))
        .route("/assets/{name}", get(assets::show))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .layer(SetResponseHeaderLayer::if_not_present(
            header::CONTENT_SECURITY_POLICY,
            policy(&api.embed_in),
        ))
        .layer(SetResponseHeaderLayer::if_not_present(
            HeaderName::from_static("permissions-policy"),
            HeaderValue::from_static("camera=(), geolocation=(), microphone=(), payment=()"),
        ))
        .with_state(pages)
}

/// What a browser may do with a page (Content Security Policy 3): use what comes from here, run
/// no script and take no style that stands in the page itself.
fn policy(embed_in: &[String]) -> HeaderValue {
    let ancestors = match embed_in {
        [] => "'none'".to_owned(),
        some => some.join(" "),
    };
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors {ancestors}"
    );
    // Origins are checked when the configuration is read.
    HeaderValue::from_str(&policy).unwrap_or_else(|_| HeaderValue::from_static(super::NOTHING))
}
