//! The tables, and whether a file is one of ours.
//!
//! Rows that are handed out in an order have an integer key that only grows while the
//! process runs, so that a key is never used twice for two messages.

use rusqlite::Connection;

use super::OpenError;

/// What `PRAGMA application_id` says in files of ours: "CRLN".
const APPLICATION_ID: i32 = 0x4352_4c4e;

/// The version of the tables below.
pub(super) const VERSION: i32 = 3;

/// The tables of version 1. Files with them are out there: what changes is a step.
const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- `continuation` is set for the rest of a big fan-out: the same rest is kept once.
CREATE TABLE events (
  id INTEGER PRIMARY KEY,
  body BLOB NOT NULL,
  content_type TEXT,
  traceparent TEXT,
  resume_after TEXT,
  continuation BLOB
) STRICT;
CREATE UNIQUE INDEX events_continuation ON events (continuation)
  WHERE continuation IS NOT NULL;

-- A delivery that is put again gets a new `seq`, which makes receipts of the row that
-- it replaces void. `id` is the delivery's own; each of its redeliveries has a row too,
-- with its series behind a plus.
CREATE TABLE deliveries (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  due_ms INTEGER NOT NULL,
  envelope BLOB NOT NULL
) STRICT;
CREATE INDEX deliveries_due ON deliveries (due_ms);

CREATE TABLE dead_letters (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  tenant TEXT NOT NULL,
  subscription_id TEXT NOT NULL,
  reason TEXT NOT NULL,
  dead_ms INTEGER NOT NULL,
  envelope BLOB NOT NULL
) STRICT;
CREATE INDEX dead_letters_dead ON dead_letters (dead_ms);
CREATE INDEX dead_letters_tenant ON dead_letters (tenant, dead_ms);
CREATE INDEX dead_letters_subscription ON dead_letters (subscription_id, dead_ms);

CREATE TABLE quarantine (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  body BLOB NOT NULL,
  content_type TEXT,
  traceparent TEXT,
  resume_after TEXT,
  reason TEXT NOT NULL,
  field TEXT,
  sentence TEXT NOT NULL,
  at_ms INTEGER NOT NULL
) STRICT;

-- One row per event and group commit, not one per event: a big fan-out settles in many
-- commits, and would rewrite an ever longer row in each.
CREATE TABLE ledger (
  key BLOB NOT NULL,
  expires_ms INTEGER NOT NULL,
  settled TEXT NOT NULL,
  PRIMARY KEY (key, expires_ms)
) STRICT, WITHOUT ROWID;
CREATE INDEX ledger_expiry ON ledger (expires_ms);

CREATE TABLE subscriptions (
  id TEXT PRIMARY KEY,
  scope TEXT NOT NULL,
  version INTEGER NOT NULL,
  record BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX subscriptions_scope ON subscriptions (scope);

CREATE TABLE attempts (
  position INTEGER PRIMARY KEY,
  subscription_id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  tenant TEXT NOT NULL,
  event_id TEXT NOT NULL,
  delivery_id TEXT NOT NULL,
  delivered INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  record BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX attempts_subscription ON attempts (subscription_id, seq);
CREATE INDEX attempts_tenant ON attempts (tenant);
CREATE INDEX attempts_event ON attempts (event_id);
CREATE INDEX attempts_delivery ON attempts (delivery_id);
CREATE INDEX attempts_failed ON attempts (position) WHERE delivered = 0;
";

/// From version 1 to 2: endpoints that fail without a success, and since when.
const FAILING: &str = "
CREATE TABLE failing (
  subscription_id TEXT PRIMARY KEY,
  since_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// From version 2 to 3: whether a subscription was of every tenant, and so not the tenant's own.
/// What cannot be known any more is taken for not its own.
const SHARED: &str = "
ALTER TABLE attempts ADD COLUMN shared INTEGER NOT NULL DEFAULT 1;
ALTER TABLE dead_letters ADD COLUMN shared INTEGER NOT NULL DEFAULT 1;
UPDATE attempts SET shared = 0 WHERE EXISTS
  (SELECT 1 FROM subscriptions WHERE id = subscription_id AND scope = tenant);
UPDATE dead_letters SET shared = 0 WHERE EXISTS
  (SELECT 1 FROM subscriptions WHERE id = subscription_id AND scope = tenant);
";

/// Makes the tables in an empty file, brings an older one up to date, and checks that any
/// other is one of ours.
pub(super) fn prepare(conn: &Connection) -> Result<(), OpenError> {
    let steps: &[&str] = match version_of(conn)? {
        None => &[TABLES, FAILING, SHARED],
        Some(1) => &[FAILING, SHARED],
        Some(2) => &[SHARED],
        Some(_) => return Ok(()),
    };
    build(conn, steps).map_err(OpenError::Sqlite)
}

/// The version of a file of ours; `None` when it is empty. Changes nothing.
pub(super) fn version_of(conn: &Connection) -> Result<Option<i32>, OpenError> {
    let number = |sql: &str| conn.query_row(sql, (), |row| row.get::<_, i32>(0));
    let application = number("PRAGMA application_id").map_err(OpenError::unreadable)?;
    let version = number("PRAGMA user_version").map_err(OpenError::unreadable)?;
    let tables = number("SELECT COUNT(*) FROM sqlite_schema").map_err(OpenError::unreadable)?;
    match (application, version) {
        (0, 0) if tables == 0 => Ok(None),
        (APPLICATION_ID, 1..=VERSION) => Ok(Some(version)),
        (APPLICATION_ID, found) if found > VERSION => Err(OpenError::Newer {
            found,
            known: VERSION,
        }),
        _ => Err(OpenError::NotOurs),
    }
}

/// All in one transaction: a file that was begun and not finished is as it was before.
fn build(conn: &Connection, steps: &[&str]) -> rusqlite::Result<()> {
    conn.execute_batch(&format!(
        "BEGIN IMMEDIATE; {}
         PRAGMA application_id = {APPLICATION_ID};
         PRAGMA user_version = {VERSION};
         COMMIT;",
        steps.concat()
    ))
}
