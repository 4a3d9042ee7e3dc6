//! The running dispatcher, end to end, on RabbitMQ and Redis: the tests that the embedded one
//! passes too.

// A test that cannot go on is to end, in what it shares with others too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "dispatcher/mod.rs"]
mod dispatcher;
#[path = "dispatcher/on_a_broker.rs"]
mod on_a_broker;
#[path = "support/process.rs"]
mod process;
#[path = "support/services.rs"]
mod services;
#[path = "dispatcher/leaks/store_servers.rs"]
mod store;

mod backend {
    //! Where a dispatcher keeps everything.

    use std::sync::Arc;

    use carillon::adapters::rabbitmq::{Rabbit, RabbitSettings, declared};
    use carillon::adapters::redis::{Redis, RedisSettings};
    use carillon::adapters::system::{SystemChance, SystemClock};
    use carillon::app;
    use carillon::codec::vault::Vault;
    use carillon::config::Config;
    use carillon::ports::{Backend as _, Outbox as _, Parcel};
    use carillon::telemetry::Telemetry;

    use super::services;

    /// Names of its own in the shared servers.
    #[derive(Default)]
    pub struct Place {
        prefix: Option<String>,
        broker_url: String,
    }

    impl Place {
        /// Somewhere that is found when it is prepared.
        pub fn new() -> Self {
            Self::default()
        }

        /// In how many looks, one after the other, there has to be nothing left: a message on
        /// its way from RabbitMQ is counted by nobody.
        pub const SETTLED_LOOKS: u32 = 8;

        /// Whether several dispatchers may share it.
        pub const IS_SHARED: bool = true;

        /// Puts parcels where a dispatcher that does not run will find them.
        pub async fn put(&self, config: &Config, parcels: Vec<Parcel>) {
            let urls = config.broker.url.as_ref().unwrap();
            let ledger = Redis::open(RedisSettings {
                vault: Vault::default(),
                url: config.redis.url.clone().unwrap(),
                ca_file: None,
                prefix: config.redis.prefix.clone(),
                dedup_window: config.dedup.window,
                audit_keep: config.audit.keep,
                audit_per_subscription: config.audit.per_subscription,
                audit_body_bytes: config.audit.body_bytes,
                clock: Arc::new(SystemClock),
                telemetry: Telemetry::new().unwrap(),
                audit_dropped: Arc::default(),
            });
            let rabbit = Rabbit::open(RabbitSettings {
                urls: urls.expose().map(Into::into).collect(),
                ca_file: None,
                prefix: config.broker.prefix.clone(),
                prefetch: 1,
                overdue: None,
                ledger: ledger.unwrap(),
                clock: Arc::new(SystemClock),
                chance: Arc::new(SystemChance),
                telemetry: Telemetry::new().unwrap(),
            });
            let rabbit = rabbit.await.unwrap();
            rabbit.put(parcels).await.unwrap();
            rabbit.close().await;
        }

        /// Says in `config` where it is; the first time, marks it as Carillon's.
        pub async fn prepare(&mut self, config: &mut Config) {
            if self.prefix.is_some() {
                return;
            }
            let mut random = [0; 6];
            getrandom::fill(&mut random).unwrap();
            let prefix = format!("test-{}", hex::encode(random));
            self.broker_url = services::broker_url().await;
            let env = [
                ("CARILLON_BROKER__URL", self.broker_url.clone()),
                ("CARILLON_BROKER__PREFIX", prefix.clone()),
                ("CARILLON_REDIS__URL", services::redis_url().await),
                ("CARILLON_REDIS__PREFIX", prefix.clone()),
            ];
            let env = env.map(|(key, value)| (key.to_owned(), value));
            let loaded = Config::load(None, env).unwrap().config;
            config.broker = loaded.broker;
            config.redis = loaded.redis;
            app::init(config).await.unwrap();
            self.prefix = Some(prefix);
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            if let Some(prefix) = &self.prefix {
                services::delete_declared(&self.broker_url, declared(prefix));
            }
        }
    }
}
