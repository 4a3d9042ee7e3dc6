//! Looks at a RabbitMQ and leaves it as it is, for `carillon doctor`: does it let us in, what
//! version is it, is the topology there as we need it, does it take messages. To see that, one
//! message is sent to a queue that is not there.

use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{BasicProperties, Channel, Connection, Event, ExchangeKind};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::link::{self, Address};
use super::names::Names;
use super::topology::{self, TopologyError};

/// How long RabbitMQ may take to confirm one message before that is no answer.
const CONFIRM_WITHIN: Duration = Duration::from_secs(3);
/// How long it may take to greet. Only the version is lost without.
const GREETED_WITHIN: Duration = Duration::from_secs(3);
/// How long it may take to say how a queue is: one without a leader keeps silent.
const DECLARED_WITHIN: Duration = Duration::from_secs(10);
/// Most that is read of the server's greeting; it takes half a kilobyte.
const GREETING_BYTES_MAX: u64 = 16 * 1024;

/// A connection to one node.
pub struct Node {
    connection: Connection,
    /// The version that the server names, such as `4.1.2`.
    pub version: Option<String>,
}

/// What there is of the exchanges and queues.
#[derive(Debug, Default)]
pub struct Topology {
    /// So many are there as they are to be.
    pub there: usize,
    /// These are not there.
    pub missing: Vec<String>,
    /// These differ, or may not be declared.
    pub faults: Vec<TopologyError>,
    /// RabbitMQ said nothing of these in time.
    pub silent: Vec<String>,
}

/// Where a URL leads, without what is secret in it: `host:port`.
pub fn place_of(url: &SecretString) -> String {
    match url.expose_secret().parse::<AMQPUri>() {
        Ok(uri) => format!("{}:{}", uri.authority.host, uri.authority.port),
        Err(_) => "an address that cannot be read".to_owned(),
    }
}

impl Node {
    /// Connects to where `url` leads.
    ///
    /// # Errors
    /// A sentence on why not, with what to do where that is known.
    pub async fn connect(url: &SecretString, ca_file: Option<&Path>) -> Result<Self, String> {
        let pem = match ca_file {
            None => None,
            Some(path) => {
                let read = std::fs::read_to_string(path);
                let path = path.display();
                Some(read.map_err(|error| format!("`broker.ca_file` {path}: {error}"))?)
            }
        };
        let address = Address::new(vec![url.clone()], pem.clone());
        let address = address.map_err(|error| error.to_string())?;
        let connection = address.connect(0, "doctor").await?;
        // It can be used all the same: the version is only told.
        let greeting = tokio::time::timeout(GREETED_WITHIN, greeting(url, pem.as_deref()));
        let version = greeting.await.ok().and_then(Result::ok).flatten();
        Ok(Self {
            connection,
            version,
        })
    }

    /// Looks at each exchange and queue under `prefix`, before [`Self::held`] publishes: first whether it is there, and only then
    /// whether declaring it would be refused, so that none is made.
    pub async fn topology(&self, prefix: &str) -> Topology {
        let names = Names::new(prefix);
        let exchanges = topology::exchanges(&names)
            .map(|(name, kind, arguments)| (name, Thing::Exchange(kind, arguments)));
        let queues = topology::queues(&names)
            .chain(topology::rungs(&names))
            .map(|(name, arguments)| (name, Thing::Queue(arguments)));
        let looks = exchanges
            .chain(queues)
            .map(|(name, thing)| self.look_at(name, thing));
        let mut seen = Topology::default();
        for (name, looked) in join_all(looks).await {
            match looked {
                Some(Ok(true)) => seen.there += 1,
                Some(Ok(false)) => seen.missing.push(name.as_str().to_owned()),
                Some(Err(fault)) => seen.faults.push(fault),
                None => seen.silent.push(name.as_str().to_owned()),
            }
        }
        seen
    }

