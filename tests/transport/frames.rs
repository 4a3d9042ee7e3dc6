//! HTTP/2 frame by frame, as no library would send them: floods, and what breaks the protocol.
//! Whatever comes, the attempt ends in its time, and what is taken meanwhile is bounded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carillon::domain::attempt::RESPONSE_BYTES_MAX;
use carillon::domain::outcome::Failure;
use carillon::ports::Exchange;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::certificates::Authority;
use crate::endpoints::{Count, FLOOD_BYTES, endpoint_on, with_small_buffers};
use crate::harness::{
    AMPLE, GRACE, SHORT, alone, answer, block_on, failure, is_alone, post, trusting,
};
use crate::memory::memory_bytes;
use crate::until::until;

/// The same where what was taken wants answers, which nobody takes: as many as the systems of both
/// sides hold.
const ANSWERED_BYTES_MAX: usize = 24 * 1024 * 1024;

/// How long memory is measured for each flood.
const FLOOD_TIME: Duration = Duration::from_secs(1);

/// What the process may grow by meanwhile, endpoints included.
const GROWTH_BYTES_MAX: u64 = 6 * 1024 * 1024;

/// Frame types (RFC 9113 section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const PADDED: u8 = 8;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:status: 200` in HPACK's static table (RFC 7541 appendix A).
const STATUS_200: u8 = 0x88;

/// The stream of a connection's first request.
const FIRST: u32 = 1;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A header as a literal that enters no table: the name `x`, this value.
fn header(value: &[u8]) -> Vec<u8> {
    let mut header = vec![0, 1, b'x', 0x7f];
    // Lengths from 127 on in groups of seven bits (RFC 7541 section 5.1).
    let mut rest = value.len() - 127;
    while rest >= 128 {
        header.push(u8::try_from(rest % 128).unwrap() | 0x80);
        rest /= 128;
    }
    header.push(u8::try_from(rest).unwrap());
    header.extend(value);
    header
}

/// An endpoint that sends `head` behind its settings when the first request is there, and then
/// `chunk` again and again. Unless it `reads`, it takes nothing from then on, no answer to its
/// pings for one.
fn speaking(tls: &TlsAcceptor, head: Vec<u8>, chunk: Vec<u8>, reads: bool) -> (SocketAddr, Count) {
    let mut config = tls.config().as_ref().clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = TlsAcceptor::from(Arc::new(config));
    let chunk: Arc<[u8]> = chunk.into();
    let mut begin = frame(SETTINGS, 0, 0, &[]);
    begin.extend(head);
    let begin: Arc<[u8]> = begin.into();
    endpoint_on(with_small_buffers(), move |stream, count| {
        let (tls, begin, chunk) = (tls.clone(), Arc::clone(&begin), Arc::clone(&chunk));
        async move {
            let stream = tls.accept(stream).await.unwrap();
            let (mut reading, mut writing) = tokio::io::split(stream);
            let mut preface = [0; 24];
            reading.read_exact(&mut preface).await.unwrap();
            while read_kind(&mut reading).await.unwrap() != HEADERS {}
            count.request();
            let rest = async {
                while reads && let Some(kind) = read_kind(&mut reading).await {
                    if kind == HEADERS {
                        count.request();
                    }
                }
            };
            let flood = async {
                if chunk.is_empty() {
                    writing.write_all(&begin).await.unwrap();
                    writing.flush().await.unwrap();
                } else {
                    count.flood(&mut writing, &begin, &chunk).await;
                }
            };
            tokio::join!(rest, flood);
            // Held open where nobody reads, until the other side ends it.
            while read_kind(&mut reading).await.is_some() {}
        }
    })
}

/// The type of the next frame; `None` when the connection ends first.
async fn read_kind<S: AsyncRead + Unpin>(stream: &mut S) -> Option<u8> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await.ok()?;
    Some(head[3])
}

