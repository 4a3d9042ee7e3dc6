//! Fairness: what a quiet tenant sees of another one's flood.
//!
//! Tenant B publishes ten events a second all the time, first alone, then beside A, which publishes
//! as fast as it is taken. Both have one endpoint. The flood is over when its last event is
//! delivered, or when it has been watched long enough; B's events count until then, and those that
//! are still under way are waited for.

use std::cell::Cell;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::Notify;

use crate::args::{Args, Backend};
use crate::arrivals::Arrival;
use crate::endpoints::Manner;
use crate::latency::{Latencies, Latency};
use crate::pace::{flood, pace};
use crate::publisher::Event;
use crate::report::{Report, grid};
use crate::stage::Stage;

/// The endpoints, and the tenants that they belong to.
const A: usize = 0;
const B: usize = 1;
const TENANTS: [&str; 2] = ["tenant-a", "tenant-b"];
const KIND: &str = "bench.fairness";
const EVENTS: u32 = 100_000;
/// What B publishes.
const PER_SECOND: u32 = 10;
/// How long A is watched at most.
const SECONDS: u32 = 120;
/// How long B is alone, after it has warmed up.
const ALONE: Duration = Duration::from_secs(15);
const WARM_UP: Duration = Duration::from_secs(2);
/// How long B's events may still arrive when no more are published.
const DRAIN: Duration = Duration::from_secs(60);

/// How A's endpoint answers.
const VARIANTS: [(&str, Duration); 2] = [
    ("A answers at once", Duration::ZERO),
    ("A answers after 50 ms", Duration::from_millis(50)),
];

/// One run.
struct Run {
    name: &'static str,
    /// Of B's events.
    alone: Latencies,
    beside: Latencies,
    flood: Flood,
    deferrals: String,
    late_max: Duration,
}

/// What A did.
struct Flood {
    /// Events that were taken.
    taken: u64,
    /// How long that took.
    intake: Duration,
    /// Events that were delivered.
    delivered: usize,
    begun: Duration,
    ended: Duration,
}

/// Measures both variants.
pub async fn measure(args: &Args) -> Result<Report> {
    let (events, limit) = (args.events(EVENTS), args.seconds(SECONDS));
    let mut runs = Vec::new();
    for (name, delay) in VARIANTS {
        let run = measure_one(args.backend, events, limit, name, delay).await?;
        let (alone, beside) = (run.alone.percentile(99), run.beside.percentile(99));
        println!("{name}: p99 of B {alone} alone, {beside} beside A");
        runs.push(run);
    }
    Ok(report(&runs))
}

async fn measure_one(
    backend: Backend,
    events: u32,
    limit: Duration,
    name: &'static str,
    delay: Duration,
) -> Result<Run> {
    let manners = vec![Manner::Answers(delay), Manner::Answers(Duration::ZERO)];
    let stage = Stage::start(backend, &[], manners).await?;
    for endpoint in [A, B] {
        stage
            .subscribe(endpoint, TENANTS[endpoint], KIND, None)
            .await?;
    }
    let begun = stage.clock.now();
    let quiet = stage.publisher().await?;
    let event = |number, sent| Event::new(TENANTS[B], KIND.to_owned(), number, sent);
    let is_over = Notify::new();
    let flooding = async {
        tokio::time::sleep(WARM_UP + ALONE).await;
        let flood = measure_flood(&stage, events, limit).await;
        is_over.notify_one();
        flood
    };
    let pacing = pace(&quiet, stage.clock, PER_SECOND, is_over.notified(), event);
    let (paced, flood) = tokio::try_join!(pacing, flooding)?;
    stage.delivered(B..B + 1, paced.sent.len(), DRAIN).await;
    let latencies = |from: Duration, to: Duration| {
        let now = stage.clock.now();
        let arrivals = stage.endpoints.arrivals();
        let first = arrivals.first();
        let sent = paced.sent.iter().enumerate();
        let counted = sent.filter(|(_, sent)| (from..to).contains(*sent));
        let latency = |(event, sent): (usize, &Duration)| match first.get(&(B, event as u64)) {
            Some(arrival) => Latency::arrived(arrival.at.saturating_sub(arrival.sent)),
            None => Latency::missing(now - *sent),
        };
        counted.map(latency).collect::<Latencies>()
    };
    Ok(Run {
        name,
        alone: latencies(begun + WARM_UP, flood.begun),
        beside: latencies(flood.begun, flood.ended),
        deferrals: stage.deferrals().await?,
        late_max: paced.late_max,
        flood,
    })
}

