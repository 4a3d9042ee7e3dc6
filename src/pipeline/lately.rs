//! What was attempted lately in this process, for whoever looks at it: counted, and told of.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::domain::attempt::Attempt;
use crate::domain::id::TenantId;
use crate::domain::recent::{Recent, Summary};
use crate::domain::timestamp::UnixMillis;

/// Counts attempts, and tells that there was one.
pub struct Lately {
    recent: Mutex<Recent>,
    count: watch::Sender<u64>,
}

impl Default for Lately {
    fn default() -> Self {
        Self {
            recent: Mutex::default(),
            count: watch::Sender::new(0),
        }
    }
}

impl Lately {
    /// An attempt ended at `now`.
    pub fn note(&self, attempt: &Attempt, now: UnixMillis) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.note(attempt, now);
        drop(recent);
        self.count.send_modify(|count| *count += 1);
    }

    /// The last hour: of all, or of what belongs to `tenant`; at most `worst_max` endpoints.
    pub fn summary(&self, tenant: Option<&TenantId>, now: UnixMillis, worst_max: usize) -> Summary {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.summary(tenant, now, worst_max)
    }

    /// How many attempts there have been, and when there are more.
    pub fn count(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }
}
