//! Reading through a queue that has no index: the dead letters and the quarantine.
//!
//! A reader takes messages without settling them, settles those it is asked to, and gives all
//! others back in their order. It takes no more than it is told are wanted, as what goes back
//! stands behind whatever else was given back before. Only one reads at a time, or each would
//! see a part: in the process by a lock, among processes by the queue's count of consumers.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::sync::MutexGuard;

use super::{Rabbit, size, unavailable};
use crate::ports::StoreError;

/// Most messages taken at once, which is what of them is in memory.
pub(super) const PAGE_MAX: usize = 512;
/// So many are given back at once: RabbitMQ 3.10 mixes the order of more.
const BACK_GROUP: usize = 32;
/// So many are given back before they are seen to be there: RabbitMQ holds back what is more,
/// and then gives it back at once.
const BACK_MAX: usize = 16 * BACK_GROUP;
/// How long that may take, before the order is given up.
const BACK_PATIENCE: Duration = Duration::from_millis(500);
/// How long another may read before this one gives up.
const TURN_PATIENCE: Duration = Duration::from_secs(60);
/// How long RabbitMQ may take to hand out a message that is there.
const SLOW: Duration = Duration::from_secs(30);
/// How long the next message may take before it is asked whether there is one.
const NEXT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long what was given back may take to be there again.
const BACK_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads through one queue.
pub(super) struct Reader<'a> {
    reading: Reading,
    queue: ShortString,
    /// Taken, and not asked for yet.
    page: VecDeque<Delivery>,
    /// Taken and not settled; each with the number of its consumer.
    held: BTreeMap<u64, usize>,
    /// How many consumers there were.
    begun: usize,
    /// Not taken yet, of those that were there at the beginning.
    left: u64,
    /// Whether the last that was taken had been given back before.
    is_among_returned: bool,
    first: First,
    _turn: MutexGuard<'a, ()>,
}

/// The first message. It stays unsettled until the end, so that its consumer goes on, gets no
/// other, and tells that somebody reads.
enum First {
    NotTaken,
    Held(u64),
    /// To be taken out at the end.
    Settled(u64),
}

/// A channel that is closed when it is dropped, and its consumer after it. The client ends
/// this first: until the channel is closed what it holds is neither in the queue nor seen to
/// be held. One that was about to begin it would leave behind for good.
struct Reading {
    channel: Channel,
    consumers: Vec<Consumer>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let runtime = tokio::runtime::Handle::try_current();
        if let (Ok(runtime), true) = (runtime, self.channel.status().connected()) {
            let channel = self.channel.clone();
            let consumers = std::mem::take(&mut self.consumers);
            runtime.spawn(async move {
                let _ = channel.close(200, "no more".into()).await;
                drop(consumers);
            });
        }
    }
}

