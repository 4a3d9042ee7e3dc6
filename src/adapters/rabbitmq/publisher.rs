//! The publisher: one task, one channel, persistent and confirmed, never one at a time.
//!
//! An order is answered when RabbitMQ has confirmed all its messages. What was sent and not
//! confirmed when the connection is lost has an unknown outcome, and is an error: it is put
//! again, and a copy that comes of it is known by the ledger.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::link::{Change, Link, State, watch_over};
use super::message::Outgoing;
use crate::ports::StoreError;
use crate::telemetry::Telemetry;
use crate::telemetry::events::BrokerBlocked;

/// Orders that wait to be taken at most; more wait to be given.
const ORDERS_MAX: usize = 1024;
/// Messages on their way at most; more wait for confirms.
const UNCONFIRMED_MAX: usize = 4096;
/// How long a confirm may take while publishing is not held; then the connection is given up.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a channel on which something was refused is used on.
///
/// A channel that was opened while a quorum queue's leader was lost may refuse everything for
/// that queue as long as it lives (seen in RabbitMQ 3.10.8: `rabbit_fifo_client:enqueue/3`
/// goes on asking the node that is gone). A new one knows the new leader.
const RENEW_AFTER: Duration = Duration::from_secs(5);
/// How long confirms are gathered before they are believed.
///
/// The client pairs a returned message with whichever confirm comes first, and confirms that
/// come together may be seen in another order.
const GATHER: Duration = Duration::from_millis(1);

/// Messages to publish together.
pub(super) struct Order {
    messages: Vec<Outgoing>,
    reply: oneshot::Sender<Result<(), StoreError>>,
}

/// Where orders go.
pub(super) struct Publisher {
    orders: mpsc::Sender<Order>,
    blocked: watch::Sender<bool>,
    missing: Arc<Notify>,
}

impl Publisher {
    /// Tells `missing` when a queue is.
    pub(super) fn new(missing: Arc<Notify>) -> (Self, mpsc::Receiver<Order>) {
        let (orders, receiver) = mpsc::channel(ORDERS_MAX);
        let publisher = Self {
            orders,
            blocked: watch::Sender::new(false),
            missing,
        };
        (publisher, receiver)
    }

    /// Whether RabbitMQ holds publishing.
    pub(super) fn is_blocked(&self) -> bool {
        *self.blocked.borrow()
    }

    /// Resolves when RabbitMQ holds publishing: it says so when something is sent.
    pub(super) async fn blocked(&self) {
        let _ = self.blocked.subscribe().wait_for(|blocked| *blocked).await;
    }

    /// Publishes all; resolves when all are confirmed.
    pub(super) async fn publish(&self, messages: Vec<Outgoing>) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        let order = Order { messages, reply };
        let closed = || StoreError::Unavailable("RabbitMQ: closed".to_owned());
        self.orders.send(order).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }
}

/// Serves orders, for ever: connects, publishes, and begins again when the link is lost.
pub(super) async fn run(
    link: &Link,
    publisher: &Publisher,
    telemetry: &Telemetry,
    mut orders: mpsc::Receiver<Order>,
) {
    loop {
        let connection = {
            let connecting = link.connect(|error| tracing::debug!(error, "publishing"));
            refuse_while(connecting, link, &mut orders).await
        };
        let opened = open(&connection).await;
        let why = match opened {
            Err(error) => {
                // Not at once again: what refuses a channel may refuse the next.
                let again = tokio::time::sleep(super::AGAIN_AFTER);
                refuse_while(again, link, &mut orders).await;
                error.to_string()
            }
            Ok(channel) => {
                link.set(State::Up(Arc::clone(&connection)));
                let blocked = |change| tell_blocked(publisher, telemetry, &change);
                tokio::select! {
                    why = watch_over(&connection, blocked) => why,
                    why = Session::new(channel, publisher).run(&mut orders) => why,
                }
            }
        };
        link.set(State::Down(why));
        tell_blocked(publisher, telemetry, &Change::Unblocked);
    }
}

