//! The table: medians over the rounds, with the least and the most.

use comfy_table::Table;

use crate::audit;
use crate::grid::grid;
use crate::load::{EVENT_BYTES, Load};
use crate::production::Trio;
use crate::round::{Pair, Sample};
use crate::telemetry::{self, Case};

/// Renders what was measured under `load`, embedded.
pub fn table(load: &Load, pairs: &[Pair]) -> String {
    let row = |name: &str, of: fn(&Pair) -> Sample| {
        [
            name.to_owned(),
            spread(pairs, 0, |pair| of(pair).per_second),
            spread(pairs, 3, |pair| of(pair).cpu_s),
            spread(pairs, 3, |pair| of(pair).sink_cpu_s),
        ]
    };
    let ratio = |of: fn(&Sample) -> f64| {
        spread(pairs, 2, |pair| of(&pair.carillon.sample) / of(&pair.bare))
    };
    let table = grid(
        [
            &format!("{load} of {EVENT_BYTES} bytes"),
            "deliveries/s",
            "CPU s per 1,000",
            "sink CPU s per 1,000",
        ],
        [
            row("carillon serve", |pair| pair.carillon.sample),
            row("bare client", |pair| pair.bare),
            [
                "carillon / bare client, by pairs".to_owned(),
                ratio(|sample| sample.per_second),
                ratio(|sample| sample.cpu_s),
                ratio(|sample| sample.sink_cpu_s),
            ],
        ],
    );
    let (rounds, beside) = (pairs.len(), beside(pairs));
    format!("{table}\nmedian (least\u{2013}most) of {rounds}\n{beside}")
}

/// Renders what was measured under `load`, on RabbitMQ and Redis.
pub fn production(load: &Load, trios: &[Trio]) -> String {
    let fan_out = f64::from(load.fan_out);
    let (speed, cpu) = (speed(load, fan_out, trios), cpu(fan_out, trios));
    let pairs: Vec<Pair> = trios.iter().map(|trio| trio.pair).collect();
    let (rounds, beside) = (trios.len(), beside(&pairs));
    let commands = spread(trios, 0, |trio| trio.served.redis_commands);
    let reads = spread(trios, 0, |trio| trio.served.redis_reads);
    format!(
        "{speed}\n\n{cpu}\n\nmedian (least\u{2013}most) of {rounds}\n{beside}\n\
         redis-server, per 1,000 deliveries: {commands} commands in {reads} reads"
    )
}

/// Renders what the audit log's store did to the dispatcher under `load`.
pub fn audit(load: &Load, cases: &[audit::Case], rounds: &[audit::Round]) -> String {
    let row = |place: usize| {
        let beside = cases[..=place].iter().rposition(audit::Case::is_well);
        let beside = beside.unwrap_or_default();
        let speed = |round: &audit::Round, place: usize| round.0[place].sample.per_second;
        [
            format!("audit store {}", cases[place]),
            spread(rounds, 0, |round| speed(round, place)),
            spread(rounds, 2, |round| {
                speed(round, place) / speed(round, beside)
            }),
            spread(rounds, 0, |round| round.0[place].counts.audit_dropped),
            spread(rounds, 0, |round| round.0[place].peak_rss_mib),
        ]
    };
    let table = grid(
        [
            &format!("{load} of {EVENT_BYTES} bytes"),
            "deliveries/s",
            "beside one that is well",
            "attempts missing",
            "peak RSS MiB",
        ],
        (0..cases.len()).map(row),
    );
    let count = rounds.len();
    format!("{table}\nmedian (least\u{2013}most) of {count}")
}

/// Renders what being watched cost the dispatcher under `load`.
pub fn telemetry(load: &Load, rounds: &[telemetry::Round]) -> String {
    let row = |place: usize| {
        let of = |round: &telemetry::Round, place: usize| round.0[place].dispatched;
        [
            Case::ALL[place].to_string(),
            spread(rounds, 0, |round| of(round, place).sample.per_second),
            spread(rounds, 2, |round| {
                of(round, place).sample.per_second / of(round, 0).sample.per_second
            }),
            spread(rounds, 2, |round| {
                of(round, place).sample.cpu_s / of(round, 0).sample.cpu_s
            }),
            spread(rounds, 0, |round| of(round, place).peak_rss_mib),
            spread(rounds, 2, |round| round.0[place].spans),
        ]
    };
    let table = grid(
        [
            &format!("{load} of {EVENT_BYTES} bytes"),
            "deliveries/s",
            "beside the first",
            "CPU beside the first",
            "peak RSS MiB",
            "spans a delivery",
        ],
        (0..Case::ALL.len()).map(row),
    );
    let count = rounds.len();
    format!("{table}\nmedian (least\u{2013}most) of {count}")
}

