//! The inbox: one consumer for events, one for due deliveries, with bounded prefetch.
//!
//! Each begins when someone first asks, and begins again after a cancel, a lost connection, or
//! when messages are ready and none comes. What was fetched ahead on a channel that is gone is
//! forgotten: it comes again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::desk::Desk;
use super::link::patience;
use super::{Rabbit, locked, message, new_channel, topology};
use crate::codec;
use crate::ports::{EventMessage, Inbox, Ledger, Receipt, StoreError, Taken};

/// RabbitMQ hands a consumer of a quorum queue at most so many at a time.
const PREFETCH_MAX: u16 = 2000;
/// A consumer that lived so long worked: the next begins soon.
const WORKED: Duration = Duration::from_secs(10);
/// How often a consumer by which nothing comes is looked after.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// How long RabbitMQ may take for that: a queue without a leader keeps silent.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// How long a consumer may take to end.
const END_LIMIT: Duration = Duration::from_secs(10);

/// One queue's messages, fetched ahead.
pub(super) struct Feed {
    queue: ShortString,
    prefetch: u16,
    fetched: Mutex<VecDeque<Fetched>>,
    desk: Mutex<Option<Arc<Desk>>>,
    came: Notify,
    /// Someone asked: the consumer begins.
    wanted: CancellationToken,
    /// Nothing more is wanted.
    stopped: CancellationToken,
}

/// A message that was fetched, with the desk that settles it.
struct Fetched {
    found: lapin::message::Delivery,
    desk: Arc<Desk>,
}

/// How a consumer ended.
enum End {
    /// Nothing more is wanted.
    Stopped,
    /// RabbitMQ ended it.
    Cancelled,
    /// RabbitMQ hands it nothing any more, and did not say so.
    Overlooked,
}

/// Gives back what was fetched ahead when its consumer ends.
struct Forgotten<'a>(&'a Feed);

impl Drop for Forgotten<'_> {
    fn drop(&mut self) {
        self.0.forget();
    }
}

impl Feed {
    pub(super) fn new(queue: ShortString, prefetch: u16) -> Self {
        Self {
            queue,
            prefetch: prefetch.clamp(1, PREFETCH_MAX),
            fetched: Mutex::default(),
            desk: Mutex::default(),
            came: Notify::new(),
            wanted: CancellationToken::new(),
            stopped: CancellationToken::new(),
        }
    }

