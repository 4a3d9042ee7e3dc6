//! The desk: settles the messages of one channel.
//!
//! Acks are gathered: what is settled without a gap is acknowledged by one frame. A message
//! that is given back waits a little first, so that one that cannot be served now does not
//! come again at once. When its channel is gone a receipt settles nothing: the message has
//! gone back already.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::types::ShortString;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::time::DelayQueue;

use crate::domain::id::{LedgerKey, SubscriptionId};
use crate::ports::{Ledger, ReceiptDesk};

/// How long a message that was given back stays here.
const REQUEUE_AFTER: Duration = Duration::from_secs(1);
/// Most settlements done in one go.
const BATCH: usize = 1024;

/// What is remembered in the ledger before a message is acknowledged.
pub(super) type Remembered = (LedgerKey, SubscriptionId);

/// Takes settlements; a task carries them out.
pub(super) struct Desk {
    settled: mpsc::UnboundedSender<Settled>,
    remembered: Mutex<HashMap<u64, Remembered>>,
}

enum Settled {
    Ack(u64),
    Requeue(u64),
    Flush(oneshot::Sender<()>),
}

impl Desk {
    /// A desk for `channel`, and the task that serves it until the channel is gone.
    ///
    /// From `stop` on, what is given back goes back at once.
    pub(super) fn new(
        channel: Channel,
        queue: ShortString,
        ledger: Arc<dyn Ledger>,
        stop: CancellationToken,
    ) -> (Arc<Self>, impl Future<Output = ()> + Send) {
        let (settled, receiver) = mpsc::unbounded_channel();
        let desk = Arc::new(Self {
            settled,
            remembered: Mutex::default(),
        });
        let clerk = Clerk {
            channel,
            queue,
            ledger,
            desk: Arc::downgrade(&desk),
            acked: Acked::default(),
            returning: DelayQueue::new(),
        };
        (desk, clerk.serve(receiver, stop))
    }

    /// Has the ledger remember something just before message `tag` is acknowledged.
    pub(super) fn remember(&self, tag: u64, remembered: Remembered) {
        self.remembered().insert(tag, remembered);
    }

