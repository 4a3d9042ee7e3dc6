//! A proxy that breaks the network on request.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// One read.
const CHUNK_BYTES: usize = 16 * 1024;
/// How much may be on its way while there is a delay: 4 MiB each way.
const CHUNKS_MAX: usize = 256;
/// How many clients may wait to be accepted.
const BACKLOG: u32 = 1024;

/// How the proxy behaves now.
#[derive(Clone)]
struct Mood {
    accepting: bool,
    flowing: bool,
    delay: Duration,
}

/// The open connections: they end together.
#[derive(Clone, Default)]
struct Connections {
    end: CancellationToken,
    tracker: TaskTracker,
}

/// Passes TCP connections on to an address, until told otherwise; ends when dropped. Belongs to
/// the runtime that it was started on.
pub struct Proxy {
    addr: SocketAddr,
    mood: watch::Sender<Mood>,
    listening: watch::Receiver<bool>,
    connections: Arc<Mutex<Connections>>,
    accepting: JoinHandle<()>,
    /// Keeps the port ours while nothing listens on it.
    _reserved: TcpSocket,
}

impl Proxy {
    pub async fn start(target: SocketAddr) -> Self {
        let reserved = socket();
        reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = reserved.local_addr().unwrap();
        let (mood, moods) = watch::channel(Mood {
            accepting: true,
            flowing: true,
            delay: Duration::ZERO,
        });
        let (report, listening) = watch::channel(false);
        let connections = Arc::new(Mutex::new(Connections::default()));
        let serve = serve(addr, target, moods, report, Arc::clone(&connections));
        let proxy = Self {
            addr,
            mood,
            listening,
            connections,
            accepting: tokio::spawn(serve),
            _reserved: reserved,
        };
        proxy.accept().await;
        proxy
    }

    /// Where clients connect to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.connections.lock().unwrap().tracker.len()
    }

    /// Resets all open connections, at both ends; returns when they are closed.
    pub async fn cut(&self) {
        let cut = std::mem::take(&mut *self.connections.lock().unwrap());
        cut.end.cancel();
        cut.tracker.close();
        cut.tracker.wait().await;
    }

    /// Refuses new connections, as a server that is down does. Open ones stay.
    pub async fn refuse(&self) {
        self.mood.send_modify(|mood| mood.accepting = false);
        let mut listening = self.listening.clone();
        listening.wait_for(|listening| !listening).await.unwrap();
    }

    /// Ends [`Self::refuse`].
    pub async fn accept(&self) {
        self.mood.send_modify(|mood| mood.accepting = true);
        let mut listening = self.listening.clone();
        listening.wait_for(|listening| *listening).await.unwrap();
    }

    /// Keeps connections open, takes new ones, and passes nothing on.
    pub fn stall(&self) {
        self.mood.send_modify(|mood| mood.flowing = false);
    }

    /// Ends [`Self::stall`]: what was held back goes on, in order.
    pub fn flow(&self) {
        self.mood.send_modify(|mood| mood.flowing = true);
    }

    /// Has everything arrive this much later, each way.
    pub fn delay(&self, delay: Duration) {
        self.mood.send_modify(|mood| mood.delay = delay);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.connections.lock().unwrap().end.cancel();
    }
}

/// Several may be bound to one port; only the one that listens is connected to.
fn socket() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.set_reuseport(true).unwrap();
    socket
}

async fn serve(
    addr: SocketAddr,
    target: SocketAddr,
    mood: watch::Receiver<Mood>,
    report: watch::Sender<bool>,
    connections: Arc<Mutex<Connections>>,
) {
    let mut looking = mood.clone();
    loop {
        if looking.wait_for(|mood| mood.accepting).await.is_err() {
            return;
        }
        let socket = socket();
        socket.bind(addr).unwrap();
        let listener = socket.listen(BACKLOG).unwrap();
        report.send_replace(true);
        tokio::select! {
            () = accept_all(&listener, target, &mood, &connections) => {}
            _ = looking.wait_for(|mood| !mood.accepting) => {}
        }
        drop(listener);
        report.send_replace(false);
    }
}

async fn accept_all(
    listener: &TcpListener,
    target: SocketAddr,
    mood: &watch::Receiver<Mood>,
    connections: &Mutex<Connections>,
) {
    loop {
        if let Ok((client, _)) = listener.accept().await {
            // Under the lock: a cut sees each connection, or none of it.
            let open = connections.lock().unwrap();
            let carried = carry(client, target, mood.clone(), open.end.clone());
            open.tracker.spawn(carried);
        }
    }
}

/// Carries one connection to its end. What ends in disorder is reset at both ends.
async fn carry(
    mut client: TcpStream,
    target: SocketAddr,
    mood: watch::Receiver<Mood>,
    end: CancellationToken,
) {
    let connected = tokio::select! {
        connected = TcpStream::connect(target) => connected.ok(),
        () = end.cancelled() => None,
    };
    let Some(mut server) = connected else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let orderly = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            both = async { tokio::try_join!(
                pass(from_client, to_server, mood.clone()),
                pass(from_server, to_client, mood.clone()),
            ) } => both.is_ok(),
            () = end.cancelled() => false,
        }
    };
    if !orderly {
        let _ = client.set_zero_linger();
        let _ = server.set_zero_linger();
    }
}

/// Passes bytes one way until they end, and their end too.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mood: watch::Receiver<Mood>,
) -> io::Result<()> {
    let (sender, mut queue) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    let mut reading = mood.clone();
    let read = async move {
        loop {
            flowing(&mut reading).await?;
            let mut chunk = vec![0; CHUNK_BYTES];
            let count = from.read(&mut chunk).await?;
            chunk.truncate(count);
            let due = Instant::now() + reading.borrow().delay;
            let queued = sender.send((due, chunk)).await;
            if count == 0 || queued.is_err() {
                return Ok(());
            }
        }
    };
    let mut writing = mood;
    let write = async move {
        while let Some((due, chunk)) = queue.recv().await {
            sleep_until(due).await;
            flowing(&mut writing).await?;
            if chunk.is_empty() {
                return to.shutdown().await;
            }
            to.write_all(&chunk).await?;
        }
        Ok(())
    };
    tokio::try_join!(read, write).map(|_| ())
}

/// Waits until bytes may pass.
async fn flowing(mood: &mut watch::Receiver<Mood>) -> io::Result<()> {
    let flowing = mood.wait_for(|mood| mood.flowing).await;
    flowing.map(|_| ()).map_err(io::Error::other)
}
