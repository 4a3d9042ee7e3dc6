//! `kill -9` of `carillon serve`, ten times over, while 2,000 events go to 5 subscriptions.
//!
//! Every event × subscription must be delivered (or dead-lettered: none is here), and what
//! arrives twice must have been in flight at a kill: after each kill the test reads from
//! the store which deliveries are settled, and what the receivers hold beyond that was in
//! flight. Both counts are printed.

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carillon::cli::receiver::{Behaviour, Receiver, ReceiverSettings, Reply};
use carillon::domain::id::{DeliveryId, EventId, LedgerKey, SubscriptionId, TenantId};
use http::StatusCode;
use rusqlite::types::FromSql;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

#[path = "support/until.rs"]
mod until;

const EVENTS: usize = 2_000;
const SUBSCRIPTIONS: usize = 5;
const KILLS: usize = 10;
const BATCH: usize = 100;
/// The default of `delivery.endpoint_max_in_flight`.
const ENDPOINT_WINDOW: usize = 32;
/// How long anything may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Which delivery: the event's number and the subscription's.
type Key = (String, usize);
type Arrivals = Arc<Mutex<HashMap<Key, usize>>>;

/// A `carillon serve` of its own, killed when dropped.
struct Server {
    child: Child,
    api: String,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let (api, ops) = (free_port(), free_port());
        let child = Command::new(env!("CARGO_BIN_EXE_carillon"))
            .arg("serve")
            .current_dir(folder)
            .env("CARILLON_HTTP__LISTEN", format!("127.0.0.1:{api}"))
            .env("CARILLON_OPS__LISTEN", format!("127.0.0.1:{ops}"))
            .env("CARILLON_EGRESS__ALLOW", r#"["127.0.0.1/32"]"#)
            .env("CARILLON_DELIVERY__RATE_LIMIT__PER_SECOND", "0")
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let api = format!("http://127.0.0.1:{api}");
        Self { child, api }
    }

    /// SIGKILL, and gone.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until::until(what, PATIENCE, look).await
}

/// Answers everything with 200 after a moment, so that there is always something in flight.
async fn receiver(arrivals: &Arrivals) -> Receiver {
    let arrivals = Arc::clone(arrivals);
    let behaviour = Behaviour::scripted(move |received| {
        let body: Value = serde_json::from_slice(&received.body).unwrap();
        let event = body["data"]["n"].as_str().unwrap().to_owned();
        let subscription = received.path.trim_start_matches('/').parse().unwrap();
        let mut arrivals = arrivals.lock().unwrap();
        *arrivals.entry((event, subscription)).or_default() += 1;
        Reply::status(StatusCode::OK).after(Duration::from_millis(3))
    });
    let settings = ReceiverSettings {
        behaviour,
        ..ReceiverSettings::default()
    };
    Receiver::start(settings).await.unwrap()
}

async fn subscribe(client: &reqwest::Client, api: &str, url: &str) -> HashMap<String, usize> {
    let mut ids = HashMap::new();
    for n in 0..SUBSCRIPTIONS {
        let document = json!({"tenant": "acme", "url": format!("{url}/{n}")});
        let create = || {
            client
                .post(format!("{api}/v1/subscriptions"))
                .json(&document)
                .send()
        };
        let created = until("the API", async || create().await.ok()).await;
        let created: Value = created.json().await.unwrap();
        ids.insert(created["id"].as_str().unwrap().to_owned(), n);
    }
    ids
}

fn batch(number: usize) -> Value {
    let event = |n: usize| {
        json!({
            "id": format!("e{n}"), "type": "scan.finished", "tenant": "acme",
            "timestamp": "2026-03-01T12:30:00Z", "data": {"n": format!("e{n}")},
        })
    };
    (number * BATCH..(number + 1) * BATCH).map(event).collect()
}

/// Publishes one batch, again and again until it is accepted: ids make that safe.
async fn publish(client: &reqwest::Client, api: &Mutex<String>, batch: &Value) {
    let mut looks = until::Looks::new(PATIENCE);
    loop {
        looks.next("a batch to be accepted").await;
        let url = format!("{}/v1/events", api.lock().unwrap());
        let sent = client.post(url).json(batch).send().await;
        if sent.is_ok_and(|answer| answer.status() == StatusCode::ACCEPTED) {
            return;
        }
    }
}

