//! The HTTP API: publish, subscriptions, audit log, deliveries, dead letters, quarantine
//! (contract section 6).
//!
//! One file per resource. Reaches the rest through ports and what `app` hands it; answers
//! errors as problem documents. The operations listener is a router of its own.

pub mod answer;
pub mod attempts;
pub mod auth;
pub mod conditional;
pub mod console;
pub mod dead_letters;
pub mod deliveries;
pub mod events;
pub mod explain;
pub mod extract;
pub mod limits;
pub mod openapi;
pub mod ops;
pub mod overview;
pub mod problem;
pub mod quarantine;
pub mod routes;
pub mod secrets;
pub mod subscriptions;
pub mod tokens;

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use http::header::{self, HeaderName, HeaderValue};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::codec::subscription::SpecRules;
use crate::domain::address::EgressRules;
use crate::domain::attempt::Attempt;
use crate::domain::id::{SubscriptionId, TenantId};
use crate::domain::lane::LaneState;
use crate::domain::recent::Summary;
use crate::domain::subscription::Subscription;
use crate::ports::Ports;
use crate::telemetry::Telemetry;

use auth::Gate;
use problem::Problem;

/// Most events in one request.
pub const EVENTS_MAX: usize = 1000;
/// Most subscriptions that are declared in one request.
pub const DECLARED_MAX: usize = 10_000;
/// What a browser may do with an answer that is data: nothing (Content Security Policy 3).
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";

/// Sends test deliveries; the pipeline does, and `app` connects the two.
#[async_trait]
pub trait Tester: Send + Sync {
    /// Sends a test event to one subscription, now.
    ///
    /// # Errors
    /// A sentence on why none could be sent.
    async fn test(&self, subscription: &Subscription) -> Result<Arc<Attempt>, String>;
}

/// How the pipeline of this process is doing; `app` connects the two.
#[async_trait]
pub trait Insight: Send + Sync {
    /// The last hour's attempts: of all, or of what belongs to `tenant`, with at most `worst_max`
    /// endpoints.
    fn recent(&self, tenant: Option<&TenantId>, worst_max: usize) -> Summary;

    /// The lane of an endpoint; `None` when it had no traffic of late.
    fn lane(&self, endpoint: &SubscriptionId) -> Option<LaneState>;

    /// How many attempts there have been, of all or of what belongs to `tenant`, for who waits for
    /// more; `None` when too many do.
    fn attempts(&self, tenant: Option<&TenantId>) -> Option<watch::Receiver<u64>>;

    /// Messages in each queue.
    ///
    /// # Errors
    /// A sentence on why they cannot be counted.
    async fn queues(&self) -> Result<Vec<(&'static str, u64)>, String>;

    /// Whether events are taken and delivered.
    ///
    /// # Errors
    /// A sentence on what is missing.
    async fn ready(&self) -> Result<(), String>;
}

/// What every handler needs.
pub struct ApiContext {
    /// The ways to the outside.
    pub ports: Ports,
    /// Sends test deliveries.
    pub tester: Arc<dyn Tester>,
    /// How the pipeline is doing.
    pub insight: Arc<dyn Insight>,
    /// What the installation says about subscriptions.
    pub rules: SpecRules,
    /// Where requests may go; whoever writes a URL that leads elsewhere is warned.
    pub egress: EgressRules,
    /// Whether there are keys under which signing secrets are encrypted.
    pub encrypts: bool,
    /// Largest event, in bytes.
    pub event_bytes_max: usize,
    /// Where to tell what happens.
    pub telemetry: Telemetry,
    /// Who is let in.
    pub gate: Gate,
    /// The origins whose pages may show the console in a frame.
    pub embed_in: Vec<String>,
    /// Cancelled when no more requests are taken: what would go on has to end.
    pub stopping: CancellationToken,
}

/// The state of every handler.
pub type Api = Arc<ApiContext>;

/// The API's routes.
pub fn router(api: Api) -> Router {
    let fixed = |name: HeaderName, value| {
        SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
    };
    routes::router(&api)
        .merge(console::router(&api))
        .fallback(|| async { Problem::not_found("there is no such resource") })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(fixed(header::CACHE_CONTROL, "no-store"))
        .layer(fixed(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(fixed(header::CONTENT_SECURITY_POLICY, NOTHING))
        .layer(fixed(header::REFERRER_POLICY, "no-referrer"))
        .layer(fixed(
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ))
        .layer(CatchPanicLayer::custom(|_| {
            axum::response::IntoResponse::into_response(Problem::internal())
        }))
        .with_state(api)
}