struct Scene {
    authority: Authority,
    tls: TlsAcceptor,
}

impl Scene {
    fn new() -> Self {
        let authority = Authority::new();
        let tls = authority.tls("127.0.0.1", |_| {});
        Self { authority, tls }
    }

    /// One request to an endpoint that sends `head`.
    async fn once(&self, head: Vec<u8>) -> (Exchange, Count) {
        let (address, count) = speaking(&self.tls, head, Vec::new(), true);
        let transport = trusting(&self.authority.certificate);
        let exchange = post(&transport, &format!("https://{address}/"), AMPLE).await;
        (exchange, count)
    }
}

#[tokio::test]
async fn frames_by_hand_are_an_answer() {
    let mut head = frame(HEADERS, END_HEADERS, FIRST, &[STATUS_200]);
    head.extend(frame(DATA, END_STREAM, FIRST, b"ok"));
    let (exchange, count) = Scene::new().once(head).await;
    let response = answer(exchange);
    assert_eq!((response.status, response.body_cut), (200, false));
    assert_eq!(response.body, "ok");
    assert_eq!(count.requests(), 1);
}

#[tokio::test]
async fn what_breaks_the_protocol_is_a_protocol_error() {
    let scene = Scene::new();
    // One entry of 4,000 bytes for the table, and then that entry again and again.
    let mut bomb = vec![STATUS_200];
    let mut entry = header(&[b'v'; 4000]);
    entry[0] = 0x40;
    bomb.extend(entry);
    bomb.resize(16_000, 0xbe);
    let too_long = {
        let mut frame = frame(DATA, 0, FIRST, &[0; 16_385]);
        frame.truncate(9 + 16_385);
        frame
    };
    for (what, head) in [
        (
            "a table of headers that unpacks to 48 MB",
            frame(HEADERS, END_HEADERS, FIRST, &bomb),
        ),
        (
            "headers without a status",
            frame(HEADERS, END_HEADERS, FIRST, &[]),
        ),
        (
            "a status that is none",
            frame(HEADERS, END_HEADERS, FIRST, b"\x08\x0299"),
        ),
        (
            "an index that does not exist",
            frame(HEADERS, END_HEADERS, FIRST, &[STATUS_200, 0xff, 0x7f]),
        ),
        (
            "a name in capitals",
            frame(HEADERS, END_HEADERS, FIRST, b"\x88\x00\x01X\x01y"),
        ),
        (
            "a control character",
            frame(HEADERS, END_HEADERS, FIRST, b"\x88\x00\x01x\x03a\0b"),
        ),
        (
            "two lengths",
            frame(
                HEADERS,
                END_HEADERS,
                FIRST,
                b"\x88\x0f\x0d\x011\x0f\x0d\x012",
            ),
        ),
        (
            "a negative length",
            frame(HEADERS, END_HEADERS, FIRST, b"\x88\x0f\x0d\x02-1"),
        ),
        (
            "a length too large",
            frame(
                HEADERS,
                END_HEADERS,
                FIRST,
                b"\x88\x0f\x0d\x1499999999999999999999",
            ),
        ),
        (
            "a body before the headers",
            frame(DATA, END_STREAM, FIRST, b"ok"),
        ),
        ("a frame longer than may be", too_long),
        (
            "a continuation of nothing",
            frame(CONTINUATION, END_HEADERS, FIRST, &[STATUS_200]),
        ),
        (
            "headers interrupted",
            [
                frame(HEADERS, 0, FIRST, &[STATUS_200]),
                frame(PING, 0, 0, &[0; 8]),
            ]
            .concat(),
        ),
        (
            "a promise, which was not asked for",
            frame(PUSH_PROMISE, END_HEADERS, FIRST, &[0, 0, 0, 2, 0x82]),
        ),
        (
            "a stream that nobody opened",
            frame(HEADERS, END_HEADERS, 2, &[STATUS_200]),
        ),
        (
            "the end of a stream that nobody opened",
            frame(RST_STREAM, 0, 99, &[0; 4]),
        ),
        (
            "a window beyond the greatest",
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
        ),
        (
            "a window of nothing more",
            frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
        ),
        (
            "a setting beyond the greatest",
            frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
        ),
        (
            "HTTP/1.1",
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec(),
        ),
    ] {
        let begun = Instant::now();
        let (exchange, count) = scene.once(head).await;
        assert_eq!(
            failure(&exchange),
            Failure::Protocol,
            "{what}: {}",
            exchange.detail
        );
        assert!(begun.elapsed() < AMPLE, "{what}");
        assert_eq!(count.requests(), 1, "{what}");
    }
}

