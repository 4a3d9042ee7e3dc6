//! The writer: one thread, one connection, group commit.
//!
//! It takes all that waits, commits it in one transaction, and then tells who waits. When
//! something in a transaction cannot be written, the rest is written without it, first of
//! all without attempts; when nothing can, who waits gets an error, and the lazy things are
//! tried again. The thread ends only when the store is closed.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::attempts::Turn;
use super::audit::RingCounters;
use super::deliveries::{Place, Schedule};
use super::desk::Desk;
use super::fault::Fault;
use super::numbers::Numbers;
use super::queue::{Batch, Next, Queue};
use super::readers::store_error;
use super::{SqliteSettings, audit, ledger, locked};
use crate::domain::id::{LedgerKey, SubscriptionId};
use crate::domain::subscription::Scope;
use crate::domain::timestamp::UnixMillis;
use crate::ports::StoreError;
use crate::telemetry::losses::Losses;

/// How often expired rows are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(5);
/// How often a writer that failed finds out whether it works again.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Someone who wants to know what changed.
pub(super) type Listener = Box<dyn Fn(&Scope) + Send + Sync>;

/// What the writer tells everyone.
pub(super) struct Shared {
    events: AtomicU64,
    deliveries: AtomicU64,
    dead_letters: AtomicU64,
    quarantine: AtomicU64,
    /// Why the last commit failed.
    trouble: Mutex<Option<String>>,
    listeners: Mutex<Vec<Listener>>,
}

/// The writer before it starts.
pub(super) struct Writer {
    pub(super) queue: Arc<Queue>,
    pub(super) shared: Arc<Shared>,
    pub(super) event_desk: Arc<Desk>,
    pub(super) delivery_desk: Arc<Desk>,
    pub(super) schedule: Arc<Schedule>,
    pub(super) settings: SqliteSettings,
    pub(super) losses: Arc<Losses>,
}

/// The transaction that a piece of work is part of.
pub(super) struct Tx<'a> {
    /// Where to write.
    pub(super) conn: &'a Connection,
    /// When it began.
    pub(super) now: UnixMillis,
    /// What to tell when it is committed.
    pub(super) effects: Effects,
    /// Where row keys come from.
    pub(super) numbers: &'a mut Numbers,
    /// How far each ring of attempts is.
    pub(super) rings: &'a mut RingCounters,
    /// What the installation wants.
    pub(super) settings: &'a SqliteSettings,
    /// Settled subscriptions of each event, separated by spaces.
    pub(super) settled: HashMap<LedgerKey, String>,
}

/// What a transaction changes for others.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) events: i64,
    pub(super) deliveries: i64,
    pub(super) dead_letters: i64,
    pub(super) quarantine: i64,
    pub(super) new_events: bool,
    /// The first of the deliveries put.
    first_put: Option<Place>,
    /// Scopes in which subscriptions changed.
    pub(super) changed: Vec<Scope>,
}

/// What stays with the writer from one transaction to the next.
struct Hand {
    writer: Writer,
    conn: Connection,
    numbers: Numbers,
    rings: RingCounters,
    /// Whether attempts could not be written the last time: then they have a transaction of
    /// their own, so that nothing else is taken back with them.
    attempts_fail: bool,
    /// Whether expired attempts could not be deleted the last time.
    pruning_fails: bool,
    tidy_at: Instant,
    /// When a writer that failed looks whether it works again.
    probe_at: Instant,
}

impl Shared {
    /// Counts what is there, once.
    pub(super) fn count(conn: &Connection) -> rusqlite::Result<Self> {
        let count = |table: &str| {
            let sql = format!("SELECT COUNT(*) FROM {table}");
            let count: i64 = conn.query_row(&sql, (), |row| row.get(0))?;
            Ok::<_, rusqlite::Error>(AtomicU64::new(count.cast_unsigned()))
        };
        Ok(Self {
            events: count("events")?,
            deliveries: count("deliveries")?,
            dead_letters: count("dead_letters")?,
            quarantine: count("quarantine")?,
            trouble: Mutex::default(),
            listeners: Mutex::default(),
        })
    }

