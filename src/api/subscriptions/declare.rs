//! `PUT /v1/subscriptions`: what there is to be, all or none, also after a store has lost
//! what there was. `PUT /v1/subscriptions/{id}`: one of them.
//!
//! Who is not named stays as it is. With `dry_run=true` the first says what it would do, and does
//! nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use futures_util::future::try_join_all;
use http::StatusCode;
use serde_json::{Value, json};

use super::super::auth::Caller;
use super::super::conditional::Conditions;
use super::super::extract::{Document, Json as AnyJson, Query, SubscriptionPath};
use super::super::problem::{Code, Problem};
use super::super::{Api, DECLARED_MAX};
use super::{
    CONFLICT_TRIES, answered, disabled_reason, new_id, new_secret, no_such, show_json, shown,
    shown_with_secret, warned,
};
use crate::codec::subscription::declared::{Declared, read_declared};
use crate::codec::subscription::show_secret;
use crate::domain::event::kind_of;
use crate::domain::id::SubscriptionId;
use crate::domain::signature::Secrets;
use crate::domain::subscription::{FieldFault, Subscription};
use crate::ports::{StoreError, StoredSubscription};

/// How many are looked up at once.
const LOOKUPS_MAX: usize = 64;
/// What a declaration does to one subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Created,
    Updated,
    Unchanged,
}

impl Effect {
    fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
        }
    }
}

/// One subscription as it is to be written.
struct Change {
    effect: Effect,
    stored: StoredSubscription,
    /// Its secret was made here, and is shown this once.
    secret_made: bool,
    /// The fields that differ from what is there; `secret` for another secret.
    changes: Vec<String>,
}

/// Declares several, all or none; answers what was done to each. With `dry_run` nothing is done,
/// and the answer has the fields that would change, and no secrets.
///
/// # Errors
/// [`Problem`]: what is wrong with which item; then none was changed.
pub async fn declare(
    State(api): State<Api>,
    query: Query,
    AnyJson(body): AnyJson,
) -> Result<Json<Value>, Problem> {
    let dry_run = query.flag("dry_run")?;
    let declared = read_items(&api, items_of(body)?)?;
    let named = declared.iter().filter_map(|item| item.id.clone());
    let there = those_there(&api, &named.collect::<Vec<_>>()).await?;
    let mut changes = Vec::with_capacity(declared.len());
    for (index, item) in declared.iter().enumerate() {
        let id = item.id.clone().unwrap_or_else(|| new_id(&api));
        let change = change_of(&api, item, &id, there.get(&id));
        changes.push(change.map_err(|fault| of_item(fault, index))?);
    }
    if dry_run {
        let is_named = |index: usize| declared[index].id.is_some();
        return Ok(Json(plan(&api, &changes, is_named)));
    }
    let written = changes
        .iter()
        .filter(|change| change.effect != Effect::Unchanged);
    let written: Vec<_> = written.map(|change| change.stored.clone()).collect();
    if !written.is_empty() {
        api.ports.subscriptions.put_all(written).await?;
    }
    Ok(Json(answer(&api, &changes)))
}

/// Declares one; answers it, with its secret when that was made here. Unlike [`declare`] it
/// changes what it has seen and nothing else, and needs a store that has lost nothing.
///
/// # Errors
/// [`Problem`].
pub async fn declare_one(
    State(api): State<Api>,
    caller: Caller,
    SubscriptionPath(id): SubscriptionPath,
    conditions: Conditions,
    Document(document): Document,
) -> Result<Response, Problem> {
    let declared = read_declared(document, &api.rules)?;
    if declared.id.as_ref().is_some_and(|given| *given != id) {
        return Err(FieldFault::new("id", format!("must be {id}, as in the path")).into());
    }
    let store = &api.ports.subscriptions;
    for _ in 0..CONFLICT_TRIES {
        let there = store.get(&id).await?;
        // Only the admin chooses ids: whoever could would learn which ones others have.
        let is_seen = |stored: &StoredSubscription| caller.sees(&stored.subscription.tenant);
        if caller != Caller::Admin && !there.as_ref().is_some_and(is_seen) {
            return Err(no_such());
        }
        conditions.check(there.as_ref())?;
        let change = change_of(&api, &declared, &id, there.as_ref())?;
        let expected = there.map(|stored| stored.version);
        if change.effect != Effect::Unchanged {
            match store.put(change.stored.clone(), expected).await {
                Ok(()) => {}
                Err(StoreError::Conflict) => continue,
                Err(error) => return Err(error.into()),
            }
        }
        let document = match change.secret_made {
            true => shown_with_secret(&change.stored),
            false => shown(&change.stored),
        };
        let document = warned(&api, &change.stored, document);
        let status = match change.effect {
            Effect::Created => StatusCode::CREATED,
            Effect::Updated | Effect::Unchanged => StatusCode::OK,
        };
        return Ok(answered(status, &change.stored, document));
    }
    Err(StoreError::Conflict.into())
}