/// It may have been received, so it is one attempt: sending it again is decided elsewhere.
#[tokio::test]
async fn an_endpoint_that_ends_the_stream_is_not_asked_again() {
    let scene = Scene::new();
    let last_stream_none = |code: u8| frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, code]);
    for code in 0..=13 {
        for head in [
            frame(RST_STREAM, 0, FIRST, &[0, 0, 0, code]),
            last_stream_none(code),
        ] {
            let (exchange, count) = scene.once(head).await;
            assert_eq!(
                failure(&exchange),
                Failure::Closed,
                "{code}: {}",
                exchange.detail
            );
            assert_eq!((count.connections(), count.requests()), (1, 1), "{code}");
        }
    }
}

#[tokio::test]
async fn headers_without_end_are_cut_off() {
    let scene = Scene::new();
    let begin = frame(HEADERS, 0, FIRST, &[STATUS_200]);
    for (what, chunk) in [
        (
            "long ones",
            frame(CONTINUATION, 0, FIRST, &header(&[b'v'; 16_000])),
        ),
        (
            "short ones",
            frame(CONTINUATION, 0, FIRST, b"\0\x01x\x01y").repeat(1000),
        ),
        (
            "one of them, in parts",
            frame(CONTINUATION, 0, FIRST, b"\0\x01x\x7f\xff\xff\xff\x7f"),
        ),
        (
            "of no bytes",
            frame(CONTINUATION, 0, FIRST, &[]).repeat(1000),
        ),
    ] {
        let (address, count) = speaking(&scene.tls, begin.clone(), chunk, true);
        let transport = trusting(&scene.authority.certificate);
        let exchange = post(&transport, &format!("https://{address}/"), AMPLE).await;
        assert_eq!(
            failure(&exchange),
            Failure::Protocol,
            "{what}: {}",
            exchange.detail
        );
        count.cut_off(what).await;
    }
}

/// A body that does not keep to the window, and one of nothing but padding: the answer is there, no
/// more is kept than of any body, and what still comes goes with the connection at the latest.
#[tokio::test]
async fn bodies_without_end_leave_the_answer() {
    let scene = Scene::new();
    let begin = frame(HEADERS, END_HEADERS, FIRST, &[STATUS_200]);
    let padding = [&[255], &[0; 255][..]].concat();
    for (what, chunk, kept) in [
        (
            "beyond the window",
            frame(DATA, 0, FIRST, &[b'x'; 16_384]),
            RESPONSE_BYTES_MAX,
        ),
        ("of padding", frame(DATA, PADDED, FIRST, &padding), 0),
        ("of nothing", frame(DATA, 0, FIRST, &[]).repeat(500), 0),
    ] {
        let (address, count) = speaking(&scene.tls, begin.clone(), chunk, true);
        let transport = trusting(&scene.authority.certificate);
        let begun = Instant::now();
        let response = answer(post(&transport, &format!("https://{address}/"), AMPLE).await);
        assert_eq!((response.status, response.body_cut), (200, true), "{what}");
        assert_eq!(response.body.len(), kept, "{what}");
        assert!(begun.elapsed() < AMPLE / 2, "{what}");
        drop(transport);
        until(what, AMPLE, async || (count.ended() == 1).then_some(())).await;
        assert!(count.sent() < FLOOD_BYTES, "{what}");
    }
}

