//! Health: since when endpoints fail, and the end of those that fail for too long.
//!
//! The store knows since when each failing endpoint has failed, over all replicas and
//! restarts. It is asked at the first failure and when the time is up, and told of the success
//! that ends a failure: an endpoint that goes on as it was costs no round trip. A success in
//! another process is found by looking through what the store holds, which are only the
//! endpoints that fail.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::directory::Endpoint;
use super::settle::disable_subscription;
use super::{Context, Pipeline};
use crate::domain::decide::fails_too_long;
use crate::domain::id::{SubscriptionId, TenantId};
use crate::domain::outcome::Class;
use crate::domain::subscription::DisabledReason;
use crate::domain::timestamp::UnixMillis;
use crate::ports::StoreError;
use crate::telemetry::events::StoreTrouble;

/// How often what the store holds is looked through, at least.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(30);
/// An endpoint without an attempt for this long is forgotten here; the store remembers.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// What this process knows of endpoints that had an attempt of late.
#[derive(Default)]
pub struct Health {
    known: Mutex<HashMap<SubscriptionId, Known>>,
}

#[derive(Clone, Copy, Default)]
struct Known {
    /// Since when all attempts have failed, if the store said so.
    failing_since: Option<UnixMillis>,
    succeeded_at: Option<UnixMillis>,
    last_at: UnixMillis,
}

impl Health {
    fn known(&self) -> MutexGuard<'_, HashMap<SubscriptionId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, id: &SubscriptionId, change: impl FnOnce(&mut Known) -> T) -> T {
        let mut all = self.known();
        if let Some(known) = all.get_mut(id) {
            return change(known);
        }
        change(all.entry(id.clone()).or_default())
    }

    /// Says whether the store counts it among the failing.
    fn succeeded(&self, id: &SubscriptionId, at: UnixMillis) -> bool {
        self.change(id, |known| {
            known.last_at = at;
            known.succeeded_at = Some(at);
            known.failing_since.take().is_some()
        })
    }

    /// Since when it has failed, if the store said so.
    fn failed(&self, id: &SubscriptionId, at: UnixMillis) -> Option<UnixMillis> {
        self.change(id, |known| {
            known.last_at = at;
            known.failing_since
        })
    }

    /// Of the failing ones those that had a success here since; forgets what it need not know.
    fn compare(
        &self,
        failing: &[(SubscriptionId, UnixMillis)],
        now: UnixMillis,
    ) -> Vec<(SubscriptionId, UnixMillis)> {
        let mut all = self.known();
        all.retain(|_, known| now.since(known.last_at) < FORGET_AFTER);
        // Some other process may have had a success: the next failure asks again.
        for known in all.values_mut() {
            known.failing_since = None;
        }
        let mut recovered = Vec::new();
        for (id, since) in failing {
            if let Some(known) = all.get_mut(id) {
                match known.succeeded_at {
                    Some(at) if at >= *since => recovered.push((id.clone(), at)),
                    _ => known.failing_since = Some(*since),
                }
            }
        }
        recovered
    }
}

/// Notes how an attempt at `at` went, and disables an endpoint that has failed for too long.
pub async fn note(
    context: &Context,
    endpoint: &Endpoint,
    tenant: &TenantId,
    class: Class,
    at: UnixMillis,
) {
    let id = &endpoint.subscription.id;
    let noted = match class {
        // It is disabled already.
        Class::Gone => Ok(()),
        Class::Acknowledged => note_success(context, id, at).await,
        Class::Failed { .. } => note_failure(context, endpoint, tenant, at).await,
    };
    if let Err(error) = noted {
        // The next attempt tells again.
        let (action, error) = ("note endpoint health", &error);
        context.telemetry.emit(StoreTrouble { action, error });
    }
}

async fn note_success(
    context: &Context,
    id: &SubscriptionId,
    at: UnixMillis,
) -> Result<(), StoreError> {
    if context.health.succeeded(id, at) {
        let recovered = [(id.clone(), at)];
        context.ports.health.succeeded(&recovered).await?;
    }
    Ok(())
}

async fn note_failure(
    context: &Context,
    endpoint: &Endpoint,
    tenant: &TenantId,
    at: UnixMillis,
) -> Result<(), StoreError> {
    let subscription = &endpoint.subscription;
    let id = &subscription.id;
    let is_over = |since| {
        let (changed_at, after) = (subscription.updated_at, context.settings.disable_after);
        fails_too_long(since, changed_at, at, after)
    };
    if let Some(since) = context.health.failed(id, at)
        && !is_over(since)
    {
        return Ok(());
    }
    let since = context.ports.health.failed(id, at).await?;
    context
        .health
        .change(id, |known| known.failing_since = Some(since));
    if is_over(since) {
        disable_subscription(context, tenant, id, DisabledReason::Failing).await;
        // Whoever enables it again begins afresh.
        let over = [(id.clone(), at)];
        context.ports.health.succeeded(&over).await?;
    }
    Ok(())
}

/// Looks through what the store holds from time to time, for ever.
pub async fn compare(pipeline: Pipeline) {
    let context = &pipeline.context;
    let every = (context.settings.disable_after / 4).min(LOOK_EVERY_MAX);
    loop {
        tokio::time::sleep(every).await;
        if let Err(error) = compare_once(context).await {
            let (action, error) = ("read endpoint health", &error);
            context.telemetry.emit(StoreTrouble { action, error });
        }
    }
}

async fn compare_once(context: &Context) -> Result<(), StoreError> {
    let health = &context.ports.health;
    let failing = health.failing().await?;
    let recovered = context.health.compare(&failing, context.ports.clock.now());
    if !recovered.is_empty() {
        health.succeeded(&recovered).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> SubscriptionId {
        SubscriptionId::parse(&format!("sub_{name}")).unwrap()
    }

    const fn at(seconds: i64) -> UnixMillis {
        UnixMillis(seconds * 1000)
    }

    #[test]
    fn a_success_here_outweighs_failures_elsewhere_before_it() {
        let health = Health::default();
        health.succeeded(&id("a"), at(10));
        health.succeeded(&id("b"), at(10));
        let failing = [(id("a"), at(9)), (id("b"), at(11)), (id("c"), at(1))];
        assert_eq!(health.compare(&failing, at(12)), [(id("a"), at(10))]);
        assert_eq!(health.failed(&id("b"), at(13)), Some(at(11)));
        assert_eq!(
            health.failed(&id("c"), at(13)),
            None,
            "nothing was sent to it"
        );
    }

    #[test]
    fn a_success_elsewhere_makes_the_next_failure_ask_again() {
        let health = Health::default();
        health.failed(&id("a"), at(1));
        health.change(&id("a"), |known| known.failing_since = Some(at(1)));
        assert_eq!(health.failed(&id("a"), at(2)), Some(at(1)));
        assert!(health.compare(&[], at(3)).is_empty());
        assert_eq!(health.failed(&id("a"), at(4)), None);
        health.compare(&[], at(4 + 600));
        assert!(health.known().is_empty(), "idle ones are forgotten");
    }
}
