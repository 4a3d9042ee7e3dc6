//! [`DeadLetterQueue`]: deliveries that were given up, oldest first.

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, Row, params};

use super::Sqlite;
use super::events::count;
use super::outbox::{insert_delivery, row_name};
use super::readers::Conditions;
use super::writer::Tx;
use crate::codec;
use crate::domain::delivery::{DeadLetter, DeadReason};
use crate::domain::id::{DeliveryId, TenantId};
use crate::domain::retry::Due;
use crate::domain::timestamp::UnixMillis;
use crate::ports::{DeadLetterQuery, DeadLetterQueue, StoreError};
use crate::telemetry::events::DeliveriesBegun;

/// The most that are sent again in one transaction, so that others get their turn.
const REDRIVE_CHUNK: usize = 500;

const COLUMNS: &str = "seq, id, reason, dead_ms, envelope";

/// A row as it is read.
struct Raw {
    seq: i64,
    id: String,
    reason: String,
    dead_at: UnixMillis,
    envelope: Bytes,
}

/// How far a redrive is: those after this place are still to be looked at.
#[derive(Clone, Copy)]
struct Sweep {
    began: UnixMillis,
    redriven: usize,
    after: (i64, i64),
    /// Given up after the redrive began: not meant.
    last_seq: i64,
}

/// What one transaction of a redrive did.
struct Step {
    moved: usize,
    /// Where there may be more.
    go_on_after: Option<(i64, i64)>,
}

#[async_trait]
impl DeadLetterQueue for Sqlite {
    async fn list(&self, query: &DeadLetterQuery) -> Result<Vec<DeadLetter>, StoreError> {
        self.queue.open()?;
        let (from, conditions) = matching(query);
        let limit = count(query.limit);
        let look = move |conn: &Connection| raw_rows(conn, &from, &conditions, limit);
        let found = self.readers.read(look).await?;
        found.into_iter().map(Raw::decode).collect()
    }

    /// In steps, each in one transaction: what was moved before a fault stays moved.
    async fn redrive(&self, query: &DeadLetterQuery, now: UnixMillis) -> Result<u64, StoreError> {
        let last_seq = self.queue.write(|tx| Ok(Ok(tx.numbers.last_dead_letter())));
        let mut sweep = Sweep {
            began: now,
            redriven: 0,
            after: (i64::MIN, 0),
            last_seq: last_seq.await?,
        };
        while sweep.redriven < query.limit {
            let chunk = (query.limit - sweep.redriven).min(REDRIVE_CHUNK);
            let query = query.clone();
            let some = move |tx: &mut Tx<'_>| redrive_some(tx, &query, sweep, chunk).map(Ok);
            let step = self.queue.write(some).await?;
            sweep.redriven += step.moved;
            let count = step.moved as u64;
            self.settings.telemetry.emit(DeliveriesBegun { count });
            match step.go_on_after {
                Some(after) => sweep.after = after,
                None => break,
            }
        }
        Ok(sweep.redriven as u64)
    }

    async fn count(&self, query: &DeadLetterQuery) -> Result<u64, StoreError> {
        self.queue.open()?;
        let (from, conditions) = matching(query);
        let sql = format!(
            "SELECT COUNT(*) FROM (SELECT 1 {from} {} LIMIT {})",
            conditions.clause(),
            count(query.limit)
        );
        let look = move |conn: &Connection| {
            let mut query = conn.prepare_cached(&sql)?;
            let counted = query.query_row(&conditions.values()[..], |row| row.get::<_, i64>(0));
            counted.map(i64::cast_unsigned)
        };
        self.readers.read(look).await
    }

    /// At most one; nobody listens to a file's notices.
    async fn discard(
        &self,
        id: &DeliveryId,
        owner: Option<&TenantId>,
        _now: UnixMillis,
    ) -> Result<Vec<Option<DeadLetter>>, StoreError> {
        let (id, owner) = (id.clone(), owner.cloned());
        let discard = move |tx: &mut Tx<'_>| {
            let mut conditions = Conditions::default();
            conditions.add("id = ?", id.as_str().to_owned());
            if let Some(owner) = &owner {
                conditions.of_owner(owner);
            }
            let found = raw_rows(tx.conn, "FROM dead_letters", &conditions, 1)?;
            let discarded: Vec<_> = found.into_iter().map(|row| row.decode().ok()).collect();
            if !discarded.is_empty() {
                delete(tx, id.as_str())?;
            }
            Ok(Ok(discarded))
        };
        self.queue.write(discard).await
    }
}

