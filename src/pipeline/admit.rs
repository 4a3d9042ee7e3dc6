//! Admission: what may be sent now, what waits in its endpoint's lane, what comes later.
//!
//! Drives the pure lanes of `domain::lane`: keeps one per endpoint with traffic, gives
//! each its rate limiter, bounds requests over all of them, and wakes lanes whose rate
//! allows more. A [`Permit`] is held, not counted: dropped, it frees its place, so that a
//! panic leaks nothing. There is no task per endpoint.

mod rate;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use rate::{EndpointRate, LaneClock, check};

use super::turns::Turns;
use crate::domain::id::SubscriptionId;
use crate::domain::lane::{DeferReason, Freshness, Lane, LaneLimits, Verdict};
use crate::domain::subscription::{RateLimit, Scope};

/// A lane without traffic for this long is dropped; its rate limiter is full again by then.
const IDLE_FOR: Duration = Duration::from_secs(120);
/// The bounds of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EndpointLimits {
    /// Most requests at once.
    pub in_flight_max: u32,
    /// Its rate; `None` for no limit.
    pub rate: Option<RateLimit>,
}

/// The answer to an offer.
#[derive(Debug)]
pub enum Admission<W> {
    /// Send it now.
    Now(W, Permit<W>),
    /// It waits in its lane; [`Granted`] says when its turn has come.
    Queued,
    /// Not now, and not soon: come back `after` this long.
    Defer {
        /// The work.
        work: W,
        /// How long from now.
        after: Duration,
        /// Why.
        reason: DeferReason,
    },
    /// Nothing is admitted any more.
    Refuse(W),
}

/// What became of work that waited.
#[derive(Debug)]
pub enum Granted<W> {
    /// Send it now.
    Start(W, Permit<W>),
    /// Its endpoint asked to be left alone in the meantime.
    Defer {
        /// The work.
        work: W,
        /// How long from now.
        after: Duration,
        /// Why.
        reason: DeferReason,
    },
}

/// A place for one request. Dropping it frees the place.
#[must_use = "a dropped permit frees its place"]
pub struct Permit<W> {
    inner: Arc<Inner<W>>,
    endpoint: SubscriptionId,
    since: Instant,
}

/// The lanes of one process.
pub struct Admit<W> {
    inner: Arc<Inner<W>>,
}

struct Inner<W> {
    in_flight_max: usize,
    clock: LaneClock,
    state: Mutex<State<W>>,
    granted: mpsc::UnboundedSender<Granted<W>>,
    timer_changed: Notify,
}

struct State<W> {
    lanes: HashMap<SubscriptionId, Entry<W>>,
    /// Lanes that have work and may have room for it; each at most once.
    ready: Turns,
    /// When lanes that wait for their rate are looked at again.
    timers: BinaryHeap<Reverse<(Duration, SubscriptionId)>>,
    in_flight: usize,
    held: usize,
    closed: bool,
    swept_at: Duration,
}

struct Entry<W> {
    /// Among whose endpoints it takes its turn.
    tenant: Scope,
    lane: Lane<W>,
    rate: Option<EndpointRate>,
    limits: EndpointLimits,
    is_ready: bool,
    has_timer: bool,
}

/// Counts for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdmitCounts {
    /// Requests at this moment.
    pub in_flight: usize,
    /// Work that waits in lanes.
    pub held: usize,
    /// Endpoints without trouble.
    pub healthy: usize,
    /// Endpoints at their rate or window.
    pub throttled: usize,
    /// Endpoints that asked to be left alone.
    pub paused: usize,
}

impl<W> Clone for Admit<W> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<W> Admit<W> {
    /// Lanes with at most `in_flight_max` requests over all of them, and the channel on
    /// which work that waited comes back.
    pub fn new(in_flight_max: usize) -> (Self, mpsc::UnboundedReceiver<Granted<W>>) {
        let (granted, receiver) = mpsc::unbounded_channel();
        let inner = Inner {
            in_flight_max,
            clock: LaneClock(Instant::now()),
            state: Mutex::new(State {
                lanes: HashMap::new(),
                ready: Turns::default(),
                timers: BinaryHeap::new(),
                in_flight: 0,
                held: 0,
                closed: false,
                swept_at: Duration::ZERO,
            }),
            granted,
            timer_changed: Notify::new(),
        };
        let inner = Arc::new(inner);
        (Self { inner }, receiver)
    }

