//! What waits for the writer, in lanes.
//!
//! Urgent: work that someone waits for, and ledger records. Lazy: acknowledgements and
//! attempts, which linger a little for company, so that they share a commit. The lazy
//! are never lost by an orderly end; losing them in a crash costs a duplicate at most.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::locked;
use super::writer::Tx;
use crate::domain::id::{LedgerKey, SubscriptionId};
use crate::ports::StoreError;

use super::audit::AuditRow;

/// How long lazy things wait for company.
const LINGER: Duration = Duration::from_millis(5);
/// How long they wait after a commit that failed.
const LINGER_AFTER_FAILURE: Duration = Duration::from_millis(250);
/// So many lazy things need no more company.
const LAZY_ENOUGH: usize = 2000;
/// The most pieces of work in one commit, so that the first does not wait for ever.
const WORK_MAX: usize = 4096;
/// The most attempts and their bytes that wait, so that a slow disk takes no memory.
const AUDIT_ROWS_MAX: usize = 8192;
const AUDIT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What waits for the writer.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    bell: Condvar,
}

#[derive(Default)]
struct Waiting {
    work: VecDeque<Box<dyn Work>>,
    records: Vec<Record>,
    acks: Acks,
    audit: Vec<AuditRow>,
    audit_bytes: usize,
    /// When the lazy things are due; `None` while there are none.
    lazy_at: Option<Instant>,
    life: Life,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Life {
    #[default]
    Open,
    /// What waits is still written.
    Closed,
    /// What waits is forgotten.
    Abandoned,
}

/// Where a message came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Events,
    Deliveries,
}

/// Messages that are done with.
#[derive(Default)]
pub(super) struct Acks {
    pub(super) events: Vec<i64>,
    pub(super) deliveries: Vec<i64>,
}

/// A settled subscription that someone waits to have remembered.
pub(super) struct Record {
    pub(super) key: LedgerKey,
    pub(super) subscription: SubscriptionId,
    pub(super) reply: oneshot::Sender<Result<(), StoreError>>,
}

/// What one commit makes durable.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) work: VecDeque<Box<dyn Work>>,
    pub(super) records: Vec<Record>,
    pub(super) acks: Acks,
    pub(super) audit: Vec<AuditRow>,
}

/// What the writer is to do next.
pub(super) enum Next {
    Commit(Batch),
    /// Nothing came for a while.
    Idle,
    End {
        abandoned: bool,
    },
}

