//! The operations listener: `/metrics`, `/livez`, `/readyz`. It serves no secrets.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use serde_json::json;

/// What the listener asks; `app` answers.
#[async_trait]
pub trait Operations: Send + Sync {
    /// All metrics in the Prometheus text format.
    ///
    /// # Errors
    /// A sentence on why not.
    async fn metrics(&self) -> Result<String, String>;

    /// Whether events are taken and delivered; false while draining or cut off.
    ///
    /// # Errors
    /// A sentence on what does not work.
    async fn ready(&self) -> Result<(), String>;
}

/// The operations routes.
pub fn router(operations: Arc<dyn Operations>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { Json(json!({ "status": "ok" })) }))
        .route("/readyz", get(readyz))
        .with_state(operations)
}

async fn metrics(State(operations): State<Arc<dyn Operations>>) -> Response {
    match operations.metrics().await {
        Ok(text) => {
            let kind = [(
                header::CONTENT_TYPE,
                "text/plain; version=0.0.4; charset=utf-8",
            )];
            (kind, text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error).into_response(),
    }
}

async fn readyz(State(operations): State<Arc<dyn Operations>>) -> Response {
    match operations.ready().await {
        Ok(()) => Json(json!({ "status": "ready" })).into_response(),
        Err(reason) => {
            let document = json!({ "status": "not_ready", "reason": reason });
            (StatusCode::SERVICE_UNAVAILABLE, Json(document)).into_response()
        }
    }
}
