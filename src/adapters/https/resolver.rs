//! Looking up names, with the egress rules applied to every answer.
//!
//! One forbidden address among a name's addresses refuses the whole name: who mixes
//! public and private addresses is either probing or misconfigured, and which of them
//! would be connected to must not be a matter of luck. What is connected to is exactly
//! what was checked, so a name that changes its answer in between (DNS rebinding) gains
//! nothing. Answers are kept for their time to live, and checked each time they are used.
//!
//! Names are asked for as they stand: no search domains, no hosts file. `localhost` is
//! never asked for (RFC 6761 section 6.3).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
    ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::system_conf::read_system_conf;
use reqwest::dns::{Addrs, Resolve, Resolving};
use tokio::time::Instant;

use crate::domain::address::{EgressRefusal, EgressRules, is_localhost};

use super::probe::Probe;

/// An answer is kept no longer than this, whatever its time to live: who moves an
/// endpoint by mistake and back waits for it.
const KEPT_MAX: Duration = Duration::from_secs(3600);

/// That a name does not exist is believed no longer than this, so that a customer who
/// mends it sees the next attempt succeed.
const ABSENCE_KEPT_MAX: Duration = Duration::from_secs(30);

/// Addresses of one name that are tried at most. All are checked.
const ADDRESSES_MAX: usize = 16;

/// Tries per question, all within the connect timeout: one lost datagram is no failure.
const TRIES: u32 = 3;

/// Questions under way on one TCP connection to a name server; past it they fail at once.
const QUESTIONS_PER_SERVER_MAX: usize = 1024;

/// Where resolv.conf(5) sends questions when it names no server.
const LOCAL_NAME_SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);

/// Why a name gave no address to connect to.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum LookupError {
    /// One of its addresses may not be connected to.
    #[error(transparent)]
    Blocked(EgressRefusal),
    /// It has no address.
    #[error("the name `{0}` has no address")]
    NotFound(String),
    /// The name servers did not answer in time.
    #[error("no name server answered for `{0}` in time")]
    Timeout(String),
    /// The name servers gave no usable answer.
    #[error("the name servers gave no usable answer for `{0}`: {1}")]
    Failed(String, NetError),
}

/// What name servers say of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// It has so many addresses, and may be connected to.
    Addresses(usize),
    /// It has one that may not be connected to; a sentence on which.
    Refused(String),
    /// It has none.
    Nothing,
}

/// Asks the name servers of the system for `host`, as sending does, within about `limit`.
///
/// # Errors
/// A sentence: they gave no answer.
pub async fn look_up(host: &str, rules: EgressRules, limit: Duration) -> Result<Answered, String> {
    let resolver = GuardedResolver::new(Arc::new(rules), None, limit);
    let resolver = resolver.map_err(|error| error.to_string())?;
    match resolver.lookup(host).await {
        Ok(addresses) => Ok(Answered::Addresses(addresses.len())),
        Err(LookupError::Blocked(refusal)) => Ok(Answered::Refused(refusal.to_string())),
        Err(LookupError::NotFound(_)) => Ok(Answered::Nothing),
        Err(error) => Err(error.to_string()),
    }
}

/// A resolver that returns permitted addresses only.
#[derive(Clone, Debug)]
pub(super) struct GuardedResolver {
    resolver: TokioResolver,
    rules: Arc<EgressRules>,
}

impl GuardedResolver {
    /// A resolver that asks `name_servers`, or else those of the system, and answers
    /// within `time_max` or not at all.
    pub(super) fn new(
        rules: Arc<EgressRules>,
        name_servers: Option<&[SocketAddr]>,
        time_max: Duration,
    ) -> Result<Self, NetError> {
        let (config, system) = match name_servers {
            Some(servers) => (ask(servers), ResolverOpts::default()),
            None => system_configuration(),
        };
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options(system, time_max);
        let resolver = builder.build()?;
        Ok(Self { resolver, rules })
    }

