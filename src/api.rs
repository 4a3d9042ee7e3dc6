//! The HTTP API: publish, subscriptions, audit log, deliveries, dead letters, quarantine
//! (contract section 6).
//!
//! One file per resource. Reaches the rest through ports and what `app` hands it; answers
//! errors as problem documents. The operations listener is a router of its own.

pub mod attempts;
pub mod auth;
pub mod dead_letters;
pub mod deliveries;
pub mod events;
pub mod extract;
pub mod ops;
pub mod problem;
pub mod quarantine;
pub mod secrets;
pub mod subscriptions;

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler as _;
use axum::routing::{delete, get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::codec::subscription::SpecRules;
use crate::domain::address::EgressRules;
use crate::domain::attempt::Attempt;
use crate::domain::subscription::Subscription;
use crate::ports::Ports;

use auth::AdminToken;
use problem::Problem;

/// Most events in one request.
pub const EVENTS_MAX: usize = 1000;
/// Most subscriptions that are declared in one request.
pub const DECLARED_MAX: usize = 10_000;
/// Largest request body but for events and declared subscriptions.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// Largest body of a request that publishes.
const EVENTS_BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Largest body of a request that declares subscriptions.
const DECLARED_BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Sends test deliveries; the pipeline does, and `app` connects the two.
#[async_trait]
pub trait Tester: Send + Sync {
    /// Sends a test event to one subscription, now.
    ///
    /// # Errors
    /// A sentence on why none could be sent.
    async fn test(&self, subscription: &Subscription) -> Result<Arc<Attempt>, String>;
}

/// What every handler needs.
pub struct ApiContext {
    /// The ways to the outside.
    pub ports: Ports,
    /// Sends test deliveries.
    pub tester: Arc<dyn Tester>,
    /// What the installation says about subscriptions.
    pub rules: SpecRules,
    /// Where requests may go; whoever writes a URL that leads elsewhere is warned.
    pub egress: EgressRules,
    /// Whether there are keys under which signing secrets are encrypted.
    pub encrypts: bool,
    /// Largest event, in bytes.
    pub event_bytes_max: usize,
    /// Who may do everything; without one, everybody who can connect.
    pub admin_token: Option<AdminToken>,
}

/// The state of every handler.
pub type Api = Arc<ApiContext>;

/// The API's routes.
pub fn router(api: Api) -> Router {
    let publish = Router::new()
        .route("/v1/events", post(events::publish))
        .layer(DefaultBodyLimit::max(EVENTS_BODY_BYTES_MAX));
    // The limit nearest to the handler counts.
    let declare = subscriptions::declare.layer(DefaultBodyLimit::max(DECLARED_BODY_BYTES_MAX));
    let rest = Router::new()
        .route(
            "/v1/subscriptions",
            get(subscriptions::list)
                .post(subscriptions::create)
                .put(declare),
        )
        .route(
            "/v1/subscriptions/{id}",
            get(subscriptions::show)
                .put(subscriptions::declare_one)
                .patch(subscriptions::change)
                .delete(subscriptions::delete),
        )
        .route("/v1/subscriptions/{id}/test", post(subscriptions::test))
        .route(
            "/v1/subscriptions/{id}/rotate-secret",
            post(subscriptions::rotate_secret),
        )
        .route("/v1/attempts", get(attempts::list))
        .route("/v1/deliveries/{id}/redeliver", post(deliveries::redeliver))
        .route("/v1/dead-letters", get(dead_letters::list))
        .route("/v1/dead-letters/redrive", post(dead_letters::redrive))
        .route("/v1/dead-letters/{id}", delete(dead_letters::discard))
        .route("/v1/quarantine", get(quarantine::list))
        .route("/v1/quarantine/requeue", post(quarantine::requeue_all))
        .route("/v1/quarantine/{id}/requeue", post(quarantine::requeue))
        .route("/v1/secrets/rotate", post(secrets::rotate))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
    publish
        .merge(rest)
        .fallback(|| async { Problem::not_found("there is no such resource") })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(SetResponseHeaderLayer::if_not_present(
            http::header::CACHE_CONTROL,
            http::HeaderValue::from_static("no-store"),
        ))
        .layer(SetResponseHeaderLayer::if_not_present(
            http::header::X_CONTENT_TYPE_OPTIONS,
            http::HeaderValue::from_static("nosniff"),
        ))
        .layer(CatchPanicLayer::custom(|_| {
            axum::response::IntoResponse::into_response(Problem::internal())
        }))
        .with_state(api)
}
