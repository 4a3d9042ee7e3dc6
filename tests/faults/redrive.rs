//! Dead letters are sent again, and the dispatcher is killed in the middle of it: on RabbitMQ
//! and Redis, and on a file.
//!
//! `CARILLON_TEST_DEAD_LETTERS` says how many there are.

use std::collections::{HashMap, HashSet};
use std::process::{Child, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use carillon::adapters::rabbitmq::{Rabbit, RabbitSettings, declared};
use carillon::adapters::redis::{Redis, RedisSettings};
use carillon::adapters::sqlite::{Sqlite, SqliteSettings};
use carillon::adapters::system::{SystemChance, SystemClock};
use carillon::cli::receiver::{Behaviour, Receiver, ReceiverSettings, Reply};
use carillon::codec;
use carillon::codec::vault::Vault;
use carillon::config::Config;
use carillon::domain::delivery::{DeadLetter, DeadReason, Delivery, EventFacts, LastAttempt};
use carillon::domain::id::{EventId, EventType, SubscriptionId, TenantId};
use carillon::domain::outcome::Reason;
use carillon::domain::timestamp::UnixMillis;
use carillon::ports::{Backend as _, Outbox as _, Parcel};
use carillon::telemetry::Telemetry;
use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::dispatcher::{Dispatcher, PATIENCE, Variables, command, until, until_true};
use super::publisher::{connect, look_through, ready_in};
use super::scene::{ENDPOINT_WINDOW, say, start_redis, turn};
use crate::services::Broker;

/// How many there are, unless the environment says otherwise.
const LETTERS: usize = 2_000;
/// What `carillon dead-letters redrive` has redriven by one call.
const STEP: usize = 1_000;
const ID: &str = "sub_redriven";
const DEAD_LETTERS: &str = "carillon.dead-letters";
const TENANT: &str = "acme";
const DEDUP_WINDOW: Duration = Duration::from_secs(600);
/// How long an answer takes, so that there is always something in flight.
const ANSWER_AFTER: Duration = Duration::from_millis(3);

/// How often each delivery arrived.
type Arrivals = Arc<Mutex<HashMap<String, usize>>>;

/// Where everything is kept, and the receiver.
struct Place {
    folder: TempDir,
    servers: Option<Servers>,
    variables: Variables,
    receiver: Receiver,
    arrivals: Arrivals,
}

struct Servers {
    broker: String,
    redis: String,
}

/// Which deliveries stand where, by the store's own account.
#[derive(Default)]
struct Standing {
    dead: HashSet<String>,
    due: HashSet<String>,
    /// Those due of which there is more than one: a deferral was durable, and the message before
    /// it not settled yet.
    copied: HashSet<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_redriving_from_a_queue() {
    let _turn = turn().await;
    let (broker, redis) = tokio::join!(Broker::start(1), start_redis());
    let servers = Servers {
        broker: broker.urls(),
        redis: redis.url(),
    };
    redriven_through_a_kill("queue", Some(servers)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_redriving_from_a_file() {
    let _turn = turn().await;
    redriven_through_a_kill("file", None).await;
}

async fn redriven_through_a_kill(name: &str, servers: Option<Servers>) {
    let count = std::env::var("CARILLON_TEST_DEAD_LETTERS");
    let count = count.map_or(LETTERS, |count| count.parse().unwrap());
    let place = Place::new(servers).await;
    let expected = place.put_letters(count).await;
    let begun = Instant::now();

    let dispatcher = place.start().await;
    let redriving = place.redrive(&dispatcher);
    place.half_way(&dispatcher, count).await;
    let killed_after = begun.elapsed();
    dispatcher.kill();
    let interrupted = ended(redriving).await;
    until_true("the receiver to be quiet", || {
        place.receiver.counts().in_flight == 0
    })
    .await;
    let at_the_kill = place.arrivals.lock().unwrap().clone();
    let standing = place.standing().await;

    let dispatcher = place.start().await;
    let resumed = Instant::now();
    let finished = ended(place.redrive(&dispatcher)).await;
    let redriving_again = resumed.elapsed();
    until_true("all to arrive", || place.arrived() >= count).await;
    until("the queues to be empty", async || {
        let metrics = dispatcher.try_metrics().await?;
        (metrics.is_at_rest() && metrics.queue("dead-letters") == 0).then_some(())
    })
    .await;
    let took = begun.elapsed();
    assert!(dispatcher.terminate().await.success());
    let left = place.standing().await;

    let arrivals = place.arrivals.lock().unwrap().clone();
    let lost = expected.iter().filter(|id| !arrivals.contains_key(*id));
    let lost = lost.count();
    let repeated = arrivals.iter().filter(|(_, times)| **times > 1);
    let duplicates: HashSet<&String> = repeated.clone().map(|(id, _)| id).collect();
    let duplicated: usize = repeated.map(|(_, times)| times - 1).sum();
    let Standing { dead, due, copied } = &standing;
    // Due again, or even delivered, and not taken out of the dead letters yet.
    let is_again = |id: &&String| at_the_kill.contains_key(*id) || due.contains(*id);
    let twice: HashSet<&String> = dead.iter().filter(is_again).collect();
    let has_arrived = |id: &&String| at_the_kill.contains_key(*id);
    let in_flight: HashSet<&String> = due.iter().filter(has_arrived).collect();
    say(&format!(
        "redrive from a {name}, killed: {count} dead letters, lost {lost}, duplicated {duplicated}; at the kill {} had arrived, {} were dead letters, {} of these due as well, {} had arrived and were due still, {} were due twice; killed after {:.1} s, the second redrive took {:.1} s, all {:.1} s",
        at_the_kill.len(),
        dead.len(),
        twice.len(),
        in_flight.len(),
        copied.len(),
        killed_after.as_secs_f64(),
        redriving_again.as_secs_f64(),
        took.as_secs_f64(),
    ));
    assert_eq!(arrivals.len(), count, "nothing but those arrives");
    assert_eq!(lost, 0);
    assert_eq!(
        (left.dead.len(), left.due.len()),
        (0, 0),
        "none stays behind"
    );
    assert!(!interrupted.status.success(), "the kill was in the middle");
    let problem = String::from_utf8_lossy(&finished.stderr);
    assert!(finished.status.success(), "{problem}");
    let answer: Value = serde_json::from_slice(&finished.stdout).unwrap();
    assert_eq!(answer["redriven"], dead.len(), "{answer}");
    // Nothing else may arrive twice, and that once more.
    let explained: HashSet<&String> = twice
        .iter()
        .chain(&in_flight)
        .copied()
        .chain(copied)
        .collect();
    let unexplained: Vec<_> = duplicates.difference(&explained).collect();
    assert!(unexplained.is_empty(), "{unexplained:?}");
    assert!(duplicated <= twice.len() + in_flight.len() + copied.len());
    assert!(twice.len() <= STEP, "no more than one call's");
    if place.servers.is_none() {
        assert_eq!(twice.len(), 0, "a file moves a letter in one step");
        // Those under way, and those whose acknowledgement waited a few milliseconds for company.
        assert!(in_flight.len() <= 4 * ENDPOINT_WINDOW);
    }
}

impl Standing {
    fn of(dead: Vec<String>, due: Vec<String>) -> Self {
        let mut standing = Self {
            dead: dead.into_iter().collect(),
            ..Self::default()
        };
        for id in due {
            if !standing.due.insert(id.clone()) {
                standing.copied.insert(id);
            }
        }
        standing
    }
}

impl Place {
    /// With one subscription, in a store that nobody uses now.
    async fn new(servers: Option<Servers>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let mut variables = vec![
            ("CARILLON_EGRESS__ALLOW", r#"["127.0.0.1/32"]"#.to_owned()),
            ("CARILLON_DELIVERY__RATE_LIMIT__PER_SECOND", "0".to_owned()),
        ];
        if let Some(Servers { broker, redis }) = &servers {
            variables.push(("CARILLON_BROKER__URL", broker.clone()));
            variables.push(("CARILLON_REDIS__URL", redis.clone()));
            let init = command(folder.path(), &variables).arg("init").output();
            assert!(init.unwrap().status.success());
        }
        let arrivals = Arrivals::default();
        let seen = Arc::clone(&arrivals);
        let behaviour = Behaviour::scripted(move |received| {
            let id = received.header("webhook-id").unwrap().to_owned();
            *seen.lock().unwrap().entry(id).or_default() += 1;
            Reply::status(StatusCode::OK).after(ANSWER_AFTER)
        });
        let settings = ReceiverSettings {
            behaviour,
            ..ReceiverSettings::default()
        };
        let place = Self {
            folder,
            servers,
            variables,
            receiver: Receiver::start(settings).await.unwrap(),
            arrivals,
        };
        let dispatcher = place.start().await;
        let url = place.receiver.url();
        let subscription = json!({ "id": ID, "tenant": TENANT, "url": url });
        dispatcher.declare(&[subscription]).await;
        assert!(dispatcher.terminate().await.success());
        place
    }

    async fn start(&self) -> Dispatcher {
        let dispatcher = Dispatcher::start(self.folder.path(), &self.variables);
        dispatcher.ready().await;
        dispatcher
    }

    /// Begins `carillon dead-letters redrive`.
    fn redrive(&self, dispatcher: &Dispatcher) -> Child {
        command(self.folder.path(), &self.variables)
            .args(["--api", dispatcher.api(), "--json"])
            .args(["dead-letters", "redrive"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Waits until half is redriven, and the command has more to do. From a queue some of the
    /// second half have been taken: so their call is under way. In a file a call takes a moment;
    /// the next one has not begun.
    async fn half_way(&self, dispatcher: &Dispatcher, count: usize) {
        if let Some(servers) = &self.servers {
            let connection = connect(&servers.broker).await;
            let channel = connection.create_channel().await.unwrap();
            until("more than half to be taken", async || {
                let left = ready_in(&channel, DEAD_LETTERS).await;
                (left < count / 2 && self.arrived() > 0).then_some(())
            })
            .await;
            let _ = connection.close(200, "done".into()).await;
            return;
        }
        until("half to be redriven", async || {
            let left = dispatcher.try_metrics().await?.queue("dead-letters");
            (left <= count / 2 && self.arrived() > 0).then_some(())
        })
        .await;
    }

    fn arrived(&self) -> usize {
        self.arrivals.lock().unwrap().len()
    }

    /// Puts so many dead letters into the store; their ids.
    async fn put_letters(&self, count: usize) -> HashSet<String> {
        let letters: Vec<DeadLetter> = (0..count).map(letter).collect();
        let ids = letters.iter().map(|one| one.delivery.id.to_string());
        let ids = ids.collect();
        let put = letters.chunks(500).map(|some| {
            let dead = some.iter().cloned().map(Parcel::Dead);
            dead.collect::<Vec<_>>()
        });
        match &self.servers {
            None => {
                let sqlite = self.sqlite().await;
                for parcels in put {
                    sqlite.put(parcels).await.unwrap();
                }
                sqlite.close().await;
            }
            Some(servers) => {
                let rabbit = servers.rabbit().await;
                for parcels in put {
                    rabbit.put(parcels).await.unwrap();
                }
                rabbit.close().await;
            }
        }
        ids
    }

    /// The file, as soon as it is free.
    async fn sqlite(&self) -> Arc<Sqlite> {
        let settings = SqliteSettings {
            vault: Vault::default(),
            path: self.folder.path().join("carillon.db"),
            dedup_window: DEDUP_WINDOW,
            audit_keep: Duration::from_secs(3600),
            audit_per_subscription: 200,
            audit_body_bytes: 65536,
            audit_dropped: Arc::default(),
            telemetry: carillon::telemetry::Telemetry::new().unwrap(),
            clock: Arc::new(SystemClock),
        };
        until("the file to be free", async || {
            Sqlite::open(settings.clone()).ok()
        })
        .await
    }

    /// What the store of a dispatcher that does not run holds.
    async fn standing(&self) -> Standing {
        match &self.servers {
            None => self.standing_in_file().await,
            Some(servers) => servers.standing().await,
        }
    }

    async fn standing_in_file(&self) -> Standing {
        // What the dead process wrote is taken in, and the file closed in order.
        self.sqlite().await.close().await;
        let file = rusqlite::Connection::open(self.folder.path().join("carillon.db")).unwrap();
        let ids = |table: &str| -> Vec<String> {
            let mut query = file.prepare(&format!("SELECT id FROM {table}")).unwrap();
            let ids = query.query_map((), |row| row.get(0)).unwrap();
            ids.map(Result::unwrap).collect()
        };
        Standing::of(ids("dead_letters"), ids("deliveries"))
    }
}

impl Servers {
    async fn rabbit(&self) -> Arc<Rabbit> {
        let url = ("CARILLON_REDIS__URL".to_owned(), self.redis.clone());
        let broker = ("CARILLON_BROKER__URL".to_owned(), self.broker.clone());
        let config = Config::load(None, [url, broker]).unwrap().config;
        let redis = Redis::open(RedisSettings {
            vault: Vault::default(),
            url: config.redis.url.unwrap(),
            ca_file: None,
            prefix: "carillon".to_owned(),
            dedup_window: DEDUP_WINDOW,
            audit_keep: Duration::from_secs(3600),
            audit_per_subscription: 200,
            audit_body_bytes: 65536,
            clock: Arc::new(SystemClock),
            telemetry: Telemetry::new().unwrap(),
            audit_dropped: Arc::default(),
        });
        let redis = redis.unwrap();
        redis.connected(PATIENCE).await.unwrap();
        let rabbit = Rabbit::open(RabbitSettings {
            urls: self.broker.split(',').map(Into::into).collect(),
            ca_file: None,
            prefix: "carillon".to_owned(),
            prefetch: 1,
            overdue: None,
            ledger: redis,
            clock: Arc::new(SystemClock),
            chance: Arc::new(SystemChance),
            telemetry: Telemetry::new().unwrap(),
        });
        rabbit.await.unwrap()
    }

    async fn standing(&self) -> Standing {
        let (mut due, _) = declared("carillon");
        due.retain(|queue| queue == "carillon.deliveries" || queue.contains(".wait."));
        let dead = [DEAD_LETTERS.to_owned()];
        Standing::of(self.ids_in(&dead).await, self.ids_in(&due).await)
    }

    /// The ids of the deliveries in some queues, once they are back in them.
    async fn ids_in(&self, queues: &[String]) -> Vec<String> {
        let connection = connect(&self.broker).await;
        let messages = look_through(&connection, queues).await;
        let _ = connection.close(200, "done".into()).await;
        let connection = connect(&self.broker).await;
        let channel = connection.create_channel().await.unwrap();
        until("the messages to be back", async || {
            let mut ready = 0;
            for queue in queues {
                ready += ready_in(&channel, queue).await;
            }
            (ready >= messages.len()).then_some(())
        })
        .await;
        let _ = connection.close(200, "done".into()).await;
        let delivery = |body: Vec<u8>| codec::delivery::decode(&body.into()).unwrap();
        let ids = messages.into_iter().map(delivery);
        ids.map(|delivery| delivery.id.to_string()).collect()
    }
}

/// A delivery that was given up after one attempt.
fn letter(n: usize) -> DeadLetter {
    let at = UnixMillis::parse_rfc3339("2026-03-01T12:30:00Z").unwrap();
    let facts = EventFacts {
        id: EventId::parse(&format!("e{n}")).unwrap(),
        kind: EventType::parse("scan.finished").unwrap(),
        tenant: TenantId::parse(TENANT).unwrap(),
        taken_at: at,
        traceparent: None,
    };
    let body = Bytes::from(json!({ "type": "scan.finished", "data": { "n": n } }).to_string());
    let subscription = SubscriptionId::parse(ID).unwrap();
    let last = LastAttempt {
        status: Some(500),
        reason: Reason::from_code("server_error").unwrap(),
    };
    DeadLetter {
        delivery: Delivery::new(Arc::new(facts), subscription, body, false).attempted(at, last),
        reason: DeadReason::Exhausted,
        dead_at: at,
    }
}

/// What a command said, once it has ended.
async fn ended(child: Child) -> Output {
    let waiting = tokio::task::spawn_blocking(move || child.wait_with_output());
    let ended = tokio::time::timeout(PATIENCE, waiting).await;
    ended.expect("the command ends").unwrap().unwrap()
}
