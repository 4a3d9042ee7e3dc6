//! Reading through a queue that has no index: the dead letters and the quarantine.
//!
//! A reader takes messages without settling them, settles those it is asked to, and gives
//! all others back, in their place. Only one reads at a time, or each would see a part: in
//! the process by a lock, among processes by the queue's count of consumers.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::SelectAll;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::sync::MutexGuard;

use super::inbox::PREFETCH_MAX;
use super::{Rabbit, size, unavailable};
use crate::ports::StoreError;

/// How long another process may read before this one gives up.
const TURN_PATIENCE: Duration = Duration::from_secs(60);
/// How long the next message may take; then there is none.
const NEXT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long what was given back may take to be there again.
const BACK_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads through one queue.
pub(super) struct Reader<'a> {
    rabbit: &'a Rabbit,
    channel: Channel,
    queue: ShortString,
    consumers: SelectAll<Consumer>,
    consuming: usize,
    /// Taken and not settled.
    held: BTreeSet<u64>,
    /// Not taken yet, of those that were there at the beginning.
    left: u64,
    _turn: MutexGuard<'a, ()>,
}

impl<'a> Reader<'a> {
    /// Begins to read `queue` when it is this process's turn.
    pub(super) async fn begin(
        rabbit: &'a Rabbit,
        queue: &ShortString,
    ) -> Result<Reader<'a>, StoreError> {
        let turn = rabbit.reading.lock().await;
        let until = tokio::time::Instant::now() + TURN_PATIENCE;
        loop {
            let channel = rabbit.channel().await?;
            if let Some((left, consumers)) = alone(&channel, queue).await? {
                return Ok(Reader {
                    rabbit,
                    channel,
                    queue: queue.clone(),
                    consuming: consumers.len(),
                    consumers,
                    held: BTreeSet::new(),
                    left,
                    _turn: turn,
                });
            }
            let _ = channel.close(200, "another reads".into()).await;
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
        if self.held.len() >= self.consuming * usize::from(PREFETCH_MAX) {
            let more = consume(&self.channel, &self.queue).await?;
            self.consumers.push(more);
            self.consuming += 1;
        }
        match tokio::time::timeout(NEXT_TIMEOUT, self.consumers.next()).await {
            // Someone else took the rest before it was counted.
            Err(_) => Ok(None),
            Ok(None) => Err(unavailable("reading was cut off")),
            Ok(Some(found)) => {
                let found = found.map_err(unavailable)?;
                self.left -= 1;
                self.held.insert(found.delivery_tag);
                Ok(Some(found))
            }
        }
    }

    /// Takes messages out of the queue.
    pub(super) async fn settle(&mut self, tags: &[u64]) -> Result<(), StoreError> {
        for tag in tags {
            self.held.remove(tag);
            let alone = BasicAckOptions { multiple: false };
            self.channel
                .basic_ack(*tag, alone)
                .await
                .map_err(unavailable)?;
        }
        Ok(())
    }

    /// Gives back all that was not settled, by closing the channel, and waits until it is
    /// there for the next reader.
    pub(super) async fn end(self) -> Result<(), StoreError> {
        let expected = self.left + self.held.len() as u64;
        let closed = self.channel.close(200, "done".into()).await;
        closed.map_err(unavailable)?;
        let channel = self.rabbit.channel().await?;
        let back = async {
            while size(&channel, &self.queue).await?.0 < expected {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok(())
        };
        // Fewer are there for good when some expired or another took them.
        let returned = tokio::time::timeout(BACK_TIMEOUT, back).await;
        let _ = channel.close(200, "done".into()).await;
        returned.unwrap_or(Ok(()))
    }
}

/// Begins to consume unless another does; how many messages there are.
async fn alone(
    channel: &Channel,
    queue: &ShortString,
) -> Result<Option<(u64, SelectAll<Consumer>)>, StoreError> {
    let (messages, others) = size(channel, queue).await?;
    if others > 0 {
        return Ok(None);
    }
    let mut consumers = SelectAll::new();
    if messages > 0 {
        let each = BasicQosOptions { global: false };
        let limited = channel.basic_qos(PREFETCH_MAX, each).await;
        limited.map_err(unavailable)?;
        consumers.push(consume(channel, queue).await?);
        if size(channel, queue).await?.1 > 1 {
            return Ok(None);
        }
    }
    Ok(Some((messages, consumers)))
}

async fn consume(channel: &Channel, queue: &ShortString) -> Result<Consumer, StoreError> {
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let tag = ShortString::default();
    let consumer = channel
        .basic_consume(queue.clone(), tag, options, none)
        .await;
    consumer.map_err(unavailable)
}
