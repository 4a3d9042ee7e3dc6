//! What is in flight in this process: which events are taken, and who waits for them.
//!
//! Of two messages with the same event, the second waits until the first is settled; then
//! the ledger knows what is left to do.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use crate::domain::id::{LedgerKey, SubscriptionId, TenantId};
use crate::domain::shares::Shares;
use crate::domain::timestamp::UnixMillis;
use crate::ports::{EventMessage, Taken};

/// A message that waits for another with the same event to settle.
pub struct Waiting {
    /// The message.
    pub taken: Taken<EventMessage>,
    /// Its slot of the prefetch.
    pub slot: OwnedSemaphorePermit,
}

/// Where messages come whose wait is over; shared, so that a loop can begin again.
pub type AgainReceiver = tokio::sync::Mutex<mpsc::UnboundedReceiver<Waiting>>;

/// What identifies a chunk of an event: the event, and where the chunk begins.
pub type ChunkKey = (LedgerKey, Option<SubscriptionId>);

/// The events in flight in this process.
pub struct InFlight {
    claims: Mutex<HashMap<ChunkKey, Claim>>,
    deliveries: AtomicUsize,
    shares: Mutex<Shares>,
    began: Instant,
    again: mpsc::UnboundedSender<Waiting>,
}

struct Claim {
    taken_at: UnixMillis,
    waiting: Vec<Waiting>,
}

impl InFlight {
    /// Nothing in flight, of at most `room` events, and the channel on which messages come
    /// whose wait is over.
    pub fn new(room: usize) -> (Self, mpsc::UnboundedReceiver<Waiting>) {
        let (again, receiver) = mpsc::unbounded_channel();
        let in_flight = Self {
            claims: Mutex::default(),
            deliveries: AtomicUsize::new(0),
            shares: Mutex::new(Shares::new(room)),
            began: Instant::now(),
            again,
        };
        (in_flight, receiver)
    }

    /// Events that are taken and not settled.
    pub fn events(&self) -> usize {
        self.claims().len()
    }

    /// Due deliveries that are taken and not settled.
    pub fn deliveries(&self) -> usize {
        self.deliveries.load(Ordering::Relaxed)
    }

    /// One more due delivery is taken.
    pub fn delivery_began(&self) {
        self.deliveries.fetch_add(1, Ordering::Relaxed);
    }

    /// One of them is settled or given back.
    pub fn delivery_ended(&self) {
        self.deliveries.fetch_sub(1, Ordering::Relaxed);
    }

    /// An event of `tenant` is in memory.
    pub fn took(&self, tenant: &TenantId) {
        self.shares().take(tenant, self.began.elapsed());
    }

    /// It is not any more.
    pub fn gave_back(&self, tenant: &TenantId) {
        self.shares().give_back(tenant, self.began.elapsed());
    }

    /// After how long an event of `tenant` is to come back, if it is beyond its share.
    pub fn excess(&self, tenant: &TenantId) -> Option<Duration> {
        let now = self.began.elapsed();
        let until = self.shares().excess(tenant, now)?;
        Some(until.saturating_sub(now))
    }

    /// How long ago the oldest event in flight was taken.
    pub fn oldest_age(&self, now: UnixMillis) -> Duration {
        let oldest = self.claims().values().map(|claim| claim.taken_at).min();
        oldest.map_or(Duration::ZERO, |at| now.since(at))
    }

    /// Gives back all messages that wait for another.
    pub fn forget_waiting(&self) {
        let waiting: Vec<Waiting> = {
            let mut claims = self.claims();
            let each = claims.values_mut();
            each.flat_map(|claim| std::mem::take(&mut claim.waiting))
                .collect()
        };
        drop(waiting);
    }

    fn shares(&self) -> std::sync::MutexGuard<'_, Shares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claims(&self) -> std::sync::MutexGuard<'_, HashMap<ChunkKey, Claim>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims the chunk for the caller, or has the message wait for who has it.
    pub fn claim(&self, key: &ChunkKey, waiting: Waiting, now: UnixMillis) -> Option<Waiting> {
        let mut claims = self.claims();
        if let Some(claim) = claims.get_mut(key) {
            claim.waiting.push(waiting);
            return None;
        }
        let claim = Claim {
            taken_at: now,
            waiting: Vec::new(),
        };
        claims.insert(key.clone(), claim);
        Some(waiting)
    }

    /// The chunk is settled or given back: who waits for it comes again.
    pub fn release(&self, key: &ChunkKey) {
        let released = self.claims().remove(key);
        for waiting in released.into_iter().flat_map(|claim| claim.waiting) {
            // After the end nobody takes it: dropped, it is requeued.
            let _ = self.again.send(waiting);
        }
    }
}