async fn open(connection: &lapin::Connection) -> Result<Channel, lapin::Error> {
    let channel = connection.create_channel().await?;
    let select = ConfirmSelectOptions::default();
    channel.confirm_select(select).await?;
    Ok(channel)
}

fn tell_blocked(publisher: &Publisher, telemetry: &Telemetry, change: &Change) {
    let reason = match change {
        Change::Blocked(reason) => Some(reason.as_str()),
        Change::Unblocked => None,
    };
    let was = publisher.blocked.send_replace(reason.is_some());
    if was != reason.is_some() {
        telemetry.emit(BrokerBlocked { reason });
    }
}

/// Waits for `connecting`, and meanwhile answers that there is no connection.
async fn refuse_while<T>(
    connecting: impl Future<Output = T>,
    link: &Link,
    orders: &mut mpsc::Receiver<Order>,
) -> T {
    let mut connecting = std::pin::pin!(connecting);
    loop {
        tokio::select! {
            connected = &mut connecting => return connected,
            Some(order) = orders.recv() => {
                let why = link.connection().err().unwrap_or_default();
                let _ = order.reply.send(Err(unavailable(&why)));
            }
        }
    }
}

fn unavailable(why: &str) -> StoreError {
    StoreError::Unavailable(format!("RabbitMQ: {why}"))
}

/// One channel's life.
struct Session<'a> {
    channel: Channel,
    publisher: &'a Publisher,
    open: HashMap<u64, OpenOrder>,
    next: u64,
    unconfirmed: usize,
    gathered: Vec<(u64, Confirmed)>,
    believe_at: Instant,
    /// Until when RabbitMQ was last seen to hold publishing: no confirm was late before.
    held_until: Instant,
    began: Instant,
    /// Something was refused: no more is taken, and when all is confirmed another channel is.
    renews: bool,
}

/// An order whose messages are not all confirmed.
struct OpenOrder {
    left: usize,
    failed: Option<String>,
    since: Instant,
    reply: oneshot::Sender<Result<(), StoreError>>,
}

/// What came of one message.
enum Confirmed {
    Stored,
    Returned(String),
    Failed(String),
}

impl<'a> Session<'a> {
    fn new(channel: Channel, publisher: &'a Publisher) -> Self {
        Self {
            channel,
            publisher,
            open: HashMap::new(),
            next: 0,
            unconfirmed: 0,
            gathered: Vec::new(),
            believe_at: Instant::now(),
            held_until: Instant::now(),
            began: Instant::now(),
            renews: false,
        }
    }

    /// Publishes what is ordered until the channel fails; says why it did.
    async fn run(mut self, orders: &mut mpsc::Receiver<Order>) -> String {
        let mut confirms = FuturesUnordered::new();
        let mut look = tokio::time::interval(Duration::from_secs(1));
        let why = loop {
            if self.renews && self.open.is_empty() {
                break "it refused a message; tried again on a new connection".to_owned();
            }
            let has_room = self.unconfirmed < UNCONFIRMED_MAX && !self.renews;
            let believe = tokio::time::sleep_until(self.believe_at);
            tokio::select! {
                // All confirms that are there are seen before any is believed.
                biased;
                Some((number, confirmed)) = confirms.next() => {
                    self.unconfirmed -= 1;
                    if let Confirmed::Returned(why) = &confirmed {
                        self.doubt_all(why);
                    }
                    if self.gathered.is_empty() {
                        self.believe_at = Instant::now() + GATHER;
                    }
                    self.gathered.push((number, confirmed));
                }
                () = believe, if !self.gathered.is_empty() => self.believe(),
                _ = look.tick() => {
                    if let Some(why) = self.look_for_trouble() {
                        break why;
                    }
                }
                Some(order) = orders.recv(), if has_room => {
                    for publishing in self.take(order) {
                        confirms.push(publishing);
                    }
                }
            }
        };
        for (_, order) in self.open.drain() {
            let unknown = format!("{why}; whether it was taken is unknown");
            let _ = order.reply.send(Err(unavailable(&unknown)));
        }
        why
    }

