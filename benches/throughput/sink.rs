//! The sink: a process that answers every request with 200 and counts.
//!
//! Says its URL, then says so when all requests it waits for have come, and answers each
//! line it is told with its counts. It ends when its input does.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::ensure;
use carillon::cli::receiver::{Received, Receiver, ReceiverSettings, Reply};
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
    /// How many different `webhook-id`s they had.
    pub ids: u64,
    /// Bytes of their bodies.
    pub body_bytes: u64,
}

/// Is the sink.
pub async fn run(deliveries: u64) -> anyhow::Result<()> {
    let all_came = Arc::new(Notify::new());
    let seen = Arc::new(Seen::default());
    let (observer, bell) = (Arc::clone(&seen), Arc::clone(&all_came));
    let receiver = Receiver::start(ReceiverSettings {
        observer: Some(Arc::new(move |received, _: &Reply| {
            if observer.note(&received) == deliveries {
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
                Some(_) => say(&serde_json::to_string(&counted(&receiver, &seen))?),
                None => return Ok(()),
            },
        }
    }
}

/// What has come, to tell a repetition from something new.
#[derive(Default)]
struct Seen {
    /// How many requests, and the hashes of their ids: as good as the ids, and smaller.
    requests: Mutex<(u64, HashSet<u64>)>,
    hasher: RandomState,
}

impl Seen {
    /// Notes a request; says the how manieth it is.
    fn note(&self, received: &Received) -> u64 {
        let id = self.hasher.hash_one(received.header("webhook-id"));
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.0 += 1;
        requests.1.insert(id);
        requests.0
    }

    fn ids(&self) -> u64 {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.1.len() as u64
    }
}

fn counted(receiver: &Receiver, seen: &Seen) -> Counted {
    let counts = receiver.counts();
    Counted {
        connections: counts.connections,
        requests: counts.requests,
        ids: seen.ids(),
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
        self.process.says(ALL_CAME).await
    }

    /// What it has got so far.
    pub async fn count(&mut self) -> anyhow::Result<Counted> {
        self.process.tell("count")?;
        Ok(serde_json::from_str(&self.process.line().await?)?)
    }

    /// Checks that it got as many requests as `load` says, with so many different ids.
    pub async fn check(&mut self, load: &Load, ids: u64) -> anyhow::Result<Counted> {
        let counted = self.count().await?;
        let deliveries = load.deliveries();
        let requests = counted.requests;
        ensure!(
            requests == deliveries,
            "{requests} requests, not {deliveries}"
        );
        ensure!(
            counted.ids == ids,
            "{} different webhook-ids, not {ids}",
            counted.ids
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
