//! [`DeadLetterQueue`]: listing, sending again and discarding, by reading through the queue.

use async_trait::async_trait;

use super::Rabbit;
use super::message::dead_letter;
use super::reader::{PAGE_MAX, Reader};
use crate::codec;
use crate::domain::delivery::DeadLetter;
use crate::domain::id::{DeliveryId, TenantId};
use crate::domain::retry::Due;
use crate::domain::timestamp::UnixMillis;
use crate::ports::{DeadLetterQuery, DeadLetterQueue, Outbox as _, Parcel, StoreError};
use crate::telemetry::events::DeliveriesBegun;

/// How many are sent again before they are taken out of the queue together.
const CHUNK: usize = 500;

/// The order of dead letters: by age, and one way or the other among equals.
type Age = (UnixMillis, String);

#[async_trait]
impl DeadLetterQueue for Rabbit {
    async fn list(&self, query: &DeadLetterQuery) -> Result<Vec<DeadLetter>, StoreError> {
        let mut search = Search::begin(self, query).await?;
        let mut found: Vec<DeadLetter> = Vec::new();
        while let Some((_, letter)) = search.next(usize::MAX).await? {
            found.push(letter);
            // All are looked at: they stand in the order in which they came, which need not
            // be that of their age. No more are kept than twice what is asked for.
            if found.len() >= query.limit.saturating_mul(2).max(CHUNK) {
                oldest(&mut found, query.limit);
            }
        }
        search.reader.end().await?;
        oldest(&mut found, query.limit);
        Ok(found)
    }

    async fn redrive(&self, query: &DeadLetterQuery, now: UnixMillis) -> Result<u64, StoreError> {
        let mut search = Search::begin(self, query).await?;
        let mut redriven = 0;
        while redriven < query.limit {
            let mut chunk = Vec::with_capacity(CHUNK);
            while chunk.len() < CHUNK
                && let wanted = query.limit - redriven - chunk.len()
                && wanted > 0
                && let Some(found) = search.next(wanted).await?
            {
                chunk.push(found);
            }
            if chunk.is_empty() {
                break;
            }
            let (before, count) = (redriven, chunk.len() as u64);
            redriven += chunk.len();
            self.send_again(&mut search.reader, chunk, before, now)
                .await?;
            self.telemetry.emit(DeliveriesBegun { count });
        }
        search.reader.end().await?;
        Ok(redriven as u64)
    }

    async fn count(&self, query: &DeadLetterQuery) -> Result<u64, StoreError> {
        let mut search = Search::begin(self, query).await?;
        let mut count = 0;
        while count < query.limit && search.next(query.limit - count).await?.is_some() {
            count += 1;
        }
        search.reader.keep_order(PAGE_MAX).await?;
        search.reader.end().await?;
        Ok(count as u64)
    }

    async fn discard(
        &self,
        id: &DeliveryId,
        owner: Option<&TenantId>,
        now: UnixMillis,
    ) -> Result<Vec<Option<DeadLetter>>, StoreError> {
        let mut reader = Reader::begin(self, &self.names.dead_letters).await?;
        let mut tags = Vec::new();
        let mut letters = Vec::new();
        while let Some(found) = reader.next(PAGE_MAX).await? {
            let tag = found.delivery_tag;
            let named = found.properties.message_id().clone();
            if named
                .as_ref()
                .is_some_and(|named| named.as_str() != id.as_str())
            {
                continue;
            }
            let letter = dead_letter(found).ok();
            let is_it = match (&letter, owner) {
                (Some(letter), Some(owner)) => {
                    letter.delivery.id == *id && letter.delivery.is_of(owner)
                }
                (Some(letter), None) => named.is_some() || letter.delivery.id == *id,
                (None, owner) => named.is_some() && owner.is_none(),
            };
            if is_it {
                tags.push(tag);
                letters.push(letter);
            }
        }
        if !letters.is_empty() {
            let notice = |letter: &Option<_>| codec::notice::discarded(id, letter.as_ref(), now);
            let told = letters.iter().map(notice).map(Parcel::Notice);
            self.put(told.collect()).await?;
            reader.settle(&tags).await?;
        }
        reader.end().await?;
        Ok(letters)
    }
}

impl Rabbit {
    /// Puts the letters of a chunk as any that are due or wait, then takes them out; `number` is
    /// how many of the same redrive went before.
    ///
    /// A crash in between leaves both; the second to be delivered is known by the ledger.
    async fn send_again(
        &self,
        reader: &mut Reader<'_>,
        chunk: Vec<(u64, DeadLetter)>,
        number: usize,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let (tags, letters): (Vec<u64>, Vec<DeadLetter>) = chunk.into_iter().unzip();
        let again = (number as u64..).zip(letters);
        let again = again.map(|(n, letter)| Parcel::Delivery {
            delivery: letter.delivery.redriven(),
            due: Due::of_redriven(now, n),
        });
        self.put(again.collect()).await?;
        reader.settle(&tags).await
    }
}

/// Reads through the letters for those that match, whatever the query's limit.
struct Search<'a> {
    reader: Reader<'a>,
    query: &'a DeadLetterQuery,
    /// Whether all that were looked at match.
    all_match: bool,
}

impl<'a> Search<'a> {
    async fn begin(rabbit: &'a Rabbit, query: &'a DeadLetterQuery) -> Result<Self, StoreError> {
        Ok(Self {
            reader: Reader::begin(rabbit, &rabbit.names.dead_letters).await?,
            query,
            all_match: true,
        })
    }

    /// The next letter, with its tag, when so many are wanted. As long as all match, no other
    /// is taken: that keeps their order, and costs no more than it has to.
    async fn next(&mut self, wanted: usize) -> Result<Option<(u64, DeadLetter)>, StoreError> {
        loop {
            let ahead = if self.all_match { wanted } else { PAGE_MAX };
            let Some(found) = self.reader.next(ahead).await? else {
                return Ok(None);
            };
            let tag = found.delivery_tag;
            match dead_letter(found) {
                Ok(letter) if matches(self.query, &letter) => return Ok(Some((tag, letter))),
                Ok(_) => {}
                // It stays where it is; the broker's own tools can take it out.
                Err(error) => tracing::warn!(error, "a message among the dead letters is none"),
            }
            self.all_match = false;
        }
    }
}

fn matches(query: &DeadLetterQuery, letter: &DeadLetter) -> bool {
    let delivery = &letter.delivery;
    let (owner, tenant) = (query.owner.as_ref(), query.tenant.as_ref());
    let subscription = query.subscription.as_ref();
    owner.is_none_or(|owner| delivery.is_of(owner))
        && tenant.is_none_or(|tenant| *tenant == delivery.event.tenant)
        && subscription.is_none_or(|id| *id == delivery.subscription)
        && query.delivery.as_ref().is_none_or(|id| *id == delivery.id)
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
