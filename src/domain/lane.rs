//! The lane of one endpoint: what may be sent to it now, what waits, what comes later.
//!
//! A pure state machine over a monotonic clock that the caller reads. It decides; the
//! waiting, the rate limiter and the permits are the business of `pipeline::admit`.
//! A lane holds in memory what its endpoint will take within a second or two, and hands
//! out growing times to what it turns away, so that a backlog returns paced.

use std::collections::VecDeque;
use std::time::Duration;

/// What a lane holds at least, however slow its endpoint.
const HELD_MIN: usize = 1;
/// What a lane holds at most, however fast its endpoint.
const HELD_MAX: usize = 2048;
/// How much of its endpoint's pace a lane holds.
const HELD_FOR: Duration = Duration::from_secs(1);
/// What has to wait longer than this for its rate waits at rest, not in memory.
const RATE_WAIT_MAX: Duration = Duration::from_secs(2);
/// The longest time between two that are turned away.
const INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// How far ahead times are handed out. The pace is only measured, and an endpoint that was
/// slow may recover: what comes back too soon is turned away once more.
const SPREAD_MAX: Duration = Duration::from_secs(900);
/// Fresh work goes first, but every so many turns returning work does.
const RETURNING_TURN: u32 = 8;
/// The time of an attempt that is assumed before one was measured.
const ATTEMPT_TIME_ASSUMED: Duration = Duration::from_millis(20);

/// Whether work is an event's first attempt or comes back for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Straight from an event.
    Fresh,
    /// Due again.
    Returning,
}

/// The bounds of a lane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LaneLimits {
    /// Most requests at once.
    pub in_flight_max: u32,
    /// Sustained requests per second; `None` for no limit.
    pub per_second: Option<f64>,
}

/// Why work is turned away for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeferReason {
    /// The endpoint has reached its rate.
    RateLimited,
    /// The endpoint asked to be left alone.
    Paused,
    /// As much waits as the endpoint will take soon.
    Busy,
}

impl DeferReason {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::RateLimited, Self::Paused, Self::Busy];

    /// The reason in one word, for metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Paused => "paused",
            Self::Busy => "busy",
        }
    }
}

/// The answer to an offer or a request for the next work.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<W> {
    /// Send it now; the lane counts it as in flight.
    Start(W),
    /// It waits in the lane, or there is nothing to start.
    Wait(Option<Duration>),
    /// Come back at this time.
    Defer(W, Duration, DeferReason),
}

/// One endpoint's state. Times are durations since an origin that the caller keeps.
#[derive(Debug)]
pub struct Lane<W> {
    limits: LaneLimits,
    fresh: VecDeque<W>,
    returning: VecDeque<W>,
    in_flight: u32,
    paused_until: Duration,
    attempt_time: Duration,
    handed_out_until: Duration,
    last_used: Duration,
    turns: u32,
}

impl<W> Lane<W> {
    /// An empty lane.
    pub fn new(limits: LaneLimits, now: Duration) -> Self {
        Self {
            limits,
            fresh: VecDeque::new(),
            returning: VecDeque::new(),
            in_flight: 0,
            paused_until: Duration::ZERO,
            attempt_time: ATTEMPT_TIME_ASSUMED,
            handed_out_until: Duration::ZERO,
            last_used: now,
            turns: 0,
        }
    }

    /// The bounds in force.
    pub fn limits(&self) -> LaneLimits {
        self.limits
    }

    /// Changes the bounds: from the next decision on.
    pub fn set_limits(&mut self, limits: LaneLimits) {
        self.limits = limits;
        // Times handed out at the old pace bind nobody.
        self.handed_out_until = Duration::ZERO;
    }

