//! RabbitMQ: where events come from, and where what is not delivered yet waits.
//!
//! Implements the inbox, the outbox, the dead letters and the quarantine. Two connections,
//! each begun again for ever: one consumes, acknowledges, declares and reads; the other
//! publishes. Which copies of a delivery are settled is the ledger's to know.
//! Follows AMQP 0-9-1 with RabbitMQ's extensions: publisher confirms, quorum queues,
//! at-least-once dead lettering.

mod acked;
mod copies;
mod dead_letters;
mod desk;
pub mod examine;
mod inbox;
mod link;
mod message;
mod names;
mod publisher;
mod quarantine;
mod reader;
mod topology;
mod waits;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use lapin::types::ShortString;
use lapin::{Channel, Connection};
use secrecy::SecretString;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use copies::Out;
use inbox::Feed;
use link::{Address, Link, State, watch_over};
use message::Outgoing;
use names::Names;
pub use names::declared;
use publisher::Publisher;
pub use topology::{Conflict, TopologyError};
pub use waits::Overdue;
use waits::{Waiting, Waits};

use crate::domain::id::{LedgerKey, SubscriptionId};
use crate::domain::retry::Due;
use crate::domain::timestamp::UnixMillis;
use crate::ports::{Backend, Chance, Clock, Ledger, Outbox, Parcel, StoreError};
use crate::telemetry::Telemetry;
use crate::telemetry::events::DependencyChanged;
use crate::telemetry::labels::Dependency;

/// How long [`Rabbit::open`] waits for RabbitMQ before it goes on without.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// How long RabbitMQ may take to hear of what was settled.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait before a topology that conflicts is looked at again.
const CONFLICT_PATIENCE: Duration = Duration::from_secs(30);

/// How long an end waits after the last ack: RabbitMQ's channels hold acks back when there are
/// many at once, and forget them when they are closed.
const ACKS_SETTLE: Duration = Duration::from_millis(200);
/// How long to wait before a queue that is missing is declared again. When one is declared just as
/// it is deleted, RabbitMQ 3.10 hands the new one's messages to the old one's consumers, and loses
/// them on the way until those are gone.
const DECLARE_AFTER: Duration = Duration::from_secs(1);
/// How long to wait before a connection that was of no use is made again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How to reach RabbitMQ, and what it is used with.
pub struct RabbitSettings {
    /// `broker.url`: each node of the cluster, with its credentials.
    pub urls: Vec<SecretString>,
    /// `broker.ca_file`: PEM certificates trusted on top of the system's.
    pub ca_file: Option<PathBuf>,
    /// `broker.prefix`
    pub prefix: String,
    /// Events, and due deliveries, fetched ahead: `intake.prefetch`, at most 2000.
    pub prefetch: u16,
    /// When a delivery that waits and was not settled is put again; `None` when the ledger
    /// cannot tell.
    pub overdue: Option<Overdue>,
    /// Knows what is settled.
    pub ledger: Arc<dyn Ledger>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for ids.
    pub chance: Arc<dyn Chance>,
    /// Where to tell what happens.
    pub telemetry: Telemetry,
}

/// Why RabbitMQ cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum RabbitError {
    /// A URL cannot be read.
    #[error("`broker.url` cannot be read: {0}")]
    Url(String),
    /// The file of certificates cannot be read.
    #[error("`broker.ca_file` {path} cannot be read: {source}")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// What is there differs from what Carillon needs.
    #[error("RabbitMQ: {0}")]
    Topology(TopologyError),
}

