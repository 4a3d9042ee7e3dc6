//! The endpoints: in this process, over plain HTTP, each with manners of its own.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use carillon::cli::receiver::{Behaviour, Received, Receiver, ReceiverSettings, Reply};
use http::StatusCode;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::arrivals::{Arrival, Arrivals};
use crate::clock::Clock;

/// Longer than any run.
const FOREVER: Duration = Duration::from_secs(24 * 3600);
/// Half of the endpoints may each hold `delivery.endpoint_max_in_flight` connections, and the
/// dispatcher has as many; with fewer files the bench would measure its own receiver.
const FILES_MIN: u64 = 4096;

/// How an endpoint behaves.
#[derive(Clone, Copy, Debug)]
pub enum Manner {
    /// 200, after so long.
    Answers(Duration),
    /// 500, at once.
    Fails,
    /// 500 for so long after its first request, then 200 after so long.
    Recovers {
        /// Since its first request.
        failing: Duration,
        /// Once it has recovered.
        answers: Duration,
    },
    /// Reads, and never answers.
    IsSilent,
    /// Accepts a connection, and resets it.
    Resets,
}

impl Manner {
    /// The status and the delay, so long after its first request.
    fn answer(self, since_first: Duration) -> (StatusCode, Duration) {
        let (failed, ok) = (StatusCode::INTERNAL_SERVER_ERROR, StatusCode::OK);
        match self {
            Self::Answers(delay) => (ok, delay),
            Self::Recovers { failing, .. } if since_first < failing => (failed, Duration::ZERO),
            Self::Recovers { answers, .. } => (ok, answers),
            Self::Fails | Self::Resets => (failed, Duration::ZERO),
            Self::IsSilent => (failed, FOREVER),
        }
    }
}

/// Running endpoints, by their number; dropped, they stop.
pub struct Endpoints {
    receiver: Receiver,
    resetting: Resetting,
    shared: Arc<Shared>,
}

struct Shared {
    clock: Clock,
    manners: Vec<Manner>,
    arrivals: Mutex<Arrivals>,
}

/// What is read of a request's body.
#[derive(Deserialize)]
struct Body {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    number: u64,
    sent_us: u64,
}

impl Endpoints {
    /// Starts one for each of `manners`.
    pub async fn start(clock: Clock, manners: Vec<Manner>) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            clock,
            manners,
            arrivals: Mutex::default(),
        });
        let answering = Arc::clone(&shared);
        let receiver = Receiver::start(ReceiverSettings {
            behaviour: Behaviour::scripted(move |received| answering.reply(received)),
            ..ReceiverSettings::default()
        })
        .await?;
        Ok(Self {
            receiver,
            resetting: Resetting::start().await?,
            shared,
        })
    }

    /// Where an endpoint is.
    pub fn url(&self, endpoint: usize) -> String {
        let base = match self.shared.manners[endpoint] {
            Manner::Resets => self.resetting.url.clone(),
            _ => self.receiver.url(),
        };
        format!("{base}/{endpoint}")
    }

    /// What has arrived so far.
    pub fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.shared.arrivals()
    }

    /// Connections that were reset.
    pub fn resets(&self) -> u64 {
        self.resetting.count.load(Relaxed)
    }
}

impl Shared {
    fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reply(&self, received: &Received) -> Reply {
        self.arrived(received).unwrap_or_else(|| {
            eprintln!("a request that nobody expects: {}", received.path);
            Reply::status(StatusCode::BAD_REQUEST)
        })
    }

    /// Takes note of a request, and says how it is answered; `None` when it is not one of ours.
    fn arrived(&self, received: &Received) -> Option<Reply> {
        let endpoint = received.path.strip_prefix('/')?.parse().ok()?;
        let manner = self.manners.get(endpoint)?;
        let body: Body = serde_json::from_slice(&received.body).ok()?;
        let mut arrivals = self.arrivals();
        // Under the lock, so that they are in the order of their times.
        let at = self.clock.now();
        let since_first = at.saturating_sub(arrivals.first_at(endpoint, at));
        let (status, delay) = manner.answer(since_first);
        arrivals.add(Arrival {
            endpoint,
            event: body.data.number,
            sent: Duration::from_micros(body.data.sent_us),
            at,
            answered_at: at + delay,
            acknowledged: status.is_success(),
            delivery: received.header("webhook-id")?.to_owned(),
        });
        Some(Reply::status(status).after(delay))
    }
}

/// A listener that resets every connection; dropped, it stops.
struct Resetting {
    url: String,
    count: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Resetting {
    async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let count = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&count);
        let accepting = tokio::spawn(async move {
            loop {
                if let Ok((connection, _)) = listener.accept().await {
                    // Closed without lingering, which sends RST.
                    let _ = connection.set_zero_linger();
                    counter.fetch_add(1, Relaxed);
                }
            }
        });
        Ok(Self {
            url,
            count,
            accepting,
        })
    }
}

impl Drop for Resetting {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Checks that this process and those it starts may open enough files.
pub fn check_files() -> anyhow::Result<()> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    // Without a number there is no limit.
    let files: u64 = soft
        .context("no limit of open files")?
        .parse()
        .unwrap_or(u64::MAX);
    ensure!(
        files >= FILES_MIN,
        "{files} open files are too few, {FILES_MIN} are needed: `ulimit -n {FILES_MIN}`"
    );
    Ok(())
}
