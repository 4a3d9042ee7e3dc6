//! Receivers in this process, one for each subscription, and what arrives at them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use carillon::cli::receiver::{Behaviour, Received, Receiver, ReceiverSettings, Reply};
use carillon::domain::id::{DeliveryId, EventId, SubscriptionId, TenantId};
use carillon::domain::signature::VerificationKey;
use http::StatusCode;
use serde_json::{Value, json};

/// Whose events all but the fan-out are.
pub const TENANT: &str = "acme";
/// How many subscriptions want each event.
pub const SUBSCRIPTIONS: usize = 4;
/// How long an answer takes, so that there is always something in flight.
const ANSWER_AFTER: Duration = Duration::from_millis(3);

/// Which delivery: the subscription's number and the `webhook-id`.
pub type Key = (usize, String);

/// What arrived of one delivery.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrived {
    /// Requests.
    pub attempts: usize,
    /// Of them, answered with 200.
    pub acknowledged: usize,
}

/// Everything that arrived.
pub type Arrivals = HashMap<Key, Arrived>;

/// The receivers of the subscriptions.
pub struct Endpoints {
    receivers: Vec<Receiver>,
    arrivals: Arc<Mutex<Arrivals>>,
}

impl Endpoints {
    /// Starts them. Of all deliveries, one in `failing` is answered with 500 the first time.
    pub async fn start(failing: u64) -> Self {
        let arrivals = Arc::<Mutex<Arrivals>>::default();
        let mut receivers = Vec::new();
        for n in 0..SUBSCRIPTIONS {
            let arrivals = Arc::clone(&arrivals);
            let answer = move |received: &Received| answer(&arrivals, n, failing, received);
            let settings = ReceiverSettings {
                keys: vec![VerificationKey::parse(&secret(n)).unwrap()],
                behaviour: Behaviour::scripted(answer),
                ..ReceiverSettings::default()
            };
            receivers.push(Receiver::start(settings).await.unwrap());
        }
        Self {
            receivers,
            arrivals,
        }
    }

    /// The subscriptions as they are declared, with their secrets.
    pub fn declared(&self) -> Vec<Value> {
        let declared = |(n, receiver): (usize, &Receiver)| {
            json!({
                "id": id(n), "tenant": TENANT, "url": format!("{}/{n}", receiver.url()),
                "secret": secret(n),
            })
        };
        self.receivers.iter().enumerate().map(declared).collect()
    }

    /// What arrived so far.
    pub fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap()
    }

    /// How many deliveries were acknowledged.
    pub fn delivered(&self) -> usize {
        let arrivals = self.arrivals();
        arrivals.values().filter(|one| one.acknowledged > 0).count()
    }

    /// Whether every request that came was answered.
    pub fn are_quiet(&self) -> bool {
        let counts = self.receivers.iter().map(Receiver::counts);
        counts.map(|counts| counts.in_flight).sum::<u64>() == 0
    }

    /// Requests whose signature was wrong.
    pub fn unverified(&self) -> u64 {
        let counts = self.receivers.iter().map(Receiver::counts);
        counts.map(|counts| counts.unverified).sum()
    }
}

fn answer(arrivals: &Mutex<Arrivals>, n: usize, failing: u64, received: &Received) -> Reply {
    assert_eq!(received.path, format!("/{n}"));
    let id = received.header("webhook-id").unwrap().to_owned();
    let fails = is_chosen(&id, failing);
    let mut arrivals = arrivals.lock().unwrap();
    let arrived = arrivals.entry((n, id)).or_default();
    arrived.attempts += 1;
    let status = if fails && arrived.attempts == 1 {
        StatusCode::INTERNAL_SERVER_ERROR
    } else {
        arrived.acknowledged += 1;
        StatusCode::OK
    };
    Reply::status(status).after(ANSWER_AFTER)
}

/// One delivery in `share`, the same ones in every run.
fn is_chosen(id: &str, share: u64) -> bool {
    let number = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let sum = id.bytes().fold(0xcbf2_9ce4_8422_2325, number);
    (sum >> 32).is_multiple_of(share)
}

/// The subscription with this number.
pub fn id(n: usize) -> String {
    format!("sub_fault{n}")
}

fn secret(n: usize) -> String {
    format!("{:02x}", n + 1).repeat(32)
}

/// The deliveries that `events` lead to.
pub fn expected(events: impl Iterator<Item = String>) -> HashSet<Key> {
    let tenant = TenantId::parse(TENANT).unwrap();
    let subscriptions: Vec<_> = (0..SUBSCRIPTIONS)
        .map(|n| SubscriptionId::parse(&id(n)).unwrap())
        .collect();
    let mut expected = HashSet::new();
    for event in events {
        let event = EventId::parse(&event).unwrap();
        for (n, subscription) in subscriptions.iter().enumerate() {
            let delivery = DeliveryId::derive(&tenant, &event, subscription);
            expected.insert((n, delivery.to_string()));
        }
    }
    expected
}
