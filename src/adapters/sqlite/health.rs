//! [`EndpointHealth`]: one row per endpoint that fails, gone with its next success.
//!
//! Of an endpoint whose subscription is not there nothing is kept: an attempt that was under
//! way when it was deleted leaves no row behind.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::Sqlite;
use super::writer::Tx;
use crate::domain::id::SubscriptionId;
use crate::domain::timestamp::UnixMillis;
use crate::ports::{EndpointHealth, StoreError};

#[async_trait]
impl EndpointHealth for Sqlite {
    async fn failed(
        &self,
        endpoint: &SubscriptionId,
        at: UnixMillis,
    ) -> Result<UnixMillis, StoreError> {
        let endpoint = endpoint.clone();
        let write = move |tx: &mut Tx<'_>| since(tx.conn, &endpoint, at).map(Ok);
        self.queue.write(write).await
    }

    async fn succeeded(
        &self,
        endpoints: &[(SubscriptionId, UnixMillis)],
    ) -> Result<(), StoreError> {
        if endpoints.is_empty() {
            return Ok(());
        }
        let endpoints = endpoints.to_vec();
        let write = move |tx: &mut Tx<'_>| {
            let mut forget = tx.conn.prepare_cached(
                "DELETE FROM failing WHERE subscription_id = ? AND since_ms <= ?",
            )?;
            for (endpoint, at) in &endpoints {
                forget.execute(params![endpoint.as_str(), at.0])?;
            }
            Ok(Ok(()))
        };
        self.queue.write(write).await
    }

    async fn failing(&self) -> Result<Vec<(SubscriptionId, UnixMillis)>, StoreError> {
        self.queue.open()?;
        let look = |conn: &Connection| {
            let mut query = conn.prepare_cached("SELECT subscription_id, since_ms FROM failing")?;
            let rows = query.query_map((), |row| {
                let endpoint = SubscriptionId::parse(row.get_ref(0)?.as_str()?).ok();
                Ok(endpoint.zip(Some(UnixMillis(row.get(1)?))))
            })?;
            rows.filter_map(Result::transpose).collect()
        };
        self.readers.read(look).await
    }
}

/// Since when an endpoint fails that failed at `at`. Reads first: writing what is there
/// already would cost an fsync.
fn since(
    conn: &Connection,
    endpoint: &SubscriptionId,
    at: UnixMillis,
) -> rusqlite::Result<UnixMillis> {
    let kept: Option<i64> = conn
        .prepare_cached("SELECT since_ms FROM failing WHERE subscription_id = ?")?
        .query_row([endpoint.as_str()], |row| row.get(0))
        .optional()?;
    if let Some(since) = kept
        && since <= at.0
    {
        return Ok(UnixMillis(since));
    }
    conn.prepare_cached(
        "INSERT OR REPLACE INTO failing (subscription_id, since_ms)
         SELECT id, ?2 FROM subscriptions WHERE id = ?1",
    )?
    .execute(params![endpoint.as_str(), at.0])?;
    Ok(at)
}

/// Forgets an endpoint whose subscription is deleted.
pub(super) fn forget(tx: &Tx<'_>, endpoint: &SubscriptionId) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached("DELETE FROM failing WHERE subscription_id = ?")?
        .execute([endpoint.as_str()])
        .map(drop)
}
