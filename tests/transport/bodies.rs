//! Bodies of answers over HTTP/1.1: how much is read of them, and lengths that lie. A body never
//! costs the answer: the status is what counts.

use std::time::Instant;

use carillon::domain::attempt::RESPONSE_BYTES_MAX;
use carillon::domain::outcome::Failure;

use crate::endpoints::{FLOOD_BYTES, answering, flooding};
use crate::harness::{AMPLE, GRACE, answer, failure, local, post};
use crate::until::until;

#[tokio::test]
async fn of_a_large_body_the_beginning_is_read() {
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551613\r\n\r\n",
        // Until the connection ends.
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffff\r\n",
    ] {
        let (address, count) = flooding(head, vec![b'x'; 64 * 1024]).await;
        let response = answer(post(&local(), &format!("http://{address}/"), AMPLE).await);
        assert_eq!(response.body.len(), RESPONSE_BYTES_MAX, "{head}");
        assert!(response.body_cut);
        count.cut_off(head).await;
    }
}

#[tokio::test]
async fn a_body_of_just_the_limit_is_not_cut() {
    for (length, cut) in [(RESPONSE_BYTES_MAX, false), (RESPONSE_BYTES_MAX + 1, true)] {
        let body = "x".repeat(length);
        let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
        let (address, _) = answering(text).await;
        let response = answer(post(&local(), &format!("http://{address}/"), AMPLE).await);
        assert_eq!(response.body.len(), RESPONSE_BYTES_MAX);
        assert_eq!(response.body_cut, cut);
    }
}

/// What they would unpack to is nobody's business.
#[tokio::test]
async fn a_compressed_body_is_left_as_it_is() {
    // Zeros, 258 for each 13 bits: a match of the greatest length with a distance of one.
    let mut bomb = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let mut bits: Vec<u8> = vec![1, 1, 0];
    // A literal zero, then the matches: fixed codes, the highest bit first.
    bits.extend([0, 0, 1, 1, 0, 0, 0, 0]);
    for _ in 0..8000 {
        bits.extend([1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0]);
    }
    bits.resize(bits.len().next_multiple_of(8), 0);
    bomb.extend(bits.chunks(8).map(|byte| {
        let bits = byte.iter().enumerate();
        bits.fold(0, |byte, (place, bit)| byte | bit << place)
    }));
    assert!(bomb.len() < RESPONSE_BYTES_MAX);
    for coding in ["gzip", "x-gzip", "deflate", "br", "zstd", "gzip, gzip"] {
        let length = bomb.len();
        let mut text = format!(
            "HTTP/1.1 200 OK\r\ncontent-encoding: {coding}\r\ncontent-length: {length}\r\n\r\n"
        )
        .into_bytes();
        text.extend(&bomb);
        let (address, _) = answering(text).await;
        let response = answer(post(&local(), &format!("http://{address}/"), AMPLE).await);
        assert_eq!(response.body, bomb, "{coding}");
        assert!(!response.body_cut, "{coding}");
    }
}

