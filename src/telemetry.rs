//! What Carillon tells about itself: named events, mapped here to metrics and log lines.
//!
//! The pipeline says what happened (`telemetry.emit(AttemptFinished { .. })`); which
//! counter moves and which line is logged is decided in this folder alone.

pub mod endpoints;
pub mod events;
pub mod labels;
pub mod log;
pub mod losses;
pub mod metrics;
pub mod page;
mod seldom;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use metrics::Metrics;

use crate::domain::accounts::{Account, Sums};

/// A handle to emit with; cheap to clone.
#[derive(Clone)]
pub struct Telemetry(Arc<Told>);

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
        Ok(Self(Arc::new(Told {
            metrics: Metrics::new()?,
            accounts: Default::default(),
        })))
    }

    /// Tells that something happened.
    pub fn emit(&self, event: impl Emit) {
        event.emit(&self.0);
    }

    /// The metrics, to set gauges and to scrape.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// What this process counted since it began.
    pub fn accounts(&self) -> Sums {
        Sums::new(|account| self.0.accounts[account as usize].load(Ordering::Relaxed))
    }
}
