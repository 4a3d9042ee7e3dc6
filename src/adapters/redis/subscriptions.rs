//! [`SubscriptionStore`]: records by id, guarded by a version, changed by scripts.
//!
//! Every read checks the marker in the same step: a Redis that lost its data is
//! unavailable, and never one without subscriptions.

use std::sync::Arc;
use std::time::Duration;

use ::redis::{RedisResult, ScriptInvocation};
use async_trait::async_trait;

use super::changes::Change;
use super::link::unavailable;
use super::{Core, Redis};
use crate::codec::subscription::{decode_record, encode_record};
use crate::codec::vault::Vault;
use crate::domain::id::SubscriptionId;
use crate::domain::subscription::{DisabledReason, Scope, Subscription};
use crate::domain::timestamp::UnixMillis;
use crate::ports::{StoreError, StoredSubscription, SubscriptionStore};

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How many records are read at once.
const PAGE: usize = 1000;
/// How often the pages of a scope are begun again because it changed. Then it is read at
/// once, which holds up Redis for a moment.
const PAGED_TRIES: u32 = 3;
/// How often disabling is tried when others change the same subscription.
const DISABLE_TRIES: u32 = 10;

/// What a writing script answers: a word, the marker, the stamp before and the new one, the
/// scopes that changed.
type Answer = (String, String, u64, u64, Vec<String>);
/// What the script of a page answers: marker, version of the scope, ids, records.
type RawPage = (String, u64, Vec<String>, Vec<Option<Vec<u8>>>);

/// A part of what is there.
struct Page {
    marker: String,
    version: u64,
    records: Vec<StoredSubscription>,
}

#[async_trait]
impl SubscriptionStore for Redis {
    async fn of_scope(&self, scope: &Scope) -> Result<Vec<StoredSubscription>, StoreError> {
        let core = &self.core;
        core.changes.loading(scope);
        for _ in 0..PAGED_TRIES {
            if let Some(found) = core.read_scope(scope, PAGE).await? {
                return Ok(found);
            }
        }
        let found = core.read_scope(scope, usize::MAX).await?;
        found.ok_or_else(|| unavailable("the subscriptions changed while they were read"))
    }

    async fn get(&self, id: &SubscriptionId) -> Result<Option<StoredSubscription>, StoreError> {
        let record = self.core.record_of(id.as_str(), LIMIT).await?;
        record
            .map(|record| decode(id.as_str(), &record, &self.core.settings.vault))
            .transpose()
    }

    async fn list(
        &self,
        scope: Option<&Scope>,
        after: Option<&SubscriptionId>,
        limit: usize,
    ) -> Result<Vec<StoredSubscription>, StoreError> {
        let mut found: Vec<StoredSubscription> = Vec::new();
        loop {
            let wanted = (limit - found.len()).min(PAGE);
            let last = found.last().map(|stored| &stored.subscription.id).or(after);
            let page = self.core.page(scope, last, wanted).await?;
            let ended = page.records.len() < wanted;
            found.extend(page.records);
            if ended || found.len() == limit {
                return Ok(found);
            }
        }
    }

    /// The version written is the given one, or one more than the replaced one where
    /// that is greater.
    async fn put(
        &self,
        mut stored: StoredSubscription,
        expected: Option<u64>,
    ) -> Result<(), StoreError> {
        let core = &self.core;
        let next = expected.map_or(1, |version| version + 1);
        stored.version = stored.version.max(next);
        // Only who never saw the marker may take an empty Redis for a new one.
        let marker = if core.changes.has_epoch() {
            String::new()
        } else {
            new_marker()?
        };
        let subscription = &stored.subscription;
        let mut put = core.writing(&core.scripts.put);
        put.arg(marker)
            .arg(subscription.id.as_str())
            .arg(expected.map_or(String::new(), |version| version.to_string()))
            .arg(stored.version)
            .arg(subscription.tenant.as_str())
            .arg(encode_record(&stored, &core.settings.vault));
        core.change(&put).await.map(drop)
    }

    async fn put_all(&self, all: Vec<StoredSubscription>) -> Result<(), StoreError> {
        let core = &self.core;
        let mut put = core.writing(&core.scripts.put_all);
        put.arg(new_marker()?);
        for stored in &all {
            put.arg(stored.subscription.id.as_str())
                .arg(stored.subscription.tenant.as_str())
                .arg(encode_record(stored, &core.settings.vault));
        }
        core.change(&put).await.map(drop)
    }

    async fn disable(
        &self,
        id: &SubscriptionId,
        reason: DisabledReason,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        for _ in 0..DISABLE_TRIES {
            let Some(mut stored) = self.get(id).await? else {
                return Ok(false);
            };
            if stored.subscription.disabled_reason.is_some() {
                return Ok(false);
            }
            stored.subscription = Arc::new(Subscription {
                disabled_reason: Some(reason),
                updated_at: now,
                ..(*stored.subscription).clone()
            });
            let version = stored.version;
            match self.put(stored, Some(version)).await {
                Err(StoreError::Conflict) => {}
                done => return done.map(|()| true),
            }
        }
        Err(StoreError::Conflict)
    }

    async fn delete(&self, id: &SubscriptionId, expected: Option<u64>) -> Result<bool, StoreError> {
        let core = &self.core;
        let mut delete = core.writing(&core.scripts.delete);
        delete
            .key(&core.keys.failing)
            .arg(id.as_str())
            .arg(expected.map_or(String::new(), |version| version.to_string()));
        let word = core.change(&delete).await?;
        Ok(word == "done")
    }

    fn on_change(&self, listener: Box<dyn Fn(&Scope) + Send + Sync>) {
        self.core.changes.listen(listener);
    }
}

