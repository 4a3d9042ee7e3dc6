//! A webhook receiver to embed: for `listen`, the demo, tests and benches.
//!
//! Takes requests over HTTP/1.1 and HTTP/2, plain or with TLS, checks signatures when it
//! has keys, answers as its [`Behaviour`] says, and shows each request to an observer.
//! Without keys and observer it is a sink that costs little more than reading requests.
//! *Invariant: a connection that is slow or stuck holds up no other.*

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::args::now;
use crate::domain::signature::VerificationKey;
use crate::domain::timestamp::UnixMillis;

mod counts;
mod tls;
mod verdict;

pub use counts::Counts;
pub use tls::TlsIdentity;
pub use verdict::{Verdicts, signed_headers};

use counts::{Counters, InFlight};

/// A client that has not finished its handshake by then is let go.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long [`Receiver::stop`] waits for requests under way.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// After an `accept` that failed for want of file handles: time for some to be freed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How a receiver is set up.
#[derive(Clone)]
pub struct ReceiverSettings {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Serves HTTPS with it.
    pub tls: Option<TlsIdentity>,
    /// What signatures are checked with; none: they are not checked.
    pub keys: Vec<VerificationKey>,
    /// How far a signature's timestamp may be from the clock, in seconds.
    pub tolerance_s: u64,
    /// How requests are answered.
    pub behaviour: Behaviour,
    /// Is shown every request, with its answer, before the answer is sent.
    pub observer: Option<Observer>,
    /// A larger body is answered with 413 and not shown.
    pub body_bytes_max: usize,
}

impl Default for ReceiverSettings {
    /// A free port of the loopback interface, plain HTTP, no checks, 200 to everything.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            keys: Vec::new(),
            tolerance_s: 300,
            behaviour: Behaviour::default(),
            observer: None,
            body_bytes_max: 16 * 1024 * 1024,
        }
    }
}

/// Is shown every request and its answer. Runs on the connection's task: it must return
/// soon.
pub type Observer = Arc<dyn Fn(Received, &Reply) + Send + Sync>;

/// An observer that puts every request into a channel. The channel has no bound: for
/// tests and demonstrations.
pub fn channel() -> (Observer, mpsc::UnboundedReceiver<Received>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    // Nobody listening any more is no reason to stop answering.
    let observer: Observer = Arc::new(move |received, _: &Reply| drop(sender.send(received)));
    (observer, receiver)
}

/// How requests are answered.
#[derive(Clone)]
pub enum Behaviour {
    /// Always alike.
    Steady {
        /// With this status.
        status: StatusCode,
        /// After so long.
        delay: Duration,
        /// Instead with 500, by chance: 0 never, 1 always.
        fail_rate: f64,
    },
    /// As this says; paths are routed here too.
    Scripted(Arc<dyn Fn(&Received) -> Reply + Send + Sync>),
}

impl Default for Behaviour {
    fn default() -> Self {
        Self::status(StatusCode::OK)
    }
}

impl Behaviour {
    /// Answers everything with `status`, at once.
    pub fn status(status: StatusCode) -> Self {
        Self::Steady {
            status,
            delay: Duration::ZERO,
            fail_rate: 0.0,
        }
    }

    /// Answers as `script` says.
    pub fn scripted(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::Scripted(Arc::new(script))
    }

    fn reply(&self, received: &Received) -> Reply {
        match self {
            Self::Scripted(script) => script(received),
            Self::Steady {
                status,
                delay,
                fail_rate,
            } => {
                let fails = *fail_rate > 0.0 && fastrand::f64() < *fail_rate;
                let status = match fails {
                    true => StatusCode::INTERNAL_SERVER_ERROR,
                    false => *status,
                };
                Reply::status(status).after(*delay)
            }
        }
    }
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// Headers besides those of the connection.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// How long to wait before answering.
    pub delay: Duration,
}

impl Reply {
    /// An empty answer with `status`, at once.
    pub fn status(status: StatusCode) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// The same answer, after `delay`.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }
}

/// A request that came in.
#[derive(Clone, Debug)]
pub struct Received {
    /// When its body was complete.
    pub at: UnixMillis,
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// What checking the signatures gave.
    pub verdicts: Verdicts,
    /// Which connection it came on, counted from 1.
    pub connection: u64,
}

impl Received {
    /// The text of a header; `None` when it is absent or no text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A running receiver; dropped, it stops at once.
#[must_use = "a dropped receiver stops"]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    connections: TaskTracker,
}

