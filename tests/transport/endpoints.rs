//! Endpoints, well-behaved and hostile. Each listens on a port of its own on loopback and
//! ends with its test.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
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

/// Answers every request with 200 and `ok`, keeping the connection.
pub async fn answer_ok<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    while read_request(stream).await.is_some() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        if stream.write_all(answer).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}