impl Core {
    /// Marks an empty Redis as ours; says whether it was empty.
    pub(super) async fn mark(&self) -> Result<bool, StoreError> {
        let mut init = self.writing(&self.scripts.init);
        init.arg(new_marker()?);
        let made = self.change(&init).await? == "made";
        self.look_now.notify_one();
        Ok(made)
    }

    /// What is kept under `id`. Nothing is under the empty one: asking for it shows
    /// whether anything could be read.
    pub(super) async fn record_of(
        &self,
        id: &str,
        limit: Duration,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let mut get = self.with_keys(&self.scripts.get);
        get.arg(id);
        let get = async |mut conn| -> RedisResult<(String, Option<Vec<u8>>)> {
            get.invoke_async(&mut conn).await
        };
        let (marker, record) = self.link.run(limit, get).await?;
        self.marked(&marker)?;
        Ok(record)
    }

    /// All of `scope`, page by page; `None` when it changed in between.
    async fn read_scope(
        &self,
        scope: &Scope,
        page: usize,
    ) -> Result<Option<Vec<StoredSubscription>>, StoreError> {
        let mut found: Vec<StoredSubscription> = Vec::new();
        let mut as_of: Option<(String, u64)> = None;
        loop {
            let last = found.last().map(|stored| &stored.subscription.id);
            let next = self.page(Some(scope), last, page).await?;
            let of_next = (next.marker, next.version);
            let begun = as_of.get_or_insert_with(|| of_next.clone());
            if *begun != of_next {
                return Ok(None);
            }
            let ended = next.records.len() < page;
            found.extend(next.records);
            if ended {
                self.changes.loaded(scope, of_next.1);
                return Ok(Some(found));
            }
        }
    }

    async fn page(
        &self,
        scope: Option<&Scope>,
        after: Option<&SubscriptionId>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let mut page = self.with_keys(&self.scripts.page);
        page.arg(scope.map_or("", Scope::as_str))
            .arg(after.map_or("", SubscriptionId::as_str))
            .arg(i64::try_from(limit).unwrap_or(-1));
        let (marker, version, ids, records): RawPage = self.invoke(&page).await?;
        self.marked(&marker)?;
        let damaged = |id: &str| StoreError::Damaged(format!("subscription {id}: no record"));
        let records = ids.iter().zip(records).map(|(id, record)| {
            let record = record.ok_or_else(|| damaged(id))?;
            decode(id, &record, &self.settings.vault)
        });
        Ok(Page {
            marker,
            version,
            records: records.collect::<Result<_, _>>()?,
        })
    }

    /// Without a marker Redis is not ours, or lost everything.
    fn marked(&self, marker: &str) -> Result<(), StoreError> {
        if marker.is_empty() {
            return Err(StoreError::Lost(self.no_marker()));
        }
        self.changes.in_epoch(marker);
        Ok(())
    }

    /// A call of a script that writes, with its keys and the channel.
    fn writing<'a>(&self, script: &'a ::redis::Script) -> ScriptInvocation<'a> {
        let mut call = self.with_keys(script);
        call.arg(&self.keys.channel);
        call
    }

    fn with_keys<'a>(&self, script: &'a ::redis::Script) -> ScriptInvocation<'a> {
        let keys = &self.keys;
        let mut call = script.key(&keys.marker);
        call.key(&keys.records)
            .key(&keys.ids)
            .key(&keys.by_scope)
            .key(&keys.versions)
            .key(&keys.stamp);
        call
    }

    async fn invoke<T: ::redis::FromRedisValue>(
        &self,
        call: &ScriptInvocation<'_>,
    ) -> Result<T, StoreError> {
        let invoke = async |mut conn| -> RedisResult<T> { call.invoke_async(&mut conn).await };
        self.link.run(LIMIT, invoke).await
    }

    /// Runs a script that writes, and tells of what it changed before this returns.
    ///
    /// When the outcome is unknown, its message or the next look tells.
    async fn change(&self, call: &ScriptInvocation<'_>) -> Result<String, StoreError> {
        let (word, marker, before, stamp, scopes): Answer = self.invoke(call).await?;
        if !marker.is_empty() {
            self.changes.in_epoch(&marker);
        }
        match word.as_str() {
            "conflict" => return Err(StoreError::Conflict),
            "lost" => return Err(StoreError::Lost(self.no_marker())),
            _ => {}
        }
        if !scopes.is_empty() {
            let scopes = scopes.iter().filter_map(|scope| Scope::parse(scope).ok());
            self.changes.tell(&Change {
                before,
                stamp,
                scopes: scopes.collect(),
            });
        }
        Ok(word)
    }
}

/// A damaged record is an error: left out, its owner would be told of nothing.
fn decode(id: &str, kept: &[u8], vault: &Vault) -> Result<StoredSubscription, StoreError> {
    let damaged = |problem: &str| StoreError::Damaged(format!("subscription {id}: {problem}"));
    let mut parts = kept.splitn(3, |b| *b == b' ');
    let version = parts.next().and_then(|text| std::str::from_utf8(text).ok());
    let version = version.and_then(|text| text.parse().ok());
    let (Some(version), Some(_scope), Some(record)) = (version, parts.next(), parts.next()) else {
        return Err(damaged("its head cannot be read"));
    };
    let mut stored = decode_record(record, vault).map_err(|fault| fault.of(id))?;
    stored.version = version;
    Ok(stored)
}

/// A marker's id: another one each time.
fn new_marker() -> Result<String, StoreError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id)
        .map_err(|error| unavailable(format!("the system gives no randomness: {error}")))?;
    Ok(hex::encode(id))
}
