//! The embedded backend: every store port on one SQLite file (design section 5).
//!
//! Writes go through one thread that commits what is waiting together (`queue`,
//! `writer`); reads run on connections of their own and never wait for it. Durable
//! with `synchronous=FULL`: what a call has confirmed survives `kill -9` and power loss.
//!
//! What it does not do: share its file. One process has it, by a lock beside it. The
//! file does not shrink when a backlog drains; the space is used again.

mod accounts;
mod attempts;
mod audit;
mod dead_letters;
mod deliveries;
mod desk;
mod events;
pub mod examine;
mod fault;
mod health;
mod inbox;
mod ledger;
mod numbers;
mod outbox;
mod quarantine;
mod queue;
mod readers;
mod schema;
mod subscriptions;
mod writer;

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;

use crate::codec::vault::Vault;
use crate::ports::{Backend, Clock, StoreError};
use crate::telemetry::Telemetry;
use crate::telemetry::losses::Losses;
use deliveries::{DeliveryFeed, Schedule};
use desk::Desk;
use events::EventFeed;
use queue::{Lane, Queue};
use readers::Readers;
use writer::{Shared, Writer};

/// What the backend needs to know.
#[derive(Clone)]
pub struct SqliteSettings {
    /// The file; made when absent, in a directory that is there.
    pub path: PathBuf,
    /// How long the ledger remembers; zero: not at all.
    pub dedup_window: Duration,
    /// How long attempts are kept.
    pub audit_keep: Duration,
    /// How many attempts are kept of each subscription.
    pub audit_per_subscription: u32,
    /// How much of a request body is kept.
    pub audit_body_bytes: usize,
    /// Where deliveries are told that begin here.
    pub telemetry: Telemetry,
    /// Counts the attempts that could not be kept.
    pub audit_dropped: Arc<AtomicU64>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Encrypts signing secrets.
    pub vault: Vault,
}

/// Why the file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be made, read or locked.
    #[error("{}: {error}; the directory must exist and be writable", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// Another process has it.
    #[error("another Carillon process uses {}; stop it first, or set another `embedded.path`", .0.display())]
    InUse(PathBuf),
    /// A newer Carillon wrote it.
    #[error(
        "the file was written by a newer Carillon (format {found}, this one knows {known}); use that version, or another `embedded.path`"
    )]
    Newer {
        /// Its version.
        found: i32,
        /// Ours.
        known: i32,
    },
    /// Something else wrote it.
    #[error("the file is no Carillon database; set another `embedded.path`")]
    NotOurs,
    /// SQLite did not do as asked.
    #[error("SQLite: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

impl OpenError {
    /// An error of the first look into a file.
    fn unreadable(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase) => Self::NotOurs,
            _ => Self::Sqlite(error),
        }
    }
}

/// The embedded backend. Dropping it makes durable what was accepted.
pub struct Sqlite {
    settings: SqliteSettings,
    losses: Arc<Losses>,
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    readers: Arc<Readers>,
    events: Arc<tokio::sync::Mutex<EventFeed>>,
    event_desk: Arc<Desk>,
    deliveries: Arc<tokio::sync::Mutex<DeliveryFeed>>,
    delivery_desk: Arc<Desk>,
    schedule: Arc<Schedule>,
    books: Mutex<accounts::Books>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Last, so that the file is free only when nothing here uses it any more.
    lock: Mutex<Option<File>>,
}

impl Sqlite {
    /// Opens the file, or makes it, and starts the writer.
    ///
    /// # Errors
    /// [`OpenError`]; the file is unchanged then.
    pub fn open(settings: SqliteSettings) -> Result<Arc<Self>, OpenError> {
        let path = std::path::absolute(&settings.path).map_err(|error| OpenError::File {
            path: settings.path.clone(),
            error,
        })?;
        let lock = lock(&path)?;
        private_file(&path)?;
        let conn = writing_connection(&path)?;
        schema::prepare(&conn)?;
        enter_wal(&conn)?;

        let losses = Arc::new(Losses::new(Arc::clone(&settings.audit_dropped)));
        let queue = Arc::new(Queue::default());
        let event_desk = Arc::new(Desk::new(Lane::Events, Arc::clone(&queue)));
        let delivery_desk = Arc::new(Desk::new(Lane::Deliveries, Arc::clone(&queue)));
        let schedule = Arc::new(Schedule::default());
        let shared = Arc::new(Shared::count(&conn)?);
        let books = accounts::Books::open(&conn)?;
        let readers = Arc::new(Readers::new(path.clone()));
        let events = EventFeed::new(readers::connect(&path)?);
        let deliveries = DeliveryFeed::new(readers::connect(&path)?);
        let writer = Writer {
            queue: Arc::clone(&queue),
            shared: Arc::clone(&shared),
            event_desk: Arc::clone(&event_desk),
            delivery_desk: Arc::clone(&delivery_desk),
            schedule: Arc::clone(&schedule),
            settings: settings.clone(),
            losses: Arc::clone(&losses),
        };
        let thread = writer.start(conn)?;
        Ok(Arc::new(Self {
            settings,
            losses,
            queue,
            shared,
            readers,
            events: Arc::new(tokio::sync::Mutex::new(events)),
            event_desk,
            deliveries: Arc::new(tokio::sync::Mutex::new(deliveries)),
            delivery_desk,
            schedule,
            books: Mutex::new(books),
            writer: Mutex::new(Some(thread)),
            lock: Mutex::new(Some(lock)),
        }))
    }

