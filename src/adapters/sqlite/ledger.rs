//! [`Ledger`]: which subscriptions of an event are settled, for `dedup.window`.
//!
//! Each group commit adds one row per event, with the subscriptions that settled in it.
//! It expires on its own.

use std::collections::BTreeSet;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use rusqlite::{Connection, params};

use super::Sqlite;
use super::writer::Tx;
use crate::domain::id::{LedgerKey, SubscriptionId};
use crate::domain::timestamp::UnixMillis;
use crate::ports::{Ledger, StoreError};

/// The most rows deleted in one transaction.
const PRUNE_MAX: usize = 1000;

#[async_trait]
impl Ledger for Sqlite {
    async fn settled(&self, keys: &[LedgerKey]) -> Result<Vec<Vec<SubscriptionId>>, StoreError> {
        if self.settings.dedup_window.is_zero() || keys.is_empty() {
            return Ok(vec![Vec::new(); keys.len()]);
        }
        self.queue.open()?;
        let now = self.settings.clock.now();
        let keys = keys.to_vec();
        let look = move |conn: &Connection| {
            // One transaction: each of its own would take and give back the file's locks.
            let tx = conn.unchecked_transaction()?;
            let found = keys.iter().map(|key| settled(&tx, *key, now)).collect();
            tx.commit()?;
            found
        };
        self.readers.read(look).await
    }

    async fn record(&self, settled: Vec<(LedgerKey, SubscriptionId)>) -> Result<(), StoreError> {
        if self.settings.dedup_window.is_zero() {
            return Ok(());
        }
        let each = settled.into_iter();
        let records = each.map(|(key, subscription)| self.queue.record(key, subscription));
        try_join_all(records).await.map(drop)
    }
}

/// Writes what this transaction settles, one row per event.
pub(super) fn write(tx: &mut Tx<'_>) -> rusqlite::Result<()> {
    let expires = tx.now.after(tx.settings.dedup_window);
    let mut insert = tx.conn.prepare_cached(
        "INSERT INTO ledger (key, expires_ms, settled) VALUES (?, ?, ?)
         ON CONFLICT (key, expires_ms) DO UPDATE SET settled = settled || ' ' || excluded.settled",
    )?;
    for (key, settled) in &tx.settled {
        insert.execute(params![key.0, expires.0, settled])?;
    }
    Ok(())
}

/// Deletes some of what expired; says whether there may be more.
pub(super) fn prune(conn: &Connection, now: UnixMillis) -> rusqlite::Result<bool> {
    let deleted = conn
        .prepare_cached(
            "DELETE FROM ledger WHERE (key, expires_ms) IN (
               SELECT key, expires_ms FROM ledger WHERE expires_ms <= ?
               ORDER BY expires_ms LIMIT ?)",
        )?
        .execute((now.0, super::events::count(PRUNE_MAX)))?;
    Ok(deleted == PRUNE_MAX)
}

fn settled(
    conn: &Connection,
    key: LedgerKey,
    now: UnixMillis,
) -> rusqlite::Result<Vec<SubscriptionId>> {
    let mut query =
        conn.prepare_cached("SELECT settled FROM ledger WHERE key = ? AND expires_ms > ?")?;
    let mut rows = query.query(params![key.0, now.0])?;
    let mut found = BTreeSet::new();
    while let Some(row) = rows.next()? {
        let ids = row.get_ref(0)?.as_str()?.split(' ');
        // What cannot be read is delivered again, which is safe.
        found.extend(ids.filter_map(|id| SubscriptionId::parse(id).ok()));
    }
    Ok(found.into_iter().collect())
}
