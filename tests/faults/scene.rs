//! What the fault tests share: servers and receivers, a dispatcher between them, events that
//! go through it, and the count at the end.

use std::collections::HashSet;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carillon::adapters::rabbitmq::declared;
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;

use super::arrivals::{Arrivals, Endpoints, Key, SUBSCRIPTIONS, expected};
use super::dispatcher::{Dispatcher, Variables, command, until, until_true};
use super::publisher::{Publisher, connect, events, name, ready_in};
use crate::services::RedisServer;

/// How many events a fault test publishes.
pub const EVENTS: usize = 5_000;
/// One delivery in so many is answered with 500 the first time.
pub const FAILING: u64 = 50;
/// How far publishing may be ahead of delivering: more than the dispatcher takes, so that
/// there is always something in the queue, and less than all, so that faults meet publishing.
const AHEAD: usize = 1_500;
/// How many events are published before the pace is looked at again: few, so that there is
/// publishing whenever something is delivered, also into a fault.
const STEP: usize = 50;
/// The default of `delivery.endpoint_max_in_flight`. A permit is held until its delivery is
/// settled, so that is the most of an endpoint that is in flight.
pub const ENDPOINT_WINDOW: usize = 32;
/// `intake.prefetch`: events that are in flight, and due deliveries. Less than the default, so
/// that what is in flight at a fault is a small share of all that goes through.
pub const PREFETCH: usize = 200;
/// The most attempts that are in flight in one dispatcher, with what follows them.
pub const WINDOWS: usize = SUBSCRIPTIONS * ENDPOINT_WINDOW;

/// At most two at a time: each loads a core and more.
static TURNS: Semaphore = Semaphore::const_new(TURNS_MAX as usize);
const TURNS_MAX: u32 = 2;

/// The turn of a test, beside at most one other.
pub async fn turn() -> SemaphorePermit<'static> {
    TURNS.acquire().await.unwrap()
}

/// The turn of a test that measures time, alone.
pub async fn turn_alone() -> SemaphorePermit<'static> {
    TURNS.acquire_many(TURNS_MAX).await.unwrap()
}

/// A private Redis with its usual durability: writing through to the disk would make it too
/// slow to answer on a machine that is busy, which is a fault of its own.
pub async fn start_redis() -> RedisServer {
    RedisServer::start_with(&["appendfsync everysec"]).await
}

/// What a test is played on.
pub struct Scene {
    pub endpoints: Arc<Endpoints>,
    folder: TempDir,
    variables: Variables,
    broker: String,
    begun: Instant,
}

/// What came of it all.
pub struct Count {
    expected: usize,
    attempted: usize,
    delivered: usize,
    dead_lettered: usize,
    lost: usize,
    /// Requests for a delivery that was acknowledged before.
    pub duplicated: usize,
    /// Which.
    pub duplicates: HashSet<Key>,
    took: Duration,
}

