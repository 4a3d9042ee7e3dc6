//! Reading requests: bodies, query parameters and ids, with problems instead of bare errors.
//!
//! A name that an object has twice is refused: whoever wrote it meant both.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value};

use super::Api;
use super::problem::{Code, Problem};
use crate::domain::event::kind_of;
use crate::domain::id::{DeliveryId, EventId, SubscriptionId, TenantId};
use crate::domain::json::{self, JsonFault};
use crate::domain::subscription::FieldFault;
use crate::domain::timestamp::UnixMillis;

/// How long a body may take: then its sender is slow on purpose.
const BODY_WITHIN: Duration = Duration::from_secs(60);

/// Most of a recorded body that can be asked for: more than is ever kept of one.
pub const BODY_BYTES_MAX: usize = 1 << 30;

/// A body of raw bytes, no longer than its route allows.
pub struct Body(pub Bytes);

/// A body that is JSON of any kind; absent, it is an empty object.
pub struct Json(pub Value);

/// A body that is a JSON object; absent, it is an empty one.
pub struct Document(pub Map<String, Value>);

/// Query parameters. Those of the API are known and given once each: [`check_query`] has looked.
/// The console leaves out what it does not know, and takes the first of what is given twice.
pub struct Query(Vec<(String, String)>);

/// The subscription that the path names.
pub struct SubscriptionPath(pub SubscriptionId);

/// The delivery that the path names.
pub struct DeliveryPath(pub DeliveryId);

/// The tenant that the path names.
pub struct TenantPath(pub TenantId);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let read = Bytes::from_request(request, state);
        let Ok(read) = tokio::time::timeout(BODY_WITHIN, read).await else {
            let within = BODY_WITHIN.as_secs();
            let detail = format!("the body did not arrive within {within} seconds");
            return Err(Problem::new(Code::SlowBody, detail));
        };
        match read {
            Ok(bytes) => Ok(Self(bytes)),
            Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                let detail = "the body is larger than this resource takes";
                Err(Problem::new(Code::TooLarge, detail))
            }
            Err(_) => {
                let detail = "the body could not be read to its end";
                Err(Problem::new(Code::IncompleteBody, detail))
            }
        }
    }
}

impl FromRequest<Api> for Json {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        check_json(request.headers())?;
        let Body(bytes) = Body::from_request(request, api).await?;
        if bytes.is_empty() {
            return Ok(Self(Map::new().into()));
        }
        match json::read_slice(&bytes) {
            Ok(read) => Ok(Self(read.into())),
            Err(JsonFault { path, problem }) if path.is_empty() => {
                Err(Problem::malformed(format!("the body {problem}")))
            }
            Err(JsonFault { path, problem }) => {
                let detail = format!("`{path}` {problem}");
                Err(Problem::malformed(detail).with("field", path))
            }
        }
    }
}

impl FromRequest<Api> for Document {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        match Json::from_request(request, api).await? {
            Json(Value::Object(document)) => Ok(Self(document)),
            Json(other) => {
                let found = kind_of(&other);
                let detail = format!("the body must be a JSON object, found {found}");
                Err(Problem::malformed(detail))
            }
        }
    }
}

/// A body that a browser can send across origins without asking is not taken as JSON.
fn check_json(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let essence = kind.to_str().unwrap_or_default().split(';').next();
    let essence = essence.unwrap_or_default().trim().to_ascii_lowercase();
    if matches!(
        essence.as_str(),
        "application/json" | "application/merge-patch+json"
    ) {
        return Ok(());
    }
    let detail = format!("the content type must be application/json, found {essence:?}");
    Err(Problem::new(Code::UnsupportedContentType, detail))
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        Ok(Self(pairs.into_owned().collect()))
    }
}

/// A member of a document.
pub struct Member<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its value.
    pub value: &'a Value,
}

impl Document {
    /// What it has. Whoever reads it refuses what is [`Member::unknown`], null or not.
    pub fn members(&self) -> impl Iterator<Item = Member<'_>> {
        self.0.iter().map(|(name, value)| Member { name, value })
    }
}

