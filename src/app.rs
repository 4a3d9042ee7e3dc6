//! The composition root: the only place that names adapters and puts the parts together.
//!
//! [`Carillon::start`] turns a configuration into a running dispatcher with its API and
//! its operations listener; [`Carillon::stop`] drains it. `serve` and `demo` are both
//! built on that.

mod backends;
pub mod demo;
pub mod doctor;
mod listener;
pub mod serve;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::auth::Gate;
use crate::api::ops::Operations;
use crate::api::{self, ApiContext, Insight, Tester};
use crate::config::Config;
use crate::domain::attempt::Attempt;
use crate::domain::id::{SubscriptionId, TenantId};
use crate::domain::lane::LaneState;
use crate::domain::recent::Summary;
use crate::domain::subscription::Subscription;
use crate::pipeline::directory::EndpointDefaults;
use crate::pipeline::{Pipeline, PipelineSettings, test_action};
use crate::ports::Backend;
use crate::telemetry::Telemetry;
use crate::telemetry::labels::Queue;
use crate::telemetry::traces::{TraceSettings, Traces};

use listener::{HEAD_WITHIN, Listener};

/// A running dispatcher.
pub struct Carillon {
    pipeline: Pipeline,
    grace: Duration,
    api: Listener,
    ops: Listener,
    draining: Arc<AtomicBool>,
    stopping: CancellationToken,
    traces: Option<Traces>,
    _halt: HaltOnDrop,
}

/// Has the backend halt when the dispatcher ends in whatever way.
struct HaltOnDrop(Arc<dyn Backend>);

impl Drop for HaltOnDrop {
    fn drop(&mut self) {
        self.0.halt();
    }
}

impl Carillon {
    /// Starts everything that `config` says.
    ///
    /// # Errors
    /// What could not be opened, and what to do about it.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        // Addresses first: whoever starts a second one learns it before anything is touched.
        let api = bind("http.listen", config.http.listen).await?;
        let ops = bind("ops.listen", config.ops.listen).await?;
        let telemetry = Telemetry::new().context("the metrics cannot be registered")?;
        let traces = traces(config, &telemetry)?;
        let telemetry = match &traces {
            None => telemetry,
            Some(traces) => telemetry.with_traces(traces),
        };
        let audit_dropped = Arc::new(AtomicU64::new(0));
        let ports = backends::open(config, &telemetry, &audit_dropped).await?;
        let settings = pipeline_settings(config);
        let pipeline = Pipeline::start(ports.clone(), settings, telemetry.clone());
        let draining = Arc::new(AtomicBool::new(false));
        let stopping = CancellationToken::new();
        let door = Door {
            pipeline: pipeline.clone(),
            telemetry: telemetry.clone(),
            backend: Arc::clone(&ports.backend),
            audit_dropped,
            draining: Arc::clone(&draining),
            scraping: Mutex::default(),
        };
        let door = Arc::new(door);
        let halt = HaltOnDrop(Arc::clone(&ports.backend));
        let admin_token = config.http.admin_token.as_ref();
        let mut random = [0; 32];
        ports.chance.fill(&mut random);
        let context = ApiContext {
            ports,
            tester: door.clone(),
            insight: door.clone(),
            rules: config.spec_rules(),
            egress: config.egress_rules(),
            encrypts: config.secrets.keys.first().is_some(),
            event_bytes_max: config.intake.max_event_bytes,
            telemetry,
            stopping: stopping.clone(),
            embed_in: config
                .http
                .embed_in
                .iter()
                .map(|origin| origin.as_str().to_owned())
                .collect(),
            gate: Gate::new(admin_token.map(ExposeSecret::expose_secret), random),
        };
        Ok(Self {
            pipeline,
            grace: config.shutdown.grace,
            api: Listener::serve(api, api::router(Arc::new(context)), HEAD_WITHIN)?,
            ops: Listener::serve(ops, api::ops::router(door), HEAD_WITHIN)?,
            draining,
            stopping,
            traces,
            _halt: halt,
        })
    }

    /// Where the API listens.
    pub fn api_addr(&self) -> SocketAddr {
        self.api.addr
    }

    /// Where the operations listener is.
    pub fn ops_addr(&self) -> SocketAddr {
        self.ops.addr
    }

    /// Drains: takes nothing more, lets requests end, makes all durable. Says whether all
    /// requests ended within `shutdown.grace`; what did not is sent after the next start.
    pub async fn stop(self) -> bool {
        self.draining.store(true, Ordering::Release);
        self.stopping.cancel();
        self.api.stop().await;
        let ended = self.pipeline.drain(self.grace).await;
        self.ops.stop().await;
        self.pipeline.context().ports.backend.close().await;
        if let Some(traces) = self.traces {
            traces.end().await;
        }
        ended
    }
}

/// Marks an empty store as Carillon's, so that being empty is not taken for a loss. Says what
/// was done.
///
/// # Errors
/// Why it could not be marked.
pub async fn init(config: &Config) -> anyhow::Result<String> {
    if config.is_embedded() {
        let path = config.embedded.path.display();
        return Ok(format!(
            "nothing to mark: embedded, Carillon makes {path} when it starts"
        ));
    }
    backends::init(config).await
}

