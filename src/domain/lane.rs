//! The lane of one endpoint: what may be sent to it now, what waits, what comes later.
//!
//! A pure state machine over a monotonic clock that the caller reads, with the endpoint's
//! [`Window`] and [`Circuit`] in it. It decides; the waiting, the rate limiter and the
//! permits are the business of `pipeline::admit`. A lane holds in memory what its endpoint
//! will take within a few seconds, and hands out spread times to what it turns away, so
//! that a backlog returns paced.

mod state;
mod under_way;
mod verdict;

use std::collections::VecDeque;
use std::time::Duration;

pub use state::{CircuitState, LaneState, Standing};
pub use under_way::Pass;
pub use verdict::{Answer, Awaits, DeferReason, Freshness, RateWait, Room, Verdict};

use under_way::UnderWay;

use super::circuit::{Circuit, OpenTimes, Passage};
use super::window::Window;

/// What a lane holds at least, however slow its endpoint.
const HELD_MIN: usize = 1;
/// What a lane holds at most, however fast its endpoint.
const HELD_MAX: usize = 2048;
/// How much of its endpoint's pace a lane may always hold. What is turned away because it would
/// be more comes back after as long at the soonest.
pub const HELD_FOR: Duration = Duration::from_secs(1);
/// How much longer work waits in memory than it should: the pace is only measured.
const HELD_BEYOND: Duration = Duration::from_secs(1);
/// How long work waits in memory for its rate alone.
const RATE_WAIT_MAX: Duration = Duration::from_secs(2);
/// The longest time between two that are turned away.
const INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// How far ahead times are handed out. The pace is only measured, and an endpoint that was
/// slow may recover: what comes back too soon is turned away once more.
const SPREAD_MAX: Duration = Duration::from_secs(900);
/// What an open circuit turns away comes back over at most so many times as long as it stays
/// open: soon after a short outage, and seldom, to no avail, in a long one.
const OPEN_SPREAD: u32 = 10;
/// From one of those to the next, at least.
const OPEN_INTERVAL: Duration = Duration::from_millis(20);
/// How much faster than its pace work is called back: who comes early is turned away once more,
/// and who comes late leaves a gap. A broker's waits bring what is spread over a quarter of a
/// time in one heap, and that a little late.
const HASTE: f64 = 1.25;
/// Fresh work goes first, but every so many turns returning work does.
const RETURNING_TURN: u32 = 8;
/// How long the first attempt of all may take before its endpoint is taken for a slow one.
const SUSPECT_AFTER: Duration = Duration::from_millis(250);
/// The time of an attempt that is assumed before one was measured.
const ATTEMPT_TIME_ASSUMED: Duration = Duration::from_millis(20);
/// The bounds of a lane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LaneLimits {
    /// Most requests at once: the ceiling of the adaptive window.
    pub in_flight_max: u32,
    /// Sustained requests per second, of this process's share; `None` for no limit.
    pub per_second: Option<f64>,
    /// How long its circuit stays open.
    pub open: OpenTimes,
}

/// One endpoint's state. Times are durations since an origin that the caller keeps.
#[derive(Debug)]
pub struct Lane<W> {
    limits: LaneLimits,
    window: Window,
    circuit: Circuit,
    fresh: VecDeque<Held<W>>,
    returning: VecDeque<Held<W>>,
    under_way: UnderWay,
    paused_until: Duration,
    attempt_time: Duration,
    /// Whether an attempt has ended: before, its time is assumed.
    is_known: bool,
    /// Until when times are handed out to fresh work. The line of returning work is another: it
    /// has come to the front of this one before, if in a heap of those near it.
    fresh_until: Duration,
    returning_until: Duration,
    /// How much the circuit has turned away since it opened.
    turned_away: u32,
    last_used: Duration,
    turns: u32,
}

/// Work that waits in memory.
#[derive(Debug)]
struct Held<W> {
    work: W,
    since: Duration,
}

impl<W> Lane<W> {
    /// An empty lane.
    pub fn new(limits: LaneLimits, now: Duration) -> Self {
        Self {
            limits,
            window: Window::new(limits.in_flight_max),
            circuit: Circuit::new(limits.open),
            fresh: VecDeque::new(),
            returning: VecDeque::new(),
            under_way: UnderWay::default(),
            paused_until: Duration::ZERO,
            attempt_time: ATTEMPT_TIME_ASSUMED,
            is_known: false,
            fresh_until: Duration::ZERO,
            returning_until: Duration::ZERO,
            turned_away: 0,
            last_used: now,
            turns: 0,
        }
    }

    /// Changes the bounds: from the next decision on.
    pub fn set_limits(&mut self, limits: LaneLimits) {
        self.limits = limits;
        self.window.set_ceiling(limits.in_flight_max);
        self.circuit.set_times(limits.open);
        self.forget_handed_out();
    }