impl Member<'_> {
    /// That it must be something else.
    pub fn wrong(&self, expected: &str) -> FieldFault {
        FieldFault::new(self.name, format!("must be {expected}"))
    }

    /// That there is no such member.
    pub fn unknown(&self) -> FieldFault {
        FieldFault::new(self.name, "is not known")
    }

    /// The value read by `read`; null stands for what is absent.
    fn read<T>(
        &self,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, FieldFault> {
        if self.value.is_null() {
            return Ok(None);
        }
        read(self.value)
            .map(Some)
            .ok_or_else(|| self.wrong(expected))
    }

    /// The text, read by `parse`; `None` for null.
    ///
    /// # Errors
    /// [`FieldFault`] saying what was expected.
    pub fn parsed<T>(
        &self,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, FieldFault> {
        self.read(expected, |value| value.as_str().and_then(parse))
    }

    /// The time; `None` for null.
    ///
    /// # Errors
    /// [`FieldFault`].
    pub fn time(&self) -> Result<Option<UnixMillis>, FieldFault> {
        self.parsed(
            "RFC 3339 such as 2026-03-01T12:30:00Z",
            UnixMillis::parse_rfc3339,
        )
    }

    /// The number, from 1 to `max`; `None` for null.
    ///
    /// # Errors
    /// [`FieldFault`].
    pub fn count(&self, max: usize) -> Result<Option<usize>, FieldFault> {
        let read = |value: &Value| {
            let count = usize::try_from(value.as_u64()?).ok()?;
            (1..=max).contains(&count).then_some(count)
        };
        self.read(&format!("an integer from 1 to {max}"), read)
    }

    /// Whether it is so; `None` for null.
    ///
    /// # Errors
    /// [`FieldFault`].
    pub fn flag(&self) -> Result<Option<bool>, FieldFault> {
        self.read("true or false", Value::as_bool)
    }
}

/// Refuses query parameters that are not `known`, and any that is given twice.
///
/// # Errors
/// [`Problem`] naming the first one.
pub async fn check_query(
    State(known): State<Arc<[String]>>,
    Query(given): Query,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    for (i, (name, _)) in given.iter().enumerate() {
        if !known.contains(name) {
            let expected = match known.is_empty() {
                true => "left out: there are no parameters here".to_owned(),
                false => format!("one of {}", known.join(", ")),
            };
            return Err(Problem::parameter(name, &expected));
        }
        if given[..i].iter().any(|(other, _)| other == name) {
            return Err(Problem::parameter(name, "given once"));
        }
    }
    Ok(next.run(request).await)
}

impl Query {
    /// The parameter's text; without one it is as if it were absent.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.given(name).filter(|text| !text.is_empty())
    }

    fn given(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether the parameter is `true`. Without a value it is neither that nor absent: what is to
    /// be tried out must not be done.
    ///
    /// # Errors
    /// [`Problem`] for anything but `true` and `false`.
    pub fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.given(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::parameter(name, "true or false")),
        }
    }

    /// The parameter read by `parse`.
    ///
    /// # Errors
    /// [`Problem`] saying what was expected.
    pub fn parsed<T>(
        &self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        match self.text(name) {
            None => Ok(None),
            Some(text) => match parse(text) {
                Some(value) => Ok(Some(value)),
                None => Err(Problem::parameter(name, expected)),
            },
        }
    }

    /// `limit`: 100 when absent, at most 1000.
    ///
    /// # Errors
    /// [`Problem`].
    pub fn limit(&self) -> Result<usize, Problem> {
        let read = |text: &str| text.parse().ok().filter(|n| (1..=1000).contains(n));
        let limit = self.parsed("limit", "a number from 1 to 1000", read)?;
        Ok(limit.unwrap_or(100))
    }

    /// `body_bytes`: how much of each body is shown at most, all of it when absent.
    ///
    /// # Errors
    /// [`Problem`].
    pub fn body_bytes(&self) -> Result<usize, Problem> {
        let read = |text: &str| text.parse().ok().filter(|n| *n <= BODY_BYTES_MAX);
        let expected = format!("a number of bytes, at most {BODY_BYTES_MAX}");
        let most = self.parsed("body_bytes", &expected, read)?;
        Ok(most.unwrap_or(BODY_BYTES_MAX))
    }

    /// `tenant`
    ///
    /// # Errors
    /// [`Problem`].
    pub fn tenant(&self) -> Result<Option<TenantId>, Problem> {
        self.parsed("tenant", "a tenant", |text| TenantId::parse(text).ok())
    }

    /// `subscription`
    ///
    /// # Errors
    /// [`Problem`].
    pub fn subscription(&self) -> Result<Option<SubscriptionId>, Problem> {
        let parse = |text: &str| SubscriptionId::parse(text).ok();
        self.parsed("subscription", "a subscription's id (sub_…)", parse)
    }

    /// `event`
    ///
    /// # Errors
    /// [`Problem`].
    pub fn event(&self) -> Result<Option<EventId>, Problem> {
        self.parsed("event", "an event's id", |text| EventId::parse(text).ok())
    }

    /// `delivery`
    ///
    /// # Errors
    /// [`Problem`].
    pub fn delivery(&self) -> Result<Option<DeliveryId>, Problem> {
        let parse = |text: &str| DeliveryId::parse(text).ok();
        self.parsed("delivery", "a delivery's id (msg_…)", parse)
    }

    /// A point in time.
    ///
    /// # Errors
    /// [`Problem`].
    pub fn time(&self, name: &str) -> Result<Option<UnixMillis>, Problem> {
        self.parsed(
            name,
            "RFC 3339 such as 2026-03-01T12:30:00Z",
            UnixMillis::parse_rfc3339,
        )
    }
}

/// An id that cannot be one names nothing, so it is answered as not found.
async fn path_id(parts: &mut Parts, api: &Api) -> String {
    let path = Path::<String>::from_request_parts(parts, api).await;
    path.map(|Path(id)| id).unwrap_or_default()
}

impl FromRequestParts<Api> for SubscriptionPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let id = SubscriptionId::parse(&path_id(parts, api).await);
        id.map(Self)
            .map_err(|_| Problem::not_found("there is no such subscription"))
    }
}

impl FromRequestParts<Api> for DeliveryPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let id = DeliveryId::parse(&path_id(parts, api).await);
        id.map(Self)
            .map_err(|_| Problem::not_found("there is no such delivery"))
    }
}

impl FromRequestParts<Api> for TenantPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let name = path_id(parts, api).await;
        let expected = "must be one tenant: 1 to 128 visible ASCII characters, and not `*`";
        match TenantId::parse(&name) {
            Ok(tenant) if name != "*" => Ok(Self(tenant)),
            _ => Err(FieldFault::new("tenant", expected).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body as Stream;
    use axum::response::IntoResponse as _;
    use futures_util::{StreamExt as _, stream};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_is_given_up() {
        let drop_by_drop = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b"x")), ()))
        });
        let begun = tokio::time::Instant::now();
        let request = Request::new(Stream::from_stream(drop_by_drop.boxed()));
        let refused = Body::from_request(request, &()).await.err().unwrap();
        assert_eq!(refused.into_response().status(), 408);
        assert_eq!(begun.elapsed(), BODY_WITHIN);
    }
}
