//! Isolation: what half of a hundred endpoints see of the other half's misbehaviour.
//!
//! Run A has all of them answer after 5 ms; in each run B the odd ones misbehave. The even ones
//! are the same in all runs, and only they are measured. A comes once more at the end: what its
//! ratio is off 1 is the machine's doing.
//!
//! The metrics do not say whose deliveries were put off. One that was comes back after a second at
//! the earliest (`domain/lane.rs`): so whatever took no longer, in attempts that were all first
//! ones, was not put off. Of what took longer it is not known: a machine that is too slow for the
//! load does the same, which run A shows.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::args::{Args, Backend};
use crate::audit::{Attempts, KEEP_ALL};
use crate::endpoints::Manner;
use crate::latency::{Latencies, Latency};
use crate::pace::{Paced, pace};
use crate::publisher::Event;
use crate::report::{Report, grid};
use crate::stage::Stage;

const TENANT: &str = "bench";
const ENDPOINTS: u32 = 100;
const SECONDS: u32 = 30;
/// What is begun earlier does not count.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long events may still arrive when no more are published.
const DRAIN: Duration = Duration::from_secs(60);
const HEALTHY: Manner = Manner::Answers(Duration::from_millis(5));
/// A delivery that takes no longer was not put off.
const PUT_OFF: Duration = Duration::from_secs(1);

/// Which endpoints get an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One of them, each in its turn.
    OneEach,
    /// All.
    FanOut,
}

/// What is published.
struct Load {
    shape: Shape,
    /// Events that each endpoint gets per second.
    per_second: u32,
    /// How long.
    seconds: Duration,
}

/// What the odd endpoints do.
const MISBEHAVIOURS: [(&str, Manner); 4] = [
    ("never answers", Manner::IsSilent),
    ("answers 500 at once", Manner::Fails),
    (
        "answers 200 after 5 s",
        Manner::Answers(Duration::from_secs(5)),
    ),
    ("resets connections", Manner::Resets),
];

/// One run.
struct Run {
    name: &'static str,
    /// Of the deliveries to the healthy half.
    latencies: Latencies,
    /// Requests to the healthy half that came again.
    repeated: usize,
    /// What the audit log has of the healthy half.
    attempts: Attempts,
    /// Requests, or connections that were reset, at the other half.
    others: u64,
    /// Over all endpoints.
    deferrals: String,
    late_max: Duration,
}

/// Measures A and each B.
pub async fn measure(args: &Args, shape: Shape) -> Result<Report> {
    let load = Load {
        shape,
        per_second: args.per_second,
        seconds: args.seconds(SECONDS),
    };
    let misbehaviours = match shape {
        Shape::OneEach => &MISBEHAVIOURS[..],
        Shape::FanOut => &MISBEHAVIOURS[..1],
    };
    let mut runs = Vec::new();
    let healthy = [("is healthy too", HEALTHY)];
    let again = [("is healthy again", HEALTHY)];
    for (name, manner) in healthy.iter().chain(misbehaviours).chain(&again) {
        let run = measure_one(args.backend, &load, name, *manner).await?;
        println!("the other half {name}: p99 {}", run.p99());
        runs.push(run);
    }
    let a = runs.first().context("no run")?;
    Ok(report(&load, a, &runs))
}

async fn measure_one(
    backend: Backend,
    load: &Load,
    name: &'static str,
    misbehaviour: Manner,
) -> Result<Run> {
    let manner = |endpoint| match is_healthy(endpoint) {
        true => HEALTHY,
        false => misbehaviour,
    };
    let manners = endpoints().map(manner).collect();
    let stage = Stage::start(backend, &[KEEP_ALL], manners).await?;
    let mut subscriptions = Vec::new();
    for endpoint in endpoints() {
        let kind = load.kind(endpoint as u64);
        subscriptions.push(stage.subscribe(endpoint, TENANT, &kind, None).await?);
    }
    let begun = stage.clock.now();
    let publisher = stage.publisher().await?;
    let event = |number, sent| Event::new(TENANT, load.kind(number), number, sent);
    let (per_second, until) = (load.events_per_second(), tokio::time::sleep(load.seconds));
    let paced = pace(&publisher, stage.clock, per_second, until, event).await?;
    let wanted = load.wanted(&paced).count();
    stage.delivered(healthy_ones(), wanted, DRAIN).await;
    // Before the audit log is read, which takes its time.
    let (latencies, repeated, others) = arrived(&stage, load, &paced, begun + WARM_UP);
    let healthy = subscriptions.iter().step_by(2);
    Ok(Run {
        name,
        latencies,
        repeated,
        attempts: stage.attempts(healthy).await?,
        others: others + stage.endpoints.resets(),
        deferrals: stage.deferrals().await?,
        late_max: paced.late_max,
    })
}

fn endpoints() -> impl Iterator<Item = usize> {
    0..ENDPOINTS as usize
}