/// What the store of the dead process says is settled: in the ledger, and not waiting for
/// another attempt.
fn settled(folder: &Path, ids: &HashMap<String, usize>) -> HashSet<Key> {
    // Opened for writing, because the log of the killed process is to be taken in.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let store = Connection::open_with_flags(folder.join("carillon.db"), flags).unwrap();
    let tenant = TenantId::parse("acme").unwrap();
    let mut events = HashMap::new();
    let mut deliveries = HashMap::new();
    for name in (0..EVENTS).map(|n| format!("e{n}")) {
        let event = EventId::parse(&name).unwrap();
        for (id, n) in ids {
            let subscription = SubscriptionId::parse(id).unwrap();
            let delivery = DeliveryId::derive(&tenant, &event, &subscription);
            deliveries.insert(delivery.to_string(), (name.clone(), *n));
        }
        events.insert(LedgerKey::of_event(&tenant, &event).0, name);
    }
    let mut settled = HashSet::new();
    let ledger = "SELECT key, settled FROM ledger";
    for (key, list) in rows::<[u8; 16], String>(&store, ledger) {
        let each = list.split_whitespace();
        settled.extend(each.map(|id| (events[&key].clone(), ids[id])));
    }
    for (id, _) in rows::<String, i64>(&store, "SELECT id, due_ms FROM deliveries") {
        settled.remove(&deliveries[&id]);
    }
    settled
}

fn rows<A: FromSql, B: FromSql>(store: &Connection, query: &str) -> Vec<(A, B)> {
    let mut query = store.prepare(query).unwrap();
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_only_what_was_in_flight_is_repeated() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let arrivals = Arrivals::default();
    let receiver = receiver(&arrivals).await;
    let client = reqwest::Client::new();
    let mut server = Server::start(folder.path());
    let ids = subscribe(&client, &server.api, &receiver.url()).await;
    let api = Arc::new(Mutex::new(server.api.clone()));

    let publisher = {
        let (client, api) = (client.clone(), Arc::clone(&api));
        tokio::spawn(async move {
            for number in 0..EVENTS / BATCH {
                publish(&client, &api, &batch(number)).await;
            }
        })
    };
    let mut in_flight = 0;
    let mut before = HashMap::new();
    for kill in 1..=KILLS {
        // Spread over the run: so many deliveries have arrived when the next kill comes.
        let mark = EVENTS * SUBSCRIPTIONS * kill / (KILLS + 1);
        until("deliveries to arrive", async || {
            (arrivals.lock().unwrap().len() >= mark).then_some(())
        })
        .await;
        server.kill();
        // What is on its way from the dead process's sockets still arrives.
        until("the receivers to be quiet", async || {
            (receiver.counts().in_flight == 0).then_some(())
        })
        .await;
        let settled = settled(folder.path(), &ids);
        let arrived = arrivals.lock().unwrap().clone();
        // What this process sent, of what is not settled.
        let is_its = |(key, times): &(&Key, &usize)| before.get(*key).is_none_or(|n| n < *times);
        let its = arrived.iter().filter(is_its);
        in_flight += its.filter(|(key, _)| !settled.contains(key)).count();
        before = arrived;
        server = Server::start(folder.path());
        *api.lock().unwrap() = server.api.clone();
    }
    publisher.await.unwrap();
    until("everything to arrive", async || {
        (arrivals.lock().unwrap().len() == EVENTS * SUBSCRIPTIONS).then_some(())
    })
    .await;
    let arrived = arrivals.lock().unwrap().clone();
    let total: usize = arrived.values().sum();
    let (expected, duplicated) = (EVENTS * SUBSCRIPTIONS, total - arrived.len());
    // Straight to standard error: to be seen also when the test passes.
    let _ = writeln!(
        std::io::stderr(),
        "kills {KILLS}, expected {expected}, delivered {}, lost {}, duplicated {duplicated}, in flight at the kills {in_flight}",
        arrived.len(),
        expected - arrived.len(),
    );
    assert_eq!(arrived.len(), expected);
    // A permit is held until its delivery is settled, so windows bound what is in flight.
    assert!(
        in_flight <= KILLS * SUBSCRIPTIONS * ENDPOINT_WINDOW,
        "{in_flight} in flight"
    );
    assert!(
        duplicated <= in_flight,
        "{duplicated} duplicates, {in_flight} in flight"
    );
}
