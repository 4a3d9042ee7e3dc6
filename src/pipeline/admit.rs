//! Admission: what may be sent now, what waits in its endpoint's lane, what comes later.
//!
//! Drives the pure lanes of `domain::lane`: keeps one per endpoint with traffic, gives
//! each its rate limiter, bounds requests over all of them, and wakes lanes whose rate
//! allows more. A [`Permit`] is held, not counted: dropped, it frees its place, so that a
//! panic leaks nothing. There is no task per endpoint.

mod rate;
mod state;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use rate::{LaneClock, Others};
use state::{IDLE_FOR, Rings, State};

use super::turns::Turns;
use crate::domain::circuit::OpenTimes;
use crate::domain::id::SubscriptionId;
use crate::domain::lane::{
    Answer, Awaits, DeferReason, Freshness, LaneState, Pass, Standing, Verdict,
};
use crate::domain::subscription::{RateLimit, Scope};
use crate::domain::timestamp::UnixMillis;
use crate::ports::{RateAsk, SharedRates};

/// How long nobody is asked about rates after nobody answered.
const AWAY_FOR: Duration = Duration::from_secs(1);

/// The bounds of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EndpointLimits {
    /// Most requests at once.
    pub in_flight_max: u32,
    /// Its rate, over all replicas; `None` for no limit.
    pub rate: Option<RateLimit>,
    /// How long its circuit stays open.
    pub open: OpenTimes,
    /// When a person last changed it: then its lane begins afresh.
    pub changed_at: UnixMillis,
}

/// The bounds over all endpoints.
#[derive(Clone)]
pub struct AdmitSettings {
    /// Most requests at once.
    pub in_flight_max: usize,
    /// Most deliveries in memory for endpoints that take long to answer.
    pub slow_max: usize,
    /// Who keeps rates over all replicas; `None` when there are no others.
    pub rates: Option<Arc<dyn SharedRates>>,
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
    pass: Pass,
}

/// The lanes of one process.
pub struct Admit<W> {
    inner: Arc<Inner<W>>,
}

struct Inner<W> {
    in_flight_max: usize,
    rates: Option<Arc<dyn SharedRates>>,
    clock: LaneClock,
    state: Mutex<State<W>>,
    granted: mpsc::UnboundedSender<Granted<W>>,
    timer_changed: Notify,
    asked: Notify,
}

/// Counts for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdmitCounts {
    /// Requests at this moment.
    pub in_flight: usize,
    /// Work that waits in lanes.
    pub held: usize,
    /// Endpoints of each [`Standing`].
    pub endpoints: [usize; Standing::ALL.len()],
}

impl<W> Clone for Admit<W> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<W> Admit<W> {
    /// Lanes within these bounds, and the channel on which work that waited comes back.
    pub fn new(settings: AdmitSettings) -> (Self, mpsc::UnboundedReceiver<Granted<W>>) {
        let (granted, receiver) = mpsc::unbounded_channel();
        let others = match &settings.rates {
            None => Others::Nobody,
            Some(rates) => Others::Asked(rates.replicas()),
        };
        let inner = Inner {
            in_flight_max: settings.in_flight_max,
            rates: settings.rates,
            clock: LaneClock(Instant::now()),
            state: Mutex::new(State::new(others, settings.slow_max)),
            granted,
            timer_changed: Notify::new(),
            asked: Notify::new(),
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
        let inner = &self.inner;
        let now = inner.clock.elapsed();
        let mut state = inner.lock();
        if state.closed {
            return Admission::Refuse(work);
        }
        let slot = state.in_flight < inner.in_flight_max;
        if state.in_flight == 0 && state.held == 0 {
            // There is something to look at again.
            inner.timer_changed.notify_one();
        }
        let (whose, offered) = ((tenant, endpoint), (work, freshness));
        match state.offer(whose, limits, offered, (now, &inner.clock), slot) {
            Verdict::Start(work, pass) => {
                state.in_flight += 1;
                Admission::Now(work, inner.permit(endpoint.clone(), pass))
            }
            Verdict::Wait(awaits) => {
                state.held += 1;
                if awaits == Awaits::Room {
                    state.make_ready(endpoint);
                }
                inner.ring(state.wait(endpoint, awaits));
                inner.pump(&mut state, now);
                Admission::Queued
            }
            Verdict::Defer(work, until, reason) => Admission::Defer {
                work,
                after: until.saturating_sub(now),
                reason,
            },
        }
    }

    /// Wakes lanes whose rate allows more, and turns away what has waited too long. Runs until
    /// the lanes are closed.
    pub async fn run_timers(&self) {
        let inner = &self.inner;
        loop {
            let changed = inner.timer_changed.notified();
            let next = {
                let mut state = inner.lock();
                if state.closed {
                    return;
                }
                let now = inner.clock.elapsed();
                state.ask_again(now);
                state.fire_timers(now);
                inner.pump(&mut state, now);
                state.look(now, |verdict| inner.turn_away(verdict, now));
                state.next_timer()
            };
            match next {
                // Idle lanes are looked for all the same.
                None => drop(tokio::time::timeout(IDLE_FOR, changed).await),
                Some(at) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep_until(inner.clock.0 + at) => {}
                    }
                }
            }
        }
    }

    /// Asks about the rates of endpoints: all that come up while one question is under way go
    /// together into the next. Runs until the lanes are closed.
    pub async fn run_rates(&self) {
        let inner = &self.inner;
        let Some(rates) = &inner.rates else {
            return std::future::pending().await;
        };
        inner.lock().forget_asks();
        loop {
            let asked = inner.asked.notified();
            let asks = {
                let mut state = inner.lock();
                if state.closed {
                    return;
                }
                let now = inner.clock.elapsed();
                inner.pump(&mut state, now);
                state.asks(now, inner.in_flight_max)
            };
            if asks.is_empty() {
                asked.await;
            } else {
                inner.ask(rates.as_ref(), &asks).await;
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
        self.inner.asked.notify_one();
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
            let standing = entry.lane.state(now).standing();
            counts.endpoints[standing as usize] += 1;
        }
        counts
    }
}

