//! `/v1/subscriptions`: create, list, read, change, delete; below, declare, test, rotate the
//! secret, and what describes all of it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::Api;
use super::auth::Caller;
use super::conditional::{Conditions, IdempotencyKey, etag};
use super::extract::{Document, Query, SubscriptionPath};
use super::problem::{Code, Problem};
use crate::codec::subscription::{
    SpecRules, Written, merge_patch, read, show as show_json, show_secret,
};
use crate::domain::id::SubscriptionId;
use crate::domain::signature::{Secret, Secrets};
use crate::domain::subscription::{DisabledReason, FieldFault, Scope, Subscription};
use crate::ports::{StoreError, StoredSubscription};

mod actions;
mod declare;
pub(super) mod describe;
mod schema;

pub use actions::{rotate_secret, test};
pub use declare::{declare, declare_one};

/// How long a repeated creation is answered as the first was, its secret included.
const REPLAYED_FOR: Duration = Duration::from_secs(24 * 3600);
/// Fields whose rules are not those by which older subscriptions were written.
const TIGHTENED: [&str; 5] = ["url", "format", "filter", "headers", "description"];
/// How often a change is tried again when another one was faster.
const CONFLICT_TRIES: usize = 5;

/// Creates one; answers it with its secret, shown this once. Asked again with the same
/// `Idempotency-Key`, it answers the same, for a day.
///
/// # Errors
/// [`Problem`].
pub async fn create(
    State(api): State<Api>,
    caller: Caller,
    key: IdempotencyKey,
    Document(document): Document,
) -> Result<Response, Problem> {
    let Written {
        tenant,
        spec,
        enabled,
    } = read(&document, &api.rules)?;
    caller.check(&tenant)?;
    let now = api.ports.clock.now();
    let id = match &key.0 {
        Some(key) => SubscriptionId::of_key(tenant.as_str(), key),
        None => new_id(&api),
    };
    let subscription = Subscription {
        id,
        tenant,
        spec,
        disabled_reason: disabled_reason(enabled, None),
        created_at: now,
        updated_at: now,
    };
    let stored = StoredSubscription {
        subscription: Arc::new(subscription),
        secrets: Secrets::only(new_secret(&api)),
        version: 1,
    };
    let stored = match api.ports.subscriptions.put(stored.clone(), None).await {
        Err(StoreError::Conflict) if key.0.is_some() => made_before(&api, &caller, stored).await?,
        put => put.map(|()| stored)?,
    };
    let document = warned(&api, &stored, shown_with_secret(&stored));
    Ok(answered(StatusCode::CREATED, &stored, document))
}

/// What was made under the same key before, if it is what is asked for now.
async fn made_before(
    api: &Api,
    caller: &Caller,
    asked: StoredSubscription,
) -> Result<StoredSubscription, Problem> {
    let there = find(api, caller, &asked.subscription.id).await?;
    let Subscription { created_at, .. } = *there.subscription;
    let id = &there.subscription.id;
    if there.version > 1 || asked.subscription.created_at.since(created_at) > REPLAYED_FOR {
        let detail =
            format!("this idempotency key made {id}, which is older than a day or was changed");
        return Err(Problem::new(Code::IdempotencyKeyUsed, detail).with("id", id.as_str()));
    }
    let mut same = (*asked.subscription).clone();
    (same.created_at, same.updated_at) = (created_at, there.subscription.updated_at);
    if show_json(&same, &there.secrets) != show_json(&there.subscription, &there.secrets) {
        let detail =
            format!("this idempotency key made {id} from another document: take another key");
        return Err(Problem::new(Code::IdempotencyKeyReused, detail).with("id", id.as_str()));
    }
    Ok(there)
}

/// A page of them, by id.
///
/// # Errors
/// [`Problem`].
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    query: Query,
) -> Result<Json<Value>, Problem> {
    let expected = "a tenant, or * for those of every tenant";
    let scope = query.parsed("tenant", expected, |text| Scope::parse(text).ok())?;
    let parse = |text: &str| SubscriptionId::parse(text).ok();
    let after = query.parsed("cursor", "the `next` of the page before", parse)?;
    let limit = query.limit()?;
    let scope = match (caller, scope) {
        (Caller::Admin, asked) => asked,
        (Caller::Tenant(own), asked) => {
            let own = Scope::One(own);
            if asked.is_some_and(|asked| asked != own) {
                return Ok(Json(json!({ "items": [], "next": null })));
            }
            Some(own)
        }
    };
    let (found, next) = page(&api, scope.as_ref(), after.as_ref(), limit).await?;
    let items: Vec<_> = found.iter().map(shown).collect();
    let next = next.map(|id| id.to_string());
    Ok(Json(json!({ "items": items, "next": next })))
}

