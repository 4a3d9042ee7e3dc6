//! [`QuarantineQueue`]: listing and requeueing, by reading through the queue.

use async_trait::async_trait;
use lapin::message::Delivery;

use super::Rabbit;
use super::message::{Outgoing, fault_of, put_aside_at, quarantine_id, quarantined};
use super::reader::Reader;
use crate::ports::{QuarantineQuery, QuarantineQueue, Quarantined, StoreError};

/// How many are looked at together, and taken again before they are taken out of the queue
/// together: events may be large.
const PAGE: usize = 50;
/// About how many bytes are taken again together.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;

#[async_trait]
impl QuarantineQueue for Rabbit {
    async fn list(&self, limit: usize) -> Result<Vec<(String, Quarantined)>, StoreError> {
        let mut reader = Reader::begin(self, &self.names.quarantine).await?;
        let mut found = Vec::new();
        while found.len() < limit
            && let Some(message) = reader.next(PAGE.min(limit - found.len())).await?
        {
            found.push((quarantine_id(&message), quarantined(message)));
        }
        reader.keep_order(PAGE).await?;
        reader.end().await?;
        Ok(found)
    }

    async fn requeue(&self, id: &str) -> Result<bool, StoreError> {
        let mut reader = Reader::begin(self, &self.names.quarantine).await?;
        let mut found = None;
        while let Some(message) = reader.next(PAGE).await? {
            if quarantine_id(&message) == id {
                found = Some(message);
                break;
            }
        }
        let was_there = found.is_some();
        reader.keep_order(PAGE).await?;
        self.take_again(&mut reader, found.into_iter().collect())
            .await?;
        reader.end().await?;
        Ok(was_there)
    }

    async fn requeue_all(&self, query: &QuarantineQuery) -> Result<u64, StoreError> {
        let mut reader = Reader::begin(self, &self.names.quarantine).await?;
        let mut requeued = 0;
        let (mut chunk, mut bytes) = (Vec::with_capacity(PAGE), 0);
        while let wanted = query.limit - requeued - chunk.len()
            && wanted > 0
            && let Some(message) = reader.next(PAGE.min(wanted)).await?
        {
            if !matches(query, &message) {
                continue;
            }
            bytes += message.data.len();
            chunk.push(message);
            if chunk.len() == PAGE || bytes >= CHUNK_BYTES {
                requeued += chunk.len();
                self.take_again(&mut reader, std::mem::take(&mut chunk))
                    .await?;
                bytes = 0;
            }
        }
        requeued += chunk.len();
        self.take_again(&mut reader, chunk).await?;
        reader.end().await?;
        Ok(requeued as u64)
    }
}

impl Rabbit {
    /// Publishes messages again as what they were, then takes them out. A crash in between
    /// leaves both: events are known by their id, and what is not understood is put aside twice.
    async fn take_again(
        &self,
        reader: &mut Reader<'_>,
        messages: Vec<Delivery>,
    ) -> Result<(), StoreError> {
        if messages.is_empty() {
            return Ok(());
        }
        let tags: Vec<u64> = messages.iter().map(|found| found.delivery_tag).collect();
        let again = messages.into_iter();
        let again = again.map(|message| Outgoing::requeued(message, &self.names));
        self.publish(again.collect()).await?;
        reader.settle(&tags).await
    }
}

fn matches(query: &QuarantineQuery, message: &Delivery) -> bool {
    let found = &message.properties;
    query
        .reason
        .is_none_or(|reason| reason == fault_of(found).reason)
        && query.until.is_none_or(|until| put_aside_at(found) < until)
}
