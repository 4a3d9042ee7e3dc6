//! How often may be asked: wrong admin tokens by address, requests by tenant.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use moka::policy::EvictionPolicy;
use moka::sync::{Cache, CacheBuilder};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::id::TenantId;

/// Wrong tokens that an address may send within a minute.
pub const WRONG_TOKENS_MAX: u32 = 120;
/// How long wrong tokens count, from the first one on.
const WRONG_WINDOW: Duration = Duration::from_secs(60);
/// Requests that a tenant may send at once, and how many more each second.
const TENANT_BURST: u32 = 500;
const TENANT_PER_SECOND: u32 = 100;
/// Requests of a tenant that may be under way at once: each holds a connection, and perhaps a body.
const TENANT_AT_ONCE: usize = 32;
/// Addresses and tenants that are remembered; beyond, those not seen for longest begin anew.
const REMEMBERED_MAX: u64 = 10_000;
/// How long a tenant that asks nothing is remembered: its burst is full again long before.
const IDLE_FOR: Duration = Duration::from_secs(60);

/// Too often: what, and when to try again, in whole seconds.
#[derive(Debug)]
pub struct Limited {
    /// A clause on what came too often.
    pub what: &'static str,
    /// How long to wait.
    pub after: Duration,
}

/// Counts wrong admin tokens.
pub struct WrongTokens(Cache<IpAddr, Arc<Window>>);

struct Window {
    began: Instant,
    count: AtomicU32,
}

/// What each tenant may ask.
pub struct TenantRates(Cache<TenantId, Arc<Tenant>>);

struct Tenant {
    rate: DefaultDirectRateLimiter,
    room: Arc<Semaphore>,
}

/// A request of a tenant that is under way.
#[derive(Debug)]
pub struct UnderWay(#[allow(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

impl Default for WrongTokens {
    fn default() -> Self {
        Self(remembered().time_to_live(WRONG_WINDOW).build())
    }
}

impl WrongTokens {
    /// `peer` sent a wrong one.
    ///
    /// # Errors
    /// [`Limited`] when those before were too many.
    pub fn take(&self, peer: IpAddr) -> Result<(), Limited> {
        let begin = || {
            Arc::new(Window {
                began: Instant::now(),
                count: AtomicU32::new(0),
            })
        };
        let window = self.0.get_with(network(peer), begin);
        let before = window.count.fetch_add(1, Ordering::Relaxed);
        if before < WRONG_TOKENS_MAX {
            return Ok(());
        }
        if before == WRONG_TOKENS_MAX {
            tracing::warn!(%peer, "too many wrong tokens came from this address");
        }
        Err(Limited {
            what: "too many wrong tokens came from this address",
            after: whole_seconds(WRONG_WINDOW.saturating_sub(window.began.elapsed())),
        })
    }
}

impl Default for TenantRates {
    fn default() -> Self {
        Self(remembered().time_to_idle(IDLE_FOR).build())
    }
}

impl TenantRates {
    /// Takes one request of `tenant`, which is under way as long as what is returned is held.
    ///
    /// # Errors
    /// [`Limited`]
    pub fn take(&self, tenant: &TenantId) -> Result<UnderWay, Limited> {
        let tenant = self.0.get_with_by_ref(tenant, || Arc::new(Tenant::new()));
        tenant.rate.check().map_err(|until| Limited {
            what: "the tenant's requests come too fast",
            after: whole_seconds(until.wait_time_from(DefaultClock::default().now())),
        })?;
        let room = Arc::clone(&tenant.room).try_acquire_owned();
        room.map(UnderWay).map_err(|_| Limited {
            what: "too many of the tenant's requests are under way",
            after: whole_seconds(Duration::ZERO),
        })
    }
}

impl Tenant {
    fn new() -> Self {
        use std::num::NonZeroU32;
        let [per_second, burst] = [TENANT_PER_SECOND, TENANT_BURST]
            .map(|n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN));
        Self {
            rate: RateLimiter::direct(Quota::per_second(per_second).allow_burst(burst)),
            room: Arc::new(Semaphore::new(TENANT_AT_ONCE)),
        }
    }
}

/// A cache of those seen last.
fn remembered<K, V>() -> CacheBuilder<K, Arc<V>, Cache<K, Arc<V>>>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let cache = Cache::builder().max_capacity(REMEMBERED_MAX);
    cache.eviction_policy(EvictionPolicy::lru())
}

/// The addresses of one party: of IPv6 a /64 (RFC 4291 section 2.5.1).
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => {
            let host_bits = u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !host_bits))
        }
        v4 => v4,
    }
}

/// Rounded up, and at least one: less would be too early.
fn whole_seconds(wait: Duration) -> Duration {
    let begun = u64::from(wait.subsec_nanos() > 0);
    Duration::from_secs((wait.as_secs() + begun).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_tokens_are_counted_by_address() {
        let wrong = WrongTokens::default();
        let [v4, mapped, v6, neighbour, far] = [
            "192.0.2.1",
            "::ffff:192.0.2.1",
            "2001:db8::1",
            "2001:db8::2:1",
            "2001:db8:0:1::1",
        ]
        .map(|text| text.parse().unwrap());
        for _ in 0..WRONG_TOKENS_MAX {
            assert!(wrong.take(v4).is_ok() && wrong.take(v6).is_ok());
        }
        for peer in [v4, mapped, v6, neighbour] {
            let after = wrong.take(peer).unwrap_err().after.as_secs();
            assert!((1..=60).contains(&after), "{peer}: {after}");
        }
        assert!(wrong.take(far).is_ok());
    }

    #[test]
    fn a_tenant_has_a_burst_of_its_own() {
        let rates = TenantRates::default();
        let [acme, bell] = ["acme", "bell"].map(|name| TenantId::parse(name).unwrap());
        let refused = (0..=10 * TENANT_BURST).find_map(|_| rates.take(&acme).err());
        assert_eq!(refused.unwrap().after, Duration::from_secs(1));
        assert!(rates.take(&bell).is_ok());
    }

    #[test]
    fn a_tenant_has_so_many_requests_under_way() {
        let rates = TenantRates::default();
        let [acme, bell] = ["acme", "bell"].map(|name| TenantId::parse(name).unwrap());
        let mut held: Vec<_> = (0..TENANT_AT_ONCE)
            .map(|_| rates.take(&acme).unwrap())
            .collect();
        assert!(rates.take(&acme).is_err() && rates.take(&bell).is_ok());
        held.pop();
        assert!(rates.take(&acme).is_ok());
    }
}