/// Sends spans, if there is somewhere to send them.
fn traces(config: &Config, telemetry: &Telemetry) -> anyhow::Result<Option<Traces>> {
    let Some(endpoint) = &config.telemetry.otlp_endpoint else {
        return Ok(None);
    };
    let settings = TraceSettings {
        endpoint,
        system: if config.is_embedded() {
            "sqlite"
        } else {
            "rabbitmq"
        },
        prefix: &config.broker.prefix,
    };
    let traces = Traces::start(&settings, telemetry.metrics());
    traces.map(Some).context("`telemetry.otlp_endpoint`")
}

fn pipeline_settings(config: &Config) -> PipelineSettings {
    PipelineSettings {
        prefetch: config.intake.prefetch as usize,
        event_bytes_max: config.intake.max_event_bytes,
        chunk: config.plan.chunk,
        in_flight_max: config.delivery.max_in_flight,
        endpoint: EndpointDefaults {
            rate: config.delivery.rate_limit,
            in_flight_max: config.delivery.endpoint_max_in_flight,
            retry: config.retry_policy(),
            exponential: config.exponential(),
            jitter: config.retry.jitter,
        },
        dedup: !config.dedup.window.is_zero(),
        disable_after: config.delivery.disable_after,
        endpoint_series: config.telemetry.endpoint_series as usize,
    }
}

/// How long a scrape waits for the sizes of queues: a broker that hangs must not hide the rest.
const QUEUE_SIZES_LIMIT: Duration = Duration::from_secs(2);

/// What the two listeners ask of the pipeline.
struct Door {
    pipeline: Pipeline,
    telemetry: Telemetry,
    backend: Arc<dyn Backend>,
    audit_dropped: Arc<AtomicU64>,
    draining: Arc<AtomicBool>,
    scraping: Mutex<()>,
}

#[async_trait]
impl Tester for Door {
    async fn test(&self, subscription: &Subscription) -> Result<Arc<Attempt>, String> {
        let context = self.pipeline.context();
        let found = context
            .directory
            .endpoint(&subscription.tenant, &subscription.id)
            .await;
        let endpoint = found
            .map_err(|error| error.to_string())?
            .ok_or("the subscription was deleted in the meantime")?;
        let sent = test_action::test(context, &endpoint).await;
        sent.map_err(|fault| fault.to_string())
    }
}

#[async_trait]
impl Insight for Door {
    fn recent(&self, tenant: Option<&TenantId>, worst_max: usize) -> Summary {
        let context = self.pipeline.context();
        let now = context.ports.clock.now();
        context.lately.summary(tenant, now, worst_max)
    }

    fn lane(&self, endpoint: &SubscriptionId) -> Option<LaneState> {
        self.pipeline.lane(endpoint)
    }

    fn attempts(&self, tenant: Option<&TenantId>) -> Option<watch::Receiver<u64>> {
        self.pipeline.context().lately.listen(tenant)
    }

    async fn queues(&self) -> Result<Vec<(&'static str, u64)>, String> {
        let sizes = tokio::time::timeout(QUEUE_SIZES_LIMIT, self.backend.queue_sizes());
        let sizes = sizes.await.map_err(|_| "no answer in time".to_owned())?;
        sizes.map_err(|error| error.to_string())
    }

    async fn ready(&self) -> Result<(), String> {
        Operations::ready(self).await
    }
}

#[async_trait]
impl Operations for Door {
    async fn metrics(&self) -> Result<String, String> {
        let look = self.pipeline.look();
        let sizes = self.queues().await;
        // One at a time: what is shown is written anew for each.
        let scraping = self.scraping.lock();
        let _scraping = scraping.unwrap_or_else(PoisonError::into_inner);
        self.pipeline.show(&look);
        let metrics = self.telemetry.metrics();
        let dropped = self.audit_dropped.load(Ordering::Relaxed);
        let counted = metrics.audit_dropped.get();
        metrics
            .audit_dropped
            .inc_by(dropped.saturating_sub(counted));
        // What cannot be counted is not there: it may be anything by now.
        metrics.queue_messages.forget();
        match sizes {
            Ok(sizes) => {
                for (name, size) in sizes {
                    let Some(queue) = Queue::named(name) else {
                        continue;
                    };
                    let under_way = match queue {
                        Queue::Events => look.events,
                        Queue::Deliveries => look.deliveries,
                        _ => 0,
                    };
                    let under_way = under_way * u64::from(self.backend.counts_taken());
                    metrics
                        .queue_messages
                        .set(queue, size.saturating_sub(under_way));
                }
            }
            // A scrape without queue sizes is better than none.
            Err(error) => tracing::warn!(error, "queue sizes cannot be read"),
        }
        metrics.render().map_err(|error| error.to_string())
    }

    async fn ready(&self) -> Result<(), String> {
        if self.draining.load(Ordering::Acquire) {
            return Err("draining".to_owned());
        }
        self.backend.ready().await
    }
}

async fn bind(key: &str, addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).await.with_context(|| {
        format!("cannot listen on {addr}: is something else there? `{key}` names another address")
    })
}
