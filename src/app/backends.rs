//! What is behind the ports: one SQLite file, or RabbitMQ and Redis.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;

use crate::adapters::https::{HttpsSettings, HttpsTransport, read_ca_file};
use crate::adapters::rabbitmq::{Overdue, Rabbit, RabbitSettings};
use crate::adapters::redis::{Redis, RedisSettings};
use crate::adapters::sqlite::{Sqlite, SqliteSettings};
use crate::adapters::system::{SystemChance, SystemClock};
use crate::codec::vault::Vault;
use crate::config::Config;
use crate::ports::{Backend, Chance, Clock, Ports, StoreError, Transport};
use crate::telemetry::Telemetry;

/// How long `carillon init` waits for Redis.
const INIT_PATIENCE: Duration = Duration::from_secs(10);
/// How long starting waits for Redis before it goes on without.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// Opens what `config` names.
pub(super) async fn open(
    config: &Config,
    telemetry: &Telemetry,
    audit_dropped: &Arc<AtomicU64>,
) -> anyhow::Result<Ports> {
    if config.is_embedded() {
        embedded(config, telemetry, audit_dropped)
    } else {
        production(config, telemetry, audit_dropped).await
    }
}

/// Marks an empty Redis as Carillon's.
pub(super) async fn init(config: &Config) -> anyhow::Result<String> {
    let telemetry = Telemetry::new().context("the metrics cannot be registered")?;
    let redis = redis(config, &telemetry, &Arc::default())?;
    redis.connected(INIT_PATIENCE).await?;
    let made = redis.init().await;
    redis.close().await;
    let prefix = &config.redis.prefix;
    Ok(if made? {
        format!("Redis is marked as Carillon's, under the prefix `{prefix}`")
    } else {
        format!("nothing to do: Redis was marked already, under the prefix `{prefix}`")
    })
}

fn embedded(
    config: &Config,
    telemetry: &Telemetry,
    audit_dropped: &Arc<AtomicU64>,
) -> anyhow::Result<Ports> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = Sqlite::open(SqliteSettings {
        path: config.embedded.path.clone(),
        dedup_window: config.dedup.window,
        audit_keep: config.audit.keep,
        audit_per_subscription: config.audit.per_subscription,
        audit_body_bytes: config.audit.body_bytes,
        clock: Arc::clone(&clock),
        telemetry: telemetry.clone(),
        audit_dropped: Arc::clone(audit_dropped),
        vault: vault(config),
    })?;
    Ok(Ports {
        clock,
        chance: Arc::new(SystemChance),
        inbox: store.clone(),
        outbox: store.clone(),
        ledger: store.clone(),
        rates: None,
        health: store.clone(),
        accounts: store.clone(),
        subscriptions: store.clone(),
        audit: store.clone(),
        dead_letters: store.clone(),
        quarantine: store.clone(),
        transport: transport(config)?,
        backend: store,
    })
}

async fn production(
    config: &Config,
    telemetry: &Telemetry,
    audit_dropped: &Arc<AtomicU64>,
) -> anyhow::Result<Ports> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let chance: Arc<dyn Chance> = Arc::new(SystemChance);
    let transport = transport(config)?;
    let redis = redis(config, telemetry, audit_dropped)?;
    if let Err(error) = redis.connected(START_PATIENCE).await {
        tracing::warn!(%error, "Redis does not answer yet; Carillon starts without it");
    }
    let urls = config.broker.url.iter().flat_map(|urls| urls.expose());
    let rabbit = Rabbit::open(RabbitSettings {
        urls: urls.map(Into::into).collect(),
        ca_file: config.broker.ca_file.clone(),
        prefix: config.broker.prefix.clone(),
        prefetch: u16::try_from(config.intake.prefetch).unwrap_or(u16::MAX),
        overdue: Overdue::with_ledger(config.dedup.window),
        ledger: redis.clone(),
        clock: Arc::clone(&clock),
        chance: Arc::clone(&chance),
        telemetry: telemetry.clone(),
    })
    .await?;
    Ok(Ports {
        clock,
        chance,
        inbox: rabbit.clone(),
        outbox: rabbit.clone(),
        ledger: redis.clone(),
        rates: Some(redis.clone()),
        health: redis.clone(),
        accounts: redis.clone(),
        subscriptions: redis.clone(),
        audit: redis.clone(),
        dead_letters: rabbit.clone(),
        quarantine: rabbit.clone(),
        transport,
        backend: Arc::new(Both { rabbit, redis }),
    })
}

fn redis(
    config: &Config,
    telemetry: &Telemetry,
    audit_dropped: &Arc<AtomicU64>,
) -> anyhow::Result<Arc<Redis>> {
    let url = config.redis.url.clone();
    let url = url.context("`redis.url` is not set")?;
    Ok(Redis::open(RedisSettings {
        url,
        ca_file: config.redis.ca_file.clone(),
        prefix: config.redis.prefix.clone(),
        dedup_window: config.dedup.window,
        audit_keep: config.audit.keep,
        audit_per_subscription: config.audit.per_subscription,
        audit_body_bytes: config.audit.body_bytes,
        clock: Arc::new(SystemClock),
        telemetry: telemetry.clone(),
        audit_dropped: Arc::clone(audit_dropped),
        vault: vault(config),
    })?)
}

/// What the configured keys encrypt and decrypt with.
pub(super) fn vault(config: &Config) -> Vault {
    Vault::new(config.secrets.keys.clone(), Arc::new(SystemChance))
}

fn transport(config: &Config) -> anyhow::Result<Arc<dyn Transport>> {
    let transport = HttpsTransport::new(HttpsSettings {
        rules: config.egress_rules(),
        connect_timeout: config.delivery.connect_timeout,
        extra_roots: match &config.egress.ca_file {
            Some(path) => read_ca_file(path)?,
            None => Vec::new(),
        },
        name_servers: None,
    })?;
    Ok(Arc::new(transport))
}

/// RabbitMQ and Redis as one backend.
struct Both {
    rabbit: Arc<Rabbit>,
    redis: Arc<Redis>,
}

#[async_trait]
impl Backend for Both {
    async fn ready(&self) -> Result<(), String> {
        self.rabbit.ready().await?;
        self.redis.ready().await
    }

    async fn queue_sizes(&self) -> Result<Vec<(&'static str, u64)>, StoreError> {
        self.rabbit.queue_sizes().await
    }

    async fn flush(&self) {
        // Acks are remembered in Redis before they go out.
        self.rabbit.flush().await;
        self.redis.flush().await;
    }

    async fn close(&self) {
        self.rabbit.close().await;
        self.redis.close().await;
    }

    fn halt(&self) {
        self.rabbit.halt();
    }
}
