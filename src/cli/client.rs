//! A small client of Carillon's HTTP API.
//!
//! Answers are JSON values: what is shown to a person is picked from them, so that a
//! client meets newer and older servers. Errors are `application/problem+json`
//! (RFC 9457) and become a sentence with what to do about it.

use std::fmt;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use reqwest::{Method, StatusCode, redirect};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use url::{Host, Url};

use super::{CliError, Globals, output};

/// How often a call that may be repeated is made in all.
const TRIES_MAX: usize = 4;
/// The longest that a server's `Retry-After` is obeyed within one command.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// Redriving reads through a queue; everything else is much faster.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Items asked for at a time.
const PAGE_ITEMS: u64 = 100;

/// Speaks to one Carillon.
#[derive(Clone)]
pub struct ApiClient {
    http: reqwest::Client,
    base: Url,
    token: Option<SecretString>,
}

/// A call that may or may not be made a second time when it is unknown whether the
/// first one arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// A second call changes nothing more.
    Safe,
    /// A second call would do it twice.
    Never,
}

/// Parameters of a query; those without a value are left out.
pub type Query<'a> = [(&'a str, Option<String>)];

/// Why the API did not do what was asked.
#[derive(Debug)]
pub enum ApiError {
    /// It did not answer.
    Unreachable {
        /// Where it was looked for.
        base: Url,
        /// No connection was made at all.
        no_connection: bool,
        /// What went wrong.
        detail: String,
    },
    /// It answered with an error.
    Refused(Box<Problem>),
    /// It answered with something that Carillon does not answer.
    Unexpected(String),
}

/// An error answer: the members of RFC 9457 and Carillon's own.
#[derive(Clone, Debug, Default)]
pub struct Problem {
    /// The HTTP status code.
    pub status: u16,
    /// What kind of problem, in words.
    pub title: String,
    /// What happened this time.
    pub detail: String,
    /// What kind of problem, for programs.
    pub code: String,
    /// The field at fault.
    pub field: Option<String>,
    /// The whole document; null when it was none.
    pub document: Value,
    /// How long the server asked to be left alone.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    /// The answer, if there was one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            Self::Unreachable { .. } | Self::Unexpected(_) => None,
        }
    }

    fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused(problem) => matches!(problem.status, 429 | 503),
            Self::Unexpected(_) => false,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        self.problem().and_then(|problem| problem.retry_after)
    }
}

impl std::error::Error for ApiError {}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable {
                base,
                no_connection: true,
                detail,
            } => write!(
                f,
                "cannot reach {base} ({detail}): is `carillon serve` running there? \
                 Set --api or CARILLON_API if it is elsewhere."
            ),
            Self::Unreachable { base, detail, .. } => {
                write!(f, "{base} did not answer properly: {detail}")
            }
            Self::Refused(problem) => problem.fmt(f),
            Self::Unexpected(detail) => f.write_str(detail),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.title.is_empty() {
            "the API refused"
        } else {
            &self.title
        })?;
        if !self.detail.is_empty() && self.detail != self.title {
            write!(f, ": {}", self.detail)?;
        }
        let field = self.field.as_deref().filter(|f| !self.detail.contains(f));
        match (field, self.code.as_str()) {
            (Some(field), "") => write!(f, " (field {field})")?,
            (Some(field), code) => write!(f, " (field {field}, {code})")?,
            (None, "") => write!(f, " (status {})", self.status)?,
            (None, code) => write!(f, " ({code})")?,
        }
        let advice = match self.status {
            401 => "Give a valid token with --token or CARILLON_TOKEN.",
            403 => "Use a token that may do this: a tenant's token only serves its tenant.",
            413 => "Send less at a time.",
            429 | 503 => "Try again later; `/readyz` of the operations listener says more.",
            500 => "The log of `carillon serve` says more.",
            _ => return Ok(()),
        };
        write!(f, ". {advice}")
    }
}

impl ApiClient {
    /// A client of the API that the global options name. Needs a TLS provider that is
    /// installed for the process.
    ///
    /// # Errors
    /// When the address of the API is not usable.
    pub fn new(globals: &Globals) -> Result<Self, CliError> {
        let wrong = |problem: &str| {
            let example = "expected something like http://127.0.0.1:8080";
            CliError::Usage(format!("--api {}: {problem}; {example}", globals.api))
        };
        let base = Url::parse(&globals.api).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(wrong("not an http or https address"));
        }
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("carillon-cli/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .timeout(CALL_TIMEOUT);
        if is_loopback(&base) {
            // A proxy's loopback is another machine.
            http = http.no_proxy();
        }
        let http = http
            .build()
            .map_err(|error| CliError::Failed(format!("no HTTP client: {}", causes(&error))))?;
        let token = globals.token.clone();
        Ok(Self { http, base, token })
    }

