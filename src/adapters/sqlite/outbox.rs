//! [`Outbox`]: events, deliveries, dead letters and what was not understood.

use async_trait::async_trait;
use rusqlite::params;
use sha2::{Digest as _, Sha256};

use super::Sqlite;
use super::writer::Tx;
use crate::codec;
use crate::domain::delivery::DeadLetter;
use crate::domain::id::{DeliveryId, LedgerKey, SubscriptionId};
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
        id: DeliveryId,
        settles: (LedgerKey, SubscriptionId),
        due: UnixMillis,
        envelope: Vec<u8>,
    },
    Dead {
        letter: Box<DeadLetter>,
        settles: (LedgerKey, SubscriptionId),
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
                settles: (delivery.event.key(), delivery.subscription.clone()),
                due: due.at,
                envelope: codec::delivery::encode(&delivery),
                id: delivery.id,
            },
            Parcel::Dead(letter) => Self::Dead {
                settles: (
                    letter.delivery.event.key(),
                    letter.delivery.subscription.clone(),
                ),
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
                id,
                settles,
                due,
                envelope,
            } => {
                tx.settles(settles.0, &settles.1);
                insert_delivery(tx, id, *due, envelope)
            }
            Self::Dead {
                letter,
                settles,
                envelope,
            } => {
                tx.settles(settles.0, &settles.1);
                // It waits no longer, also when a crash swallows the acknowledgement.
                let waiting = remove_delivery(tx, &letter.delivery.id)?;
                tx.effects.remove_deliveries(waiting);
                super::dead_letters::insert(tx, letter, envelope)
            }
            Self::Quarantine(quarantined) => super::quarantine::insert(tx, quarantined),
            Self::Nothing => Ok(()),
        }
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

/// Has a delivery wait until `due`, instead of the row that waits for it already.
pub(super) fn insert_delivery(
    tx: &mut Tx<'_>,
    id: &DeliveryId,
    due: UnixMillis,
    envelope: &[u8],
) -> rusqlite::Result<()> {
    let replaced = remove_delivery(tx, id)?;
    let seq = tx.numbers.next_delivery();
    tx.conn
        .prepare_cached("INSERT INTO deliveries (seq, id, due_ms, envelope) VALUES (?, ?, ?, ?)")?
        .execute(params![seq, id.as_str(), due.0, envelope])?;
    tx.effects.put_delivery((due.0, seq), replaced);
    Ok(())
}

fn remove_delivery(tx: &Tx<'_>, id: &DeliveryId) -> rusqlite::Result<usize> {
    tx.conn
        .prepare_cached("DELETE FROM deliveries WHERE id = ?")?
        .execute([id.as_str()])
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
