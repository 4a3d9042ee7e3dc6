//! The cast: the demo's receivers, what each is like, and what each has seen.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use crate::cli::receiver::{Received, Reply, Verdicts, signed_headers};
use crate::domain::event::TEST_TYPE;
use crate::domain::signature::VerificationKey;

/// One receiver and its subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Leicbit format, over HTTPS.
    Leicbit,
    /// Takes everything at once.
    Steady,
    /// Takes everything, signed with Ed25519.
    Keypair,
    /// Fails three times, then works.
    Recovers,
    /// Answers 410.
    Gone,
    /// Never works.
    Broken,
    /// Takes its time.
    Slow,
    /// Wants few requests a second.
    Limited,
    /// Wants only some events.
    Filtered,
    /// Wants only some alerts of a lookup.
    Alerts,
}

/// All of them.
pub const PARTS: &[Part] = &[
    Part::Leicbit,
    Part::Steady,
    Part::Keypair,
    Part::Recovers,
    Part::Gone,
    Part::Broken,
    Part::Slow,
    Part::Limited,
    Part::Filtered,
    Part::Alerts,
];

/// What the receivers know and have seen.
#[derive(Default)]
pub struct Cast {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    subscriptions: HashMap<Part, (String, VerificationKey)>,
    counts: BTreeMap<Part, Counted>,
    attempts: HashMap<String, u32>,
}

/// What one receiver has seen, Test actions apart.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Requests.
    pub requests: u64,
    /// Deliveries, each counted once.
    pub deliveries: HashSet<String>,
    /// Signatures that fit.
    pub verified: u64,
    /// Signatures that do not.
    pub forged: u64,
    /// Requests that said there is more.
    pub has_more: u64,
    /// Requests of the Test action.
    pub tests: u64,
}

impl Part {
    /// The last segment of its URL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Leicbit => "leicbit",
            Self::Steady => "steady",
            Self::Keypair => "keypair",
            Self::Recovers => "recovers",
            Self::Gone => "gone",
            Self::Broken => "broken",
            Self::Slow => "slow",
            Self::Limited => "limited",
            Self::Filtered => "filtered",
            Self::Alerts => "alerts",
        }
    }

    /// What it shows.
    pub fn what(self) -> &'static str {
        match self {
            Self::Leicbit => "Leicbit format, HTTPS, X-Leicbit-Signature",
            Self::Steady => "takes everything at once",
            Self::Keypair => "signed with Ed25519 (v1a)",
            Self::Recovers => "fails three times, then works",
            Self::Gone => "answers 410: dead-lettered, disabled",
            Self::Broken => "always 500: dead-lettered after 3 attempts",
            Self::Slow => "takes 1.2 s for each",
            Self::Limited => "5 requests a second, 2 at once",
            Self::Filtered => "only alerts of high severity",
            Self::Alerts => "lookup alerts with a risk of 60 or more",
        }
    }

    /// Whether it speaks HTTPS.
    pub fn https(self) -> bool {
        self == Self::Leicbit
    }

    /// Its subscription, but tenant and URL.
    pub fn document(self) -> Value {
        let retry = json!({"initial_ms": 250, "multiplier": 2, "max_ms": 2000, "max_attempts": 6});
        match self {
            Self::Leicbit => json!({"format": "leicbit", "event_types": [
                "credential_theft_detected", "domain_compromise_suspected",
                "monitoring_started", "threat_resolved",
            ]}),
            Self::Steady => json!({}),
            Self::Keypair => json!({"signing": "ed25519", "event_types": ["threat_resolved"]}),
            Self::Recovers => json!({"event_types": ["monitoring_started"], "retry": retry}),
            Self::Gone => json!({"event_types": ["domain_compromise_suspected"]}),
            Self::Broken => json!({
                "event_types": ["threat_resolved"],
                "retry": {"initial_ms": 250, "max_ms": 500, "max_attempts": 3},
            }),
            Self::Slow => json!({"event_types": ["lookup_result.*"]}),
            Self::Limited => json!({
                "event_types": ["credential_theft_detected"],
                "rate_limit": {"per_second": 5, "burst": 2},
            }),
            Self::Filtered => json!({"filter": {"data": {"alert": {"severity": ["high"]}}}}),
            Self::Alerts => json!({"filter": {
                "type": ["lookup_result.alerts"],
                "data": {"alerts": {"result": {"risk": [{"numeric": [">=", 60]}]}}},
            }}),
        }
    }

    fn of_path(path: &str) -> Option<Self> {
        let name = path.trim_start_matches('/');
        PARTS.iter().copied().find(|part| part.name() == name)
    }
}