fn healthy_ones() -> impl Iterator<Item = usize> + Clone {
    (0..ENDPOINTS as usize).filter(|endpoint| is_healthy(*endpoint))
}

fn is_healthy(endpoint: usize) -> bool {
    endpoint.is_multiple_of(2)
}

/// The healthy half's latencies of what was begun after `from`, its repetitions, and the
/// requests to the other half.
fn arrived(stage: &Stage, load: &Load, paced: &Paced, from: Duration) -> (Latencies, usize, u64) {
    let now = stage.clock.now();
    let arrivals = stage.endpoints.arrivals();
    let first = arrivals.first();
    let counted = load.wanted(paced).filter(|(_, _, sent)| *sent >= from);
    let latencies = counted.map(
        |(endpoint, event, sent)| match first.get(&(endpoint, event)) {
            Some(arrival) => Latency::arrived(arrival.at.saturating_sub(arrival.sent)),
            None => Latency::missing(now - sent),
        },
    );
    let healthy = arrivals
        .all
        .iter()
        .filter(|arrival| is_healthy(arrival.endpoint));
    let healthy = healthy.count();
    let distinct = first.keys().filter(|(endpoint, _)| is_healthy(*endpoint));
    let repeated = healthy - distinct.count();
    let others = (arrivals.all.len() - healthy) as u64;
    (latencies.collect(), repeated, others)
}

impl Load {
    /// Over all endpoints.
    fn events_per_second(&self) -> u32 {
        match self.shape {
            Shape::OneEach => self.per_second * ENDPOINTS,
            Shape::FanOut => self.per_second,
        }
    }

    /// The type of an event of this number, and of the events that such an endpoint wants.
    fn kind(&self, number: u64) -> String {
        match self.shape {
            Shape::OneEach => format!("bench.endpoint-{}", number % u64::from(ENDPOINTS)),
            Shape::FanOut => "bench.all".to_owned(),
        }
    }

    /// What the healthy half is to get: endpoint, event, and when its publishing began.
    fn wanted(&self, paced: &Paced) -> impl Iterator<Item = (usize, u64, Duration)> {
        healthy_ones().flat_map(move |endpoint| {
            let (first, step) = match self.shape {
                Shape::OneEach => (endpoint, ENDPOINTS as usize),
                Shape::FanOut => (0, 1),
            };
            let events = paced.sent.iter().enumerate().skip(first).step_by(step);
            events.map(move |(event, sent)| (endpoint, event as u64, *sent))
        })
    }
}

impl Run {
    fn p99(&self) -> Latency {
        self.latencies.percentile(99)
    }

    /// How its p99 compares with that of `a`, in which all are healthy.
    fn ratio(&self, a: &Self) -> String {
        self.p99().ratio(a.p99())
    }

    fn arrived(&self) -> String {
        let (arrived, wanted) = (self.latencies.arrived(), self.latencies.count());
        format!("{arrived} of {wanted}")
    }

    /// Its line in the table of the healthy half.
    fn healthy_row(&self, a: &Self) -> [String; 10] {
        let [p50, p95, p99, max] = self.latencies.cells();
        let Attempts { kept, later } = self.attempts;
        [
            self.name.to_owned(),
            self.arrived(),
            p50,
            p95,
            p99,
            max,
            self.ratio(a),
            self.latencies.over(PUT_OFF).to_string(),
            format!("{later} of {kept}"),
            self.repeated.to_string(),
        ]
    }

    /// Its line in the table of everything else.
    fn other_row(&self) -> [String; 4] {
        [
            self.name.to_owned(),
            self.others.to_string(),
            self.deferrals.clone(),
            Latency::arrived(self.late_max).to_string(),
        ]
    }

    fn note(&self, a: &Self) -> String {
        format!(
            "the other half {}: p99 {} (B/A {}), max {}, arrived {}, over 1 s {}, not first attempts {}",
            self.name,
            self.p99(),
            self.ratio(a),
            self.latencies.percentile(100),
            self.arrived(),
            self.latencies.over(PUT_OFF),
            self.attempts.later,
        )
    }
}

fn report(load: &Load, a: &Run, runs: &[Run]) -> Report {
    let healthy = grid(
        [
            "the healthy half, while the other half",
            "arrived",
            "p50",
            "p95",
            "p99",
            "max",
            "p99, B/A",
            "over 1 s",
            "not first attempts",
            "repeated",
        ],
        runs.iter().map(|run| run.healthy_row(a)),
    );
    let others = grid(
        [
            "over all, while the other half",
            "requests to the other half",
            "deferrals by reason",
            "publishing late by at most",
        ],
        runs.iter().map(Run::other_row),
    );
    let what = match load.shape {
        Shape::OneEach => "each with events of its own",
        Shape::FanOut => "each with all events",
    };
    let per_second = load.per_second;
    Report {
        text: format!(
            "{ENDPOINTS} endpoints, {what}, {per_second}/s to each\n{healthy}\n\n{others}"
        ),
        notes: runs.iter().map(|run| run.note(a)).collect(),
    }
}