/// The items of a body: an array, or an object that has it, as lists have.
fn items_of(body: Value) -> Result<Vec<Value>, Problem> {
    let items = match body {
        Value::Array(items) => items,
        Value::Object(mut document) => {
            let items = document.remove("items");
            // A list says where it goes on; what is declared is what is here.
            let unknown = document.keys().find(|name| *name != "next");
            if let Some(name) = unknown {
                return Err(FieldFault::new(name.as_str(), "is not known").into());
            }
            match items {
                Some(Value::Array(items)) => items,
                Some(other) => {
                    let problem = format!("must be an array, found {}", kind_of(&other));
                    return Err(FieldFault::new("items", problem).into());
                }
                None => return Err(FieldFault::new("items", "is missing").into()),
            }
        }
        other => {
            let found = kind_of(&other);
            let detail = format!("the body must be an array or an object, found {found}");
            return Err(Problem::malformed(detail));
        }
    };
    if items.len() > DECLARED_MAX {
        let found = items.len();
        let detail = format!("at most {DECLARED_MAX} subscriptions at a time, found {found}");
        return Err(Problem::new(Code::InvalidBatch, detail));
    }
    Ok(items)
}

fn read_items(api: &Api, items: Vec<Value>) -> Result<Vec<Declared>, Problem> {
    let mut read = Vec::with_capacity(items.len());
    let mut named = HashMap::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let Value::Object(document) = item else {
            let found = kind_of(&item);
            let detail = format!("an item must be a subscription (an object), found {found}");
            return Err(Problem::new(Code::InvalidItem, detail).with("index", index));
        };
        let declared = read_declared(document, &api.rules);
        let declared = declared.map_err(|fault| of_item(fault, index))?;
        if let Some(id) = &declared.id
            && let Some(other) = named.insert(id.clone(), index)
        {
            let problem = format!("must be named once: item {other} is {id} too");
            return Err(of_item(FieldFault::new("id", problem), index));
        }
        read.push(declared);
    }
    Ok(read)
}

fn of_item(fault: FieldFault, index: usize) -> Problem {
    Problem::from(fault).with("index", index)
}

/// Those of `ids` that are there. None is when the store has lost what it had: this call is
/// what restores it.
async fn those_there(
    api: &Api,
    ids: &[SubscriptionId],
) -> Result<HashMap<SubscriptionId, StoredSubscription>, Problem> {
    match look_up(api, ids).await {
        Ok(found) => Ok(found),
        Err(StoreError::Lost(_)) => {
            tracing::warn!(
                declared = ids.len(),
                "the store has lost what it held: all that are declared are taken as new"
            );
            Ok(HashMap::new())
        }
        Err(error) => Err(error.into()),
    }
}

async fn look_up(
    api: &Api,
    ids: &[SubscriptionId],
) -> Result<HashMap<SubscriptionId, StoredSubscription>, StoreError> {
    let mut there = HashMap::with_capacity(ids.len());
    for some in ids.chunks(LOOKUPS_MAX) {
        let found = try_join_all(some.iter().map(|id| api.ports.subscriptions.get(id))).await?;
        let found = found.into_iter().flatten();
        there.extend(found.map(|stored| (stored.subscription.id.clone(), stored)));
    }
    Ok(there)
}

