//! Errors as problem documents: RFC 9457, with a stable `code` for programs.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::domain::event::{EventFault, FaultReason};
use crate::domain::subscription::FieldFault;
use crate::ports::StoreError;
use crate::telemetry;

/// When to try again what recovers by itself.
const SOON: Duration = Duration::from_secs(1);

/// An error as it is answered.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retry_after: Option<Duration>,
    more: Map<String, Value>,
}

impl Problem {
    /// A problem with a stable code and a sentence.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            retry_after: None,
            more: Map::new(),
        }
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Its sentence.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Adds a member to the document.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// Says when to try again, in whole seconds.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// 400 for a body that is not what was expected at all.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    /// 404
    pub fn not_found(detail: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// 405
    pub fn method_not_allowed() -> Self {
        let detail = "this resource does not know that method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
    }

    /// 422 for a query parameter.
    pub fn parameter(name: &str, expected: &str) -> Self {
        let detail = format!("the parameter `{name}` must be {expected}");
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Self::new(status, "invalid_parameter", detail).with("field", name)
    }

    /// 400 for a header of the request.
    pub fn header(name: &http::HeaderName, expected: &str) -> Self {
        let detail = format!("the header `{name}` must be {expected}");
        Self::new(StatusCode::BAD_REQUEST, "invalid_header", detail).with("field", name.as_str())
    }

    /// 503; what happened is in the log.
    pub fn unavailable() -> Self {
        let detail = "the store is unavailable; nothing was changed, or it is not known: try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", detail).retry_after(SOON)
    }

    /// 500; what happened is in the log.
    pub fn internal() -> Self {
        let detail = "something went wrong inside; the log says what";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => {
                tracing::warn!(%error, "the store is unavailable to the API");
                Self::unavailable()
            }
            StoreError::Lost(why) => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Self::new(status, "store_lost", why).retry_after(SOON)
            }
            // No time to try again: a person has to mend it.
            StoreError::KeyMissing { ref key, .. } => {
                let key = key.clone();
                telemetry::events::key_missing(&key, &error);
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Self::new(status, "key_missing", error.to_string()).with("key", key)
            }
            StoreError::Conflict => {
                let detail =
                    "it was changed by someone else at the same time: read it again and repeat";
                Self::new(StatusCode::CONFLICT, "conflict", detail)
            }
            StoreError::Damaged(_) => {
                tracing::error!(%error, "the store holds a damaged record");
                Self::internal()
            }
        }
    }
}

impl From<FieldFault> for Problem {
    fn from(fault: FieldFault) -> Self {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Self::new(status, "invalid_field", fault.to_string()).with("field", fault.field)
    }
}

impl From<EventFault> for Problem {
    fn from(fault: EventFault) -> Self {
        let status = match fault.reason {
            FaultReason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            FaultReason::UnsupportedContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        let problem = Self::new(status, fault.reason.code(), fault.sentence);
        match fault.field {
            Some(field) => problem.with("field", field),
            None => problem,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut document = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        });
        if let Value::Object(members) = &mut document {
            members.extend(self.more);
        }
        let mut response = (self.status, Json(document)).into_response();
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, after.as_secs().into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