    /// Whether the last commit worked.
    pub(super) fn health(&self) -> Result<(), String> {
        locked(&self.trouble).clone().map_or(Ok(()), Err)
    }

    /// How much is in each queue, of whose deliveries so many are due.
    pub(super) fn sizes(&self, due: u64) -> Vec<(&'static str, u64)> {
        let read = |size: &AtomicU64| size.load(Ordering::Relaxed);
        let all = read(&self.deliveries);
        vec![
            ("events", read(&self.events)),
            ("deliveries", due.min(all)),
            ("wait", all.saturating_sub(due)),
            ("dead-letters", read(&self.dead_letters)),
            ("quarantine", read(&self.quarantine)),
        ]
    }

    pub(super) fn listen(&self, listener: Listener) {
        locked(&self.listeners).push(listener);
    }

    fn resize(&self, effects: &Effects) {
        let change = |size: &AtomicU64, by: i64| {
            // Wraps, so that a negative change subtracts.
            size.fetch_add(by.cast_unsigned(), Ordering::Relaxed);
        };
        change(&self.events, effects.events);
        change(&self.deliveries, effects.deliveries);
        change(&self.dead_letters, effects.dead_letters);
        change(&self.quarantine, effects.quarantine);
    }

    fn tell(&self, mut changed: Vec<Scope>) {
        changed.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        changed.dedup();
        for scope in &changed {
            for listener in locked(&self.listeners).iter() {
                if catch_unwind(AssertUnwindSafe(|| listener(scope))).is_err() {
                    tracing::error!("a listener to subscription changes panicked");
                }
            }
        }
    }
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn start(self, conn: Connection) -> rusqlite::Result<JoinHandle<()>> {
        let numbers = Numbers::after_what_is_in(&conn)?;
        let hand = Hand {
            writer: self,
            conn,
            numbers,
            rings: RingCounters::default(),
            attempts_fail: false,
            pruning_fails: false,
            tidy_at: Instant::now(),
            probe_at: Instant::now(),
        };
        Ok(std::thread::spawn(move || hand.run()))
    }
}

impl Hand {
    fn run(mut self) {
        loop {
            let due = match self.is_troubled() {
                true => self.probe_at,
                false => self.tidy_at,
            };
            let patience = due.saturating_duration_since(Instant::now());
            match self.writer.queue.next(patience) {
                Next::Commit(batch) => self.commit(batch),
                Next::Idle => {}
                Next::End { abandoned } => {
                    if !abandoned {
                        self.fold_log();
                    }
                    return;
                }
            }
            let now = Instant::now();
            match self.is_troubled() {
                // Also where attempts keep it busy: those that fail say nothing of the rest.
                true if self.probe_at <= now => self.probe(),
                false if self.tidy_at <= now => self.tidy(),
                _ => {}
            }
        }
    }

    fn is_troubled(&self) -> bool {
        self.writer.shared.health().is_err()
    }

    /// Commits `batch`, or as much of it as can be. Attempts are the first to be left out.
    fn commit(&mut self, mut batch: Batch) {
        // Nobody waits longer for what nobody waits for: neither for attempts that fail, nor for
        // all of them at the end.
        let is_apart = self.attempts_fail || batch.attempts.limit.is_none();
        if is_apart && !batch.attempts.rows.is_empty() {
            return self.commit_apart(batch);
        }
        let fault = match self.transact(|tx| apply(&mut batch, tx)) {
            Ok(effects) => {
                self.note(None);
                self.publish(effects, &batch);
                self.kept(std::mem::take(&mut batch.attempts));
                return finish(batch, &Ok(()));
            }
            Err(fault) => fault,
        };
        if !batch.attempts.rows.is_empty() {
            return self.commit_apart(batch);
        }
        if fault.is_outage() || batch.is_one() {
            return self.give_up(batch, &fault);
        }
        let (first, second) = batch.halve();
        self.commit(first);
        self.commit(second);
    }

    /// Commits `batch` without its attempts, and then those.
    fn commit_apart(&mut self, mut batch: Batch) {
        let attempts = std::mem::take(&mut batch.attempts);
        if !batch.is_empty() {
            self.commit(batch);
        }
        self.commit_attempts(attempts);
    }

