//! What was attempted within the last hour, by the minute: of everyone, and of each endpoint.
//!
//! Counts of one process, for people who look: what is kept for longer is in the metrics, and
//! what is exact in the audit log. The caller says what time it is.

use std::collections::HashMap;

use super::attempt::Attempt;
use super::id::{SubscriptionId, TenantId};
use super::timestamp::UnixMillis;

/// How many minutes are kept.
pub const MINUTES: usize = 60;
/// Endpoints that are counted each by itself: about 1 KiB each.
const ENDPOINTS_MAX: usize = 5_000;
const MINUTE_MS: i64 = 60_000;

/// The attempts of one minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Minute {
    /// Those that were delivered.
    pub delivered: u32,
    /// The others.
    pub failed: u32,
    /// How long all of them took together.
    pub total_ms: u64,
}

/// The attempts of the last minutes.
#[derive(Clone, Debug)]
pub struct Activity {
    minutes: [Minute; MINUTES],
    /// The minute that was counted last, since the Unix epoch.
    last: i64,
}

/// The attempts of one endpoint.
#[derive(Clone, Debug)]
struct Endpoint {
    /// Whose subscription it is; `None` for one of every tenant.
    tenant: Option<TenantId>,
    activity: Activity,
    ever: Total,
}

/// All attempts of an endpoint since it was first seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Those that were delivered.
    pub delivered: u64,
    /// The others.
    pub failed: u64,
    /// How long all of them took together.
    pub total_ms: u64,
}

/// The attempts of all.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    all: Activity,
    endpoints: HashMap<SubscriptionId, Endpoint>,
    swept: i64,
}

/// What one looks at.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The minutes, the oldest first.
    pub minutes: [Minute; MINUTES],
    /// All of them together.
    pub sum: Minute,
    /// Endpoints with failures, those with the most first.
    pub worst: Vec<(SubscriptionId, Minute)>,
}

impl Minute {
    /// Counts what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.delivered = self.delivered.saturating_add(other.delivered);
        self.failed = self.failed.saturating_add(other.failed);
        self.total_ms = self.total_ms.saturating_add(other.total_ms);
    }

    /// Attempts of either kind.
    pub fn attempts(&self) -> u64 {
        u64::from(self.delivered) + u64::from(self.failed)
    }

    /// How long one took on average, in milliseconds; `None` without any.
    pub fn mean_ms(&self) -> Option<u64> {
        self.total_ms.checked_div(self.attempts())
    }
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            minutes: [Minute::default(); MINUTES],
            last: 0,
        }
    }
}

impl Activity {
    /// Counts one in `minute`. What comes late counts as of the last minute.
    fn note(&mut self, minute: i64, one: &Minute) {
        self.go_on(minute);
        let place = place(self.last);
        if let Some(counted) = self.minutes.get_mut(place) {
            counted.add(one);
        }
    }

    /// Empties the places of the minutes that have passed since the last.
    fn go_on(&mut self, minute: i64) {
        let kept = i64::try_from(MINUTES).unwrap_or(i64::MAX);
        let from = (self.last + 1).max(minute - kept + 1);
        for passed in from..=minute {
            if let Some(counted) = self.minutes.get_mut(place(passed)) {
                *counted = Minute::default();
            }
        }
        self.last = self.last.max(minute);
    }

    /// The minutes up to `minute` that are kept, each with its place among the last, the oldest
    /// first. Nothing is copied: all endpoints are looked at while attempts wait to be counted.
    fn up_to(&self, minute: i64) -> impl Iterator<Item = (usize, &Minute)> {
        let kept = i64::try_from(MINUTES).unwrap_or(i64::MAX);
        let first = minute.max(self.last) - kept + 1;
        let counted = first.max(self.last - kept + 1)..=self.last;
        counted.filter_map(move |minute| {
            let age = usize::try_from(minute - first).ok()?;
            Some((age, self.minutes.get(place(minute))?))
        })
    }
}

/// Where a minute is kept.
fn place(minute: i64) -> usize {
    let kept = i64::try_from(MINUTES).unwrap_or(1);
    usize::try_from(minute.rem_euclid(kept)).unwrap_or(0)
}

