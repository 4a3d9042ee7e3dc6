//! What was attempted lately in this process, for whoever looks at it: counted, and told of.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::domain::attempt::Attempt;
use crate::domain::id::{SubscriptionId, TenantId};
use crate::domain::recent::{Recent, Summary, Total};
use crate::domain::timestamp::UnixMillis;

/// Those that listen at the same time: the admin's, those of all tenants, and those of one.
const LISTENERS_OF_ADMIN_MAX: usize = 50;
const LISTENERS_OF_TENANTS_MAX: usize = 150;
const LISTENERS_OF_TENANT_MAX: usize = 20;

/// Counts attempts, and tells that there was one.
#[derive(Default)]
pub struct Lately(Mutex<State>);

#[derive(Default)]
struct State {
    recent: Recent,
    /// Those who listen to the attempts of a tenant, or of all.
    listeners: HashMap<Option<TenantId>, watch::Sender<u64>>,
}

impl Lately {
    /// An attempt ended at `now`.
    pub fn note(&self, attempt: &Attempt, now: UnixMillis) {
        let mut state = self.lock();
        state.recent.note(attempt, now);
        if state.listeners.is_empty() {
            return;
        }
        let own = (!attempt.shared).then(|| Some(attempt.tenant.clone()));
        for tenant in [Some(None), own].into_iter().flatten() {
            if let Some(count) = state.listeners.get(&tenant) {
                count.send_modify(|count| *count += 1);
            }
        }
    }

    /// The last hour: of all, or of what belongs to `tenant`; at most `worst_max` endpoints.
    pub fn summary(&self, tenant: Option<&TenantId>, now: UnixMillis, worst_max: usize) -> Summary {
        self.lock().recent.summary(tenant, now, worst_max)
    }

    /// The worst `max` endpoints, see [`Recent::worst`].
    pub fn worst<T: Ord>(
        &self,
        now: UnixMillis,
        max: usize,
        trouble: impl Fn(&SubscriptionId) -> T,
    ) -> Vec<(SubscriptionId, Total)> {
        self.lock().recent.worst(now, max, trouble)
    }

    /// How many attempts there have been, of all or of what belongs to `tenant`, for who waits for
    /// more; `None` when too many do.
    pub fn listen(&self, tenant: Option<&TenantId>) -> Option<watch::Receiver<u64>> {
        let mut state = self.lock();
        state
            .listeners
            .retain(|_, count| count.receiver_count() > 0);
        let of_tenants = state.listeners.iter().filter(|(of, _)| of.is_some());
        let of_tenants = of_tenants.map(|(_, count)| count.receiver_count());
        let has_room = tenant.is_none() || of_tenants.sum::<usize>() < LISTENERS_OF_TENANTS_MAX;
        let own_max = match tenant {
            None => LISTENERS_OF_ADMIN_MAX,
            Some(_) => LISTENERS_OF_TENANT_MAX,
        };
        let count = state.listeners.entry(tenant.cloned()).or_default();
        (has_room && count.receiver_count() < own_max).then(|| count.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Half a count is of no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::recent::tests::attempt;

    #[test]
    fn a_tenant_hears_of_its_own_attempts_alone() {
        let lately = Lately::default();
        let tenant = |name| TenantId::parse(name).unwrap();
        let (acme, bluebell) = (tenant("acme"), tenant("bluebell"));
        let mut admin = lately.listen(None).unwrap();
        let mut own = lately.listen(Some(&acme)).unwrap();
        let other = lately.listen(Some(&bluebell)).unwrap();
        lately.note(&attempt("sub_1", "acme", true), UnixMillis(0));
        assert!(admin.has_changed().unwrap() && own.has_changed().unwrap());
        assert!(!other.has_changed().unwrap());
        admin.mark_unchanged();
        own.mark_unchanged();
        let mut shared = attempt("sub_2", "acme", false);
        shared.shared = true;
        lately.note(&shared, UnixMillis(0));
        assert!(admin.has_changed().unwrap() && !own.has_changed().unwrap());
    }

    #[test]
    fn listeners_are_bounded_by_tenant_and_in_all() {
        let lately = Lately::default();
        let tenant = |n: usize| TenantId::parse(&format!("t{n}")).unwrap();
        let of = |n| lately.listen(Some(&tenant(n)));
        let mut all: Vec<_> = (0..=LISTENERS_OF_TENANT_MAX).map_while(|_| of(0)).collect();
        assert_eq!(all.len(), LISTENERS_OF_TENANT_MAX);
        all.extend((1..=LISTENERS_OF_TENANTS_MAX).map_while(of));
        assert_eq!(all.len(), LISTENERS_OF_TENANTS_MAX);
        assert!(of(1).is_none());
        // Tenants leave room for the admin.
        let admin = (0..=LISTENERS_OF_ADMIN_MAX).map_while(|_| lately.listen(None));
        assert_eq!(admin.collect::<Vec<_>>().len(), LISTENERS_OF_ADMIN_MAX);
        all.clear();
        assert!(of(0).is_some(), "whoever went away makes room");
    }
}
