//! Heads of answers over HTTP/1.1: what is no head, what is one all the same, and heads that
//! never end.

use std::time::Instant;

use carillon::domain::outcome::Failure;

use crate::endpoints::{FLOOD_BYTES, answering, flooding};
use crate::harness::{AMPLE, GRACE, SHORT, answer, failure, local, post};
use crate::until::until;

/// The whole answer, and whether it is one.
const HEADS: &[(&[u8], Option<u16>)] = &[
    // Other protocols.
    (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", None),
    (b"\0\x01\x02\x03\r\n\r\n", None),
    (b"<html>HTTP/0.9 has no head</html>\r\n\r\n", None),
    (b"ICY 200 OK\r\n\r\n", None),
    // Versions.
    (b"HTTP/0.9 200 OK\r\n\r\n", None),
    (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", Some(200)),
    (b"HTTP/1.2 200 OK\r\n\r\n", None),
    (b"HTTP/2.0 200 OK\r\n\r\n", None),
    (b"http/1.1 200 OK\r\n\r\n", None),
    // Status codes.
    (b"HTTP/1.1 abc\r\n\r\n", None),
    (b"HTTP/1.1 20\r\n\r\n", None),
    (b"HTTP/1.1 2000 OK\r\n\r\n", None),
    (b"HTTP/1.1 -20 OK\r\n\r\n", None),
    (b"HTTP/1.1 000 OK\r\n\r\n", None),
    (b"HTTP/1.1 099 OK\r\n\r\n", None),
    (b"HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n", Some(999)),
    (b"HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", Some(200)),
    (
        b"HTTP/1.1 200 \xff\xfe\r\ncontent-length: 0\r\n\r\n",
        Some(200),
    ),
    (b"HTTP/1.1 200 O\0K\r\n\r\n", None),
    // Header names.
    (b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n", None),
    (b"HTTP/1.1 200 OK\r\n: nameless\r\n\r\n", None),
    (b"HTTP/1.1 200 OK\r\nx : y\r\n\r\n", None),
    (b"HTTP/1.1 200 OK\r\n x: y\r\n\r\n", None),
    (b"HTTP/1.1 200 OK\r\nx\0: y\r\n\r\n", None),
    (b"HTTP/1.1 200 OK\r\n\xc3\xa9: y\r\n\r\n", None),
    // Header values.
    (b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n", None),
    (b"HTTP/1.1 200 OK\r\nx: a\x01b\r\n\r\n", None),
    (b"HTTP/1.1 200 OK\r\nx: a\x1b[31mb\r\n\r\n", None),
    (b"HTTP/1.1 200 OK\r\nx: a\x7fb\r\n\r\n", None),
    (b"HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n", None),
    (b"HTTP/1.1 200 OK\r\nx: folded\r\n onto this\r\n\r\n", None),
    (
        b"HTTP/1.1 200 OK\r\nx: a\tb\r\ncontent-length: 0\r\n\r\n",
        Some(200),
    ),
    (
        b"HTTP/1.1 200 OK\r\nx:\r\ncontent-length: 0\r\n\r\n",
        Some(200),
    ),
    (b"HTTP/1.1 200 OK\ncontent-length: 0\n\n", Some(200)),
    // What comes before an answer.
    (
        b"\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        Some(200),
    ),
    (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n\
          HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n",
        Some(201),
    ),
    (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", Some(101)),
];

#[tokio::test]
async fn what_is_not_http_is_a_protocol_error() {
    for (text, status) in HEADS {
        let shown = text.escape_ascii();
        let (address, count) = answering(*text).await;
        let exchange = post(&local(), &format!("http://{address}/?k=s3cret"), AMPLE).await;
        match status {
            Some(status) => assert_eq!(answer(exchange).status, *status, "{shown}"),
            None => assert_eq!(failure(&exchange), Failure::Protocol, "{shown}"),
        }
        assert_eq!(count.requests(), 1, "{shown}");
    }
}

#[tokio::test]
async fn a_value_that_is_not_utf8_is_shown_as_well_as_it_can_be() {
    let text = b"HTTP/1.1 200 OK\r\nx: a\xff\xc3\xa9\r\ncontent-length: 0\r\n\r\n";
    let (address, _) = answering(text).await;
    let response = answer(post(&local(), &format!("http://{address}/"), AMPLE).await);
    let shown = ("x".to_owned(), "a\u{fffd}\u{e9}".to_owned());
    assert!(response.headers.contains(&shown), "{response:?}");
}

#[tokio::test]
async fn an_answer_over_http_1_0_is_the_last_on_its_connection() {
    let (address, count) = answering("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let local = local();
    for _ in 0..3 {
        let exchange = post(&local, &format!("http://{address}/"), AMPLE).await;
        assert_eq!(answer(exchange).body, "ok");
    }
    assert_eq!(count.connections(), 3);
}

#[tokio::test]
async fn a_hundred_headers_are_read_and_no_more() {
    for (number, read) in [(99, true), (100, false)] {
        let headers = "a: b\r\n".repeat(number);
        let text = format!("HTTP/1.1 200 OK\r\n{headers}content-length: 0\r\n\r\n");
        let (address, _) = answering(text).await;
        let exchange = post(&local(), &format!("http://{address}/"), AMPLE).await;
        if read {
            assert_eq!(answer(exchange).headers.len(), number + 1);
        } else {
            assert_eq!(failure(&exchange), Failure::Protocol);
        }
    }
}

#[tokio::test]
async fn headers_without_end_are_a_protocol_error() {
    let begun = "HTTP/1.1 200 OK\r\n";
    let line = format!("x-{}: {}\r\n", "n".repeat(1000), "v".repeat(64_000));
    for (what, head, chunk) in [
        ("long headers", begun, line.into_bytes()),
        ("short headers", begun, b"a: b\r\n".repeat(1000)),
        ("one name", begun, vec![b'x'; 64 * 1024]),
        ("one value", "HTTP/1.1 200 OK\r\nx: ", vec![b'v'; 64 * 1024]),
        (
            "one value of spaces",
            "HTTP/1.1 200 OK\r\nx: ",
            vec![b' '; 64 * 1024],
        ),
        (
            "one folded value",
            "HTTP/1.1 200 OK\r\nx: y\r\n",
            b" y\r\n".repeat(1000),
        ),
        ("the reason", "HTTP/1.1 200 ", vec![b'O'; 64 * 1024]),
        ("the version", "HTTP/1.", vec![b'1'; 64 * 1024]),
        ("the status", "HTTP/1.1 ", vec![b'2'; 64 * 1024]),
        ("empty lines", "", b"\r\n".repeat(1000)),
        (
            "one informational head",
            "HTTP/1.1 103 Hints\r\n",
            b"a: b\r\n".repeat(1000),
        ),
    ] {
        let (address, count) = flooding(head, chunk).await;
        let begun = Instant::now();
        let exchange = post(&local(), &format!("http://{address}/"), AMPLE).await;
        assert_eq!(failure(&exchange), Failure::Protocol, "{what}");
        assert!(begun.elapsed() < AMPLE, "{what}");
        count.cut_off(what).await;
    }
}

/// Each is passed over, so they take no memory; they end with the attempt's time.
#[tokio::test]
async fn informational_answers_without_end_are_a_timeout() {
    for text in [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
        "HTTP/1.1 199 Odd\r\n\r\n",
    ] {
        let (address, count) = flooding("", text.repeat(1000).into_bytes()).await;
        let begun = Instant::now();
        let exchange = post(&local(), &format!("http://{address}/"), SHORT).await;
        assert_eq!(failure(&exchange), Failure::Timeout, "{text}");
        assert!(begun.elapsed() < SHORT + GRACE, "{text}");
        // The connection ends with the attempt.
        until(text, AMPLE, async || (count.ended() == 1).then_some(())).await;
        assert!(count.sent() < FLOOD_BYTES, "{text}");
    }
}
