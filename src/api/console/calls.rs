//! What a page asks of the API, in this process and as its visitor.

use axum::Router;
use axum::body::{Body, to_bytes};
use http::header::{self, HeaderName};
use http::request::Builder;
use http::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower::Service as _;

use super::super::auth::{Caller, Inside};

/// Longest answer: pages ask for so much of each body that theirs stays far below.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The API, asked as one caller.
pub struct Calls {
    routes: Router,
    caller: Caller,
}

/// What the API says no with.
#[derive(Debug)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// The problem document (RFC 9457).
    pub problem: Value,
}

impl Refusal {
    /// Its sentence.
    pub fn detail(&self) -> &str {
        let detail = self.problem["detail"].as_str();
        detail.unwrap_or("the API said no, and not why")
    }

    /// The field at fault.
    pub fn field(&self) -> Option<&str> {
        self.problem["field"].as_str()
    }

    fn unreadable(detail: &str) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            problem: serde_json::json!({ "detail": detail }),
        }
    }
}

impl Calls {
    /// The API as `caller` has it.
    pub fn new(routes: Router, caller: Caller) -> Self {
        Self { routes, caller }
    }

    /// Reads what is at `path`; parts of `query` that are empty are left out.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T, Refusal> {
        let target = with_query(&target(path), query);
        let request = Request::builder().uri(target);
        self.ask(request, Body::empty()).await
    }

    /// The same, with its entity tag.
    pub async fn get_tagged<T: DeserializeOwned>(
        &self,
        path: &[&str],
    ) -> Result<(T, String), Refusal> {
        let request = Request::builder().uri(target(path));
        let (answer, etag) = self.answer(request, Body::empty()).await?;
        Ok((answer, etag))
    }

    /// Has something done.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: &Value,
    ) -> Result<T, Refusal> {
        self.send_with(method, path, None, body).await
    }

    /// The same, with one more header.
    pub async fn send_with<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        header: Option<(HeaderName, &str)>,
        body: &Value,
    ) -> Result<T, Refusal> {
        let mut request = Request::builder().method(method).uri(target(path));
        if let Some((name, value)) = header.filter(|(_, value)| !value.is_empty()) {
            request = request.header(name, value);
        }
        self.ask(request, body_of(body)).await
    }

    /// The same with a body as it is: JSON that nobody writes anew.
    pub async fn send_text<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: String,
    ) -> Result<T, Refusal> {
        let request = Request::builder().method(Method::POST).uri(target(path));
        self.ask(request, body.into()).await
    }

    async fn ask<T: DeserializeOwned>(&self, request: Builder, body: Body) -> Result<T, Refusal> {
        self.answer(request, body).await.map(|(answer, _)| answer)
    }

    /// The answer with its entity tag, if it has one.
    async fn answer<T: DeserializeOwned>(
        &self,
        request: Builder,
        body: Body,
    ) -> Result<(T, String), Refusal> {
        let request = request
            .header(header::CONTENT_TYPE, "application/json")
            .extension(Inside(self.caller.clone()))
            .body(body)
            .map_err(|error| Refusal::unreadable(&error.to_string()))?;
        let Ok(answer) = self.routes.clone().call(request).await;
        let status = answer.status();
        let etag = answer.headers().get(header::ETAG);
        let etag = etag.and_then(|tag| tag.to_str().ok()).unwrap_or_default();
        let etag = etag.to_owned();
        let bytes = to_bytes(answer.into_body(), ANSWER_BYTES_MAX).await;
        let bytes = bytes.map_err(|error| Refusal::unreadable(&error.to_string()))?;
        let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        let unreadable = |error: serde_json::Error| {
            Refusal::unreadable(&format!("the answer cannot be read: {error}"))
        };
        if status.is_success() {
            let answer = serde_json::from_slice(text).map_err(unreadable)?;
            return Ok((answer, etag));
        }
        let problem = serde_json::from_slice(text).map_err(unreadable)?;
        Err(Refusal { status, problem })
    }
}

fn body_of(body: &Value) -> Body {
    match body {
        Value::Null => Body::empty(),
        body => Body::from(body.to_string()),
    }
}

/// `path` with a query of those of `pairs` that are not empty.
pub fn with_query(path: &str, pairs: &[(&str, &str)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs.iter().filter(|(_, value)| !value.is_empty()));
    match query.finish() {
        none if none.is_empty() => path.to_owned(),
        query => format!("{path}?{query}"),
    }
}

/// The path of a resource of the API.
fn target(parts: &[&str]) -> String {
    format!("/v1{}", path_to(parts))
}

/// A path, each part of it escaped.
pub fn path_to(parts: &[&str]) -> String {
    let mut path = String::new();
    for part in parts {
        path.push('/');
        path.extend(percent(part));
    }
    path
}

/// Every byte escaped (RFC 3986 section 2.1) that is not unreserved.
fn percent(part: &str) -> impl Iterator<Item = String> + '_ {
    part.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    })
}
