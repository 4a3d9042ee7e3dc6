//! [`SubscriptionStore`]: records by id, guarded by a version.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::events::count;
use super::readers::Conditions;
use super::writer::Tx;
use super::{Sqlite, health};
use crate::codec::subscription::{decode_record, encode_record};
use crate::codec::vault::Vault;
use crate::domain::id::SubscriptionId;
use crate::domain::subscription::{DisabledReason, Scope, Subscription};
use crate::domain::timestamp::UnixMillis;
use crate::ports::{StoreError, StoredSubscription, SubscriptionStore};

/// A record as it is read: id, version, bytes.
type Raw = (String, u64, Vec<u8>);

#[async_trait]
impl SubscriptionStore for Sqlite {
    async fn of_scope(&self, scope: &Scope) -> Result<Vec<StoredSubscription>, StoreError> {
        self.list(Some(scope), None, usize::MAX).await
    }

    async fn get(&self, id: &SubscriptionId) -> Result<Option<StoredSubscription>, StoreError> {
        self.queue.open()?;
        let id = id.clone();
        let found = self.readers.read(move |conn| raw_of(conn, &id)).await?;
        found.map(|raw| self.decode(raw)).transpose()
    }

    async fn list(
        &self,
        scope: Option<&Scope>,
        after: Option<&SubscriptionId>,
        limit: usize,
    ) -> Result<Vec<StoredSubscription>, StoreError> {
        self.queue.open()?;
        let mut conditions = Conditions::default();
        if let Some(scope) = scope {
            conditions.add("scope = ?", scope.as_str().to_owned());
        }
        if let Some(after) = after {
            conditions.add("id > ?", after.as_str().to_owned());
        }
        let sql = format!(
            "SELECT id, version, record FROM subscriptions {} ORDER BY id LIMIT {}",
            conditions.clause(),
            count(limit)
        );
        let look = move |conn: &Connection| {
            let mut query = conn.prepare_cached(&sql)?;
            let rows = query.query_map(&conditions.values()[..], raw)?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        let found = self.readers.read(look).await?;
        found.into_iter().map(|raw| self.decode(raw)).collect()
    }

    /// The version written is the given one, or one more than the replaced one where
    /// that is greater.
    async fn put(
        &self,
        mut stored: StoredSubscription,
        expected: Option<u64>,
    ) -> Result<(), StoreError> {
        let next = expected.map_or(1, |version| version + 1);
        stored.version = stored.version.max(next);
        let record = encode_record(&stored, &self.settings.vault);
        let write = move |tx: &mut Tx<'_>| {
            let there = version_and_scope(tx.conn, &stored.subscription.id)?;
            if there.as_ref().map(|(version, _)| *version) != expected {
                return Ok(Err(StoreError::Conflict));
            }
            if let Some((_, Some(scope))) = there {
                tx.effects.changed.push(scope);
            }
            replace(tx, &stored, &record)?;
            Ok(Ok(()))
        };
        self.queue.write(write).await
    }

    async fn put_all(&self, mut all: Vec<StoredSubscription>) -> Result<(), StoreError> {
        let vault = self.settings.vault.clone();
        let write = move |tx: &mut Tx<'_>| {
            for stored in &mut all {
                let there = version_and_scope(tx.conn, &stored.subscription.id)?;
                stored.version = there.as_ref().map_or(1, |(version, _)| version + 1);
                if let Some((_, Some(scope))) = there {
                    tx.effects.changed.push(scope);
                }
                replace(tx, stored, &encode_record(stored, &vault))?;
            }
            Ok(Ok(()))
        };
        self.queue.write(write).await
    }

    async fn disable(
        &self,
        id: &SubscriptionId,
        reason: DisabledReason,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let (id, vault) = (id.clone(), self.settings.vault.clone());
        let write = move |tx: &mut Tx<'_>| {
            let Some(found) = raw_of(tx.conn, &id)? else {
                return Ok(Ok(false));
            };
            let mut stored = match decode(found, &vault) {
                Ok(stored) => stored,
                Err(error) => return Ok(Err(error)),
            };
            if stored.subscription.disabled_reason.is_some() {
                return Ok(Ok(false));
            }
            stored.subscription = Arc::new(Subscription {
                disabled_reason: Some(reason),
                updated_at: now,
                ..(*stored.subscription).clone()
            });
            stored.version += 1;
            replace(tx, &stored, &encode_record(&stored, &vault))?;
            Ok(Ok(true))
        };
        self.queue.write(write).await
    }

    async fn delete(&self, id: &SubscriptionId, expected: Option<u64>) -> Result<bool, StoreError> {
        let id = id.clone();
        let write = move |tx: &mut Tx<'_>| {
            let there = version_and_scope(tx.conn, &id)?;
            let other = |(version, _): &_| expected.is_some_and(|expected| expected != *version);
            if there.as_ref().is_some_and(other) {
                return Ok(Err(StoreError::Conflict));
            }
            let deleted = tx
                .conn
                .prepare_cached("DELETE FROM subscriptions WHERE id = ?")?
                .execute([id.as_str()])?;
            health::forget(tx, &id)?;
            if let Some((_, Some(scope))) = there {
                tx.effects.changed.push(scope);
            }
            Ok(Ok(deleted > 0))
        };
        self.queue.write(write).await
    }

    fn on_change(&self, listener: Box<dyn Fn(&Scope) + Send + Sync>) {
        self.shared.listen(listener);
    }
}

impl Sqlite {
    fn decode(&self, raw: Raw) -> Result<StoredSubscription, StoreError> {
        decode(raw, &self.settings.vault)
    }
}

fn replace(tx: &mut Tx<'_>, stored: &StoredSubscription, record: &[u8]) -> rusqlite::Result<()> {
    let subscription = &stored.subscription;
    let (id, scope) = (subscription.id.as_str(), subscription.tenant.as_str());
    let version = stored.version.cast_signed();
    tx.conn
        .prepare_cached(
            "INSERT OR REPLACE INTO subscriptions (id, scope, version, record)
             VALUES (?, ?, ?, ?)",
        )?
        .execute(params![id, scope, version, record])?;
    tx.effects.changed.push(subscription.tenant.clone());
    Ok(())
}

fn version_and_scope(
    conn: &Connection,
    id: &SubscriptionId,
) -> rusqlite::Result<Option<(u64, Option<Scope>)>> {
    let read = |row: &Row<'_>| {
        let scope: String = row.get(1)?;
        Ok((
            row.get::<_, i64>(0)?.cast_unsigned(),
            Scope::parse(&scope).ok(),
        ))
    };
    conn.prepare_cached("SELECT version, scope FROM subscriptions WHERE id = ?")?
        .query_row([id.as_str()], read)
        .optional()
}

fn raw_of(conn: &Connection, id: &SubscriptionId) -> rusqlite::Result<Option<Raw>> {
    conn.prepare_cached("SELECT id, version, record FROM subscriptions WHERE id = ?")?
        .query_row([id.as_str()], raw)
        .optional()
}

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    let version: i64 = row.get(1)?;
    Ok((row.get(0)?, version.cast_unsigned(), row.get(2)?))
}

/// A damaged record is an error: left out, its owner would be told of nothing.
fn decode((id, version, record): Raw, vault: &Vault) -> Result<StoredSubscription, StoreError> {
    let mut stored = decode_record(&record, vault).map_err(|fault| fault.of(&id))?;
    stored.version = version;
    Ok(stored)
}
