//! What a receiver counts. Each number is right by itself; together they are no snapshot.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Received, Reply};

/// What a receiver has counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections accepted.
    pub connections: u64,
    /// Requests read to the end.
    pub requests: u64,
    /// Of them, answered with 2xx.
    pub acknowledged: u64,
    /// Of them, those whose signatures were checked and fit.
    pub verified: u64,
    /// Of them, those whose signatures were checked and do not fit.
    pub unverified: u64,
    /// Bytes of all bodies.
    pub body_bytes: u64,
    /// Requests read and not answered yet.
    pub in_flight: u64,
    /// The most that were in flight at once.
    pub in_flight_max: u64,
}

/// The same, while counting.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) connections: AtomicU64,
    requests: AtomicU64,
    acknowledged: AtomicU64,
    verified: AtomicU64,
    unverified: AtomicU64,
    body_bytes: AtomicU64,
    in_flight: AtomicU64,
    in_flight_max: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> Counts {
        Counts {
            connections: self.connections.load(Relaxed),
            requests: self.requests.load(Relaxed),
            acknowledged: self.acknowledged.load(Relaxed),
            verified: self.verified.load(Relaxed),
            unverified: self.unverified.load(Relaxed),
            body_bytes: self.body_bytes.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            in_flight_max: self.in_flight_max.load(Relaxed),
        }
    }

    pub(super) fn count(&self, received: &Received, reply: &Reply) {
        self.requests.fetch_add(1, Relaxed);
        let body_bytes = received.body.len() as u64;
        self.body_bytes.fetch_add(body_bytes, Relaxed);
        if reply.status.is_success() {
            self.acknowledged.fetch_add(1, Relaxed);
        }
        match received.verdicts.verified() {
            Some(true) => self.verified.fetch_add(1, Relaxed),
            Some(false) => self.unverified.fetch_add(1, Relaxed),
            None => 0,
        };
    }
}

/// Counts a request as in flight until it is dropped.
pub(super) struct InFlight<'a>(&'a Counters);

impl<'a> InFlight<'a> {
    pub(super) fn enter(counters: &'a Counters) -> Self {
        let in_flight = counters.in_flight.fetch_add(1, Relaxed) + 1;
        counters.in_flight_max.fetch_max(in_flight, Relaxed);
        Self(counters)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}
