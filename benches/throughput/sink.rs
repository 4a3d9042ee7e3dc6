//! The sink: a process that answers every request with 200 and counts.
//!
//! Says its URL, then says so when all requests it waits for have come, and answers each
//! line it is told with its counts. It ends when its input does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::ensure;
use carillon::cli::receiver::{Receiver, ReceiverSettings, Reply};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::Notify;

use crate::load::{Load, delivered_body};
use crate::process::{Process, say};

const ALL_CAME: &str = "all came";

/// What the sink has counted.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Counted {
    /// Connections accepted.
    pub connections: u64,
    /// Requests read.
    pub requests: u64,
    /// Bytes of their bodies.
    pub body_bytes: u64,
}

/// Is the sink.
pub async fn run(deliveries: u64) -> anyhow::Result<()> {
    let all_came = Arc::new(Notify::new());
    let (seen, bell) = (AtomicU64::new(0), Arc::clone(&all_came));
    let receiver = Receiver::start(ReceiverSettings {
        observer: Some(Arc::new(move |_, _: &Reply| {
            if seen.fetch_add(1, Relaxed) + 1 == deliveries {
                bell.notify_one();
            }
        })),
        ..ReceiverSettings::default()
    })
    .await?;
    say(&receiver.url());
    let mut asked = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            () = all_came.notified() => say(ALL_CAME),
            line = asked.next_line() => match line? {
                Some(_) => say(&serde_json::to_string(&counted(&receiver))?),
                None => return Ok(()),
            },
        }
    }
}

fn counted(receiver: &Receiver) -> Counted {
    let counts = receiver.counts();
    Counted {
        connections: counts.connections,
        requests: counts.requests,
        body_bytes: counts.body_bytes,
    }
}

/// A sink in a process of its own.
pub struct Sink {
    /// Its process.
    pub process: Process,
    /// Where it listens.
    pub url: String,
}

impl Sink {
    /// Starts a sink that waits for `deliveries`.
    pub async fn start(deliveries: u64) -> anyhow::Result<Self> {
        let args = ["--sink".to_owned(), deliveries.to_string()];
        let mut process = Process::start_self("the sink", &args)?;
        let url = process.line().await?;
        Ok(Self { process, url })
    }

    /// Waits until all it waits for have come.
    pub async fn all_came(&mut self) -> anyhow::Result<()> {
        let line = self.process.line().await?;
        ensure!(line == ALL_CAME, "the sink said {line}");
        Ok(())
    }

    /// Checks that it got what `load` says, each once.
    pub async fn check(&mut self, load: &Load) -> anyhow::Result<Counted> {
        self.process.tell("count")?;
        let counted: Counted = serde_json::from_str(&self.process.line().await?)?;
        let deliveries = load.deliveries();
        let requests = counted.requests;
        ensure!(
            requests == deliveries,
            "{requests} requests, not {deliveries}"
        );
        let size = delivered_body().len() as u64;
        let mean = counted.body_bytes / requests;
        ensure!(
            counted.body_bytes == requests * size,
            "bodies of {mean} bytes, not {size}"
        );
        Ok(counted)
    }
}