/// What wants an answer, from an endpoint that takes none: it is not read on, so that nothing
/// piles up but what the system holds, and the attempt ends with its time.
#[tokio::test]
async fn floods_that_want_answers_stop_where_nobody_takes_them() {
    let scene = Scene::new();
    let pings = frame(PING, 0, 0, &[7; 8]);
    let settings = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]);
    for (what, one) in [("pings", pings), ("settings", settings)] {
        let (address, count) = speaking(&scene.tls, Vec::new(), one.repeat(500), false);
        let transport = trusting(&scene.authority.certificate);
        let url = format!("https://{address}/");
        let begun = Instant::now();
        let exchange = post(&transport, &url, SHORT).await;
        assert_eq!(failure(&exchange), Failure::Timeout, "{what}");
        assert!(begun.elapsed() < SHORT + GRACE, "{what}");
        // The connection is kept for other requests.
        until(what, AMPLE, async || (count.stalled() > 0).then_some(())).await;
        let sent = count.sent();
        assert!(sent < ANSWERED_BYTES_MAX, "{what}: {sent} bytes");
    }
}

/// What is answered, passed over or unknown, from an endpoint that reads.
fn floods() -> [(&'static str, Vec<u8>); 7] {
    let small = [
        ("pings", frame(PING, 0, 0, &[7; 8])),
        ("answers to pings", frame(PING, ACK, 0, &[7; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9])),
        ("windows", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("priorities", frame(PRIORITY, 0, FIRST, &[0, 0, 0, 3, 1])),
        (
            "informational answers",
            frame(HEADERS, END_HEADERS, FIRST, b"\x08\x03103"),
        ),
        ("unknown frames", frame(0xbb, 0, 0, &[0; 100])),
    ];
    small.map(|(what, one)| (what, one.repeat(500)))
}

#[tokio::test]
async fn floods_that_are_read_end_with_the_attempt() {
    let scene = Scene::new();
    for (what, chunk) in floods() {
        let (address, count) = speaking(&scene.tls, Vec::new(), chunk, true);
        let transport = trusting(&scene.authority.certificate);
        let begun = Instant::now();
        let exchange = post(&transport, &format!("https://{address}/"), SHORT).await;
        assert_eq!(failure(&exchange), Failure::Timeout, "{what}");
        assert!(begun.elapsed() < SHORT + GRACE, "{what}");
        // The connection ends with the client at the latest.
        drop(transport);
        until(what, AMPLE, async || (count.ended() == 1).then_some(())).await;
        assert_eq!((count.connections(), count.requests()), (1, 1), "{what}");
    }
}

/// In a process of its own, as its memory is measured: nothing of them is kept.
#[test]
fn floods_that_are_read_take_no_memory() {
    match is_alone() {
        true => block_on(measure_floods()),
        false => alone("frames::floods_that_are_read_take_no_memory", |_| {}),
    }
}

async fn measure_floods() {
    let scene = Scene::new();
    // What the first request needs is there for all.
    let (exchange, _) = scene.once(frame(RST_STREAM, 0, FIRST, &[0; 4])).await;
    assert_eq!(failure(&exchange), Failure::Closed);
    let before = memory_bytes("VmRSS");
    for (what, chunk) in floods() {
        let (address, _) = speaking(&scene.tls, Vec::new(), chunk, true);
        let transport = trusting(&scene.authority.certificate);
        let exchange = post(&transport, &format!("https://{address}/"), FLOOD_TIME).await;
        assert_eq!(failure(&exchange), Failure::Timeout, "{what}");
        let growth = memory_bytes("VmHWM").saturating_sub(before);
        assert!(growth <= GROWTH_BYTES_MAX, "{what}: {growth} bytes");
    }
}