#[tokio::test]
async fn a_length_that_is_none_is_a_protocol_error() {
    for lengths in [
        "content-length: -1",
        "content-length: +1",
        "content-length: 0x1",
        "content-length: 1.0",
        "content-length: ",
        "content-length: one",
        "content-length: 1 1",
        "content-length: 18446744073709551616",
        "content-length: 99999999999999999999999999999999",
        "content-length: 1\r\ncontent-length: 2",
        "content-length: 1, 2",
    ] {
        let (address, _) = answering(format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\n1")).await;
        let exchange = post(&local(), &format!("http://{address}/"), AMPLE).await;
        assert_eq!(failure(&exchange), Failure::Protocol, "{lengths}");
    }
}

/// Headers, body, and what is kept of it.
const BODIES: &[(&str, &str, &str, bool)] = &[
    ("content-length: 2\r\ncontent-length: 2", "ok", "ok", false),
    // Chunked has the say (RFC 9112 section 6.3).
    (
        "content-length: 9\r\ntransfer-encoding: chunked",
        "2\r\nok\r\n0\r\n\r\n",
        "ok",
        false,
    ),
    (
        "transfer-encoding: chunked",
        "2;a=b\r\nok\r\n0\r\nx: y\r\n\r\n",
        "ok",
        false,
    ),
    (
        "transfer-encoding: chunked",
        "000000002\r\nok\r\n0\r\n\r\n",
        "ok",
        false,
    ),
    // Sizes that are none.
    ("transfer-encoding: chunked", "zz\r\nok\r\n", "", true),
    ("transfer-encoding: chunked", "-1\r\nok\r\n", "", true),
    ("transfer-encoding: chunked", "0x2\r\nok\r\n", "", true),
    ("transfer-encoding: chunked", "\r\nok\r\n", "", true),
    (
        "transfer-encoding: chunked",
        "ffffffffffffffffffff\r\nok\r\n",
        "",
        true,
    ),
    // More and less than was said.
    (
        "transfer-encoding: chunked",
        "2\r\nokay\r\n0\r\n\r\n",
        "ok",
        true,
    ),
    (
        "transfer-encoding: chunked",
        "ffffffffffffffff\r\nok\r\n",
        "ok\r\n",
        true,
    ),
    ("content-length: 9", "ok", "ok", true),
    ("content-length: 18446744073709551613", "ok", "ok", true),
    // Trailers that are none.
    (
        "transfer-encoding: chunked",
        "2\r\nok\r\n0\r\nno colon\r\n\r\n",
        "ok",
        true,
    ),
];

#[tokio::test]
async fn a_body_that_cannot_be_read_leaves_the_answer() {
    for (headers, body, kept, cut) in BODIES {
        let text = format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n{body}");
        let (address, _) = answering(text).await;
        let begun = Instant::now();
        let response = answer(post(&local(), &format!("http://{address}/"), AMPLE).await);
        assert_eq!(
            (response.status, response.body_cut),
            (200, *cut),
            "{headers} {body:?}"
        );
        assert_eq!(response.body, *kept, "{headers} {body:?}");
        assert!(begun.elapsed() < AMPLE / 2, "{headers} {body:?}");
    }
}

#[tokio::test]
async fn chunks_and_what_surrounds_them_are_bounded() {
    let chunked =
        |body: &str| format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
    for (what, head, chunk, kept) in [
        (
            "small chunks",
            "",
            b"10\r\nsixteen  letters\r\n".repeat(1000),
            RESPONSE_BYTES_MAX,
        ),
        ("one extension", "2;x=", vec![b'y'; 64 * 1024], 0),
        (
            "extensions",
            "",
            [b"1;", "y".repeat(1000).as_bytes(), b"\r\nx\r\n"].concat(),
            16,
        ),
        (
            "one trailer",
            "2\r\nok\r\n0\r\nx: ",
            vec![b'y'; 64 * 1024],
            2,
        ),
        ("trailers", "2\r\nok\r\n0\r\n", b"a: b\r\n".repeat(1000), 2),
        (
            "folded trailers",
            "2\r\nok\r\n0\r\na: b\r\n",
            b" c\r\n".repeat(1000),
            2,
        ),
    ] {
        let (address, count) = flooding(chunked(head), chunk).await;
        let begun = Instant::now();
        let response = answer(post(&local(), &format!("http://{address}/"), AMPLE).await);
        assert_eq!(
            (response.body.len(), response.body_cut),
            (kept, true),
            "{what}"
        );
        assert!(begun.elapsed() < AMPLE / 2 + GRACE, "{what}");
        count.cut_off(what).await;
    }
}

/// It takes no memory, so what ends it is the time that a body may take.
#[tokio::test]
async fn the_size_of_a_chunk_that_never_ends_takes_its_time_only() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let (address, count) = flooding(head, vec![b'0'; 64 * 1024]).await;
    let begun = Instant::now();
    let response = answer(post(&local(), &format!("http://{address}/"), AMPLE).await);
    assert_eq!((response.body.len(), response.body_cut), (0, true));
    assert!(begun.elapsed() < AMPLE / 2);
    until("the end", AMPLE, async || {
        (count.ended() == 1).then_some(())
    })
    .await;
    assert!(count.sent() < FLOOD_BYTES);
}

/// What stands behind a body is nobody's answer: least of all that of the next request, which
/// may be another tenant's.
#[tokio::test]
async fn an_answer_that_nobody_asked_for_is_not_given_to_the_next_request() {
    let local = local();
    let smuggled = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nsmuggled";
    for end in [
        "content-length: 2\r\n\r\nok",
        "transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ] {
        let (address, count) = answering(format!("HTTP/1.1 200 OK\r\n{end}{smuggled}")).await;
        for number in 1..=50 {
            let exchange = post(&local, &format!("http://{address}/"), AMPLE).await;
            assert_eq!(answer(exchange).body, "ok");
            assert_eq!((count.connections(), count.requests()), (number, number));
        }
    }
}