    /// `GET`s a document. `path` has no slashes in its parts.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn get(&self, path: &[&str], query: &Query<'_>) -> Result<Value, ApiError> {
        let url = self.url(path, query);
        self.call(Method::GET, url, None, Repeat::Safe).await
    }

    /// `POST`s a document.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn post(
        &self,
        path: &[&str],
        body: &Value,
        repeat: Repeat,
    ) -> Result<Value, ApiError> {
        self.post_raw(path, body.to_string().into_bytes(), repeat)
            .await
    }

    /// `POST`s JSON that is encoded already.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn post_raw(
        &self,
        path: &[&str],
        body: Vec<u8>,
        repeat: Repeat,
    ) -> Result<Value, ApiError> {
        let url = self.url(path, &[]);
        self.call(Method::POST, url, Some(body.into()), repeat)
            .await
    }

    /// `PATCH`es with a JSON merge patch (RFC 7396).
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn patch(&self, path: &[&str], patch: &Value) -> Result<Value, ApiError> {
        let url = self.url(path, &[]);
        let body = bytes::Bytes::from(patch.to_string());
        self.call(Method::PATCH, url, Some(body), Repeat::Safe)
            .await
    }

    /// `DELETE`s. Not repeated: the second answer would be 404.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn delete(&self, path: &[&str]) -> Result<Value, ApiError> {
        let url = self.url(path, &[]);
        self.call(Method::DELETE, url, None, Repeat::Never).await
    }

    /// `GET`s a list through its cursors, up to `limit` items; the answer has the form of
    /// one page: `{"items", "next"}`.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn list(
        &self,
        path: &[&str],
        query: &Query<'_>,
        limit: Option<u64>,
    ) -> Result<Value, ApiError> {
        let mut items = Vec::new();
        let mut cursor = None;
        loop {
            let missing = limit.map_or(PAGE_ITEMS, |limit| {
                limit.saturating_sub(items.len() as u64).min(PAGE_ITEMS)
            });
            let mut query = query.to_vec();
            query.push(("limit", Some(missing.to_string())));
            query.push(("cursor", cursor.take()));
            let mut page = self.get(path, &query).await?;
            let next = page["next"].take();
            let Value::Array(found) = page["items"].take() else {
                let text = format!("{} answered a list without `items`", self.base);
                return Err(ApiError::Unexpected(text));
            };
            let stalled = found.is_empty();
            items.extend(found);
            let full = limit.is_some_and(|limit| items.len() as u64 >= limit);
            match next {
                Value::String(next) if !full && !stalled => cursor = Some(next),
                next => return Ok(serde_json::json!({"items": items, "next": next})),
            }
        }
    }

    fn url(&self, path: &[&str], query: &Query<'_>) -> Url {
        let mut url = self.base.clone();
        // Only fails for addresses without a host; `new` accepts http and https alone.
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().push("v1").extend(path);
        }
        let given = query
            .iter()
            .filter_map(|(name, value)| Some((name, value.as_ref()?)));
        for (name, value) in given {
            url.query_pairs_mut().append_pair(name, value);
        }
        url
    }

    async fn call(
        &self,
        method: Method,
        url: Url,
        body: Option<bytes::Bytes>,
        repeat: Repeat,
    ) -> Result<Value, ApiError> {
        let call = || self.call_once(method.clone(), url.clone(), body.clone());
        let delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(150))
            .with_max_delay(Duration::from_secs(2))
            .with_max_times(TRIES_MAX - 1)
            .with_jitter();
        call.retry(delays)
            .when(|error: &ApiError| repeat == Repeat::Safe && error.may_pass())
            .adjust(|error, delay| match error.retry_after() {
                Some(asked) if asked > RETRY_AFTER_MAX => None,
                Some(asked) => delay.map(|delay| delay.max(asked)),
                None => delay,
            })
            .await
    }

    async fn call_once(
        &self,
        method: Method,
        url: Url,
        body: Option<bytes::Bytes>,
    ) -> Result<Value, ApiError> {
        let merge = method == Method::PATCH;
        let mut request = self.http.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose_secret());
        }
        if let Some(body) = body {
            let kind = match merge {
                true => "application/merge-patch+json",
                false => "application/json",
            };
            request = request.header("content-type", kind).body(body);
        }
        let answer = request.send().await.map_err(|e| self.unreachable(&e))?;
        let status = answer.status();
        let retry_after = answer
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let bytes = answer.bytes().await.map_err(|e| self.unreachable(&e))?;
        self.read_answer(status, retry_after, &bytes)
    }

    fn read_answer(
        &self,
        status: StatusCode,
        retry_after: Option<Duration>,
        bytes: &[u8],
    ) -> Result<Value, ApiError> {
        let document = serde_json::from_slice::<Value>(bytes);
        if status.is_success() {
            return match document {
                Ok(document) => Ok(document),
                Err(_) if bytes.is_empty() => Ok(Value::Null),
                Err(error) => Err(self.unexpected(status, &error.to_string())),
            };
        }
        match document {
            Ok(document) if document.is_object() => {
                let mut problem = Problem::read(status, document);
                problem.retry_after = retry_after;
                Err(ApiError::Refused(Box::new(problem)))
            }
            // Such as a proxy in between that says 503 in its own words.
            _ if matches!(status.as_u16(), 429 | 503) => {
                let title = format!("{} answered {status}", self.base);
                Err(ApiError::Refused(Box::new(Problem {
                    status: status.as_u16(),
                    title,
                    retry_after,
                    ..Problem::default()
                })))
            }
            _ => {
                let text = String::from_utf8_lossy(bytes);
                let start: String = text.trim().chars().take(200).collect();
                Err(self.unexpected(status, &output::visible(&start)))
            }
        }
    }

    fn unexpected(&self, status: StatusCode, detail: &str) -> ApiError {
        ApiError::Unexpected(format!(
            "{} answered {status}, which is no answer of Carillon's API; does --api name it? {detail}",
            self.base
        ))
    }

    fn unreachable(&self, error: &reqwest::Error) -> ApiError {
        ApiError::Unreachable {
            base: self.base.clone(),
            no_connection: error.is_connect(),
            detail: causes(error),
        }
    }
}

