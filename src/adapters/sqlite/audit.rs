//! [`AuditLog`]: a ring of attempts per subscription, with a position over all.
//!
//! Positions grow; they order the log and serve as cursors. Attempts of a subscription
//! have a number of their own (`seq`) beside, so that what leaves the ring is found
//! without counting. Attempts of a deleted subscription stay until they expire.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::Sqlite;
use super::attempts::Turn;
use super::events::count;
use super::readers::Conditions;
use super::writer::Tx;
use crate::codec;
use crate::domain::attempt::Attempt;
use crate::domain::id::{DeliveryId, EventId, SubscriptionId, TenantId};
use crate::domain::timestamp::UnixMillis;
use crate::ports::{AttemptQuery, AuditLog, StoreError};

/// The most rows deleted in one transaction.
const PRUNE_MAX: usize = 500;
/// The most rings whose number is remembered; then it is read afresh.
const RINGS_MAX: usize = 100_000;

/// An attempt, encoded.
pub(super) struct AuditRow {
    subscription: SubscriptionId,
    tenant: TenantId,
    shared: bool,
    event: EventId,
    delivery: DeliveryId,
    delivered: bool,
    at: UnixMillis,
    record: Vec<u8>,
}

/// The number of the last attempt of each subscription.
#[derive(Default)]
pub(super) struct RingCounters(HashMap<SubscriptionId, i64>);

#[async_trait]
impl AuditLog for Sqlite {
    fn append(&self, attempt: Arc<Attempt>) {
        // Asked first, so that what is dropped costs next to nothing.
        let kept = self.queue.has_room()
            && self
                .queue
                .keep(AuditRow::encode(&attempt, self.settings.audit_body_bytes));
        if !kept {
            self.losses.lost(1, &"more wait than there is room for");
        }
    }

    async fn attempts(&self, query: &AttemptQuery) -> Result<Vec<(u64, Attempt)>, StoreError> {
        self.queue.open()?;
        let oldest = self.settings.clock.now().before(self.settings.audit_keep);
        let (sql, conditions) = select(query, oldest);
        let look = move |conn: &Connection| {
            let mut query = conn.prepare_cached(&sql)?;
            let rows = query.query_map(&conditions.values()[..], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
            })?;
            rows.filter_map(|row| row.map(decode).transpose()).collect()
        };
        self.readers.read(look).await
    }
}

impl AuditRow {
    /// Encodes `attempt`, with at most `body_bytes_max` of its body.
    pub(super) fn encode(attempt: &Attempt, body_bytes_max: usize) -> Self {
        Self {
            record: codec::attempt::encode(attempt, body_bytes_max),
            subscription: attempt.subscription.clone(),
            tenant: attempt.tenant.clone(),
            shared: attempt.shared,
            event: attempt.event.clone(),
            delivery: attempt.delivery.clone(),
            delivered: attempt.reason.is_none(),
            at: attempt.at,
        }
    }

    /// How much memory it takes, about.
    pub(super) fn bytes(&self) -> usize {
        self.record.len()
    }
}

/// Writes as many of `turn` as its time allows, one at least, and deletes what leaves its ring
/// by that. Notes how far it came.
pub(super) fn write(tx: &mut Tx<'_>, turn: &mut Turn) -> rusqlite::Result<()> {
    let begun = Instant::now();
    let size = i64::from(tx.settings.audit_per_subscription);
    let mut left: HashMap<&SubscriptionId, i64> = HashMap::new();
    for row in &turn.rows {
        *left.entry(&row.subscription).or_default() += 1;
    }
    let (mut done, mut written) = (0, HashSet::new());
    for row in &turn.rows {
        if done > 0 && turn.limit.is_some_and(|limit| begun.elapsed() >= limit) {
            break;
        }
        done += 1;
        if let Some(left) = left.get_mut(&row.subscription) {
            *left -= 1;
            // Those that later ones of this batch push out are not written at all.
            if *left >= size {
                continue;
            }
        }
        // Numbered only where they are written: each pushes out one.
        let position = tx.numbers.next_attempt();
        let seq = tx.rings.next(tx.conn, &row.subscription)?;
        insert(tx.conn, row, position, seq)?;
        written.insert(&row.subscription);
    }
    let mut trim = tx
        .conn
        .prepare_cached("DELETE FROM attempts WHERE subscription_id = ? AND seq <= ?")?;
    for subscription in written {
        let last = tx.rings.last(tx.conn, subscription)?;
        trim.execute(params![subscription.as_str(), last - size])?;
    }
    tx.rings.bound();
    turn.done.rows = done;
    turn.done.took = begun.elapsed();
    Ok(())
}

/// Deletes some that are older than `oldest`; says whether there may be more.
///
/// Looks at the lowest positions only: attempts are kept about in the order of their time.
pub(super) fn prune(conn: &Connection, oldest: UnixMillis) -> rusqlite::Result<bool> {
    let deleted = conn
        .prepare_cached(
            "DELETE FROM attempts WHERE at_ms < ?1 AND position IN (
               SELECT position FROM attempts ORDER BY position LIMIT ?2)",
        )?
        .execute((oldest.0, count(PRUNE_MAX)))?;
    Ok(deleted == PRUNE_MAX)
}

