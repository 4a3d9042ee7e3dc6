//! [`QuarantineQueue`]: messages that were not understood, as they came.

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::Sqlite;
use super::events::count;
use super::outbox::insert_event;
use super::writer::Tx;
use crate::domain::event::{EventFault, FaultReason};
use crate::domain::id::SubscriptionId;
use crate::domain::timestamp::UnixMillis;
use crate::ports::{EventMessage, QuarantineQueue, Quarantined, StoreError};

const COLUMNS: &str =
    "id, body, content_type, traceparent, resume_after, reason, field, sentence, at_ms";

#[async_trait]
impl QuarantineQueue for Sqlite {
    async fn list(&self, limit: usize) -> Result<Vec<(String, Quarantined)>, StoreError> {
        self.queue.open()?;
        let sql = format!("SELECT {COLUMNS} FROM quarantine ORDER BY id LIMIT ?");
        let look = move |conn: &Connection| {
            let mut query = conn.prepare_cached(&sql)?;
            query.query_map([count(limit)], quarantined)?.collect()
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
            let Some((_, found)) = query.query_row([id], quarantined).optional()? else {
                return Ok(Ok(false));
            };
            tx.conn
                .prepare_cached("DELETE FROM quarantine WHERE id = ?")?
                .execute([id])?;
            tx.effects.quarantine -= 1;
            insert_event(tx, &found.message)?;
            Ok(Ok(true))
        };
        self.queue.write(requeue).await
    }
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

fn quarantined(row: &Row<'_>) -> rusqlite::Result<(String, Quarantined)> {
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
    Ok((row.get::<_, i64>(0)?.to_string(), found))
}