    /// The publishing of each message of an order, in order.
    fn take(
        &mut self,
        order: Order,
    ) -> impl Iterator<Item = impl Future<Output = (u64, Confirmed)> + use<>> + use<> {
        let number = self.next;
        self.next += 1;
        self.unconfirmed += order.messages.len();
        if order.messages.is_empty() {
            let _ = order.reply.send(Ok(()));
        } else {
            let open = OpenOrder {
                left: order.messages.len(),
                failed: None,
                since: Instant::now(),
                reply: order.reply,
            };
            self.open.insert(number, open);
        }
        let channel = self.channel.clone();
        let publish = move |message| {
            let channel = channel.clone();
            async move { (number, publish(&channel, message).await) }
        };
        order.messages.into_iter().map(publish)
    }

    /// A return comes before the confirm of its message, and with the confirm of any: every
    /// message that is not confirmed yet may be the one.
    fn doubt_all(&mut self, why: &str) {
        tracing::warn!(
            why,
            "RabbitMQ returned a message; what was sent with it is sent again"
        );
        for order in self.open.values_mut() {
            order.failed.get_or_insert_with(|| why.to_owned());
        }
        self.publisher.missing.notify_one();
    }

    /// Answers the orders whose confirms were gathered.
    fn believe(&mut self) {
        for (number, confirmed) in std::mem::take(&mut self.gathered) {
            let failed = match confirmed {
                Confirmed::Failed(why) => {
                    self.renews |= self.began.elapsed() > RENEW_AFTER;
                    Some(why)
                }
                Confirmed::Returned(why) => Some(why),
                Confirmed::Stored => None,
            };
            self.settle(number, failed);
        }
    }

    fn settle(&mut self, number: u64, failed: Option<String>) {
        let Some(order) = self.open.get_mut(&number) else {
            return;
        };
        order.left -= 1;
        order.failed = order.failed.take().or(failed);
        if order.left > 0 {
            return;
        }
        if let Some(order) = self.open.remove(&number) {
            let answer = order.failed.map_or(Ok(()), |why| Err(unavailable(&why)));
            // Who asked may have stopped waiting.
            let _ = order.reply.send(answer);
        }
    }

    fn look_for_trouble(&mut self) -> Option<String> {
        if !self.channel.status().connected() {
            return Some("the channel was closed".to_owned());
        }
        if self.publisher.is_blocked() {
            self.held_until = Instant::now();
            return None;
        }
        let held_until = self.held_until;
        let late = |order: &OpenOrder| order.since.max(held_until).elapsed() > CONFIRM_TIMEOUT;
        let is_late = self.open.values().any(late);
        is_late.then(|| format!("no confirm came in {CONFIRM_TIMEOUT:?}"))
    }
}

async fn publish(channel: &Channel, message: Outgoing) -> Confirmed {
    let options = BasicPublishOptions {
        // Nobody need listen to notices: a return would be no news.
        mandatory: !message.may_return,
        ..BasicPublishOptions::default()
    };
    let Outgoing {
        exchange,
        routing_key,
        properties,
        body,
        ..
    } = message;
    let published = channel.basic_publish(exchange, routing_key, options, &body, properties);
    let confirmed = match published.await {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    match confirmed {
        Ok(Confirmation::Ack(None)) => Confirmed::Stored,
        // A return says nothing about the message whose confirm it came with.
        Ok(Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned))) => {
            Confirmed::Returned(format!(
                "it was returned ({}): the queue `{}` is missing",
                returned.reply_text.as_str(),
                returned.routing_key.as_str()
            ))
        }
        Ok(Confirmation::Nack(None)) => Confirmed::Failed("RabbitMQ did not take it".to_owned()),
        Ok(Confirmation::NotRequested) => Confirmed::Failed("confirms are off".to_owned()),
        Err(error) => Confirmed::Failed(error.to_string()),
    }
}