    /// Forgets how the endpoint was: a person has changed it. What waits and what is under
    /// way stays.
    pub fn begin_afresh(&mut self) {
        self.window = Window::new(self.limits.in_flight_max);
        self.circuit = Circuit::new(self.limits.open);
        self.paused_until = Duration::ZERO;
        self.attempt_time = ATTEMPT_TIME_ASSUMED;
        self.is_known = false;
        self.forget_handed_out();
    }

    /// Offers work. `rate` takes one from the rate limiter.
    pub fn offer(
        &mut self,
        work: W,
        freshness: Freshness,
        now: Duration,
        room: Room,
        rate: impl FnOnce() -> Result<(), RateWait>,
    ) -> Verdict<W> {
        self.last_used = now;
        let passage = match self.closed_until(now) {
            Err((until, reason)) => return self.defer((work, freshness), now, until, reason),
            Ok(passage) => passage,
        };
        if self.is_full(freshness, now, room.held_for) || self.occupied() >= room.occupied {
            let reason = self.bottleneck(passage, now);
            return self.defer((work, freshness), now, now + HELD_FOR, reason);
        }
        let may_start = self.held() == 0 && self.may_start(passage, room);
        let awaits = match may_start.then(rate) {
            Some(Ok(())) => return self.start(work, now, passage),
            Some(Err(RateWait::After(wait))) if wait > RATE_WAIT_MAX => {
                let (soonest, reason) = (now.saturating_add(wait), DeferReason::RateLimited);
                return self.defer((work, freshness), now, soonest, reason);
            }
            Some(Err(RateWait::After(wait))) => Awaits::Time(now + wait),
            Some(Err(RateWait::Asked)) => Awaits::Rate,
            None => Awaits::Room,
        };
        let held = Held { work, since: now };
        match freshness {
            Freshness::Fresh => self.fresh.push_back(held),
            Freshness::Returning => self.returning.push_back(held),
        }
        Verdict::Wait(awaits)
    }

    /// The next work to start, if there is any and it may.
    pub fn next(
        &mut self,
        now: Duration,
        room: Room,
        rate: impl FnOnce() -> Result<(), RateWait>,
    ) -> Verdict<W> {
        if self.held() == 0 {
            return Verdict::Wait(Awaits::Room);
        }
        let passage = match self.closed_until(now) {
            Err((until, reason)) => return self.defer_next(now, until, reason),
            Ok(passage) => passage,
        };
        if !self.may_start(passage, room) {
            return Verdict::Wait(Awaits::Room);
        }
        match rate() {
            Ok(()) => {}
            Err(RateWait::After(wait)) if wait > RATE_WAIT_MAX => {
                let soonest = now.saturating_add(wait);
                return self.defer_next(now, soonest, DeferReason::RateLimited);
            }
            Err(RateWait::After(wait)) => return Verdict::Wait(Awaits::Time(now + wait)),
            Err(RateWait::Asked) => return Verdict::Wait(Awaits::Rate),
        }
        match self.pop() {
            Some((work, _)) => self.start(work, now, passage),
            None => Verdict::Wait(Awaits::Room),
        }
    }

    /// Turns away one that has waited too long, or is more than the lane may hold by now; to be
    /// asked again until there is none. What waits for room in the process alone is not to be
    /// asked about.
    pub fn next_excess(&mut self, now: Duration, room: Room) -> Option<Verdict<W>> {
        let too_long = room.held_for + HELD_BEYOND;
        let is_old = |held: &Held<W>| now.saturating_sub(held.since) >= too_long;
        if self.free() == 0 && self.under_way.oldest_unanswered().is_none() {
            // It waits for the store, which would have to take what is turned away.
            return None;
        }
        let most = self.room(now, room.held_for);
        let crowded = self.occupied() > room.occupied;
        let excess = if self.returning.front().is_some_and(is_old) {
            (self.returning.pop_front()?.work, Freshness::Returning)
        } else if self.fresh.front().is_some_and(is_old) {
            (self.fresh.pop_front()?.work, Freshness::Fresh)
        } else if self.returning.len() > most || crowded && !self.returning.is_empty() {
            (self.returning.pop_back()?.work, Freshness::Returning)
        } else if self.fresh.len() > 2 * most || crowded {
            (self.fresh.pop_back()?.work, Freshness::Fresh)
        } else {
            return None;
        };
        let reason = self.bottleneck(self.circuit.passage(now), now);
        Some(self.defer(excess, now, now + HELD_FOR, reason))
    }