/// What declaring `item` under `id` does to what is there.
fn change_of(
    api: &Api,
    item: &Declared,
    id: &SubscriptionId,
    there: Option<&StoredSubscription>,
) -> Result<Change, FieldFault> {
    let written = &item.written;
    let old = there.map(|stored| stored.subscription.as_ref());
    if old.is_some_and(|old| old.tenant != written.tenant) {
        return Err(FieldFault::new(
            "tenant",
            "cannot be changed: declare another one",
        ));
    }
    let kept = there.filter(|stored| stored.subscription.spec.signing == written.spec.signing);
    let kept = kept.map(|stored| &stored.secrets);
    let (secrets, secret_made) = match (&item.secret, kept) {
        (None, Some(kept)) => (kept.clone(), false),
        (Some(given), Some(kept)) if given.bytes() == kept.current.bytes() => (kept.clone(), false),
        (given, _) => {
            let current = given.clone().unwrap_or_else(|| new_secret(api));
            (Secrets::only(current), given.is_none())
        }
    };
    let now = api.ports.clock.now();
    let mut subscription = Subscription {
        id: id.clone(),
        tenant: written.tenant.clone(),
        spec: written.spec.clone(),
        disabled_reason: disabled_reason(written.enabled, old.and_then(|old| old.disabled_reason)),
        created_at: old.map_or(now, |old| old.created_at),
        updated_at: old.map_or(now, |old| old.updated_at),
    };
    let changes = there.map(|stored| changes(stored, &subscription, &secrets));
    let effect = match &changes {
        None => Effect::Created,
        Some(none) if none.is_empty() => Effect::Unchanged,
        Some(_) => Effect::Updated,
    };
    if effect == Effect::Updated {
        subscription.updated_at = now;
    }
    let before = there.map_or(0, |stored| stored.version);
    let stored = StoredSubscription {
        subscription: Arc::new(subscription),
        secrets,
        version: match effect {
            Effect::Unchanged => before,
            Effect::Created | Effect::Updated => before + 1,
        },
    };
    Ok(Change {
        effect,
        stored,
        secret_made,
        changes: changes.unwrap_or_default(),
    })
}

/// What is shown and follows from other fields.
const DERIVED: [&str; 3] = ["disabled_reason", "public_key", "updated_at"];

/// The fields that would change: of what is shown, and the secret, by its name alone.
fn changes(there: &StoredSubscription, declared: &Subscription, secrets: &Secrets) -> Vec<String> {
    let before = show_json(&there.subscription, &there.secrets);
    let after = show_json(declared, secrets);
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = names
        .into_iter()
        .filter(|name| !DERIVED.contains(&name.as_str()) && before.get(*name) != after.get(*name));
    let mut changed: Vec<String> = changed.cloned().collect();
    if there.secrets.current.bytes() != secrets.current.bytes() {
        changed.push("secret".to_owned());
    }
    changed
}

fn answer(api: &Api, changes: &[Change]) -> Value {
    let item = |change: &Change| {
        let subscription = &change.stored.subscription;
        let mut item = json!({
            "id": subscription.id.as_str(),
            "action": change.effect.name(),
        });
        if change.secret_made {
            let secret = &change.stored.secrets.current;
            item["secret"] = show_secret(secret, subscription.spec.signing);
        }
        warned(api, &change.stored, item)
    };
    let items: Vec<Value> = changes.iter().map(item).collect();
    counted(changes, &items)
}

/// The same of what would be done. What has no id yet gets it when it is written.
fn plan(api: &Api, changes: &[Change], is_named: impl Fn(usize) -> bool) -> Value {
    let item = |(index, change): (usize, &Change)| {
        let id = Some(change.stored.subscription.id.as_str()).filter(|_| is_named(index));
        let item = json!({
            "id": id,
            "action": change.effect.name(),
            "changes": change.changes,
        });
        warned(api, &change.stored, item)
    };
    let items: Vec<Value> = changes.iter().enumerate().map(item).collect();
    let mut plan = counted(changes, &items);
    plan["dry_run"] = true.into();
    plan
}

fn counted(changes: &[Change], items: &[Value]) -> Value {
    let count = |effect: Effect| {
        let of = changes.iter().filter(|change| change.effect == effect);
        of.count()
    };
    json!({
        "created": count(Effect::Created),
        "updated": count(Effect::Updated),
        "unchanged": count(Effect::Unchanged),
        "items": items,
    })
}
