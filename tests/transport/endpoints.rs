//! Endpoints, well-behaved and hostile. Each listens on a port of its own on loopback and
//! ends with its test.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::harness::AMPLE;
use crate::until::until;
use crate::watched::on_one_port;

/// How much of what is sent and received may wait in an endpoint's system.
const SYSTEM_BUFFER_BYTES: u32 = 16 * 1024;

/// How long a flood waits until it says that it does.
const STALL: Duration = Duration::from_secs(1);

/// When a flood ends by itself.
pub const FLOOD_BYTES: usize = 100_000_000;

/// What an endpoint may send before it is cut off, what waits in the system included.
const TAKEN_BYTES_MAX: usize = 2 * 1024 * 1024;

/// What an endpoint counts: connections, requests, and the bytes it could send.
#[derive(Clone, Default)]
pub struct Count {
    pub connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    pub sent: Arc<AtomicUsize>,
    stalled: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

impl Count {
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// There was one more request.
    pub fn request(&self) {
        self.requests.fetch_add(1, Ordering::SeqCst);
    }

    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }

    /// How often a flood had to wait for long.
    pub fn stalled(&self) -> usize {
        self.stalled.load(Ordering::SeqCst)
    }

    /// Floods that were cut off.
    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }

    /// Waits until the flood was cut off, and looks how much was taken of it.
    pub async fn cut_off(&self, what: &str) {
        until(what, AMPLE, async || (self.ended() == 1).then_some(())).await;
        let sent = self.sent();
        assert!(sent <= TAKEN_BYTES_MAX, "{what}: {sent} bytes");
    }

    /// Writes `head`, then `chunk` again and again, until it is cut off or has sent enough.
    pub async fn flood<S>(&self, stream: &mut S, head: &[u8], chunk: &[u8])
    where
        S: AsyncWrite + Unpin,
    {
        let mut part = head;
        while self.sent() < FLOOD_BYTES {
            let mut written = pin!(async {
                stream.write_all(part).await?;
                stream.flush().await
            });
            let written = match timeout(STALL, &mut written).await {
                Ok(written) => written,
                Err(_) => {
                    self.stalled.fetch_add(1, Ordering::SeqCst);
                    written.await
                }
            };
            if written.is_err() {
                self.ended.fetch_add(1, Ordering::SeqCst);
                return;
            }
            self.sent.fetch_add(part.len(), Ordering::SeqCst);
            part = chunk;
        }
    }
}

/// Listens, and has `serve` talk on each connection.
pub async fn endpoint<S, F>(serve: S) -> (SocketAddr, Count)
where
    S: Fn(TcpStream, Count) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let [listener] = on_one_port(["127.0.0.1"]);
    endpoint_on(listener, serve)
}

/// The same, where `listener` listens.
pub fn endpoint_on<S, F>(listener: std::net::TcpListener, serve: S) -> (SocketAddr, Count)
where
    S: Fn(TcpStream, Count) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
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
    endpoint(move |mut stream, count| {
        let answer = Arc::clone(&answer);
        async move {
            while read_request(&mut stream).await.is_some() {
                count.request();
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

/// An endpoint that reads a request, writes `head`, and then `chunk` again and again
/// until it has sent 100 MB or is cut off. What it counts as sent is, but for a few kilobytes,
/// what the other side's system has taken.
pub async fn flooding(head: impl Into<Vec<u8>>, chunk: Vec<u8>) -> (SocketAddr, Count) {
    let (head, chunk): (Arc<[u8]>, Arc<[u8]>) = (head.into().into(), chunk.into());
    let listener = with_small_buffers();
    endpoint_on(listener, move |mut stream, count| {
        let (head, chunk) = (Arc::clone(&head), Arc::clone(&chunk));
        async move {
            read_request(&mut stream).await;
            count.flood(&mut stream, &head, &chunk).await;
        }
    })
}

/// A listener whose connections hold little that the other side has not taken yet.
pub fn with_small_buffers() -> std::net::TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(SYSTEM_BUFFER_BYTES).unwrap();
    socket.set_recv_buffer_size(SYSTEM_BUFFER_BYTES).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket.listen(16).unwrap().into_std().unwrap()
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

/// An endpoint over TLS that answers every request with 200 and `ok`.
pub async fn tls_endpoint(tls: TlsAcceptor) -> (SocketAddr, Count) {
    endpoint(move |stream, count| {
        let tls = tls.clone();
        async move {
            if let Ok(mut stream) = tls.accept(stream).await {
                answer_ok(&mut stream, &count).await;
            }
        }
    })
    .await
}

/// Answers every request with 200 and `ok`, keeping the connection.
pub async fn answer_ok<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, count: &Count) {
    while read_request(stream).await.is_some() {
        count.request();
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        if stream.write_all(answer).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}