impl Recent {
    /// Counts an attempt that ended at `now`; those of the Test action say nothing of deliveries.
    pub fn note(&mut self, attempt: &Attempt, now: UnixMillis) {
        if attempt.test {
            return;
        }
        let minute = now.0.div_euclid(MINUTE_MS);
        let failed = attempt.reason.is_some();
        let one = Minute {
            delivered: u32::from(!failed),
            failed: u32::from(failed),
            total_ms: u64::try_from(attempt.timing.total.as_millis()).unwrap_or(u64::MAX),
        };
        self.all.note(minute, &one);
        if !self.endpoints.contains_key(&attempt.subscription) && !self.has_room(minute) {
            return;
        }
        let tenant = (!attempt.shared).then_some(&attempt.tenant);
        let new = || Endpoint {
            tenant: tenant.cloned(),
            activity: Activity::default(),
            ever: Total::default(),
        };
        let endpoint = self.endpoints.entry(attempt.subscription.clone());
        let endpoint = endpoint.or_insert_with(new);
        // Deleted and declared again, it may be another tenant's.
        if endpoint.tenant.as_ref() != tenant {
            *endpoint = new();
        }
        endpoint.activity.note(minute, &one);
        let ever = &mut endpoint.ever;
        ever.delivered += u64::from(one.delivered);
        ever.failed += u64::from(one.failed);
        ever.total_ms = ever.total_ms.saturating_add(one.total_ms);
    }

    /// Whether there is room for another endpoint; once a minute, those without attempts go.
    fn has_room(&mut self, minute: i64) -> bool {
        if self.endpoints.len() >= ENDPOINTS_MAX && self.swept < minute {
            self.swept = minute;
            let kept = i64::try_from(MINUTES).unwrap_or(i64::MAX);
            self.endpoints
                .retain(|_, endpoint| endpoint.activity.last > minute - kept);
        }
        self.endpoints.len() < ENDPOINTS_MAX
    }

    /// The worst `max` of the endpoints with attempts within the last hour, with all their
    /// attempts since they were first seen: those in the greatest `trouble` first, then those with
    /// the most failures, then those that took the most time.
    pub fn worst<T: Ord>(
        &self,
        now: UnixMillis,
        max: usize,
        trouble: impl Fn(&SubscriptionId) -> T,
    ) -> Vec<(SubscriptionId, Total)> {
        let minute = now.0.div_euclid(MINUTE_MS);
        let mut ranked = Vec::new();
        for (id, endpoint) in &self.endpoints {
            let mut hour = Minute::default();
            let minutes = endpoint.activity.up_to(minute);
            minutes.for_each(|(_, minute)| hour.add(minute));
            if hour.attempts() > 0 {
                let rank = (trouble(id), hour.failed, hour.total_ms);
                ranked.push((rank, id, endpoint.ever));
            }
        }
        ranked.sort_by(|(a, a_id, _), (b, b_id, _)| b.cmp(a).then_with(|| a_id.cmp(b_id)));
        let worst = ranked.into_iter().take(max);
        worst.map(|(_, id, ever)| (id.clone(), ever)).collect()
    }

