//! The network: sends a webhook request over HTTPS (or HTTP) and says what came of it.
//!
//! Both ends of a request are chosen by strangers: the URL by a customer, the answer by
//! whoever listens there. So every address is checked against the egress rules, no
//! redirect is followed, no proxy of the environment is used, no body is unpacked, and
//! time and memory are bounded whatever the endpoint does.
//!
//! The rules are asked three times, because no single place sees every connection:
//! - `resolver` checks each address of a name, and the client connects to no others;
//! - [`HttpsTransport::send`] checks addresses written in the URL, for which no
//!   resolver is asked;
//! - `opening` checks the far end of each new connection before a request uses it, so
//!   that a mistake in the other two sends nothing.
//!
//! What it does not do: sign, retry, decide what an outcome means, count or log attempts.
//! A request that found its kept-alive connection closed before a byte of it was sent is
//! sent on another one by the client; that is still one attempt.

mod answer;
mod fault;
mod opening;
mod probe;
mod resolver;
mod trust;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue};
use rustls_pki_types::CertificateDer;
use tokio::time::{Instant, timeout_at};

use crate::domain::address::EgressRules;
use crate::domain::attempt::Timing;
use crate::domain::outcome::Failure;
use crate::ports::{Exchange, Transport, WebhookRequest};

use self::fault::Fault;
use self::opening::OpeningLayer;
use self::probe::Probe;
use self::resolver::GuardedResolver;

pub use self::resolver::{Answered, look_up};
pub use self::trust::{CaFileError, read_ca_file, system_root_count};

/// Idle connections are kept this long. Longer serves few endpoints (most close theirs
/// after 5 to 75 s) and holds sockets for all.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Idle connections kept per host. Many subscriptions may share one (an integration
/// platform, say), each with a window of its own; fewer than they use at once would open
/// and close connections all the time. Idle ones end after [`IDLE_MAX`].
const IDLE_PER_HOST_MAX: usize = 1024;

/// HTTP/2: how much of one body, and of all bodies on one connection, may be under way
/// unread. The client's own defaults (2 MiB and 5 MiB) would let an endpoint choose our
/// memory; of a body only the first 16 KiB are read.
const H2_STREAM_WINDOW_BYTES: u32 = 32 * 1024;
const H2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// HTTP/2 carries all requests to a host on one connection, so one that died silently is
/// found by pings instead of by every request's timeout.
const H2_PING_INTERVAL: Duration = Duration::from_secs(10);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(5);

/// How the transport is to behave.
#[derive(Clone, Debug)]
pub struct HttpsSettings {
    /// Which addresses may be connected to.
    pub rules: EgressRules,
    /// How long looking up a name, connecting and TLS may take together.
    pub connect_timeout: Duration,
    /// Certificates trusted on top of the system's.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// The name servers to ask; `None` for the system's.
    pub name_servers: Option<Vec<SocketAddr>>,
}

/// Why there is no transport.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// A certificate of `extra_roots` cannot be used.
    #[error("the extra root certificate number {number} cannot be used: {source}")]
    ExtraRoot {
        /// Its place in the list, from 1.
        number: usize,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[source] rustls::Error),
    /// Names cannot be looked up.
    #[error("the resolver cannot be set up: {0}")]
    Resolver(#[source] hickory_resolver::net::NetError),
    /// The HTTP client cannot be set up.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(#[source] reqwest::Error),
}

/// Sends requests over the real network, on kept-alive connections where there are any.
#[derive(Debug)]
pub struct HttpsTransport {
    client: reqwest::Client,
    rules: Arc<EgressRules>,
    connect_timeout: Duration,
}

impl HttpsTransport {
    /// A transport with no connections yet. Reads the system's root certificates and
    /// resolver configuration, once; lacking either is logged and no error.
    ///
    /// # Errors
    /// [`HttpsError`] when an extra root is no certificate or the client cannot be made.
    pub fn new(settings: HttpsSettings) -> Result<Self, HttpsError> {
        let rules = Arc::new(settings.rules);
        let resolver = GuardedResolver::new(
            Arc::clone(&rules),
            settings.name_servers.as_deref(),
            settings.connect_timeout,
        )
        .map_err(HttpsError::Resolver)?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(trust::client_config(&settings.extra_roots)?)
            .dns_resolver(resolver)
            .connector_layer(OpeningLayer::new(Arc::clone(&rules)))
            .connect_timeout(settings.connect_timeout)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .tcp_nodelay(true)
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .http2_initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(H2_PING_INTERVAL)
            .http2_keep_alive_timeout(H2_PING_TIMEOUT)
            .build()
            .map_err(HttpsError::Client)?;
        Ok(Self {
            client,
            rules,
            connect_timeout: settings.connect_timeout,
        })
    }

    /// Sends `request` and waits for the head of the answer, until `deadline`.
    async fn head(
        &self,
        request: WebhookRequest,
        deadline: Instant,
        probe: &Arc<Probe>,
    ) -> Result<reqwest::Response, Fault> {
        self.rules.check_url(&request.url).map_err(Fault::blocked)?;
        let limit = request.timeout;
        let connect_limit = limit.min(self.connect_timeout);
        let ready = self
            .client
            .post(request.url)
            .headers(header_map(&request.headers)?)
            .body(request.body)
            .build()
            .map_err(|error| Fault::of_error(&error, probe.marks().stage, connect_limit))?;
        let sent = probe.watch(self.client.execute(ready));
        match timeout_at(deadline, sent).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                let stage = probe.marks().stage;
                Err(Fault::of_error(&error, stage, connect_limit))
            }
            Err(_) => Err(Fault::of_timeout(probe.marks().stage, limit)),
        }
    }
}

#[async_trait]
impl Transport for HttpsTransport {
    async fn send(&self, request: WebhookRequest) -> Exchange {
        let begun = Instant::now();
        let deadline = begun + request.timeout;
        let probe = Arc::new(Probe::default());
        let head = self.head(request, deadline, &probe).await;
        let first_byte = head.is_ok().then(|| begun.elapsed());
        let (result, detail) = match head {
            Ok(response) => (Ok(answer::read(response, deadline).await), String::new()),
            Err(fault) => (Err(fault.failure), fault.detail),
        };
        let marks = probe.marks();
        Exchange {
            result,
            detail,
            timing: Timing {
                dns: marks.dns,
                connect: marks.connect,
                first_byte,
                total: begun.elapsed(),
            },
        }
    }
}

fn header_map(headers: &[(String, String)]) -> Result<HeaderMap, Fault> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        // The value stays out of the sentence: it may be a secret.
        let unfit = || Fault {
            failure: Failure::Other,
            detail: fault::plain(&format!("the header `{name}` cannot be sent")),
        };
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unfit())?;
        map.append(key, HeaderValue::from_str(value).map_err(|_| unfit())?);
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_cannot_be_sent_is_named_without_its_value() {
        let fault = header_map(&[("x-token".into(), "s3cret\r\nx: y".into())]).unwrap_err();
        assert_eq!(fault.failure, Failure::Other);
        assert!(fault.detail.contains("x-token"));
        assert!(!fault.detail.contains("s3cret"));
    }
}