impl Scene {
    /// Receivers, and a Redis that is marked. The dispatcher reaches its servers by `broker` and
    /// `redis`; the scene itself reaches RabbitMQ by `direct`.
    pub async fn new(broker: &str, direct: &str, redis: &str, failing: u64) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let endpoints = Endpoints::start(failing).await;
        let folder = tempfile::tempdir().unwrap();
        let variables = settings(broker, redis);
        let init = command(folder.path(), &variables).arg("init").output();
        let init = init.unwrap();
        let problem = String::from_utf8_lossy(&init.stderr);
        assert!(init.status.success(), "{problem}");
        Self {
            endpoints: Arc::new(endpoints),
            folder,
            variables,
            broker: direct.to_owned(),
            begun: Instant::now(),
        }
    }

    /// Has dispatchers that are started from now on have one setting more.
    pub fn set(&mut self, variable: &'static str, value: &str) {
        self.variables.push((variable, value.to_owned()));
    }

    /// Starts a dispatcher; it is ready.
    pub async fn dispatcher(&self) -> Dispatcher {
        let dispatcher = self.start();
        dispatcher.ready().await;
        dispatcher
    }

    /// Starts a dispatcher, whether it gets ready or not.
    pub fn start(&self) -> Dispatcher {
        Dispatcher::start(self.folder.path(), &self.variables)
    }

    /// Starts the first dispatcher and declares the subscriptions.
    pub async fn begin(&mut self) -> Dispatcher {
        let dispatcher = self.dispatcher().await;
        let answer = dispatcher.declare(&self.endpoints.declared()).await;
        assert_eq!(answer["items"].as_array().unwrap().len(), SUBSCRIPTIONS);
        self.begun = Instant::now();
        dispatcher
    }

    /// The program with the scene's settings, for other commands than `serve`.
    pub fn command(&self) -> std::process::Command {
        command(self.folder.path(), &self.variables)
    }

    /// Publishes all events in the background, not far ahead of what is delivered. Says in
    /// the end how many had to be published again.
    pub fn publish(&self) -> JoinHandle<usize> {
        let endpoints = Arc::clone(&self.endpoints);
        let mut publisher = Publisher::new(&self.broker);
        tokio::spawn(async move {
            let mut again = 0;
            for from in (0..EVENTS).step_by(STEP) {
                let to = (from + STEP).min(EVENTS);
                let has_room = || endpoints.delivered() / SUBSCRIPTIONS + AHEAD >= to;
                until_true("deliveries to make room", has_room).await;
                again += publisher.publish(&events(from..to)).await;
            }
            again
        })
    }

    /// Waits until this share of all events is delivered.
    pub async fn delivered(&self, share: f64) {
        let mark = ((EVENTS * SUBSCRIPTIONS) as f64 * share) as usize;
        let have_arrived = || self.endpoints.delivered() >= mark;
        until_true("deliveries to arrive", have_arrived).await;
    }

    /// Waits until the books say, over all replicas there were, that each delivery began once and
    /// ended.
    pub async fn balanced(&self, dispatcher: &Dispatcher) {
        let wanted = expected((0..EVENTS).map(name)).len();
        until("the books to balance", async || {
            let metrics = dispatcher.try_metrics().await?;
            let of = |account: &str| {
                metrics.value(&format!(
                    "carillon_accounted_deliveries_total{{account=\"{account}\"}}"
                ))
            };
            let ended = of("delivered") + of("dead_lettered") + of("quarantined");
            ((of("begun"), ended) == (wanted, wanted)).then_some(())
        })
        .await;
    }

    /// Waits until nothing is on its way, ends the dispatcher, and counts.
    pub async fn finish(&self, dispatcher: Dispatcher) -> Count {
        self.finish_with(dispatcher, EVENTS).await
    }

    /// The same for another number of events.
    pub async fn finish_with(&self, dispatcher: Dispatcher, events: usize) -> Count {
        let wanted = expected((0..events).map(name));
        until("everything to arrive", async || {
            let dead = dispatcher.try_metrics().await?.queue("dead-letters");
            (self.endpoints.delivered() + dead >= wanted.len()).then_some(())
        })
        .await;
        until("the queues to be empty", async || {
            let at_rest = dispatcher.try_metrics().await?.is_at_rest();
            at_rest.then_some(())
        })
        .await;
        let took = self.begun.elapsed();
        let status = dispatcher.terminate().await;
        assert!(status.success(), "the dispatcher ended with {status}");
        let dead_lettered = self.assert_empty().await;
        assert_eq!(self.endpoints.unverified(), 0, "signatures are right");
        let arrivals = self.endpoints.arrivals();
        Count::of(&arrivals, &wanted, dead_lettered, took)
    }

    /// With no dispatcher left, all that was taken and not settled is ready again: so nothing
    /// may be. Returns how many dead letters there are.
    async fn assert_empty(&self) -> usize {
        let connection = connect(&self.broker).await;
        let channel = connection.create_channel().await.unwrap();
        let (queues, _) = declared("carillon");
        let mut dead_lettered = 0;
        for queue in queues {
            let ready = ready_in(&channel, &queue).await;
            if queue == "carillon.dead-letters" {
                dead_lettered = ready;
            } else {
                assert_eq!(ready, 0, "messages are left in {queue}");
            }
        }
        dead_lettered
    }
}

impl Count {
    fn of(
        arrivals: &Arrivals,
        wanted: &HashSet<Key>,
        dead_lettered: usize,
        took: Duration,
    ) -> Self {
        let is_delivered = |key: &&Key| arrivals.get(*key).is_some_and(|one| one.acknowledged > 0);
        let delivered = wanted.iter().filter(is_delivered).count();
        let strangers = arrivals.keys().filter(|key| !wanted.contains(*key)).count();
        assert_eq!(strangers, 0, "something arrived that was not published");
        // After its first acknowledgement every request is acknowledged.
        let repeated = arrivals.iter().filter(|(_, one)| one.acknowledged > 1);
        let duplicates: HashSet<Key> = repeated.clone().map(|(key, _)| key.clone()).collect();
        Self {
            expected: wanted.len(),
            attempted: arrivals.values().map(|one| one.attempts).sum(),
            delivered,
            dead_lettered,
            lost: wanted.len().saturating_sub(delivered + dead_lettered),
            duplicated: repeated.map(|(_, one)| one.acknowledged - 1).sum(),
            duplicates,
            took,
        }
    }

    /// Prints the line of a test, and asserts that nothing is lost.
    pub fn report(&self, name: &str, more: &str) {
        let Self {
            attempted,
            delivered,
            dead_lettered,
            lost,
            duplicated,
            ..
        } = self;
        let took = self.took.as_secs_f64();
        say(&format!(
            "{name}: attempted {attempted}, delivered {delivered}, dead-lettered {dead_lettered}, lost {lost}, duplicated {duplicated}; {took:.1} s; {more}"
        ));
        assert_eq!(*lost, 0);
        assert_eq!(delivered + dead_lettered, self.expected);
    }
}

/// Straight to standard error: to be seen also when the test passes.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn settings(broker: &str, redis: &str) -> Variables {
    vec![
        ("CARILLON_BROKER__URL", broker.to_owned()),
        ("CARILLON_REDIS__URL", redis.to_owned()),
        ("CARILLON_EGRESS__ALLOW", r#"["127.0.0.1/32"]"#.to_owned()),
        ("CARILLON_DELIVERY__RATE_LIMIT__PER_SECOND", "0".to_owned()),
        ("CARILLON_INTAKE__PREFETCH", PREFETCH.to_string()),
        ("CARILLON_RETRY__INITIAL", "300ms".to_owned()),
        ("CARILLON_RETRY__MULTIPLIER", "2".to_owned()),
        ("CARILLON_RETRY__MAX", "2s".to_owned()),
    ]
}
