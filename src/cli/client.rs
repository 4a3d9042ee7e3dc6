//! A small client of Carillon's HTTP API.
//!
//! Answers are JSON values: what is shown to a person is picked from them, so that a
//! client meets newer and older servers. Errors are `application/problem+json`
//! (RFC 9457) and become a sentence with what to do about it.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use reqwest::{Method, StatusCode, redirect};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use url::{Host, Url};

use super::{CliError, Globals, output};

mod error;

pub use error::{ApiError, Problem};

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

impl ApiClient {
    /// A client of the API that the global options name. Needs a TLS provider that is
    /// installed for the process.
    ///
    /// # Errors
    /// When the address of the API is not usable.
    pub fn new(globals: &Globals) -> Result<Self, CliError> {
        let wrong = |problem: &str| {
            let example = "expected something like http://127.0.0.1:8080";
            let shown = without_user(&globals.api);
            CliError::Usage(format!("--api {shown}: {problem}; {example}"))
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

    /// The same, and does not try again: who asks wants to know how it is now.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn get_once(&self, path: &[&str], query: &Query<'_>) -> Result<Value, ApiError> {
        let url = self.url(path, query);
        self.call(Method::GET, url, None, Repeat::Never).await
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

    /// `PUT`s a document.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn put(
        &self,
        path: &[&str],
        query: &Query<'_>,
        body: &Value,
        repeat: Repeat,
    ) -> Result<Value, ApiError> {
        let url = self.url(path, query);
        let body = bytes::Bytes::from(body.to_string());
        self.call(Method::PUT, url, Some(body), repeat).await
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
        let mut cursor = None::<String>;
        loop {
            let missing = limit.map_or(PAGE_ITEMS, |limit| {
                limit.saturating_sub(items.len() as u64).min(PAGE_ITEMS)
            });
            let mut query = query.to_vec();
            query.push(("limit", Some(missing.to_string())));
            query.push(("cursor", cursor.clone()));
            let mut page = self.get(path, &query).await?;
            let next = page["next"].take();
            let Value::Array(found) = page["items"].take() else {
                let text = format!("{} answered a list without `items`", self.base);
                return Err(ApiError::Unexpected(text));
            };
            // A list that does not move on must not be read for ever.
            let stalled = found.is_empty() || next.as_str() == cursor.as_deref();
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
            // Dots would be left out, and another resource named. There is no such id.
            let named = path.iter().map(|part| match *part {
                "." => "%2E",
                ".." => "%2E%2E",
                part => part,
            });
            parts.pop_if_empty().push("v1").extend(named);
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

/// The innermost cause says what happened; those around it only that a request failed.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

/// An address as it is repeated to whoever gave it: without user name and password, by mistake
/// a token perhaps.
fn without_user(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => address.to_owned(),
    }
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::super::receiver::{Behaviour, Receiver, ReceiverSettings, Reply};
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
        let dots = client.url(&["quarantine", "..", "requeue"], &[]);
        assert!(dots.path().ends_with("/quarantine/%252E%252E/requeue"));
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

    async fn api(replies: Vec<Reply>) -> (Receiver, ApiClient) {
        let served = AtomicUsize::new(0);
        let receiver = Receiver::start(ReceiverSettings {
            behaviour: Behaviour::scripted(move |_| {
                let next = served.fetch_add(1, Ordering::Relaxed);
                replies[next.min(replies.len() - 1)].clone()
            }),
            ..ReceiverSettings::default()
        });
        let receiver = receiver.await.unwrap();
        let client = client(&receiver.url());
        (receiver, client)
    }

    fn reply(status: u16, body: &Value) -> Reply {
        Reply {
            body: body.to_string().into(),
            ..Reply::status(StatusCode::from_u16(status).unwrap())
        }
    }

    #[tokio::test]
    async fn only_what_may_be_repeated_is_repeated() {
        let replies = vec![reply(503, &json!({})), reply(200, &json!({"id": 1}))];
        let (receiver, client) = api(replies.clone()).await;
        assert_eq!(client.get(&["x"], &[]).await.unwrap()["id"], 1);
        assert_eq!(receiver.stop().await.requests, 2);

        let (receiver, client) = api(replies).await;
        let refused = client.post(&["x"], &json!({}), Repeat::Never).await;
        assert_eq!(refused.unwrap_err().problem().unwrap().status, 503);
        assert_eq!(receiver.stop().await.requests, 1);

        let (receiver, client) = api(vec![reply(422, &json!({}))]).await;
        client.get(&["x"], &[]).await.unwrap_err();
        assert_eq!(receiver.stop().await.requests, 1);
    }

    #[tokio::test]
    async fn a_list_is_read_to_its_end_and_no_further() {
        let page = |next: Value| reply(200, &json!({"items": [1, 2], "next": next}));
        let pages = vec![page(json!("a")), page(json!("b")), page(Value::Null)];
        let (_receiver, client) = api(pages.clone()).await;
        let all = client.list(&["x"], &[], None).await.unwrap();
        assert_eq!(all, json!({"items": [1, 2, 1, 2, 1, 2], "next": null}));

        let (_receiver, client) = api(pages).await;
        let some = client.list(&["x"], &[], Some(4)).await.unwrap();
        assert_eq!(some, json!({"items": [1, 2, 1, 2], "next": "b"}));

        let (receiver, client) = api(vec![page(json!("a"))]).await;
        client.list(&["x"], &[], None).await.unwrap();
        assert_eq!(receiver.stop().await.requests, 2);
    }
}
