//! Hostile endpoints beside a healthy one: each ends in its outcome in time, none holds up
//! the healthy one, and none chooses how much memory this process takes. A test binary of
//! its own, as it measures the memory of its process: keep it to one test.

// A test that cannot go on is to end, in what it shares with others too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod dispatcher {
    #[allow(
        dead_code,
        reason = "shared with `tests/embedded.rs`, which uses all of it"
    )]
    pub mod harness;
    #[allow(
        dead_code,
        reason = "shared with `tests/embedded.rs`, which uses all of it"
    )]
    pub mod hooks;
}

#[path = "support/memory.rs"]
mod memory;

mod backend {
    use carillon::config::Config;
    use carillon::ports::Parcel;

    /// A file, which is in the folder of the test already.
    pub struct Place;

    impl Place {
        /// Nothing is needed.
        pub fn new() -> Self {
            Self
        }

        pub const SETTLED_LOOKS: u32 = 1;

        pub async fn prepare(&mut self, _config: &mut Config) {}

        pub async fn put(&self, _config: &Config, _parcels: Vec<Parcel>) {}
    }
}

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use dispatcher::harness::{Api, Dispatcher, events, ms};
use dispatcher::hooks::{Hooks, event_ids};
use memory::memory_bytes;

/// Events, each for every endpoint.
const EVENTS: usize = 12;
/// How long an attempt may take where no answer comes.
const SHORT: Duration = Duration::from_millis(600);
/// How long an attempt may take where an answer comes at once, on a busy machine too.
const AMPLE: Duration = Duration::from_secs(15);
/// What a busy machine may add.
const EXCUSE: Duration = Duration::from_secs(2);
/// What the process may grow by, receivers and records included. One answer read whole
/// would break it.
const GROWTH_BYTES_MAX: u64 = 48 * 1024 * 1024;
/// How much the endpoint that floods sends for each request.
const FLOOD_BYTES: usize = 100 * 1024 * 1024;

/// How an endpoint misbehaves, once it has read a request's beginning.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Silent,
    DripsHead,
    DripsBody,
    Floods,
    FloodsHead,
    Bomb,
    Closes,
    Babbles,
}

/// Each with the limit of its attempts, its outcome and its reason.
const KINDS: &[(Kind, Duration, &str, Option<&str>)] = &[
    (Kind::Silent, SHORT, "failed", Some("timeout")),
    (Kind::DripsHead, SHORT, "failed", Some("timeout")),
    // The status is there: the rest of the answer is for the record only.
    (Kind::DripsBody, AMPLE, "delivered", None),
    (Kind::Floods, AMPLE, "delivered", None),
    (Kind::FloodsHead, AMPLE, "failed", Some("protocol_error")),
    (Kind::Bomb, AMPLE, "delivered", None),
    (Kind::Closes, AMPLE, "failed", Some("connection_closed")),
    (Kind::Babbles, AMPLE, "failed", Some("protocol_error")),
];

/// Listens, and misbehaves on every connection.
async fn hostile(kind: Kind) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // How it ends is the client's doing.
            tokio::spawn(async move { misbehave(kind, stream).await.ok() });
        }
    });
    address
}

async fn misbehave(kind: Kind, mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = [0; 64 * 1024];
    let _ = stream.read(&mut request).await?;
    match kind {
        Kind::Silent => drain(&mut stream).await,
        Kind::Closes => Ok(()),
        Kind::Babbles => stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await,
        Kind::DripsHead => drip(&mut stream, b"HTTP/1.1 200 OK\r\nx-slow: ").await,
        Kind::DripsBody => {
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
            stream.write_all(head).await?;
            drip(&mut stream, b"body").await
        }
        Kind::Floods => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {FLOOD_BYTES}\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            flood(&mut stream, &[b'x'; 64 * 1024]).await
        }
        Kind::FloodsHead => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nx-long: ").await?;
            flood(&mut stream, &[b'x'; 64 * 1024]).await
        }
        Kind::Bomb => {
            let bomb = gzip_bomb();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
                bomb.len()
            );
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&bomb).await?;
            drain(&mut stream).await
        }
    }
}