    /// A request ended with `answer`; until `paused_until` the endpoint wants no more.
    pub fn answered(
        &mut self,
        pass: Pass,
        answer: Answer,
        now: Duration,
        paused_until: Option<Duration>,
    ) {
        self.is_known = true;
        self.under_way.answered(pass);
        let took = now.saturating_sub(pass.began);
        // An exponential average over about eight attempts.
        self.attempt_time = (self.attempt_time * 7 + took) / 8;
        if let Some(until) = paused_until {
            self.paused_until = self.paused_until.max(until);
        }
        self.last_used = now;
        match answer {
            Answer::Success => {
                if self.circuit.succeeded() {
                    // How it was before says nothing about how it is now.
                    self.window.restart();
                    self.attempt_time = took;
                    self.forget_handed_out();
                } else {
                    self.window.succeeded();
                }
                return;
            }
            Answer::Failure => {}
            Answer::Overload => self.window.overloaded(pass.began, now),
        }
        if self.circuit.failed(now, pass.is_probe) {
            self.turned_away = 0;
        }
    }

    /// A request is over, whether or not it was answered.
    pub fn release(&mut self, pass: Pass, now: Duration) {
        self.under_way.end(pass);
        // One that was answered has moved the circuit on already.
        if pass.is_probe
            && self.circuit.passage(now) == Passage::AfterProbe
            && !self.under_way.has_probe()
        {
            self.circuit.probe_lost(now);
        }
    }

    /// Empties the lane.
    pub fn take_held(&mut self) -> Vec<W> {
        let returning = std::mem::take(&mut self.returning);
        let all = self.fresh.drain(..).chain(returning);
        all.map(|held| held.work).collect()
    }

    /// Requests that may start beside those under way, as far as the window goes.
    pub fn free(&self) -> u32 {
        self.window.limit().saturating_sub(self.in_flight())
    }

    /// Requests at this moment.
    pub fn in_flight(&self) -> u32 {
        u32::try_from(self.under_way.len()).unwrap_or(u32::MAX)
    }

    /// Work that waits in memory.
    pub fn held(&self) -> usize {
        self.fresh.len() + self.returning.len()
    }

    /// Work in memory, waiting or under way.
    pub fn occupied(&self) -> usize {
        self.held() + self.under_way.len()
    }

    /// Whether an attempt takes so long that work stays in memory for it. One that is not known
    /// yet is suspected sooner.
    pub fn is_slow(&self, now: Duration) -> bool {
        let limit = if self.is_known {
            HELD_FOR
        } else {
            SUSPECT_AFTER
        };
        self.attempt_time(now) > limit
    }

    /// Whether the endpoint asked to be left alone.
    pub fn is_paused(&self, now: Duration) -> bool {
        now < self.paused_until
    }

    /// Whether the endpoint fails, and little or nothing passes.
    pub fn is_open(&self) -> bool {
        !self.circuit.is_closed()
    }

    /// Whether nothing would be forgotten by dropping the lane now.
    pub fn is_idle(&self, now: Duration, for_at_least: Duration) -> bool {
        self.under_way.is_empty()
            && self.held() == 0
            && now >= self.paused_until
            && now >= self.fresh_until.max(self.returning_until)
            && now.saturating_sub(self.last_used) >= for_at_least.max(self.circuit.open_for() * 2)
    }

    /// How requests may pass; or until when none may, and why.
    fn closed_until(&self, now: Duration) -> Result<Passage, (Duration, DeferReason)> {
        let passage = self.circuit.passage(now);
        let paused_until = self.paused_until;
        match passage {
            Passage::From(until) if until >= paused_until => Err((until, DeferReason::CircuitOpen)),
            _ if now < paused_until => Err((paused_until, DeferReason::Paused)),
            passage => Ok(passage),
        }
    }

    fn may_start(&self, passage: Passage, room: Room) -> bool {
        room.slot
            && passage != Passage::AfterProbe
            && self.free() > 0
            && self.under_way.len() < room.occupied
    }

    fn start(&mut self, work: W, now: Duration, passage: Passage) -> Verdict<W> {
        let is_probe = passage == Passage::Probe;
        if is_probe {
            self.circuit.probe();
        }
        let pass = self.under_way.begin(now, is_probe);
        self.last_used = now;
        Verdict::Start(work, pass)
    }

    /// What keeps work waiting in a lane that takes some.
    fn bottleneck(&self, passage: Passage, now: Duration) -> DeferReason {
        if passage != Passage::Free {
            return DeferReason::CircuitOpen;
        }
        match self.limits.per_second {
            Some(per_second) if per_second < self.window_pace(now) => DeferReason::RateLimited,
            _ => DeferReason::Busy,
        }
    }

    /// Requests per second that the endpoint takes: the slower of its rate and of its
    /// window at the time an attempt takes.
    fn pace(&self, now: Duration) -> f64 {
        let window = self.window_pace(now);
        self.limits
            .per_second
            .map_or(window, |rate| rate.min(window))
    }