impl Cast {
    /// `part` has a subscription now.
    pub fn subscribed(&self, part: Part, id: &str, key: VerificationKey) {
        let mut seen = self.seen();
        seen.subscriptions.insert(part, (id.to_owned(), key));
        seen.counts.insert(part, Counted::default());
    }

    /// The subscription of `part`.
    pub fn id_of(&self, part: Part) -> Option<String> {
        let seen = self.seen();
        seen.subscriptions.get(&part).map(|(id, _)| id.clone())
    }

    /// What each receiver has seen so far.
    pub fn counts(&self) -> BTreeMap<Part, Counted> {
        self.seen().counts.clone()
    }

    /// How a request is answered.
    pub fn answer(&self, received: &Received) -> Reply {
        let Some(part) = Part::of_path(&received.path) else {
            return Reply::status(StatusCode::NOT_FOUND);
        };
        match part {
            Part::Gone => Reply::status(StatusCode::GONE),
            Part::Broken => Reply {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                body: Bytes::from_static(b"out of order"),
                ..Reply::default()
            },
            Part::Recovers => Reply::status(match self.attempt_of(received) {
                1..=3 => StatusCode::BAD_GATEWAY,
                _ => StatusCode::OK,
            }),
            Part::Slow => Reply::status(StatusCode::OK).after(Duration::from_millis(1200)),
            _ => Reply::status(StatusCode::OK),
        }
    }

    /// Which attempt this request is, counting it.
    fn attempt_of(&self, received: &Received) -> u32 {
        let id = received.header("webhook-id").unwrap_or_default();
        let mut seen = self.seen();
        let attempt = seen.attempts.entry(id.to_owned()).or_default();
        *attempt += 1;
        *attempt
    }

    /// Checks and counts a request; returns the line that tells of it.
    pub fn note(&self, received: &Received, answer: StatusCode) -> Option<String> {
        let part = Part::of_path(&received.path)?;
        let mut seen = self.seen();
        let (_, key) = seen.subscriptions.get(&part)?;
        let verdicts = Verdicts::check(
            std::slice::from_ref(key),
            &signed_headers(&received.headers),
            &received.body,
            received.at,
            300,
        );
        let is_verified = verdicts.verified() == Some(true)
            && (part != Part::Leicbit || verdicts.leicbit == Some(Ok(())));
        let body: Value = serde_json::from_slice(&received.body).unwrap_or_default();
        let kind = body.get("type").or(body.get("event_type"));
        let kind = kind.and_then(Value::as_str).unwrap_or("?").to_owned();
        let count = seen.counts.entry(part).or_default();
        if kind == TEST_TYPE {
            count.tests += 1;
            return None;
        }
        count.requests += 1;
        if is_verified {
            count.verified += 1;
        } else {
            count.forged += 1;
        }
        let has_more = received.header("x-webhook-has-more") == Some("true");
        count.has_more += u64::from(has_more);
        let id = received.header("webhook-id").unwrap_or_default().to_owned();
        let is_resend = !count.deliveries.insert(id);
        let alerts = alerts_of(&body);
        Some(format!(
            "{:<9} ← {kind:<28} signature {}  answers {}{}{alerts}",
            part.name(),
            if is_verified { "ok" } else { "WRONG" },
            answer.as_u16(),
            if is_resend { "  (again)" } else { "" },
        ))
    }

    /// One line for each receiver.
    pub fn table(&self) -> Vec<(&'static str, String)> {
        let seen = self.seen();
        let row = |part: &Part| {
            let count = seen.counts.get(part).cloned().unwrap_or_default();
            let text = format!(
                "{:>3} requests  {:>3} deliveries  {:>3} signatures ok   {}",
                count.requests,
                count.deliveries.len(),
                count.verified,
                part.what()
            );
            (part.name(), text)
        };
        PARTS.iter().map(row).collect()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many alerts a lookup's body has.
fn alerts_of(body: &Value) -> String {
    match body.pointer("/data/total") {
        Some(total) => format!(
            "  {} of {total} alerts, has_more {}",
            body["data"]["count"], body["data"]["has_more"]
        ),
        None => String::new(),
    }
}