    /// Commits attempts by themselves. Nobody waits for them, so a fault of theirs is no fault
    /// of the store.
    fn commit_attempts(&mut self, mut turn: Turn) {
        let written = self.transact(|tx| audit::write(tx, &mut turn));
        let failed_before = std::mem::replace(&mut self.attempts_fail, written.is_err());
        let Err(fault) = written else {
            self.note(None);
            return self.kept(turn);
        };
        if !failed_before {
            tracing::warn!(%fault, "attempts cannot be written to SQLite; what else can be is");
        }
        // Attempts that are at fault themselves would be so again.
        let (again, faulty) = match fault.is_outage() {
            true => (turn.rows, 0),
            false => (Vec::new(), turn.rows.len()),
        };
        let dropped = faulty + self.writer.queue.put_back_attempts(again);
        self.writer.losses.lost(dropped, &fault);
    }

    /// Notes that attempts were written, and has the others wait for the next turn.
    fn kept(&self, mut turn: Turn) {
        if !turn.rows.is_empty() {
            self.writer.queue.wrote(turn.left(), turn.done);
            self.writer.losses.kept();
        }
    }

    /// Runs `apply` in a transaction, which is taken back when it fails.
    fn transact(
        &mut self,
        apply: impl FnOnce(&mut Tx<'_>) -> rusqlite::Result<()>,
    ) -> Result<Effects, Fault> {
        let mut tx = Tx {
            conn: &self.conn,
            now: self.writer.settings.clock.now(),
            effects: Effects::default(),
            numbers: &mut self.numbers,
            rings: &mut self.rings,
            settings: &self.writer.settings,
            settled: HashMap::new(),
        };
        let run = || {
            tx.conn.prepare_cached("BEGIN IMMEDIATE")?.execute(())?;
            apply(&mut tx)?;
            ledger::write(&mut tx)?;
            tx.conn.prepare_cached("COMMIT")?.execute(())?;
            Ok(())
        };
        let result = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(result) => result.map_err(Fault::Sql),
            Err(_) => Err(Fault::Panic),
        };
        let effects = tx.effects;
        if result.is_err() {
            // They count attempts that are taken back: a ring that goes on from there would
            // push out others for nothing.
            self.rings = RingCounters::default();
        }
        // Some failures take the transaction back by themselves.
        if result.is_err()
            && !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "the SQLite transaction could not be rolled back");
        }
        result.map(|()| effects)
    }

    /// Tells everyone what a transaction changed.
    fn publish(&self, effects: Effects, batch: &Batch) {
        let writer = &self.writer;
        writer.shared.resize(&effects);
        writer.event_desk.forget(&batch.acks.events);
        writer.delivery_desk.forget(&batch.acks.deliveries);
        if effects.new_events {
            writer.event_desk.ring();
        }
        if let Some(place) = effects.first_put
            && writer.schedule.put(place)
        {
            writer.delivery_desk.ring();
        }
        writer.shared.tell(effects.changed);
    }

    /// Answers with an error; keeps for later what nobody waits for.
    fn give_up(&mut self, mut batch: Batch, fault: &Fault) {
        if !self.is_troubled() {
            self.probe_at = Instant::now() + PROBE_EVERY;
        }
        self.note(Some(fault.to_string()));
        let acks = std::mem::take(&mut batch.acks);
        self.writer.queue.put_back(acks);
        let error = match fault {
            Fault::Sql(error) => store_error(error),
            Fault::Panic => StoreError::Unavailable(fault.to_string()),
        };
        finish(batch, &Err(error));
    }

    /// Notes whether writing works, and logs when that changes.
    fn note(&self, trouble: Option<String>) {
        let mut noted = locked(&self.writer.shared.trouble);
        match (&*noted, &trouble) {
            (None, Some(error)) => tracing::error!(%error, "writing to SQLite fails"),
            (Some(_), None) => tracing::info!("writing to SQLite works again"),
            _ => {}
        }
        *noted = trouble;
    }

    /// Writes something, to find out whether that works.
    fn probe(&mut self) {
        let probed = self.transact(|tx| {
            tx.conn
                .prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES ('probe', ?)")?
                .execute([tx.now.0])
                .map(drop)
        });
        self.note(probed.err().map(|fault| fault.to_string()));
        self.probe_at = Instant::now() + PROBE_EVERY;
    }

    /// Deletes some of what expired.
    fn tidy(&mut self) {
        let keep = self.writer.settings.audit_keep;
        let records = self.prune(|tx| ledger::prune(tx.conn, tx.now));
        // By themselves: attempts that cannot be deleted must not keep the ledger's records.
        let attempts = self.prune(|tx| audit::prune(tx.conn, tx.now.before(keep)));
        let more = matches!(records, Ok(true)) || matches!(attempts, Ok(true));
        if let Err(fault) = records {
            self.note(Some(fault.to_string()));
        }
        let failed_before = std::mem::replace(&mut self.pruning_fails, attempts.is_err());
        if let Err(fault) = attempts
            && !failed_before
        {
            tracing::warn!(%fault, "expired attempts cannot be deleted from SQLite: the file grows");
        }
        // With more to do, again after the next commit, or at once when there is none.
        self.tidy_at = Instant::now() + if more { Duration::ZERO } else { TIDY_EVERY };
    }

    /// Runs `prune` in a transaction; says whether there is more.
    fn prune(
        &mut self,
        prune: impl FnOnce(&Tx<'_>) -> rusqlite::Result<bool>,
    ) -> Result<bool, Fault> {
        let mut more = false;
        self.transact(|tx| {
            more = prune(tx)?;
            Ok(())
        })?;
        Ok(more)
    }

    /// Brings the log into the database, so that a closed database is one file.
    fn fold_log(&self) {
        let folded = self
            .conn
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()));
        if let Err(error) = folded {
            tracing::warn!(%error, "the SQLite log is left for the next start");
        }
    }
}

