//! The table: medians over the rounds, with the least and the most.

use comfy_table::{CellAlignment, Table, presets};

use crate::load::{EVENT_BYTES, Load};
use crate::round::{Pair, Sample};

/// Renders what was measured under `load`.
pub fn table(load: &Load, pairs: &[Pair]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header([
        &format!("{load} of {EVENT_BYTES} bytes"),
        "deliveries/s",
        "CPU s per 1,000",
        "sink CPU s per 1,000",
    ]);
    let row = |name: &str, of: fn(&Pair) -> Sample| {
        [
            name.to_owned(),
            spread(pairs, 0, |pair| of(pair).per_second),
            spread(pairs, 3, |pair| of(pair).cpu_s),
            spread(pairs, 3, |pair| of(pair).sink_cpu_s),
        ]
    };
    table.add_row(row("carillon serve", |pair| pair.carillon));
    table.add_row(row("bare client", |pair| pair.bare));
    let ratio =
        |of: fn(&Sample) -> f64| spread(pairs, 2, |pair| of(&pair.carillon) / of(&pair.bare));
    table.add_row([
        "carillon / bare client, by pairs".to_owned(),
        ratio(|sample| sample.per_second),
        ratio(|sample| sample.cpu_s),
        ratio(|sample| sample.sink_cpu_s),
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let rounds = pairs.len();
    format!(
        "{table}\nmedian (least\u{2013}most) of {rounds}\n{}",
        beside(pairs)
    )
}

/// What else is worth knowing about the dispatcher.
fn beside(pairs: &[Pair]) -> String {
    let peak_rss = spread(pairs, 0, |pair| pair.peak_rss_mib);
    let connections = spread(pairs, 0, |pair| pair.carillon.connections as f64);
    let bare = spread(pairs, 0, |pair| pair.bare.connections as f64);
    let deferrals = spread(pairs, 0, |pair| pair.metrics.deferrals);
    let dropped = spread(pairs, 0, |pair| pair.metrics.audit_dropped);
    format!(
        "carillon: peak RSS {peak_rss} MiB; connections {connections} (bare client {bare}); \
         deferrals {deferrals}; attempts missing in the audit log {dropped}"
    )
}

/// Median, least and most of what `of` says about the rounds.
fn spread(pairs: &[Pair], decimals: usize, of: impl Fn(&Pair) -> f64) -> String {
    let mut values: Vec<f64> = pairs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = match values.len() % 2 {
        1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    };
    let (least, most) = (values[0], values[values.len() - 1]);
    format!("{median:.decimals$} ({least:.decimals$}\u{2013}{most:.decimals$})")
}