impl RingCounters {
    fn next(&mut self, conn: &Connection, id: &SubscriptionId) -> rusqlite::Result<i64> {
        let next = self.last(conn, id)? + 1;
        self.0.insert(id.clone(), next);
        Ok(next)
    }

    fn last(&self, conn: &Connection, id: &SubscriptionId) -> rusqlite::Result<i64> {
        if let Some(last) = self.0.get(id) {
            return Ok(*last);
        }
        conn.prepare_cached("SELECT COALESCE(MAX(seq), 0) FROM attempts WHERE subscription_id = ?")?
            .query_row([id.as_str()], |row| row.get(0))
    }

    /// Forgets all when it has become large: the file knows as well.
    fn bound(&mut self) {
        if self.0.len() > RINGS_MAX {
            self.0 = HashMap::new();
        }
    }
}

fn insert(conn: &Connection, row: &AuditRow, position: i64, seq: i64) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO attempts (position, subscription_id, seq, tenant, event_id, delivery_id,
           delivered, at_ms, record, shared) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        position,
        row.subscription.as_str(),
        seq,
        row.tenant.as_str(),
        row.event.as_str(),
        row.delivery.as_str(),
        row.delivered,
        row.at.0,
        row.record,
        row.shared,
    ])
    .map(drop)
}

/// The query, by the index that leaves the least to look through.
fn select(query: &AttemptQuery, oldest: UnixMillis) -> (String, Conditions) {
    let since = query.since.map_or(oldest, |since| since.max(oldest));
    let mut conditions = Conditions::default();
    conditions.add("at_ms >= ?", since.0);
    let text = |text: &str| text.to_owned();
    let (index, order) = if query.delivery.is_some() {
        ("INDEXED BY attempts_delivery", "position")
    } else if query.event.is_some() {
        ("INDEXED BY attempts_event", "position")
    } else if query.subscription.is_some() {
        ("INDEXED BY attempts_subscription", "seq")
    } else if query.whose().is_some() {
        ("INDEXED BY attempts_tenant", "position")
    } else if query.delivered == Some(false) {
        ("INDEXED BY attempts_failed", "position")
    } else {
        ("NOT INDEXED", "position")
    };
    if let Some(id) = &query.delivery {
        conditions.add("delivery_id = ?", text(id.as_str()));
    }
    if let Some(id) = &query.event {
        conditions.add("event_id = ?", text(id.as_str()));
    }
    if let Some(id) = &query.subscription {
        conditions.add("subscription_id = ?", text(id.as_str()));
    }
    if let Some(owner) = &query.owner {
        conditions.of_owner(owner);
    }
    if let Some(tenant) = &query.tenant {
        conditions.add("tenant = ?", text(tenant.as_str()));
    }
    match query.delivered {
        Some(true) => conditions.literal("delivered = 1"),
        Some(false) => conditions.literal("delivered = 0"),
        None => {}
    }
    if let Some(before) = query.before {
        conditions.add("position < ?", i64::try_from(before).unwrap_or(i64::MAX));
    }
    let sql = format!(
        "SELECT position, record FROM attempts {index} {} ORDER BY {order} DESC LIMIT {}",
        conditions.clause(),
        count(query.limit)
    );
    (sql, conditions)
}

/// A damaged record is left out: it must not hide the rest.
fn decode((position, record): (i64, Vec<u8>)) -> Option<(u64, Attempt)> {
    let attempt = codec::attempt::decode(&record);
    if attempt.is_none() {
        tracing::warn!(position, "an attempt in the audit log is damaged");
    }
    attempt.map(|attempt| (position.cast_unsigned(), attempt))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each combination of filters names an index that SQLite can use for it.
    #[test]
    fn every_query_can_be_planned() {
        let conn = Connection::open_in_memory().unwrap();
        super::super::schema::prepare(&conn).unwrap();
        for bits in 0..256_u32 {
            let on = |bit: u32| bits & (1 << bit) != 0;
            let query = AttemptQuery {
                owner: on(7).then(|| TenantId::parse("t").unwrap()),
                tenant: on(0).then(|| TenantId::parse("t").unwrap()),
                subscription: on(1).then(|| SubscriptionId::parse("sub_1").unwrap()),
                event: on(2).then(|| EventId::parse("e").unwrap()),
                delivery: on(3).then(|| DeliveryId::parse("msg_1").unwrap()),
                delivered: on(4).then(|| on(5)),
                since: on(5).then_some(UnixMillis(1)),
                before: on(6).then_some(1),
                limit: 10,
            };
            let (sql, conditions) = select(&query, UnixMillis(0));
            let mut plan = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let rows = plan.query_map(&conditions.values()[..], |row| row.get::<_, String>(3));
            for step in rows.unwrap() {
                let step = step.unwrap();
                assert!(!step.contains("TEMP B-TREE"), "{sql}: {step}");
            }
        }
    }
}
