//! The rate of one endpoint: whether all replicas together keep to it, and whether they use it.
//!
//! Every request counts, also a repeated one. What is looked at is the time at which a request
//! was read, so a request that was held up on the way comes closer to those behind it. An excess
//! is therefore also told as the time that would explain it.

use std::cell::Cell;
use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::args::{Args, Backend};
use crate::arrivals::Arrival;
use crate::audit::{Attempts, KEEP_ALL};
use crate::endpoints::Manner;
use crate::pace::flood;
use crate::publisher::Event;
use crate::report::{Report, facts};
use crate::stage::Stage;
use crate::window::Rate;

const TENANT: &str = "bench";
const KIND: &str = "bench.rate";
const RATE: Rate = Rate {
    per_second: 20,
    burst: 5,
};
const EVENTS: u32 = 2000;
/// Dispatchers on the same servers.
const REPLICAS: u32 = 3;
/// How long Redis is down.
const OUTAGE: Duration = Duration::from_secs(30);
/// How long it may take beyond twice the time that the rate gives it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long repetitions are waited for when all have arrived.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// What happens to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redis {
    /// Nothing.
    Stays,
    /// It ends in order when half has arrived, and comes back.
    Stops,
}

/// What came of it.
struct Outcome {
    replicas: u32,
    events: u32,
    /// One at least.
    arrivals: Vec<Arrival>,
    attempts: Attempts,
    deferrals: String,
    /// When Redis was down.
    outage: Option<(Duration, Duration)>,
}

/// Measures one run.
pub async fn measure(args: &Args, redis: Redis) -> Result<Report> {
    ensure!(
        redis == Redis::Stays || args.backend == Backend::Production,
        "there is no Redis with this backend"
    );
    let events = args.events(EVENTS);
    let mut stage = Stage::start(
        args.backend,
        &[KEEP_ALL],
        vec![Manner::Answers(Duration::ZERO)],
    )
    .await?;
    let subscription = stage.subscribe(0, TENANT, KIND, Some(RATE)).await?;
    let replicas = match args.backend {
        Backend::Embedded => 1,
        Backend::Production => REPLICAS,
    };
    for _ in 1..replicas {
        stage.add_dispatcher().await?;
    }
    let publisher = stage.publisher().await?;
    let event = |number, sent| Event::new(TENANT, KIND.to_owned(), number, sent);
    flood(&publisher, stage.clock, events, &Cell::new(0), event).await?;
    let limit = RATE.time_for(2 * events) + PATIENCE;
    let outage = match redis {
        Redis::Stays => None,
        Redis::Stops => {
            stage.delivered(0..1, events as usize / 2, limit).await;
            Some(stop_redis(&mut stage).await?)
        }
    };
    let all_came = stage.delivered(0..1, events as usize, limit).await;
    tokio::time::sleep(AFTERWARDS).await;
    let arrivals = stage.endpoints.arrivals().all.clone();
    ensure!(!arrivals.is_empty(), "nothing arrived");
    let outcome = Outcome {
        replicas,
        events,
        arrivals,
        attempts: stage.attempts([&subscription]).await?,
        deferrals: stage.deferrals().await?,
        outage,
    };
    if !all_came {
        println!("gave up waiting for the rest after {limit:?}");
    }
    Ok(outcome.report())
}

/// Stops Redis and starts it again; when it was down.
async fn stop_redis(stage: &mut Stage) -> Result<(Duration, Duration)> {
    let clock = stage.clock;
    let servers = stage.servers.as_mut();
    let redis = &mut servers.context("Redis was not started")?.redis;
    let from = clock.now();
    redis.ask("stop", &[])?;
    tokio::time::sleep(OUTAGE).await;
    let to = clock.now();
    redis.ask("start", &[])?;
    Ok((from, to))
}

impl Outcome {
    fn times(&self) -> Vec<Duration> {
        self.arrivals.iter().map(|arrival| arrival.at).collect()
    }

    fn distinct(&self) -> usize {
        let deliveries = self.arrivals.iter().map(|arrival| &*arrival.delivery);
        deliveries.collect::<HashSet<&str>>().len()
    }

    fn repeated(&self) -> usize {
        self.arrivals.len() - self.distinct()
    }

    /// From the first request to the last, and how that compares with the rate.
    fn drain(&self) -> String {
        let times = self.times();
        let took = (times[times.len() - 1] - times[0]).as_secs_f64();
        let percent = RATE.time_for(self.events).as_secs_f64() / took * 100.0;
        format!("{took:.1} s, {percent:.0} % of the rate")
    }

    /// Requests in each tenth of the time.
    fn tenths(&self) -> String {
        let times = self.times();
        let first = times[0];
        let tenth = (times[times.len() - 1] - first) / 10;
        let mut counts = [0; 10];
        for at in times {
            let place = (at - first).as_secs_f64() / tenth.as_secs_f64().max(1e-9);
            counts[(place as usize).min(9)] += 1;
        }
        counts.map(|count: u32| count.to_string()).join(" ")
    }

    /// The longest time between two requests.
    fn gap(&self) -> String {
        let times = self.times();
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        format!("{:.2} s", gaps.max().unwrap_or_default().as_secs_f64())
    }

    fn windows(&self) -> String {
        let times = self.times();
        let worst = RATE.worst_window(&times);
        worst.map_or_else(|| "too few".to_owned(), |worst| worst.tell(times[0]))
    }

    /// When Redis was down, and what came meanwhile.
    fn redis_was_down(&self) -> Option<String> {
        let (from, to) = self.outage?;
        let times = self.times();
        let during = times.iter().filter(|at| (from..to).contains(*at)).count();
        let since = |at: Duration| at.saturating_sub(times[0]).as_secs_f64();
        let (from, to) = (since(from), since(to));
        Some(format!(
            "{from:.1} s to {to:.1} s; {during} requests meanwhile"
        ))
    }

    fn report(&self) -> Report {
        let Rate { per_second, burst } = RATE;
        let title = format!("{per_second}/s, burst {burst}");
        let Attempts { kept, later } = self.attempts;
        let mut rows = vec![
            ("replicas", self.replicas.to_string()),
            ("events", self.events.to_string()),
            ("requests", self.arrivals.len().to_string()),
            ("different webhook-ids", self.distinct().to_string()),
            ("repeated requests", self.repeated().to_string()),
            (
                "not first attempts, in the audit log",
                format!("{later} of {kept}"),
            ),
            ("from the first to the last", self.drain()),
            ("in each tenth of it", self.tenths()),
            ("longest without a request", self.gap()),
            ("windows", self.windows()),
            ("deferrals", self.deferrals.clone()),
        ];
        rows.extend(self.redis_was_down().map(|told| ("Redis was down", told)));
        let came = format!(
            "{} events: {}; {} different webhook-ids, {} repeated, not first attempts {later}",
            self.events,
            self.drain(),
            self.distinct(),
            self.repeated(),
        );
        let mut notes = vec![
            format!("{title}, replicas {}: {}", self.replicas, self.windows()),
            came,
        ];
        notes.extend(
            self.redis_was_down()
                .map(|told| format!("Redis was down: {told}")),
        );
        Report {
            text: facts(&title, rows).to_string(),
            notes,
        }
    }
}
