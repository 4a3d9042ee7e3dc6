//! [`DeadLetterQueue`]: listing, sending again and discarding, by reading through the queue.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::Rabbit;
use super::message::{Outgoing, dead_letter};
use super::reader::Reader;
use crate::domain::delivery::DeadLetter;
use crate::domain::id::DeliveryId;
use crate::domain::timestamp::UnixMillis;
use crate::ports::{DeadLetterQuery, DeadLetterQueue, StoreError};

/// How many are sent again before they are taken out of the queue together.
const CHUNK: usize = 500;

/// The order of dead letters: by age, and one way or the other among equals.
type Age = (UnixMillis, String);

#[async_trait]
impl DeadLetterQueue for Rabbit {
    async fn list(&self, query: &DeadLetterQuery) -> Result<Vec<DeadLetter>, StoreError> {
        let mut reader = Reader::begin(self, &self.names.dead_letters).await?;
        let mut found: Vec<DeadLetter> = Vec::new();
        while let Some((_, letter)) = next_match(&mut reader, query).await? {
            found.push(letter);
            // All are looked at: they stand in the order in which they came, which need not
            // be that of their age. No more are kept than twice what is asked for.
            if found.len() >= query.limit.saturating_mul(2).max(CHUNK) {
                oldest(&mut found, query.limit);
            }
        }
        reader.end().await?;
        oldest(&mut found, query.limit);
        Ok(found)
    }

    async fn redrive(&self, query: &DeadLetterQuery, _now: UnixMillis) -> Result<u64, StoreError> {
        let youngest = self.youngest_of_oldest(query).await?;
        let mut reader = Reader::begin(self, &self.names.dead_letters).await?;
        let mut redriven = 0;
        let mut chunk = Vec::with_capacity(CHUNK);
        while let Some((tag, letter)) = next_match(&mut reader, query).await? {
            if youngest
                .as_ref()
                .is_some_and(|youngest| age(&letter) > *youngest)
            {
                continue;
            }
            chunk.push((tag, letter));
            if chunk.len() == CHUNK {
                redriven += self.send_again(&mut reader, &mut chunk).await?;
            }
        }
        redriven += self.send_again(&mut reader, &mut chunk).await?;
        reader.end().await?;
        Ok(redriven)
    }

    async fn count(&self, query: &DeadLetterQuery) -> Result<u64, StoreError> {
        let mut reader = Reader::begin(self, &self.names.dead_letters).await?;
        let mut count = 0;
        while count < query.limit as u64 && next_match(&mut reader, query).await?.is_some() {
            count += 1;
        }
        reader.end().await?;
        Ok(count)
    }

    async fn discard(&self, id: &DeliveryId) -> Result<bool, StoreError> {
        let mut reader = Reader::begin(self, &self.names.dead_letters).await?;
        let mut tags = Vec::new();
        while let Some(found) = reader.next().await? {
            let tag = found.delivery_tag;
            let is_it = match found.properties.message_id() {
                Some(named) => named.as_str() == id.as_str(),
                None => dead_letter(found).is_ok_and(|letter| letter.delivery.id == *id),
            };
            if is_it {
                tags.push(tag);
            }
        }
        reader.settle(&tags).await?;
        reader.end().await?;
        Ok(!tags.is_empty())
    }
}

impl Rabbit {
    /// Makes the letters of a chunk due, then takes them out; says how many they were.
    ///
    /// A crash in between leaves both; the second to be delivered is known by the ledger.
    async fn send_again(
        &self,
        reader: &mut Reader<'_>,
        chunk: &mut Vec<(u64, DeadLetter)>,
    ) -> Result<u64, StoreError> {
        let (tags, letters): (Vec<u64>, Vec<DeadLetter>) = chunk.drain(..).unzip();
        let again = letters.into_iter();
        let again = again.map(|letter| Outgoing::redriven(letter, &self.names));
        self.publish(again.collect()).await?;
        reader.settle(&tags).await?;
        Ok(tags.len() as u64)
    }

    /// The age up to which letters are among the oldest that match; `None` when all are.
    async fn youngest_of_oldest(&self, query: &DeadLetterQuery) -> Result<Option<Age>, StoreError> {
        let mut reader = Reader::begin(self, &self.names.dead_letters).await?;
        let mut oldest = BTreeSet::new();
        let mut too_many = false;
        if reader.left() > query.limit as u64 {
            while let Some((_, letter)) = next_match(&mut reader, query).await? {
                oldest.insert(age(&letter));
                if oldest.len() > query.limit {
                    too_many = true;
                    oldest.pop_last();
                }
            }
        }
        reader.end().await?;
        let nobody = || (UnixMillis(i64::MIN), String::new());
        Ok(too_many.then(|| oldest.pop_last().unwrap_or_else(nobody)))
    }
}

/// The next letter that matches, whatever the query's limit, with its tag.
async fn next_match(
    reader: &mut Reader<'_>,
    query: &DeadLetterQuery,
) -> Result<Option<(u64, DeadLetter)>, StoreError> {
    while let Some(found) = reader.next().await? {
        let tag = found.delivery_tag;
        match dead_letter(found) {
            Ok(letter) if matches(query, &letter) => return Ok(Some((tag, letter))),
            Ok(_) => {}
            // It stays where it is; the broker's own tools can take it out.
            Err(error) => tracing::warn!(error, "a message among the dead letters is none"),
        }
    }
    Ok(None)
}

fn matches(query: &DeadLetterQuery, letter: &DeadLetter) -> bool {
    let delivery = &letter.delivery;
    let tenant = query.tenant.as_ref();
    let subscription = query.subscription.as_ref();
    tenant.is_none_or(|tenant| *tenant == delivery.event.tenant)
        && subscription.is_none_or(|id| *id == delivery.subscription)
        && query.reason.is_none_or(|reason| reason == letter.reason)
        && query.since.is_none_or(|since| letter.dead_at >= since)
        && query.until.is_none_or(|until| letter.dead_at < until)
}

fn age(letter: &DeadLetter) -> Age {
    (letter.dead_at, letter.delivery.id.as_str().to_owned())
}

/// Keeps the `limit` oldest, oldest first.
fn oldest(letters: &mut Vec<DeadLetter>, limit: usize) {
    letters.sort_by_cached_key(age);
    letters.truncate(limit);
}
