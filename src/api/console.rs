//! The console: pages for people, at `/`.
//!
//! Rendered here, and read without script; the little script that comes with them makes them
//! live. *Invariant: the console is a client of the API* (`calls`): it knows and may do what
//! the visitor's token does there, and nothing else. Its look is in `assets/`, its pages are in
//! `templates/`.

mod asked;
mod assets;
mod attempts;
mod calls;
mod dead_letters;
mod deliveries;
mod form;
mod live;
mod overview;
mod page;
mod publish;
mod quarantine;
mod sign_in;
mod subscription_form;
mod subscriptions;
mod view;
mod visitor;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue};
use tower_http::set_header::SetResponseHeaderLayer;

use super::auth::Caller;
use super::{Api, routes};

/// Largest form, but for an event that is tried out.
const FORM_BYTES_MAX: usize = 1024 * 1024;
/// Largest form of someone who is not signed in.
const SIGN_IN_BYTES_MAX: usize = 8 * 1024;

/// What every page needs.
pub struct Console {
    api: Api,
    /// The API, for what this process asks of itself.
    routes: Router,
    /// What a browser may do with a page.
    policy: HeaderValue,
    /// The same where the page may be in a frame; `None` when none may.
    policy_in_frame: Option<HeaderValue>,
}

type Pages = Arc<Console>;

/// The console's routes.
#[rustfmt::skip] // One line each.
pub fn router(api: &Api) -> Router<Api> {
    let pages = Arc::new(Console {
        api: Arc::clone(api),
        routes: routes::router(api).with_state(Arc::clone(api)),
        policy: policy("'none'"),
        policy_in_frame: (!api.embed_in.is_empty()).then(|| policy(&api.embed_in.join(" "))),
    });
    let at_most = DefaultBodyLimit::max;
    // In a form, a byte takes up to three.
    let event_bytes_max = api.event_bytes_max.saturating_mul(3).saturating_add(FORM_BYTES_MAX);
    Router::new()
        .route("/", get(overview::show))
        .route("/subscriptions", get(subscriptions::list))
        .route("/subscriptions/new", get(subscription_form::new).post(subscription_form::create))
        .route("/subscriptions/{id}", get(subscriptions::show).post(subscriptions::act))
        .route("/subscriptions/{id}/edit", get(subscription_form::edit).post(subscription_form::change))
        .route("/attempts", get(attempts::list))
        .route("/deliveries/{id}", get(deliveries::show).post(deliveries::redeliver))
        .route("/dead-letters", get(dead_letters::list).post(dead_letters::act))
        .route("/quarantine", get(quarantine::list).post(quarantine::act))
        .layer(at_most(FORM_BYTES_MAX))
        .route("/publish", get(publish::show).post(publish::act).layer(at_most(event_bytes_max)))
        .route("/sign-in", get(sign_in::show).post(sign_in::enter).layer(at_most(SIGN_IN_BYTES_MAX)))
        .route("/sign-out", post(sign_in::leave))
        .route("/live", get(live::listen))
        .route("/assets/{name}", get(assets::show))
        .layer(from_fn_with_state(Arc::clone(&pages), with_policy))
        .layer(SetResponseHeaderLayer::if_not_present(
            // Within the console a form says where it comes from; elsewhere nothing is told.
            header::REFERRER_POLICY,
            HeaderValue::from_static("same-origin"),
        ))
        .layer(SetResponseHeaderLayer::if_not_present(
            HeaderName::from_static("permissions-policy"),
            HeaderValue::from_static("camera=(), geolocation=(), microphone=(), payment=()"),
        ))
        .with_state(pages)
}

/// Says what a browser may do with the page.
async fn with_policy(State(pages): State<Pages>, request: Request, next: Next) -> Response {
    let policy = pages.policy_for(request.headers()).clone();
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

impl Console {
    /// What a browser may do with the page of whoever sends `headers`. What the admin can do is in
    /// no frame: a page around it could have it clicked without being seen.
    fn policy_for(&self, headers: &HeaderMap) -> &HeaderValue {
        let Some(in_frame) = &self.policy_in_frame else {
            return &self.policy;
        };
        let now = self.api.ports.clock.now();
        match self.api.gate.looks(headers, now) {
            Some(Caller::Admin) => &self.policy,
            _ => in_frame,
        }
    }
}

/// What a browser may do with a page (Content Security Policy 3): use what comes from here, run
/// no script and take no style that stands in the page itself.
fn policy(frame_ancestors: &str) -> HeaderValue {
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors {frame_ancestors}"
    );
    // Origins are checked when the configuration is read.
    HeaderValue::from_str(&policy).unwrap_or_else(|_| HeaderValue::from_static(super::NOTHING))
}
