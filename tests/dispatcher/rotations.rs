//! Secrets and keys are changed while events flow, and no receiver notices: whoever knows any
//! one of the secrets that are valid verifies every request.

use std::collections::{HashMap, HashSet};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use carillon::app::Carillon;
use carillon::cli::listen::pem;
use carillon::cli::receiver::{
    Behaviour, Received, Receiver, ReceiverSettings, Reply, TlsIdentity, signed_headers,
};
use carillon::domain::signature::VerificationKey;
use carillon::domain::timestamp::UnixMillis;
use http::StatusCode;
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use super::harness::{Api, Dispatcher, Setup, Subscribed, poll_until, typed_event};
use super::hooks::json_body;
use super::program::run;
use super::secrets::ring;
use crate::backend::Place;

/// Events that are published at least, and at once.
const EVENTS_MIN: usize = 1000;
const BATCH: usize = 20;
/// How many may be on their way.
const AHEAD_MAX: usize = 100;
/// Events between two rotations.
const BETWEEN: usize = 40;
/// What was taken in hand before a secret was shown may be signed so much later without it: in
/// one process while it is being sent, in others until they know.
const EFFECTIVE_MS: i64 = if Place::IS_SHARED { 1_000 } else { 50 };

/// How long those who know a secret that is over look on.
const KEPT_MS: i64 = 2_500;
/// Every so manieth event is for the pair of keys too: without optimisation that is slow.
const OF_PAIR: usize = 10;

/// A secret, and when those who know nothing else are served.
struct Held {
    key: VerificationKey,
    /// For the reference library; a pair has none.
    whsec: Option<String>,
    from: UnixMillis,
    until: UnixMillis,
}

/// Those who receive for one subscription: one for each secret that it ever had, who knows that
/// one alone, and one who knows all that are valid.
#[derive(Default)]
struct Customer {
    held: Mutex<Vec<Held>>,
    /// Events that arrived, and how often.
    arrived: Mutex<HashMap<String, usize>>,
    faults: Mutex<Vec<String>>,
    verified: AtomicUsize,
    refused: AtomicUsize,
}

impl Held {
    fn verifies(&self, received: &Received) -> bool {
        let headers = signed_headers(&received.headers);
        let (body, now) = (&received.body, received.at);
        let ours = self.key.verify_standard(&headers, body, now, 60).is_ok();
        if let Some(whsec) = &self.whsec {
            let reference = Webhook::new(whsec).unwrap();
            let theirs = reference.verify(body, &received.headers).is_ok();
            assert_eq!(ours, theirs, "the reference library says something else");
        }
        let leicbit = headers
            .leicbit
            .is_none_or(|header| self.key.verify_leicbit(header, body, now, 60).is_ok());
        assert!(
            headers.leicbit.is_none() || leicbit == ours,
            "both of a request, or none"
        );
        ours && leicbit
    }
}

impl Customer {
    /// Is shown a secret at `now`; those before are good until `until`.
    fn shown(&self, secret: &Value, now: UnixMillis, until: UnixMillis) {
        let whsec = secret["whsec"].as_str();
        let text = whsec.or(secret["public_key"].as_str()).unwrap();
        let mut held = self.held.lock().unwrap();
        // Of what is long over there is nothing more to see.
        held.retain(|held| now.0 < held.until.0.saturating_add(KEPT_MS));
        for before in held.iter_mut() {
            before.until = before.until.min(until);
        }
        held.push(Held {
            key: VerificationKey::parse(text).unwrap(),
            whsec: whsec.map(ToOwned::to_owned),
            from: now,
            until: UnixMillis(i64::MAX),
        });
    }

