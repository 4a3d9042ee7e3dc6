//! Errors as problem documents: RFC 9457, with a stable `code` for programs.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::domain::event::EventFault;
use crate::domain::subscription::FieldFault;
use crate::ports::StoreError;
use crate::telemetry;

mod code;

pub use code::Code;

/// When to try again what recovers by itself.
const SOON: Duration = Duration::from_secs(1);

/// An error as it is answered.
#[derive(Debug)]
pub struct Problem {
    code: Code,
    detail: String,
    retry_after: Option<Duration>,
    more: Map<String, Value>,
}

impl Problem {
    /// A problem with a stable code and a sentence.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            retry_after: None,
            more: Map::new(),
        }
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// Its code.
    pub fn code(&self) -> &'static str {
        self.code.name()
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
        Self::new(Code::Malformed, detail)
    }

    /// 404
    pub fn not_found(detail: &str) -> Self {
        Self::new(Code::NotFound, detail)
    }

    /// 405
    pub fn method_not_allowed() -> Self {
        let detail = "this resource does not know that method";
        Self::new(Code::MethodNotAllowed, detail)
    }

    /// 422 for a query parameter.
    pub fn parameter(name: &str, expected: &str) -> Self {
        let detail = format!("the parameter `{name}` must be {expected}");
        Self::new(Code::InvalidParameter, detail).with("field", name)
    }

    /// 400 for a header of the request.
    pub fn header(name: &http::HeaderName, expected: &str) -> Self {
        let detail = format!("the header `{name}` must be {expected}");
        Self::new(Code::InvalidHeader, detail).with("field", name.as_str())
    }

    /// 503; what happened is in the log.
    pub fn unavailable() -> Self {
        let detail = "the store is unavailable; nothing was changed, or it is not known: try again";
        Self::new(Code::StoreUnavailable, detail).retry_after(SOON)
    }

    /// 500; what happened is in the log.
    pub fn internal() -> Self {
        let detail = "something went wrong inside; the log says what";
        Self::new(Code::Internal, detail)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => {
                tracing::warn!(%error, "the store is unavailable to the API");
                Self::unavailable()
            }
            StoreError::Lost(why) => Self::new(Code::StoreLost, why).retry_after(SOON),
            // No time to try again: a person has to mend it.
            StoreError::KeyMissing { ref key, .. } => {
                let key = key.clone();
                telemetry::events::key_missing(&key, &error);
                Self::new(Code::KeyMissing, error.to_string()).with("key", key)
            }
            StoreError::Conflict => {
                let detail =
                    "it was changed by someone else at the same time: read it again and repeat";
                Self::new(Code::Conflict, detail)
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
        Self::new(Code::InvalidField, fault.to_string()).with("field", fault.field)
    }
}

impl From<EventFault> for Problem {
    fn from(fault: EventFault) -> Self {
        let problem = Self::new(Code::Event(fault.reason), fault.sentence);
        match fault.field {
            Some(field) => problem.with("field", field),
            None => problem,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut document = document(self.code, &self.detail);
        if let Value::Object(members) = &mut document {
            members.extend(self.more);
        }
        let mut response = (status, Json(document)).into_response();
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, after.as_secs().into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// What every problem document says.
fn document(code: Code, detail: &str) -> Value {
    let status = code.status();
    json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "code": code.name(),
        "detail": detail,
    })
}

/// The document of a problem that says no more than what its code means.
pub fn example(code: Code) -> Value {
    document(code, code.sentence())
}

/// The schema of every problem document.
pub fn schema() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let mut codes: Vec<_> = Code::all().map(Code::name).collect();
    codes.sort_unstable();
    codes.dedup();
    let statuses = json!({ "type": "integer", "minimum": 400, "maximum": 599 });
    json!({
        "type": "object",
        "description": "What went wrong (RFC 9457). Programs go by `code`, which is stable; `detail` is for people, and may change.",
        "required": ["type", "title", "status", "code", "detail"],
        "properties": {
            "type": { "const": "about:blank" },
            "title": text("The status in words."),
            "status": statuses,
            "code": { "type": "string", "enum": codes },
            "detail": text("What was expected, what came, and what to do."),
            "field": text("The field, parameter or header at fault, as a path."),
            "index": {
                "type": "integer", "minimum": 0,
                "description": "Which item of a list is at fault, from 0.",
            },
            "id": text("What the idempotency key made."),
            "etag": text("The tag of what is there."),
            "key": text("The id of the key that is missing."),
        },
    })
}
