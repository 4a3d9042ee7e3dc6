//! The herd: everything comes at once to an endpoint that fails for a while.
//!
//! What returns, and what was held back, is to come at the endpoint's rate, not all together
//! when it has recovered.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::Instant;

use crate::args::Args;
use crate::arrivals::Arrival;
use crate::endpoints::Manner;
use crate::pace::flood;
use crate::publisher::Event;
use crate::report::{Report, grid};
use crate::stage::Stage;
use crate::window::Rate;

const TENANT: &str = "bench";
const KIND: &str = "bench.herd";
/// The default of `delivery.rate_limit`.
const RATE: Rate = Rate {
    per_second: 100,
    burst: 200,
};
const EVENTS: u32 = 5000;
const MANNER: Manner = Manner::Recovers {
    failing: Duration::from_secs(10),
    answers: Duration::from_millis(5),
};
const RETRY: [(&str, &str); 3] = [
    ("CARILLON_RETRY__INITIAL", "2s"),
    ("CARILLON_RETRY__MAX", "30s"),
    ("CARILLON_RETRY__MAX_ATTEMPTS", "20"),
];
/// How long it may take beyond thrice the time that the rate gives it.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is seen whether all is settled.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What counts deliveries that were given up.
const DEAD: &str = r#"carillon_deliveries_total{reason="exhausted",result="dead_lettered"}"#;

/// What arrived within one second.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    arrivals: u32,
    failed: u32,
    /// Requests under way at once, at most.
    concurrent_max: u32,
}

/// Measures one run.
pub async fn measure(args: &Args) -> Result<Report> {
    let events = args.events(EVENTS);
    let stage = Stage::start(args.backend, &RETRY, vec![MANNER]).await?;
    stage.subscribe(0, TENANT, KIND, Some(RATE)).await?;
    let publisher = stage.publisher().await?;
    let event = |number, sent| Event::new(TENANT, KIND.to_owned(), number, sent);
    flood(&publisher, stage.clock, events, &Cell::new(0), event).await?;
    let give_up_at = Instant::now() + RATE.time_for(3 * events) + PATIENCE;
    let dead = loop {
        let dead = stage.sum(DEAD).await?;
        let delivered = stage.endpoints.arrivals().delivered(0);
        if delivered as f64 + dead >= f64::from(events) {
            break dead;
        }
        if Instant::now() >= give_up_at {
            println!("gave up: {delivered} of {events} delivered, {dead} dead-lettered");
            break dead;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let deferrals = stage.deferrals().await?;
    let arrivals = stage.endpoints.arrivals();
    ensure!(!arrivals.all.is_empty(), "nothing arrived");
    Ok(report(
        &arrivals.all,
        arrivals.delivered(0),
        events,
        dead,
        &deferrals,
    ))
}

fn report(
    arrivals: &[Arrival],
    delivered: usize,
    events: u32,
    dead: f64,
    deferrals: &str,
) -> Report {
    let begun = arrivals[0].at;
    let seconds = by_second(arrivals, begun);
    let most = RATE.per_second + RATE.burst;
    let rows = seconds.iter().map(|(second, counted)| {
        let above = if counted.arrivals > most { "above" } else { "" };
        [
            second.to_string(),
            counted.arrivals.to_string(),
            counted.failed.to_string(),
            counted.concurrent_max.to_string(),
            above.to_owned(),
        ]
    });
    let above = seconds
        .values()
        .filter(|counted| counted.arrivals > most)
        .count();
    let busiest = seconds.values().map(|counted| counted.arrivals).max();
    let busiest = busiest.unwrap_or_default();
    let failed = arrivals
        .iter()
        .filter(|arrival| !arrival.acknowledged)
        .count();
    let acknowledged = arrivals.iter().filter(|arrival| arrival.acknowledged);
    let last = acknowledged
        .map(|arrival| arrival.at)
        .max()
        .unwrap_or(begun);
    let took = (last - begun).as_secs_f64();
    let times: Vec<Duration> = arrivals.iter().map(|arrival| arrival.at).collect();
    let window = RATE.worst_window(&times);
    let window = window.map_or_else(|| "too few".to_owned(), |window| window.tell(begun));
    let header = [
        "second",
        "arrivals",
        "of them 500",
        "concurrent, max",
        "rate + burst",
    ];
    let facts = [
        format!(
            "{delivered} of {events} delivered after {took:.1} s, {failed} requests failed, {dead} dead-lettered"
        ),
        format!("busiest second {busiest}, seconds above rate + burst ({most}): {above}; {window}"),
        format!("deferrals: {deferrals}"),
    ];
    Report {
        text: format!("{}\n\n{}", grid(header, rows), facts.join("\n")),
        notes: facts.to_vec(),
    }
}

fn by_second(arrivals: &[Arrival], begun: Duration) -> BTreeMap<u64, Second> {
    let second = |at: Duration| at.saturating_sub(begun).as_secs();
    let mut seconds = BTreeMap::<u64, Second>::new();
    for arrival in arrivals {
        let counted = seconds.entry(second(arrival.at)).or_default();
        counted.arrivals += 1;
        counted.failed += u32::from(!arrival.acknowledged);
    }
    // What changes how many are under way; at one time, what begins comes before what ends.
    let begins = arrivals.iter().map(|arrival| (arrival.at, false));
    let ends = arrivals.iter().map(|arrival| (arrival.answered_at, true));
    let mut changes: Vec<(Duration, bool)> = begins.chain(ends).collect();
    changes.sort_unstable();
    let mut under_way = 0;
    for (at, ends) in changes {
        if ends {
            under_way -= 1;
        } else {
            under_way += 1;
            let counted = seconds.entry(second(at)).or_default();
            counted.concurrent_max = counted.concurrent_max.max(under_way);
        }
    }
    seconds
}
