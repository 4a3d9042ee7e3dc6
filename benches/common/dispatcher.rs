//! `carillon serve` as a process of its own, embedded or on RabbitMQ and Redis.
//!
//! What a bench asks of it beyond calls and metrics is that bench's own business.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::task::AbortOnDropHandle;

use crate::process::{Listen, PATIENCE, Process};

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
/// The name of the file of an embedded one, in its directory.
const FILE: &str = "carillon.db";
/// Warnings, and the line that names the ports.
const LOG: &str = "warn,carillon::app::serve=info";

/// A setting in place of what every bench has: the variable, and its value.
pub type Setting<'a> = (&'a str, &'a str);

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
    directory: TempDir,
    /// Its API.
    pub api: Api,
    ops: String,
}

/// The API of a dispatcher.
#[derive(Clone)]
pub struct Api {
    client: reqwest::Client,
    url: String,
}

/// What `/metrics` said.
pub struct Metrics(String);

impl Store<'_> {
    fn config(&self) -> String {
        match self {
            Self::Embedded => format!("[embedded]\npath = \"{FILE}\"\n"),
            Self::Servers {
                broker_url,
                redis_url,
            } => format!("[broker]\nurl = \"{broker_url}\"\n[redis]\nurl = \"{redis_url}\"\n"),
        }
    }
}

impl Dispatcher {
    /// Starts one.
    pub async fn start(store: &Store<'_>, settings: &[Setting<'_>]) -> anyhow::Result<Self> {
        // Beside what was built: a temporary directory in memory would sync for nothing.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let config = format!("{CONFIG}{}", store.config());
        fs::write(directory.path().join("carillon.toml"), config)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_carillon"));
        command.arg("serve").current_dir(directory.path());
        command.env_clear().env("RUST_LOG", LOG);
        command.envs(settings.iter().copied());
        let mut process = Process::start("carillon", command, Listen::Stderr)?;
        let (url, ops) = served_at(&mut process).await?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self {
            process,
            directory,
            api: Api { client, url },
            ops,
        })
    }

    /// The file that it keeps everything in, if it is embedded.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join(FILE)
    }

    /// Asks for its metrics again and again, until what is returned is dropped.
    pub fn scrape_every(&self, every: Duration) -> AbortOnDropHandle<()> {
        let (client, url) = (self.api.client.clone(), format!("{}/metrics", self.ops));
        AbortOnDropHandle::new(tokio::spawn(async move {
            let mut times = tokio::time::interval(every);
            loop {
                times.tick().await;
                if let Ok(answer) = client.get(&url).timeout(PATIENCE).send().await {
                    // Prometheus reads it all.
                    let _ = answer.bytes().await;
                }
            }
        }))
    }

    /// What it has counted.
    pub async fn metrics(&self) -> anyhow::Result<Metrics> {
        let url = format!("{}/metrics", self.ops);
        let asked = self.api.client.get(url).timeout(PATIENCE).send().await?;
        Ok(Metrics(asked.error_for_status()?.text().await?))
    }
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

impl Api {
    /// A `POST` of JSON that has to succeed; what it answers.
    pub async fn post(&self, path: &str, body: Vec<u8>) -> anyhow::Result<Value> {
        let request = self.client.post(format!("{}{path}", self.url));
        let request = request.header("content-type", "application/json");
        answer(request.body(body)).await
    }

    /// A `GET` that has to succeed; what it answers.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        answer(self.client.get(format!("{}{path}", self.url))).await
    }
}

async fn answer(request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
    let response = request.timeout(PATIENCE).send().await?;
    let (status, url) = (response.status(), response.url().clone());
    let answer = response.text().await?;
    ensure!(status.is_success(), "{url}: {status}: {answer}");
    Ok(serde_json::from_str(&answer)?)
}

impl Metrics {
    /// The sum of all series whose names and labels begin so.
    pub fn sum(&self, series: &str) -> f64 {
        // Not `sum`, which begins with -0.
        self.values(series).fold(0.0, |sum, (_, value)| sum + value)
    }

    /// The series `name` by the value of its only label.
    pub fn by_label(&self, name: &str) -> BTreeMap<String, f64> {
        let name = format!("{name}{{");
        let labelled = self.values(&name).filter_map(|(labels, value)| {
            let label = labels.split('"').nth(1)?;
            Some((label.to_owned(), value))
        });
        labelled.collect()
    }

    /// What follows `series` in each line that begins so, and the value.
    fn values(&self, series: &str) -> impl Iterator<Item = (&str, f64)> {
        self.0.lines().filter_map(move |line| {
            let (rest, value) = line.strip_prefix(series)?.rsplit_once(' ')?;
            Some((rest, value.parse().ok()?))
        })
    }
}
