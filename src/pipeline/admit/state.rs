//! What the lanes of one process are, together: which have work and may have room for it,
//! which wait for their rate, which are asked about, and what the slow ones hold.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use super::rate::{EndpointRate, LaneClock, Others};
use super::{EndpointLimits, Turns};
use crate::domain::id::SubscriptionId;
use crate::domain::lane::{Awaits, Freshness, HELD_FOR, Lane, LaneLimits, RateWait, Room, Verdict};
use crate::domain::subscription::Scope;
use crate::ports::{RateAnswer, RateAsk};

/// A lane without traffic for this long is dropped; its rate limiter is full again by then.
pub(super) const IDLE_FOR: Duration = Duration::from_secs(120);
/// How often lanes are looked at that hold work or requests for long.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Endpoints asked about at once.
const ASKS_MAX: usize = 256;
/// Requests to one endpoint asked for at once.
const WANTED_MAX: u32 = 64;
/// How long others may take to notice that somebody answers about rates again.
const RETURNING_FOR: Duration = Duration::from_secs(5);
/// How much of its endpoint's pace a lane may hold where little waits: what a broker brings back
/// in heaps bridges the time to the next.
const HELD_FOR_IN_QUIET: Duration = Duration::from_secs(4);

pub(super) struct State<W> {
    pub(super) lanes: HashMap<SubscriptionId, Entry<W>>,
    /// Lanes that have work and may have room for it; each at most once.
    pub(super) ready: Turns,
    /// When lanes that wait for their rate are looked at again.
    timers: BinaryHeap<Reverse<(Duration, SubscriptionId)>>,
    /// Lanes whose rate is to be asked for.
    asking: Vec<SubscriptionId>,
    pub(super) others: Others,
    /// Until when nobody is asked, because nobody answered.
    away_until: Duration,
    /// Until when others may not know yet that somebody answers again; `None` before the first
    /// answer.
    returning_until: Option<Duration>,
    pub(super) in_flight: usize,
    pub(super) held: usize,
    slow: Slow,
    pub(super) closed: bool,
    looked_at: Duration,
    swept_at: Duration,
}

/// What endpoints hold that take long to answer.
#[derive(Clone, Copy, Debug, Default)]
struct Slow {
    /// How many there are.
    lanes: usize,
    /// The work that waits for them or is under way.
    occupied: usize,
    /// The most that this may be.
    most: usize,
}

/// A lane, and what is around it.
pub(super) struct Entry<W> {
    /// Among whose endpoints it takes its turn.
    tenant: Scope,
    pub(super) lane: Lane<W>,
    pub(super) rate: Option<EndpointRate>,
    limits: EndpointLimits,
    replicas: u32,
    pub(super) is_ready: bool,
    has_timer: bool,
    is_asking: bool,
}

/// What a change needs to tell the loops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rings {
    pub(super) timers: bool,
    pub(super) asks: bool,
}

impl<W> State<W> {
    /// Slow endpoints may have `slow_max` deliveries in memory, together.
    pub(super) fn new(others: Others, slow_max: usize) -> Self {
        Self {
            lanes: HashMap::new(),
            ready: Turns::default(),
            timers: BinaryHeap::new(),
            asking: Vec::new(),
            others,
            away_until: Duration::ZERO,
            returning_until: None,
            in_flight: 0,
            held: 0,
            slow: Slow {
                most: slow_max.max(1),
                ..Slow::default()
            },
            closed: false,
            looked_at: Duration::ZERO,
            swept_at: Duration::ZERO,
        }
    }

    /// Offers work to the lane of `endpoint`.
    pub(super) fn offer(
        &mut self,
        (tenant, endpoint): (&Scope, &SubscriptionId),
        limits: EndpointLimits,
        (work, freshness): (W, Freshness),
        (now, clock): (Duration, &LaneClock),
        slot: bool,
    ) -> Verdict<W> {
        let others = self.others;
        if !self.lanes.contains_key(endpoint) {
            let entry = Entry::new(tenant, limits, others, now, clock);
            self.lanes.insert(endpoint.clone(), entry);
        }
        let Some(entry) = self.lanes.get_mut(endpoint) else {
            unreachable!("it was just put there");
        };
        entry.set_limits(limits, others, clock);
        let Entry { lane, rate, .. } = entry;
        let is_slow = lane.is_slow(now);
        let is_quiet = self.held < self.slow.most / 2;
        let room = self.slow.room(is_slow, slot, is_quiet);
        let verdict = lane.offer(work, freshness, now, room, || take(rate, others));
        if is_slow && !matches!(verdict, Verdict::Defer(..)) {
            self.slow.occupied += 1;
        }
        verdict
    }