    async fn look_at<'n>(
        &self,
        name: &'n ShortString,
        thing: Thing,
    ) -> (&'n ShortString, Option<Result<bool, TopologyError>>) {
        let looked = async {
            match self.ask(name, &thing, true).await {
                Ok(()) => {}
                Err(error) if error.is_missing() => return Ok(false),
                Err(error) => return Err(error),
            }
            self.ask(name, &thing, false).await.map(|()| true)
        };
        (
            name,
            tokio::time::timeout(DECLARED_WITHIN, looked).await.ok(),
        )
    }

    /// On a channel of its own, as RabbitMQ closes it with a refusal.
    async fn ask(
        &self,
        name: &ShortString,
        thing: &Thing,
        passive: bool,
    ) -> Result<(), TopologyError> {
        let failed = |error| TopologyError::of(name.as_str(), error);
        let channel = self.connection.create_channel().await.map_err(failed)?;
        match thing {
            Thing::Exchange(kind, arguments) => {
                let (kind, arguments) = (kind.clone(), arguments.clone());
                topology::exchange(&channel, name, kind, arguments, passive).await?;
            }
            Thing::Queue(arguments) if !passive => {
                topology::queue(&channel, name.as_str(), arguments.clone()).await?;
            }
            Thing::Queue(_) => {
                topology::size(&channel, name).await.map_err(failed)?;
            }
        }
        let _ = channel.close(200, "done".into()).await;
        Ok(())
    }

    /// Why RabbitMQ holds publishing, if it does: it is short of memory or disk. It says so only
    /// to who publishes; so one message is sent to a queue that is not there. During an alarm nothing
    /// else can be asked of this connection afterwards.
    ///
    /// # Errors
    /// What RabbitMQ said instead.
    pub async fn held(&self, prefix: &str) -> Result<Option<String>, String> {
        let text = |error: lapin::Error| error.to_string();
        let channel = self.connection.create_channel().await.map_err(text)?;
        let mut events = pin!(self.connection.events_listener());
        let told = async {
            while let Some(event) = events.next().await {
                if let Event::ConnectionBlocked(reason) = event {
                    return reason;
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            biased;
            reason = told => Ok(Some(reason)),
            sent = publish_nowhere(&channel, prefix) => sent.map(|()| None).map_err(text),
            () = tokio::time::sleep(CONFIRM_WITHIN) => {
                Err(format!("it did not confirm a message within {CONFIRM_WITHIN:?}"))
            }
        }
    }

    /// Says goodbye.
    pub async fn close(self) {
        link::close(&self.connection).await;
    }
}

enum Thing {
    Exchange(ExchangeKind, FieldTable),
    Queue(FieldTable),
}

/// The message has a body, as RabbitMQ stops reading at a message's header: one that ends there is
/// complete, and its confirmation may overtake the word that publishing is held.
async fn publish_nowhere(channel: &Channel, prefix: &str) -> lapin::Result<()> {
    let select = ConfirmSelectOptions::default();
    channel.confirm_select(select).await?;
    let nowhere = format!("{prefix}.nowhere");
    let options = BasicPublishOptions::default();
    let none = BasicProperties::default();
    let sent = channel.basic_publish("".into(), nowhere.as_str().into(), options, b"?", none);
    sent.await?.await.map(drop)
}

/// The version in the server's greeting, which it sends before anyone has said who they are. The
/// client does not hand it on.
async fn greeting(url: &SecretString, ca_pem: Option<&str>) -> io::Result<Option<String>> {
    let uri: AMQPUri = url.expose_secret().parse().map_err(io::Error::other)?;
    let host = uri.authority.host.trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, uri.authority.port)).await?;
    if uri.scheme == AMQPScheme::AMQP {
        return greeted(stream).await;
    }
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client_config(ca_pem)?));
    greeted(connector.connect(name, stream).await?).await
}

/// Follows AMQP 0-9-1, section 2.2.4: the protocol header is answered with `connection.start`,
/// in which the server tells of itself.
async fn greeted(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<Option<String>> {
    stream.write_all(b"AMQP\0\0\x09\x01").await?;
    stream.flush().await?;
    let mut head = [0; 7];
    stream.read_exact(&mut head).await?;
    let [_, _, _, size @ ..] = head;
    let mut start = Vec::new();
    let size = u64::from(u32::from_be_bytes(size)).min(GREETING_BYTES_MAX);
    (&mut stream).take(size).read_to_end(&mut start).await?;
    Ok(version_in(&start))
}

/// The long string of the field `version` of a table.
fn version_in(start: &[u8]) -> Option<String> {
    const FIELD: &[u8] = b"\x07versionS";
    let at = start.windows(FIELD.len()).position(|part| part == FIELD)?;
    let (size, rest) = start[at + FIELD.len()..].split_first_chunk::<4>()?;
    let size = usize::try_from(u32::from_be_bytes(*size)).ok()?;
    String::from_utf8(rest.get(..size)?.to_vec()).ok()
}

fn client_config(ca_pem: Option<&str>) -> io::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let pem = ca_pem.unwrap_or_default().as_bytes();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).flatten());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_a_greeting() {
        let mut start = vec![0, 10, 0, 10, 0, 9, 0, 0, 0, 40];
        start.extend(b"\x07productS\0\0\0\x08RabbitMQ\x07versionS\0\0\0\x064.10.2");
        assert_eq!(version_in(&start).as_deref(), Some("4.10.2"));
        start.truncate(start.len() - 1);
        assert_eq!(version_in(&start), None);
        assert_eq!(version_in(b"HTTP/1.1 400 Bad Request"), None);
    }

    #[test]
    fn a_place_has_no_secret() {
        let place = |url: &str| place_of(&url.into());
        assert_eq!(place("amqp://u:hunter2@rabbit:5673/v"), "rabbit:5673");
        assert_eq!(place("amqps://u:hunter2@rabbit/v"), "rabbit:5671");
        assert!(!place("hunter2").contains("hunter2"));
    }
}