/// RabbitMQ behind the ports.
pub struct Rabbit {
    names: Names,
    consuming: Link,
    publishing: Link,
    publisher: Publisher,
    events: Feed,
    deliveries: Feed,
    out: Arc<Out>,
    waits: Waits,
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
    telemetry: Telemetry,
    /// A queue may be missing.
    missing: Arc<Notify>,
    /// Held while someone reads through a queue.
    reading: tokio::sync::Mutex<()>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Rabbit {
    /// Connects and declares. When RabbitMQ does not answer for a while, goes on without it
    /// and connects as soon as it does.
    ///
    /// # Errors
    /// [`RabbitError`], for what will not pass by waiting.
    pub async fn open(settings: RabbitSettings) -> Result<Arc<Self>, RabbitError> {
        let ca_pem = match settings.ca_file {
            None => None,
            Some(path) => {
                Some(
                    std::fs::read_to_string(&path).map_err(|source| RabbitError::CaFile {
                        path: path.clone(),
                        source,
                    })?,
                )
            }
        };
        let address = Address::new(settings.urls, ca_pem)?;
        let names = Names::new(&settings.prefix);
        let missing = Arc::new(Notify::new());
        let (publisher, orders) = Publisher::new(Arc::clone(&missing));
        let rabbit = Arc::new(Self {
            consuming: Link::new("consumer", address.clone()),
            publishing: Link::new("publisher", address),
            publisher,
            events: Feed::new(names.events.clone(), settings.prefetch),
            deliveries: Feed::new(names.deliveries.clone(), settings.prefetch),
            out: Arc::default(),
            waits: Waits::new(settings.overdue),
            names,
            ledger: settings.ledger,
            clock: settings.clock,
            chance: settings.chance,
            telemetry: settings.telemetry,
            missing,
            reading: tokio::sync::Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let (declared, first) = oneshot::channel();
        rabbit.spawn(|rabbit| async move { rabbit.keep_consuming(declared).await });
        rabbit.spawn(|rabbit| async move {
            let Self {
                publishing,
                publisher,
                telemetry,
                ..
            } = rabbit.as_ref();
            publisher::run(publishing, publisher, telemetry, orders).await;
        });
        rabbit.spawn(|rabbit| async move { rabbit.keep_waits().await });
        rabbit.begun(first).await?;
        Ok(rabbit)
    }

    fn spawn<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        run: impl FnOnce(Arc<Self>) -> F,
    ) {
        let (stop, running) = (self.stop.clone(), run(Arc::clone(self)));
        self.tasks.spawn(async move {
            let _ = stop.run_until_cancelled(running).await;
        });
    }

    /// Waits until both connections are there for the first time, or for a while.
    async fn begun(
        &self,
        declared: oneshot::Receiver<Result<(), TopologyError>>,
    ) -> Result<(), RabbitError> {
        let begin = async {
            if let Ok(Err(conflict)) = declared.await {
                return Err(RabbitError::Topology(conflict));
            }
            let mut publishing = self.publishing.watch();
            let is_up = |state: &State| matches!(state, State::Up(_));
            let _ = publishing.wait_for(is_up).await;
            Ok(())
        };
        match tokio::time::timeout(OPEN_PATIENCE, begin).await {
            Ok(begun) => begun.inspect_err(|_| self.stop.cancel()),
            Err(_) => {
                let why = self.consuming.connection().err();
                let why = why.or(self.publishing.connection().err());
                let why = why.unwrap_or_default();
                tracing::warn!(
                    why,
                    "RabbitMQ does not answer yet; Carillon starts without it"
                );
                Ok(())
            }
        }
    }

    /// Connects, declares, consumes; for ever.
    async fn keep_consuming(&self, declared: oneshot::Sender<Result<(), TopologyError>>) {
        let mut first = Some(declared);
        let mut was_up = true;
        loop {
            let connection = {
                let told = std::sync::atomic::AtomicBool::new(!was_up);
                let tell = |error: &str| {
                    if !told.swap(true, std::sync::atomic::Ordering::Relaxed) {
                        self.tell_down(&error);
                    }
                };
                self.consuming.connect(tell).await
            };
            match topology::declare(&connection, &self.names).await {
                Err(error) => {
                    self.tell_down(&error);
                    was_up = false;
                    self.consuming.set(State::Down(error.to_string()));
                    if error.is_passing() {
                        tokio::time::sleep(AGAIN_AFTER).await;
                    } else {
                        if let Some(first) = first.take() {
                            let _ = first.send(Err(error));
                        }
                        tokio::time::sleep(CONFLICT_PATIENCE).await;
                    }
                }
                Ok(()) => {
                    self.consuming.set(State::Up(Arc::clone(&connection)));
                    if let Some(first) = first.take() {
                        let _ = first.send(Ok(()));
                    }
                    let why = self.consume(&connection).await;
                    self.tell_down(&why);
                    was_up = false;
                    self.consuming.set(State::Down(why));
                }
            }
        }
    }

    /// Consumes until the connection is lost; says why.
    async fn consume(&self, connection: &Arc<Connection>) -> String {
        let (name, fault) = (Dependency::RabbitMq, None);
        self.telemetry.emit(DependencyChanged { name, fault });
        let feeds = async {
            tokio::join!(
                self.events.run(connection, &self.ledger, &self.missing),
                self.deliveries.run(connection, &self.ledger, &self.missing)
            );
            // Stopped: the connection stays for what is still to be settled.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            why = watch_over(connection, drop) => why,
            why = self.declare_again(connection) => why,
            () = feeds => String::new(),
        }
    }

    /// Declares again whenever something is missing; ends with why that cannot be done.
    async fn declare_again(&self, connection: &Connection) -> String {
        loop {
            self.missing.notified().await;
            tokio::time::sleep(DECLARE_AFTER).await;
            if let Err(error) = topology::declare(connection, &self.names).await {
                return error.to_string();
            }
            tracing::info!("exchanges and queues were declared again");
        }
    }

    fn tell_down(&self, why: &dyn std::fmt::Display) {
        let (name, fault) = (Dependency::RabbitMq, Some(why));
        self.telemetry.emit(DependencyChanged { name, fault });
    }

    /// A channel of its own, beside the consumers.
    async fn channel(&self) -> Result<Channel, StoreError> {
        let connection = self.consuming.connection().map_err(unavailable)?;
        new_channel(&connection).await.map_err(unavailable)
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Result<(), StoreError> {
        self.publisher.publish(messages).await
    }

    /// Ends all connections at once, for tests of what comes after.
    pub async fn crash(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        for link in [&self.consuming, &self.publishing] {
            if let Ok(connection) = link.connection() {
                link::close(&connection).await;
            }
            link.set(State::Down("closed".to_owned()));
        }
    }

    fn new_id(&self) -> String {
        let mut random = [0; 16];
        self.chance.fill(&mut random);
        hex::encode(random)
    }
}

#[async_trait]
impl Outbox for Rabbit {
    fn rounded(&self, due: Due, now: UnixMillis) -> Due {
        let rung = self.names.rung(due, now, &self.waits.avoided());
        let comes = rung.map(|rung| now.after(Duration::from_millis(rung.ms)));
        // Put a little later than now, it is the same rung that is no shorter. What is farther off
        // than the longest waits more than once.
        let comes = comes.filter(|comes| *comes >= due.earliest);
        comes.map_or(due, Due::at)
    }

    async fn put(&self, parcels: Vec<Parcel>) -> Result<(), StoreError> {
        let is_new = |parcel: &Parcel| matches!(parcel, Parcel::Published { .. });
        let has_new = parcels.iter().any(is_new);
        let held = async {
            if !has_new {
                std::future::pending::<()>().await;
            }
            self.publisher.blocked().await;
            let why = "holds publishing because it is short of memory or disk; try again later";
            Err(unavailable(why))
        };
        let settled: Vec<_> = parcels.iter().filter_map(settles).collect();
        let now = self.clock.now();
        let avoided = self.waits.avoided();
        let mut waiting = Vec::new();
        let message = |parcel| {
            let key = waits_as(&parcel);
            let message = Outgoing::of(parcel, &self.names, now, &avoided, || self.new_id());
            if let (Some(key), Some(rung)) = (key, message.rung) {
                waiting.push(Waiting {
                    key,
                    rung,
                    due: now.after(Duration::from_millis(rung)),
                    message: message.clone(),
                });
            }
            message
        };
        let messages = parcels.into_iter().map(message).collect();
        tokio::select! {
            biased;
            refused = held => return refused,
            published = self.publish(messages) => published?,
        }
        self.waits.begin(waiting);
        if settled.is_empty() {
            return Ok(());
        }
        // After the confirm: what is remembered is durable elsewhere.
        if let Err(error) = self.ledger.record(settled).await {
            tracing::warn!(%error, "the ledger does not remember what was put to wait");
        }
        Ok(())
    }
}

/// What the ledger knows a delivery's wait by.
fn waits_as(parcel: &Parcel) -> Option<LedgerKey> {
    match parcel {
        Parcel::Delivery { delivery, .. } => Some(delivery.wait_key()),
        _ => None,
    }
}

/// What the ledger is to know once `parcel` is durable.
fn settles(parcel: &Parcel) -> Option<(LedgerKey, SubscriptionId)> {
    let delivery = match parcel {
        Parcel::Delivery { delivery, .. } => delivery,
        Parcel::Dead(letter) => &letter.delivery,
        _ => return None,
    };
    Some((delivery.settles(), delivery.subscription.clone()))
}

#[async_trait]
impl Backend for Rabbit {
    async fn ready(&self) -> Result<(), String> {
        for link in [&self.consuming, &self.publishing] {
            link.connection()
                .map_err(|why| format!("RabbitMQ is not reachable: {why}"))?;
        }
        Ok(())
    }

    /// What is ready at the broker: messages that a process has taken and not settled are
    /// not counted.
    async fn queue_sizes(&self) -> Result<Vec<(&'static str, u64)>, StoreError> {
        let channel = self.channel().await?;
        let names = &self.names;
        let rungs = names.rungs.iter().map(|rung| &rung.queue);
        let queues = [
            &names.events,
            &names.deliveries,
            &names.dead_letters,
            &names.quarantine,
        ];
        let all = queues.into_iter().chain(rungs);
        let sizes = all.map(|queue| async { size(&channel, queue).await.map(|(size, _)| size) });
        let sizes: Vec<u64> = try_join_all(sizes).await?;
        let _ = channel.close(200, "done".into()).await;
        let (known, waiting) = sizes.split_at(queues.len());
        Ok(vec![
            ("events", known[0]),
            ("deliveries", known[1]),
            ("wait", waiting.iter().sum()),
            ("dead-letters", known[2]),
            ("quarantine", known[3]),
        ])
    }

    async fn flush(&self) {
        let flush = async { tokio::join!(self.events.flush(), self.deliveries.flush()) };
        // Without an answer what was settled comes again, and is known by the ledger.
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, flush).await;
    }

    async fn close(&self) {
        self.events.stop();
        self.deliveries.stop();
        self.flush().await;
        tokio::time::sleep(ACKS_SETTLE).await;
        self.crash().await;
    }

    /// What is open stays so until it is dropped.
    fn halt(&self) {
        self.stop.cancel();
    }
}

/// A channel. The client loses the number of each that RabbitMQ closed; a connection without
/// numbers is closed, so that another is made.
async fn new_channel(connection: &Connection) -> Result<Channel, lapin::Error> {
    let opened = connection.create_channel().await;
    if let Err(error) = &opened
        && matches!(error.kind(), lapin::ErrorKind::ChannelsLimitReached)
    {
        tracing::warn!("no channel is left: connecting again");
        link::close(connection).await;
    }
    opened
}

/// How many messages are ready in a queue, and how many consumers it has.
async fn size(channel: &Channel, queue: &ShortString) -> Result<(u64, u32), StoreError> {
    let size = topology::size(channel, queue).await;
    size.map_err(unavailable)
}

/// A panic while one of these locks is held leaves nothing half-made.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unavailable(why: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("RabbitMQ: {why}"))
}
