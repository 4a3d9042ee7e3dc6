//! The transport against real sockets: endpoints that behave, and all the ways in which
//! they do not. Everything listens on loopback, which the rules permit where a test says
//! so; a test waits only as long as a limit that it set itself.

// A test that cannot go on is to end, in what it shares with others too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use carillon::adapters::https::{HttpsSettings, HttpsTransport};
use carillon::domain::address::{EgressRule, EgressRules};
use carillon::domain::attempt::{RESPONSE_BYTES_MAX, Response};
use carillon::domain::outcome::{Failure, TlsFailure};
use carillon::ports::{Exchange, Transport, WebhookRequest};
use rustls_pki_types::CertificateDer;
use tokio::io::AsyncWriteExt;
use url::Url;

use servers::{
    Authority, Reply, Untouched, answer_ok, answering, endpoint, flooding, http2_endpoint,
    name_server, read_request, self_signed, tls_endpoint,
};

/// Long enough for anything that works.
const AMPLE: Duration = Duration::from_secs(20);
/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(400);
/// A busy machine's excuse on top of a limit.
const GRACE: Duration = Duration::from_secs(4);

fn settings(allow: &[&str]) -> HttpsSettings {
    HttpsSettings {
        rules: EgressRules {
            allow: allow.iter().map(|net| net.parse().unwrap()).collect(),
            deny: Vec::new(),
        },
        connect_timeout: AMPLE,
        extra_roots: Vec::new(),
        name_servers: Some(Vec::new()),
    }
}

fn transport(settings: HttpsSettings) -> HttpsTransport {
    HttpsTransport::new(settings).unwrap()
}

/// May connect to loopback.
fn local() -> HttpsTransport {
    transport(settings(&["127.0.0.0/8"]))
}

fn trusting(root: &CertificateDer<'static>) -> HttpsTransport {
    transport(HttpsSettings {
        extra_roots: vec![root.clone()],
        ..settings(&["127.0.0.0/8"])
    })
}

fn asking(name_server: SocketAddr, allow: &[&str]) -> HttpsTransport {
    transport(HttpsSettings {
        name_servers: Some(vec![name_server]),
        ..settings(allow)
    })
}

async fn post(transport: &HttpsTransport, url: &str, timeout: Duration) -> Exchange {
    let request = WebhookRequest {
        url: Url::parse(url).unwrap(),
        headers: vec![
            ("content-type".to_owned(), "application/json".to_owned()),
            ("user-agent".to_owned(), "Carillon/test".to_owned()),
        ],
        body: Bytes::from_static(b"{}"),
        timeout,
    };
    transport.send(request).await
}

fn answer(exchange: Exchange) -> Response {
    assert_eq!(exchange.detail, "");
    exchange.result.unwrap()
}

/// The failure, whose sentence must be one line without the URL's query.
fn failure(exchange: &Exchange) -> Failure {
    let failure = exchange.result.as_ref().unwrap_err().clone();
    assert!(!exchange.detail.is_empty(), "{failure:?}");
    assert!(
        !exchange.detail.contains(['\n', '?']),
        "{}",
        exchange.detail
    );
    assert!(!exchange.detail.contains("s3cret"), "{}", exchange.detail);
    failure
}

fn blocked_by(exchange: &Exchange) -> EgressRule {
    match failure(exchange) {
        Failure::Blocked(refusal) => refusal.rule,
        other => panic!("{other:?}: {}", exchange.detail),
    }
}