    /// Resolves when RabbitMQ knows of all that was settled before.
    pub(super) async fn flush(&self) {
        let (done, waiting) = oneshot::channel();
        let _ = self.settled.send(Settled::Flush(done));
        let _ = waiting.await;
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Remembered>> {
        let locked = self.remembered.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReceiptDesk for Desk {
    fn ack(&self, tag: u64) {
        // Without a channel there is nothing to settle any more.
        let _ = self.settled.send(Settled::Ack(tag));
    }

    fn requeue(&self, tag: u64) {
        let _ = self.settled.send(Settled::Requeue(tag));
    }
}

/// Carries settlements out.
struct Clerk {
    channel: Channel,
    queue: ShortString,
    ledger: Arc<dyn Ledger>,
    desk: std::sync::Weak<Desk>,
    acked: Acked,
    returning: DelayQueue<u64>,
}

impl Clerk {
    async fn serve(
        mut self,
        mut settled: mpsc::UnboundedReceiver<Settled>,
        stop: CancellationToken,
    ) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut hurry = false;
        while self.channel.status().connected() {
            tokio::select! {
                count = settled.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    self.carry_out(batch.drain(..), hurry).await;
                }
                Some(tag) = self.returning.next() => self.give_back(tag.into_inner()).await,
                () = stop.cancelled(), if !hurry => {
                    hurry = true;
                    let tags: Vec<u64> = self.all_returning();
                    for tag in tags {
                        self.give_back(tag).await;
                    }
                }
            }
        }
    }

    fn all_returning(&mut self) -> Vec<u64> {
        let mut tags = Vec::with_capacity(self.returning.len());
        while let Some(key) = self.returning.peek() {
            tags.push(self.returning.remove(&key).into_inner());
        }
        tags
    }

    async fn carry_out(&mut self, batch: impl Iterator<Item = Settled>, hurry: bool) {
        let mut acks = Vec::new();
        let mut requeued = Vec::new();
        let mut flushes = Vec::new();
        for settled in batch {
            match settled {
                Settled::Ack(tag) => acks.push(tag),
                Settled::Requeue(tag) => requeued.push(tag),
                Settled::Flush(done) => flushes.push(done),
            }
        }
        self.ack(acks).await;
        for tag in requeued {
            if hurry {
                self.give_back(tag).await;
            } else {
                self.returning.insert(tag, REQUEUE_AFTER);
            }
        }
        if !flushes.is_empty() {
            // Answered after the acks before it: then RabbitMQ has them.
            let _ = super::size(&self.channel, &self.queue).await;
        }
        for done in flushes {
            let _ = done.send(());
        }
    }

    async fn ack(&mut self, tags: Vec<u64>) {
        self.remember(&tags).await;
        let (up_to, alone) = self.acked.add(tags);
        let ack = |tag, multiple| self.channel.basic_ack(tag, BasicAckOptions { multiple });
        // What fails here fails because the channel is gone, and comes again.
        if let Some(tag) = up_to {
            let _ = ack(tag, true).await;
        }
        for tag in alone {
            let _ = ack(tag, false).await;
        }
    }

    /// Before the ack: a message that is lost track of in between comes again, and is known.
    async fn remember(&self, tags: &[u64]) {
        let Some(desk) = self.desk.upgrade() else {
            return;
        };
        let remembered: Vec<_> = {
            let mut all = desk.remembered();
            tags.iter().filter_map(|tag| all.remove(tag)).collect()
        };
        if remembered.is_empty() {
            return;
        }
        if let Err(error) = self.ledger.record(remembered).await {
            tracing::warn!(%error, "the ledger does not remember what was settled");
        }
    }

    async fn give_back(&mut self, tag: u64) {
        if let Some(desk) = self.desk.upgrade() {
            desk.remembered().remove(&tag);
        }
        self.acked.skip(tag);
        let again = BasicNackOptions {
            multiple: false,
            requeue: true,
        };
        let _ = self.channel.basic_nack(tag, again).await;
    }
}

/// Which tags of a channel are settled: all up to one, and some beyond.
#[derive(Default)]
struct Acked {
    up_to: u64,
    beyond: BTreeSet<u64>,
}

impl Acked {
    /// Adds tags that are done with. Says up to which one all can be acknowledged together,
    /// and which ones have to be alone.
    fn add(&mut self, mut tags: Vec<u64>) -> (Option<u64>, Vec<u64>) {
        tags.sort_unstable();
        let mut together = None;
        let mut alone = Vec::new();
        for tag in tags {
            self.skip(tag);
            if tag <= self.up_to {
                together = Some(tag);
            } else {
                alone.push(tag);
            }
        }
        (together, alone)
    }

    /// Notes that a tag is settled, one way or the other.
    fn skip(&mut self, tag: u64) {
        self.beyond.insert(tag);
        while self.beyond.remove(&(self.up_to + 1)) {
            self.up_to += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_gap_is_acknowledged_together() {
        let mut acked = Acked::default();
        assert_eq!(acked.add(vec![3, 2]), (None, vec![2, 3]));
        assert_eq!(acked.add(vec![5]), (None, vec![5]));
        assert_eq!(acked.add(vec![1]), (Some(1), vec![]));
        assert_eq!(acked.add(vec![4, 7]), (Some(4), vec![7]));
        acked.skip(6);
        assert_eq!(acked.add(vec![9, 8, 11]), (Some(9), vec![11]));
    }

    /// RabbitMQ refuses to acknowledge up to a tag that is not open.
    #[test]
    fn only_an_open_tag_is_acknowledged() {
        let mut acked = Acked::default();
        let mut open: BTreeSet<u64> = (1..=200).collect();
        let mut left: Vec<u64> = open.iter().copied().collect();
        fastrand::seed(7);
        fastrand::shuffle(&mut left);
        while !left.is_empty() {
            let some = left.split_off(left.len() - left.len().min(fastrand::usize(1..9)));
            let (together, alone) = acked.add(some);
            if let Some(tag) = together {
                assert!(open.contains(&tag), "{tag}");
                open.retain(|open| *open > tag);
            }
            for tag in alone {
                assert!(open.remove(&tag), "{tag}");
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }
}
