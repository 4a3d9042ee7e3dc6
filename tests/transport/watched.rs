//! Listeners that count whoever connects, to show that nobody does.
//!
//! Connections are accepted by a thread as they come and in the order in which they were made. So
//! once a connection of the test's own has been seen, every one before it has been, however short
//! it was. The listeners answer, so that the same test can show that they are reached when the
//! rules permit it: a count of zero is worth something only then.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// How long the test's own connection may take to be seen.
const SEEN_WITHIN: Duration = Duration::from_secs(20);

/// How long a connection may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// A listener that answers `ok` and counts.
pub struct Watched {
    address: SocketAddr,
    ledger: Mutex<Ledger>,
}

struct Ledger {
    /// Who connected; `None` for one who was gone before it was accepted.
    arrivals: Receiver<Option<SocketAddr>>,
    strangers: usize,
}

impl Watched {
    /// On 127.0.0.1 and a port of the system's choice.
    pub fn bind() -> Self {
        let [listener] = on_one_port(["127.0.0.1"]);
        Self::watch(listener)
    }

    /// On one port of 127.0.0.1 and 127.0.0.2: the first is for who may be reached.
    pub fn pair() -> (Self, Self) {
        let [first, second] = on_one_port(["127.0.0.1", "127.0.0.2"]);
        (Self::watch(first), Self::watch(second))
    }

    /// On 127.0.0.2, with nobody on the same port of 127.0.0.1 and 127.0.0.3.
    pub fn beside_nobody() -> Self {
        let [_, second, _] = on_one_port(["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
        Self::watch(second)
    }

    pub fn watch(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let (arrived, arrivals) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let peer = stream.as_ref().ok().and_then(|s| s.peer_addr().ok());
                if arrived.send(peer).is_err() {
                    // The test is over, and this was its last connection.
                    return;
                }
                if let Ok(stream) = stream {
                    // How the other side ends it is its business.
                    std::thread::spawn(move || drop(answer(stream)));
                }
            }
        });
        Self {
            address,
            ledger: Mutex::new(Ledger {
                arrivals,
                strangers: 0,
            }),
        }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections were made before this call.
    pub fn count(&self) -> usize {
        let mut ledger = self.ledger.lock().unwrap();
        let own = TcpStream::connect(self.address).unwrap();
        let own = Some(own.local_addr().unwrap());
        while ledger.arrivals.recv_timeout(SEEN_WITHIN).unwrap() != own {
            ledger.strangers += 1;
        }
        ledger.strangers
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Without its receiver the thread ends at the next connection.
        let (_, none) = channel();
        if let Ok(ledger) = self.ledger.get_mut() {
            ledger.arrivals = none;
        }
        drop(TcpStream::connect(self.address));
    }
}

/// Listeners on these addresses, all with the same port of the system's choice.
pub fn on_one_port<const N: usize>(addresses: [&str; N]) -> [TcpListener; N] {
    let addresses = addresses.map(|address| address.parse::<IpAddr>().unwrap());
    for _ in 0..100 {
        let mut port = 0;
        let listeners = addresses.map(|address| {
            let listener = TcpListener::bind((address, port)).ok()?;
            port = listener.local_addr().unwrap().port();
            Some(listener)
        });
        // Another test may have the port on one of the others.
        if listeners.iter().all(Option::is_some) {
            return listeners.map(Option::unwrap);
        }
    }
    panic!("no port is free on all of {addresses:?}");
}

/// Reads a request, whose body is `{}` unless it asks for a tunnel, and answers it.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    let (mut request, mut part) = (Vec::new(), [0; 4096]);
    let end = |request: &[u8]| match request.starts_with(b"CONNECT ") {
        true => request.ends_with(b"\r\n\r\n"),
        false => request.ends_with(b"\r\n\r\n{}"),
    };
    while !end(&request) {
        match stream.read(&mut part)? {
            0 => return Ok(()),
            length => request.extend_from_slice(&part[..length]),
        }
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")
}

/// What the other tests rest on: nobody slips past the count.
#[test]
fn a_connection_is_counted_however_short_it_was() {
    let watched = Watched::bind();
    assert_eq!(watched.count(), 0);
    for _ in 0..300 {
        drop(TcpStream::connect(watched.address).unwrap());
    }
    assert_eq!(watched.count(), 300);
    // Also one that is reset before anyone can look at it.
    for _ in 0..100 {
        let stream = TcpStream::connect(watched.address).unwrap();
        let stream = runtime().block_on(async {
            stream.set_nonblocking(true).unwrap();
            tokio::net::TcpStream::from_std(stream).unwrap()
        });
        stream.set_zero_linger().unwrap();
    }
    assert_eq!(watched.count(), 400);
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}