/// Publishes all of A's events, and waits for them, but not longer than `limit`.
async fn measure_flood(stage: &Stage, events: u32, limit: Duration) -> Result<Flood> {
    let publisher = stage.publisher().await?;
    let event = |number, sent| Event::new(TENANTS[A], KIND.to_owned(), number, sent);
    let (clock, taken) = (stage.clock, Cell::new(0));
    let begun = clock.now();
    let taken_at = Cell::new(None);
    let all = async {
        flood(&publisher, clock, events, &taken, event).await?;
        taken_at.set(Some(clock.now()));
        stage.delivered(A..A + 1, events as usize, limit).await;
        Ok(())
    };
    let all = tokio::time::timeout(limit, all).await;
    all.unwrap_or(Ok::<(), anyhow::Error>(()))?;
    let last = |arrivals: &[Arrival]| {
        let mut last = arrivals.iter().rev();
        last.find(|arrival| arrival.endpoint == A)
            .map(|arrival| arrival.at)
    };
    let arrivals = stage.endpoints.arrivals();
    let delivered = arrivals.delivered(A);
    let ended = match delivered >= events as usize {
        true => last(&arrivals.all).unwrap_or(begun),
        false => clock.now(),
    };
    Ok(Flood {
        taken: taken.get(),
        intake: taken_at.get().unwrap_or(ended) - begun,
        delivered,
        begun,
        ended,
    })
}

impl Run {
    /// How B's p99 beside A compares with that alone.
    fn ratio(&self) -> String {
        self.beside.percentile(99).ratio(self.alone.percentile(99))
    }

    /// The lines of the table about B.
    fn quiet_rows(&self) -> [[String; 7]; 2] {
        let row = |name: &str, latencies: &Latencies, ratio: String| {
            let [p50, p95, p99, max] = latencies.cells();
            let arrived = format!("{} of {}", latencies.arrived(), latencies.count());
            let name = format!("{}: B {name}", self.name);
            [name, arrived, p50, p95, p99, max, ratio]
        };
        [
            row("alone", &self.alone, "-".to_owned()),
            row("beside A", &self.beside, self.ratio()),
        ]
    }

    /// The line of the table about A.
    fn flood_row(&self) -> [String; 6] {
        let flood = &self.flood;
        let (taken, delivered) = (flood.taken, flood.delivered);
        [
            self.name.to_owned(),
            format!("{taken} at {:.0}/s", flood.taken_per_second()),
            format!("{delivered} at {:.0}/s", flood.delivered_per_second()),
            format!("{:.1} s", flood.took().as_secs_f64()),
            self.deferrals.clone(),
            Latency::arrived(self.late_max).to_string(),
        ]
    }

    fn note(&self) -> String {
        let [_, b] = self.quiet_rows();
        let [_, arrived, _, _, p99, max, ratio] = b;
        let [_, taken, delivered, took, ..] = self.flood_row();
        let (name, alone) = (self.name, self.alone.percentile(99));
        format!(
            "{name}: p99 of B {alone} alone, {p99} beside A (ratio {ratio}), max {max}, arrived {arrived}; \
             A within {took}: taken {taken}, delivered {delivered}"
        )
    }
}

fn report(runs: &[Run]) -> Report {
    let quiet = grid(
        ["", "arrived", "p50", "p95", "p99", "max", "p99, ratio"],
        runs.iter().flat_map(Run::quiet_rows),
    );
    let flood = grid(
        [
            "",
            "A's taken",
            "A's delivered",
            "watched for",
            "deferrals",
            "B's publishing late by at most",
        ],
        runs.iter().map(Run::flood_row),
    );
    Report {
        text: format!("{quiet}\n\n{flood}"),
        notes: runs.iter().map(Run::note).collect(),
    }
}

impl Flood {
    fn took(&self) -> Duration {
        self.ended - self.begun
    }

    fn taken_per_second(&self) -> f64 {
        self.taken as f64 / self.intake.as_secs_f64()
    }

    fn delivered_per_second(&self) -> f64 {
        self.delivered as f64 / self.took().as_secs_f64()
    }
}