    /// The next work of `endpoint`.
    pub(super) fn next(&mut self, endpoint: &SubscriptionId, now: Duration) -> Option<Verdict<W>> {
        let others = self.others;
        let entry = self.lanes.get_mut(endpoint)?;
        entry.is_ready = false;
        let Entry { lane, rate, .. } = entry;
        let room = self.slow.room(lane.is_slow(now), true, true);
        Some(lane.next(now, room, || take(rate, others)))
    }

    pub(super) fn make_ready(&mut self, endpoint: &SubscriptionId) {
        if let Some(entry) = self.lanes.get_mut(endpoint)
            && !entry.is_ready
            && entry.lane.held() > 0
        {
            entry.is_ready = true;
            self.ready.push(&entry.tenant, endpoint.clone());
        }
    }

    /// The lane waits for something: says who is to be told.
    pub(super) fn wait(&mut self, endpoint: &SubscriptionId, awaits: Awaits) -> Rings {
        let mut rings = Rings::default();
        let Some(entry) = self.lanes.get_mut(endpoint) else {
            return rings;
        };
        match awaits {
            Awaits::Room => {}
            Awaits::Rate => {
                if !std::mem::replace(&mut entry.is_asking, true) {
                    self.asking.push(endpoint.clone());
                    rings.asks = true;
                }
            }
            Awaits::Time(at) => {
                if !std::mem::replace(&mut entry.has_timer, true) {
                    let first = self.timers.peek();
                    rings.timers = first.is_none_or(|Reverse((next, _))| at < *next);
                    self.timers.push(Reverse((at, endpoint.clone())));
                }
            }
        }
        rings
    }