/// Reads until the client is gone.
async fn drain(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut rest = [0; 4096];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// Sends `start`, then one byte a second.
async fn drip(stream: &mut TcpStream, start: &[u8]) -> std::io::Result<()> {
    stream.write_all(start).await?;
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    loop {
        seconds.tick().await;
        stream.write_all(b"x").await?;
    }
}

async fn flood(stream: &mut TcpStream, piece: &[u8]) -> std::io::Result<()> {
    for _ in 0..FLOOD_BYTES / piece.len() {
        stream.write_all(piece).await?;
    }
    drain(stream).await
}

/// A valid beginning of a gzip stream (RFC 1952) of zeros without end: 200 KiB that unpack
/// to 32 MiB. After the first zero each code says "258 times the byte before" (RFC 1951,
/// fixed codes: 285 is `11000101`, the distance 1 is `00000`).
fn gzip_bomb() -> Vec<u8> {
    let mut bits: Vec<bool> = Vec::new();
    let mut push = |code: &str| bits.extend(code.bytes().map(|bit| bit == b'1'));
    push("110"); // The last block, with fixed codes: the bits of `01`, lowest first.
    push("00110000");
    for _ in 0..130_000 {
        push("1100010100000");
    }
    let mut bomb = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let byte = |bits: &[bool]| {
        bits.iter()
            .rev()
            .fold(0, |byte, bit| byte << 1 | u8::from(*bit))
    };
    bomb.extend(bits.chunks(8).map(byte));
    bomb
}

/// Subscribes every hostile endpoint; returns their subscriptions' ids.
async fn subscribe_all(api: &Api) -> Vec<String> {
    let mut ids = Vec::new();
    for (kind, limit, ..) in KINDS {
        let url = format!("http://{}/", hostile(*kind).await);
        let limit = u64::try_from(limit.as_millis()).unwrap();
        let more = json!({ "timeout_ms": limit, "retry": { "max_attempts": 1 } });
        ids.push(api.subscribe(&url, more).await.id);
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_endpoints_harm_nobody_but_themselves() {
    let hooks = Hooks::start().await;
    let carillon = Dispatcher::with(|config| config.delivery.endpoint_max_in_flight = 2).await;
    let api = &carillon.api;
    let ids = subscribe_all(api).await;
    let healthy = api.subscribe(&hooks.url("healthy"), json!({})).await;
    // Everything that is loaded once is there before the measurement.
    let test = format!("{}/test", healthy.path());
    assert_eq!(
        api.post(&test, &json!({})).await.expect(200)["outcome"],
        "delivered"
    );
    let before = memory_bytes("VmRSS");

    api.publish(&events(EVENTS)).await;
    let seen = hooks.arrived("healthy", EVENTS + 1).await;
    let silent = format!("/v1/attempts?subscription={}", ids[0]);
    assert!(
        api.items(&silent).await.len() < EVENTS,
        "the healthy one does not wait for others"
    );
    assert_eq!(event_ids(&seen[1..]).len(), EVENTS);

    api.settled().await;
    for (expected, id) in KINDS.iter().zip(&ids) {
        let path = format!("/v1/attempts?subscription={id}");
        for attempt in api.items_when(&path, EVENTS).await {
            assert_outcome(expected, &attempt);
        }
    }
    if cfg!(target_os = "linux") {
        let growth = memory_bytes("VmHWM").saturating_sub(before);
        assert!(growth < GROWTH_BYTES_MAX, "{} MiB", growth / 1024 / 1024);
    }
    assert_eq!(hooks.seen("healthy").len(), EVENTS + 1);
    let (_, ended) = carillon.stop().await;
    assert!(ended);
}

fn assert_outcome(expected: &(Kind, Duration, &str, Option<&str>), attempt: &Value) {
    let (kind, limit, outcome, reason) = expected;
    let timing = &attempt["timing"];
    let told = format!("{kind:?}: {} {timing}", attempt["detail"]);
    assert_eq!(attempt["outcome"], *outcome, "{told}");
    assert_eq!(attempt["reason"].as_str(), *reason, "{told}");
    assert_eq!(attempt["attempt"], 1, "{told}");
    let total = ms(timing["total_ms"].as_u64().unwrap());
    assert!(total < *limit + EXCUSE, "{told}");
    assert!(total >= *limit || *limit == AMPLE, "{told}");
    if *outcome == "delivered" {
        let response = &attempt["response"];
        assert_eq!(response["status"], 200, "{told}");
        assert_eq!(response["body_cut"], true, "{told}");
        let kept = response["body"].as_str().unwrap();
        assert!(kept.chars().count() <= 16 * 1024, "{told}");
    }
}
