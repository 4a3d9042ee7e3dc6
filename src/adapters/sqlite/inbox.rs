//! [`Inbox`]: waits for events and due deliveries, and hands them out.
//!
//! A read is never torn: it goes on when its caller stops waiting, and what it took is
//! then dropped, and so comes again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use super::Sqlite;
use super::readers::{blocking, store_error};
use crate::ports::{EventMessage, Inbox, StoreError, Taken};

/// How long to sleep at most before looking at the wall clock again: it may be set.
const SLEEP_MAX: Duration = Duration::from_secs(60);

#[async_trait]
impl Inbox for Sqlite {
    async fn events(&self, max: usize) -> Result<Vec<Taken<EventMessage>>, StoreError> {
        let mut feed = Arc::clone(&self.events).lock_owned().await;
        loop {
            self.queue.open()?;
            let desk = Arc::clone(&self.event_desk);
            let now = Instant::now();
            let read = blocking(move || {
                let taken = feed.take(&desk, max.max(1), now);
                (feed, taken)
            });
            let (feed_back, taken) = read.await?;
            let taken = taken.map_err(|error| store_error(&error))?;
            if !taken.is_empty() {
                return Ok(taken);
            }
            feed = feed_back;
            self.event_desk.rung(feed.next_at()).await;
        }
    }

    async fn deliveries(&self, max: usize) -> Result<Vec<Taken<Bytes>>, StoreError> {
        let mut feed = Arc::clone(&self.deliveries).lock_owned().await;
        loop {
            self.queue.open()?;
            let desk = Arc::clone(&self.delivery_desk);
            let schedule = Arc::clone(&self.schedule);
            let (now, instant) = (self.settings.clock.now(), Instant::now());
            let read = blocking(move || {
                let look = feed.look(&desk, &schedule, max.max(1), now, instant);
                (feed, look)
            });
            let (feed_back, look) = read.await?;
            let look = look.map_err(|error| store_error(&error))?;
            if !look.taken.is_empty() {
                return Ok(look.taken);
            }
            feed = feed_back;
            let due_at = look
                .next_due
                .map(|due| instant + due.since(now).min(SLEEP_MAX));
            let returned_at = feed.next_at();
            let next = [due_at, returned_at].into_iter().flatten().min();
            self.delivery_desk.rung(next).await;
        }
    }

    /// Nothing is fetched ahead.
    async fn stop(&self) {}
}
