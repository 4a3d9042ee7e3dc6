//! What Carillon tells about itself: named events and spans, mapped here to metrics, log lines and
//! traces.
//!
//! The pipeline says what happened (`telemetry.emit(AttemptFinished { .. })`); which
//! counter moves, which line is logged and what a span says is decided in this folder alone.

pub mod events;
pub mod log;
pub mod losses;
pub mod metrics;
mod seldom;
pub mod spans;
pub mod traces;

use std::sync::Arc;

pub use metrics::Metrics;
use spans::{Begin, Traced, Tracer};
use traces::Traces;

/// A handle to emit with; cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    metrics: Arc<Metrics>,
    tracer: Option<Arc<Tracer>>,
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
            tracer: None,
        })
    }

    /// The same, with spans that go where `traces` sends them.
    #[must_use]
    pub fn with_traces(self, traces: &Traces) -> Self {
        Self {
            tracer: Some(traces.tracer()),
            ..self
        }
    }

    /// Begins a span, where traces are on.
    pub fn begin(&self, span: impl Begin) -> Traced {
        match &self.tracer {
            None => Traced::default(),
            Some(tracer) => span.begin(tracer),
        }
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