/// Keeps a dead letter, instead of one of the same delivery.
pub(super) fn insert(
    tx: &mut Tx<'_>,
    letter: &DeadLetter,
    envelope: &[u8],
) -> rusqlite::Result<()> {
    let delivery = &letter.delivery;
    delete(tx, delivery.id.as_str())?;
    let seq = tx.numbers.next_dead_letter();
    tx.conn
        .prepare_cached(
            "INSERT INTO dead_letters
               (seq, id, tenant, subscription_id, reason, dead_ms, envelope, shared)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            seq,
            delivery.id.as_str(),
            delivery.event.tenant.as_str(),
            delivery.subscription.as_str(),
            letter.reason.code(),
            letter.dead_at.0,
            envelope,
            delivery.shared,
        ])?;
    tx.effects.dead_letters += 1;
    Ok(())
}

fn delete(tx: &mut Tx<'_>, id: &str) -> rusqlite::Result<usize> {
    let deleted = tx
        .conn
        .prepare_cached("DELETE FROM dead_letters WHERE id = ?")?
        .execute([id])?;
    if deleted > 0 {
        tx.effects.dead_letters -= 1;
    }
    Ok(deleted)
}

/// Moves up to `chunk` to the deliveries.
///
/// What cannot be read stays: listing says that it is damaged, and it can be discarded.
fn redrive_some(
    tx: &mut Tx<'_>,
    query: &DeadLetterQuery,
    sweep: Sweep,
    chunk: usize,
) -> rusqlite::Result<Step> {
    let (from, mut conditions) = matching(query);
    let (dead_ms, seq) = sweep.after;
    conditions.add_all("(dead_ms, seq) > (?, ?)", [dead_ms, seq]);
    conditions.add("seq <= ?", sweep.last_seq);
    let rows = raw_rows(tx.conn, &from, &conditions, count(chunk))?;
    let mut step = Step {
        moved: 0,
        go_on_after: None,
    };
    if rows.len() == chunk {
        step.go_on_after = rows.last().map(|row| (row.dead_at.0, row.seq));
    }
    for row in rows {
        match row.decode() {
            Ok(letter) => {
                let delivery = letter.delivery.redriven();
                let envelope = codec::delivery::encode(&delivery);
                let number = (sweep.redriven + step.moved) as u64;
                let due = Due::of_redriven(sweep.began, number).at;
                delete(tx, delivery.id.as_str())?;
                insert_delivery(tx, &row_name(&delivery), due, &envelope)?;
                step.moved += 1;
            }
            Err(error) => tracing::warn!(%error, "a dead letter cannot be sent again"),
        }
    }
    Ok(step)
}

/// Where the rows that match are, by the index that leaves the least to look through.
fn matching(query: &DeadLetterQuery) -> (String, Conditions) {
    let mut conditions = Conditions::default();
    let index = if query.delivery.is_some() {
        // The one that makes ids unique.
        "sqlite_autoindex_dead_letters_1"
    } else if query.subscription.is_some() {
        "dead_letters_subscription"
    } else if query.owner.is_some() || query.tenant.is_some() {
        "dead_letters_tenant"
    } else {
        "dead_letters_dead"
    };
    if let Some(id) = &query.subscription {
        conditions.add("subscription_id = ?", id.as_str().to_owned());
    }
    if let Some(id) = &query.delivery {
        conditions.add("id = ?", id.as_str().to_owned());
    }
    if let Some(owner) = &query.owner {
        conditions.of_owner(owner);
    }
    if let Some(tenant) = &query.tenant {
        conditions.add("tenant = ?", tenant.as_str().to_owned());
    }
    if let Some(reason) = query.reason {
        conditions.add("reason = ?", reason.code().to_owned());
    }
    if let Some(since) = query.since {
        conditions.add("dead_ms >= ?", since.0);
    }
    if let Some(until) = query.until {
        conditions.add("dead_ms < ?", until.0);
    }
    (format!("FROM dead_letters INDEXED BY {index}"), conditions)
}

fn raw_rows(
    conn: &Connection,
    from: &str,
    conditions: &Conditions,
    limit: i64,
) -> rusqlite::Result<Vec<Raw>> {
    let sql = format!(
        "SELECT {COLUMNS} {from} {} ORDER BY dead_ms, seq LIMIT {limit}",
        conditions.clause()
    );
    let mut query = conn.prepare_cached(&sql)?;
    query.query_map(&conditions.values()[..], raw)?.collect()
}

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok(Raw {
        seq: row.get(0)?,
        id: row.get(1)?,
        reason: row.get(2)?,
        dead_at: UnixMillis(row.get(3)?),
        envelope: Bytes::from(row.get::<_, Vec<u8>>(4)?),
    })
}

impl Raw {
    fn decode(self) -> Result<DeadLetter, StoreError> {
        let damaged = |problem: String| {
            let id = &self.id;
            StoreError::Damaged(format!("dead letter {id}: {problem}; it can be discarded"))
        };
        Ok(DeadLetter {
            delivery: codec::delivery::decode(&self.envelope)
                .map_err(|fault| damaged(fault.to_string()))?,
            reason: DeadReason::from_code(&self.reason)
                .ok_or_else(|| damaged(format!("unknown reason {:?}", self.reason)))?,
            dead_at: self.dead_at,
        })
    }
}