    /// Stops at once, as a crash would: what is not durable yet is forgotten, and every
    /// further call fails. The file can be opened again. For tests of recovery.
    #[doc(hidden)]
    pub fn crash(&self) {
        self.queue.abandon();
        self.stop();
        locked(&self.lock).take();
    }

    /// Waits for the writer to end, and wakes who waits for messages.
    fn stop(&self) {
        let own = std::thread::current().id();
        // A listener that drops the store runs on the writer itself, which then ends alone.
        if let Some(thread) = locked(&self.writer).take()
            && thread.thread().id() != own
            && thread.join().is_err()
        {
            tracing::error!("the SQLite writer ended in a panic");
        }
        self.event_desk.ring();
        self.delivery_desk.ring();
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.queue.close();
        self.stop();
    }
}

#[async_trait]
impl Backend for Sqlite {
    /// The writer works and the file can be read.
    async fn ready(&self) -> Result<(), String> {
        self.shared.health()?;
        self.queue.open().map_err(|error| error.to_string())?;
        let look = |conn: &Connection| {
            let mut query = conn.prepare_cached("SELECT id FROM subscriptions LIMIT 1")?;
            query.exists(())
        };
        let looked = self.readers.read(look).await;
        looked.map(drop).map_err(|error| error.to_string())
    }

    /// From counts that are kept, not from the tables; how many deliveries are due is in their
    /// index.
    async fn queue_sizes(&self) -> Result<Vec<(&'static str, u64)>, StoreError> {
        self.queue.open()?;
        let now = self.settings.clock.now();
        let count = move |conn: &Connection| {
            let sql = "SELECT COUNT(*) FROM deliveries WHERE due_ms <= ?";
            let mut query = conn.prepare_cached(sql)?;
            query.query_row([now.0], |row| row.get::<_, i64>(0))
        };
        let due = self.readers.read(count).await?;
        Ok(self.shared.sizes(due.cast_unsigned()))
    }

    fn counts_taken(&self) -> bool {
        true
    }

    /// Comes back when all is durable, or after some tries that failed: a full disk must
    /// not hold up the end for ever.
    async fn flush(&self) {
        const TRIES: u32 = 5;
        const PAUSE: Duration = Duration::from_millis(200);
        for _ in 0..TRIES {
            let nothing = |_: &mut writer::Tx<'_>| Ok(Ok(()));
            self.queue.hurry();
            let mut written = self.queue.write(nothing).await;
            if written.is_ok() {
                // Attempts may have come after that, in a transaction of their own.
                written = self.queue.write(nothing).await;
            }
            match written {
                Ok(()) if !self.queue.has_lazy() => return,
                Ok(()) => {}
                Err(_) if self.queue.open().is_err() => return,
                Err(error) => tracing::warn!(%error, "could not flush, trying again"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn close(&self) {
        self.flush().await;
        self.queue.close();
        self.stop();
        locked(&self.lock).take();
    }
}

/// Takes the lock beside `path`. The system gives it back when the process ends.
fn lock(path: &Path) -> Result<File, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = private_file(Path::new(&name))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(OpenError::File {
            path: PathBuf::from(name),
            error,
        }),
    }
}

/// Opens or makes a file that only its owner may read: it holds secrets.
///
/// SQLite gives the files beside the database the rights of the database.
fn private_file(path: &Path) -> Result<File, OpenError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|error| OpenError::File {
        path: path.to_owned(),
        error,
    })
}

/// The one connection that writes.
fn writing_connection(path: &Path) -> rusqlite::Result<Connection> {
    let flags =
        rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(readers::BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(readers::STATEMENTS_CACHED);
    Ok(conn)
}

/// Only once the file is known to be ours: the journal mode is written into it.
fn enter_wal(conn: &Connection) -> rusqlite::Result<()> {
    conn.query_row("PRAGMA journal_mode = WAL", (), |_| Ok(()))?;
    conn.execute_batch(
        // Checkpoints every 64 MiB of log: ledger keys are random, and a page that was
        // written several times since the last is written back once.
        "PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = OFF;
         PRAGMA secure_delete = FAST;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -32768;
         PRAGMA wal_autocheckpoint = 16384;
         PRAGMA journal_size_limit = 134217728;",
    )
}

/// Locks, also after a panic elsewhere: what is locked here is whole between statements.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
