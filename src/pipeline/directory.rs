//! The directory of endpoints: subscriptions compiled for matching and signing.
//!
//! Loaded scope by scope on demand from the store, bounded in memory, dropped on change.
//! A store that does not answer is an error here, never an empty scope.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::sync::Cache;

use super::admit::EndpointLimits;
use crate::domain::circuit::OpenTimes;
use crate::domain::id::SubscriptionId;
use crate::domain::pattern::{Budget, EventView, Matcher};
use crate::domain::retry::{Exponential, RetryPolicy};
use crate::domain::signature::SigningKeys;
use crate::domain::subscription::{RateLimit, Scope, Subscription};
use crate::ports::{StoreError, StoredSubscription, SubscriptionStore};
use crate::telemetry::Telemetry;
use crate::telemetry::events::CacheRequest;
use crate::telemetry::labels::CacheResult;

/// Most subscriptions kept compiled.
const CACHED_MAX: u64 = 200_000;
/// How many scopes may load at the same time.
const LOADERS: usize = 16;

/// How long a circuit is open at least.
const OPEN_MIN: Duration = Duration::from_millis(100);
/// How long it is open the first time, at most.
const OPEN_FIRST_MAX: Duration = Duration::from_secs(1);
/// How long it is open at most: an endpoint that is back is noticed after this time.
const OPEN_MAX: Duration = Duration::from_secs(60);

/// What holds for subscriptions that do not say otherwise.
#[derive(Clone, Debug)]
pub struct EndpointDefaults {
    /// `delivery.rate_limit`; `None` for no limit.
    pub rate: Option<RateLimit>,
    /// `delivery.endpoint_max_in_flight`
    pub in_flight_max: u32,
    /// The installation's retry policy, which may be an explicit list.
    pub retry: RetryPolicy,
    /// `[retry]`, which a subscription's own settings change.
    pub exponential: Exponential,
    /// `retry.jitter`
    pub jitter: f64,
}

/// A subscription ready to be sent to.
#[derive(Debug)]
pub struct Endpoint {
    /// The subscription.
    pub subscription: Arc<Subscription>,
    /// Its keys, prepared.
    pub keys: SigningKeys,
    /// Its retry policy.
    pub retry: RetryPolicy,
    /// Its bounds.
    pub limits: EndpointLimits,
}

/// All endpoints of one scope, by id, with their patterns compiled together.
#[derive(Debug)]
pub struct CompiledScope {
    endpoints: Vec<Arc<Endpoint>>,
    matcher: Matcher,
}

/// The endpoints of every scope.
pub struct Directory {
    inner: Arc<Inner>,
    store: Arc<dyn SubscriptionStore>,
    defaults: EndpointDefaults,
    telemetry: Telemetry,
    loaders: Vec<tokio::sync::Mutex<()>>,
}

struct Inner {
    scopes: Cache<Scope, Arc<CompiledScope>>,
    /// What is being loaded, and whether it changed meanwhile: then it is not kept. Locked
    /// while the cache is written because of a load or a change.
    loading: Mutex<HashMap<Scope, bool>>,
}

/// A scope that is being loaded.
struct Loading<'a> {
    inner: &'a Inner,
    scope: &'a Scope,
}

impl Directory {
    /// An empty directory over `store`.
    pub fn new(
        store: Arc<dyn SubscriptionStore>,
        defaults: EndpointDefaults,
        telemetry: Telemetry,
    ) -> Self {
        let weigh = |_: &Scope, scope: &Arc<CompiledScope>| {
            u32::try_from(scope.endpoints.len() + 1).unwrap_or(u32::MAX)
        };
        let inner = Arc::new(Inner {
            scopes: Cache::builder()
                .weigher(weigh)
                .max_capacity(CACHED_MAX)
                .build(),
            loading: Mutex::default(),
        });
        let listener = Arc::clone(&inner);
        store.on_change(Box::new(move |scope| listener.changed(scope)));
        Self {
            inner,
            store,
            defaults,
            telemetry,
            loaders: (0..LOADERS).map(|_| tokio::sync::Mutex::new(())).collect(),
        }
    }

    /// The endpoints of `scope`, as of this call or later.
    ///
    /// # Errors
    /// [`StoreError`] when they are not in memory and the store does not answer.
    pub async fn scope(&self, scope: &Scope) -> Result<Arc<CompiledScope>, StoreError> {
        if let Some(compiled) = self.in_memory(scope) {
            return Ok(compiled);
        }
        let _turn = self.loaders[loader_of(scope)].lock().await;
        if let Some(compiled) = self.in_memory(scope) {
            return Ok(compiled);
        }
        let loading = Loading::begin(&self.inner, scope);
        let loaded = self.store.of_scope(scope).await;
        let stored =
            loaded.inspect_err(|_| self.telemetry.emit(CacheRequest(CacheResult::Error)))?;
        self.telemetry.emit(CacheRequest(CacheResult::Miss));
        let compiled = Arc::new(self.compile(stored));
        loading.keep(&compiled);
        Ok(compiled)
    }

    /// The endpoints of `scope` if they need not be loaded.
    pub fn in_memory(&self, scope: &Scope) -> Option<Arc<CompiledScope>> {
        let compiled = self.inner.scopes.get(scope)?;
        self.telemetry.emit(CacheRequest(CacheResult::Hit));
        Some(compiled)
    }

