//! What a run is played on: servers, dispatchers and endpoints, all of them new.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use tokio::time::Instant;

use crate::args::Backend;
use crate::audit::{Attempts, attempts};
use crate::clock::Clock;
use crate::dispatcher::{Api, Dispatcher, Setting, Store};
use crate::endpoints::{Endpoints, Manner};
use crate::exchange::Exchange;
use crate::publisher::Publisher;
use crate::servers::Server;
use crate::window::Rate;

/// Lines of a dispatcher's log that are shown after a run.
const LINES_SHOWN: usize = 3;
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// RabbitMQ and Redis of a run's own.
pub struct Servers {
    broker: Server,
    /// To be stopped and started.
    pub redis: Server,
}

/// One run's. What is dropped first ends first.
pub struct Stage {
    dispatchers: Vec<Dispatcher>,
    /// Where everything goes.
    pub endpoints: Endpoints,
    /// Times both ends.
    pub clock: Clock,
    settings: Vec<Setting<'static>>,
    /// With a production backend.
    pub servers: Option<Servers>,
}

impl Servers {
    /// Starts both, empty.
    pub async fn start() -> anyhow::Result<Self> {
        let (broker, redis) = tokio::try_join!(Server::rabbitmq(), Server::redis())?;
        broker.rests().await?;
        Ok(Self { broker, redis })
    }

    /// What they are.
    pub fn versions(mut self) -> anyhow::Result<String> {
        let (broker, redis) = (self.broker.version()?, self.redis.version()?);
        Ok(format!(
            "production: RabbitMQ {broker}, one node, quorum queues; Redis {redis}, appendfsync everysec"
        ))
    }
}

impl Stage {
    /// Starts everything, with one dispatcher: with all defaults but those of `settings`, and no
    /// rate limit.
    pub async fn start(
        backend: Backend,
        settings: &[Setting<'static>],
        manners: Vec<Manner>,
    ) -> anyhow::Result<Self> {
        let clock = Clock::start();
        let servers = match backend {
            Backend::Embedded => None,
            Backend::Production => Some(Servers::start().await?),
        };
        let mut stage = Self {
            dispatchers: Vec::new(),
            endpoints: Endpoints::start(clock, manners).await?,
            clock,
            settings: settings.to_vec(),
            servers,
        };
        stage.add_dispatcher().await?;
        Ok(stage)
    }

    /// Starts another dispatcher on the same servers.
    pub async fn add_dispatcher(&mut self) -> anyhow::Result<()> {
        let store = match &self.servers {
            None => Store::Embedded,
            Some(servers) => Store::Servers {
                broker_url: &servers.broker.url,
                redis_url: &servers.redis.url,
            },
        };
        let dispatcher = Dispatcher::start(&store, &self.settings).await?;
        self.dispatchers.push(dispatcher);
        Ok(())
    }

    /// Subscribes an endpoint to events of a tenant; the subscription's id.
    pub async fn subscribe(
        &self,
        endpoint: usize,
        tenant: &str,
        kind: &str,
        rate: Option<Rate>,
    ) -> anyhow::Result<String> {
        let mut subscription = json!({
            "tenant": tenant,
            "url": self.endpoints.url(endpoint),
            "event_types": [kind],
        });
        if let Some(Rate { per_second, burst }) = rate {
            subscription["rate_limit"] = json!({"per_second": per_second, "burst": burst});
        }
        let body = serde_json::to_vec(&subscription)?;
        let made = self.api()?.post("/v1/subscriptions", body).await?;
        let id = made["id"]
            .as_str()
            .context("a subscription without an id")?;
        Ok(id.to_owned())
    }

    /// One who publishes, on a connection of its own.
    pub async fn publisher(&self) -> anyhow::Result<Publisher> {
        Ok(match &self.servers {
            None => Publisher::Api(self.api()?.clone()),
            Some(servers) => {
                let exchange = Exchange::connect(&servers.broker.url).await?;
                Publisher::Exchange(Arc::new(exchange))
            }
        })
    }

    /// What the audit log has of these subscriptions.
    pub async fn attempts(
        &self,
        subscriptions: impl IntoIterator<Item = &String>,
    ) -> anyhow::Result<Attempts> {
        let mut all = Attempts::default();
        for subscription in subscriptions {
            all += attempts(self.api()?, subscription).await?;
        }
        Ok(all)
    }

    /// The sum of a metric over all dispatchers.
    pub async fn sum(&self, series: &str) -> anyhow::Result<f64> {
        let mut sum = 0.0;
        for dispatcher in &self.dispatchers {
            sum += dispatcher.metrics().await?.sum(series);
        }
        Ok(sum)
    }

    /// Deliveries that were put off without an attempt, by why, in one line.
    pub async fn deferrals(&self) -> anyhow::Result<String> {
        let mut by_reason = BTreeMap::<String, f64>::new();
        for dispatcher in &self.dispatchers {
            let metrics = dispatcher.metrics().await?;
            for (reason, count) in metrics.by_label("carillon_deferrals_total") {
                *by_reason.entry(reason).or_default() += count;
            }
        }
        let some = by_reason.iter().filter(|(_, count)| **count > 0.0);
        let told: Vec<String> = some
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        Ok(match told.is_empty() {
            true => "none".to_owned(),
            false => told.join(", "),
        })
    }

    /// Waits until the endpoints of these numbers have acknowledged so many events between them,
    /// but not longer than `limit`; says whether they have.
    pub async fn delivered(
        &self,
        endpoints: impl Iterator<Item = usize> + Clone,
        events: usize,
        limit: Duration,
    ) -> bool {
        let give_up_at = Instant::now() + limit;
        loop {
            let delivered: usize = {
                let arrivals = self.endpoints.arrivals();
                let each = endpoints
                    .clone()
                    .map(|endpoint| arrivals.delivered(endpoint));
                each.sum()
            };
            if delivered >= events {
                return true;
            }
            if Instant::now() >= give_up_at {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn api(&self) -> anyhow::Result<&Api> {
        let first = self.dispatchers.first().context("no dispatcher is up")?;
        Ok(&first.api)
    }
}

impl Drop for Stage {
    /// Shows what the dispatchers had to say that nobody asked for.
    fn drop(&mut self) {
        for dispatcher in &mut self.dispatchers {
            let said = dispatcher.process.unheard();
            for line in said.iter().take(LINES_SHOWN) {
                eprintln!("carillon: {line}");
            }
            if said.len() > LINES_SHOWN {
                eprintln!("carillon: {} more lines", said.len() - LINES_SHOWN);
            }
        }
    }
}