/// How fast each was, and how many cores it kept busy, with the servers and the sink.
fn speed(load: &Load, fan_out: f64, trios: &[Trio]) -> Table {
    let none = || "-".to_owned();
    let row = |name: &str, deliveries, events, cores| [name.to_owned(), deliveries, events, cores];
    let per_second = |trio: &Trio| trio.pair.carillon.sample.per_second;
    let carillon_cores = |trio: &Trio| {
        let (sample, served) = (trio.pair.carillon.sample, trio.served);
        let cpu_s = sample.cpu_s + sample.sink_cpu_s + served.broker_cpu_s + served.redis_cpu_s;
        cpu_s * sample.per_second / 1000.0
    };
    let bare_cores = |trio: &Trio| {
        let bare = trio.pair.bare;
        (bare.cpu_s + bare.sink_cpu_s) * bare.per_second / 1000.0
    };
    let consumer_cores = |trio: &Trio| {
        let consumed = trio.consumed;
        (consumed.cpu_s + consumed.broker_cpu_s) * consumed.per_second / 1000.0
    };
    grid(
        [
            &format!("{load} of {EVENT_BYTES} bytes"),
            "deliveries/s",
            "events/s",
            "cores busy",
        ],
        [
            row(
                "carillon serve",
                spread(trios, 0, per_second),
                spread(trios, 0, |trio| per_second(trio) / fan_out),
                spread(trios, 2, carillon_cores),
            ),
            row(
                "bare client",
                spread(trios, 0, |trio| trio.pair.bare.per_second),
                none(),
                spread(trios, 2, bare_cores),
            ),
            row(
                "bare consumer",
                none(),
                spread(trios, 0, |trio| trio.consumed.per_second),
                spread(trios, 2, consumer_cores),
            ),
            row(
                "carillon / bare client, by rounds",
                spread(trios, 2, |trio| {
                    per_second(trio) / trio.pair.bare.per_second
                }),
                none(),
                none(),
            ),
            row(
                "carillon / bare consumer, by rounds",
                none(),
                spread(trios, 3, |trio| {
                    per_second(trio) / fan_out / trio.consumed.per_second
                }),
                none(),
            ),
        ],
    )
}

/// Who used how much time.
fn cpu(fan_out: f64, trios: &[Trio]) -> Table {
    let none = || "-".to_owned();
    let spread = |of: fn(&Trio) -> f64| spread(trios, 3, of);
    let events = match fan_out {
        1.0 => "bare consumer".to_owned(),
        _ => "bare consumer (per 1,000 events)".to_owned(),
    };
    grid(
        [
            "CPU s per 1,000 deliveries",
            "itself",
            "beam.smp",
            "redis-server",
            "sink",
        ],
        [
            [
                "carillon serve".to_owned(),
                spread(|trio| trio.pair.carillon.sample.cpu_s),
                spread(|trio| trio.served.broker_cpu_s),
                spread(|trio| trio.served.redis_cpu_s),
                spread(|trio| trio.pair.carillon.sample.sink_cpu_s),
            ],
            [
                "bare client".to_owned(),
                spread(|trio| trio.pair.bare.cpu_s),
                none(),
                none(),
                spread(|trio| trio.pair.bare.sink_cpu_s),
            ],
            [
                events,
                spread(|trio| trio.consumed.cpu_s),
                spread(|trio| trio.consumed.broker_cpu_s),
                none(),
                none(),
            ],
        ],
    )
}

/// What else is worth knowing about the dispatcher.
fn beside(pairs: &[Pair]) -> String {
    let peak_rss = spread(pairs, 0, |pair| pair.carillon.peak_rss_mib);
    let connections = spread(pairs, 0, |pair| pair.carillon.sample.connections as f64);
    let bare = spread(pairs, 0, |pair| pair.bare.connections as f64);
    let deferrals = spread(pairs, 0, |pair| pair.carillon.counts.deferrals);
    let dropped = spread(pairs, 0, |pair| pair.carillon.counts.audit_dropped);
    format!(
        "carillon: peak RSS {peak_rss} MiB; connections {connections} (bare client {bare}); \
         deferrals {deferrals}; attempts missing in the audit log {dropped}"
    )
}

/// Median, least and most of what `of` says about the rounds.
fn spread<R>(rounds: &[R], decimals: usize, of: impl Fn(&R) -> f64) -> String {
    let mut values: Vec<f64> = rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = match values.len() % 2 {
        1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    };
    let (least, most) = (values[0], values[values.len() - 1]);
    format!("{median:.decimals$} ({least:.decimals$}\u{2013}{most:.decimals$})")
}
