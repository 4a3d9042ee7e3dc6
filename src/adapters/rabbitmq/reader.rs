//! Reading through a queue that has no index: the dead letters and the quarantine.
//!
//! A reader takes messages without settling them, settles those it is asked to, and gives
//! all others back: to the front, in their place when one consumer could hold them. Only one
//! reads at a time, or each would see a part: in the process by a lock, among processes by
//! the queue's count of consumers.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::SelectAll;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::sync::MutexGuard;

use super::inbox::PREFETCH_MAX;
use super::{Rabbit, size, unavailable};
use crate::ports::StoreError;

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
    /// Taken and not settled.
    held: BTreeSet<u64>,
    /// Not taken yet, of those that were there at the beginning.
    left: u64,
    _turn: MutexGuard<'a, ()>,
}

/// A channel that is closed when it is dropped, and its consumers after it. The client ends
/// these first: until the channel is closed what they hold is neither in the queue nor seen to
/// be held. One that was about to begin it would leave behind for good.
struct Reading {
    channel: Channel,
    consumers: SelectAll<Consumer>,
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
                consumers: SelectAll::new(),
            };
            if let Some(left) = alone(&mut reading, queue).await? {
                return Ok(Reader {
                    reading,
                    queue: queue.clone(),
                    held: BTreeSet::new(),
                    left,
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

    /// How many messages are still to be looked at.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// The next message in the queue's order; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Delivery>, StoreError> {
        if self.left == 0 {
            return Ok(None);
        }
        // Each consumer is handed only so many until some are settled.
        let Reading { channel, consumers } = &mut self.reading;
        if self.held.len() >= consumers.len() * usize::from(PREFETCH_MAX) {
            consumers.push(consume(channel, &self.queue).await?);
        }
        let until = tokio::time::Instant::now() + SLOW;
        loop {
            match tokio::time::timeout(NEXT_TIMEOUT, consumers.next()).await {
                Err(_) if size(channel, &self.queue).await?.0 == 0 => {
                    // Someone else took the rest before it was counted.
                    return Ok(None);
                }
                Err(_) if tokio::time::Instant::now() < until => {}
                Err(_) => return Err(unavailable(format!("nothing came for {SLOW:?}"))),
                Ok(None) => return Err(unavailable("reading was cut off")),
                Ok(Some(found)) => {
                    let found = found.map_err(unavailable)?;
                    self.left -= 1;
                    self.held.insert(found.delivery_tag);
                    return Ok(Some(found));
                }
            }
        }
    }

    /// Takes messages out of the queue.
    pub(super) async fn settle(&mut self, tags: &[u64]) -> Result<(), StoreError> {
        for tag in tags {
            self.held.remove(tag);
            let alone = BasicAckOptions { multiple: false };
            self.reading
                .channel
                .basic_ack(*tag, alone)
                .await
                .map_err(unavailable)?;
        }
        Ok(())
    }

    /// Gives back all that was not settled, and waits until it is there for the next reader.
    ///
    /// A channel that settles many messages holds some of it back for a moment, and forgets
    /// them when it is closed. So the consumers end first: RabbitMQ counts a consumer until
    /// all that it was handed is settled or given back.
    pub(super) async fn end(self) -> Result<(), StoreError> {
        let Reading { channel, consumers } = &self.reading;
        for consumer in consumers.iter() {
            let cancelled = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
            cancelled.await.map_err(unavailable)?;
        }
        let all = BasicNackOptions {
            multiple: true,
            requeue: true,
        };
        if self.left > 0 || !self.held.is_empty() {
            channel.basic_nack(0, all).await.map_err(unavailable)?;
        }
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
}

/// Begins to consume unless another does; how many messages there are.
async fn alone(reading: &mut Reading, queue: &ShortString) -> Result<Option<u64>, StoreError> {
    let Reading { channel, consumers } = reading;
    let (messages, others) = size(channel, queue).await?;
    if others > 0 {
        return Ok(None);
    }
    if messages > 0 {
        let each = BasicQosOptions { global: false };
        let limited = channel.basic_qos(PREFETCH_MAX, each).await;
        limited.map_err(unavailable)?;
        consumers.push(consume(channel, queue).await?);
        if size(channel, queue).await?.1 > 1 {
            return Ok(None);
        }
    }
    Ok(Some(messages))
}

async fn consume(channel: &Channel, queue: &ShortString) -> Result<Consumer, StoreError> {
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let tag = ShortString::default();
    let consumer = channel
        .basic_consume(queue.clone(), tag, options, none)
        .await;
    consumer.map_err(unavailable)
}
