//! The series of single endpoints: only of the worst ones, and of each as long as it is one of
//! these.
//!
//! Written anew for each scrape. The counters are those of one process since it first saw the
//! endpoint, so one that was evicted and comes back goes on where it was.

use prometheus::core::{AtomicF64, GenericCounterVec};
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use super::table::{Described, Label as _, Metric, add};
use crate::domain::id::SubscriptionId;
use crate::domain::lane::{LaneState, Standing};

/// One endpoint at the time of a scrape.
#[derive(Clone, Debug)]
pub struct EndpointSample {
    /// Which.
    pub subscription: SubscriptionId,
    /// Attempts that it acknowledged.
    pub delivered: u64,
    /// Its other attempts.
    pub failed: u64,
    /// How long all of them took together.
    pub seconds: f64,
    /// Its lane; `None` without recent traffic.
    pub lane: Option<LaneState>,
}

/// The series.
pub struct EndpointSeries {
    attempts: IntCounterVec,
    seconds: GenericCounterVec<AtomicF64>,
    held: IntGaugeVec,
    window: IntGaugeVec,
    state: IntGaugeVec,
}

/// Name, type, help and labels beside `subscription`.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
);

const ATTEMPTS: Row = (
    "carillon_endpoint_attempts_total",
    "counter",
    "Attempts of this process at one of the worst endpoints.",
    &["result"],
);
const SECONDS: Row = (
    "carillon_endpoint_attempt_seconds_total",
    "counter",
    "How long these attempts took together.",
    &[],
);
const HELD: Row = (
    "carillon_endpoint_held",
    "gauge",
    "Deliveries that wait in the endpoint's lane.",
    &[],
);
const WINDOW: Row = (
    "carillon_endpoint_window",
    "gauge",
    "Requests to the endpoint that may be under way at once.",
    &[],
);
const STATE: Row = (
    "carillon_endpoint_state",
    "gauge",
    "The state that the endpoint is in: 1; of the others there is no series.",
    &["state"],
);
const SUBSCRIPTION: &str = "subscription";

fn labels(row: &Row) -> Vec<&'static str> {
    [&[SUBSCRIPTION], row.3].concat()
}

fn options((name, _, help, _): &Row) -> Opts {
    Opts::new(*name, *help)
}

impl EndpointSeries {
    /// Shows these endpoints, and no others.
    pub fn show(&self, samples: &[EndpointSample]) {
        self.attempts.reset();
        self.seconds.reset();
        self.held.reset();
        self.window.reset();
        self.state.reset();
        for sample in samples {
            let id = sample.subscription.as_str();
            for (result, count) in [("delivered", sample.delivered), ("failed", sample.failed)] {
                let counter = self.attempts.with_label_values(&[id, result]);
                counter.inc_by(count);
            }
            self.seconds.with_label_values(&[id]).inc_by(sample.seconds);
            let lane = sample.lane;
            let standing = lane.map_or(Standing::Healthy, |lane| lane.standing());
            self.state.with_label_values(&[id, standing.name()]).set(1);
            let held = lane.map_or(0, |lane| i64::try_from(lane.held).unwrap_or(i64::MAX));
            self.held.with_label_values(&[id]).set(held);
            if let Some(lane) = lane {
                let window = self.window.with_label_values(&[id]);
                window.set(i64::from(lane.window));
            }
        }
    }
}

impl Metric for EndpointSeries {
    /// It is several, each of its own type.
    const KIND: &'static str = "";

    fn described(_name: &'static str, _help: String) -> Vec<Described> {
        let described = |row: &Row| Described {
            name: row.0,
            kind: row.1,
            help: row.2.to_owned(),
            labels: labels(row)
                .into_iter()
                .map(|label| match label {
                    "result" => (label, vec!["delivered", "failed"]),
                    "state" => (
                        label,
                        Standing::all().into_iter().map(Standing::name).collect(),
                    ),
                    _ => (label, Vec::new()),
                })
                .collect(),
        };
        [ATTEMPTS, SECONDS, HELD, WINDOW, STATE]
            .iter()
            .map(described)
            .collect()
    }

    fn make(registry: &Registry, _name: &str, _help: &str) -> Result<Self, prometheus::Error> {
        let gauges = |row: &Row| add(registry, IntGaugeVec::new(options(row), &labels(row))?);
        Ok(Self {
            attempts: add(
                registry,
                IntCounterVec::new(options(&ATTEMPTS), &labels(&ATTEMPTS))?,
            )?,
            seconds: add(
                registry,
                GenericCounterVec::new(options(&SECONDS), &labels(&SECONDS))?,
            )?,
            held: gauges(&HELD)?,
            window: gauges(&WINDOW)?,
            state: gauges(&STATE)?,
        })
    }
}
