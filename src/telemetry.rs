//! What Carillon tells about itself: named events and spans, mapped here to metrics, log lines and
//! traces.
//!
//! The pipeline says what happened (`telemetry.emit(AttemptFinished { .. })`); which
//! counter moves, which line is logged and what a span says is decided in this folder alone.

pub mod endpoints;
pub mod events;
pub mod labels;
pub mod log;
pub mod losses;
pub mod metrics;
pub mod page;
mod seldom;
pub mod spans;
mod table;
pub mod traces;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use metrics::Metrics;
use spans::{Begin, Traced, Tracer};
use traces::Traces;

use crate::domain::accounts::{Account, Sums};

/// A handle to emit with; cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    told: Arc<Told>,
    tracer: Option<Arc<Tracer>>,
}

/// What was told so far.
pub struct Told {
    /// The metrics.
    pub metrics: Metrics,
    /// What this process counted of each account.
    accounts: [AtomicU64; Account::ALL.len()],
}

impl Told {
    /// One more in `account`.
    pub fn count(&self, account: Account, more: u64) {
        self.accounts[account as usize].fetch_add(more, Ordering::Relaxed);
    }
}

/// Something that happened.
pub trait Emit {
    /// Moves the metrics and accounts, and logs the line that belong to it.
    fn emit(self, told: &Told);
}

impl Telemetry {
    /// Telemetry with metrics of its own.
    ///
    /// # Errors
    /// When the metric table is at odds with itself.
    pub fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            told: Arc::new(Told {
                metrics: Metrics::new()?,
                accounts: Default::default(),
            }),
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
        event.emit(&self.told);
    }

    /// The metrics, to set gauges and to scrape.
    pub fn metrics(&self) -> &Metrics {
        &self.told.metrics
    }

    /// What this process counted since it began.
    pub fn accounts(&self) -> Sums {
        Sums::new(|account| self.told.accounts[account as usize].load(Ordering::Relaxed))
    }
}
