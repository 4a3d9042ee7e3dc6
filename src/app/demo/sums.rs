//! The demo's sums: what Carillon counted against what the receivers saw.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use anyhow::ensure;
use serde_json::Value;

use super::Api;
use super::cast::{Cast, Counted, PARTS, Part};

/// Everything counted, from three sides: metrics, audit log and receivers.
pub struct Sums {
    published: u64,
    events: BTreeMap<String, u64>,
    delivered: u64,
    dead: BTreeMap<String, u64>,
    attempts: u64,
    audit: Audit,
    receivers: BTreeMap<Part, Counted>,
}

/// The audit log, Test actions apart.
#[derive(Default)]
struct Audit {
    attempts: u64,
    delivered: u64,
    deliveries: HashSet<String>,
    tests: u64,
}

/// Whether everything that was published is settled, by the metrics.
pub fn is_settled(metrics: &str, published: u64) -> bool {
    let taken: u64 = series(metrics, "carillon_events_total").values().sum();
    let waiting: u64 = series(metrics, "carillon_queue_messages")
        .iter()
        .filter(|(labels, _)| {
            let queue = label(labels, "queue");
            ["events", "deliveries", "wait"].contains(&queue.as_str())
        })
        .map(|(_, value)| value)
        .sum();
    let in_flight: u64 = series(metrics, "carillon_in_flight").values().sum();
    taken >= published && waiting == 0 && in_flight == 0
}

impl Sums {
    /// Counts everything.
    ///
    /// # Errors
    /// When the API or the metrics cannot be read.
    pub async fn collect(api: &Api, cast: &Cast, published: u64) -> anyhow::Result<Self> {
        let metrics = api.metrics().await?;
        let deliveries = series(&metrics, "carillon_deliveries_total");
        let of = |result: &str| {
            let mark = format!("result=\"{result}\"");
            deliveries
                .iter()
                .filter(move |(labels, _)| labels.contains(&mark))
        };
        let dead = of("dead_lettered").filter(|(_, value)| **value > 0);
        let audit = Audit::read(api).await?;
        Ok(Self {
            published,
            events: series(&metrics, "carillon_events_total")
                .into_iter()
                .map(|(labels, value)| (label(&labels, "result"), value))
                .collect(),
            delivered: of("delivered").map(|(_, value)| value).sum(),
            dead: dead
                .map(|(labels, value)| (label(labels, "reason"), *value))
                .collect(),
            attempts: series(&metrics, "carillon_attempts_total").values().sum(),
            audit,
            receivers: cast.counts(),
        })
    }

    /// Checks that everything adds up.
    ///
    /// # Errors
    /// The first sum that does not.
    pub fn check(&self) -> anyhow::Result<()> {
        let events: u64 = self.events.values().sum();
        let dead: u64 = self.dead.values().sum();
        let audit = &self.audit;
        let received: u64 = self.receivers.values().map(|count| count.requests).sum();
        let verified: u64 = self.receivers.values().map(|count| count.verified).sum();
        let delivered = self
            .receivers
            .values()
            .map(|count| count.deliveries.len() as u64);
        let delivered: u64 = delivered.sum();
        let equal = [
            ("events published", self.published, "events counted", events),
            (
                "deliveries in the audit log",
                audit.deliveries.len() as u64,
                "delivered + dead letters",
                self.delivered + dead,
            ),
            (
                "delivered",
                self.delivered,
                "delivered in the audit log",
                audit.delivered,
            ),
            (
                "attempts",
                self.attempts - audit.tests,
                "attempts in the audit log",
                audit.attempts,
            ),
            ("attempts", audit.attempts, "requests received", received),
            (
                "deliveries received",
                delivered,
                "delivered + dead letters",
                self.delivered + dead,
            ),
            (
                "requests received",
                received,
                "signatures that verify",
                verified,
            ),
        ];
        for (one, left, other, right) in equal {
            ensure!(left == right, "{one} ({left}) and {other} ({right}) differ");
        }
        ensure!(
            self.receivers.values().any(|count| count.has_more > 0),
            "no request said has_more"
        );
        println!("\nAll sums add up, and every signature verifies.");
        Ok(())
    }
}

impl Audit {
    async fn read(api: &Api) -> anyhow::Result<Self> {
        let mut audit = Self::default();
        let mut cursor = String::new();
        loop {
            let page = api.get(&format!("/v1/attempts?limit=1000{cursor}")).await?;
            for attempt in page["items"].as_array().into_iter().flatten() {
                audit.count(attempt);
            }
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(audit),
            }
        }
    }

    fn count(&mut self, attempt: &Value) {
        if attempt["test"] == true {
            self.tests += 1;
            return;
        }
        self.attempts += 1;
        self.delivered += u64::from(attempt["outcome"] == "delivered");
        let id = attempt["delivery_id"].as_str().unwrap_or_default();
        self.deliveries.insert(id.to_owned());
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |counts: &BTreeMap<String, u64>| {
            let parts = counts.iter().filter(|(_, value)| **value > 0);
            let parts: Vec<_> = parts
                .map(|(name, value)| format!("{value} {name}"))
                .collect();
            parts.join(", ")
        };
        let dead: u64 = self.dead.values().sum();
        writeln!(
            f,
            "\n{:>9}  requests  deliveries  signatures ok",
            "receiver"
        )?;
        for part in PARTS {
            let count = self.receivers.get(part).cloned().unwrap_or_default();
            let deliveries = count.deliveries.len();
            let (requests, verified) = (count.requests, count.verified);
            writeln!(
                f,
                "{:>9}  {requests:>8}  {deliveries:>10}  {verified:>13}",
                part.name()
            )?;
        }
        writeln!(
            f,
            "\nevents      {:>4}  = {}",
            self.published,
            list(&self.events)
        )?;
        writeln!(
            f,
            "deliveries  {:>4}  = {} delivered + {dead} dead letters ({})",
            self.delivered + dead,
            self.delivered,
            list(&self.dead)
        )?;
        writeln!(
            f,
            "attempts    {:>4}  = {} acknowledged + {} failed (and {} by the Test action)",
            self.audit.attempts,
            self.audit.delivered,
            self.audit.attempts - self.audit.delivered,
            self.audit.tests
        )
    }
}

/// The series of one metric in the Prometheus text format: labels and whole value.
fn series(metrics: &str, name: &str) -> BTreeMap<String, u64> {
    let lines = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        let is_same_name = labels.is_empty() || labels.starts_with('{');
        is_same_name.then(|| Some((labels.to_owned(), value.parse().ok()?)))?
    });
    lines.collect()
}

fn label(labels: &str, name: &str) -> String {
    let start = labels
        .split_once(&format!("{name}=\""))
        .map(|(_, rest)| rest);
    let value = start.and_then(|rest| rest.split('"').next());
    value.unwrap_or_default().to_owned()
}