    /// Offers `work` to the lane of `endpoint`, which is `tenant`'s.
    pub fn offer(
        &self,
        tenant: &Scope,
        endpoint: &SubscriptionId,
        limits: EndpointLimits,
        work: W,
        freshness: Freshness,
    ) -> Admission<W> {
        let now = self.inner.clock.elapsed();
        let mut state = self.inner.lock();
        if state.closed {
            return Admission::Refuse(work);
        }
        let slot = state.in_flight < self.inner.in_flight_max;
        let entry = state
            .lanes
            .entry(endpoint.clone())
            .or_insert_with(|| Entry::new(tenant, limits, now, &self.inner.clock));
        entry.set_limits(limits, &self.inner.clock);
        let rate = entry.rate.as_ref();
        let verdict = entry.lane.offer(work, freshness, now, slot, || check(rate));
        match verdict {
            Verdict::Start(work) => {
                state.in_flight += 1;
                Admission::Now(work, self.inner.permit(endpoint.clone()))
            }
            Verdict::Wait(until) => {
                state.held += 1;
                state.wait(endpoint, until, &self.inner.timer_changed);
                self.inner.pump(&mut state, now);
                Admission::Queued
            }
            Verdict::Defer(work, until, reason) => Admission::Defer {
                work,
                after: until.saturating_sub(now),
                reason,
            },
        }
    }

    /// Wakes lanes whose rate allows more. Runs until the lanes are closed.
    pub async fn run_timers(&self) {
        loop {
            let changed = self.inner.timer_changed.notified();
            let next = {
                let mut state = self.inner.lock();
                if state.closed {
                    return;
                }
                let now = self.inner.clock.elapsed();
                state.fire_timers(now);
                self.inner.pump(&mut state, now);
                state.sweep(now);
                state.timers.peek().map(|Reverse((at, _))| *at)
            };
            match next {
                // Idle lanes are looked for all the same.
                None => drop(tokio::time::timeout(IDLE_FOR, changed).await),
                Some(at) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep_until(self.inner.clock.0 + at) => {}
                    }
                }
            }
        }
    }

    /// Admits nothing any more, and gives back all that waits.
    pub fn close(&self) -> Vec<W> {
        let mut state = self.inner.lock();
        state.closed = true;
        state.held = 0;
        let held = state
            .lanes
            .values_mut()
            .flat_map(|entry| entry.lane.take_held());
        let held = held.collect();
        drop(state);
        self.inner.timer_changed.notify_one();
        held
    }

    /// How things stand.
    pub fn counts(&self) -> AdmitCounts {
        let now = self.inner.clock.elapsed();
        let state = self.inner.lock();
        let mut counts = AdmitCounts {
            in_flight: state.in_flight,
            held: state.held,
            ..AdmitCounts::default()
        };
        for entry in state.lanes.values() {
            if entry.lane.is_paused(now) {
                counts.paused += 1;
            } else if entry.lane.held() > 0 {
                counts.throttled += 1;
            } else {
                counts.healthy += 1;
            }
        }
        counts
    }
}

impl<W> Inner<W> {
    fn lock(&self) -> MutexGuard<'_, State<W>> {
        // A panic while the lock was held cannot leave a half-made change that matters:
        // every change below is complete before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn permit(self: &Arc<Self>, endpoint: SubscriptionId) -> Permit<W> {
        Permit {
            inner: Arc::clone(self),
            endpoint,
            since: Instant::now(),
        }
    }

    /// Starts what may start: one from each ready lane in turn, while there is room.
    fn pump(self: &Arc<Self>, state: &mut State<W>, now: Duration) {
        while state.in_flight < self.in_flight_max {
            let Some(endpoint) = state.ready.pop() else {
                return;
            };
            let Some(entry) = state.lanes.get_mut(&endpoint) else {
                continue;
            };
            entry.is_ready = false;
            let rate = entry.rate.as_ref();
            match entry.lane.next(now, || check(rate)) {
                Verdict::Start(work) => {
                    state.in_flight += 1;
                    state.held -= 1;
                    state.make_ready(&endpoint);
                    let permit = self.permit(endpoint);
                    self.grant(Granted::Start(work, permit));
                }
                Verdict::Defer(work, until, reason) => {
                    state.held -= 1;
                    state.make_ready(&endpoint);
                    let after = until.saturating_sub(now);
                    self.grant(Granted::Defer {
                        work,
                        after,
                        reason,
                    });
                }
                Verdict::Wait(Some(at)) => state.wait(&endpoint, Some(at), &self.timer_changed),
                Verdict::Wait(None) => {}
            }
        }
    }

    /// Nobody listens any more only after the end; then the work drops and requeues, but
    /// not under the lock that its permit needs.
    fn grant(&self, granted: Granted<W>) {
        if let Err(unsent) = self.granted.send(granted)
            && let Granted::Start(work, permit) = unsent.0
        {
            std::mem::forget(permit);
            drop(work);
        }
    }
}