fn apply(batch: &mut Batch, tx: &mut Tx<'_>) -> rusqlite::Result<()> {
    for work in &mut batch.work {
        work.apply(tx)?;
    }
    for record in &batch.records {
        tx.settles(record.key, &record.subscription);
    }
    if !batch.acks.events.is_empty() {
        tx.effects.events -= delete(tx, "DELETE FROM events WHERE id = ?", &batch.acks.events)?;
    }
    if !batch.acks.deliveries.is_empty() {
        let sql = "DELETE FROM deliveries WHERE seq = ?";
        tx.effects.deliveries -= delete(tx, sql, &batch.acks.deliveries)?;
    }
    audit::write(tx, &mut batch.attempts)
}

fn delete(tx: &Tx<'_>, sql: &str, ids: &[i64]) -> rusqlite::Result<i64> {
    let mut statement = tx.conn.prepare_cached(sql)?;
    let mut deleted = 0;
    for id in ids {
        deleted += statement.execute([id])?;
    }
    Ok(signed(deleted))
}

fn finish(batch: Batch, committed: &Result<(), StoreError>) {
    for work in batch.work {
        work.finish(committed.clone());
    }
    for record in batch.records {
        // Who asked may have stopped waiting.
        let _ = record.reply.send(committed.clone());
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Tx<'_> {
    /// Has the ledger remember `subscription` with this transaction.
    pub(super) fn settles(&mut self, key: LedgerKey, subscription: &SubscriptionId) {
        if self.settings.dedup_window.is_zero() {
            return;
        }
        let settled = self.settled.entry(key).or_default();
        if !settled.is_empty() {
            settled.push(' ');
        }
        settled.push_str(subscription.as_str());
    }
}

impl Effects {
    /// Notes a delivery put at `place`, instead of `replaced` others.
    pub(super) fn put_delivery(&mut self, place: Place, replaced: usize) {
        self.deliveries += 1 - signed(replaced);
        self.first_put = Some(self.first_put.map_or(place, |first| first.min(place)));
    }

    /// Notes that so many deliveries wait no longer.
    pub(super) fn remove_deliveries(&mut self, count: usize) {
        self.deliveries -= signed(count);
    }
}
