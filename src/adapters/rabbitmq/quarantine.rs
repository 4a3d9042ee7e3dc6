//! [`QuarantineQueue`]: listing and requeueing, by reading through the queue.

use async_trait::async_trait;

use super::Rabbit;
use super::message::{Outgoing, quarantine_id, quarantined};
use super::reader::Reader;
use crate::ports::{QuarantineQueue, Quarantined, StoreError};

#[async_trait]
impl QuarantineQueue for Rabbit {
    async fn list(&self, limit: usize) -> Result<Vec<(String, Quarantined)>, StoreError> {
        let mut reader = Reader::begin(self, &self.names.quarantine).await?;
        let mut found = Vec::new();
        while found.len() < limit {
            let Some(message) = reader.next().await? else {
                break;
            };
            found.push((quarantine_id(&message), quarantined(message)));
        }
        reader.end().await?;
        Ok(found)
    }

    async fn requeue(&self, id: &str) -> Result<bool, StoreError> {
        let mut reader = Reader::begin(self, &self.names.quarantine).await?;
        let mut found = None;
        while let Some(message) = reader.next().await? {
            if quarantine_id(&message) == id {
                found = Some(message);
                break;
            }
        }
        let was_there = found.is_some();
        if let Some(message) = found {
            let tag = message.delivery_tag;
            self.publish(vec![Outgoing::requeued(message, &self.names)])
                .await?;
            reader.settle(&[tag]).await?;
        }
        reader.end().await?;
        Ok(was_there)
    }
}
