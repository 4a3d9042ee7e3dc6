//! The metrics, with their names, labels and help (contract section 9).
//!
//! The one source of what a scrape says of them and of `docs/metrics.md`. Labels take values of
//! closed sets only (`labels.rs`), but for the series of single endpoints (`endpoints.rs`).

use prometheus::{
    Encoder as _, Gauge, GaugeVec, IntCounter, IntGauge, Opts, Registry, TextEncoder,
};

use super::endpoints::EndpointSeries;
use super::labels::{
    AttemptOutcome, AttemptSeconds, CacheResult, Dependency, Ended, EventResult, LatencySeconds,
    Queue, Stage,
};
use super::table::{Counters, Described, Distribution, Gauges, Histograms, Metric, metrics, text};
use crate::domain::accounts::Account;
use crate::domain::address::EgressRule;
use crate::domain::lane::{DeferReason, Standing};
use crate::domain::outcome::Reason;
use crate::domain::subscription::DisabledReason;

const BUILD_INFO: (&str, &str) = ("carillon_build_info", "The version that runs; always 1.");

metrics! {
    /// Events taken, by what became of them.
    events: Counters<EventResult> = "carillon_events_total",
    /// Deliveries that accepted events led to when they were planned: events × matching
    /// subscriptions.
    planned: IntCounter = "carillon_deliveries_planned_total",
    /// Deliveries that ended, by how and why.
    deliveries: Counters<Ended> = "carillon_deliveries_total",
    /// Deliveries that began and how they ended, over all replicas and restarts: every replica
    /// tells the same, kept in the store and written every second. What began and has not ended
    /// waits in a queue or is under way.
    accounted: Counters<Account> = "carillon_accounted_deliveries_total",
    /// Attempts, by outcome: delivered, or why not. Those of the Test action are among them.
    attempts: Counters<AttemptOutcome> = "carillon_attempts_total",
    /// How long attempts took, by outcome.
    attempt_duration: Histograms<AttemptOutcome, AttemptSeconds> =
        "carillon_attempt_duration_seconds",
    /// From taking an event to its acknowledgement by the endpoint.
    delivery_latency: Distribution<LatencySeconds> = "carillon_delivery_latency_seconds",
    /// From an event's timestamp to its being taken.
    event_age: Distribution<LatencySeconds> = "carillon_event_age_seconds",
    /// Retries scheduled, by why the attempt failed.
    retries: Counters<Reason> = "carillon_retries_total",
    /// Deliveries put off without an attempt, by why.
    deferrals: Counters<DeferReason> = "carillon_deferrals_total",
    /// What is under way in this process, by stage: events and due deliveries that are taken and
    /// not settled, deliveries held in lanes, requests.
    in_flight: Gauges<Stage> = "carillon_in_flight",
    /// Endpoints with recent traffic in this process, by state.
    endpoints: Gauges<Standing> = "carillon_endpoints",
    /// Subscriptions disabled by Carillon, by why.
    disabled: Counters<DisabledReason> = "carillon_subscriptions_disabled_total",
    /// Subscriptions kept compiled in memory.
    subscriptions_cached: IntGauge = "carillon_subscriptions_cached",
    /// Looks for compiled subscriptions, by result.
    cache_requests: Counters<CacheResult> = "carillon_cache_requests_total",
    /// Messages at rest, by queue; what a process has taken and not settled is in
    /// `carillon_in_flight`. Every replica tells the same; a queue that cannot be counted is not
    /// there.
    queue_messages: Gauges<Queue> = "carillon_queue_messages",
    /// Age of the oldest event that is taken and not settled.
    oldest_unsettled: Gauge = "carillon_oldest_unsettled_seconds",
    /// Whether a server that Carillon needs answers, and has what Carillon keeps there: 1 or 0.
    dependency_up: Gauges<Dependency> = "carillon_dependency_up",
    /// Whether RabbitMQ holds publishing because it is short of memory or disk.
    broker_blocked: IntGauge = "carillon_broker_blocked",
    /// Attempts that could not be kept in the audit log.
    audit_dropped: IntCounter = "carillon_audit_dropped_total",
    /// Requests refused because of their address, by rule.
    egress_blocked: Counters<EgressRule> = "carillon_egress_blocked_total",
    /// Spans that were not sent to the collector.
    trace_spans_dropped: IntCounter = "carillon_trace_spans_dropped_total",
    /// The worst endpoints, each by itself.
    endpoint: EndpointSeries = "carillon_endpoint",
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// When a name or label is not valid or is there twice.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let (name, help) = BUILD_INFO;
        let build = GaugeVec::new(Opts::new(name, help), &["version"])?;
        build
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1.0);
        registry.register(Box::new(build))?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        Self::make(registry)
    }

    /// Every metric of Carillon's own, as the reference tells of it.
    pub fn described() -> Vec<Described> {
        let mut all = Self::table();
        let (name, help) = BUILD_INFO;
        all.push(Described {
            name,
            kind: "gauge",
            help: help.to_owned(),
            labels: vec![("version", Vec::new())],
        });
        all
    }

    /// All metrics in the Prometheus text format.
    ///
    /// # Errors
    /// When a metric cannot be encoded.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_registers_and_renders() {
        let metrics = Metrics::new().unwrap();
        metrics.events.of(EventResult::Accepted).inc();
        let text = metrics.render().unwrap();
        assert!(text.contains("carillon_events_total{result=\"accepted\"} 1"));
        assert!(text.contains("carillon_build_info{version="));
        assert!(text.contains("process_resident_memory_bytes"));
    }

    /// An alert on a rise needs what it rises from.
    #[test]
    fn counters_begin_at_zero() {
        let text = Metrics::new().unwrap().render().unwrap();
        for line in [
            "carillon_events_total{result=\"quarantined\"} 0",
            "carillon_deliveries_total{reason=\"none\",result=\"delivered\"} 0",
            "carillon_deliveries_total{reason=\"gone\",result=\"dead_lettered\"} 0",
            "carillon_attempts_total{outcome=\"timeout\"} 0",
            "carillon_retries_total{reason=\"server_error\"} 0",
            "carillon_audit_dropped_total 0",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}");
        }
    }
}
