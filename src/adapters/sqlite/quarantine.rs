//! [`QuarantineQueue`]: messages that were not understood, as they came.

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::Sqlite;
use super::events::count;
use super::outbox::insert_event;
use super::readers::Conditions;
use super::writer::Tx;
use crate::domain::event::{EventFault, FaultReason};
use crate::domain::id::SubscriptionId;
use crate::domain::timestamp::UnixMillis;
use crate::ports::{EventMessage, QuarantineQuery, QuarantineQueue, Quarantined, StoreError};

const COLUMNS: &str =
    "id, body, content_type, traceparent, resume_after, reason, field, sentence, at_ms";
/// The most that are taken again in one transaction: events may be large.
const REQUEUE_CHUNK: usize = 50;

#[async_trait]
impl QuarantineQueue for Sqlite {
    async fn list(&self, limit: usize) -> Result<Vec<(String, Quarantined)>, StoreError> {
        self.queue.open()?;
        let sql = format!("SELECT {COLUMNS} FROM quarantine ORDER BY id LIMIT ?");
        let look = move |conn: &Connection| {
            let mut query = conn.prepare_cached(&sql)?;
            let rows = query.query_map([count(limit)], quarantined)?;
            let named = rows.map(|row| row.map(|(id, found)| (id.to_string(), found)));
            named.collect()
        };
        self.readers.read(look).await
    }

    async fn requeue(&self, id: &str) -> Result<bool, StoreError> {
        let Ok(id) = id.parse::<i64>() else {
            return Ok(false);
        };
        let requeue = move |tx: &mut Tx<'_>| {
            let sql = format!("SELECT {COLUMNS} FROM quarantine WHERE id = ?");
            let mut query = tx.conn.prepare_cached(&sql)?;
            let found = query.query_row([id], quarantined).optional()?;
            let Some((id, Quarantined { message, .. })) = found else {
                return Ok(Ok(false));
            };
            take_again(tx, id, &message)?;
            Ok(Ok(true))
        };
        self.queue.write(requeue).await
    }

    /// In steps, each in one transaction.
    async fn requeue_all(&self, query: &QuarantineQuery) -> Result<u64, StoreError> {
        let last = |tx: &mut Tx<'_>| {
            let mut query = tx
                .conn
                .prepare_cached("SELECT COALESCE(MAX(id), 0) FROM quarantine")?;
            Ok(Ok(query.query_row((), |row| row.get::<_, i64>(0))?))
        };
        let last = self.queue.write(last).await?;
        let mut after = 0;
        let mut requeued = 0;
        while requeued < query.limit {
            let chunk = (query.limit - requeued).min(REQUEUE_CHUNK);
            let query = query.clone();
            let rows = (after, last);
            let some = move |tx: &mut Tx<'_>| requeue_some(tx, &query, rows, chunk).map(Ok);
            let ids = self.queue.write(some).await?;
            requeued += ids.len();
            match ids.last() {
                Some(last) if ids.len() == chunk => after = *last,
                _ => break,
            }
        }
        Ok(requeued as u64)
    }
}

/// Has up to `chunk` of the rows after the first of `rows`, up to the second, taken again;
/// says which.
fn requeue_some(
    tx: &mut Tx<'_>,
    query: &QuarantineQuery,
    rows: (i64, i64),
    chunk: usize,
) -> rusqlite::Result<Vec<i64>> {
    let mut conditions = Conditions::default();
    conditions.add_all("id > ? AND id <= ?", [rows.0, rows.1]);
    if let Some(reason) = query.reason {
        conditions.add("reason = ?", reason.code().to_owned());
    }
    if let Some(until) = query.until {
        conditions.add("at_ms < ?", until.0);
    }
    let sql = format!(
        "SELECT {COLUMNS} FROM quarantine {} ORDER BY id LIMIT {}",
        conditions.clause(),
        count(chunk)
    );
    let mut look = tx.conn.prepare_cached(&sql)?;
    let rows = look.query_map(&conditions.values()[..], quarantined)?;
    let found: Vec<(i64, Quarantined)> = rows.collect::<rusqlite::Result<_>>()?;
    for (id, Quarantined { message, .. }) in &found {
        take_again(tx, *id, message)?;
    }
    Ok(found.into_iter().map(|(id, _)| id).collect())
}

/// Makes an event of what is in row `id`.
fn take_again(tx: &mut Tx<'_>, id: i64, message: &EventMessage) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached("DELETE FROM quarantine WHERE id = ?")?
        .execute([id])?;
    tx.effects.quarantine -= 1;
    insert_event(tx, message)
}

/// Puts a message aside.
pub(super) fn insert(tx: &mut Tx<'_>, quarantined: &Quarantined) -> rusqlite::Result<()> {
    let Quarantined { message, fault, at } = quarantined;
    tx.conn
        .prepare_cached(
            "INSERT INTO quarantine (body, content_type, traceparent, resume_after, reason,
               field, sentence, at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            &message.body[..],
            message.content_type,
            message.traceparent,
            message.resume_after.as_ref().map(SubscriptionId::as_str),
            fault.reason.code(),
            fault.field,
            fault.sentence,
            at.0,
        ])?;
    tx.effects.quarantine += 1;
    Ok(())
}

fn quarantined(row: &Row<'_>) -> rusqlite::Result<(i64, Quarantined)> {
    let resume_after: Option<String> = row.get(4)?;
    let reason: String = row.get(5)?;
    let found = Quarantined {
        message: EventMessage {
            body: Bytes::from(row.get::<_, Vec<u8>>(1)?),
            content_type: row.get(2)?,
            traceparent: row.get(3)?,
            resume_after: resume_after.and_then(|id| SubscriptionId::parse(&id).ok()),
            ..EventMessage::default()
        },
        fault: EventFault {
            reason: FaultReason::from_code(&reason).unwrap_or(FaultReason::Malformed),
            field: row.get(6)?,
            sentence: row.get(7)?,
        },
        at: UnixMillis(row.get(8)?),
    };
    Ok((row.get(0)?, found))
}
