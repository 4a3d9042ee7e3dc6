//! Conditional requests (RFC 9110 section 13): nobody overwrites what they have not seen.
//!
//! Every answer with a subscription has an `ETag`; with that as `If-Match`, a change is made only
//! to what was read. `If-None-Match: *` makes only what is not there. With an `Idempotency-Key`
//! (draft-ietf-httpapi-idempotency-key-header) what is made may be asked for again.

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::Api;
use super::problem::{Code, Problem};
use crate::ports::StoredSubscription;

/// What a request asks of what is there.
#[derive(Debug, Default)]
pub struct Conditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

/// What tells one creation from another, if the client says.
#[derive(Debug)]
pub struct IdempotencyKey(pub Option<String>);

#[derive(Debug)]
enum Tags {
    /// `*`
    Any,
    These(Vec<String>),
}

/// The tag of this version: when it was made tells it from one of the same id before.
pub fn etag(stored: &StoredSubscription) -> HeaderValue {
    let made = stored.subscription.created_at.0;
    let text = format!("\"{made:x}-{}\"", stored.version);
    // Hexadecimal digits between quotes are a header's value.
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

impl FromRequestParts<Api> for Conditions {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        Ok(Self {
            if_match: tags(&parts.headers, &header::IF_MATCH)?,
            if_none_match: tags(&parts.headers, &header::IF_NONE_MATCH)?,
        })
    }
}

impl FromRequestParts<Api> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let name = HeaderName::from_static("idempotency-key");
        let Some(value) = parts.headers.get(&name) else {
            return Ok(Self(None));
        };
        let key = value.to_str().unwrap_or_default().trim();
        if !(1..=255).contains(&key.len()) {
            return Err(Problem::header(&name, "1 to 255 visible ASCII characters"));
        }
        Ok(Self(Some(key.to_owned())))
    }
}

impl Conditions {
    /// Whether anything is asked.
    pub fn are_any(&self) -> bool {
        self.if_match.is_some() || self.if_none_match.is_some()
    }

    /// Whether what is asked for may be done to what is there.
    ///
    /// # Errors
    /// [`Problem`]: 412, with the tag of what is there.
    pub fn check(&self, there: Option<&StoredSubscription>) -> Result<(), Problem> {
        let wanted = self.if_match.as_ref().is_none_or(|tags| tags.name(there));
        let unwanted = self.if_none_match.as_ref();
        if wanted && !unwanted.is_some_and(|tags| tags.name(there)) {
            return Ok(());
        }
        let detail = match there {
            Some(_) => "it has another version than was asked for: read it again and repeat",
            None => "there is no such subscription any more, or not yet",
        };
        let problem = Problem::new(Code::PreconditionFailed, detail);
        Err(match there.map(etag) {
            Some(tag) => problem.with("etag", tag.to_str().unwrap_or_default()),
            None => problem,
        })
    }
}

impl Tags {
    fn name(&self, there: Option<&StoredSubscription>) -> bool {
        match (self, there) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::These(tags), Some(there)) => {
                let tag = etag(there);
                tags.iter().any(|named| named.as_bytes() == tag.as_bytes())
            }
        }
    }
}

/// The tags of a header. A weak one names nothing that may be changed (section 8.8.3.2), so the
/// `W/` that compressing proxies put in front is passed over.
fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Problem> {
    let mut named = Vec::new();
    for value in headers.get_all(name) {
        let unreadable = || Problem::header(name, "entity tags such as \"18f3-2\", or *");
        let text = value.to_str().map_err(|_| unreadable())?.trim();
        if text == "*" {
            return Ok(Some(Tags::Any));
        }
        for tag in text.split(',').map(str::trim) {
            let strong = tag.strip_prefix("W/").unwrap_or(tag);
            let is_quoted = strong.len() >= 2 && strong.starts_with('"') && strong.ends_with('"');
            if !is_quoted {
                return Err(unreadable());
            }
            named.push(strong.to_owned());
        }
    }
    Ok((!named.is_empty()).then_some(Tags::These(named)))
}
