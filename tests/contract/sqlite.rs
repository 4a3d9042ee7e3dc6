//! The embedded backend under the contract.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use carillon::adapters::sqlite::{Sqlite, SqliteSettings};
use carillon::codec::vault::Vault;
use carillon::domain::timestamp::UnixMillis;
use carillon::ports::Clock;

use crate::harness::{Harness, Limits, Store};

/// 2026-03-01T12:30:00Z
const BEGIN_MS: i64 = 1_772_368_200_000;

pub struct SqliteHarness {
    sqlite: Arc<Sqlite>,
    limits: Limits,
    clock: Arc<SetClock>,
    directory: TempDir,
}

/// A clock that stands still until it is set on.
struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }
}

impl SqliteHarness {
    fn path(&self) -> PathBuf {
        self.directory.path().join("carillon.db")
    }

    fn open(path: PathBuf, limits: Limits, clock: Arc<SetClock>) -> Arc<Sqlite> {
        Sqlite::open(SqliteSettings {
            vault: Vault::default(),
            path,
            dedup_window: limits.dedup_window,
            audit_keep: limits.audit_keep,
            audit_per_subscription: limits.audit_per_subscription,
            audit_body_bytes: limits.audit_body_bytes,
            audit_dropped: Arc::default(),
            telemetry: carillon::telemetry::Telemetry::new().unwrap(),
            clock,
        })
        .unwrap()
    }
}

impl Harness for SqliteHarness {
    async fn start(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(SetClock(BEGIN_MS.into()));
        let path = directory.path().join("carillon.db");
        Self {
            sqlite: Self::open(path, limits, Arc::clone(&clock)),
            limits,
            clock,
            directory,
        }
    }

    fn store(&self) -> Store {
        let sqlite = || Arc::clone(&self.sqlite);
        Store {
            inbox: sqlite(),
            outbox: sqlite(),
            ledger: sqlite(),
            health: sqlite(),
            accounts: sqlite(),
            subscriptions: sqlite(),
            audit: sqlite(),
            dead_letters: sqlite(),
            quarantine: sqlite(),
            backend: sqlite(),
        }
    }

    async fn crash(&mut self) {
        self.sqlite.crash();
        self.sqlite = Self::open(self.path(), self.limits, Arc::clone(&self.clock));
    }

    /// Takes every table away, by another connection.
    async fn break_down(&mut self) {
        let conn = rusqlite::Connection::open(self.path()).unwrap();
        let tables =
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
        let mut query = conn.prepare(tables).unwrap();
        let names = query.query_map((), |row| row.get::<_, String>(0)).unwrap();
        let names: Vec<String> = names.map(Result::unwrap).collect();
        for name in names {
            conn.execute_batch(&format!("DROP TABLE {name}")).unwrap();
        }
    }

    fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    async fn pass(&self, time: Duration) {
        let ms = i64::try_from(time.as_millis()).unwrap();
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }
}
