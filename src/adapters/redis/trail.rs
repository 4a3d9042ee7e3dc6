//! Reading the audit log: the newest attempts that match, over all rings that may have any.
//!
//! Without a subscription the rings are walked by their last attempt, newest first, until
//! no later one can contribute. Redis itself picks what matches by the heads of the
//! entries. A ring that gets a new attempt while others are walked may be passed over when
//! there are more than a thousand.

use std::collections::BTreeMap;
use std::time::Duration;

use ::redis::Cmd;

use super::Core;
use super::audit::{HEAD_BYTES, delivered_mark, position_after, short_hash};
use super::scripts::PICK;
use crate::codec;
use crate::domain::attempt::Attempt;
use crate::domain::timestamp::UnixMillis;
use crate::ports::{AttemptQuery, StoreError};

/// How long each question may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How many rings of the index are read at once.
const INDEX_PAGE: usize = 1000;
/// How many rings are looked through at once.
const RINGS_MAX: usize = 16;
/// How many attempts of a ring come at once.
const WANTED_MAX: usize = 25;

/// The newest attempts that match.
struct Found<'a> {
    query: &'a AttemptQuery,
    since: UnixMillis,
    newest: BTreeMap<u64, Attempt>,
}

/// A ring, and where to go on in it.
struct Place {
    key: String,
    offset: i64,
}

impl Core {
    pub(super) async fn attempts(
        &self,
        query: &AttemptQuery,
    ) -> Result<Vec<(u64, Attempt)>, StoreError> {
        let oldest = self.settings.clock.now().before(self.settings.audit_keep);
        let mut found = Found {
            query,
            since: query.since.map_or(oldest, |since| since.max(oldest)),
            newest: BTreeMap::new(),
        };
        self.link.usable()?;
        if query.limit == 0 {
            return Ok(Vec::new());
        }
        match &query.subscription {
            Some(subscription) => {
                let rings = [subscription.as_str()];
                self.look_through(&rings, &mut found).await?;
            }
            None => self.walk(&mut found).await?,
        }
        Ok(found.newest.into_iter().rev().collect())
    }

    /// Looks through rings, the one with the newest attempt first.
    async fn walk(&self, found: &mut Found<'_>) -> Result<(), StoreError> {
        let tenant = found.query.whose();
        let index = self.index_key(tenant.map(|tenant| tenant.as_str()));
        let since_ms = u64::try_from(found.since.0).unwrap_or(0);
        for begin in (0..).step_by(INDEX_PAGE) {
            let mut ask = ::redis::cmd("ZREVRANGE");
            ask.arg(&index).arg(begin).arg(begin + INDEX_PAGE - 1);
            ask.arg("WITHSCORES");
            let page: Vec<(String, u64)> = self
                .link
                .run(LIMIT, async |mut conn| ask.query_async(&mut conn).await)
                .await?;
            for rings in page.chunks(RINGS_MAX) {
                let newest_ms = rings.first().map_or(0, |(_, ms)| *ms);
                if newest_ms < since_ms || found.needs_no(position_after(newest_ms) - 1) {
                    return Ok(());
                }
                let rings: Vec<&str> = rings.iter().map(|(ring, _)| ring.as_str()).collect();
                self.look_through(&rings, found).await?;
            }
            if page.len() < INDEX_PAGE {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn look_through(&self, rings: &[&str], found: &mut Found<'_>) -> Result<(), StoreError> {
        let place = |ring: &&str| Place {
            key: self.ring_key(ring),
            offset: 0,
        };
        let mut places: Vec<Place> = rings.iter().map(place).collect();
        while !places.is_empty() {
            let picks = places.iter().map(|place| found.pick(place)).collect();
            let answers: Vec<(i64, Vec<Vec<u8>>)> = self.link.ask_all(LIMIT, picks).await?;
            let mut left = Vec::new();
            for (mut place, (offset, entries)) in places.into_iter().zip(answers) {
                let mut last = u64::MAX;
                for entry in &entries {
                    last = found.offer(&place.key, entry).unwrap_or(last);
                }
                if offset >= 0 && !found.needs_no(last) {
                    place.offset = offset;
                    left.push(place);
                }
            }
            places = left;
        }
        Ok(())
    }
}

impl Found<'_> {
    /// Whether there are enough newer ones than `position`.
    fn needs_no(&self, position: u64) -> bool {
        let oldest = self.newest.first_key_value();
        self.newest.len() >= self.query.limit
            && oldest.is_some_and(|(oldest, _)| *oldest > position)
    }

    /// The question for what matches in a ring.
    fn pick(&self, place: &Place) -> Cmd {
        let query = self.query;
        let before = query.before.unwrap_or(u64::MAX);
        let since = u64::try_from(self.since.0).unwrap_or(0);
        let hash = |text: Option<&str>| text.map_or(Vec::new(), |text| short_hash(text).to_vec());
        let mut pick = ::redis::cmd("EVAL");
        pick.arg(PICK).arg(1).arg(&place.key);
        pick.arg(place.offset).arg(query.limit.min(WANTED_MAX));
        for value in [before, since] {
            pick.arg(value >> 32).arg(value & 0xffff_ffff);
        }
        pick.arg(
            query
                .delivered
                .map_or(Vec::new(), |delivered| vec![delivered_mark(delivered)]),
        );
        pick.arg(hash(query.delivery.as_ref().map(|id| id.as_str())));
        pick.arg(hash(query.event.as_ref().map(|id| id.as_str())));
        let tenant = query.whose();
        pick.arg(hash(tenant.map(|id| id.as_str())));
        pick
    }

    /// Takes an entry if it is wanted; returns its position. A damaged one is left out: it
    /// must not hide the rest.
    fn offer(&mut self, ring: &str, entry: &[u8]) -> Option<u64> {
        let decoded = entry.split_first_chunk().and_then(|(position, _)| {
            let record = entry.get(HEAD_BYTES..)?;
            Some((u64::from_be_bytes(*position), record))
        });
        let Some((position, record)) = decoded else {
            tracing::warn!(ring, "an attempt in the audit log is damaged");
            return None;
        };
        if self.needs_no(position) || self.newest.contains_key(&position) {
            return Some(position);
        }
        let Some(attempt) = codec::attempt::decode(record) else {
            tracing::warn!(ring, position, "an attempt in the audit log is damaged");
            return Some(position);
        };
        if self.wants(position, &attempt) {
            self.newest.insert(position, attempt);
            if self.newest.len() > self.query.limit {
                self.newest.pop_first();
            }
        }
        Some(position)
    }

    fn wants(&self, position: u64, attempt: &Attempt) -> bool {
        fn is<T: PartialEq>(wanted: Option<&T>, found: &T) -> bool {
            wanted.is_none_or(|wanted| wanted == found)
        }
        let query = self.query;
        query.before.is_none_or(|before| position < before)
            && attempt.at >= self.since
            && query
                .owner
                .as_ref()
                .is_none_or(|owner| attempt.is_of(owner))
            && is(query.tenant.as_ref(), &attempt.tenant)
            && is(query.subscription.as_ref(), &attempt.subscription)
            && is(query.event.as_ref(), &attempt.event)
            && is(query.delivery.as_ref(), &attempt.delivery)
            && is(query.delivered.as_ref(), &attempt.reason.is_none())
    }
}