impl<W> Admit<W> {
    /// How all lanes are.
    pub fn lanes(&self) -> HashMap<SubscriptionId, LaneState> {
        let now = self.inner.clock.elapsed();
        let state = self.inner.lock();
        let lanes = state.lanes.iter();
        lanes
            .map(|(id, entry)| (id.clone(), entry.lane.state(now)))
            .collect()
    }

    /// How the lane of `endpoint` is; `None` when there is none.
    pub fn lane(&self, endpoint: &SubscriptionId) -> Option<LaneState> {
        let now = self.inner.clock.elapsed();
        let state = self.inner.lock();
        state.lanes.get(endpoint).map(|entry| entry.lane.state(now))
    }
}

impl<W> Inner<W> {
    fn lock(&self) -> MutexGuard<'_, State<W>> {
        // A panic while the lock was held cannot leave a half-made change that matters:
        // every change below is complete before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn permit(self: &Arc<Self>, endpoint: SubscriptionId, pass: Pass) -> Permit<W> {
        Permit {
            inner: Arc::clone(self),
            endpoint,
            pass,
        }
    }

    fn ring(&self, rings: Rings) {
        if rings.timers {
            self.timer_changed.notify_one();
        }
        if rings.asks {
            self.asked.notify_one();
        }
    }

    /// Starts what may start: one from each ready lane in turn, while there is room.
    fn pump(self: &Arc<Self>, state: &mut State<W>, now: Duration) {
        while state.in_flight < self.in_flight_max {
            let Some(endpoint) = state.ready.pop() else {
                return;
            };
            match state.next(&endpoint, now) {
                Some(Verdict::Start(work, pass)) => {
                    state.in_flight += 1;
                    state.held -= 1;
                    state.make_ready(&endpoint);
                    let permit = self.permit(endpoint, pass);
                    self.grant(Granted::Start(work, permit));
                }
                Some(verdict @ Verdict::Defer(..)) => {
                    state.held -= 1;
                    state.make_ready(&endpoint);
                    self.turn_away(verdict, now);
                }
                Some(Verdict::Wait(awaits)) => self.ring(state.wait(&endpoint, awaits)),
                None => {}
            }
        }
    }

    fn turn_away(&self, verdict: Verdict<W>, now: Duration) {
        if let Verdict::Defer(work, until, reason) = verdict {
            let after = until.saturating_sub(now);
            self.grant(Granted::Defer {
                work,
                after,
                reason,
            });
        }
    }

    async fn ask(self: &Arc<Self>, rates: &dyn SharedRates, asks: &[RateAsk]) {
        let asked_at = self.clock.elapsed();
        let answer = rates.take(asks).await;
        let now = self.clock.elapsed();
        let mut state = self.lock();
        match answer {
            Ok(answers) => state.answered(asks, &answers, rates.replicas(), (asked_at, now)),
            Err(error) => {
                tracing::debug!(%error, "rates are kept by shares");
                state.unanswered(asks, rates.replicas(), now + AWAY_FOR);
            }
        }
        self.pump(&mut state, now);
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

impl<W> Permit<W> {
    /// Tells the lane how the attempt went; `paused_for` is how long the endpoint wants
    /// no more.
    pub fn report(&self, answer: Answer, paused_for: Option<Duration>) {
        let now = self.inner.clock.elapsed();
        let mut state = self.inner.lock();
        if let Some(entry) = state.lanes.get_mut(&self.endpoint) {
            let until = paused_for.map(|pause| now + pause);
            entry.lane.answered(self.pass, answer, now, until);
        }
    }
}

impl<W> Drop for Permit<W> {
    fn drop(&mut self) {
        let now = self.inner.clock.elapsed();
        let mut state = self.inner.lock();
        state.in_flight -= 1;
        if let Some(entry) = state.lanes.get_mut(&self.endpoint) {
            entry.lane.release(self.pass, now);
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
