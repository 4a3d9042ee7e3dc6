//! Where Redis is, and how a connection to it is made: one server, a cluster, or the
//! master that sentinels name.
//!
//! TLS trusts the system's root certificates and those of `redis.ca_file`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::redis::aio::{ConnectionLike, MultiplexedConnection, PubSubSink, PubSubStream};
use ::redis::cluster::ClusterClientBuilder;
use ::redis::cluster_async::ClusterConnection;
use ::redis::io::tcp::TcpSettings;
use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo as _, Pipeline, RedisError, RedisFuture, RedisResult, TlsCertificates,
    Value,
};
use base64::Engine as _;
use futures_util::future::join_all;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::config::{RedisForm, RedisUrl};

/// How long one server may take to accept a connection and greet.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// How long a node of a cluster may take to answer; the callers' own limits are not longer.
const NODE_LIMIT: Duration = Duration::from_secs(5);

/// Why Redis can never be reached with these settings.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file of certificates cannot be used.
    #[error(
        "`redis.ca_file`: {} cannot be used: {problem}; expected PEM blocks that begin with \
         `-----BEGIN CERTIFICATE-----`",
        path.display()
    )]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The URL has a form that the client does not understand.
    #[error("`redis.url` cannot be used: {0}")]
    Url(RedisError),
}

/// Where Redis is.
pub(super) struct Target {
    url: RedisUrl,
    certificates: Option<TlsCertificates>,
    /// Which node of a cluster to listen at next.
    turn: AtomicUsize,
}

/// A connection for commands; cheap to clone.
#[derive(Clone)]
pub(super) enum Conn {
    /// To one server.
    One(MultiplexedConnection),
    /// To all nodes of a cluster.
    Cluster(ClusterConnection),
}

/// What is published on a channel.
pub(super) struct Messages {
    pub(super) stream: PubSubStream,
    /// It has to live: without it redis 1.8.1 reads one message and is not woken for the
    /// next (`PipelineSink::poll_close`).
    _sink: PubSubSink,
}

impl Target {
    pub(super) fn new(url: RedisUrl, ca_file: Option<&Path>) -> Result<Self, OpenError> {
        for node in url.expose_nodes() {
            node.into_connection_info().map_err(OpenError::Url)?;
        }
        let roots = ca_file.map(roots_with).transpose()?;
        let uses_tls = url.expose_nodes().any(|node| node.starts_with("rediss:"));
        if uses_tls {
            // The client asks the process for its provider. Another one is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let certificates = uses_tls.then_some(TlsCertificates {
            client_tls: None,
            root_cert: roots,
        });
        Ok(Self {
            url,
            certificates,
            turn: AtomicUsize::new(0),
        })
    }

    /// A new connection for commands.
    pub(super) async fn connect(&self) -> RedisResult<Conn> {
        match self.url.form() {
            RedisForm::Cluster => self.connect_cluster().await.map(Conn::Cluster),
            RedisForm::Single => {
                let client = self.client(self.node(0)?)?;
                open_master(&client).await.map(Conn::One)
            }
            RedisForm::Sentinel { master } => {
                let client = self.master(master).await?;
                open_master(&client).await.map(Conn::One)
            }
        }
    }

    /// A connection to each server by itself, with where it is: the one server, the master that
    /// the sentinels name, or each node of a cluster that is named.
    pub(super) async fn each_server(&self) -> Vec<(String, RedisResult<MultiplexedConnection>)> {
        if let RedisForm::Sentinel { master } = self.url.form() {
            let client = self.master(master).await;
            return vec![(format!("master {master}"), connected(client).await)];
        }
        // Side by side: one that is away must not take the time of the others.
        let looks = self.url.expose_nodes().map(|node| async move {
            let place = info(node).map(|info| info.addr().to_string());
            let client = info(node).and_then(|info| match self.url.form() {
                RedisForm::Cluster => self.client_of(info),
                _ => self.client(info),
            });
            (place.unwrap_or_default(), connected(client).await)
        });
        join_all(looks).await
    }

    /// What is published on `channel`, by a connection of its own. On a cluster any node
    /// hears everything: each time another one is asked.
    pub(super) async fn listen(&self, channel: &str) -> RedisResult<Messages> {
        let client = match self.url.form() {
            RedisForm::Sentinel { master } => self.master(master).await?,
            RedisForm::Single => self.client(self.node(0)?)?,
            RedisForm::Cluster => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                self.client(self.node(turn)?)?
            }
        };
        let listen = async {
            let (mut sink, stream) = client.get_async_pubsub().await?.split();
            sink.subscribe(channel).await?;
            Ok(Messages {
                stream,
                _sink: sink,
            })
        };
        within(CONNECT_LIMIT, listen).await
    }

    async fn connect_cluster(&self) -> RedisResult<ClusterConnection> {
        let nodes: RedisResult<Vec<_>> = self.url.expose_nodes().map(info).collect();
        let mut builder = ClusterClientBuilder::new(nodes?)
            .connection_timeout(CONNECT_LIMIT)
            .response_timeout(NODE_LIMIT)
            .tcp_settings(tcp());
        if let Some(certificates) = &self.certificates {
            builder = builder.certs(certificates.clone());
        }
        let client = builder.build()?;
        within(NODE_LIMIT, client.get_async_connection()).await
    }

    /// The master, by the first sentinel that knows it.
    async fn master(&self, name: &str) -> RedisResult<Client> {
        let mut last = fault("no sentinel is named");
        for node in self.url.expose_nodes() {
            match self.ask_sentinel(node, name).await {
                Ok((host, port)) => {
                    let mut master = info(node)?;
                    let addr = match master.addr() {
                        ConnectionAddr::TcpTls { .. } => ConnectionAddr::TcpTls {
                            host,
                            port,
                            insecure: false,
                            tls_params: None,
                        },
                        _ => ConnectionAddr::Tcp(host, port),
                    };
                    master = master.set_addr(addr);
                    return self.client(master);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask_sentinel(&self, node: &str, name: &str) -> RedisResult<(String, u16)> {
        let sentinel = info(node)?;
        let sentinel = sentinel.set_redis_settings(info(node)?.redis_settings().clone().set_db(0));
        let mut conn = match open(&self.client_of(sentinel.clone())?).await {
            // The credentials may be those of the master alone.
            Err(error) if error.kind() == ErrorKind::AuthenticationFailed => {
                let open_to_all =
                    sentinel.set_redis_settings(::redis::RedisConnectionInfo::default());
                open(&self.client_of(open_to_all)?).await?
            }
            opened => opened?,
        };
        let mut ask = ::redis::cmd("SENTINEL");
        ask.arg("get-master-addr-by-name").arg(name);
        let answer = ask.query_async::<Option<(String, u16)>>(&mut conn);
        within(CONNECT_LIMIT, answer)
            .await?
            .ok_or_else(|| fault("the sentinels know no master by the name in `redis.url`"))
    }

    fn node(&self, turn: usize) -> RedisResult<ConnectionInfo> {
        let count = self.url.expose_nodes().count().max(1);
        let node = self.url.expose_nodes().nth(turn % count);
        node.map_or_else(|| Err(fault("no host is named")), info)
    }

    /// A client of one server, with the database that was asked for.
    fn client(&self, info: ConnectionInfo) -> RedisResult<Client> {
        let settings = info.redis_settings().clone().set_db(self.url.database());
        self.client_of(info.set_redis_settings(settings))
    }

    fn client_of(&self, info: ConnectionInfo) -> RedisResult<Client> {
        match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        }
    }
}

impl ConnectionLike for Conn {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(conn) => conn.req_packed_command(cmd),
            Self::Cluster(conn) => conn.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(conn) => conn.req_packed_commands(pipeline, offset, count),
            Self::Cluster(conn) => conn.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(conn) => conn.get_db(),
            Self::Cluster(conn) => conn.get_db(),
        }
    }
}