    /// Offers work. `slot` says whether the process has room for a request; `rate` takes
    /// one from the rate limit or says how long until there is one.
    pub fn offer(
        &mut self,
        work: W,
        freshness: Freshness,
        now: Duration,
        slot: bool,
        rate: impl FnOnce() -> Result<(), Duration>,
    ) -> Verdict<W> {
        self.last_used = now;
        if now < self.paused_until {
            return self.defer(work, self.paused_until, DeferReason::Paused);
        }
        if self.is_full(freshness) {
            let reason = match self.limits.per_second {
                Some(per_second) if per_second < self.window_pace() => DeferReason::RateLimited,
                _ => DeferReason::Busy,
            };
            return self.defer(work, now + HELD_FOR, reason);
        }
        let may_start = slot && self.held() == 0 && self.in_flight < self.limits.in_flight_max;
        let wait = match may_start.then(rate) {
            Some(Ok(())) => {
                self.in_flight += 1;
                return Verdict::Start(work);
            }
            Some(Err(wait)) if wait > RATE_WAIT_MAX => {
                return self.defer(work, now.saturating_add(wait), DeferReason::RateLimited);
            }
            Some(Err(wait)) => Some(now + wait),
            None => None,
        };
        match freshness {
            Freshness::Fresh => self.fresh.push_back(work),
            Freshness::Returning => self.returning.push_back(work),
        }
        Verdict::Wait(wait)
    }

    /// The next work to start, if there is any and it may.
    pub fn next(
        &mut self,
        now: Duration,
        rate: impl FnOnce() -> Result<(), Duration>,
    ) -> Verdict<W> {
        if self.held() == 0 || self.in_flight >= self.limits.in_flight_max {
            return Verdict::Wait(None);
        }
        if now < self.paused_until {
            return self.defer_next(self.paused_until, DeferReason::Paused);
        }
        match rate() {
            Ok(()) => {}
            Err(wait) if wait > RATE_WAIT_MAX => {
                return self.defer_next(now.saturating_add(wait), DeferReason::RateLimited);
            }
            Err(wait) => return Verdict::Wait(Some(now + wait)),
        }
        match self.pop() {
            Some(work) => {
                self.in_flight += 1;
                self.last_used = now;
                Verdict::Start(work)
            }
            None => Verdict::Wait(None),
        }
    }

    /// An attempt ended: how long it took, and until when the endpoint wants no more.
    pub fn finished(&mut self, now: Duration, took: Duration, paused_until: Option<Duration>) {
        // An exponential average over about eight attempts.
        self.attempt_time = (self.attempt_time * 7 + took) / 8;
        if let Some(until) = paused_until {
            self.paused_until = self.paused_until.max(until);
        }
        self.last_used = now;
    }

