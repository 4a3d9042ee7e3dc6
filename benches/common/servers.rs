//! RabbitMQ and Redis of the bench's own, under the guard that the tests use too.
//!
//! They end with the value that stands for them, or with this process, however that ends.

#[allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "the tests use more of it, and may end with a panic"
)]
#[path = "../../tests/support/services/guard.rs"]
mod guard;

use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use tokio::time::Instant;

use guard::{Guard, Settings, off_thread};

use crate::process::{PATIENCE, cpu_s};

/// How long a server is looked at to see whether it rests, and how much it may do meanwhile.
const LOOK: Duration = Duration::from_millis(200);
const RESTING_CPU_S: f64 = 0.01;

/// One server.
pub struct Server {
    guard: Guard,
    name: &'static str,
    pid: u32,
    /// Where it listens.
    pub url: String,
}

/// What Redis has done so far.
#[derive(Clone, Copy, Debug)]
pub struct RedisCounts {
    /// Commands carried out.
    pub commands: f64,
    /// Times that something was read from a connection: many commands may come at once.
    pub reads: f64,
}

impl Server {
    /// Starts RabbitMQ: one node.
    pub async fn rabbitmq() -> anyhow::Result<Self> {
        Self::start("rabbitmq", Settings::new()).await
    }

    /// Starts Redis, empty.
    pub async fn redis() -> anyhow::Result<Self> {
        Self::start("redis", Settings::new().with("REDIS_FSYNC", "everysec")).await
    }

    async fn start(name: &'static str, settings: Settings) -> anyhow::Result<Self> {
        // Beside what was built: a temporary directory in memory would sync for nothing.
        let settings = settings.with("TMPDIR", env!("CARGO_TARGET_TMPDIR"));
        let guard = off_thread(move || Guard::start(&[name], settings)).await;
        let guard = guard.map_err(|problem| anyhow!("{problem}"))?;
        let url = guard.urls.first().context("the guard names no server")?;
        let mut server = Self {
            name,
            pid: 0,
            url: url.clone(),
            guard,
        };
        server.pid = server.ask("pid", &[])?.trim().parse()?;
        Ok(server)
    }

    /// Its version.
    pub fn version(&mut self) -> anyhow::Result<String> {
        if self.name == "rabbitmq" {
            return Ok(self.ask("ctl", &["version"])?.trim().to_owned());
        }
        let told = self.ask("cli", &["info", "server"])?;
        value(&told, "redis_version").map(str::to_owned)
    }

    /// CPU seconds so far.
    pub fn cpu_s(&self) -> anyhow::Result<f64> {
        cpu_s(self.pid).with_context(|| format!("of {}", self.name))
    }

    /// What it has counted, if it is Redis.
    pub fn redis_counts(&mut self) -> anyhow::Result<RedisCounts> {
        let told = self.ask("cli", &["info", "stats"])?;
        let count = |name| Ok::<f64, anyhow::Error>(value(&told, name)?.parse()?);
        Ok(RedisCounts {
            commands: count("total_commands_processed")?,
            reads: count("total_reads_processed")?,
        })
    }

    /// Waits until what it does in the background is done.
    pub async fn rests(&self) -> anyhow::Result<()> {
        let give_up_at = Instant::now() + PATIENCE;
        loop {
            let before = self.cpu_s()?;
            tokio::time::sleep(LOOK).await;
            if self.cpu_s()? - before <= RESTING_CPU_S {
                return Ok(());
            }
            ensure!(Instant::now() < give_up_at, "{} does not rest", self.name);
        }
    }

    /// Has its script do something; what it prints. Blocks a thread meanwhile.
    pub fn ask(&mut self, verb: &str, words: &[&str]) -> anyhow::Result<String> {
        let words: Vec<String> = [&[verb, "1"], words]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect();
        let asked = tokio::task::block_in_place(|| self.guard.ask(&words));
        asked.map_err(|problem| anyhow!("{}: {problem}", self.name))
    }
}

/// What `name:` says in the lines of `info`.
fn value<'a>(info: &'a str, name: &str) -> anyhow::Result<&'a str> {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    let found = info.lines().find_map(value);
    Ok(found
        .with_context(|| format!("Redis does not say {name}"))?
        .trim())
}
