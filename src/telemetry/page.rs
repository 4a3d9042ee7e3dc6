//! `docs/metrics.md`: the reference of all metrics, made from their table.

use std::fmt::Write as _;

use super::metrics::Metrics;
use super::table::Described;

const INTRODUCTION: &str = "\
# Metrics

<!-- Made by `carillon metrics > docs/metrics.md`; edit src/telemetry/metrics.rs. -->

`GET /metrics` on the operations listener (`ops.listen`, `127.0.0.1:9464`) answers in the Prometheus
text format. Each replica tells of itself, but for `carillon_queue_messages` and
`carillon_accounted_deliveries_total`, which are the same for all: take `max by (queue)` or
`max by (account)` of those, and `sum` of the others.

No label takes a URL, a tenant or an id, but for `carillon_endpoint_*`: series of the worst endpoints,
of at most `telemetry.endpoint_series` in each replica (default 50; 0 for none), some six of each. Of those
with attempts within the last hour (5,000 at most), the worst are those that are paused, open or throttled,
then those with the most failures, then those that took the most time; who is not among them any more has
no series. Beside what is here there is `process_*`
(CPU, memory, file handles, threads, start time).
";

const BOOKS: &str = "
## Do the books balance?

Every accepted event leads to a delivery for each matching subscription, and each of those ends
delivered or dead-lettered, or waits. `carillon_accounted_deliveries_total` counts how many began and how they
ended in the store itself, over all replicas and restarts, and the queues tell how many wait:

```
begun - delivered - dead_lettered - quarantined
  = carillon_queue_messages{queue=~\"deliveries|wait\"} + sum(carillon_in_flight{stage=\"deliveries\"})
```

The parts are read at different moments, so under load they differ for a while. A difference that
stays and is positive means deliveries that are nowhere: purged from a queue by hand, say, or in a queue
that lost its data. A negative one means that some wait or were sent twice.

*Not exact*:

- A replica that is killed takes with it what it counted in its last second.
- What RabbitMQ itself moves to quarantine, because it was handed out a hundred times without being settled, is in no
  account; nor is what another client holds unsettled in any queue.
- In a file, a delivery that begins again while an earlier one of the same event and subscription waits (published again after
  `dedup.window`, or redriven) takes its place: two began, and one ends.
- A Redis that loses its last writes loses counts too; one that loses all begins anew; one that evicts keys with an
  expiry may count a replica twice.
- While replicas of a version without these accounts run beside others, what one began another may end; and what waited before
  is not in them. So an upgrade from such a version leaves a difference.
";

/// The page.
pub fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    page += "\n| name | type | labels | what |\n| --- | --- | --- | --- |\n";
    for Described {
        name,
        kind,
        help,
        labels,
    } in Metrics::described()
    {
        let labels: Vec<String> = labels.iter().map(label).collect();
        let labels = labels.join(" ");
        // Writing to a string cannot fail.
        let _ = writeln!(page, "| `{name}` | {kind} | {labels} | {help} |");
    }
    page += BOOKS;
    page
}

fn label((name, values): &(&str, Vec<&str>)) -> String {
    if values.is_empty() {
        return format!("`{name}`");
    }
    let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
    format!("`{name}`: {}", values.join(", "))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_committed_page_is_the_table() {
        let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
        let committed = std::fs::read_to_string(committed).unwrap_or_default();
        assert!(
            committed == page(),
            "docs/metrics.md is stale: run `carillon metrics > docs/metrics.md`"
        );
    }

    /// Each metric that a scrape shows is in the table, with its type, help and labels.
    #[test]
    fn a_scrape_shows_what_the_page_tells() {
        let metrics = Metrics::new().unwrap();
        let scraped = metrics.render().unwrap();
        let described = Metrics::described();
        for line in scraped
            .lines()
            .filter(|line| line.starts_with("# HELP carillon_"))
        {
            let mut words = line.splitn(4, ' ').skip(2);
            let (name, help) = (words.next().unwrap(), words.next().unwrap());
            let told = described.iter().find(|told| told.name == name);
            let told = told.unwrap_or_else(|| panic!("{name} is not in the table"));
            assert_eq!(told.help, help, "{name}");
            let kind = format!("# TYPE {name} {}", told.kind);
            assert!(scraped.lines().any(|line| line == kind), "{kind}");
        }
    }
}
