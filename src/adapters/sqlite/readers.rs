//! Reading: a few connections that cannot write, and the errors of both directions.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::types::{ToSql, Value};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use super::locked;
use crate::domain::id::TenantId;
use crate::ports::StoreError;

/// How many reads run at once. More would not read faster from one file.
const READERS_MAX: usize = 4;
/// How long a connection waits for a lock; in WAL mode only recovery takes one.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// More than there are statements.
pub(super) const STATEMENTS_CACHED: usize = 64;

/// Connections that read.
pub(super) struct Readers {
    path: PathBuf,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

/// The conditions of a query, joined with `AND`.
#[derive(Default)]
pub(super) struct Conditions {
    sql: String,
    values: Vec<Value>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            permits: Arc::new(Semaphore::new(READERS_MAX)),
            idle: Mutex::default(),
        }
    }

    /// Runs `query` where blocking is allowed. A connection that failed is not used again.
    pub(super) async fn read<T, F>(self: &Arc<Self>, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let readers = Arc::clone(self);
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        blocking(move || {
            let _permit = permit;
            let idle = locked(&readers.idle).pop();
            let conn = match idle {
                Some(conn) => conn,
                None => connect(&readers.path)?,
            };
            let found = query(&conn)?;
            locked(&readers.idle).push(conn);
            Ok(found)
        })
        .await?
        .map_err(|error| store_error(&error))
    }
}

impl Conditions {
    /// Adds `sql`, which holds one `?` for `value`.
    pub(super) fn add(&mut self, sql: &str, value: impl Into<Value>) {
        self.add_all(sql, [value]);
    }

    /// Adds `sql`, which holds a `?` for each of `values`.
    pub(super) fn add_all<V: Into<Value>>(
        &mut self,
        sql: &str,
        values: impl IntoIterator<Item = V>,
    ) {
        self.literal(sql);
        self.values.extend(values.into_iter().map(Into::into));
    }

    /// Adds `sql`, which holds no `?`.
    pub(super) fn literal(&mut self, sql: &str) {
        self.sql
            .push_str(if self.sql.is_empty() { "" } else { " AND " });
        self.sql.push_str(sql);
    }

    /// Adds that it belongs to a tenant.
    pub(super) fn of_owner(&mut self, owner: &TenantId) {
        self.add("tenant = ?", owner.as_str().to_owned());
        self.literal("shared = 0");
    }

    /// The clause, beginning with `WHERE`; empty when there are no conditions.
    pub(super) fn clause(&self) -> String {
        if self.sql.is_empty() {
            return String::new();
        }
        format!("WHERE {}", self.sql)
    }

    /// The values in the order of their `?`.
    pub(super) fn values(&self) -> Vec<&dyn ToSql> {
        self.values
            .iter()
            .map(|value| value as &dyn ToSql)
            .collect()
    }
}

/// A new connection that reads.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    Ok(conn)
}

/// Runs `work` where blocking is allowed.
pub(super) async fn blocking<T, F>(work: F) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| StoreError::Unavailable(format!("reading was cut short: {error}")))
}

/// What an error of SQLite means to who asked.
pub(super) fn store_error(error: &rusqlite::Error) -> StoreError {
    use rusqlite::{Error, ErrorCode};
    match error {
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::Utf8Error(..) => StoreError::Damaged(error.to_string()),
        _ => match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                StoreError::Damaged(error.to_string())
            }
            _ => StoreError::Unavailable(error.to_string()),
        },
    }
}