    /// Checks a request, which was signed within the second of its timestamp.
    fn receives(&self, received: &Received) {
        let timestamp = received.header("webhook-timestamp").unwrap();
        let begin = timestamp.parse::<i64>().unwrap() * 1000;
        let end = begin + 1000;
        let mut any = false;
        let held = self.held.lock().unwrap();
        for (n, held) in held.iter().enumerate() {
            let verifies = held.verifies(received);
            any |= verifies && received.at < held.until.max(UnixMillis(end));
            let must = begin >= held.from.0 + EFFECTIVE_MS && end <= held.until.0;
            let must_not = begin >= held.until.0;
            self.verified
                .fetch_add(usize::from(must), Ordering::Relaxed);
            self.refused
                .fetch_add(usize::from(must_not), Ordering::Relaxed);
            if must && !verifies || must_not && verifies {
                let times = (held.from.0, held.until.0);
                self.fault(format!("secret {n} of {times:?} at {begin}: {verifies}"));
            }
        }
        drop(held);
        if !any {
            self.fault(format!("no secret of now fits at {begin}"));
        }
        let id = event_of(received).as_str().unwrap().to_owned();
        *self.arrived.lock().unwrap().entry(id).or_default() += 1;
    }

    fn fault(&self, fault: String) {
        self.faults.lock().unwrap().push(fault);
    }

    fn arrived(&self) -> usize {
        self.arrived.lock().unwrap().len()
    }
}

/// The event's name in both formats.
fn event_of(received: &Received) -> Value {
    let body = json_body(received);
    match &body["event_id"] {
        Value::Null => body["data"]["n"].clone(),
        id => id.clone(),
    }
}

async fn receiver(tls: Option<TlsIdentity>, customers: &[Arc<Customer>]) -> Receiver {
    let customers = customers.to_vec();
    let behaviour = Behaviour::scripted(move |received| {
        let n: usize = received.path.trim_start_matches('/').parse().unwrap();
        customers[n].receives(received);
        Reply::status(StatusCode::OK)
    });
    let settings = ReceiverSettings {
        tls,
        behaviour,
        ..ReceiverSettings::default()
    };
    Receiver::start(settings).await.unwrap()
}

/// Publishes without end, at most so many ahead of what has arrived, at whatever dispatcher there
/// is; returns how many events there were.
async fn publish(api: &Mutex<Api>, customer: &Customer, done: &AtomicBool) -> usize {
    let client = reqwest::Client::new();
    let mut published = 0;
    while !done.load(Ordering::Relaxed) {
        poll_until("events to arrive", async || {
            (customer.arrived() + AHEAD_MAX > published).then_some(())
        })
        .await;
        let batch = published..published + BATCH;
        let batch: Value = batch.map(numbered).collect();
        poll_until("a batch to be accepted", async || {
            let url = format!("{}/v1/events", api.lock().unwrap().base());
            let sent = client.post(url).json(&batch).send().await.ok()?;
            (sent.status() == StatusCode::ACCEPTED).then_some(())
        })
        .await;
        published += BATCH;
    }
    published
}

fn numbered(n: usize) -> Value {
    let id = format!("e{n}");
    let kind = if n.is_multiple_of(OF_PAIR) {
        "demo.for.all"
    } else {
        "demo.for.some"
    };
    typed_event(&id, kind, &json!({ "n": id }))
}

/// Rotates the secret of each, when some more events have arrived; returns how often.
async fn rotate(
    api: &Api,
    made: &[Subscribed],
    customers: &[Arc<Customer>],
    overlaps: &[&str],
) -> usize {
    for overlap in overlaps {
        for (made, customer) in made.iter().zip(customers) {
            let path = format!("{}/rotate-secret", made.path());
            // Too many overlap: wait until one is over.
            let rotated = poll_until("a rotation", async || {
                let answer = api.post(&path, &json!({ "overlap": overlap })).await;
                (answer.status != 409).then(|| answer.expect(200))
            })
            .await;
            let until = rotated["overlap_until"].as_str().unwrap();
            let until = UnixMillis::parse_rfc3339(until).unwrap();
            customer.shown(&rotated["secret"], now(), until);
        }
        more_arrive(&customers[0]).await;
    }
    overlaps.len() * made.len()
}

async fn more_arrive(customer: &Customer) {
    let before = customer.arrived();
    poll_until("more events to arrive", async || {
        (customer.arrived() >= before + BETWEEN).then_some(())
    })
    .await;
}

fn now() -> UnixMillis {
    let now = time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    UnixMillis(i64::try_from(now).unwrap())
}