    fn window_pace(&self, now: Duration) -> f64 {
        let attempt = self.attempt_time(now).max(Duration::from_micros(100));
        f64::from(self.window.limit()) / attempt.as_secs_f64()
    }

    /// One that is still under way tells about the time it takes, too: an endpoint that never
    /// answers is known before its first attempt ends.
    fn attempt_time(&self, now: Duration) -> Duration {
        let oldest = self.under_way.oldest_unanswered();
        let age = oldest.map_or(Duration::ZERO, |began| now.saturating_sub(began));
        self.attempt_time.max(age)
    }

    /// Fresh work goes before returning work, so it also finds room when that is full.
    fn is_full(&self, freshness: Freshness, now: Duration, held_for: Duration) -> bool {
        // Turning fresh work away costs a durable write and a second at least, and the pace is
        // only measured: it gets twice the room.
        let held = match freshness {
            Freshness::Fresh => self.fresh.len() / 2,
            // One always finds room, so that a storm of fresh work starves nobody.
            Freshness::Returning if self.returning.is_empty() => 0,
            Freshness::Returning => self.held(),
        };
        held >= self.room(now, held_for)
    }

    /// How much the lane may hold: what its endpoint takes within `held_for`.
    fn room(&self, now: Duration, held_for: Duration) -> usize {
        // Cut off, which is meant: a bound, within HELD_MIN and HELD_MAX.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let room = (self.pace(now) * held_for.as_secs_f64()) as usize;
        room.clamp(HELD_MIN, HELD_MAX)
    }

    fn pop(&mut self) -> Option<(W, Freshness)> {
        self.turns = self.turns.wrapping_add(1);
        let returning = !self.returning.is_empty()
            && (self.fresh.is_empty() || self.turns.is_multiple_of(RETURNING_TURN));
        Some(if returning {
            (self.returning.pop_front()?.work, Freshness::Returning)
        } else {
            (self.fresh.pop_front()?.work, Freshness::Fresh)
        })
    }

    fn defer_next(&mut self, now: Duration, soonest: Duration, reason: DeferReason) -> Verdict<W> {
        match self.pop() {
            Some(turned_away) => self.defer(turned_away, now, soonest, reason),
            None => Verdict::Wait(Awaits::Room),
        }
    }

    fn defer(
        &mut self,
        (work, freshness): (W, Freshness),
        now: Duration,
        soonest: Duration,
        reason: DeferReason,
    ) -> Verdict<W> {
        let until = match reason {
            DeferReason::CircuitOpen => self.spread(soonest),
            _ => self.hand_out(freshness, now, soonest),
        };
        Verdict::Defer(work, until, reason)
    }

    /// Some time from `soonest` on, the first at once: nobody knows what an endpoint that is
    /// away will take when it is back. From the end it begins again at the beginning.
    fn spread(&mut self, soonest: Duration) -> Duration {
        let span = self.circuit.open_for().saturating_mul(OPEN_SPREAD);
        let interval = match self.limits.per_second {
            Some(per_second) => interval_of(per_second).max(OPEN_INTERVAL),
            None => OPEN_INTERVAL,
        };
        let places = span.min(SPREAD_MAX).as_millis() / interval.as_millis().max(1);
        let place = u128::from(self.turned_away) % places.max(1);
        self.turned_away = self.turned_away.wrapping_add(1);
        // There are no more places than milliseconds in the longest span.
        let place = u32::try_from(place).unwrap_or(0);
        soonest.saturating_add(interval.saturating_mul(place))
    }

    /// The next free time: not before `soonest`, and after all that was handed out, one
    /// interval of the endpoint's pace apart.
    fn hand_out(&mut self, freshness: Freshness, now: Duration, soonest: Duration) -> Duration {
        let interval = interval_of(self.pace(now) * HASTE);
        let line = match freshness {
            Freshness::Fresh => &mut self.fresh_until,
            Freshness::Returning => &mut self.returning_until,
        };
        let ahead = soonest.saturating_add(SPREAD_MAX.max(interval.saturating_mul(64)));
        let from = if *line > ahead {
            soonest
        } else {
            soonest.max(*line)
        };
        *line = from.saturating_add(interval);
        *line
    }

    /// Times handed out at the old pace bind nobody.
    fn forget_handed_out(&mut self) {
        (self.fresh_until, self.returning_until) = (Duration::ZERO, Duration::ZERO);
    }
}

fn interval_of(per_second: f64) -> Duration {
    let interval = Duration::try_from_secs_f64(1.0 / per_second);
    interval.unwrap_or(INTERVAL_MAX).min(INTERVAL_MAX)
}

#[cfg(test)]
mod tests;
