//! Links: one supervised connection each, begun again for ever.
//!
//! Consuming and publishing have a connection of their own: RabbitMQ, when it is short of
//! memory, stops reading from connections that publish, and with them their acks.

use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder as _;
use futures_util::StreamExt as _;
use lapin::tcp::OwnedTLSConfig;
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties, Event};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::watch;

use super::RabbitError;

/// How long one try to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often both sides say that they live, in seconds, unless the URL says.
const HEARTBEAT_SECS: u16 = 10;
/// How often a connection is looked at that says nothing.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a connection may take to close in order.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Where RabbitMQ is, and how to talk to it.
#[derive(Clone)]
pub(super) struct Address {
    urls: Vec<SecretString>,
    tls: OwnedTLSConfig,
}

/// A connection that is there or is being made.
pub(super) struct Link {
    name: &'static str,
    address: Address,
    current: watch::Sender<State>,
}

/// How a link is.
#[derive(Clone)]
pub(super) enum State {
    /// It is open.
    Up(Arc<Connection>),
    /// It is not, and why.
    Down(String),
}

/// What happens to an open connection.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// RabbitMQ holds publishing, because of this.
    Blocked(String),
    /// It takes messages again.
    Unblocked,
}

impl Address {
    pub(super) fn new(
        urls: Vec<SecretString>,
        ca_pem: Option<String>,
    ) -> Result<Self, RabbitError> {
        for url in &urls {
            parse(url)?;
        }
        let tls = OwnedTLSConfig {
            identity: None,
            cert_chain: ca_pem,
        };
        Ok(Self { urls, tls })
    }

    /// Connects to the node with this number, counted around.
    pub(super) async fn connect(&self, node: usize, name: &str) -> Result<Connection, String> {
        let uri = parse(&self.urls[node % self.urls.len()]).map_err(|error| error.to_string())?;
        let place = format!("{}:{}", uri.authority.host, uri.authority.port);
        let properties =
            ConnectionProperties::default().with_connection_name(format!("carillon {name}").into());
        let runtime = lapin::runtime::default_runtime().map_err(|error| error.to_string())?;
        let tls = self.tls.clone();
        let connecting = Connection::connect_uri_with_config(uri, properties, tls, runtime);
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(format!("{place}: {}", explained(&error))),
            Err(_) => Err(format!("{place}: no answer in {CONNECT_TIMEOUT:?}")),
        }
    }
}

fn parse(url: &SecretString) -> Result<AMQPUri, RabbitError> {
    let mut uri: AMQPUri = url
        .expose_secret()
        .parse()
        .map_err(|error: String| RabbitError::Url(error))?;
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECS);
    Ok(uri)
}

/// What RabbitMQ or the network said, with what to do where that is known.
fn explained(error: &lapin::Error) -> String {
    let text = error.to_string();
    if text.contains("ACCESS_REFUSED") || text.contains("ACCESS-REFUSED") {
        format!("{text}: check the user and the password in `broker.url`")
    } else if text.contains("NOT_ALLOWED") || text.contains("NOT-ALLOWED") {
        format!("{text}: check the virtual host in `broker.url`, and the user's permissions for it")
    } else if text.contains("certificate") {
        format!("{text}: name the file of the authority that signed it in `broker.ca_file`")
    } else {
        text
    }
}

impl Link {
    pub(super) fn new(name: &'static str, address: Address) -> Self {
        let down = State::Down("not connected yet".to_owned());
        Self {
            name,
            address,
            current: watch::Sender::new(down),
        }
    }

    /// The connection, or why there is none.
    pub(super) fn connection(&self) -> Result<Arc<Connection>, String> {
        match &*self.current.borrow() {
            State::Up(connection) if connection.status().connected() => Ok(Arc::clone(connection)),
            State::Up(_) => Err("the connection was just lost".to_owned()),
            State::Down(why) => Err(why.clone()),
        }
    }

    /// Tells of each change.
    pub(super) fn watch(&self) -> watch::Receiver<State> {
        self.current.subscribe()
    }

    /// Says that it is open, or why not.
    pub(super) fn set(&self, state: State) {
        self.current.send_replace(state);
    }

    /// Connects to one node after the other until one answers. `tell` hears of each failure.
    pub(super) async fn connect(&self, tell: impl Fn(&str)) -> Arc<Connection> {
        let mut delays = patience().build();
        let mut node = fastrand::usize(..self.address.urls.len());
        loop {
            match self.address.connect(node, self.name).await {
                Ok(connection) => return Arc::new(connection),
                Err(error) => {
                    tell(&error);
                    self.set(State::Down(error));
                }
            }
            node += 1;
            let delay = delays.next().unwrap_or(Duration::from_secs(1));
            tokio::time::sleep(delay).await;
        }
    }
}

/// How long to wait before the next try to connect: growing, without end.
pub(super) fn patience() -> backon::ExponentialBuilder {
    backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times()
}

/// Watches an open connection: tells what happens, and returns why it was lost.
pub(super) async fn watch_over(connection: &Connection, tell: impl Fn(Change)) -> String {
    let mut events = std::pin::pin!(connection.events_listener());
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Event::ConnectionBlocked(reason)) => tell(Change::Blocked(reason)),
                Some(Event::ConnectionUnblocked) => tell(Change::Unblocked),
                Some(Event::Error(error)) if !connection.status().connected() => {
                    return error.to_string();
                }
                Some(_) => {}
                None => return "the connection ended".to_owned(),
            },
            _ = look.tick() => {
                if !connection.status().connected() {
                    return "the connection was closed".to_owned();
                }
            }
        }
    }
}

/// Closes a connection in order, within a short time.
pub(super) async fn close(connection: &Connection) {
    let closing = connection.close(200, "bye".into());
    // One that is blocked or lost cannot say goodbye; it ends with the process.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
}
