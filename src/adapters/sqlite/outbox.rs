//! [`Outbox`]: events, deliveries, dead letters and what was not understood.

use async_trait::async_trait;
use rusqlite::params;
use sha2::{Digest as _, Sha256};

use super::Sqlite;
use super::writer::Tx;
use crate::codec;
use crate::domain::delivery::{DeadLetter, Delivery};
use crate::domain::id::{LedgerKey, SubscriptionId};
use crate::domain::timestamp::UnixMillis;
use crate::ports::{EventMessage, Outbox, Parcel, Quarantined, StoreError};

#[async_trait]
impl Outbox for Sqlite {
    async fn put(&self, parcels: Vec<Parcel>) -> Result<(), StoreError> {
        if parcels.is_empty() {
            return Ok(());
        }
        // Encoded here: the writer has one thread, callers have many.
        let rows: Vec<Row> = parcels.into_iter().map(Row::encode).collect();
        let put = move |tx: &mut Tx<'_>| {
            rows.iter().try_for_each(|row| row.write(tx))?;
            Ok(Ok(()))
        };
        self.queue.write(put).await
    }
}

/// A parcel, encoded.
enum Row {
    Event(EventMessage),
    Delivery {
        name: String,
        settles: Option<(LedgerKey, SubscriptionId)>,
        due: UnixMillis,
        envelope: Vec<u8>,
    },
    Dead {
        name: String,
        letter: Box<DeadLetter>,
        settles: Option<(LedgerKey, SubscriptionId)>,
        envelope: Vec<u8>,
    },
    Quarantine(Quarantined),
    /// Nobody listens to a file.
    Nothing,
}

impl Row {
    fn encode(parcel: Parcel) -> Self {
        match parcel {
            Parcel::Event(message) | Parcel::Published { message, .. } => Self::Event(message),
            Parcel::Notice(_) => Self::Nothing,
            Parcel::Delivery { delivery, due } => Self::Delivery {
                name: row_name(&delivery),
                settles: settles(&delivery),
                due: due.at,
                envelope: codec::delivery::encode(&delivery),
            },
            Parcel::Dead(letter) => Self::Dead {
                name: row_name(&letter.delivery),
                settles: settles(&letter.delivery),
                envelope: codec::delivery::encode(&letter.delivery),
                letter: Box::new(letter),
            },
            Parcel::Quarantine(quarantined) => Self::Quarantine(quarantined),
        }
    }

    fn write(&self, tx: &mut Tx<'_>) -> rusqlite::Result<()> {
        match self {
            Self::Event(message) => insert_event(tx, message),
            Self::Delivery {
                name,
                settles,
                due,
                envelope,
            } => {
                settle(tx, settles.as_ref());
                insert_delivery(tx, name, *due, envelope)
            }
            Self::Dead {
                name,
                letter,
                settles,
                envelope,
            } => {
                settle(tx, settles.as_ref());
                // It waits no longer, also when a crash swallows the acknowledgement.
                let waiting = remove_delivery(tx, name)?;
                tx.effects.remove_deliveries(waiting);
                super::dead_letters::insert(tx, letter, envelope)
            }
            Self::Quarantine(quarantined) => super::quarantine::insert(tx, quarantined),
            Self::Nothing => Ok(()),
        }
    }
}

/// What the row of a delivery is called: one that is put again replaces the one before it.
/// A redelivery has a row beside it, or a retry that is put would swallow what somebody was
/// promised, and it a retry.
pub(super) fn row_name(delivery: &Delivery) -> String {
    let id = delivery.id.as_str();
    match delivery.is_redelivery() {
        // No id has a plus.
        true => format!("{id}+{:016x}", delivery.series),
        false => id.to_owned(),
    }
}

/// What is not to come of the event again. Of a redelivery's there is nothing.
fn settles(delivery: &Delivery) -> Option<(LedgerKey, SubscriptionId)> {
    let settles = (delivery.event.key(), delivery.subscription.clone());
    Some(settles).filter(|_| !delivery.is_redelivery())
}

fn settle(tx: &mut Tx<'_>, settles: Option<&(LedgerKey, SubscriptionId)>) {
    if let Some((key, subscription)) = settles {
        tx.settles(*key, subscription);
    }
}

/// Appends an event; the rest of a fan-out that waits already is kept once.
pub(super) fn insert_event(tx: &mut Tx<'_>, message: &EventMessage) -> rusqlite::Result<()> {
    let resume_after = message.resume_after.as_ref().map(SubscriptionId::as_str);
    let id = tx.numbers.next_event();
    let inserted = tx
        .conn
        .prepare_cached(
            "INSERT INTO events (id, body, content_type, traceparent, resume_after, continuation)
             VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (continuation) WHERE continuation IS NOT NULL
             DO NOTHING",
        )?
        .execute(params![
            id,
            &message.body[..],
            message.content_type,
            message.traceparent,
            resume_after,
            continuation_key(message),
        ])?;
    if inserted > 0 {
        tx.effects.events += 1;
        tx.effects.new_events = true;
    }
    Ok(())
}

/// Has a delivery wait until `due`, instead of the row of that name that waits already.
pub(super) fn insert_delivery(
    tx: &mut Tx<'_>,
    name: &str,
    due: UnixMillis,
    envelope: &[u8],
) -> rusqlite::Result<()> {
    let replaced = remove_delivery(tx, name)?;
    let seq = tx.numbers.next_delivery();
    tx.conn
        .prepare_cached("INSERT INTO deliveries (seq, id, due_ms, envelope) VALUES (?, ?, ?, ?)")?
        .execute(params![seq, name, due.0, envelope])?;
    tx.effects.put_delivery((due.0, seq), replaced);
    Ok(())
}

fn remove_delivery(tx: &Tx<'_>, name: &str) -> rusqlite::Result<usize> {
    tx.conn
        .prepare_cached("DELETE FROM deliveries WHERE id = ?")?
        .execute([name])
}

/// What makes two continuations the same; `None` for a whole event.
fn continuation_key(message: &EventMessage) -> Option<[u8; 32]> {
    let after = message.resume_after.as_ref()?;
    let content_type = message.content_type.as_deref().unwrap_or_default();
    let mut hash = Sha256::new();
    for part in [after.as_str(), content_type] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.update(&message.body);
    Some(hash.finalize().into())
}