impl<W> State<W> {
    fn make_ready(&mut self, endpoint: &SubscriptionId) {
        if let Some(entry) = self.lanes.get_mut(endpoint)
            && !entry.is_ready
            && entry.lane.held() > 0
        {
            entry.is_ready = true;
            self.ready.push(&entry.tenant, endpoint.clone());
        }
    }

    /// The lane waits: for its rate until `at`, or for room.
    fn wait(&mut self, endpoint: &SubscriptionId, at: Option<Duration>, changed: &Notify) {
        let Some(at) = at else {
            return self.make_ready(endpoint);
        };
        if let Some(entry) = self.lanes.get_mut(endpoint)
            && !entry.has_timer
        {
            entry.has_timer = true;
            let is_next = self
                .timers
                .peek()
                .is_none_or(|Reverse((next, _))| at < *next);
            self.timers.push(Reverse((at, endpoint.clone())));
            if is_next {
                changed.notify_one();
            }
        }
    }

    fn fire_timers(&mut self, now: Duration) {
        while let Some(Reverse((at, _))) = self.timers.peek()
            && *at <= now
        {
            if let Some(Reverse((_, endpoint))) = self.timers.pop() {
                if let Some(entry) = self.lanes.get_mut(&endpoint) {
                    entry.has_timer = false;
                }
                self.make_ready(&endpoint);
            }
        }
    }

    fn sweep(&mut self, now: Duration) {
        if now.saturating_sub(self.swept_at) < IDLE_FOR {
            return;
        }
        self.swept_at = now;
        self.lanes
            .retain(|_, entry| !entry.lane.is_idle(now, entry.idle_for()));
    }
}

impl<W> Entry<W> {
    fn new(tenant: &Scope, limits: EndpointLimits, now: Duration, clock: &LaneClock) -> Self {
        Self {
            tenant: tenant.clone(),
            lane: Lane::new(lane_limits(limits), now),
            rate: limits.rate.map(|rate| EndpointRate::new(rate, clock)),
            limits,
            is_ready: false,
            has_timer: false,
        }
    }

    fn set_limits(&mut self, limits: EndpointLimits, clock: &LaneClock) {
        if self.limits != limits {
            if self.limits.rate != limits.rate {
                self.rate = limits.rate.map(|rate| EndpointRate::new(rate, clock));
            }
            self.lane.set_limits(lane_limits(limits));
            self.limits = limits;
        }
    }

    /// Long enough that a dropped limiter would have been full again.
    fn idle_for(&self) -> Duration {
        let refill = self.limits.rate.map_or(0.0, |rate| {
            f64::from(rate.burst) / rate.per_second.max(1e-6)
        });
        IDLE_FOR.max(Duration::from_secs_f64(refill.min(86_400.0)))
    }
}

fn lane_limits(limits: EndpointLimits) -> LaneLimits {
    LaneLimits {
        in_flight_max: limits.in_flight_max,
        per_second: limits.rate.map(|rate| rate.per_second),
    }
}

impl<W> Permit<W> {
    /// Tells the lane how the attempt went; `paused_for` is how long the endpoint wants
    /// no more.
    pub fn report(&self, paused_for: Option<Duration>) {
        let now = self.inner.clock.elapsed();
        let took = self.since.elapsed();
        let mut state = self.inner.lock();
        if let Some(entry) = state.lanes.get_mut(&self.endpoint) {
            let until = paused_for.map(|pause| now + pause);
            entry.lane.finished(now, took, until);
        }
    }
}

impl<W> Drop for Permit<W> {
    fn drop(&mut self) {
        let now = self.inner.clock.elapsed();
        let mut state = self.inner.lock();
        state.in_flight -= 1;
        if let Some(entry) = state.lanes.get_mut(&self.endpoint) {
            entry.lane.release();
        }
        if !state.closed {
            state.make_ready(&self.endpoint);
            self.inner.pump(&mut state, now);
        }
    }
}

impl<W> std::fmt::Debug for Permit<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Permit({})", self.endpoint)
    }
}

#[cfg(test)]
mod tests;