    /// The endpoint `id`, in `tenant`'s scope or in that of every tenant.
    ///
    /// # Errors
    /// [`StoreError`] when it is not in memory and the store does not answer.
    pub async fn endpoint(
        &self,
        tenant: &Scope,
        id: &SubscriptionId,
    ) -> Result<Option<Arc<Endpoint>>, StoreError> {
        if let Some(endpoint) = self.scope(tenant).await?.get(id) {
            return Ok(Some(endpoint));
        }
        Ok(self.scope(&Scope::Every).await?.get(id))
    }

    /// Subscriptions kept compiled.
    pub fn cached(&self) -> u64 {
        self.inner.scopes.run_pending_tasks();
        let scopes = self.inner.scopes.iter();
        scopes.map(|(_, scope)| scope.endpoints.len() as u64).sum()
    }

    fn compile(&self, mut stored: Vec<StoredSubscription>) -> CompiledScope {
        stored.sort_by(|a, b| a.subscription.id.cmp(&b.subscription.id));
        let endpoints: Vec<_> = stored
            .into_iter()
            .map(|stored| Arc::new(self.prepare(stored)))
            .collect();
        let wanting = (0u32..)
            .zip(&endpoints)
            .filter(|(_, endpoint)| endpoint.subscription.disabled_reason.is_none())
            .map(|(index, endpoint)| {
                let spec = &endpoint.subscription.spec;
                let pattern = spec
                    .filter
                    .as_ref()
                    .map(|filter| Arc::clone(&filter.pattern));
                (index, spec.event_types.as_slice(), pattern)
            });
        let matcher = Matcher::build(wanting);
        CompiledScope { endpoints, matcher }
    }

    fn prepare(&self, stored: StoredSubscription) -> Endpoint {
        let spec = &stored.subscription.spec;
        // Settings that were accepted once and are out of range now fall back.
        let retry = match &spec.retry {
            None => self.defaults.retry.clone(),
            Some(changes) => {
                let merged = self.defaults.exponential.with(changes);
                RetryPolicy::exponential(merged, self.defaults.jitter)
                    .unwrap_or_else(|_| self.defaults.retry.clone())
            }
        };
        Endpoint {
            keys: SigningKeys::new(&stored.secrets, spec.signing),
            limits: EndpointLimits {
                in_flight_max: self.defaults.in_flight_max,
                rate: spec.rate_limit.or(self.defaults.rate),
                open: open_times(&retry),
                changed_at: stored.subscription.updated_at,
            },
            retry,
            subscription: stored.subscription,
        }
    }
}

impl Inner {
    fn loading(&self) -> MutexGuard<'_, HashMap<Scope, bool>> {
        self.loading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, scope: &Scope) {
        let mut loading = self.loading();
        if let Some(changed) = loading.get_mut(scope) {
            *changed = true;
        }
        self.scopes.invalidate(scope);
    }
}

impl<'a> Loading<'a> {
    /// Only one at a time begins to load a scope.
    fn begin(inner: &'a Inner, scope: &'a Scope) -> Self {
        inner.loading().insert(scope.clone(), false);
        Self { inner, scope }
    }

    /// Keeps what was loaded, unless it changed since the load began.
    fn keep(self, compiled: &Arc<CompiledScope>) {
        let loading = self.inner.loading();
        if loading.get(self.scope) == Some(&false) {
            let scopes = &self.inner.scopes;
            scopes.insert(self.scope.clone(), Arc::clone(compiled));
        }
    }
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        self.inner.loading().remove(self.scope);
    }
}

impl CompiledScope {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Pushes the endpoints that want the event, by id. When `budget` is spent, this is no answer.
    pub fn matching(&self, event: &EventView<'_>, budget: &Budget, out: &mut Vec<Arc<Endpoint>>) {
        let mut indexes = Vec::new();
        self.matcher.matching(event, budget, &mut indexes);
        out.extend(
            indexes
                .iter()
                .map(|i| Arc::clone(&self.endpoints[*i as usize])),
        );
    }

    /// The endpoint `id`, if it is in this scope.
    pub fn get(&self, id: &SubscriptionId) -> Option<Arc<Endpoint>> {
        let found = self
            .endpoints
            .binary_search_by(|endpoint| endpoint.subscription.id.cmp(id));
        found.ok().map(|i| Arc::clone(&self.endpoints[i]))
    }
}

/// An open circuit keeps step with the retries that would come to nothing behind it.
fn open_times(retry: &RetryPolicy) -> OpenTimes {
    let (shortest, longest) = match retry.max_attempts() {
        // Who wants it given up at once is not kept waiting.
        1 => (OPEN_MIN, OPEN_FIRST_MAX),
        _ => retry.delays(),
    };
    let first = shortest.clamp(OPEN_MIN, OPEN_FIRST_MAX);
    OpenTimes {
        first,
        max: longest.clamp(first, OPEN_MAX),
    }
}

fn loader_of(scope: &Scope) -> usize {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    scope.hash(&mut hasher);
    usize::try_from(hasher.finish() % LOADERS as u64).unwrap_or(0)
}
