//! Observe: what is looked at for a scrape, rather than counted when it happens.

use super::Pipeline;
use super::admit::AdmitCounts;
use crate::domain::lane::Standing;
use crate::telemetry::endpoints::EndpointSample;
use crate::telemetry::labels::Stage;

/// What was seen at one moment.
pub struct Look {
    /// Events that are taken and not settled.
    pub events: u64,
    /// Due deliveries that are taken and not settled.
    pub deliveries: u64,
    counts: AdmitCounts,
    endpoints: Vec<EndpointSample>,
}

impl Pipeline {
    /// Looks at what is there.
    pub fn look(&self) -> Look {
        Look {
            events: self.intake.events() as u64,
            deliveries: self.intake.deliveries() as u64,
            counts: self.admit.counts(),
            endpoints: self.worst_endpoints(),
        }
    }

    /// Sets the gauges to what was seen. One at a time: series are written anew.
    pub fn show(&self, look: &Look) {
        let metrics = self.context.telemetry.metrics();
        let counts = &look.counts;
        for (stage, count) in [
            (Stage::Events, look.events),
            (Stage::Deliveries, look.deliveries),
            (Stage::Held, counts.held as u64),
            (Stage::Requests, counts.in_flight as u64),
        ] {
            metrics.in_flight.set(stage, count);
        }
        for standing in Standing::ALL {
            let count = counts.endpoints[standing as usize];
            metrics.endpoints.set(standing, count as u64);
        }
        let cached = i64::try_from(self.context.directory.cached()).unwrap_or(i64::MAX);
        metrics.subscriptions_cached.set(cached);
        let oldest = self.intake.oldest_age(self.context.ports.clock.now());
        metrics.oldest_unsettled.set(oldest.as_secs_f64());
        metrics.endpoint.show(&look.endpoints);
    }

    /// The worst endpoints, at most `telemetry.endpoint_series`.
    fn worst_endpoints(&self) -> Vec<EndpointSample> {
        let max = self.context.settings.endpoint_series;
        if max == 0 {
            return Vec::new();
        }
        let lanes = self.admit.lanes();
        let now = self.context.ports.clock.now();
        let worst = self.context.lately.worst(now, max, |id| {
            let standing = lanes.get(id).map(|lane| lane.standing());
            standing.map_or(0, |standing| standing as usize)
        });
        let sample = |(subscription, ever): (_, crate::domain::recent::Total)| EndpointSample {
            delivered: ever.delivered,
            failed: ever.failed,
            seconds: std::time::Duration::from_millis(ever.total_ms).as_secs_f64(),
            lane: lanes.get(&subscription).copied(),
            subscription,
        };
        worst.into_iter().map(sample).collect()
    }
}
