//! What Carillon tells about itself: named events, mapped here to metrics and log lines.
//!
//! The pipeline says what happened (`telemetry.emit(AttemptFinished { .. })`); which
//! counter moves and which line is logged is decided in this folder alone.

pub mod events;
pub mod log;
pub mod losses;
pub mod metrics;
mod seldom;

use std::sync::Arc;

pub use metrics::Metrics;

/// A handle to emit with; cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    metrics: Arc<Metrics>,
}

/// Something that happened.
pub trait Emit {
    /// Moves the metrics and logs the line that belong to it.
    fn emit(self, metrics: &Metrics);
}

impl Telemetry {
    /// Telemetry with metrics of its own.
    ///
    /// # Errors
    /// When the metric table is at odds with itself.
    pub fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            metrics: Arc::new(Metrics::new()?),
        })
    }

    /// Tells that something happened.
    pub fn emit(&self, event: impl Emit) {
        event.emit(&self.metrics);
    }

    /// The metrics, to set gauges and to scrape.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}
