//! Events in their order: a cursor that moves on, and those given back.
//!
//! Everything at or before the cursor is handed out, given back, or done with. A new
//! process begins before the first, so that all that is not done with comes again.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row};
use tokio::time::Instant;

use super::desk::{Comeback, Desk, tag_of};
use crate::domain::id::SubscriptionId;
use crate::ports::{EventMessage, Receipt, Taken};

/// Reads events in order.
pub(super) struct EventFeed {
    conn: Connection,
    cursor: i64,
    comeback: Comeback,
}

impl EventFeed {
    pub(super) fn new(conn: Connection) -> Self {
        Self {
            conn,
            cursor: 0,
            comeback: Comeback::default(),
        }
    }

    /// Takes up to `max`: those given back first, then new ones.
    pub(super) fn take(
        &mut self,
        desk: &Arc<Desk>,
        max: usize,
        now: Instant,
    ) -> rusqlite::Result<Vec<Taken<EventMessage>>> {
        desk.sort_in(&mut self.comeback, now);
        let returned = self.comeback.ready(now, max);
        let mut taken = match self.read_again(desk, &returned) {
            Ok(taken) => taken,
            Err(error) => {
                self.comeback.again(now, returned);
                return Err(error);
            }
        };
        self.read_on(desk, max - taken.len(), &mut taken)?;
        Ok(taken)
    }

    /// When one that was given back comes again.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.comeback.next()
    }

    fn read_again(
        &self,
        desk: &Arc<Desk>,
        ids: &[i64],
    ) -> rusqlite::Result<Vec<Taken<EventMessage>>> {
        let mut query = self.conn.prepare_cached(
            "SELECT id, body, content_type, traceparent, resume_after FROM events WHERE id = ?",
        )?;
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            // Receipts are made last: one dropped here would count as given back.
            found.extend(query.query_row([id], message).optional()?);
        }
        Ok(with_receipts(found, desk))
    }

    fn read_on(
        &mut self,
        desk: &Arc<Desk>,
        max: usize,
        taken: &mut Vec<Taken<EventMessage>>,
    ) -> rusqlite::Result<()> {
        if max == 0 {
            return Ok(());
        }
        let mut query = self.conn.prepare_cached(
            "SELECT id, body, content_type, traceparent, resume_after FROM events
             WHERE id > ? ORDER BY id LIMIT ?",
        )?;
        let rows = query.query_map((self.cursor, count(max)), message)?;
        let found = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        if let Some((last, _)) = found.last() {
            self.cursor = *last;
        }
        taken.extend(with_receipts(found, desk));
        Ok(())
    }
}

/// A limit as SQLite takes it.
pub(super) fn count(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

fn message(row: &Row<'_>) -> rusqlite::Result<(i64, EventMessage)> {
    let resume_after = row.get_ref(4)?.as_str_or_null()?;
    let message = EventMessage {
        body: Bytes::from(row.get::<_, Vec<u8>>(1)?),
        content_type: row.get(2)?,
        traceparent: row.get(3)?,
        // What cannot be read begins from the start: the ledger knows who has been served.
        resume_after: resume_after.and_then(|id| SubscriptionId::parse(id).ok()),
        ..EventMessage::default()
    };
    Ok((row.get(0)?, message))
}

fn with_receipts(found: Vec<(i64, EventMessage)>, desk: &Arc<Desk>) -> Vec<Taken<EventMessage>> {
    let hand_out = |(id, message)| Taken {
        message,
        receipt: Receipt::new(tag_of(id), Arc::clone(desk) as _),
    };
    found.into_iter().map(hand_out).collect()
}