impl<'a> Reader<'a> {
    /// Begins to read `queue` when it is this process's turn.
    pub(super) async fn begin(
        rabbit: &'a Rabbit,
        queue: &ShortString,
    ) -> Result<Reader<'a>, StoreError> {
        let until = tokio::time::Instant::now() + TURN_PATIENCE;
        let turn = tokio::time::timeout_at(until, rabbit.reading.lock()).await;
        let turn = turn.map_err(|_| {
            unavailable(format!(
                "another call has been reading or redriving for {TURN_PATIENCE:?}; try again later"
            ))
        })?;
        loop {
            let mut reading = Reading {
                channel: rabbit.channel().await?,
                consumers: Vec::new(),
            };
            if let Some(left) = alone(&mut reading, queue).await? {
                return Ok(Reader {
                    reading,
                    queue: queue.clone(),
                    page: VecDeque::new(),
                    held: BTreeMap::new(),
                    begun: 1,
                    left,
                    is_among_returned: false,
                    first: First::NotTaken,
                    _turn: turn,
                });
            }
            let _ = reading.channel.close(200, "another reads".into()).await;
            if tokio::time::Instant::now() > until {
                return Err(unavailable(format!(
                    "another process has been reading `{queue}` for {TURN_PATIENCE:?}"
                )));
            }
            // Two that met go on at different times.
            let pause = Duration::from_millis(fastrand::u64(20..200));
            tokio::time::sleep(pause).await;
        }
    }

    /// The next message in the queue's order, `None` after the last. `wanted` says how many are:
    /// no more are taken, as far as that is known.
    pub(super) async fn next(&mut self, wanted: usize) -> Result<Option<Delivery>, StoreError> {
        if self.page.is_empty() && self.left > 0 {
            if matches!(self.first, First::NotTaken) {
                self.take(1).await?;
                if let Some(found) = self.page.front() {
                    self.first = First::Held(found.delivery_tag);
                }
            } else {
                self.take_page(wanted).await?;
            }
        }
        Ok(self.page.pop_front())
    }

    /// Takes some more, by a consumer that is handed so many and no others.
    async fn take_page(&mut self, wanted: usize) -> Result<(), StoreError> {
        let count = wanted.clamp(1, PAGE_MAX);
        let count = count.min(usize::try_from(self.left).unwrap_or(PAGE_MAX));
        let Reading { channel, consumers } = &mut self.reading;
        consumers.push(consume(channel, &self.queue, count).await?);
        self.begun += 1;
        self.take(count).await?;
        if let Some(consumer) = self.reading.consumers.pop() {
            self.reading.cancel(&consumer).await?;
        }
        Ok(())
    }

    /// Takes so many from the last consumer, or what there is.
    async fn take(&mut self, count: usize) -> Result<(), StoreError> {
        let Reading { channel, consumers } = &mut self.reading;
        let Some(consumer) = consumers.last_mut() else {
            return Ok(());
        };
        let mut until = tokio::time::Instant::now() + SLOW;
        for _ in 0..count {
            let found = loop {
                match tokio::time::timeout(NEXT_TIMEOUT, consumer.next()).await {
                    Err(_) if size(channel, &self.queue).await?.0 == 0 => {
                        // Someone else took the rest before it was counted.
                        self.left = 0;
                        return Ok(());
                    }
                    Err(_) if tokio::time::Instant::now() < until => {}
                    Err(_) => return Err(unavailable(format!("nothing came for {SLOW:?}"))),
                    Ok(None) => return Err(unavailable("reading was cut off")),
                    Ok(Some(found)) => break found.map_err(unavailable)?,
                }
            };
            until = tokio::time::Instant::now() + SLOW;
            self.left -= 1;
            self.held.insert(found.delivery_tag, self.begun);
            self.is_among_returned = found.redelivered;
            self.page.push_back(found);
        }
        Ok(())
    }

    /// Has the order last: takes all that was given back before, so many at a time, or what
    /// goes back now would stand behind it.
    pub(super) async fn keep_order(&mut self, page: usize) -> Result<(), StoreError> {
        self.page.clear();
        while self.is_among_returned && self.left > 0 {
            self.take_page(page).await?;
            self.page.clear();
        }
        Ok(())
    }

    /// Takes messages out of the queue; the first of it at the end.
    pub(super) async fn settle(&mut self, tags: &[u64]) -> Result<(), StoreError> {
        let mut now = Vec::with_capacity(tags.len());
        for tag in tags {
            self.held.remove(tag);
            match self.first {
                First::Held(first) if first == *tag => self.first = First::Settled(first),
                _ => now.push(self.reading.ack(*tag)),
            }
        }
        try_join_all(now).await.map(drop)
    }

    /// Gives back all that was not settled, and waits until it is there for the next reader.
    ///
    /// A channel that settles many messages holds some of it back for a moment, and forgets
    /// them when it is closed. So the consumer ends first: RabbitMQ counts a consumer until
    /// all that it was handed is settled or given back.
    pub(super) async fn end(mut self) -> Result<(), StoreError> {
        while let Some(consumer) = self.reading.consumers.pop() {
            self.reading.cancel(&consumer).await?;
        }
        if let First::Settled(first) = self.first {
            self.reading.ack(first).await?;
        }
        self.give_back().await?;
        let channel = &self.reading.channel;
        let back = async {
            while size(channel, &self.queue).await?.1 > 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok(())
        };
        // Longer only when another reader is quick to begin.
        let returned = tokio::time::timeout(BACK_TIMEOUT, back).await;
        let _ = channel.close(200, "done".into()).await;
        returned.unwrap_or(Ok(()))
    }

    /// Gives back what is held, in its order.
    async fn give_back(&self) -> Result<(), StoreError> {
        if self.held.is_empty() {
            return Ok(());
        }
        let channel = &self.reading.channel;
        let all_before = BasicNackOptions {
            multiple: true,
            requeue: true,
        };
        let held: Vec<(u64, usize)> = self.held.iter().map(|(tag, of)| (*tag, *of)).collect();
        let mut ready = size(channel, &self.queue).await?.0;
        for some in held.chunks(BACK_MAX) {
            // What two consumers had would not come back in the order of both.
            let of_one = some.chunk_by(|one, next| one.1 == next.1);
            for group in of_one.flat_map(|of_one| of_one.chunks(BACK_GROUP)) {
                if let Some((last, _)) = group.last() {
                    let back = channel.basic_nack(*last, all_before);
                    back.await.map_err(unavailable)?;
                }
            }
            ready += some.len() as u64;
            let back = async {
                while size(channel, &self.queue).await?.0 < ready {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Ok(())
            };
            // Out of its order at worst.
            let seen = tokio::time::timeout(BACK_PATIENCE, back).await;
            seen.unwrap_or(Ok(()))?;
        }
        Ok(())
    }
}

impl Reading {
    /// Nothing more is handed to `consumer`; what was stays held. No answer is waited for: what
    /// is settled or given back after this is so on RabbitMQ's side too.
    async fn cancel(&self, consumer: &Consumer) -> Result<(), StoreError> {
        let options = BasicCancelOptions { nowait: true };
        let cancelled = self.channel.basic_cancel(consumer.tag(), options).await;
        cancelled.map_err(unavailable)
    }

    async fn ack(&self, tag: u64) -> Result<(), StoreError> {
        let alone = BasicAckOptions { multiple: false };
        let acked = self.channel.basic_ack(tag, alone).await;
        acked.map_err(unavailable)
    }
}

/// Begins to consume unless another does; how many messages there are.
async fn alone(reading: &mut Reading, queue: &ShortString) -> Result<Option<u64>, StoreError> {
    let Reading { channel, consumers } = reading;
    let (messages, others) = size(channel, queue).await?;
    if others > 0 {
        return Ok(None);
    }
    if messages > 0 {
        consumers.push(consume(channel, queue, 1).await?);
        if size(channel, queue).await?.1 > 1 {
            return Ok(None);
        }
    }
    Ok(Some(messages))
}

/// A consumer that is handed `count` messages, and more only when some are settled.
async fn consume(
    channel: &Channel,
    queue: &ShortString,
    count: usize,
) -> Result<Consumer, StoreError> {
    let each = BasicQosOptions { global: false };
    let count = u16::try_from(count).unwrap_or(u16::MAX);
    let limited = channel.basic_qos(count, each).await;
    limited.map_err(unavailable)?;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let tag = ShortString::default();
    let consumer = channel
        .basic_consume(queue.clone(), tag, options, none)
        .await;
    consumer.map_err(unavailable)
}