#[tokio::test]
async fn an_answer_comes_back_whole() {
    let (sent, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let (address, _) = endpoint(move |mut stream, _| {
        let sent = sent.clone();
        async move {
            sent.send(read_request(&mut stream).await.unwrap()).unwrap();
            let answer = b"HTTP/1.1 202 Accepted\r\nX-Seen: yes\r\ncontent-length: 5\r\n\r\nhello";
            stream.write_all(answer).await.unwrap();
            read_request(&mut stream).await;
        }
    })
    .await;
    let exchange = post(&local(), &format!("http://{address}/in?k=s3cret"), AMPLE).await;
    let timing = exchange.timing;
    let response = answer(exchange);
    assert_eq!(response.status, 202);
    assert_eq!(response.body, "hello");
    assert!(!response.body_cut);
    assert!(response.headers.contains(&("x-seen".into(), "yes".into())));
    assert_eq!(timing.dns, None);
    assert!(timing.connect.unwrap() <= timing.first_byte.unwrap());
    assert!(timing.first_byte.unwrap() <= timing.total);

    let request = String::from_utf8(seen.recv().await.unwrap()).unwrap();
    assert!(
        request.starts_with("POST /in?k=s3cret HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(request.contains("\r\ncontent-type: application/json\r\n"));
    assert!(request.contains("\r\nuser-agent: Carillon/test\r\n"));
    assert!(!request.contains("accept-encoding"));
    assert!(!request.contains("referer"));
    assert!(request.ends_with("\r\n\r\n{}"));
}

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let (address, count) = answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let local = local();
    for number in 1..=50 {
        let exchange = post(&local, &format!("http://{address}/"), AMPLE).await;
        assert_eq!(exchange.timing.connect.is_some(), number == 1);
        assert_eq!(answer(exchange).body, "ok");
    }
    assert_eq!(count.connections(), 1);
}

#[tokio::test]
async fn no_answer_is_a_timeout() {
    let (address, _) = answering("").await;
    let begun = Instant::now();
    let exchange = post(&local(), &format!("http://{address}/?k=s3cret"), SHORT).await;
    assert_eq!(failure(&exchange), Failure::Timeout);
    assert!(exchange.detail.contains("400ms"), "{}", exchange.detail);
    assert!(begun.elapsed() >= SHORT && begun.elapsed() < SHORT + GRACE);
    assert!(exchange.timing.connect.is_some());
    assert_eq!(exchange.timing.first_byte, None);
}

#[tokio::test]
async fn a_status_line_that_drips_is_a_timeout() {
    let (address, _) = endpoint(|mut stream, _| async move {
        read_request(&mut stream).await;
        for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
    let begun = Instant::now();
    let exchange = post(&local(), &format!("http://{address}/"), SHORT).await;
    assert_eq!(failure(&exchange), Failure::Timeout);
    assert!(begun.elapsed() < SHORT + GRACE);
}

#[tokio::test]
async fn a_body_that_drips_leaves_the_answer() {
    let (address, _) = answering("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc").await;
    let url = format!("http://{address}/");
    let begun = Instant::now();
    let response = answer(post(&local(), &url, SHORT).await);
    assert_eq!((response.status, response.body_cut), (200, true));
    assert_eq!(response.body, "abc");
    assert!(begun.elapsed() < SHORT + GRACE);

    // Its own limit holds where the whole timeout is far.
    let begun = Instant::now();
    assert!(answer(post(&local(), &url, AMPLE).await).body_cut);
    assert!(begun.elapsed() < AMPLE / 2);
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_the_answer() {
    let (address, _) = endpoint(|mut stream, _| async move {
        read_request(&mut stream).await;
        let part = b"HTTP/1.1 500 Oops\r\ncontent-length: 9\r\n\r\nabc";
        stream.write_all(part).await.unwrap();
    })
    .await;
    let response = answer(post(&local(), &format!("http://{address}/"), AMPLE).await);
    assert_eq!((response.status, response.body_cut), (500, true));
    assert_eq!(response.body, "abc");
}

#[tokio::test]
async fn of_a_large_body_the_beginning_is_read() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n";
    let (address, count) = flooding(head, vec![b'x'; 64 * 1024]).await;
    let response = answer(post(&local(), &format!("http://{address}/"), AMPLE).await);
    assert_eq!(response.body.len(), RESPONSE_BYTES_MAX);
    assert!(response.body_cut);
    assert!(count.sent() < 20_000_000, "{}", count.sent());
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

#[tokio::test]
async fn a_compressed_body_is_left_as_it_is() {
    // The beginning of a gzip stream; what it would unpack to is nobody's business.
    let bomb = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xed, 0xc1, 1, 1];
    let mut text = format!(
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        bomb.len()
    )
    .into_bytes();
    text.extend(bomb);
    let (address, _) = answering(text).await;
    let response = answer(post(&local(), &format!("http://{address}/"), AMPLE).await);
    assert_eq!(response.body, bomb.as_slice());
    assert!(!response.body_cut);
}

#[tokio::test]
async fn a_connection_that_ends_is_closed() {
    let (at_once, _) = endpoint(|stream, _| async move { drop(stream) }).await;
    let (after_reading, _) = endpoint(|mut stream, _| async move {
        read_request(&mut stream).await;
    })
    .await;
    let (reset, _) = endpoint(|mut stream, _| async move {
        read_request(&mut stream).await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    let (in_the_head, _) = endpoint(|mut stream, _| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nx-a: ").await.unwrap();
    })
    .await;
    for address in [at_once, after_reading, reset, in_the_head] {
        let exchange = post(&local(), &format!("http://{address}/?k=s3cret"), AMPLE).await;
        assert_eq!(failure(&exchange), Failure::Closed, "{}", exchange.detail);
    }
}

#[tokio::test]
async fn what_is_not_http_is_a_protocol_error() {
    for text in [
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "\0\u{1}\u{2}\u{3}\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    ] {
        let (address, _) = answering(text).await;
        let exchange = post(&local(), &format!("http://{address}/"), AMPLE).await;
        assert_eq!(failure(&exchange), Failure::Protocol, "{text:?}");
    }
}

#[tokio::test]
async fn headers_without_end_are_a_protocol_error() {
    let line = format!("x-{}: {}\r\n", "n".repeat(1000), "v".repeat(64_000));
    for chunk in [
        line.into_bytes(),
        vec![b'x'; 64 * 1024],
        b"a: b\r\n".repeat(1000),
    ] {
        let (address, count) = flooding("HTTP/1.1 200 OK\r\n", chunk).await;
        let exchange = post(&local(), &format!("http://{address}/"), AMPLE).await;
        assert_eq!(failure(&exchange), Failure::Protocol);
        assert!(count.sent() < 20_000_000, "{}", count.sent());
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let elsewhere = Untouched::bind();
    for status in [301, 302, 307, 308] {
        let (address, count) = answering(format!(
            "HTTP/1.1 {status} Gone\r\nlocation: http://127.0.0.1:{}/\r\ncontent-length: 0\r\n\r\n",
            elsewhere.port()
        ))
        .await;
        let response = answer(post(&local(), &format!("http://{address}/"), AMPLE).await);
        assert_eq!(response.status, status);
        assert_eq!(count.connections(), 1);
    }
    elsewhere.assert();
}

/// The environment belongs to the process, so this test runs itself in another one that
/// was started with proxies in its environment.
#[test]
fn proxies_of_the_environment_are_not_used() {
    const INNER: &str = "CARILLON_TEST_INNER";
    if std::env::var_os(INNER).is_none() {
        let proxy = Untouched::bind();
        let url = format!("http://127.0.0.1:{}", proxy.port());
        let mut inner = std::process::Command::new(std::env::current_exe().unwrap());
        inner.args(["--exact", "proxies_of_the_environment_are_not_used"]);
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            inner.env(name, &url).env(name.to_lowercase(), &url);
        }
        inner.env_remove("NO_PROXY").env_remove("no_proxy");
        let output = inner.env(INNER, "1").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let ran = String::from_utf8_lossy(&output.stdout);
        assert!(ran.contains("1 passed"), "{ran}");
        return proxy.assert();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (address, _) = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        answer(post(&local(), &format!("http://{address}/"), AMPLE).await);
    });
}

#[tokio::test]
async fn addresses_in_the_url_are_blocked_in_every_spelling() {
    let inside = Untouched::bind();
    let port = inside.port();
    let default = transport(settings(&[]));
    for host in [
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "2130706433",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "localhost",
        "localhost.",
    ] {
        let exchange = post(&default, &format!("http://{host}:{port}/"), AMPLE).await;
        assert_eq!(blocked_by(&exchange), EgressRule::Loopback, "{host}");
        assert_eq!(exchange.timing.connect, None);
    }
    inside.assert();
}

#[tokio::test]
async fn a_denied_network_is_stronger_than_a_permitted_one() {
    let inside = Untouched::bind();
    let mut settings = settings(&["127.0.0.0/8"]);
    settings.rules.deny = vec!["127.0.0.1/32".parse().unwrap()];
    let url = format!("http://127.0.0.1:{}/", inside.port());
    let exchange = post(&transport(settings), &url, AMPLE).await;
    assert_eq!(blocked_by(&exchange), EgressRule::Denied);
    inside.assert();
}

fn addresses<const N: usize>(addresses: [&str; N]) -> Reply {
    let addresses = addresses.map(|address| address.parse::<IpAddr>().unwrap());
    Reply::Addresses(addresses.to_vec())
}

#[tokio::test]
async fn a_name_is_looked_up() {
    let (address, _) = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let server = name_server(|_| addresses(["127.0.0.1"])).await;
    let transport = asking(server, &["127.0.0.0/8"]);
    for host in ["hooks.example", "other.example.", "single"] {
        let exchange = post(
            &transport,
            &format!("http://{host}:{}/", address.port()),
            AMPLE,
        )
        .await;
        assert!(exchange.timing.dns.is_some(), "{host}");
        assert!(exchange.timing.connect.is_some(), "{host}");
        assert_eq!(answer(exchange).status, 200, "{host}");
    }
}

#[tokio::test]
async fn one_private_address_blocks_the_whole_name() {
    let inside = Untouched::bind();
    let url = format!("http://hooks.example:{}/", inside.port());
    let server = name_server(|_| addresses(["1.1.1.1", "127.0.0.1"])).await;
    let exchange = post(&asking(server, &[]), &url, AMPLE).await;
    assert_eq!(blocked_by(&exchange), EgressRule::Loopback);

    // Also where the other family hides it.
    let server = name_server(|_| addresses(["127.0.0.1", "fd00::1"])).await;
    let exchange = post(&asking(server, &["127.0.0.0/8"]), &url, AMPLE).await;
    assert_eq!(blocked_by(&exchange), EgressRule::Private);
    inside.assert();
}

#[tokio::test]
async fn a_name_that_changes_its_address_is_checked_again() {
    let (address, count) =
        answering("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    let server = name_server(|asked| match asked {
        1 => addresses(["127.0.0.1"]),
        _ => addresses(["169.254.169.254"]),
    })
    .await;
    let transport = asking(server, &["127.0.0.0/8"]);
    let url = format!("http://hooks.example:{}/", address.port());
    assert_eq!(answer(post(&transport, &url, AMPLE).await).status, 200);
    let exchange = post(&transport, &url, AMPLE).await;
    assert_eq!(blocked_by(&exchange), EgressRule::LinkLocal);
    assert_eq!(count.connections(), 1);
}

#[tokio::test]
async fn an_answer_is_kept_for_its_time_to_live() {
    let (address, _) =
        answering("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    let server = name_server(|asked| match asked {
        1 => Reply::Lasting(vec![IpAddr::from([127, 0, 0, 1])]),
        _ => Reply::Code(3),
    })
    .await;
    let transport = asking(server, &["127.0.0.0/8"]);
    let url = format!("http://hooks.example:{}/", address.port());
    for _ in 0..3 {
        assert_eq!(answer(post(&transport, &url, AMPLE).await).status, 200);
    }
}

#[tokio::test]
async fn names_fail_in_their_ways() {
    for (code, expected) in [(3, Failure::NameNotFound), (2, Failure::NameLookup)] {
        let server = name_server(move |_| Reply::Code(code)).await;
        let exchange = post(
            &asking(server, &[]),
            "https://hooks.example/?k=s3cret",
            AMPLE,
        )
        .await;
        assert_eq!(failure(&exchange), expected);
        assert!(exchange.detail.contains("hooks.example"));
    }
    let server = name_server(|_| addresses([])).await;
    let exchange = post(&asking(server, &[]), "https://hooks.example/", AMPLE).await;
    assert_eq!(failure(&exchange), Failure::NameNotFound);
}

#[tokio::test]
async fn a_silent_name_server_is_a_timeout_of_the_name() {
    let silent = name_server(|_| Reply::Silence).await;
    let within = |connect_timeout| HttpsSettings {
        connect_timeout,
        name_servers: Some(vec![silent]),
        ..settings(&[])
    };
    for (connect_timeout, timeout) in [(AMPLE, SHORT), (SHORT, AMPLE)] {
        let begun = Instant::now();
        let transport = transport(within(connect_timeout));
        let exchange = post(&transport, "https://hooks.example/", timeout).await;
        assert_eq!(failure(&exchange), Failure::NameTimeout);
        assert!(begun.elapsed() < SHORT + GRACE);
    }
}

#[tokio::test]
async fn nobody_listening_is_refused() {
    let closed = Untouched::bind().port();
    let exchange = post(
        &local(),
        &format!("http://127.0.0.1:{closed}/?k=s3cret"),
        AMPLE,
    )
    .await;
    assert_eq!(failure(&exchange), Failure::Refused);
}

#[tokio::test]
async fn a_handshake_without_answer_is_a_timeout_of_the_connection() {
    let (address, _) = endpoint(|mut stream, _| async move {
        read_request(&mut stream).await;
    })
    .await;
    let settings = HttpsSettings {
        connect_timeout: SHORT,
        ..settings(&["127.0.0.0/8"])
    };
    let begun = Instant::now();
    let exchange = post(&transport(settings), &format!("https://{address}/"), AMPLE).await;
    assert_eq!(failure(&exchange), Failure::ConnectTimeout);
    assert!(exchange.detail.contains("400ms"), "{}", exchange.detail);
    assert!(begun.elapsed() < SHORT + GRACE);
}

#[tokio::test]
async fn a_certificate_of_a_trusted_root_is_accepted() {
    let authority = Authority::new();
    let (address, _) = tls_endpoint(authority.tls("127.0.0.1", |_| {})).await;
    let exchange = post(
        &trusting(&authority.certificate),
        &format!("https://{address}/"),
        AMPLE,
    )
    .await;
    assert!(exchange.timing.connect.is_some());
    assert_eq!(answer(exchange).body, "ok");
}

#[tokio::test]
async fn certificates_are_refused_for_their_reasons() {
    let authority = Authority::new();
    let expired = authority.tls("127.0.0.1", |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 2, 1);
    });
    let early = authority.tls("127.0.0.1", |params| {
        params.not_before = rcgen::date_time_ymd(3000, 1, 1);
        params.not_after = rcgen::date_time_ymd(3001, 1, 1);
    });
    let wrong_name = authority.tls("hooks.example", |_| {});
    let own = self_signed(|_| {});
    // What `openssl req -x509` makes.
    let own_authority = self_signed(|params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    for (tls, expected) in [
        (expired, TlsFailure::Expired),
        (early, TlsFailure::Expired),
        (wrong_name, TlsFailure::WrongName),
        (own, TlsFailure::UnknownIssuer),
        (own_authority, TlsFailure::UnknownIssuer),
    ] {
        let (address, _) = tls_endpoint(tls).await;
        let url = format!("https://{address}/?k=s3cret");
        let exchange = post(&trusting(&authority.certificate), &url, AMPLE).await;
        assert_eq!(
            failure(&exchange),
            Failure::Tls(expected),
            "{}",
            exchange.detail
        );
    }
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_a_failed_handshake() {
    let (address, _) = endpoint(|mut stream, _| async move {
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        answer_ok(&mut stream).await;
    })
    .await;
    let exchange = post(&local(), &format!("https://{address}/"), AMPLE).await;
    assert_eq!(failure(&exchange), Failure::Tls(TlsFailure::Handshake));
}

#[tokio::test]
async fn http2_is_bounded_in_the_same_ways() {
    let authority = Authority::new();
    let (address, count) = http2_endpoint(authority.tls("127.0.0.1", |_| {})).await;
    let trusting = trusting(&authority.certificate);
    let url = |path: &str| format!("https://{address}{path}");

    let response = answer(post(&trusting, &url("/"), AMPLE).await);
    assert_eq!((response.status, response.body_cut), (200, false));
    assert_eq!(response.body, "ok");
    let response = answer(post(&trusting, &url("/flood"), AMPLE).await);
    assert_eq!(response.body.len(), RESPONSE_BYTES_MAX);
    assert!(response.body_cut);
    assert!(count.sent() < 1_000_000, "{}", count.sent());
    let exchange = post(&trusting, &url("/silence"), SHORT).await;
    assert_eq!(failure(&exchange), Failure::Timeout);
    // A stream that was given up does not cost the connection.
    assert_eq!(answer(post(&trusting, &url("/"), AMPLE).await).body, "ok");
    assert_eq!(count.connections(), 1);

    let exchange = post(&trusting, &url("/headers"), AMPLE).await;
    assert_eq!(failure(&exchange), Failure::Protocol);
    assert_eq!(answer(post(&trusting, &url("/"), AMPLE).await).body, "ok");
}

/// Servers for the transport's tests: endpoints, well-behaved and hostile, and a name
/// server. Each listens on a port of its own on loopback and ends with its test.
mod servers {
    use std::convert::Infallible;
    use std::io::ErrorKind;
    use std::net::{IpAddr, SocketAddr};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::body::Body;
    use bytes::Bytes;
    use futures_util::stream;
    use http::{Request, Response};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use hyper_util::server::conn::auto;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream, UdpSocket};
    use tokio_rustls::TlsAcceptor;

    /// An endpoint that counts its connections and the bytes it could send.
    #[derive(Clone, Default)]
    pub struct Count {
        pub connections: Arc<AtomicUsize>,
        pub sent: Arc<AtomicUsize>,
    }

    impl Count {
        pub fn connections(&self) -> usize {
            self.connections.load(Ordering::SeqCst)
        }

        pub fn sent(&self) -> usize {
            self.sent.load(Ordering::SeqCst)
        }
    }

    /// Listens, and has `serve` talk on each connection.
    pub async fn endpoint<S, F>(serve: S) -> (SocketAddr, Count)
    where
        S: Fn(TcpStream, Count) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let count = Count::default();
        let counted = count.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, counted.clone()));
            }
        });
        (address, count)
    }

    /// An endpoint that reads a request, writes `answer` and holds the connection open.
    pub async fn answering(answer: impl Into<Vec<u8>>) -> (SocketAddr, Count) {
        let answer: Arc<[u8]> = answer.into().into();
        endpoint(move |mut stream, _| {
            let answer = Arc::clone(&answer);
            async move {
                while read_request(&mut stream).await.is_some() {
                    if stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await
    }

    /// An endpoint that reads a request, writes `head`, and then `chunk` again and again
    /// until it has sent 100 MB or is cut off.
    pub async fn flooding(head: &'static str, chunk: Vec<u8>) -> (SocketAddr, Count) {
        let chunk: Arc<[u8]> = chunk.into();
        endpoint(move |mut stream, count| {
            let chunk = Arc::clone(&chunk);
            async move {
                read_request(&mut stream).await;
                let mut going = stream.write_all(head.as_bytes()).await.is_ok();
                while going && count.sent() < 100_000_000 {
                    going = stream.write_all(&chunk).await.is_ok();
                    count.sent.fetch_add(chunk.len(), Ordering::SeqCst);
                }
            }
        })
        .await
    }

    /// Reads one request with its body; `None` when the connection ends first.
    pub async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Vec<u8>> {
        let mut request = Vec::new();
        let head = loop {
            if let Some(at) = request.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            request.push(stream.read_u8().await.ok()?);
        };
        let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |value| value.trim().parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        request.extend_from_slice(&body);
        Some(request)
    }

    /// A listener that nobody is to connect to.
    pub struct Untouched(std::net::TcpListener);

    impl Untouched {
        pub fn bind() -> Self {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            Self(listener)
        }

        pub fn port(&self) -> u16 {
            self.0.local_addr().unwrap().port()
        }

        /// The system has accepted every connection that was made before this call.
        pub fn assert(&self) {
            let accepted = self.0.accept();
            let error = accepted.expect_err("somebody connected");
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
        }
    }

    /// What the name server says.
    pub enum Reply {
        /// These addresses, with a time to live of zero.
        Addresses(Vec<IpAddr>),
        /// These addresses, with a time to live of a minute.
        Lasting(Vec<IpAddr>),
        /// An error code: 2 is SERVFAIL, 3 is NXDOMAIN.
        Code(u8),
        /// Nothing.
        Silence,
    }

    /// A name server that answers the questions for A and AAAA records of any name:
    /// `reply` is asked with the number of A questions so far, from 1, and the addresses of
    /// the right family are sent.
    pub async fn name_server<R>(reply: R) -> SocketAddr
    where
        R: Fn(usize) -> Reply + Send + 'static,
    {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut asked = 0;
            let mut packet = [0; 1500];
            while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
                let question = question(&packet[..length]);
                asked += usize::from(question_type(question) == A);
                if let Some(answer) = answer(&packet, question, &reply(asked.max(1))) {
                    socket.send_to(&answer, peer).await.unwrap();
                }
            }
        });
        address
    }

    const A: u16 = 1;
    const HEADER_BYTES: u8 = 12;

    /// The question section (RFC 1035 section 4.1.2): labels, type, class.
    fn question(packet: &[u8]) -> &[u8] {
        let mut at = usize::from(HEADER_BYTES);
        while packet[at] != 0 {
            at += 1 + usize::from(packet[at]);
        }
        &packet[usize::from(HEADER_BYTES)..at + 5]
    }

    fn question_type(question: &[u8]) -> u16 {
        let at = question.len() - 4;
        u16::from_be_bytes([question[at], question[at + 1]])
    }

    fn answer(packet: &[u8], question: &[u8], reply: &Reply) -> Option<Vec<u8>> {
        let (code, addresses, ttl) = match reply {
            Reply::Addresses(addresses) => (0, addresses.as_slice(), 0),
            Reply::Lasting(addresses) => (0, addresses.as_slice(), 60),
            Reply::Code(code) => (*code, [].as_slice(), 0),
            Reply::Silence => return None,
        };
        let wanted: Vec<_> = addresses
            .iter()
            .filter(|address| address.is_ipv4() == (question_type(question) == A))
            .collect();
        let mut message = packet[..2].to_vec();
        // A response, recursion desired and available, one question.
        message.extend([
            0x81,
            0x80 | code,
            0,
            1,
            0,
            u8::try_from(wanted.len()).unwrap(),
        ]);
        message.extend([0; 4]);
        message.extend(question);
        for address in wanted {
            let bytes = match address {
                IpAddr::V4(v4) => v4.octets().to_vec(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            // The question's name, its type and class, the time to live.
            message.extend([0xc0, HEADER_BYTES]);
            message.extend(&question[question.len() - 4..]);
            message.extend([0, 0, 0, ttl, 0, u8::try_from(bytes.len()).unwrap()]);
            message.extend(bytes);
        }
        Some(message)
    }

    /// A certificate authority of the test's own.
    pub struct Authority {
        pub certificate: CertificateDer<'static>,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        pub fn new() -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            // Every certificate has one name by default, its issuer's included.
            let name = "the authority of this test";
            params.distinguished_name.push(DnType::CommonName, name);
            let certificate = params.self_signed(&key).unwrap().der().clone();
            Self {
                certificate,
                issuer: Issuer::new(params, key),
            }
        }

        /// TLS with a certificate for `name`, changed by `change`, that this authority signed.
        pub fn tls(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> TlsAcceptor {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new([name.to_owned()]).unwrap();
            change(&mut params);
            let certificate = params.signed_by(&key, &self.issuer).unwrap();
            acceptor(certificate.der().clone(), &key)
        }
    }

    /// TLS with a certificate for 127.0.0.1 that signed itself.
    pub fn self_signed(change: impl FnOnce(&mut CertificateParams)) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        change(&mut params);
        acceptor(params.self_signed(&key).unwrap().der().clone(), &key)
    }

    fn acceptor(certificate: CertificateDer<'static>, key: &KeyPair) -> TlsAcceptor {
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// An endpoint over TLS that answers every request with 200 and `ok`.
    pub async fn tls_endpoint(tls: TlsAcceptor) -> (SocketAddr, Count) {
        endpoint(move |stream, _| {
            let tls = tls.clone();
            async move {
                if let Ok(mut stream) = tls.accept(stream).await {
                    answer_ok(&mut stream).await;
                }
            }
        })
        .await
    }

    /// An endpoint that speaks HTTP/2 and does what the path says: `/flood` a body
    /// without end, `/headers` headers of 400 KB, `/silence` nothing, else 200 and `ok`.
    pub async fn http2_endpoint(tls: TlsAcceptor) -> (SocketAddr, Count) {
        let mut config = tls.config().as_ref().clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tls = TlsAcceptor::from(Arc::new(config));
        endpoint(move |stream, count| {
            let tls = tls.clone();
            async move {
                let stream = TokioIo::new(tls.accept(stream).await.unwrap());
                let service = service_fn(move |request: Request<Incoming>| {
                    http2_answer(request.uri().path().to_owned(), count.clone())
                });
                let server = auto::Builder::new(TokioExecutor::new());
                // How the client ends the connection is its business.
                let _ = server.serve_connection(stream, service).await;
            }
        })
        .await
    }

    async fn http2_answer(path: String, count: Count) -> Result<Response<Body>, Infallible> {
        let mut response = Response::new(Body::from("ok"));
        match path.as_str() {
            "/flood" => {
                let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
                let chunks = stream::repeat_with(move || {
                    count.sent.fetch_add(chunk.len(), Ordering::SeqCst);
                    Ok::<_, Infallible>(chunk.clone())
                });
                *response.body_mut() = Body::from_stream(chunks);
            }
            "/headers" => {
                for _ in 0..100 {
                    let value = "v".repeat(4000).parse().unwrap();
                    response.headers_mut().append("x-a", value);
                }
            }
            "/silence" => std::future::pending().await,
            _ => {}
        }
        Ok(response)
    }

    /// Answers every request with 200 and `ok`, keeping the connection.
    pub async fn answer_ok<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
        while read_request(stream).await.is_some() {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            if stream.write_all(answer).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    }
}