/// An error of our own, in the client's type.
pub(super) fn fault(text: &'static str) -> RedisError {
    RedisError::from((ErrorKind::Io, text))
}

/// `work`, or an error when it takes longer than `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(fault("no answer in time")),
    }
}

/// Commands have limits of their own: the client's, 500 ms unless told, is taken off.
async fn open(client: &Client) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_LIMIT))
        .set_response_timeout(None);
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

/// A connection to a master. A name or a sentinel may lead to a server that is none, or
/// none any more.
async fn open_master(client: &Client) -> RedisResult<MultiplexedConnection> {
    let mut conn = open(client).await?;
    let ask = ::redis::cmd("ROLE");
    match within(CONNECT_LIMIT, ask.query_async::<Vec<Value>>(&mut conn)).await {
        Ok(role) => match role.first() {
            Some(Value::BulkString(word)) if word != b"master" => {
                Err(fault("the server is a replica, and no master (yet)"))
            }
            _ => Ok(conn),
        },
        // Where asking is not allowed, the first write will tell.
        Err(error) if matches!(error.kind(), ErrorKind::Server(_)) => Ok(conn),
        Err(error) => Err(error),
    }
}

async fn connected(client: RedisResult<Client>) -> RedisResult<MultiplexedConnection> {
    open(&client?).await
}

fn info(node: &str) -> RedisResult<ConnectionInfo> {
    Ok(node.into_connection_info()?.set_tcp_settings(tcp()))
}

fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

/// The system's root certificates and those of the file, as PEM: given any, the client
/// trusts no others.
fn roots_with(path: &Path) -> Result<Vec<u8>, OpenError> {
    let unusable = |problem: String| OpenError::CaFile {
        path: path.to_owned(),
        problem,
    };
    let read = |error: rustls_pki_types::pem::Error| unusable(error.to_string());
    let ours: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(read)?
        .collect::<Result<_, _>>()
        .map_err(read)?;
    if ours.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    let mut store = rustls::RootCertStore::empty();
    for certificate in &ours {
        let added = store.add(certificate.clone());
        added.map_err(|error| unusable(error.to_string()))?;
    }
    let system = rustls_native_certs::load_native_certs().certs;
    let usable = system
        .into_iter()
        .filter(|certificate| store.add(certificate.clone()).is_ok());
    Ok(usable
        .chain(ours.iter().cloned())
        .flat_map(|c| pem(&c))
        .collect())
}

fn pem(certificate: &CertificateDer<'_>) -> Vec<u8> {
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = b"-----BEGIN CERTIFICATE-----\n".to_vec();
    for line in text.as_bytes().chunks(64) {
        pem.extend_from_slice(line);
        pem.push(b'\n');
    }
    pem.extend_from_slice(b"-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_files_certificates_are_added_to_the_systems() {
        let made = rcgen::generate_simple_self_signed(["redis.example".to_owned()]).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(made.cert.pem().as_bytes()).unwrap();
        let roots = roots_with(file.path()).unwrap();
        let found: Vec<_> = CertificateDer::pem_slice_iter(&roots)
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(found.last(), Some(made.cert.der()));
    }

    #[test]
    fn a_file_without_certificates_is_refused_by_name() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"nothing").unwrap();
        for path in [file.path(), Path::new("/no/such.pem")] {
            let error = roots_with(path).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
    }
}
