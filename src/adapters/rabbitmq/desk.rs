//! The desk: settles the messages of one channel.
//!
//! Acks are gathered: what is settled without a gap is acknowledged by one frame. A message
//! that is given back waits a little first, longer each time, so that one that cannot be
//! served now neither comes again at once nor is soon taken for one that never can. When its channel is gone a receipt settles nothing: the message has
//! gone back already.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::types::ShortString;
use lapin::{Channel, ChannelStatus};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::time::DelayQueue;

use super::acked::Acked;
use super::locked;
use crate::domain::id::{LedgerKey, SubscriptionId};
use crate::ports::{Ledger, ReceiptDesk};

/// How long a message that was given back stays here the first time: twice as long each time.
const REQUEUE_AFTER: Duration = Duration::from_secs(1);
/// The longest that it stays here: so the limit of deliveries takes more than an hour.
const REQUEUE_AFTER_MAX: Duration = Duration::from_secs(60);
/// How long an ack waits for those before it, to go with them in one frame.
const HOLD: Duration = Duration::from_millis(5);
/// Most settlements done in one go.
const BATCH: usize = 1024;

/// What is remembered in the ledger before a message is acknowledged.
pub(super) type Remembered = (LedgerKey, SubscriptionId);

/// Takes settlements; a task carries them out.
pub(super) struct Desk {
    settled: mpsc::UnboundedSender<Settled>,
    /// How many messages came: the last one's tag.
    came: AtomicU64,
    /// How many of them RabbitMQ was told of.
    told: AtomicU64,
    remembered: Mutex<HashMap<u64, Remembered>>,
    /// How often those that came again were handed out before.
    again: Mutex<HashMap<u64, u32>>,
    channel: ChannelStatus,
}

enum Settled {
    Ack(u64),
    Requeue(u64),
    Flush(oneshot::Sender<()>),
}

impl Desk {
    /// A desk for `channel`, and the task that serves it until nobody has a receipt any more.
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
            came: AtomicU64::new(0),
            told: AtomicU64::new(0),
            remembered: Mutex::default(),
            again: Mutex::default(),
            channel: channel.status().clone(),
        });
        let clerk = Clerk {
            channel,
            queue,
            ledger,
            desk: Arc::downgrade(&desk),
            acked: Acked::default(),
            alone_at: None,
            returning: DelayQueue::new(),
        };
        (desk, clerk.serve(receiver, stop))
    }

    /// Whether its messages can still be settled.
    pub(super) fn is_open(&self) -> bool {
        self.channel.connected()
    }

    /// Has the ledger remember something just before message `tag` is acknowledged.
    pub(super) fn remember(&self, tag: u64, remembered: Remembered) {
        locked(&self.remembered).insert(tag, remembered);
    }

    /// Notes that message `tag` came, and how often it was handed out before.
    pub(super) fn came(&self, tag: u64, before: Option<u32>) {
        self.came.store(tag, Ordering::Relaxed);
        if let Some(times) = before {
            locked(&self.again).insert(tag, times);
        }
    }

    /// How many messages came, and how many of them RabbitMQ was not told of yet.
    pub(super) fn counts(&self) -> (u64, u64) {
        let told = self.told.load(Ordering::Relaxed);
        let came = self.came.load(Ordering::Relaxed);
        (came, came.saturating_sub(told))
    }

    fn told(&self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.told.fetch_add(count, Ordering::Relaxed);
    }

    /// How long message `tag` stays here before it goes back. It is settled by this.
    fn stay_of(&self, tag: u64) -> Duration {
        stay(locked(&self.again).remove(&tag).unwrap_or(0))
    }

    /// Resolves when RabbitMQ knows of all that was settled before.
    pub(super) async fn flush(&self) {
        let (done, waiting) = oneshot::channel();
        let _ = self.settled.send(Settled::Flush(done));
        let _ = waiting.await;
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
    /// When what is held back is acknowledged one by one.
    alone_at: Option<Instant>,
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
        // Also when the channel is gone: what is settled then comes again by another, and the
        // ledger has to know it.
        loop {
            tokio::select! {
                count = settled.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    self.carry_out(batch.drain(..), hurry).await;
                }
                Some(tag) = self.returning.next() => self.give_back(tag.into_inner()).await,
                () = sleep_until(self.alone_at) => self.ack_alone().await,
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
        if hurry || !flushes.is_empty() {
            self.ack_alone().await;
        }
        for tag in requeued {
            if hurry {
                self.give_back(tag).await;
            } else {
                let desk = self.desk.upgrade();
                let stay = desk.map_or(REQUEUE_AFTER, |desk| desk.stay_of(tag));
                self.returning.insert(tag, stay);
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
        if !self.channel.status().connected() {
            return;
        }
        self.acked.settle(&tags);
        if let Some(tag) = self.acked.together() {
            // What fails here fails because the channel is gone, and comes again.
            let together = BasicAckOptions { multiple: true };
            let _ = self.channel.basic_ack(tag, together).await;
        }
        if self.acked.is_holding() && self.alone_at.is_none() {
            self.alone_at = Some(Instant::now() + HOLD);
        }
    }

    /// Acknowledges one by one what still has a gap before it.
    async fn ack_alone(&mut self) {
        self.alone_at = None;
        let tags = self.acked.alone();
        let alone = BasicAckOptions { multiple: false };
        join_all(tags.map(|tag| self.channel.basic_ack(tag, alone))).await;
    }

    /// Before the ack: a message that is lost track of in between comes again, and is known.
    async fn remember(&self, tags: &[u64]) {
        let Some(desk) = self.desk.upgrade() else {
            return;
        };
        desk.told(tags.len());
        let remembered: Vec<_> = {
            let mut again = locked(&desk.again);
            for tag in tags {
                again.remove(tag);
            }
            let mut all = locked(&desk.remembered);
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
            locked(&desk.remembered).remove(&tag);
            desk.told(1);
        }
        self.acked.skip(tag);
        let again = BasicNackOptions {
            multiple: false,
            requeue: true,
        };
        let _ = self.channel.basic_nack(tag, again).await;
    }
}

/// How long a message stays that was handed out so many times before.
fn stay(times: u32) -> Duration {
    let doubled = REQUEUE_AFTER.checked_mul(2_u32.saturating_pow(times));
    doubled.map_or(REQUEUE_AFTER_MAX, |stay| stay.min(REQUEUE_AFTER_MAX))
}

/// Never, when there is no time.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_comes_again_and_again_stays_longer() {
        let stays = [0, 1, 2, 5, 6, 99, u32::MAX].map(|times| stay(times).as_secs());
        assert_eq!(stays, [1, 2, 4, 32, 60, 60, 60]);
        let limit: Duration = (0..100).map(stay).sum();
        assert!(limit > Duration::from_secs(90 * 60), "{limit:?}");
    }
}
