//! The metrics, with their names, labels and help (contract section 9).
//!
//! Labels take values of closed sets only: never a URL, a tenant or an id.

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::domain::delivery::DeadReason;
use crate::domain::lane::DeferReason;

/// Upper bounds of attempt durations, in seconds: up to the longest timeout.
const ATTEMPT_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// Upper bounds of latencies and ages, in seconds: up to the longest retry schedule.
const LATENCY_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 1800.0, 7200.0, 43_200.0, 172_800.0,
];

/// Every metric of the process.
pub struct Metrics {
    registry: Registry,
    /// `carillon_events_total`
    pub events: IntCounterVec,
    /// `carillon_deliveries_total`
    pub deliveries: IntCounterVec,
    /// `carillon_attempts_total`
    pub attempts: IntCounterVec,
    /// `carillon_attempt_duration_seconds`
    pub attempt_duration: HistogramVec,
    /// `carillon_delivery_latency_seconds`
    pub delivery_latency: prometheus::Histogram,
    /// `carillon_event_age_seconds`
    pub event_age: prometheus::Histogram,
    /// `carillon_retries_total`
    pub retries: IntCounterVec,
    /// `carillon_deferrals_total`
    pub deferrals: IntCounterVec,
    /// `carillon_in_flight`
    pub in_flight: IntGaugeVec,
    /// `carillon_endpoints`
    pub endpoints: IntGaugeVec,
    /// `carillon_subscriptions_cached`
    pub subscriptions_cached: IntGauge,
    /// `carillon_cache_requests_total`
    pub cache_requests: IntCounterVec,
    /// `carillon_queue_messages`
    pub queue_messages: IntGaugeVec,
    /// `carillon_oldest_unsettled_seconds`
    pub oldest_unsettled: Gauge,
    /// `carillon_dependency_up`
    pub dependency_up: IntGaugeVec,
    /// `carillon_broker_blocked`
    pub broker_blocked: IntGauge,
    /// `carillon_audit_dropped_total`
    pub audit_dropped: IntCounter,
    /// `carillon_trace_spans_dropped_total`
    pub trace_spans_dropped: IntCounter,
    /// `carillon_egress_blocked_total`
    pub egress_blocked: IntCounterVec,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// When a name or label is not valid or is there twice.
    // One table, read from top to bottom.
    #[allow(clippy::too_many_lines)]
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let build = GaugeVec::new(
            Opts::new("carillon_build_info", "The version that runs; always 1."),
            &["version"],
        )?;
        build
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1.0);
        add(&registry, &build)?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        let make = Maker(&registry);
        let metrics = Self {
            events: make.counters(
                "carillon_events_total",
                "Events taken, by what became of them.",
                &["result"],
            )?,
            deliveries: make.counters(
                "carillon_deliveries_total",
                "Deliveries that ended, by how and why.",
                &["result", "reason"],
            )?,
            attempts: make.counters(
                "carillon_attempts_total",
                "Attempts, by outcome: delivered, or why not.",
                &["outcome"],
            )?,
            attempt_duration: make.histograms(
                "carillon_attempt_duration_seconds",
                "How long attempts took, by outcome.",
                ATTEMPT_SECONDS,
                &["outcome"],
            )?,
            delivery_latency: make.histogram(
                "carillon_delivery_latency_seconds",
                "From taking an event to its acknowledgement by the endpoint.",
                LATENCY_SECONDS,
            )?,
            event_age: make.histogram(
                "carillon_event_age_seconds",
                "From an event's timestamp to its being taken.",
                LATENCY_SECONDS,
            )?,
            retries: make.counters(
                "carillon_retries_total",
                "Retries scheduled, by why the attempt failed.",
                &["reason"],
            )?,
            deferrals: make.counters(
                "carillon_deferrals_total",
                "Deliveries put off without an attempt, by why.",
                &["reason"],
            )?,
            in_flight: make.gauges(
                "carillon_in_flight",
                "What is under way, by stage: events and due deliveries not settled, deliveries held in lanes, requests.",
                &["stage"],
            )?,
            endpoints: make.gauges(
                "carillon_endpoints",
                "Endpoints with recent traffic, by state.",
                &["state"],
            )?,
            subscriptions_cached: {
                let help = "Subscriptions kept compiled in memory.";
                let gauge = IntGauge::new("carillon_subscriptions_cached", help)?;
                add(&registry, &gauge)?;
                gauge
            },
            cache_requests: make.counters(
                "carillon_cache_requests_total",
                "Look-ups of compiled subscriptions, by result.",
                &["result"],
            )?,
            queue_messages: make.gauges(
                "carillon_queue_messages",
                "Messages at rest, by queue.",
                &["queue"],
            )?,
            oldest_unsettled: {
                let help = "Age of the oldest event that is taken and not settled.";
                let gauge = Gauge::new("carillon_oldest_unsettled_seconds", help)?;
                add(&registry, &gauge)?;
                gauge
            },
            dependency_up: make.gauges(
                "carillon_dependency_up",
                "Whether a server that Carillon needs answers: 1 or 0.",
                &["name"],
            )?,
            broker_blocked: {
                let help = "Whether RabbitMQ holds publishing because it is short of memory or disk.";
                let gauge = IntGauge::new("carillon_broker_blocked", help)?;
                add(&registry, &gauge)?;
                gauge
            },
            audit_dropped: {
                let help = "Attempts that could not be kept in the audit log.";
                let counter = IntCounter::new("carillon_audit_dropped_total", help)?;
                add(&registry, &counter)?;
                counter
            },
            trace_spans_dropped: {
                let help = "Spans that were not sent to the collector.";
                let counter = IntCounter::new("carillon_trace_spans_dropped_total", help)?;
                add(&registry, &counter)?;
                counter
            },
            egress_blocked: make.counters(
                "carillon_egress_blocked_total",
                "Requests refused because of their address, by rule.",
                &["reason"],
            )?,
            registry,
        };
        metrics.begin_at_zero();
        Ok(metrics)
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

    /// Series that alerts look at are there from the start, so that their first rise is one.
    fn begin_at_zero(&self) {
        for result in ["accepted", "unmatched", "duplicate", "quarantined"] {
            self.events.with_label_values(&[result]);
        }
        self.deliveries.with_label_values(&["delivered", "none"]);
        for reason in DeadReason::ALL {
            self.deliveries
                .with_label_values(&["dead_lettered", reason.code()]);
        }
        for reason in DeferReason::ALL {
            self.deferrals.with_label_values(&[reason.code()]);
        }
        self.attempts.with_label_values(&["delivered"]);
        for result in ["hit", "miss", "error"] {
            self.cache_requests.with_label_values(&[result]);
        }
        for stage in ["events", "deliveries", "held", "requests"] {
            self.in_flight.with_label_values(&[stage]);
        }
        for state in ["healthy", "throttled", "open", "paused"] {
            self.endpoints.with_label_values(&[state]);
        }
    }
}

fn add<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: &C,
) -> Result<(), prometheus::Error> {
    registry.register(Box::new(metric.clone()))
}

struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
        add(self.0, &metric)?;
        Ok(metric)
    }

    fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
        add(self.0, &metric)?;
        Ok(metric)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        bounds: &[f64],
        labels: &[&str],
    ) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(bounds.to_vec());
        let metric = HistogramVec::new(options, labels)?;
        add(self.0, &metric)?;
        Ok(metric)
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        bounds: &[f64],
    ) -> Result<prometheus::Histogram, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(bounds.to_vec());
        let metric = prometheus::Histogram::with_opts(options)?;
        add(self.0, &metric)?;
        Ok(metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_registers_and_renders() {
        let metrics = Metrics::new().unwrap();
        metrics.events.with_label_values(&["accepted"]).inc();
        let text = metrics.render().unwrap();
        assert!(text.contains("carillon_events_total{result=\"accepted\"} 1"));
        assert!(text.contains("carillon_build_info{version="));
        assert!(text.contains("process_resident_memory_bytes"));
    }
}
