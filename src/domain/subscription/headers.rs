//! Custom headers: what a subscription's owner may add to its requests.
//!
//! They never replace what Carillon or the connection sets, also as gateways see names, and a
//! request has room for them.

use std::fmt;

use super::FieldFault;

/// Most custom headers.
pub const HEADERS_MAX: usize = 20;
/// Longest value of a custom header, in bytes.
pub const HEADER_VALUE_BYTES_MAX: usize = 4096;
/// Most bytes of all names and values of custom headers together: web servers take 8 to 32 KiB of headers.
pub const HEADERS_BYTES_MAX: usize = 8 * 1024;

/// Headers that a subscription sends along, names in lower case. Its `Debug` shows the names:
/// a value may be a token.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CustomHeaders(Vec<(String, String)>);

impl fmt::Debug for CustomHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|(name, _)| name);
        f.debug_list().entries(names).finish()
    }
}

impl CustomHeaders {
    /// Checks names and values.
    ///
    /// # Errors
    /// [`FieldFault`] of `headers`: too many or too large, a name that Carillon or the
    /// connection sets itself, or characters that a header cannot hold.
    pub fn try_new(
        headers: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, FieldFault> {
        let headers: Vec<_> = headers.into_iter().collect();
        // First: each is compared with all others.
        if headers.len() > HEADERS_MAX {
            let found = headers.len();
            let problem = format!("must be at most {HEADERS_MAX} headers, found {found}");
            return Err(FieldFault::new("headers", problem));
        }
        let mut checked: Vec<(String, String)> = Vec::new();
        for (name, value) in headers {
            let field = || format!("headers.{}", name.escape_default());
            let lower = name.to_ascii_lowercase();
            let problem = name_problem(&lower)
                .or_else(|| reserved_problem(&lower))
                .or_else(|| value_problem(&value));
            if let Some(problem) = problem {
                return Err(FieldFault::new(field(), problem));
            }
            let alike = |(known, _): &(String, String)| gateway_name(known) == gateway_name(&lower);
            if checked.iter().any(alike) {
                let problem = "is given twice (letter case, `_` and `-` make no difference)";
                return Err(FieldFault::new(field(), problem));
            }
            checked.push((lower, value));
        }
        let bytes = |(name, value): &(String, String)| name.len() + value.len();
        let found = checked.iter().map(bytes).sum::<usize>();
        if found > HEADERS_BYTES_MAX {
            let problem = format!(
                "must be at most {HEADERS_BYTES_MAX} bytes, all names and values together, found {found}"
            );
            return Err(FieldFault::new("headers", problem));
        }
        Ok(Self(checked))
    }

    /// What was checked when it was written, perhaps by older rules: all that a request cannot
    /// hold is refused nevertheless.
    ///
    /// # Errors
    /// [`FieldFault`] of `headers`.
    pub fn try_stored(
        headers: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, FieldFault> {
        let check = |(name, value): (String, String)| {
            let lower = name.to_ascii_lowercase();
            match name_problem(&lower).or_else(|| value_problem(&value)) {
                Some(problem) => Err(FieldFault::new(format!("headers.{lower}"), problem)),
                None => Ok((lower, value)),
            }
        };
        headers
            .into_iter()
            .map(check)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The headers, names in lower case.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Headers that Carillon sets, or that belong to the connection (RFC 9110 section 7.6.1).
const RESERVED_HEADERS: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "x-leicbit-signature",
    "x-webhook-has-more",
];

fn name_problem(lower: &str) -> Option<String> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if lower.is_empty() || lower.len() > 128 || !lower.bytes().all(is_token) {
        return Some("is not a header name (RFC 9110 section 5.1)".to_owned());
    }
    None
}

/// As receivers behind CGI, WSGI or the like see a name: one `_` is one `-` there, so
/// `webhook_signature` would stand beside, or in place of, what Carillon sends.
fn gateway_name(lower: &str) -> String {
    lower.replace('_', "-")
}

fn reserved_problem(lower: &str) -> Option<String> {
    let name = gateway_name(lower);
    let reserved = RESERVED_HEADERS.contains(&name.as_str())
        || name.starts_with("webhook-")
        || name.starts_with("proxy-");
    reserved.then(|| "is set by Carillon or the connection and cannot be overridden".to_owned())
}

fn value_problem(value: &str) -> Option<String> {
    if value.len() > HEADER_VALUE_BYTES_MAX {
        let found = value.len();
        return Some(format!(
            "must be at most {HEADER_VALUE_BYTES_MAX} bytes, found {found}"
        ));
    }
    let fits = |b: u8| b == b'\t' || (b' '..=b'~').contains(&b);
    if !value.bytes().all(fits) {
        return Some("must be visible ASCII, spaces and tabs; no line breaks".to_owned());
    }
    (value.trim() != value).then(|| "must not begin or end with a space".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_override_nothing() {
        let try_one =
            |name: &str, value: &str| CustomHeaders::try_new([(name.to_owned(), value.to_owned())]);
        let kept = try_one("X-Api-Key", "k").unwrap();
        assert_eq!(kept.iter().collect::<Vec<_>>(), [("x-api-key", "k")]);
        assert!(try_one("authorization", "Bearer x").is_ok());
        for name in [
            "Content-Type",
            "webhook-id",
            "Webhook-Anything",
            "HOST",
            "a b",
            "",
            "x:y",
            "é",
            ":authority",
            "x\r\ny",
            "x\0",
            "Transfer-Encoding",
            "connection",
            "TE",
            "trailer",
            "upgrade",
            "keep-alive",
            "proxy-authorization",
            "Proxy-Anything",
            "expect",
            "content-length",
            "http2-settings",
            "Webhook_Signature",
            "content_type",
            "X_Leicbit_Signature",
        ] {
            assert!(try_one(name, "v").is_err(), "{name}");
        }
        assert!(try_one("cookie", "a=b").is_ok());
        assert!(try_one(&"x".repeat(129), "").is_err());
        for value in ["a\r\nb", "a\nb", "\0", "é", " a", "a "] {
            assert!(try_one("x-a", value).is_err(), "{value:?}");
        }
        let many = (0..21).map(|i| (format!("x-{i}"), String::new()));
        assert_eq!(CustomHeaders::try_new(many).unwrap_err().field, "headers");
        for other in ["X-A", "x_a", "X_a"] {
            let twice = [("x-a", "1"), (other, "2")].map(|(n, v)| (n.to_owned(), v.to_owned()));
            assert!(CustomHeaders::try_new(twice.clone()).is_err(), "{other}");
            // It was taken once.
            assert!(CustomHeaders::try_stored(twice).is_ok(), "{other}");
        }
        let injected = [("x-a".to_owned(), "a\r\nb: c".to_owned())];
        assert!(CustomHeaders::try_stored(injected).is_err());
    }

    #[test]
    fn headers_fit_into_a_request() {
        let sized = |count: usize, bytes: usize| {
            let header = |i| (format!("x-{i:02}"), "v".repeat(bytes - 4));
            CustomHeaders::try_new((0..count).map(header))
        };
        assert!(sized(2, 4_096).is_ok());
        assert!(sized(1, 4_101).is_err());
        assert!(sized(16, 512).is_ok());
        let fault = sized(16, 513).unwrap_err();
        assert!(fault.problem.contains("at most 8192 bytes"), "{fault}");
    }
}
