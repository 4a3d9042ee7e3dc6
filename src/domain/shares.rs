//! Shares of memory: what each tenant may have of the events that are in memory.
//!
//! A tenant alone may have all of it. Where there are others, at least half is kept free of
//! whoever publishes a storm: what goes beyond a tenant's share is turned away, to come back
//! at the pace at which the tenant's events are settled. So the queue behind it flows, and
//! others' events in it are reached. A pure state machine over a monotonic clock that the
//! caller reads.

use std::collections::HashMap;
use std::time::Duration;

use super::id::TenantId;

/// A tenant counts for this long after its last event.
const ACTIVE_FOR: Duration = Duration::from_secs(30);
/// How soon the first that is turned away comes back.
const AWAY_MIN: Duration = Duration::from_secs(1);
/// How far ahead times are handed out: the pace is only measured.
const AWAY_MAX: Duration = Duration::from_secs(900);
/// Over what time the pace is measured.
const PACE_OVER: Duration = Duration::from_millis(500);
/// The pace that is assumed at least, in events per second. What is measured while a storm is
/// set aside says little about what the endpoints take, and is what the whole storm would come
/// back at; who comes too soon is turned away once more, at the pace of its lane.
const PACE_MIN: f64 = 1000.0;
/// So much faster than the pace they are called back: who comes early is turned away once more,
/// who comes late leaves a gap.
const HASTE: f64 = 1.25;

/// Who has how much.
#[derive(Debug)]
pub struct Shares {
    /// Events that may be in memory.
    room: usize,
    taken: usize,
    tenants: HashMap<TenantId, Share>,
    swept_at: Duration,
}

#[derive(Debug)]
struct Share {
    taken: usize,
    last_at: Duration,
    pace: f64,
    settled: u32,
    settled_since: Duration,
    handed_out_until: Duration,
}

impl Shares {
    /// Nobody has anything of `room`.
    pub fn new(room: usize) -> Self {
        Self {
            room,
            taken: 0,
            tenants: HashMap::new(),
            swept_at: Duration::ZERO,
        }
    }

    /// An event of `tenant` is in memory now.
    pub fn take(&mut self, tenant: &TenantId, now: Duration) {
        self.sweep(now);
        self.taken += 1;
        if let Some(share) = self.tenants.get_mut(tenant) {
            share.taken += 1;
            share.last_at = now;
            return;
        }
        let share = Share {
            taken: 1,
            last_at: now,
            pace: PACE_MIN,
            settled: 0,
            settled_since: now,
            handed_out_until: Duration::ZERO,
        };
        self.tenants.insert(tenant.clone(), share);
    }

    /// One is settled, or given back.
    pub fn give_back(&mut self, tenant: &TenantId, now: Duration) {
        self.taken = self.taken.saturating_sub(1);
        if let Some(share) = self.tenants.get_mut(tenant) {
            share.taken = share.taken.saturating_sub(1);
            share.settled += 1;
            share.measure(now);
        }
    }

    /// When the event that was taken last is to come back, if it is beyond the share of
    /// `tenant`.
    pub fn excess(&mut self, tenant: &TenantId, now: Duration) -> Option<Duration> {
        let half = self.room / 2;
        let active = self.tenants.len();
        if self.taken <= half || active < 2 {
            return None;
        }
        let share = self.tenants.get_mut(tenant)?;
        if share.taken <= (half / active).max(1) {
            return None;
        }
        // What is turned away was not settled by its endpoints.
        share.settled = share.settled.saturating_sub(1);
        let interval = Duration::from_secs_f64(1.0 / (share.pace * HASTE));
        let soonest = now + AWAY_MIN;
        let from = match share.handed_out_until {
            handed_out if handed_out > now + AWAY_MAX => soonest,
            handed_out => handed_out.max(soonest),
        };
        share.handed_out_until = from + interval;
        Some(share.handed_out_until)
    }

    fn sweep(&mut self, now: Duration) {
        if now.saturating_sub(self.swept_at) < ACTIVE_FOR / 8 {
            return;
        }
        self.swept_at = now;
        self.tenants
            .retain(|_, share| share.taken > 0 || now.saturating_sub(share.last_at) < ACTIVE_FOR);
    }
}

impl Share {
    fn measure(&mut self, now: Duration) {
        let over = now.saturating_sub(self.settled_since);
        if over >= PACE_OVER {
            let measured = f64::from(self.settled) / over.as_secs_f64();
            self.pace = ((self.pace + measured) / 2.0).max(PACE_MIN);
            (self.settled, self.settled_since) = (0, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    const fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_tenant_alone_has_all() {
        let mut shares = Shares::new(100);
        for _ in 0..100 {
            shares.take(&tenant("a"), at(0));
            assert_eq!(shares.excess(&tenant("a"), at(0)), None);
        }
    }

    #[test]
    fn beside_others_half_is_kept_free_of_the_storm() {
        let mut shares = Shares::new(100);
        shares.take(&tenant("quiet"), at(0));
        shares.give_back(&tenant("quiet"), at(0));
        let mut away = Vec::new();
        for _ in 0..1000 {
            shares.take(&tenant("storm"), at(1));
            if let Some(until) = shares.excess(&tenant("storm"), at(1)) {
                shares.give_back(&tenant("storm"), at(1));
                away.push(until);
            }
        }
        assert_eq!(away.len(), 950);
        assert!(away[0] > at(1001) && away[0] < at(1002));
        let span = away[949] - away[0];
        // At a thousand a second, and a quarter faster.
        assert!((0.74..0.78).contains(&span.as_secs_f64()), "{span:?}");
        for _ in 0..20 {
            shares.take(&tenant("quiet"), at(2));
            assert_eq!(shares.excess(&tenant("quiet"), at(2)), None);
        }
    }

    #[test]
    fn they_come_back_at_the_pace_at_which_others_were_settled() {
        let mut shares = Shares::new(10);
        shares.take(&tenant("quiet"), at(0));
        for ms in 0..5000 {
            for _ in 0..4 {
                shares.take(&tenant("storm"), at(ms));
                shares.give_back(&tenant("storm"), at(ms));
            }
        }
        for _ in 0..10 {
            shares.take(&tenant("storm"), at(5000));
        }
        let first = shares.excess(&tenant("storm"), at(5000)).unwrap();
        let second = shares.excess(&tenant("storm"), at(5000)).unwrap();
        let gap = (second - first).as_secs_f64();
        assert!(
            (0.00019..0.00022).contains(&gap),
            "about 5,000 a second: {gap}"
        );
    }

    #[test]
    fn whoever_is_quiet_for_long_does_not_count() {
        let mut shares = Shares::new(10);
        shares.take(&tenant("quiet"), at(0));
        shares.give_back(&tenant("quiet"), at(0));
        for _ in 0..9 {
            shares.take(&tenant("storm"), at(29_000));
        }
        assert!(shares.excess(&tenant("storm"), at(29_000)).is_some());
        shares.take(&tenant("storm"), at(40_000));
        assert_eq!(shares.excess(&tenant("storm"), at(40_000)), None);
    }
}
