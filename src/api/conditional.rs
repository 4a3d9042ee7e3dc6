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
        let mut values = parts.headers.get_all(&name).iter();
        let Some(value) = values.next() else {
            return Ok(Self(None));
        };
        if values.next().is_some() {
            return Err(Problem::header(&name, "given once"));
        }
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

/// The tags of a header, on however many lines.
fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Problem> {
    let lines: Vec<_> = headers.get_all(name).iter().collect();
    if let [line] = lines[..]
        && line.as_bytes().trim_ascii() == b"*"
    {
        return Ok(Some(Tags::Any));
    }
    let mut named = Vec::new();
    for line in &lines {
        // What is not UTF-8 is none of ours.
        let read = entity_tags(&String::from_utf8_lossy(line.as_bytes()), &mut named);
        if !read || named.is_empty() {
            let expected = "entity tags such as \"18f3-2\", or *";
            return Err(Problem::header(name, expected));
        }
    }
    Ok((!named.is_empty()).then_some(Tags::These(named)))
}

/// Adds the tags of a list (RFC 9110 sections 5.6.1 and 8.8.3) with their quotes, between which
/// commas may stand; says whether it is one. A weak tag names nothing that may be changed (section
/// 8.8.3.2), so the `W/` that compressing proxies put in front is passed over.
fn entity_tags(list: &str, named: &mut Vec<String>) -> bool {
    let is_in_tag = |c: char| c == '!' || (c > '"' && c != '\u{7f}');
    let mut rest = list;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return true;
        }
        let strong = rest.strip_prefix("W/").unwrap_or(rest);
        let opened = strong.strip_prefix('"');
        let Some((tag, after)) = opened.and_then(|opened| opened.split_once('"')) else {
            return false;
        };
        rest = after.trim_start_matches([' ', '\t']);
        if !tag.chars().all(is_in_tag) || !(rest.is_empty() || rest.starts_with(',')) {
            return false;
        }
        named.push(format!("\"{tag}\""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_told_apart_by_their_quotes() {
        for (list, expected) in [
            (r#""a""#, Some(&["\"a\""][..])),
            (r#"W/"a,b" , "",, "c d"#, None),
            (
                "W/\"a,b\"\t, \"\",, \"c\u{e9}\" ,",
                Some(&["\"a,b\"", "\"\"", "\"c\u{e9}\""]),
            ),
            ("", Some(&[])),
            (r#""a" "b""#, None),
            (r#""a"b"#, None),
            (r#""a b""#, None),
            (r#"w/"a""#, None),
            ("a", None),
            (r#"*, "a""#, None),
        ] {
            let mut named = Vec::new();
            let read = entity_tags(list, &mut named);
            let found = read.then_some(named);
            let expected = expected.map(|tags| tags.iter().map(|tag| (*tag).to_owned()).collect());
            assert_eq!(found, expected, "{list}");
        }
    }
}
