//! The first page: how it is going.

use std::collections::BTreeMap;

use askama::Template;
use axum::response::Response;

use super::page::{Frame, Notice, failed, render};
use super::view::{Attempt, List, Minute, Overview, Subscription};
use super::visitor::Visitor;

/// How high the chart is, in units of its own.
const HEIGHT: u64 = 100;
/// How wide a minute is.
const STEP: usize = 10;

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: Frame,
    overview: Overview,
    bars: Vec<Bar>,
    /// Attempts of the busiest minute.
    most: u64,
    /// What the subscriptions are called that are shown, by their ids.
    names: BTreeMap<String, String>,
    failures: Vec<Attempt>,
    /// Why they cannot be shown.
    trouble: Option<Notice>,
}

/// A minute of the chart: what was delivered stands below, what failed on it.
struct Bar {
    x: usize,
    delivered_y: u64,
    delivered_height: u64,
    failed_y: u64,
    failed_height: u64,
    title: String,
}

/// How it is going.
pub async fn show(visitor: Visitor) -> Response {
    let overview: Overview = match visitor.calls.get(&["overview"], &[]).await {
        Ok(overview) => overview,
        Err(refusal) => return failed(&visitor, "overview", &refusal),
    };
    let query = [("outcome", "failed"), ("limit", "5"), ("body_bytes", "0")];
    let failures: Result<List<Attempt>, _> = visitor.calls.get(&["attempts"], &query).await;
    let trouble = failures.as_ref().err().and_then(Notice::bad);
    let failures = failures.unwrap_or_else(|_| List::nothing()).items;
    let of_worst = overview.worst.iter().map(|worst| &worst.subscription_id);
    let of_failures = failures.iter().map(|failure| &failure.subscription_id);
    let names = names_of(&visitor, of_worst.chain(of_failures)).await;
    let most = overview
        .minutes
        .iter()
        .map(|minute| minute.counts.attempts());
    let most = most.max().unwrap_or(0);
    let bars = overview.minutes.iter().enumerate();
    render(&OverviewPage {
        frame: Frame::of(&visitor, "overview", "Overview"),
        bars: bars.map(|(n, minute)| bar(n, minute, most)).collect(),
        most,
        names,
        failures,
        trouble,
        overview,
    })
}

/// What subscriptions are called; those that are gone are called by their ids.
async fn names_of(
    visitor: &Visitor,
    ids: impl Iterator<Item = &String>,
) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for id in ids {
        if names.contains_key(id) {
            continue;
        }
        let path = ["subscriptions", id.as_str()];
        let found = visitor.calls.get::<Subscription>(&path, &[]).await;
        let name = found.map_or(id.clone(), |found| found.name().to_owned());
        names.insert(id.clone(), name);
    }
    names
}

impl OverviewPage {
    fn name<'a>(&'a self, id: &'a str) -> &'a str {
        self.names.get(id).map_or(id, String::as_str)
    }

    /// What waits where, in the order of its way.
    fn queues(&self) -> Vec<(&'static str, u64)> {
        let named = [
            ("events", "Events waiting"),
            ("deliveries", "Deliveries due"),
            ("wait", "Deliveries waiting"),
            ("dead-letters", "Dead letters"),
            ("quarantine", "In quarantine"),
        ];
        let sizes = self.overview.queues.as_ref();
        let size = |(queue, name)| Some((name, *sizes?.get(queue)?));
        named.into_iter().filter_map(size).collect()
    }
}

fn bar(n: usize, minute: &Minute, most: u64) -> Bar {
    let counts = &minute.counts;
    // What is there is seen, however little it is beside the most.
    let scaled = |count: u64| match count * HEIGHT / most.max(1) {
        0 if count > 0 => 2,
        height => height,
    };
    let failed_height = scaled(counts.failed);
    let delivered_height = scaled(counts.delivered).min(HEIGHT - failed_height);
    let delivered_y = HEIGHT - delivered_height;
    Bar {
        x: n * STEP,
        delivered_y,
        delivered_height,
        failed_y: delivered_y - failed_height,
        failed_height,
        title: format!(
            "{}: {} delivered, {} failed",
            minute.at.get(11..16).unwrap_or_default(),
            counts.delivered,
            counts.failed
        ),
    }
}
