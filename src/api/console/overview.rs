//! The first page: how it is going.

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
    /// What the endpoints are called that fail most.
    names: Vec<String>,
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
    let mut names = Vec::with_capacity(overview.worst.len());
    for worst in &overview.worst {
        let id = worst.subscription_id.as_str();
        let found = visitor
            .calls
            .get::<Subscription>(&["subscriptions", id], &[])
            .await;
        names.push(found.map_or(id.to_owned(), |found| found.name().to_owned()));
    }
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
