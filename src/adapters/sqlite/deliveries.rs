//! Deliveries by their due time: a cursor that moves on, is set back when something is
//! put before it, and those given back.
//!
//! *Invariant: everything at or before the cursor is out or gone.* Out: handed out, given
//! back, or acknowledged and not deleted yet; the [`Desk`] knows. So the cursor may be
//! set back at any time, and moves over what is out.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Rows};
use tokio::time::Instant;

use super::desk::{Comeback, Desk, tag_of};
use super::locked;
use crate::domain::timestamp::UnixMillis;
use crate::ports::{Receipt, Taken};

/// A place in the order of deliveries: due time, then row.
pub(super) type Place = (i64, i64);

const BEGIN: Place = (i64::MIN, 0);

/// Reads due deliveries in order.
pub(super) struct DeliveryFeed {
    conn: Connection,
    comeback: Comeback,
}

/// What was found at one look.
pub(super) struct Look {
    /// What is due.
    pub(super) taken: Vec<Taken<Bytes>>,
    /// When nothing is: the due time of the next.
    pub(super) next_due: Option<UnixMillis>,
}

/// What was found in the index.
struct Scan {
    places: Vec<Place>,
    /// How far it looked.
    end: Place,
}

/// How far the feed has read. The writer tells it what was put.
pub(super) struct Schedule(Mutex<Progress>);

struct Progress {
    cursor: Place,
    /// Whether the feed reads just now; it sees what is put or it does not.
    reading: bool,
    /// The first that was put while it read.
    put_meanwhile: Option<Place>,
    /// The time the feed waits for; what is due sooner wakes it.
    waits_for: i64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self(Mutex::new(Progress {
            cursor: BEGIN,
            reading: false,
            put_meanwhile: None,
            waits_for: i64::MAX,
        }))
    }
}

impl Schedule {
    /// Notes that `place` is the first of those just put; says whether to wake the feed.
    pub(super) fn put(&self, place: Place) -> bool {
        let mut progress = locked(&self.0);
        if progress.reading {
            let first = progress.put_meanwhile.map_or(place, |p| p.min(place));
            progress.put_meanwhile = Some(first);
        } else if place <= progress.cursor {
            progress.cursor = just_before(place);
        }
        place.0 < progress.waits_for
    }

    fn begin(&self) -> Place {
        let mut progress = locked(&self.0);
        progress.reading = true;
        progress.waits_for = i64::MAX;
        progress.cursor
    }

    fn end(&self, cursor: Place, waits_for: Option<i64>) {
        let mut progress = locked(&self.0);
        progress.reading = false;
        progress.cursor = match progress.put_meanwhile.take() {
            Some(place) if place <= cursor => just_before(place),
            _ => cursor,
        };
        progress.waits_for = waits_for.unwrap_or(i64::MAX);
    }
}

impl DeliveryFeed {
    pub(super) fn new(conn: Connection) -> Self {
        Self {
            conn,
            comeback: Comeback::default(),
        }
    }

    /// Takes up to `max` that are due at `now`: those given back first.
    pub(super) fn look(
        &mut self,
        desk: &Arc<Desk>,
        schedule: &Schedule,
        max: usize,
        now: UnixMillis,
        instant: Instant,
    ) -> rusqlite::Result<Look> {
        desk.sort_in(&mut self.comeback, instant);
        let returned = self.comeback.ready(instant, max);
        let mut taken = match self.read_again(desk, &returned) {
            Ok(taken) => taken,
            Err(error) => {
                self.comeback.again(instant, returned);
                return Err(error);
            }
        };
        let mut cursor = schedule.begin();
        let mut next_due = None;
        let read = self.read_on(desk, &mut cursor, max, now, &mut taken);
        let read = read.and_then(|()| {
            if taken.is_empty() {
                next_due = self.next_due(now)?;
            }
            Ok(())
        });
        // Those found before an error are dropped, and so come again.
        schedule.end(cursor, next_due);
        read?;
        Ok(Look {
            taken,
            next_due: next_due.map(UnixMillis),
        })
    }