    /// The addresses of `host`, all of them permitted.
    async fn lookup(&self, host: &str) -> Result<Vec<IpAddr>, LookupError> {
        let host = host.strip_suffix('.').unwrap_or(host);
        if is_localhost(host) {
            return self.rules.loopback().map_err(LookupError::Blocked);
        }
        // A name that DNS cannot express (an empty or too long label) has no address.
        let absent = || LookupError::NotFound(host.to_owned());
        if host.is_empty() {
            return Err(absent());
        }
        let mut name = Name::from_ascii(host).map_err(|_| absent())?;
        name.set_fqdn(true);
        let found = self.resolver.lookup_ip(name).await;
        let found = found.map_err(|error| lookup_error(host, error))?;
        let addresses: Vec<IpAddr> = found.iter().collect();
        for address in &addresses {
            self.rules.check(*address).map_err(LookupError::Blocked)?;
        }
        if addresses.is_empty() {
            return Err(absent());
        }
        Ok(addresses.into_iter().take(ADDRESSES_MAX).collect())
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: reqwest::dns::Name) -> Resolving {
        let this = self.clone();
        let probe = Probe::current();
        Box::pin(async move {
            let begun = Instant::now();
            if let Some(probe) = &probe {
                probe.lookup_begins();
            }
            let found = this.lookup(name.as_str()).await;
            if let Some(probe) = &probe {
                probe.lookup_ends(begun);
            }
            // Port 0 stands for the URL's.
            let addresses = found?.into_iter().map(|ip| SocketAddr::new(ip, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}

/// Without a readable configuration the local name server is asked, as resolv.conf(5)
/// says; never a public one, which would learn our customers' hosts.
fn system_configuration() -> (ResolverConfig, ResolverOpts) {
    match read_system_conf() {
        Ok((config, options)) => {
            let servers = config.name_servers;
            (ResolverConfig::from_parts(None, vec![], servers), options)
        }
        Err(error) => {
            tracing::warn!(
                %error,
                fallback = %LOCAL_NAME_SERVER,
                "the system's resolver configuration cannot be read; asking the local name server"
            );
            (ask(&[LOCAL_NAME_SERVER]), ResolverOpts::default())
        }
    }
}

fn ask(servers: &[SocketAddr]) -> ResolverConfig {
    let servers = servers.iter().map(|server| {
        let mut udp = ConnectionConfig::udp();
        let mut tcp = ConnectionConfig::tcp();
        udp.port = server.port();
        tcp.port = server.port();
        NameServerConfig::new(server.ip(), true, vec![udp, tcp])
    });
    ResolverConfig::from_parts(None, vec![], servers.collect())
}

fn options(system: ResolverOpts, time_max: Duration) -> ResolverOpts {
    let mut options = system;
    options.timeout = options.timeout.min(time_max / TRIES);
    options.attempts = TRIES as usize - 1;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Never;
    options.positive_max_ttl = Some(KEPT_MAX);
    options.negative_max_ttl = Some(ABSENCE_KEPT_MAX);
    options.max_active_requests = QUESTIONS_PER_SERVER_MAX;
    options
}

fn lookup_error(host: &str, error: NetError) -> LookupError {
    let host = host.to_owned();
    match &error {
        NetError::Timeout => LookupError::Timeout(host),
        NetError::Dns(DnsError::NoRecordsFound(none))
            if matches!(
                none.response_code,
                ResponseCode::NXDomain | ResponseCode::NoError
            ) =>
        {
            LookupError::NotFound(host)
        }
        NetError::Dns(DnsError::ResponseCode(ResponseCode::NXDomain)) => {
            LookupError::NotFound(host)
        }
        _ => LookupError::Failed(host, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolver(allow: &[&str]) -> GuardedResolver {
        let rules = EgressRules {
            allow: allow.iter().map(|net| net.parse().unwrap()).collect(),
            deny: Vec::new(),
        };
        // Nothing listens there: whoever is asked does not answer.
        let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
        GuardedResolver::new(Arc::new(rules), Some(&[nobody]), Duration::from_millis(100)).unwrap()
    }

    #[tokio::test]
    async fn localhost_is_loopback_and_nobody_is_asked() {
        for name in ["localhost", "LOCALHOST.", "app.localhost"] {
            let refused = resolver(&[]).lookup(name).await;
            assert!(matches!(refused, Err(LookupError::Blocked(_))), "{name}");
            let found = resolver(&["127.0.0.0/8"]).lookup(name).await.unwrap();
            assert_eq!(found, [IpAddr::V4(Ipv4Addr::LOCALHOST)], "{name}");
        }
        let both = resolver(&["127.0.0.1/32", "::1/128"]);
        assert_eq!(both.lookup("localhost").await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn names_that_dns_cannot_express_are_not_found() {
        let long = format!("{}.example", "a".repeat(64));
        for name in ["", ".", "a..b", long.as_str()] {
            let found = resolver(&[]).lookup(name).await;
            assert!(matches!(found, Err(LookupError::NotFound(_))), "{name:?}");
        }
    }

    #[tokio::test]
    async fn an_unreachable_name_server_is_no_missing_name() {
        let found = resolver(&[]).lookup("hooks.example").await;
        let error = found.unwrap_err();
        assert!(
            matches!(error, LookupError::Failed(..) | LookupError::Timeout(_)),
            "{error:?}"
        );
    }
}
