//! A listening socket and the connections behind it, none of which may be slow for ever.
//!
//! A client that takes too long for the head of a request, or sends none, is let go; so it holds neither memory nor one of
//! the connections that there may be. How long a body may take is the business of who reads it. HTTP/1.1 only: to tell
//! versions apart one would have to wait for a client's first bytes, without a limit.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use crate::telemetry::events::not_accepted;

/// How long the head of a request may take, counted from the end of the one before: longer than
/// load balancers and clients keep an idle connection (60 to 90 s), as who sends a request into one
/// that is just being closed gets none.
pub const HEAD_WITHIN: Duration = Duration::from_secs(100);
/// Largest head, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most connections at once; more wait in the system's queue.
const CONNECTIONS_MAX: usize = 1024;
/// How long open connections may take to end their request.
const CONNECTIONS_GRACE: Duration = Duration::from_secs(5);
/// After an `accept` that failed for want of file handles: time for some to be freed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listening socket and the tasks that serve it.
pub struct Listener {
    /// Where it listens.
    pub addr: SocketAddr,
    connections: TaskTracker,
    signals: Signals,
}

#[derive(Clone)]
struct Signals {
    /// No new requests.
    stopping: CancellationToken,
    /// No waiting for those under way either.
    killed: CancellationToken,
}

impl Listener {
    /// Serves `router` on `listener`; a request's head may take `head_within`.
    ///
    /// # Errors
    /// When the socket cannot say where it listens.
    pub fn serve(
        listener: TcpListener,
        router: Router,
        head_within: Duration,
    ) -> std::io::Result<Self> {
        let addr = listener.local_addr()?;
        let connections = TaskTracker::new();
        let signals = Signals {
            stopping: CancellationToken::new(),
            killed: CancellationToken::new(),
        };
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(head_within)
            .max_buf_size(HEAD_BYTES_MAX);
        let accepting = accept(listener, router, http, signals.clone(), connections.clone());
        connections.spawn(accepting);
        Ok(Self {
            addr,
            connections,
            signals,
        })
    }

    /// Takes no more requests, and waits a while for those under way.
    pub async fn stop(self) {
        self.signals.stopping.cancel();
        self.connections.close();
        let ended = tokio::time::timeout(CONNECTIONS_GRACE, self.connections.wait());
        if ended.await.is_err() {
            self.signals.killed.cancel();
            self.connections.wait().await;
        }
    }
}

async fn accept(
    listener: TcpListener,
    router: Router,
    http: http1::Builder,
    signals: Signals,
    connections: TaskTracker,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let next = async || {
        // The semaphore is never closed.
        let place = Arc::clone(&room).acquire_owned().await.ok();
        (listener.accept().await, place)
    };
    loop {
        let (accepted, place) = tokio::select! {
            next = next() => next,
            () = signals.stopping.cancelled() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                not_accepted(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (router, http, signals) = (router.clone(), http.clone(), signals.clone());
        connections.spawn(async move {
            tokio::select! {
                () = converse(stream, peer, router, &http, &signals) => {}
                () = signals.killed.cancelled() => {}
            }
            drop(place);
        });
    }
}

async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    http: &http1::Builder,
    signals: &Signals,
) {
    // It only makes small answers faster.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().call(request)
    });
    let mut served = pin!(http.serve_connection(TokioIo::new(stream), service));
    // How a connection ends is the client's news.
    tokio::select! {
        _ = served.as_mut() => {}
        () = signals.stopping.cancelled() => {
            served.as_mut().graceful_shutdown();
            let _ = served.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn listener(head_within: Duration) -> Listener {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let router = Router::new().route("/", get(|| async { "here" }));
        Listener::serve(socket, router, head_within).unwrap()
    }

    /// What comes until the connection ends, after `sent`.
    async fn answered(listener: &Listener, sent: &[u8]) -> String {
        let mut stream = TcpStream::connect(listener.addr).await.unwrap();
        // Who is refused may be so before all is written.
        let _ = stream.write_all(sent).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn a_head_that_does_not_end_ends_its_connection() {
        let listener = listener(Duration::from_millis(50)).await;
        for sent in ["", "G", "GET / HTTP/1.1\r\nhost: x\r\nx-slow: a"] {
            let answer = answered(&listener, sent.as_bytes()).await;
            assert!(!answer.contains("here"), "{sent:?}: {answer}");
        }
        // So does one that asks for nothing more.
        let answer = answered(&listener, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(answer.ends_with("here"), "{answer}");
        listener.stop().await;
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_refused() {
        let listener = listener(HEAD_WITHIN).await;
        let name = |bytes| format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(bytes));
        let path = |bytes| format!("GET /{} HTTP/1.1\r\n\r\n", "p".repeat(bytes));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(10_000));
        let smuggled = "POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd";
        for (sent, statuses) in [
            (name(4 * HEAD_BYTES_MAX), &["431"][..]),
            (path(HEAD_BYTES_MAX), &["414", "431"]),
            (path(1 << 20), &["414", "431"]),
            (many, &["431"]),
            (smuggled.to_owned(), &["400"]),
            ("\0\u{1}nonsense\r\n\r\n".to_owned(), &["400"]),
        ] {
            let answer = answered(&listener, sent.as_bytes()).await;
            let is_it = |status: &&str| answer.starts_with(&format!("HTTP/1.1 {status}"));
            // A connection that is reset with unread bytes may lose its answer.
            assert!(answer.is_empty() || statuses.iter().any(is_it), "{answer}");
        }
        let fine = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        assert!(answered(&listener, fine).await.ends_with("here"));
        listener.stop().await;
    }

    #[tokio::test]
    async fn who_is_idle_does_not_hold_up_the_end() {
        let listener = listener(HEAD_WITHIN).await;
        let mut idle = TcpStream::connect(listener.addr).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut answer = [0; 12];
        idle.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        listener.stop().await;
        let mut rest = Vec::new();
        idle.read_to_end(&mut rest).await.unwrap();
        assert!(rest.ends_with(b"here"));
    }
}