    /// The last hour: of all, or of what belongs to `tenant`; at most `worst_max` endpoints.
    pub fn summary(&self, tenant: Option<&TenantId>, now: UnixMillis, worst_max: usize) -> Summary {
        let minute = now.0.div_euclid(MINUTE_MS);
        let mut minutes = [Minute::default(); MINUTES];
        let mut add = |activity: &Activity| {
            for (place, one) in activity.up_to(minute) {
                if let Some(sum) = minutes.get_mut(place) {
                    sum.add(one);
                }
            }
        };
        if tenant.is_none() {
            add(&self.all);
        }
        let mut worst = Vec::new();
        let is_wanted =
            |endpoint: &Endpoint| tenant.is_none() || endpoint.tenant.as_ref() == tenant;
        for (id, endpoint) in self.endpoints.iter().filter(|(_, one)| is_wanted(one)) {
            if tenant.is_some() {
                add(&endpoint.activity);
            }
            let mut sum = Minute::default();
            let own = endpoint.activity.up_to(minute);
            own.for_each(|(_, minute)| sum.add(minute));
            if sum.failed > 0 {
                worst.push((id.clone(), sum));
            }
        }
        worst.sort_by(|(a_id, a), (b_id, b)| b.failed.cmp(&a.failed).then_with(|| a_id.cmp(b_id)));
        worst.truncate(worst_max);
        let mut sum = Minute::default();
        minutes.iter().for_each(|minute| sum.add(minute));
        Summary {
            minutes,
            sum,
            worst,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::attempt::Timing;
    use crate::domain::attempt::tests::plain;
    use crate::domain::outcome::Reason;

    /// An attempt that took 30 ms.
    pub(crate) fn attempt(subscription: &str, tenant: &str, failed: bool) -> Attempt {
        Attempt {
            subscription: SubscriptionId::parse(subscription).unwrap(),
            shared: subscription.starts_with("sub_shared"),
            tenant: TenantId::parse(tenant).unwrap(),
            reason: Reason::from_code("timeout").filter(|_| failed),
            timing: Timing {
                total: Duration::from_millis(30),
                ..Timing::default()
            },
            ..plain()
        }
    }

    fn at(minute: i64) -> UnixMillis {
        UnixMillis(29_539_471 * MINUTE_MS + minute * MINUTE_MS + 7)
    }

    #[test]
    fn minutes_pass_and_are_forgotten() {
        let mut recent = Recent::default();
        for minute in [0, 0, 3, 59] {
            recent.note(&attempt("sub_a", "acme", minute == 3), at(minute));
        }
        let summary = recent.summary(None, at(59), 9);
        let counts = summary.minutes.map(|minute| minute.attempts());
        assert_eq!((counts[0], counts[3], counts[59]), (2, 1, 1));
        assert_eq!((summary.sum.delivered, summary.sum.failed), (3, 1));
        assert_eq!(summary.sum.mean_ms(), Some(30));
        assert_eq!(recent.summary(None, at(60), 9).sum.attempts(), 2);
        assert_eq!(recent.summary(None, at(62), 9).sum.attempts(), 2);
        assert_eq!(recent.summary(None, at(63), 9).sum.attempts(), 1);
        let none = recent.summary(None, at(500), 9).sum;
        assert_eq!((none.attempts(), none.mean_ms()), (0, None));
        recent.note(&attempt("sub_a", "acme", false), at(10_000));
        assert_eq!(recent.summary(None, at(10_000), 9).sum.attempts(), 1);
    }

    /// A clock that goes back loses nothing and brings nothing back.
    #[test]
    fn what_comes_late_counts_as_of_the_last_minute() {
        let mut recent = Recent::default();
        recent.note(&attempt("sub_a", "acme", false), at(5));
        recent.note(&attempt("sub_a", "acme", false), at(4));
        let minutes = recent.summary(None, at(5), 9).minutes;
        assert_eq!(minutes[59].attempts(), 2);
        assert_eq!(recent.summary(None, at(4), 9).sum.attempts(), 2);
    }

    #[test]
    fn a_tenant_sees_what_is_its_own() {
        let mut recent = Recent::default();
        for (subscription, tenant, failed) in [
            ("sub_a", "acme", true),
            ("sub_a", "acme", true),
            ("sub_b", "acme", true),
            ("sub_c", "bell", true),
            ("sub_shared", "acme", true),
            ("sub_d", "acme", false),
        ] {
            recent.note(&attempt(subscription, tenant, failed), at(1));
        }
        let acme = TenantId::parse("acme").unwrap();
        let own = recent.summary(Some(&acme), at(1), 9);
        assert_eq!((own.sum.delivered, own.sum.failed), (1, 3));
        let ids: Vec<_> = own.worst.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["sub_a", "sub_b"]);
        let all = recent.summary(None, at(1), 2);
        assert_eq!(all.sum.failed, 5);
        assert_eq!(all.worst.len(), 2);
        recent.note(&attempt("sub_a", "bell", true), at(2));
        assert_eq!(recent.summary(Some(&acme), at(2), 9).sum.failed, 1);
    }

    #[test]
    fn endpoints_are_bounded() {
        let mut recent = Recent::default();
        let many = i64::try_from(ENDPOINTS_MAX).unwrap() + 10;
        for n in 0..many {
            recent.note(&attempt(&format!("sub_{n}"), "acme", true), at(0));
        }
        assert_eq!(recent.endpoints.len(), ENDPOINTS_MAX);
        assert_eq!(
            recent.summary(None, at(0), 9).sum.attempts(),
            many.unsigned_abs()
        );
        recent.note(&attempt("sub_new", "acme", true), at(60));
        assert_eq!(recent.endpoints.len(), 1);
    }

    #[test]
    fn the_worst_are_those_in_trouble_then_those_that_fail_then_the_slow() {
        let mut recent = Recent::default();
        let now = UnixMillis(7 * MINUTE_MS);
        for (id, failed, count) in [
            ("sub_idle", false, 0),
            ("sub_busy", false, 9),
            ("sub_quiet", false, 1),
            ("sub_fails", true, 2),
            ("sub_open", true, 1),
        ] {
            for _ in 0..count {
                recent.note(&attempt(id, "acme", failed), now);
            }
        }
        let trouble = |id: &SubscriptionId| id.as_str() == "sub_open";
        let worst = recent.worst(now, 3, trouble);
        let ids: Vec<&str> = worst.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["sub_open", "sub_fails", "sub_busy"]);
        let busy = Total {
            delivered: 9,
            failed: 0,
            total_ms: 9 * 30,
        };
        assert_eq!(worst[2].1, busy);
        // An hour later they are gone; one that comes back goes on where it was.
        let later = UnixMillis(now.0 + 61 * MINUTE_MS);
        assert_eq!(recent.worst(later, 3, trouble), []);
        recent.note(&attempt("sub_busy", "acme", true), later);
        let again = recent.worst(later, 3, trouble);
        assert_eq!((again[0].1.delivered, again[0].1.failed), (9, 1));
    }
}