    /// Consumes from `connection` until that is lost; begins again after a cancel. Tells
    /// `missing` when it cannot, as the queue may have been deleted.
    pub(super) async fn run(
        &self,
        connection: &Connection,
        ledger: &Arc<dyn Ledger>,
        missing: &Notify,
    ) {
        self.wanted.cancelled().await;
        let mut delays = backon::BackoffBuilder::build(patience());
        while connection.status().connected() && !self.stopped.is_cancelled() {
            let begun = tokio::time::Instant::now();
            match self.consume(connection, ledger).await {
                Ok(End::Stopped) => return,
                Ok(End::Cancelled) => {
                    tracing::warn!(queue = %self.queue, "RabbitMQ ended the consumer");
                }
                Ok(End::Overlooked) => tracing::warn!(
                    queue = %self.queue,
                    "messages are ready and none comes: consuming anew"
                ),
                Err(error) => {
                    tracing::warn!(queue = %self.queue, %error, "consuming failed");
                    // A lost connection is made again, and declares.
                    if connection.status().connected() {
                        missing.notify_one();
                    }
                }
            }
            if begun.elapsed() > WORKED {
                delays = backon::BackoffBuilder::build(patience());
            }
            let delay = delays.next().unwrap_or(Duration::from_secs(1));
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.stopped.cancelled() => return,
            }
        }
    }

    /// One consumer's life.
    async fn consume(
        &self,
        connection: &Connection,
        ledger: &Arc<dyn Ledger>,
    ) -> Result<End, lapin::Error> {
        let channel = new_channel(connection).await?;
        let each = BasicQosOptions { global: false };
        channel.basic_qos(self.prefetch, each).await?;
        let mut consumer = self.subscribe(&channel).await?;
        let (queue, ledger, stop) = (self.queue.clone(), Arc::clone(ledger), self.stopped.clone());
        let (desk, clerk) = Desk::new(channel.clone(), queue, ledger, stop);
        // It goes on after the consumer has stopped: receipts are still out.
        tokio::spawn(clerk);
        *locked(&self.desk) = Some(Arc::clone(&desk));
        // Also when this is dropped because the connection is lost.
        let _forgotten = Forgotten(self);
        let ended = tokio::select! {
            ended = self.fetch(&mut consumer, &desk) => ended,
            ended = self.overlooked(connection, &desk) => ended,
        };
        if let Ok(End::Stopped | End::Overlooked) = ended {
            // The channel closes when the last receipt is settled: with it goes back what RabbitMQ
            // may hold for this consumer in vain.
            let end = self.end(&channel, consumer, &desk);
            let _ = tokio::time::timeout(END_LIMIT, end).await;
        }
        ended
    }

    /// Ends a consumer. The cancel comes first: what is given back before it would be handed
    /// to this consumer again, and stay with it.
    async fn end(&self, channel: &Channel, mut consumer: Consumer, desk: &Arc<Desk>) {
        let tag = consumer.tag();
        let cancelled = channel.basic_cancel(tag, BasicCancelOptions::default());
        if cancelled.await.is_err() {
            return;
        }
        // What came before the cancel is still to be given back.
        while let Some(Ok(found)) = consumer.next().await {
            drop(Receipt::new(found.delivery_tag, Arc::clone(desk) as _));
        }
    }

    async fn subscribe(&self, channel: &Channel) -> Result<Consumer, lapin::Error> {
        let tag = ShortString::default();
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let queue = self.queue.clone();
        channel.basic_consume(queue, tag, options, none).await
    }

    async fn fetch(&self, consumer: &mut Consumer, desk: &Arc<Desk>) -> Result<End, lapin::Error> {
        loop {
            let found = tokio::select! {
                found = consumer.next() => found,
                () = self.stopped.cancelled() => return Ok(End::Stopped),
            };
            let Some(found) = found.transpose()? else {
                return Ok(End::Cancelled);
            };
            let before = message::handed_out_before(&found.properties);
            desk.came(found.delivery_tag, before);
            let desk = Arc::clone(desk);
            locked(&self.fetched).push_back(Fetched { found, desk });
            self.came.notify_one();
        }
    }

    /// Resolves when RabbitMQ has lost sight of this consumer: its queue is gone, or messages are
    /// ready and none comes, though there is room, in two looks one after the other. RabbitMQ
    /// means to tell of a queue that is deleted, but 3.10 does not when it is declared again at
    /// once; whoever waits for its word waits for ever.
    async fn overlooked(&self, connection: &Connection, desk: &Desk) -> Result<End, lapin::Error> {
        let (mut seen, mut is_suspicious) = (None, false);
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let (came, unsettled) = desk.counts();
            let is_idle = seen.replace(came) == Some(came) && unsettled < self.prefetch.into();
            let ready = match is_idle {
                true => self.ready(connection).await?,
                false => 0,
            };
            if ready > 0 && is_suspicious {
                return Ok(End::Overlooked);
            }
            is_suspicious = ready > 0;
        }
    }

    /// How many messages are ready, as far as RabbitMQ tells.
    ///
    /// # Errors
    /// The queue is not there.
    async fn ready(&self, connection: &Connection) -> Result<u64, lapin::Error> {
        let look = async {
            // Not the consumer's: RabbitMQ closes it when the queue is not there.
            let channel = new_channel(connection).await?;
            let (ready, _) = topology::size(&channel, &self.queue).await?;
            let _ = channel.close(200, "done".into()).await;
            Ok(ready)
        };
        match tokio::time::timeout(LOOK_LIMIT, look).await {
            Ok(Err(error)) if topology::is_missing(&error) => Err(error),
            Ok(Ok(ready)) => Ok(ready),
            Ok(Err(_)) | Err(_) => Ok(0),
        }
    }

    /// Gives back what was fetched ahead.
    fn forget(&self) {
        let fetched = std::mem::take(&mut *locked(&self.fetched));
        for Fetched { found, desk } in fetched {
            drop(Receipt::new(found.delivery_tag, desk));
        }
    }

    /// The next messages: at least one.
    async fn take(&self, max: usize) -> Vec<Fetched> {
        self.wanted.cancel();
        loop {
            let came = self.came.notified();
            let taken: Vec<Fetched> = {
                let mut fetched = locked(&self.fetched);
                // What a lost channel brought comes again by another.
                fetched.retain(|fetched| fetched.desk.is_open());
                let count = fetched.len().min(max.max(1));
                fetched.drain(..count).collect()
            };
            if !taken.is_empty() {
                // Others may be waiting for what is left.
                self.came.notify_one();
                return taken;
            }
            came.await;
        }
    }

    /// Takes nothing more, and has what was fetched ahead given back.
    pub(super) fn stop(&self) {
        self.stopped.cancel();
    }

    /// Resolves when RabbitMQ knows of all that was settled.
    pub(super) async fn flush(&self) {
        let desk = locked(&self.desk).clone();
        if let Some(desk) = desk {
            desk.flush().await;
        }
    }
}

