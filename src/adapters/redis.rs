//! Subscriptions, ledger, audit log, rates and endpoint health on Redis, shared by all
//! replicas.
//!
//! Works with one server, a cluster, or sentinels; from Redis 6.2. What is here survives
//! what Redis survives: with `appendonly yes` and `appendfsync everysec` up to a second may
//! be lost, and a replica that takes over may miss the last writes.
//!
//! A marker key says that a Redis is ours. Where it is missing, reading subscriptions is an
//! error: a Redis that was flushed, or another one, is never taken for one without
//! subscriptions. Keys of subscriptions share one hash tag and so one node, and so does what
//! is deleted with them; all others are spread.

mod accounts;
mod audit;
mod changes;
pub mod examine;
mod health;
mod ledger;
mod link;
mod rates;
mod replicas;
mod scripts;
mod subscriptions;
mod target;
mod trail;
mod watch;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::codec::vault::Vault;
use crate::config::RedisUrl;
use crate::ports::{Backend, Clock, StoreError};
use crate::telemetry::Telemetry;
use crate::telemetry::losses::Losses;
use changes::Changes;
use link::Link;
use scripts::Scripts;
pub use target::OpenError;
use target::Target;
use watch::Seen;

/// How long [`Backend::ready`] waits for Redis.
const READY_LIMIT: Duration = Duration::from_secs(1);
/// How long [`Backend::flush`] tries.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);
/// How long it tries while Redis cannot be reached.
const FLUSH_DOWN_LIMIT: Duration = Duration::from_secs(1);
/// How long to wait before a loop that ended in a panic is begun again.
const BEGIN_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What the adapter needs to know.
#[derive(Clone)]
pub struct RedisSettings {
    /// Where Redis is.
    pub url: RedisUrl,
    /// PEM certificates trusted on top of the system's.
    pub ca_file: Option<PathBuf>,
    /// What the names of keys begin with.
    pub prefix: String,
    /// How long the ledger remembers; zero: not at all.
    pub dedup_window: Duration,
    /// How long attempts are kept.
    pub audit_keep: Duration,
    /// How many attempts are kept of each subscription.
    pub audit_per_subscription: u32,
    /// How much of a request body is kept.
    pub audit_body_bytes: usize,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where changes of the connection are told.
    pub telemetry: Telemetry,
    /// Counts the attempts that could not be kept.
    pub audit_dropped: Arc<AtomicU64>,
    /// Encrypts signing secrets.
    pub vault: Vault,
}

/// Every port that Redis is behind. Dropping it ends its loops.
pub struct Redis {
    core: Arc<Core>,
}

/// What the loops share.
struct Core {
    settings: RedisSettings,
    keys: Keys,
    scripts: Scripts,
    link: Link,
    changes: Changes,
    ledger: ledger::Queue,
    audit: audit::Buffer,
    losses: Losses,
    replicas: replicas::Replicas,
    /// How Redis was, the last time it was asked.
    seen: Mutex<Seen>,
    /// Whether the marker was missing then.
    unmarked: AtomicBool,
    /// Rung to ask at once.
    look_now: Notify,
    /// Whether messages about changes come.
    hears: AtomicBool,
    /// Rung when they should have come, and did not.
    deaf: Notify,
    stop: CancellationToken,
}

/// The names of the keys of subscriptions, all with one hash tag.
struct Keys {
    prefix: String,
    /// The id that says that this Redis is ours.
    marker: String,
    /// Hash: id to version, scope and record.
    records: String,
    /// Sorted set of ids.
    ids: String,
    /// Sorted set of `<scope> <id>`.
    by_scope: String,
    /// Hash: scope to the stamp of its last change.
    versions: String,
    /// The stamp of the last change of all.
    stamp: String,
    /// Hash: id to since when its endpoint fails. It may be absent.
    failing: String,
    /// Hash: how many deliveries began, and how they ended. With what each process said last, whose
    /// keys begin as this one.
    accounts: String,
    /// Where changes are published.
    channel: String,
}

impl Keys {
    fn new(prefix: &str) -> Self {
        let key = |name: &str| format!("{{{prefix}}}:{name}");
        Self {
            prefix: prefix.to_owned(),
            marker: key("marker"),
            records: key("subscriptions"),
            ids: key("ids"),
            by_scope: key("scopes"),
            versions: key("versions"),
            stamp: key("stamp"),
            failing: key("failing"),
            accounts: key("accounts"),
            channel: key("changes"),
        }
    }
}