/// One of them.
///
/// # Errors
/// [`Problem`].
pub async fn show(
    State(api): State<Api>,
    caller: Caller,
    SubscriptionPath(id): SubscriptionPath,
) -> Result<Response, Problem> {
    let stored = find(&api, &caller, &id).await?;
    Ok(answered(StatusCode::OK, &stored, shown(&stored)))
}

/// Changes one by a JSON merge patch (RFC 7396).
///
/// # Errors
/// [`Problem`].
pub async fn change(
    State(api): State<Api>,
    caller: Caller,
    SubscriptionPath(id): SubscriptionPath,
    conditions: Conditions,
    Document(patch): Document,
) -> Result<Response, Problem> {
    let change = |stored: &_| {
        conditions.check(Some(stored))?;
        patched(&api, stored, &patch)
    };
    let (changed, rotated) = update(&api, &caller, &id, change).await?;
    // Another way of signing needs another secret, which is shown this once.
    let document = match rotated {
        true => shown_with_secret(&changed),
        false => shown(&changed),
    };
    let document = warned(&api, &changed, document);
    Ok(answered(StatusCode::OK, &changed, document))
}

/// Deletes one; its waiting deliveries are dead-lettered when they are due.
///
/// # Errors
/// [`Problem`].
pub async fn delete(
    State(api): State<Api>,
    caller: Caller,
    SubscriptionPath(id): SubscriptionPath,
    conditions: Conditions,
) -> Result<StatusCode, Problem> {
    let store = &api.ports.subscriptions;
    for _ in 0..CONFLICT_TRIES {
        // The admin can delete what cannot be read. Else what goes is what was looked at, and
        // nothing that someone else made of it since.
        let expected = if caller == Caller::Admin && !conditions.are_any() {
            None
        } else {
            let there = find(&api, &caller, &id).await?;
            conditions.check(Some(&there))?;
            Some(there.version)
        };
        match store.delete(&id, expected).await {
            Ok(true) => return Ok(StatusCode::NO_CONTENT),
            Ok(false) => return Err(no_such()),
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Conflict.into())
}

/// The one that has this id; those that the caller must not see are not there.
pub(super) async fn find(
    api: &Api,
    caller: &Caller,
    id: &SubscriptionId,
) -> Result<StoredSubscription, Problem> {
    let found = match api.ports.subscriptions.get(id).await {
        Ok(found) => found,
        Err(error) => {
            let problem = Problem::from(error);
            // Whose it is cannot be read: a tenant is told nothing of it.
            return Err(match caller {
                Caller::Admin => problem,
                Caller::Tenant(_) => Problem::unavailable(),
            });
        }
    };
    let found = found.filter(|stored| caller.sees(&stored.subscription.tenant));
    found.ok_or_else(no_such)
}

/// A page of them by id, and the `cursor` of the next one, if there is one.
pub(super) async fn page(
    api: &Api,
    scope: Option<&Scope>,
    after: Option<&SubscriptionId>,
    limit: usize,
) -> Result<(Vec<StoredSubscription>, Option<SubscriptionId>), Problem> {
    // One more than asked for tells whether there is a next page.
    let store = &api.ports.subscriptions;
    let mut found = store.list(scope, after, limit + 1).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| more);
    let next = last.map(|stored| stored.subscription.id.clone());
    Ok((found, next))
}

