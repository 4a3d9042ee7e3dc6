//! What waits for the writer, in lanes.
//!
//! Urgent: work that someone waits for, and ledger records. Lazy: acknowledgements and
//! attempts, which linger a little for company, so that they share a commit, the attempts as
//! far as it is their turn (`attempts`). The lazy are never lost by an orderly end; losing
//! them in a crash costs a duplicate at most.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::attempts::{Attempts, Done, Turn};
use super::audit::AuditRow;
use super::locked;
use super::writer::Tx;
use crate::domain::id::{LedgerKey, SubscriptionId};
use crate::ports::StoreError;

/// How long lazy things wait for company.
const LINGER: Duration = Duration::from_millis(5);
/// How long they wait after a commit that failed.
const LINGER_AFTER_FAILURE: Duration = Duration::from_millis(250);
/// So many lazy things need no more company.
const LAZY_ENOUGH: usize = 2000;
/// The most pieces of work in one commit, so that the first does not wait for ever.
const WORK_MAX: usize = 4096;

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
    /// Until when acknowledgements wait that could not be written.
    acks_rest_until: Option<Instant>,
    attempts: Attempts,
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
    pub(super) attempts: Turn,
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
        let kept = waiting.life == Life::Open && waiting.attempts.push(row);
        if kept {
            self.lazy_came(&mut waiting);
        }
        kept
    }

    /// Whether an attempt of about no size would be kept.
    pub(super) fn has_room(&self) -> bool {
        locked(&self.waiting).attempts.has_room(0)
    }

    /// Has all attempts that wait written by the next commit.
    pub(super) fn hurry(&self) {
        locked(&self.waiting).attempts.hurry();
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

    /// Puts back the acknowledgements of a failed commit. A closed queue takes nothing back:
    /// its end must come.
    pub(super) fn put_back(&self, acks: Acks) {
        let mut waiting = locked(&self.waiting);
        if waiting.life != Life::Open {
            return;
        }
        waiting.acks.events.extend(acks.events);
        waiting.acks.deliveries.extend(acks.deliveries);
        let until = Instant::now() + LINGER_AFTER_FAILURE;
        waiting.acks_rest_until = Some(until);
        let due = waiting.acks_due(until);
        waiting.lazy_by(due);
    }

    /// Notes that attempts were written, and what is left of them.
    pub(super) fn wrote(&self, left: Vec<AuditRow>, done: Done) {
        let mut waiting = locked(&self.waiting);
        let now = Instant::now();
        waiting.attempts.wrote(left, done.took, now);
        waiting.attempts_rest(now);
    }

    /// Puts back attempts that could not be written; says how many found no room any more. A
    /// closed queue takes none back.
    pub(super) fn put_back_attempts(&self, rows: Vec<AuditRow>) -> usize {
        let mut waiting = locked(&self.waiting);
        if waiting.life != Life::Open {
            return rows.len();
        }
        let now = Instant::now();
        let dropped = waiting.attempts.failed(rows, now);
        waiting.attempts_rest(now);
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

    /// Has what is lazy written: soon, or at once when it is enough.
    fn lazy_came(&self, waiting: &mut Waiting) {
        let now = Instant::now();
        let acks = match waiting.acks_due(now) {
            Some(due) if due <= now => waiting.acks.len(),
            _ => 0,
        };
        let is_enough = acks + waiting.attempts.ready(now) >= LAZY_ENOUGH;
        let soonest = if is_enough { now } else { now + LINGER };
        let due = [waiting.acks_due(soonest), waiting.attempts.due(soonest)];
        if waiting.lazy_by(due.into_iter().flatten().min()) {
            self.bell.notify_one();
        }
    }
}

impl Waiting {
    fn is_urgent(&self) -> bool {
        !self.work.is_empty() || !self.records.is_empty()
    }

    fn lazy_count(&self) -> usize {
        self.acks.len() + self.attempts.len()
    }

    /// Has what is lazy due at `at`, if it is not sooner; says whether that is news.
    fn lazy_by(&mut self, at: Option<Instant>) -> bool {
        let Some(at) = at else { return false };
        let is_sooner = self.lazy_at.is_none_or(|lazy_at| at < lazy_at);
        if is_sooner {
            self.lazy_at = Some(at);
        }
        is_sooner
    }

    /// When acknowledgements that wait may be written: never before `soonest`.
    fn acks_due(&self, soonest: Instant) -> Option<Instant> {
        let due = self.acks_rest_until.map_or(soonest, |at| at.max(soonest));
        (self.acks.len() > 0).then_some(due)
    }

    /// Has attempts that wait due when they have rested.
    fn attempts_rest(&mut self, now: Instant) {
        if self.acks.len() == 0 {
            self.lazy_at = None;
        }
        self.lazy_by(self.attempts.due(now));
    }

    fn take(&mut self) -> Batch {
        let some = self.work.len().min(WORK_MAX);
        let rest = self.work.split_off(some);
        let now = Instant::now();
        if self.life != Life::Open {
            self.attempts.hurry();
        }
        let attempts = self.attempts.take(now);
        // Those that failed make no other work fail while they rest.
        let acks = match self.acks_due(now) {
            Some(due) if due > now && self.life == Life::Open => Acks::default(),
            _ => std::mem::take(&mut self.acks),
        };
        let due = [self.acks_due(now), self.attempts.due(now)];
        self.lazy_at = due.into_iter().flatten().min();
        Batch {
            attempts,
            work: std::mem::replace(&mut self.work, rest),
            records: std::mem::take(&mut self.records),
            acks,
        }
    }
}

impl Acks {
    pub(super) fn len(&self) -> usize {
        self.events.len() + self.deliveries.len()
    }
}

impl Batch {
    /// Whether it cannot be cut further. It holds no attempts any more.
    pub(super) fn is_one(&self) -> bool {
        self.work.len() + self.records.len() + usize::from(self.acks.len() > 0) <= 1
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.work.is_empty() && self.records.is_empty() && self.acks.len() == 0
    }

    /// Cuts it in two, to find what in it cannot be written. The order of work is kept.
    pub(super) fn halve(mut self) -> (Self, Self) {
        let mut first = Self::default();
        let (work, records) = (self.work.len(), self.records.len());
        if work > 0 && records + self.acks.len() > 0 {
            first.work = std::mem::take(&mut self.work);
        } else if work > 0 {
            first.work = self.work.drain(..work / 2).collect();
        } else if self.acks.len() > 0 {
            first.records = std::mem::take(&mut self.records);
        } else {
            first.records = self.records.drain(..records / 2).collect();
        }
        (first, self)
    }
}

/// The answer of a store that is closed.
pub(super) fn closed() -> StoreError {
    StoreError::Unavailable("the SQLite store is closed".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// What failed with a commit is not in each that follows at once.
    #[tokio::test]
    async fn acknowledgements_that_failed_rest() {
        let queue = Arc::new(Queue::default());
        let failed = Instant::now();
        let all = (0..5000).collect();
        queue.put_back(Acks {
            events: all,
            deliveries: Vec::new(),
        });
        queue.ack(Lane::Events, 5000);
        let next = queue.next(Duration::ZERO);
        let is_over = || failed.elapsed() >= LINGER_AFTER_FAILURE;
        assert!(matches!(next, Next::Idle) || is_over());
        let asking = Arc::clone(&queue);
        let work = tokio::spawn(async move { asking.write(|_| Ok(Ok(()))).await });
        tokio::task::yield_now().await;
        match queue.next(Duration::from_secs(60)) {
            Next::Commit(batch) => assert!(batch.acks.len() == 0 || is_over()),
            Next::Idle | Next::End { .. } => panic!("there is work"),
        }
        match queue.next(Duration::from_secs(60)) {
            Next::Commit(batch) => assert!(is_over() && batch.acks.len() == 5001),
            Next::Idle | Next::End { .. } => panic!("they were put back"),
        }
        assert!(work.await.unwrap().is_err(), "the batch was dropped");
    }
}