    /// A permit came back.
    pub fn release(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Empties the lane.
    pub fn take_held(&mut self) -> Vec<W> {
        let returning = std::mem::take(&mut self.returning);
        self.fresh.drain(..).chain(returning).collect()
    }

    /// Requests at this moment.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Work that waits in memory.
    pub fn held(&self) -> usize {
        self.fresh.len() + self.returning.len()
    }

    /// Whether the endpoint asked to be left alone.
    pub fn is_paused(&self, now: Duration) -> bool {
        now < self.paused_until
    }

    /// Whether nothing would be forgotten by dropping the lane now.
    pub fn is_idle(&self, now: Duration, for_at_least: Duration) -> bool {
        self.in_flight == 0
            && self.held() == 0
            && now >= self.paused_until
            && now >= self.handed_out_until
            && now.saturating_sub(self.last_used) >= for_at_least
    }

    /// Requests per second that the endpoint takes: the slower of its rate and of its
    /// concurrency at the time an attempt takes.
    fn pace(&self) -> f64 {
        let window = self.window_pace();
        self.limits
            .per_second
            .map_or(window, |rate| rate.min(window))
    }

    fn window_pace(&self) -> f64 {
        let attempt = self.attempt_time.max(Duration::from_micros(100));
        f64::from(self.limits.in_flight_max) / attempt.as_secs_f64()
    }

    /// Fresh work goes before returning work, so it also finds room when that is full.
    fn is_full(&self, freshness: Freshness) -> bool {
        // Turning fresh work away costs a durable write and a second at least, and the pace is
        // only measured: it gets twice the room.
        let held = match freshness {
            Freshness::Fresh => self.fresh.len() / 2,
            // One always finds room, so that a storm of fresh work starves nobody.
            Freshness::Returning if self.returning.is_empty() => 0,
            Freshness::Returning => self.held(),
        };
        // Cut off, which is meant: a bound, within HELD_MIN and HELD_MAX.
        #[allow(clippy::cast_possible_truncation)]
        let room = (self.pace() * HELD_FOR.as_secs_f64()) as usize;
        held >= room.clamp(HELD_MIN, HELD_MAX)
    }

    fn pop(&mut self) -> Option<W> {
        self.turns = self.turns.wrapping_add(1);
        if self.turns.is_multiple_of(RETURNING_TURN)
            && let Some(work) = self.returning.pop_front()
        {
            return Some(work);
        }
        self.fresh
            .pop_front()
            .or_else(|| self.returning.pop_front())
    }

    fn defer_next(&mut self, soonest: Duration, reason: DeferReason) -> Verdict<W> {
        match self.pop() {
            Some(work) => self.defer(work, soonest, reason),
            None => Verdict::Wait(None),
        }
    }

    /// Hands out the next free time: not before `soonest`, and after all that was handed out,
    /// one interval of the endpoint's pace apart.
    fn defer(&mut self, work: W, soonest: Duration, reason: DeferReason) -> Verdict<W> {
        let interval = Duration::try_from_secs_f64(1.0 / self.pace())
            .unwrap_or(INTERVAL_MAX)
            .min(INTERVAL_MAX);
        let ahead = soonest.saturating_add(SPREAD_MAX.max(interval.saturating_mul(64)));
        let from = match self.handed_out_until {
            handed_out if handed_out > ahead => soonest,
            handed_out => handed_out.max(soonest),
        };
        let until = from.saturating_add(interval);
        self.handed_out_until = until;
        Verdict::Defer(work, until, reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn lane(in_flight_max: u32, per_second: Option<f64>) -> Lane<u32> {
        let limits = LaneLimits {
            in_flight_max,
            per_second,
        };
        Lane::new(limits, NOW)
    }

    fn offer(lane: &mut Lane<u32>, work: u32) -> Verdict<u32> {
        lane.offer(work, Freshness::Fresh, NOW, true, || Ok(()))
    }

    #[test]
    fn starts_up_to_the_window_and_then_in_order() {
        let mut lane = lane(2, None);
        assert_eq!(offer(&mut lane, 1), Verdict::Start(1));
        assert_eq!(offer(&mut lane, 2), Verdict::Start(2));
        assert_eq!(offer(&mut lane, 3), Verdict::Wait(None));
        assert_eq!(offer(&mut lane, 4), Verdict::Wait(None));
        assert_eq!(lane.next(NOW, || Ok(())), Verdict::Wait(None));
        lane.release();
        assert_eq!(lane.next(NOW, || Ok(())), Verdict::Start(3));
        lane.release();
        assert_eq!(lane.next(NOW, || Ok(())), Verdict::Start(4));
    }

    #[test]
    fn fresh_work_goes_before_returning_work() {
        let mut lane = lane(1, None);
        assert_eq!(offer(&mut lane, 0), Verdict::Start(0));
        let returning = lane.offer(1, Freshness::Returning, NOW, true, || Ok(()));
        assert_eq!(returning, Verdict::Wait(None));
        assert_eq!(offer(&mut lane, 2), Verdict::Wait(None));
        lane.release();
        assert_eq!(lane.next(NOW, || Ok(())), Verdict::Start(2));
    }

    #[test]
    fn a_reached_rate_says_when_to_ask_again() {
        let mut lane = lane(4, Some(10.0));
        let wait = Duration::from_millis(100);
        let verdict = lane.offer(1, Freshness::Fresh, NOW, true, || Err(wait));
        assert_eq!(verdict, Verdict::Wait(Some(NOW + wait)));
        assert_eq!(
            lane.next(NOW, || Err(wait)),
            Verdict::Wait(Some(NOW + wait))
        );
        assert_eq!(lane.next(NOW + wait, || Ok(())), Verdict::Start(1));
    }

    #[test]
    fn holds_about_a_second_and_spreads_the_rest() {
        let mut lane = lane(4, Some(20.0));
        let mut untils = Vec::new();
        for work in 0..100 {
            match lane.offer(work, Freshness::Fresh, NOW, true, || Err(HELD_FOR)) {
                Verdict::Wait(_) => {}
                Verdict::Defer(_, until, reason) => {
                    assert_eq!(reason, DeferReason::RateLimited);
                    untils.push(until);
                }
                Verdict::Start(_) => panic!("the rate was reached"),
            }
        }
        assert_eq!(lane.held(), 40);
        assert_eq!(untils.len(), 60);
        for pair in untils.windows(2) {
            assert_eq!(pair[1] - pair[0], Duration::from_millis(50));
        }
    }

    #[test]
    fn a_pause_turns_away_what_waits() {
        let mut lane = lane(1, None);
        assert_eq!(offer(&mut lane, 0), Verdict::Start(0));
        assert_eq!(offer(&mut lane, 1), Verdict::Wait(None));
        let until = NOW + Duration::from_secs(30);
        lane.finished(NOW, Duration::from_millis(5), Some(until));
        lane.release();
        assert!(lane.is_paused(NOW));
        let Verdict::Defer(1, at, DeferReason::Paused) = lane.next(NOW, || Ok(())) else {
            panic!("what waits is turned away");
        };
        assert!(at > until);
        let Verdict::Defer(2, later, DeferReason::Paused) = offer(&mut lane, 2) else {
            panic!("what comes is turned away");
        };
        assert!(later > at);
        assert!(!lane.is_idle(until, Duration::ZERO));
        assert!(lane.is_idle(later, Duration::ZERO));
    }

    #[test]
    fn what_would_wait_long_for_its_rate_is_not_held() {
        let mut lane = lane(4, Some(1.0 / 3600.0));
        assert_eq!(offer(&mut lane, 1), Verdict::Start(1));
        let hour = Duration::from_secs(3600);
        let second = lane.offer(2, Freshness::Fresh, NOW, true, || Err(hour));
        let Verdict::Defer(2, first_at, DeferReason::RateLimited) = second else {
            panic!("an hour is not waited for in memory");
        };
        assert!(first_at >= NOW + hour);
        assert_eq!(lane.held(), 0);
        let third = lane.offer(3, Freshness::Fresh, NOW, true, || Err(hour));
        let Verdict::Defer(3, next_at, _) = third else {
            panic!("nor is the next");
        };
        assert!(next_at >= first_at + hour - Duration::from_millis(1));
    }

    #[test]
    fn returning_work_is_not_starved_by_fresh_work() {
        let mut lane = lane(1, None);
        assert_eq!(offer(&mut lane, 0), Verdict::Start(0));
        let returning = lane.offer(999, Freshness::Returning, NOW, true, || Ok(()));
        assert_eq!(returning, Verdict::Wait(None));
        for work in 1..=20 {
            assert_eq!(offer(&mut lane, work), Verdict::Wait(None));
        }
        let mut started = Vec::new();
        for _ in 0..RETURNING_TURN {
            lane.release();
            if let Verdict::Start(work) = lane.next(NOW, || Ok(())) {
                started.push(work);
            }
        }
        assert!(started.contains(&999), "{started:?}");
    }

    #[test]
    fn times_handed_out_in_an_outage_do_not_outlast_it() {
        let mut lane = lane(1, None);
        // An endpoint that takes ten seconds for each: a tenth of a request a second.
        for _ in 0..50 {
            lane.finished(NOW, Duration::from_secs(10), None);
        }
        let mut latest = Duration::ZERO;
        for work in 0..5_000 {
            if let Verdict::Defer(_, until, _) = offer(&mut lane, work) {
                latest = latest.max(until);
            }
        }
        assert!(latest > NOW + Duration::from_secs(600), "they are spread");
        assert!(
            latest < NOW + SPREAD_MAX + Duration::from_secs(60),
            "{latest:?}"
        );
    }

    #[test]
    fn rates_beyond_all_measure_are_no_fault() {
        let mut lane = lane(1, Some(1e-300));
        for work in 0..5 {
            let verdict = lane.offer(work, Freshness::Fresh, NOW, true, || Err(Duration::MAX / 4));
            assert!(matches!(verdict, Verdict::Defer(..)));
        }
    }

    #[test]
    fn without_a_slot_work_waits() {
        let mut lane = lane(4, None);
        let verdict = lane.offer(1, Freshness::Fresh, NOW, false, || {
            panic!("no rate is used up")
        });
        assert_eq!(verdict, Verdict::Wait(None));
        assert_eq!(lane.held(), 1);
    }
}