impl Redis {
    /// Begins to connect, and does not wait for it. Within a Tokio runtime.
    ///
    /// # Errors
    /// [`OpenError`] for settings that can never work.
    pub fn open(settings: RedisSettings) -> Result<Arc<Self>, OpenError> {
        let target = Target::new(settings.url.clone(), settings.ca_file.as_deref())?;
        let redis = Self {
            core: Arc::new(Core {
                keys: Keys::new(&settings.prefix),
                losses: Losses::new(Arc::clone(&settings.audit_dropped)),
                settings,
                scripts: Scripts::new(),
                link: Link::new(target),
                changes: Changes::default(),
                ledger: ledger::Queue::new(),
                audit: audit::Buffer::new(),
                replicas: replicas::Replicas::new(),
                seen: Mutex::default(),
                unmarked: AtomicBool::new(false),
                look_now: Notify::new(),
                hears: AtomicBool::new(false),
                deaf: Notify::new(),
                stop: CancellationToken::new(),
            }),
        };
        redis.keep_running("connection", watch::keep_connected);
        redis.keep_running("messages", watch::hear);
        redis.keep_running("gaps", watch::close_gaps);
        redis.keep_running("ledger", ledger::write);
        redis.keep_running("audit", audit::write);
        redis.keep_running("replicas", replicas::keep_counted);
        Ok(Arc::new(redis))
    }

    /// Waits until it is connected, at most `patience`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] with why it is not.
    pub async fn connected(&self, patience: Duration) -> Result<(), StoreError> {
        let up = self.core.link.wait_up();
        match tokio::time::timeout(patience, up).await {
            Ok(()) => Ok(()),
            Err(_) => self.core.link.usable(),
        }
    }

    /// Marks an empty Redis as ours; says whether it did, or the marker was there. After a
    /// loss this accepts the loss.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn init(&self) -> Result<bool, StoreError> {
        self.core.mark().await
    }

    /// Stops at once, as a crash would: what is not written yet is forgotten, and every
    /// further call fails. For tests of recovery.
    #[doc(hidden)]
    pub fn crash(&self) {
        self.core.stop.cancel();
        self.core.link.close();
        let lost = self.core.audit.close();
        self.core
            .losses
            .lost(lost, &"it ends before they are written");
    }

    /// Runs an endless loop until the end. One that panics is begun again.
    fn keep_running<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: &'static str,
        begin: impl Fn(Arc<Core>) -> F + Send + 'static,
    ) {
        let core = Arc::clone(&self.core);
        let stop = core.stop.clone();
        let run = async move {
            loop {
                let running = std::panic::AssertUnwindSafe(begin(Arc::clone(&core)));
                let _ = running.catch_unwind().await;
                tracing::error!(name, "a loop of the Redis adapter ended; begun again");
                tokio::time::sleep(BEGIN_AGAIN_AFTER).await;
            }
        };
        tokio::spawn(async move { stop.run_until_cancelled(run).await });
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.crash();
    }
}

impl Core {
    /// Whether it was never connected yet.
    fn is_new(&self) -> bool {
        *locked(&self.seen) == Seen::default() && !self.unmarked.load(Ordering::Acquire)
    }

    /// What to do about a Redis without our marker.
    fn no_marker(&self) -> String {
        let prefix = &self.keys.prefix;
        if self.changes.has_epoch() {
            format!(
                "Redis lost its data: there is none under the prefix `{prefix}` any more; \
                 `carillon subscriptions apply -f FILE` restores all subscriptions at once, \
                 `carillon init` accepts the loss"
            )
        } else {
            format!(
                "Redis answers, but holds no Carillon data under the prefix `{prefix}`: \
                 `carillon init` marks a new one; after a loss, \
                 `carillon subscriptions apply -f FILE` restores the subscriptions"
            )
        }
    }
}

#[async_trait]
impl Backend for Redis {
    /// Redis answers and holds our marker.
    async fn ready(&self) -> Result<(), String> {
        let core = &self.core;
        let looked = core.record_of("", READY_LIMIT).await;
        looked.map(drop).map_err(|error| match error {
            StoreError::Unavailable(why) | StoreError::Lost(why) => why,
            other => other.to_string(),
        })
    }

    /// None: there are no messages here.
    async fn queue_sizes(&self) -> Result<Vec<(&'static str, u64)>, StoreError> {
        Ok(Vec::new())
    }

    /// Writes what waits, for a few seconds at most; a shorter time while Redis is away.
    async fn flush(&self) {
        let core = &self.core;
        let flush = async {
            // Answered after all that waits before it.
            let _ = core.record(Vec::new()).await;
            core.audit.flushed().await;
        };
        let limit = match core.link.usable() {
            Ok(()) => FLUSH_LIMIT,
            Err(_) => FLUSH_DOWN_LIMIT,
        };
        if tokio::time::timeout(limit, flush).await.is_err() {
            tracing::warn!("Redis did not take all that waited to be written");
        }
    }

    async fn close(&self) {
        self.flush().await;
        self.core.leave().await;
        self.crash();
    }
}

/// As Redis takes it: whole milliseconds, rounded up, and no more than it can add to now.
fn expiry_ms(after: Duration) -> u64 {
    const LONGEST_MS: u64 = 100 * 366 * 24 * 3600 * 1000;
    let ms = after.as_nanos().div_ceil(1_000_000);
    u64::try_from(ms).unwrap_or(u64::MAX).min(LONGEST_MS)
}

/// Locks, also after a panic elsewhere: what is locked here is whole between statements.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