/// Has the dispatcher go on with other keys: where several may be, another takes over meanwhile.
async fn with_keys(one: Dispatcher, names: &str, api: &Mutex<Api>) -> Dispatcher {
    let mut config = one.config().clone();
    config.secrets.keys = ring(names);
    let meanwhile = match Place::IS_SHARED {
        true => Some(Carillon::start(&config).await.unwrap()),
        false => None,
    };
    let (mut setup, ended) = one.stop().await;
    assert!(ended);
    setup.config = config;
    let one = setup.start().await;
    *api.lock().unwrap() = one.api.clone();
    if let Some(meanwhile) = meanwhile {
        assert!(meanwhile.stop().await);
    }
    one
}

async fn encrypt_again(api: &Api) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carillon"));
    command.args(["secrets", "rotate", "--api", api.base()]);
    let (code, out, err) = run(command, String::new()).await;
    assert_eq!(code, 0, "{out}{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_and_keys_change_under_load_and_every_request_verifies() {
    let customers: [Arc<Customer>; 3] = std::array::from_fn(|_| Arc::default());
    let (identity, authority) = TlsIdentity::self_signed(["127.0.0.1"]).unwrap();
    let plain = receiver(None, &customers).await;
    let secure = receiver(Some(identity), &customers).await;
    let setup = Setup::new(|config| config.secrets.keys = ring("a"));
    let ca_file = setup.file("ca.pem");
    std::fs::write(&ca_file, pem(&authority)).unwrap();
    let mut setup = setup;
    setup.config.egress.ca_file = Some(ca_file);
    let mut carillon = setup.start().await;
    let api = Mutex::new(carillon.api.clone());
    let mut made = Vec::new();
    for (n, (receiver, more)) in [
        (&plain, json!({})),
        (&secure, json!({ "format": "leicbit" })),
        (
            &plain,
            json!({ "signing": "ed25519", "event_types": ["demo.for.all"] }),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let url = format!("{}/{n}", receiver.url());
        let subscribed = carillon.api.subscribe(&url, more).await;
        let secret = &subscribed.document["secret"];
        customers[n].shown(secret, now(), UnixMillis(i64::MAX));
        made.push(subscribed);
    }
    let done = AtomicBool::new(false);
    let publishing = publish(&api, &customers[0], &done);
    let changing = async {
        // Within each other's overlaps, longer and shorter ones.
        let (within, one_by_one) = (["3s", "4s", "2s"], ["1500ms", "1s"]);
        let mut rotations = 0;
        for names in ["ba", "b"] {
            rotations += rotate(&carillon.api, &made, &customers, &within).await;
            carillon = with_keys(carillon, names, &api).await;
            more_arrive(&customers[0]).await;
            if names.len() > 1 {
                rotations += rotate(&carillon.api, &made, &customers, &one_by_one).await;
                encrypt_again(&carillon.api).await;
            }
        }
        poll_until("enough events", async || {
            (customers[0].arrived() >= EVENTS_MIN).then_some(())
        })
        .await;
        done.store(true, Ordering::Relaxed);
        (carillon, rotations)
    };
    let (published, (carillon, rotations)) = tokio::join!(publishing, changing);
    let (mut requests, mut verified, mut refused) = (0, 0, 0);
    for (n, customer) in customers.iter().enumerate() {
        let every = if n == 2 { OF_PAIR } else { 1 };
        let expected: HashSet<_> = (0..published)
            .step_by(every)
            .map(|n| format!("e{n}"))
            .collect();
        poll_until("the last events", async || {
            (customer.arrived() >= expected.len()).then_some(())
        })
        .await;
        let arrived = customer.arrived.lock().unwrap();
        assert!(arrived.keys().all(|id| expected.contains(id)), "no others");
        requests += arrived.values().sum::<usize>();
        verified += customer.verified.load(Ordering::Relaxed);
        refused += customer.refused.load(Ordering::Relaxed);
        let faults = customer.faults.lock().unwrap();
        assert!(
            faults.is_empty(),
            "{n}: {} faults: {:?}",
            faults.len(),
            &faults[..1]
        );
    }
    eprintln!(
        "{rotations} rotations, {published} events, {requests} requests; with one secret alone \
         {verified} times verified and {refused} times rightly not"
    );
    assert!(verified > requests / 2 && refused > requests / 2);
    // Nothing is left under an older key: all is read with the last one alone.
    let listed = carillon.api.items("/v1/subscriptions").await;
    assert_eq!(listed.len(), made.len());
    drop(carillon);
}