/// Writes `stored` as `change` makes it; again, from what is there then, when someone else was
/// faster. `None` when it was deleted meanwhile.
pub(super) async fn rewrite<T>(
    api: &Api,
    mut stored: StoredSubscription,
    change: impl Fn(&StoredSubscription) -> Result<(Subscription, Secrets, T), Problem>,
) -> Result<Option<(StoredSubscription, T)>, Problem> {
    let store = &api.ports.subscriptions;
    for _ in 0..CONFLICT_TRIES {
        let (subscription, secrets, extra) = change(&stored)?;
        let changed = StoredSubscription {
            subscription: Arc::new(subscription),
            secrets,
            version: stored.version + 1,
        };
        match store.put(changed.clone(), Some(stored.version)).await {
            Ok(()) => return Ok(Some((changed, extra))),
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
        match store.get(&changed.subscription.id).await? {
            Some(there) => stored = there,
            None => return Ok(None),
        }
    }
    Err(StoreError::Conflict.into())
}

/// Reads, changes and writes one.
async fn update<T>(
    api: &Api,
    caller: &Caller,
    id: &SubscriptionId,
    change: impl Fn(&StoredSubscription) -> Result<(Subscription, Secrets, T), Problem>,
) -> Result<(StoredSubscription, T), Problem> {
    let changed = rewrite(api, find(api, caller, id).await?, |stored| {
        // Deleted and made again meanwhile, it may be another tenant's.
        if !caller.sees(&stored.subscription.tenant) {
            return Err(no_such());
        }
        let (mut subscription, secrets, extra) = change(stored)?;
        subscription.updated_at = api.ports.clock.now();
        Ok((subscription, secrets, extra))
    });
    changed.await?.ok_or_else(no_such)
}

/// The subscription with `patch` applied, and whether it has a new secret.
fn patched(
    api: &Api,
    stored: &StoredSubscription,
    patch: &Map<String, Value>,
) -> Result<(Subscription, Secrets, bool), Problem> {
    let old = &stored.subscription;
    let mut document = show_json(old, &stored.secrets);
    for name in ["id", "created_at"] {
        if patch
            .get(name)
            .is_some_and(|value| document.get(name) != Some(value))
        {
            return Err(FieldFault::new(name, "cannot be changed").into());
        }
    }
    let patch = with_known_headers(patch, &document);
    merge_patch(&mut document, &patch);
    // What is not named stays as it is, also where rules were tightened since it was written.
    let is_named = |name: &&str| patch.contains_key(*name);
    let rules = SpecRules {
        is_stored: !TIGHTENED.iter().any(is_named),
        ..api.rules
    };
    let written = read(&document, &rules)?;
    if written.tenant != old.tenant {
        return Err(FieldFault::new("tenant", "cannot be changed: create another one").into());
    }
    let rotated = written.spec.signing != old.spec.signing;
    let secrets = match rotated {
        true => Secrets::only(new_secret(api)),
        false => stored.secrets.clone(),
    };
    let subscription = Subscription {
        id: old.id.clone(),
        tenant: written.tenant,
        spec: written.spec,
        disabled_reason: disabled_reason(written.enabled, old.disabled_reason),
        created_at: old.created_at,
        updated_at: old.updated_at,
    };
    Ok((subscription, secrets, rotated))
}

/// The patch with the names of headers that are there written as they are kept, which is in
/// lower case: one name is one header, however it is written.
fn with_known_headers(
    patch: &Map<String, Value>,
    document: &Map<String, Value>,
) -> Map<String, Value> {
    let mut patch = patch.clone();
    let known = document.get("headers").and_then(Value::as_object);
    if let (Some(Value::Object(headers)), Some(known)) = (patch.get_mut("headers"), known) {
        let rename = |(name, value): (String, Value)| {
            let lower = name.to_ascii_lowercase();
            let name = if known.contains_key(&lower) {
                lower
            } else {
                name
            };
            (name, value)
        };
        *headers = std::mem::take(headers).into_iter().map(rename).collect();
    }
    patch
}

/// Why one is disabled that is to be enabled or not, and was disabled for `old`.
fn disabled_reason(enabled: bool, old: Option<DisabledReason>) -> Option<DisabledReason> {
    match (enabled, old) {
        (true, _) => None,
        (false, None) => Some(DisabledReason::Manual),
        (false, kept) => kept,
    }
}

/// A subscription with its tag and, when it is new, with where it is.
fn answered(status: StatusCode, stored: &StoredSubscription, document: Value) -> Response {
    let mut response = (status, Json(document)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::ETAG, etag(stored));
    if status == StatusCode::CREATED {
        let location = format!("/v1/subscriptions/{}", stored.subscription.id);
        headers.extend(location.parse().ok().map(|at| (header::LOCATION, at)));
    }
    response
}

fn shown(stored: &StoredSubscription) -> Value {
    show_json(&stored.subscription, &stored.secrets).into()
}

fn shown_with_secret(stored: &StoredSubscription) -> Value {
    let mut document = show_json(&stored.subscription, &stored.secrets);
    let signing = stored.subscription.spec.signing;
    let secret = show_secret(&stored.secrets.current, signing);
    document.insert("secret".to_owned(), secret);
    document.into()
}

/// The same, with a warning when nothing would be sent there as things are. That may change: a
/// subscription outlives `egress.allow`, and a name what it resolves to.
fn warned(api: &Api, stored: &StoredSubscription, mut document: Value) -> Value {
    let url = stored.subscription.spec.url.url();
    if let Err(refusal) = api.egress.check_url(url) {
        document["warnings"] = json!([{
            "field": "url",
            "code": "blocked_address",
            "rule": refusal.rule.code(),
            "detail": format!("{refusal}: nothing is sent there {}", refusal.rule.unless()),
        }]);
    }
    document
}

fn new_id(api: &Api) -> SubscriptionId {
    let mut random = [0; 10];
    api.ports.chance.fill(&mut random);
    SubscriptionId::make(api.ports.clock.now(), random)
}

fn new_secret(api: &Api) -> Secret {
    let mut bytes = Zeroizing::new([0; 32]);
    api.ports.chance.fill(&mut *bytes);
    Secret::new(*bytes)
}

fn no_such() -> Problem {
    Problem::not_found("there is no such subscription")
}
