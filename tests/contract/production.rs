//! RabbitMQ and Redis under the contract: the shared servers, behind proxies that can be cut,
//! and under a prefix of each test's own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use carillon::adapters::rabbitmq::{Rabbit, RabbitSettings, declared};
use carillon::adapters::redis::{Redis, RedisSettings};
use carillon::adapters::system::{SystemChance, SystemClock};
use carillon::codec::vault::Vault;
use carillon::config::Config;
use carillon::domain::timestamp::UnixMillis;
use carillon::ports::{Backend, Clock as _, StoreError};
use carillon::telemetry::Telemetry;

use crate::harness::{Harness, Limits, Store};
use crate::services::{self, Proxy};
use crate::until::until;

pub struct ProductionHarness {
    rabbit: Arc<Rabbit>,
    redis: Arc<Redis>,
    limits: Limits,
    servers: Servers,
}

/// Where the servers are, and what is ours in them.
struct Servers {
    prefix: String,
    broker_url: String,
    broker: Proxy,
    redis: Proxy,
}

const PATIENCE: Duration = Duration::from_secs(10);

impl Servers {
    async fn find() -> Self {
        let broker_url = services::broker_url().await;
        let redis_url = services::redis_url().await;
        let mut random = [0; 6];
        getrandom::fill(&mut random).unwrap();
        Self {
            prefix: format!("test-{}", hex::encode(random)),
            broker: Proxy::start(address(&broker_url)).await,
            redis: Proxy::start(address(&redis_url)).await,
            broker_url,
        }
    }

    fn config(&self) -> Config {
        let by_proxy = |url: &str, proxy: &Proxy| {
            url.replace(&address(url).to_string(), &proxy.addr().to_string())
        };
        let broker = by_proxy(&self.broker_url, &self.broker);
        let redis = format!("redis://{}", self.redis.addr());
        let env = [
            ("CARILLON_BROKER__URL", broker),
            ("CARILLON_BROKER__PREFIX", self.prefix.clone()),
            ("CARILLON_REDIS__URL", redis),
            ("CARILLON_REDIS__PREFIX", self.prefix.clone()),
        ];
        let env = env.map(|(key, value)| (key.to_owned(), value));
        Config::load(None, env).unwrap().config
    }

    async fn redis(&self, limits: Limits) -> Arc<Redis> {
        let config = self.config();
        let redis = Redis::open(RedisSettings {
            vault: Vault::default(),
            url: config.redis.url.unwrap(),
            ca_file: None,
            prefix: config.redis.prefix,
            dedup_window: limits.dedup_window,
            audit_keep: limits.audit_keep,
            audit_per_subscription: limits.audit_per_subscription,
            audit_body_bytes: limits.audit_body_bytes,
            clock: Arc::new(SystemClock),
            telemetry: Telemetry::new().unwrap(),
            audit_dropped: Arc::default(),
        })
        .unwrap();
        redis.connected(PATIENCE).await.unwrap();
        redis.init().await.unwrap();
        redis
    }

    async fn rabbit(&self, redis: &Arc<Redis>) -> Arc<Rabbit> {
        let config = self.config();
        let urls = config.broker.url.unwrap();
        Rabbit::open(RabbitSettings {
            urls: urls.expose().map(Into::into).collect(),
            ca_file: None,
            prefix: config.broker.prefix,
            prefetch: 2000,
            overdue: None,
            ledger: redis.clone(),
            clock: Arc::new(SystemClock),
            chance: Arc::new(SystemChance),
            telemetry: Telemetry::new().unwrap(),
        })
        .await
        .unwrap()
    }
}

/// The host and port of a URL such as `amqp://guest:guest@127.0.0.1:5672/%2f`.
fn address(url: &str) -> SocketAddr {
    let rest = url.split_once("://").unwrap().1;
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    rest.split('/').next().unwrap().parse().unwrap()
}

impl Harness for ProductionHarness {
    async fn start(limits: Limits) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let servers = Servers::find().await;
        let redis = servers.redis(limits).await;
        Self {
            rabbit: servers.rabbit(&redis).await,
            redis,
            limits,
            servers,
        }
    }

    fn store(&self) -> Store {
        let (rabbit, redis) = (|| Arc::clone(&self.rabbit), || Arc::clone(&self.redis));
        Store {
            inbox: rabbit(),
            outbox: rabbit(),
            ledger: redis(),
            health: redis(),
            accounts: redis(),
            subscriptions: redis(),
            audit: redis(),
            dead_letters: rabbit(),
            quarantine: rabbit(),
            backend: Arc::new(Both(rabbit(), redis())),
        }
    }

    async fn crash(&mut self) {
        self.servers.broker.cut().await;
        self.servers.redis.cut().await;
        self.rabbit.crash().await;
        self.redis.crash();
        self.redis = self.servers.redis(self.limits).await;
        self.rabbit = self.servers.rabbit(&self.redis).await;
    }

    async fn break_down(&mut self) {
        for proxy in [&self.servers.broker, &self.servers.redis] {
            proxy.refuse().await;
            proxy.cut().await;
        }
    }

    fn now(&self) -> UnixMillis {
        SystemClock.now()
    }

    async fn pass(&self, time: Duration) {
        let then = self.now().after(time);
        let is_over = async move || (SystemClock.now() >= then).then_some(());
        until("the time to pass", time + PATIENCE, is_over).await;
    }
}

impl Drop for ProductionHarness {
    fn drop(&mut self) {
        // Else it would find its queues missing, and declare them again.
        self.rabbit.halt();
        services::delete_declared(&self.servers.broker_url, declared(&self.servers.prefix));
    }
}

/// As the composition root has it.
struct Both(Arc<Rabbit>, Arc<Redis>);

#[async_trait]
impl Backend for Both {
    async fn ready(&self) -> Result<(), String> {
        self.0.ready().await?;
        self.1.ready().await
    }

    async fn queue_sizes(&self) -> Result<Vec<(&'static str, u64)>, StoreError> {
        self.0.queue_sizes().await
    }

    async fn flush(&self) {
        self.0.flush().await;
        self.1.flush().await;
    }

    async fn close(&self) {
        self.0.close().await;
        self.1.close().await;
    }
}
