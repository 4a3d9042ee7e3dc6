-- What files of version 1 began with, for testing that they are brought up to date.
-- It stays as it is: such files are out there.

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
-- it replaces void.
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

PRAGMA application_id = 0x43524c4e;
PRAGMA user_version = 1;
