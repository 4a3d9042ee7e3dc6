//! Reading an answer: its headers and the beginning of its body, and no more.
//!
//! The status decides what follows; the rest is kept for the person who looks at the
//! audit log. So once the head is there an attempt has its answer, however the body
//! goes. A body that was read to its end gives its connection back to the pool; else
//! the connection is closed rather than drained.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::time::{Instant, timeout_at};

use crate::domain::attempt::{RESPONSE_BYTES_MAX, Response};

/// How long reading a body may take. Its first 16 KiB come in one or two round trips from
/// an honest endpoint; a dripping one is not to hold its place until the whole timeout.
const BODY_TIME_MAX: Duration = Duration::from_secs(1);

/// Headers kept: as many as the client accepts over HTTP/1.1.
const HEADERS_MAX: usize = 100;

/// Bytes of header names and values kept: as many as the client accepts over HTTP/2.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Reads what is kept of `response`, until `deadline` at the latest.
pub(super) async fn read(response: reqwest::Response, deadline: Instant) -> Response {
    let status = response.status().as_u16();
    let headers = kept_headers(response.headers());
    let (body, body_cut) = read_body(response, deadline).await;
    Response {
        status,
        headers,
        body,
        body_cut,
    }
}

/// Returns the first bytes of the body, and whether there was more or it broke off.
async fn read_body(mut response: reqwest::Response, deadline: Instant) -> (Bytes, bool) {
    let until = deadline.min(Instant::now() + BODY_TIME_MAX);
    // Copied out of the connection's buffers, which may be larger and would live on.
    let mut kept = Vec::new();
    let cut = loop {
        match timeout_at(until, response.chunk()).await {
            Ok(Ok(None)) => break false,
            Ok(Ok(Some(chunk))) => {
                let room = RESPONSE_BYTES_MAX - kept.len();
                kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if chunk.len() > room {
                    break true;
                }
            }
            Ok(Err(_)) | Err(_) => break true,
        }
    };
    (Bytes::from(kept), cut)
}

fn kept_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut room = HEADER_BYTES_MAX;
    let mut kept = Vec::with_capacity(headers.len().min(HEADERS_MAX));
    for (name, value) in headers.iter().take(HEADERS_MAX) {
        let value = String::from_utf8_lossy(value.as_bytes());
        let Some(rest) = room.checked_sub(name.as_str().len() + value.len()) else {
            break;
        };
        room = rest;
        kept.push((name.as_str().to_owned(), value.into_owned()));
    }
    kept
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn headers_are_kept_in_lower_case_with_what_is_not_utf8_replaced() {
        let mut headers = HeaderMap::new();
        let name = HeaderName::from_bytes(b"X-Request-ID").unwrap();
        headers.append(name, HeaderValue::from_bytes(b"a\xffb").unwrap());
        assert_eq!(
            kept_headers(&headers),
            [("x-request-id".to_owned(), "a\u{fffd}b".to_owned())]
        );
    }

    #[test]
    fn headers_are_bounded_in_number_and_size() {
        let mut headers = HeaderMap::new();
        for _ in 0..200 {
            headers.append("x", HeaderValue::from_static("y"));
        }
        assert_eq!(kept_headers(&headers).len(), HEADERS_MAX);

        let large = HeaderValue::from_str(&"v".repeat(10_000)).unwrap();
        let mut headers = HeaderMap::new();
        headers.append("a", large.clone());
        headers.append("b", large);
        assert_eq!(kept_headers(&headers).len(), 1);
    }
}