/// Something to do within a transaction, for someone who waits.
pub(super) trait Work: Send {
    /// Does it; again from the start when the transaction had to be taken back.
    fn apply(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()>;
    /// Tells who waits.
    fn finish(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Call<T, F> {
    run: F,
    answer: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Work for Call<T, F>
where
    T: Send,
    F: FnMut(&mut Tx<'_>) -> rusqlite::Result<Result<T, StoreError>> + Send,
{
    fn apply(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()> {
        self.answer = Some((self.run)(tx)?);
        Ok(())
    }

    fn finish(self: Box<Self>, committed: Result<(), StoreError>) {
        let answer = match (committed, self.answer) {
            (Ok(()), Some(answer)) => answer,
            (Ok(()), None) => Err(closed()),
            (Err(error), _) => Err(error),
        };
        // Who asked may have stopped waiting.
        let _ = self.reply.send(answer);
    }
}

impl Queue {
    /// Has `run` done within the next transaction; resolves when it is durable.
    ///
    /// `run` may be called again. An inner error is its own answer: it must not have
    /// written anything then. An outer error takes back what it wrote.
    pub(super) async fn write<T, F>(&self, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> rusqlite::Result<Result<T, StoreError>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call = Box::new(Call {
            run,
            answer: None,
            reply,
        });
        self.push(|waiting| waiting.work.push_back(call))?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Has a settled subscription remembered; resolves when it is durable.
    pub(super) async fn record(
        &self,
        key: LedgerKey,
        subscription: SubscriptionId,
    ) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        let record = Record {
            key,
            subscription,
            reply,
        };
        self.push(|waiting| waiting.records.push(record))?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Has a message deleted soon.
    pub(super) fn ack(&self, lane: Lane, id: i64) {
        let mut waiting = locked(&self.waiting);
        match lane {
            Lane::Events => waiting.acks.events.push(id),
            Lane::Deliveries => waiting.acks.deliveries.push(id),
        }
        self.lazy_came(&mut waiting);
    }

    /// Has an attempt kept soon; says whether there was room.
    pub(super) fn keep(&self, row: AuditRow) -> bool {
        let mut waiting = locked(&self.waiting);
        if waiting.life != Life::Open || !waiting.has_audit_room(row.record.len()) {
            return false;
        }
        waiting.audit_bytes += row.record.len();
        waiting.audit.push(row);
        self.lazy_came(&mut waiting);
        true
    }

    /// Whether an attempt of about no size would be kept.
    pub(super) fn has_audit_room(&self) -> bool {
        locked(&self.waiting).has_audit_room(0)
    }

    /// Whether something lazy waits.
    pub(super) fn has_lazy(&self) -> bool {
        locked(&self.waiting).lazy_count() > 0
    }

    /// Whether it takes anything.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it is closed.
    pub(super) fn open(&self) -> Result<(), StoreError> {
        match locked(&self.waiting).life {
            Life::Open => Ok(()),
            Life::Closed | Life::Abandoned => Err(closed()),
        }
    }

    /// Has the writer end when it has written what waits.
    pub(super) fn close(&self) {
        let mut waiting = locked(&self.waiting);
        if waiting.life == Life::Open {
            waiting.life = Life::Closed;
        }
        self.bell.notify_all();
    }

    /// Has the writer end and forgets what waits. Who waits for an answer gets an error.
    pub(super) fn abandon(&self) {
        let mut waiting = locked(&self.waiting);
        *waiting = Waiting {
            life: Life::Abandoned,
            ..Waiting::default()
        };
        self.bell.notify_all();
    }

    /// Waits for something to do, no longer than `patience`.
    pub(super) fn next(&self, patience: Duration) -> Next {
        let give_up_at = Instant::now() + patience;
        let mut waiting = locked(&self.waiting);
        loop {
            let now = Instant::now();
            let lazy_due = waiting.lazy_at.is_some_and(|at| at <= now);
            if waiting.is_urgent() || lazy_due {
                return Next::Commit(waiting.take());
            }
            match waiting.life {
                Life::Open => {}
                Life::Closed if waiting.lazy_count() > 0 => {
                    return Next::Commit(waiting.take());
                }
                life => {
                    return Next::End {
                        abandoned: life == Life::Abandoned,
                    };
                }
            }
            if give_up_at <= now {
                return Next::Idle;
            }
            let until = waiting.lazy_at.map_or(give_up_at, |at| at.min(give_up_at));
            let rung = self.bell.wait_timeout(waiting, until - now);
            waiting = rung.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// Puts back what a failed commit was to make durable; says how many attempts found
    /// no room any more. A closed queue takes nothing back: its end must come.
    pub(super) fn put_back(&self, acks: Acks, audit: Vec<AuditRow>) -> usize {
        let mut waiting = locked(&self.waiting);
        if waiting.life != Life::Open {
            return audit.len();
        }
        waiting.acks.events.extend(acks.events);
        waiting.acks.deliveries.extend(acks.deliveries);
        let mut kept: Vec<AuditRow> = Vec::with_capacity(audit.len());
        let mut dropped = 0;
        for row in audit {
            if waiting.audit.len() + kept.len() < AUDIT_ROWS_MAX {
                waiting.audit_bytes += row.record.len();
                kept.push(row);
            } else {
                dropped += 1;
            }
        }
        kept.append(&mut waiting.audit);
        waiting.audit = kept;
        if waiting.lazy_count() > 0 {
            waiting.lazy_at = Some(Instant::now() + LINGER_AFTER_FAILURE);
        }
        dropped
    }

    fn push(&self, put: impl FnOnce(&mut Waiting)) -> Result<(), StoreError> {
        let mut waiting = locked(&self.waiting);
        if waiting.life != Life::Open {
            return Err(closed());
        }
        put(&mut waiting);
        self.bell.notify_one();
        Ok(())
    }

    fn lazy_came(&self, waiting: &mut Waiting) {
        let count = waiting.lazy_count();
        if waiting.lazy_at.is_none() {
            waiting.lazy_at = Some(Instant::now() + LINGER);
            self.bell.notify_one();
        } else if count == LAZY_ENOUGH {
            waiting.lazy_at = Some(Instant::now());
            self.bell.notify_one();
        }
    }
}

impl Waiting {
    fn is_urgent(&self) -> bool {
        !self.work.is_empty() || !self.records.is_empty()
    }

    fn lazy_count(&self) -> usize {
        self.acks.len() + self.audit.len()
    }

    fn has_audit_room(&self, bytes: usize) -> bool {
        self.audit.len() < AUDIT_ROWS_MAX && self.audit_bytes + bytes <= AUDIT_BYTES_MAX
    }

    fn take(&mut self) -> Batch {
        let some = self.work.len().min(WORK_MAX);
        let rest = self.work.split_off(some);
        self.lazy_at = None;
        self.audit_bytes = 0;
        Batch {
            work: std::mem::replace(&mut self.work, rest),
            records: std::mem::take(&mut self.records),
            acks: std::mem::take(&mut self.acks),
            audit: std::mem::take(&mut self.audit),
        }
    }
}

impl Acks {
    pub(super) fn len(&self) -> usize {
        self.events.len() + self.deliveries.len()
    }
}

impl Batch {
    /// Whether it cannot be cut further.
    pub(super) fn is_one(&self) -> bool {
        let acks = usize::from(self.acks.len() > 0);
        let audit = usize::from(!self.audit.is_empty());
        self.work.len() + self.records.len() + acks + audit <= 1
    }

    /// Cuts it in two, to find what in it cannot be written. The order of work is kept.
    pub(super) fn halve(mut self) -> (Self, Self) {
        let mut first = Self::default();
        let lazy = self.acks.len() + self.audit.len();
        let (work, records) = (self.work.len(), self.records.len());
        if work > 0 && records + lazy > 0 {
            first.work = std::mem::take(&mut self.work);
        } else if work > 0 {
            first.work = self.work.drain(..work / 2).collect();
        } else if records > 0 && lazy > 0 {
            first.records = std::mem::take(&mut self.records);
        } else if records > 0 {
            first.records = self.records.drain(..records / 2).collect();
        } else {
            first.acks = std::mem::take(&mut self.acks);
        }
        (first, self)
    }
}

/// The answer of a store that is closed.
pub(super) fn closed() -> StoreError {
    StoreError::Unavailable("the SQLite store is closed".to_owned())
}