impl Problem {
    fn read(status: StatusCode, document: Value) -> Self {
        let text = |name: &str| output::text_of(&document, name);
        let field = Some(text("field")).filter(|field| !field.is_empty());
        let title = match text("title") {
            title if title.is_empty() => status.to_string(),
            title => title,
        };
        Self {
            status: status.as_u16(),
            title,
            detail: text("detail"),
            code: text("code"),
            field,
            retry_after: None,
            document,
        }
    }
}

/// The innermost cause says what happened; those around it only that a request failed.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn client(api: &str) -> ApiClient {
        // Whoever comes first installs it; it is the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        ApiClient::new(&globals(api)).unwrap()
    }

    fn globals(api: &str) -> Globals {
        Globals {
            json: false,
            api: api.to_owned(),
            token: None,
            config: None,
        }
    }

    #[test]
    fn paths_are_encoded_below_the_base() {
        let client = client("https://example.com/carillon/");
        let query = [
            ("tenant", Some("a b".to_owned())),
            ("limit", None),
            ("since", Some("2026-03-01T00:00:00.000Z".to_owned())),
        ];
        assert_eq!(
            client.url(&["subscriptions", "a/b"], &query).as_str(),
            "https://example.com/carillon/v1/subscriptions/a%2Fb\
             ?tenant=a+b&since=2026-03-01T00%3A00%3A00.000Z"
        );
    }

    #[test]
    fn a_wrong_address_is_wrong_usage() {
        for bad in ["", "localhost:8080", "ftp://x"] {
            let refused = ApiClient::new(&globals(bad)).err().unwrap();
            assert_eq!(refused.exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn a_problem_is_a_sentence_with_advice() {
        let client = client("http://127.0.0.1:1");
        let read = |status: u16, body: Value| {
            let status = StatusCode::from_u16(status).unwrap();
            let answer = client.read_answer(status, None, body.to_string().as_bytes());
            answer.unwrap_err().to_string()
        };
        let body = json!({"title": "Invalid subscription", "detail": "is missing",
                          "field": "url", "code": "invalid_subscription"});
        assert_eq!(
            read(422, body),
            "Invalid subscription: is missing (field url, invalid_subscription)"
        );
        let body = json!({"title": "Unauthorized", "code": "unauthorized"});
        assert!(read(401, body).contains("--token"));
        assert!(read(404, json!({})).contains("404"));
        assert!(read(502, json!("oops")).contains("no answer of Carillon's API"));
        assert!(read(503, json!("oops")).contains("Try again later"));
    }

    #[tokio::test]
    async fn nobody_listening_is_explained() {
        // A port that was free a moment ago, and has nobody listening.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let client = client(&format!("http://{address}"));
        let error = client.delete(&["x"]).await.unwrap_err().to_string();
        assert!(error.contains("is `carillon serve` running"), "{error}");
    }
}