struct Shared {
    settings: ReceiverSettings,
    counters: Counters,
    /// No new requests.
    stopping: CancellationToken,
    /// No waiting for those under way either.
    killed: CancellationToken,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiver({})", self.url())
    }
}

impl Receiver {
    /// Listens and serves until it is stopped or dropped.
    ///
    /// # Errors
    /// When the address cannot be listened on, or the TLS identity is not usable.
    pub async fn start(settings: ReceiverSettings) -> io::Result<Self> {
        let acceptor = match &settings.tls {
            Some(identity) => Some(identity.acceptor()?),
            None => None,
        };
        let listener = TcpListener::bind(settings.listen).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            settings,
            counters: Counters::default(),
            stopping: CancellationToken::new(),
            killed: CancellationToken::new(),
        });
        let connections = TaskTracker::new();
        connections.spawn(accept(
            listener,
            acceptor,
            Arc::clone(&shared),
            connections.clone(),
        ));
        Ok(Self {
            address,
            shared,
            connections,
        })
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, without a path: `http://127.0.0.1:9000`.
    pub fn url(&self) -> String {
        let scheme = match self.shared.settings.tls {
            Some(_) => "https",
            None => "http",
        };
        format!("{scheme}://{}", self.address)
    }

    /// What it has counted so far.
    pub fn counts(&self) -> Counts {
        self.shared.counters.read()
    }

    /// Stops listening, finishes what is under way (at most five seconds), and says what
    /// was counted.
    pub async fn stop(self) -> Counts {
        self.shared.stopping.cancel();
        self.connections.close();
        if tokio::time::timeout(STOP_GRACE, self.connections.wait())
            .await
            .is_err()
        {
            self.shared.killed.cancel();
            self.connections.wait().await;
        }
        self.counts()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.stopping.cancel();
        self.shared.killed.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    connections: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stopping.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let connection = shared.counters.connections.fetch_add(1, Relaxed) + 1;
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            tokio::select! {
                () = connect(stream, acceptor, &shared, connection) => {}
                () = shared.killed.cancelled() => {}
            }
        });
    }
}

async fn connect(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    shared: &Arc<Shared>,
    connection: u64,
) {
    // It only makes small answers faster.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = acceptor else {
        return serve(stream, shared, connection).await;
    };
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        () = shared.stopping.cancelled() => return,
    };
    // A client that does not trust the certificate is the client's news.
    if let Ok(Ok(stream)) = shaken {
        serve(stream, shared, connection).await;
    }
}

async fn serve<S>(stream: S, shared: &Arc<Shared>, connection: u64)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| {
        let shared = Arc::clone(shared);
        async move { Ok::<_, Infallible>(shared.answer(request, connection).await) }
    });
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http2().max_concurrent_streams(1000);
    let mut served = pin!(http.serve_connection(TokioIo::new(stream), service));
    // How a connection ends is the client's news.
    tokio::select! {
        _ = served.as_mut() => {}
        () = shared.stopping.cancelled() => {
            served.as_mut().graceful_shutdown();
            let _ = served.await;
        }
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>, connection: u64) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let Ok(body) = to_bytes(Body::new(body), self.settings.body_bytes_max).await else {
            let mut refused = Response::new(Body::empty());
            *refused.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            return refused;
        };
        let _in_flight = InFlight::enter(&self.counters);
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut received = Received {
            at: now(),
            method: parts.method,
            path: path.to_owned(),
            headers: parts.headers,
            body,
            verdicts: Verdicts::default(),
            connection,
        };
        received.verdicts = self.check(&received);
        let reply = self.settings.behaviour.reply(&received);
        self.counters.count(&received, &reply);
        if let Some(observer) = &self.settings.observer {
            observer(received, &reply);
        }
        if !reply.delay.is_zero() {
            tokio::time::sleep(reply.delay).await;
        }
        let mut response = Response::new(Body::from(reply.body));
        *response.status_mut() = reply.status;
        *response.headers_mut() = reply.headers;
        response
    }

    fn check(&self, received: &Received) -> Verdicts {
        let ReceiverSettings {
            keys, tolerance_s, ..
        } = &self.settings;
        if keys.is_empty() {
            return Verdicts::default();
        }
        let headers = signed_headers(&received.headers);
        Verdicts::check(keys, &headers, &received.body, received.at, *tolerance_s)
    }
}