    /// When one that was given back comes again.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.comeback.next()
    }

    fn read_again(&self, desk: &Arc<Desk>, seqs: &[i64]) -> rusqlite::Result<Vec<Taken<Bytes>>> {
        let mut found = Vec::with_capacity(seqs.len());
        let mut gone = Vec::new();
        for seq in seqs {
            match self.envelope(*seq)? {
                Some(envelope) => found.push((*seq, envelope)),
                // Replaced while it was out.
                None => gone.push(*seq),
            }
        }
        desk.forget(&gone);
        let hand_out = |(seq, message)| taken(seq, message, desk);
        Ok(found.into_iter().map(hand_out).collect())
    }

    /// Reads on from `cursor` until `found` has something, or nothing more is due.
    fn read_on(
        &self,
        desk: &Arc<Desk>,
        cursor: &mut Place,
        max: usize,
        now: UnixMillis,
        found: &mut Vec<Taken<Bytes>>,
    ) -> rusqlite::Result<()> {
        while found.len() < max {
            let scan = self.scan(desk, *cursor, max - found.len(), now)?;
            // A transaction of its own, begun after the desk was asked: what was
            // acknowledged and deleted meanwhile is not out any more, but gone.
            let tx = self.conn.unchecked_transaction()?;
            for place in &scan.places {
                if let Some(envelope) = self.envelope(place.1)? {
                    found.push(taken(place.1, envelope, desk));
                }
                *cursor = *place;
            }
            tx.commit()?;
            *cursor = scan.end;
            if scan.places.is_empty() || !found.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Looks for up to `max` places after `cursor` that are due and not out.
    fn scan(
        &self,
        desk: &Desk,
        cursor: Place,
        max: usize,
        now: UnixMillis,
    ) -> rusqlite::Result<Scan> {
        // Two queries: a comparison of pairs would read all of the cursor's time again.
        let mut same_time = self.conn.prepare_cached(
            "SELECT due_ms, seq FROM deliveries
             WHERE due_ms = ?1 AND seq > ?2 AND due_ms <= ?3 ORDER BY seq",
        )?;
        let mut later = self.conn.prepare_cached(
            "SELECT due_ms, seq FROM deliveries
             WHERE due_ms > ?1 AND due_ms <= ?2 ORDER BY due_ms, seq",
        )?;
        let mut found = Scan {
            places: Vec::new(),
            end: cursor,
        };
        found.read(desk, max, same_time.query((cursor.0, cursor.1, now.0))?)?;
        found.read(desk, max, later.query((cursor.0, now.0))?)?;
        Ok(found)
    }

    fn envelope(&self, seq: i64) -> rusqlite::Result<Option<Bytes>> {
        self.conn
            .prepare_cached("SELECT envelope FROM deliveries WHERE seq = ?")?
            .query_row([seq], |row| row.get::<_, Vec<u8>>(0))
            .optional()
            .map(|envelope| envelope.map(Bytes::from))
    }

    fn next_due(&self, now: UnixMillis) -> rusqlite::Result<Option<i64>> {
        self.conn
            .prepare_cached(
                "SELECT due_ms FROM deliveries WHERE due_ms > ? ORDER BY due_ms LIMIT 1",
            )?
            .query_row([now.0], |row| row.get(0))
            .optional()
    }
}

impl Scan {
    fn read(&mut self, desk: &Desk, max: usize, mut rows: Rows<'_>) -> rusqlite::Result<()> {
        while self.places.len() < max
            && let Some(row) = rows.next()?
        {
            self.end = (row.get(0)?, row.get(1)?);
            if !desk.is_out(self.end.1) {
                self.places.push(self.end);
            }
        }
        Ok(())
    }
}

fn taken(seq: i64, message: Bytes, desk: &Arc<Desk>) -> Taken<Bytes> {
    desk.hand_out(seq);
    Taken {
        message,
        receipt: Receipt::new(tag_of(seq), Arc::clone(desk) as _),
    }
}

fn just_before((due, seq): Place) -> Place {
    (due, seq - 1)
}
