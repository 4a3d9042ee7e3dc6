//! Every setting: its name, type, range, default and meaning.
//!
//! The doc comments here are the reference page, so they speak to operators.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;
use url::Url;

use super::connection::{BrokerUrls, RedisUrl};
use super::schema::{self, Given, Kind as _, Problem, Section, Setting, sections};
use super::values::{LogForm, PageOrigin, PrefixRule};
use crate::domain::keys::KeyRing;
use crate::domain::subscription::RateLimit;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

const MIB: usize = 1024 * 1024;

sections! {
    /// RabbitMQ, where events come from. Set together with `redis.url`, or not at all:
    /// without both, Carillon runs embedded.
    broker: Broker {
        /// Where RabbitMQ is: `amqp://user:password@host:5672/vhost` or `amqps://…`;
        /// several of them, separated by commas, for a cluster. A comma in a password is
        /// written `%2C`.
        url: Option<BrokerUrls> = None,
        /// PEM certificates trusted with `amqps://`, on top of the system's.
        ca_file: Option<PathBuf> = None,
        /// What the names of exchanges and queues begin with, so that several
        /// installations can share a broker.
        prefix: String [PrefixRule] = "carillon".to_owned(),
    }

    /// Redis, where subscriptions, the ledger and the audit log are kept.
    redis: Redis {
        /// Where Redis is. One server: `redis://user:password@host:6379/0`. Cluster:
        /// `redis-cluster://user:password@host1:6379,host2:6379`. Sentinel:
        /// `redis-sentinel://user:password@host1:26379,host2:26379/master-name/0`.
        /// With `rediss` in place of `redis`, over TLS.
        url: Option<RedisUrl> = None,
        /// PEM certificates trusted with `rediss://`, on top of the system's.
        ca_file: Option<PathBuf> = None,
        /// What the names of keys begin with, so that several installations can share a
        /// Redis.
        prefix: String [PrefixRule] = "carillon".to_owned(),
    }

    /// Running without RabbitMQ and Redis: one process, one SQLite file.
    embedded: Embedded {
        /// The SQLite file; made when it is not there.
        path: PathBuf = PathBuf::from("carillon.db"),
    }

    /// The API and the console.
    http: Http {
        /// Where the API listens. Any address but loopback needs `http.admin_token`.
        listen: SocketAddr = loopback(8080),
        /// The bearer token that may do everything; at least 32 random characters are advised.
        admin_token: Option<SecretString> = None,
        /// The origins whose pages may show the console in a frame, such as
        /// `["https://app.example.com"]`; by default none may.
        embed_in: Vec<PageOrigin> = Vec::new(),
    }

    /// The listener for operations: `/metrics`, `/livez`, `/readyz`.
    ops: Ops {
        /// Where it listens. It asks for no token, so keep it inside.
        listen: SocketAddr = loopback(9464),
    }

    /// Taking events.
    intake: Intake {
        /// Events in flight in one process.
        prefetch: u32 [1..=100_000] = 1000,
        /// The largest event, in bytes; a larger one goes to quarantine.
        max_event_bytes: usize [64..=16 * MIB] = MIB,
    }

    /// Planning which subscriptions an event goes to.
    plan: Plan {
        /// Subscriptions that are served at once for one event; with more, the rest
        /// becomes a message of its own.
        chunk: usize [1..=10_000] = 500,
    }

    /// Sending.
    delivery: Delivery {
        /// Requests at once in one process.
        max_in_flight: usize [1..=100_000] = 2048,
        /// The ceiling of an endpoint's adaptive concurrency, which begins with 4 requests at
        /// once: one more for each window of successes, half as many after a 429, 502, 504 or
        /// a timeout, and never less than one.
        endpoint_max_in_flight: u32 [1..=10_000] = 32,
        /// The rate limit of an endpoint whose subscription has none of its own, across
        /// all replicas; `per_second = 0` means none. A part may be set alone, also as
        /// `CARILLON_DELIVERY__RATE_LIMIT__PER_SECOND=20`.
        rate_limit: Option<RateLimit> = Some(RateLimit { per_second: 100.0, burst: 200 }),
        /// How long connecting may take, TLS included.
        connect_timeout: Duration [ms(10)..=secs(60)] = secs(3),
        /// How long a whole attempt may take, when the subscription does not say.
        timeout: Duration [ms(100)..=secs(60)] = secs(10),
        /// A subscription that fails for this long without a success is disabled.
        disable_after: Duration [secs(1)..=hours(365 * 24)] = hours(120),
    }

    /// When a failed delivery is tried again, unless its subscription says otherwise.
    retry: Retry {
        /// The delay after the first attempt; at most 24h.
        initial: Duration = secs(5),
        /// What each further delay is multiplied by; 1 to 100.
        multiplier: f64 = 4.0,
        /// The longest delay; not shorter than `retry.initial`, at most 24h.
        max: Duration = hours(12),
        /// Attempts in all, the first included; 1 to 100.
        max_attempts: u32 = 10,
        /// The largest share that chance adds to a delay; 0 to 1. A retry is never early.
        jitter: f64 = 0.25,
        /// An explicit list of delays in place of the exponential ones: n delays make
        /// n + 1 attempts.
        schedule: Option<Vec<Duration>> = None,
    }

    /// Recognising events that were published twice.
    dedup: Dedup {
        /// How long the same event `id` is delivered once per subscription; `0` is off.
        window: Duration [secs(0)..=hours(7 * 24)] = secs(600),
    }

    /// Which addresses webhooks may go to. Private and special addresses are refused
    /// unless they are allowed here.
    egress: Egress {
        /// Reachable although private or special. A bare address stands for itself.
        allow: Vec<IpNet> = Vec::new(),
        /// Never reachable, on top of the built-in list: the networks of the cluster,
        /// say. Stronger than `egress.allow`.
        deny: Vec<IpNet> = Vec::new(),
        /// Refuse subscriptions whose URL is not `https`.
        require_https: bool = false,
        /// A file of PEM certificates that are trusted on top of the system's.
        ca_file: Option<PathBuf> = None,
    }

    /// Encryption of signing secrets at rest.
    secrets: Secrets {
        /// The first key encrypts, all decrypt: to change it, put another in front, have `carillon
        /// secrets rotate` encrypt all under it, and take the old one away. `openssl rand -base64
        /// 32` makes one. Without keys, secrets are stored as they are.
        keys: KeyRing = KeyRing::default(),
    }

    /// The audit log of attempts.
    audit: Audit {
        /// How long attempts are kept.
        keep: Duration [secs(1)..=hours(365 * 24)] = hours(168),
        /// Attempts kept per subscription.
        per_subscription: u32 [1..=100_000] = 200,
        /// Bytes kept of a request body. A body that was cut cannot be redelivered (409
        /// `body_not_kept`).
        body_bytes: usize [0..=16 * MIB] = 65_536,
    }

    /// Logs, metrics and traces.
    telemetry: Telemetry {
        /// Where spans are sent (OTLP over gRPC), such as `http://localhost:4317` or
        /// `https://…` with a certificate that the system trusts; none are when it is unset.
        /// Of the environment variables of OpenTelemetry these hold: `OTEL_SERVICE_NAME`
        /// (`carillon`), `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`
        /// (`parentbased_always_on`: whoever began the trace decides, and what has no trace is
        /// kept) and `OTEL_TRACES_SAMPLER_ARG`, `OTEL_EXPORTER_OTLP_HEADERS`,
        /// `OTEL_EXPORTER_OTLP_TIMEOUT` (each also with `_TRACES_`), `OTEL_BSP_MAX_QUEUE_SIZE`
        /// (4096), `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`, `OTEL_BSP_SCHEDULE_DELAY` and
        /// `OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT`. `egress.*` does not concern the collector.
        otlp_endpoint: Option<Url> = None,
        /// How log lines look; when it is unset, `text` on a terminal, else `json`.
        log: Option<LogForm> = None,
        /// Endpoints that may have metrics of their own in each process, some six series each: the worst ones.
        endpoint_series: u32 [0..=1000] = 50,
    }

    /// Stopping.
    shutdown: Shutdown {
        /// How long requests in flight may take to end; what has not ended by then is
        /// delivered after the next start.
        grace: Duration [secs(0)..=hours(1)] = secs(30),
    }
}