#[async_trait]
impl Inbox for Rabbit {
    async fn events(&self, max: usize) -> Result<Vec<Taken<EventMessage>>, StoreError> {
        let taken = self.events.take(max).await;
        let open = |Fetched { found, desk }| {
            let receipt = Receipt::new(found.delivery_tag, desk);
            let message = message::event(found);
            Taken { message, receipt }
        };
        Ok(taken.into_iter().map(open).collect())
    }

    async fn deliveries(&self, max: usize) -> Result<Vec<Taken<Bytes>>, StoreError> {
        loop {
            let taken = self.deliveries.take(max).await;
            let unsettled = self.without_copies(taken).await;
            if !unsettled.is_empty() {
                return Ok(unsettled);
            }
        }
    }

    async fn stop(&self) {
        self.events.stop();
        self.deliveries.stop();
    }
}

impl Rabbit {
    /// The due deliveries that the ledger does not know to be settled.
    ///
    /// A delivery's message can be there twice: after a lost connection its sender cannot know
    /// whether it was taken, and sends it again.
    async fn without_copies(&self, fetched: Vec<Fetched>) -> Vec<Taken<Bytes>> {
        let mut taken = Vec::with_capacity(fetched.len());
        let mut keys = Vec::with_capacity(fetched.len());
        for Fetched { found, desk } in fetched {
            let tag = found.delivery_tag;
            let properties = found.properties;
            let message = Bytes::from(found.data);
            let known = codec::delivery::decode(&message).ok();
            let remembered = known.map(|known| (known.wait_key(), known.subscription));
            if let Some((key, subscription)) = &remembered {
                desk.remember(tag, (*key, subscription.clone()));
                self.waits.came(*key, || message::rung_of(&properties));
            }
            let receipt = Receipt::new(tag, desk);
            // What cannot be read is for the pipeline to put aside.
            let key = remembered.map(|(key, _)| key);
            let receipt = match key {
                None => Some(receipt),
                Some(key) => self.out.hand_out(key, receipt),
            };
            if let Some(receipt) = receipt {
                keys.push(key);
                taken.push(Taken { message, receipt });
            }
        }
        let known: Vec<_> = keys.iter().flatten().copied().collect();
        let mut settled = match self.ledger.settled(&known).await {
            Ok(settled) => settled.into_iter(),
            Err(error) => {
                tracing::warn!(%error, "the ledger cannot tell copies of deliveries");
                return taken;
            }
        };
        let mut unsettled = Vec::with_capacity(taken.len());
        for (taken, key) in taken.into_iter().zip(keys) {
            let is_settled = key.is_some() && settled.next().is_some_and(|by| !by.is_empty());
            if is_settled {
                tracing::debug!("a copy of a delivery that is settled was left out");
                taken.receipt.ack();
            } else {
                unsettled.push(taken);
            }
        }
        unsettled
    }
}
