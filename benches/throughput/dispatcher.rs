//! `carillon serve` as a process of its own, embedded or on RabbitMQ and Redis.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::load::{Load, TENANT, path};
use crate::process::{Listen, PATIENCE, Process};

/// Calls to publish at once.
const CALLS_AT_ONCE: usize = 4;
/// How often it is asked whether everything is settled.
const ASK_EVERY: Duration = Duration::from_millis(20);

const CONFIG: &str = r#"
[http]
listen = "127.0.0.1:0"
[ops]
listen = "127.0.0.1:0"
[delivery]
rate_limit = { per_second = 0 }
[egress]
allow = ["127.0.0.0/8"]
[telemetry]
log = "json"
"#;
/// Warnings, and the line that names the ports.
const LOG: &str = "warn,carillon::app::serve=info";

/// What a dispatcher keeps everything in.
pub enum Store<'a> {
    /// A new file.
    Embedded,
    /// These servers.
    Servers {
        /// `broker.url`
        broker_url: &'a str,
        /// `redis.url`
        redis_url: &'a str,
    },
}

/// A running dispatcher.
pub struct Dispatcher {
    /// Its process; ended before its directory is removed.
    pub process: Process,
    _directory: TempDir,
    client: reqwest::Client,
    api: String,
    ops: String,
}

/// What it has counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Metrics {
    /// Deliveries that were acknowledged and settled.
    pub delivered: f64,
    /// Deliveries that were put off without an attempt.
    pub deferrals: f64,
    /// Attempts that the audit log could not take.
    pub audit_dropped: f64,
}

/// Where the API and the operations listener are. What it says before is about its settings,
/// or why it does not start.
async fn served_at(process: &mut Process) -> anyhow::Result<(String, String)> {
    let mut said = String::new();
    loop {
        let line = process.line().await.with_context(|| said.clone())?;
        let greeting: Value = serde_json::from_str(&line).unwrap_or_default();
        let url_of = |name: &str| greeting[name].as_str().map(ToOwned::to_owned);
        if let Some(urls) = url_of("api").zip(url_of("ops")) {
            return Ok(urls);
        }
        said = line;
    }
}

impl Store<'_> {
    fn config(&self) -> String {
        match self {
            Self::Embedded => "[embedded]\npath = \"carillon.db\"\n".to_owned(),
            Self::Servers {
                broker_url,
                redis_url,
            } => format!("[broker]\nurl = \"{broker_url}\"\n[redis]\nurl = \"{redis_url}\"\n"),
        }
    }
}

impl Dispatcher {
    /// Starts one.
    pub async fn start(store: &Store<'_>) -> anyhow::Result<Self> {
        // Beside what was built: a temporary directory in memory would sync for nothing.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let config = format!("{CONFIG}{}", store.config());
        fs::write(directory.path().join("carillon.toml"), config)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_carillon"));
        command.arg("serve").current_dir(directory.path());
        command.env_clear().env("RUST_LOG", LOG);
        let mut process = Process::start("carillon", command, Listen::Stderr)?;
        let (api, ops) = served_at(&mut process).await?;
        Ok(Self {
            process,
            _directory: directory,
            client: reqwest::Client::builder().no_proxy().build()?,
            api,
            ops,
        })
    }

    /// Makes a subscription for each of `load`'s endpoints at the sink `url`.
    pub async fn subscribe(&self, load: &Load, url: &str) -> anyhow::Result<()> {
        for endpoint in 0..load.fan_out {
            let subscription = json!({"tenant": TENANT, "url": format!("{url}{}", path(endpoint))});
            let body = serde_json::to_vec(&subscription)?;
            self.post("/v1/subscriptions", body).await?;
        }
        Ok(())
    }

    /// Publishes; comes back when all is accepted.
    pub async fn publish(&self, calls: Vec<Vec<u8>>) -> anyhow::Result<()> {
        stream::iter(calls)
            .map(|call| self.post("/v1/events", call))
            .buffer_unordered(CALLS_AT_ONCE)
            .try_collect::<Vec<()>>()
            .await
            .map(drop)
    }

    /// Waits until it has settled all that the sink has got.
    pub async fn settled(&self, deliveries: u64) -> anyhow::Result<Metrics> {
        let give_up_at = Instant::now() + PATIENCE;
        loop {
            let metrics = self.metrics().await?;
            if metrics.delivered >= deliveries as f64 {
                return Ok(metrics);
            }
            ensure!(
                Instant::now() < give_up_at,
                "it does not settle: {metrics:?}"
            );
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    async fn metrics(&self) -> anyhow::Result<Metrics> {
        let response = self.client.get(format!("{}/metrics", self.ops)).send();
        let text = response.await?.error_for_status()?.text().await?;
        let sum = |series: &str| {
            let lines = text.lines().filter(|line| line.starts_with(series));
            let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
            // Not `sum`, which begins with -0.
            values.fold(0.0, |sum, value| sum + value)
        };
        Ok(Metrics {
            delivered: sum(r#"carillon_deliveries_total{reason="none",result="delivered"}"#),
            deferrals: sum("carillon_deferrals_total"),
            audit_dropped: sum("carillon_audit_dropped_total"),
        })
    }

    async fn post(&self, path: &str, body: Vec<u8>) -> anyhow::Result<()> {
        let url = format!("{}{path}", self.api);
        let request = self.client.post(&url).timeout(PATIENCE);
        let request = request.header("content-type", "application/json");
        let response = request.body(body).send().await?;
        if !response.status().is_success() {
            bail!("{url}: {}", response.text().await?);
        }
        Ok(())
    }
}