    /// Makes ready whose time has come.
    pub(super) fn fire_timers(&mut self, now: Duration) {
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

    /// When the loop of timers is to look again.
    pub(super) fn next_timer(&self) -> Option<Duration> {
        let first = self.timers.peek().map(|Reverse((at, _))| *at);
        let look = (self.held > 0 || self.in_flight > 0).then(|| self.looked_at + LOOK_EVERY);
        first.into_iter().chain(look).min()
    }

    /// Looks at all lanes from time to time: counts the slow ones, turns away what is too
    /// much or has waited too long, and forgets the idle ones.
    pub(super) fn look(&mut self, now: Duration, mut turned_away: impl FnMut(Verdict<W>)) {
        if now.saturating_sub(self.looked_at) < LOOK_EVERY {
            return;
        }
        self.looked_at = now;
        let slow = self.lanes.values().filter(|entry| entry.lane.is_slow(now));
        self.slow.lanes = slow.count();
        self.slow.occupied = 0;
        for entry in self.lanes.values_mut() {
            let is_slow = entry.lane.is_slow(now);
            // What was let in while it was quiet stays.
            let room = self.slow.room(is_slow, true, true);
            // One that is ready waits for others, not for its endpoint.
            while !entry.is_ready
                && let Some(verdict) = entry.lane.next_excess(now, room)
            {
                self.held -= 1;
                turned_away(verdict);
            }
            if is_slow {
                self.slow.occupied += entry.lane.occupied();
            }
        }
        if now.saturating_sub(self.swept_at) >= IDLE_FOR {
            self.swept_at = now;
            self.lanes
                .retain(|_, entry| !entry.lane.is_idle(now, entry.idle_for()));
        }
    }

    /// Those whose rate is to be asked for, and how much each wants. They stay marked until
    /// [`State::answered`] or [`State::unanswered`].
    pub(super) fn asks(&mut self, now: Duration, in_flight_max: usize) -> Vec<RateAsk> {
        let slots = in_flight_max.saturating_sub(self.in_flight);
        let slots = u32::try_from(slots).unwrap_or(u32::MAX);
        let others = self.others;
        let count = self.asking.len().min(ASKS_MAX);
        let mut asks = Vec::with_capacity(count);
        for endpoint in self.asking.drain(..count) {
            let Some(entry) = self.lanes.get_mut(&endpoint) else {
                continue;
            };
            let held = u32::try_from(entry.lane.held()).unwrap_or(u32::MAX);
            let startable = held.min(entry.lane.free()).min(WANTED_MAX);
            match &entry.rate {
                Some(rate) if startable > 0 => asks.push(RateAsk {
                    endpoint,
                    rate: rate.limit,
                    wanted: rate.wanted(startable.min(slots).max(1), others),
                    debt: rate.debt(now),
                }),
                _ => entry.is_asking = false,
            }
        }
        asks
    }

    /// What was granted; `times` are those of the question and the answer.
    pub(super) fn answered(
        &mut self,
        asks: &[RateAsk],
        answers: &[RateAnswer],
        replicas: u32,
        times: (Duration, Duration),
    ) {
        self.others = match self.others {
            Others::Returning(_) => {
                let until = *self.returning_until.get_or_insert(times.1 + RETURNING_FOR);
                match times.1 < until {
                    true => Others::Returning(replicas),
                    false => Others::Asked(replicas),
                }
            }
            _ => Others::Asked(replicas),
        };
        for (ask, answer) in asks.iter().zip(answers) {
            if let Some(entry) = self.lanes.get_mut(&ask.endpoint)
                && let Some(rate) = &mut entry.rate
            {
                rate.answered(ask.wanted, *answer, times);
            }
            self.asked(&ask.endpoint);
        }
    }

    /// Nobody answered: until `until` each lane keeps to this process's share.
    pub(super) fn unanswered(&mut self, asks: &[RateAsk], replicas: u32, until: Duration) {
        self.others = Others::Away(replicas);
        self.away_until = until;
        for ask in asks {
            self.asked(&ask.endpoint);
        }
    }

    /// Nobody is asked about the lane any more; it may have room.
    fn asked(&mut self, endpoint: &SubscriptionId) {
        if let Some(entry) = self.lanes.get_mut(endpoint) {
            entry.is_asking = false;
        }
        self.make_ready(endpoint);
    }

    /// Asks again when it is time.
    pub(super) fn ask_again(&mut self, now: Duration) {
        if let Others::Away(replicas) = self.others
            && now >= self.away_until
        {
            (self.others, self.returning_until) = (Others::Returning(replicas), None);
        }
    }

    /// Forgets which lanes are asked about: who asked is gone.
    pub(super) fn forget_asks(&mut self) {
        self.asking.clear();
        let asking = self.lanes.iter().filter(|(_, entry)| entry.is_asking);
        let endpoints: Vec<SubscriptionId> = asking.map(|(id, _)| id.clone()).collect();
        for endpoint in endpoints {
            self.asked(&endpoint);
        }
    }
}

impl Slow {
    /// The room of a lane: a slow one has its share of what the slow ones may hold.
    fn room(self, is_slow: bool, slot: bool, is_quiet: bool) -> Room {
        let occupied = if !is_slow {
            usize::MAX
        } else if self.occupied >= self.most {
            0
        } else {
            (self.most / self.lanes.max(1)).max(1)
        };
        let held_for = match is_quiet && !is_slow {
            true => HELD_FOR_IN_QUIET,
            false => HELD_FOR,
        };
        Room {
            slot,
            occupied,
            held_for,
        }
    }
}

impl<W> Entry<W> {
    fn new(
        tenant: &Scope,
        limits: EndpointLimits,
        others: Others,
        now: Duration,
        clock: &LaneClock,
    ) -> Self {
        let replicas = others.replicas();
        Self {
            tenant: tenant.clone(),
            lane: Lane::new(lane_limits(limits, replicas), now),
            rate: limits.rate.map(|rate| EndpointRate::new(rate, clock)),
            limits,
            replicas,
            is_ready: false,
            has_timer: false,
            is_asking: false,
        }
    }

    fn set_limits(&mut self, limits: EndpointLimits, others: Others, clock: &LaneClock) {
        let replicas = others.replicas();
        if self.limits == limits && self.replicas == replicas {
            return;
        }
        if self.limits.rate != limits.rate {
            self.rate = limits.rate.map(|rate| EndpointRate::new(rate, clock));
        }
        self.lane.set_limits(lane_limits(limits, replicas));
        if self.limits.changed_at != limits.changed_at {
            self.lane.begin_afresh();
        }
        self.limits = limits;
        self.replicas = replicas;
    }

    /// Long enough that a dropped limiter would have been full again.
    fn idle_for(&self) -> Duration {
        let refill = self.limits.rate.map_or(0.0, |rate| {
            f64::from(rate.burst) / rate.per_second.max(1e-6)
        });
        IDLE_FOR.max(Duration::from_secs_f64(refill.min(86_400.0)))
    }
}

fn lane_limits(limits: EndpointLimits, replicas: u32) -> LaneLimits {
    LaneLimits {
        in_flight_max: limits.in_flight_max,
        per_second: limits
            .rate
            .map(|rate| rate.per_second / f64::from(replicas)),
        open: limits.open,
    }
}

fn take(rate: &mut Option<EndpointRate>, others: Others) -> Result<(), RateWait> {
    rate.as_mut().map_or(Ok(()), |rate| rate.take(others))
}
