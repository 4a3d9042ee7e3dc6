//! [`AuditLog`]: a ring of attempts per subscription, and which subscriptions have one.
//!
//! Attempts wait in a bounded buffer and are written in groups by one loop; through an
//! outage what fits waits on, and what Redis refuses for long is given up, so that the next
//! gets its chance. What is not kept is counted. A position is the time in milliseconds and 20 bits that
//! grow from a random start within one: replicas hardly ever make the same. An entry of a
//! ring is a head that scripts can search, and the record.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::redis::Cmd;
use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use super::{Core, Redis, expiry_ms, locked};
use crate::codec;
use crate::domain::attempt::Attempt;
use crate::domain::id::SubscriptionId;
use crate::domain::timestamp::UnixMillis;
use crate::ports::{AttemptQuery, AuditLog, StoreError};

/// Most attempts that wait, those being written included.
const WAITING_MAX: usize = 20_000;
/// Most bytes that they hold.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What an attempt holds beside its bodies and headers, about.
const ATTEMPT_BYTES: usize = 1024;
/// How many are written together, and about how many bytes: what the ledger and the rates
/// have to say goes by the same connection, behind them.
const GROUP_MAX: usize = 500;
const GROUP_BYTES_MAX: usize = 1024 * 1024;
/// How long the first of a group waits for others.
const LINGER: Duration = Duration::from_millis(20);
/// How long writing a group may take.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// How long to wait before a group is written again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How often Redis may refuse a group while it is there, before the group is dropped.
const REFUSALS_MAX: u32 = 10;
/// The bits of a position below the milliseconds.
const POSITION_BITS: u32 = 20;

/// What waits to be written.
pub(super) struct Buffer {
    waiting: Mutex<Waiting>,
    wake: Notify,
    hurry: Notify,
    /// Rung when a group was written.
    written: Notify,
}

#[derive(Default)]
struct Waiting {
    attempts: VecDeque<Kept>,
    /// Those and the ones being written.
    count: usize,
    bytes: usize,
    last: u64,
    closed: bool,
}

struct Kept {
    position: u64,
    bytes: usize,
    attempt: Arc<Attempt>,
}

#[async_trait]
impl AuditLog for Redis {
    fn append(&self, attempt: Arc<Attempt>) {
        let core = &self.core;
        let now = core.settings.clock.now();
        if !core.audit.keep(attempt, now) {
            core.losses.lost(1, &"more wait than there is room for");
        }
    }

    async fn attempts(&self, query: &AttemptQuery) -> Result<Vec<(u64, Attempt)>, StoreError> {
        self.core.attempts(query).await
    }
}

impl Buffer {
    pub(super) fn new() -> Self {
        Self {
            waiting: Mutex::default(),
            wake: Notify::new(),
            hurry: Notify::new(),
            written: Notify::new(),
        }
    }

    /// Takes `attempt`, if there is room.
    fn keep(&self, attempt: Arc<Attempt>, now: UnixMillis) -> bool {
        let bytes = bytes_of(&attempt);
        let mut waiting = locked(&self.waiting);
        if waiting.closed
            || waiting.count >= WAITING_MAX
            || waiting.bytes + bytes > WAITING_BYTES_MAX
        {
            return false;
        }
        let position = next_position(waiting.last, now, fastrand::u64(..1 << POSITION_BITS));
        waiting.last = position;
        waiting.count += 1;
        waiting.bytes += bytes;
        waiting.attempts.push_back(Kept {
            position,
            bytes,
            attempt,
        });
        drop(waiting);
        self.wake.notify_one();
        true
    }

    /// Waits until there is something to write, and for a moment until there is more.
    async fn filled(&self) {
        loop {
            let (count, bytes) = {
                let waiting = locked(&self.waiting);
                (waiting.attempts.len(), waiting.bytes)
            };
            if count >= GROUP_MAX || (count > 0 && bytes >= GROUP_BYTES_MAX) {
                return;
            }
            if count > 0 {
                break;
            }
            self.wake.notified().await;
        }
        tokio::select! {
            () = tokio::time::sleep(LINGER) => {}
            () = self.hurry.notified() => {}
        }
    }

    /// The next group: what waits longest.
    fn take(&self) -> Vec<Kept> {
        let mut waiting = locked(&self.waiting);
        let mut bytes = 0;
        let mut group = Vec::new();
        while group.len() < GROUP_MAX
            && bytes < GROUP_BYTES_MAX
            && let Some(kept) = waiting.attempts.pop_front()
        {
            bytes += kept.bytes;
            group.push(kept);
        }
        group
    }

    fn done(&self, group: &[Kept]) {
        let mut waiting = locked(&self.waiting);
        let bytes = group.iter().map(|kept| kept.bytes).sum();
        // Closing has counted them as given up.
        waiting.count = waiting.count.saturating_sub(group.len());
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
        drop(waiting);
        self.written.notify_waiters();
    }

    /// Waits until all is written that waits now or comes meanwhile.
    pub(super) async fn flushed(&self) {
        loop {
            let written = self.written.notified();
            if locked(&self.waiting).count == 0 {
                return;
            }
            self.hurry.notify_one();
            written.await;
        }
    }

    /// Takes nothing any more; says how many are given up.
    pub(super) fn close(&self) -> usize {
        let mut waiting = locked(&self.waiting);
        waiting.closed = true;
        waiting.attempts.clear();
        std::mem::take(&mut waiting.count)
    }
}

/// How much memory it takes, about. An endpoint chooses the headers and the body of its
/// answer, so they count.
fn bytes_of(attempt: &Attempt) -> usize {
    let length = |headers: &[(String, String)]| -> usize {
        let lengths = headers.iter().map(|(name, value)| name.len() + value.len());
        lengths.sum()
    };
    let request = attempt.request.body.len() + length(&attempt.request.headers);
    let response = attempt.response.as_ref();
    let response = response.map_or(0, |it| it.body.len() + length(&it.headers));
    ATTEMPT_BYTES + request + response
}

/// Greater than `last`, and by the time where that is greater.
fn next_position(last: u64, now: UnixMillis, random: u64) -> u64 {
    let now = u64::try_from(now.0).unwrap_or(0);
    ((now << POSITION_BITS) | random).max(last + 1)
}

/// The milliseconds in a position.
pub(super) fn position_ms(position: u64) -> u64 {
    position >> POSITION_BITS
}

/// The first position after those of `ms`.
pub(super) fn position_after(ms: u64) -> u64 {
    ms.saturating_add(1).saturating_mul(1 << POSITION_BITS)
}

/// The length of an entry's head.
pub(super) const HEAD_BYTES: usize = 41;

/// An entry of a ring: position, time, whether delivered, hashes of delivery, event and
/// tenant, then the record. `scripts::PICK` reads the head.
fn entry(position: u64, attempt: &Attempt, body_bytes_max: usize) -> Vec<u8> {
    let at = u64::try_from(attempt.at.0).unwrap_or(0);
    let mut entry = Vec::with_capacity(HEAD_BYTES + 512);
    entry.extend_from_slice(&position.to_be_bytes());
    entry.extend_from_slice(&at.to_be_bytes());
    entry.push(delivered_mark(attempt.reason.is_none()));
    entry.extend_from_slice(&short_hash(attempt.delivery.as_str()));
    entry.extend_from_slice(&short_hash(attempt.event.as_str()));
    entry.extend_from_slice(&short_hash(attempt.tenant.as_str()));
    entry.extend_from_slice(&codec::attempt::encode(attempt, body_bytes_max));
    entry
}

pub(super) fn delivered_mark(delivered: bool) -> u8 {
    if delivered { b'd' } else { b'f' }
}

/// Tells texts apart well enough to find few others; the record itself decides.
pub(super) fn short_hash(text: &str) -> [u8; 8] {
    let digest = Sha256::digest(text);
    let mut short = [0; 8];
    short.copy_from_slice(&digest[..8]);
    short
}

impl Core {
    pub(super) fn ring_key(&self, subscription: &str) -> String {
        format!("{}:a:{subscription}", self.keys.prefix)
    }

    /// Which subscriptions have attempts, with the milliseconds of their last position: of
    /// all, or of one tenant's events.
    pub(super) fn index_key(&self, tenant: Option<&str>) -> String {
        match tenant {
            None => format!("{}:ai", self.keys.prefix),
            Some(tenant) => format!("{}:at:{tenant}", self.keys.prefix),
        }
    }

    /// The writes of a group, one transaction for each key, and how many attempts are not kept
    /// without it.
    fn audit_commands(&self, group: &[Kept]) -> (Vec<Vec<Cmd>>, Vec<usize>) {
        let settings = &self.settings;
        let size = usize::try_from(settings.audit_per_subscription).unwrap_or(usize::MAX);
        let mut rings: HashMap<&SubscriptionId, Vec<&Kept>> = HashMap::new();
        let mut indexes: BTreeMap<Option<&str>, HashMap<&str, u64>> = BTreeMap::new();
        for kept in group {
            let attempt = &kept.attempt;
            rings.entry(&attempt.subscription).or_default().push(kept);
            let ms = position_ms(kept.position);
            for tenant in [None, Some(attempt.tenant.as_str())] {
                let index = indexes.entry(tenant).or_default();
                index.insert(attempt.subscription.as_str(), ms);
            }
        }
        let keep_ms = expiry_ms(settings.audit_keep);
        let oldest = settings.clock.now().before(settings.audit_keep).0.max(0);
        let mut counts: Vec<usize> = rings.values().map(Vec::len).collect();
        counts.resize(rings.len() + indexes.len(), 0);
        let rings = rings.into_iter().map(|(subscription, kept)| {
            let key = self.ring_key(subscription.as_str());
            let mut push = ::redis::cmd("LPUSH");
            push.arg(&key);
            // Those that later ones of this group push out are not written at all.
            for kept in &kept[kept.len().saturating_sub(size)..] {
                push.arg(entry(
                    kept.position,
                    &kept.attempt,
                    settings.audit_body_bytes,
                ));
            }
            let mut trim = ::redis::cmd("LTRIM");
            trim.arg(&key).arg(0).arg(size.saturating_sub(1));
            vec![push, trim, expire(&key, keep_ms)]
        });
        let indexes = indexes.into_iter().map(|(tenant, subscriptions)| {
            let key = self.index_key(tenant);
            let mut add = ::redis::cmd("ZADD");
            add.arg(&key).arg("GT");
            for (subscription, ms) in subscriptions {
                add.arg(ms).arg(subscription);
            }
            // Their rings have expired.
            let mut prune = ::redis::cmd("ZREMRANGEBYSCORE");
            prune.arg(&key).arg("-inf").arg(format!("({oldest}"));
            vec![add, prune, expire(&key, keep_ms)]
        });
        (rings.chain(indexes).collect(), counts)
    }
}

fn expire(key: &str, after_ms: u64) -> Cmd {
    let mut expire = ::redis::cmd("PEXPIRE");
    expire.arg(key).arg(after_ms);
    expire
}

/// Writes what waits, group by group. Through an outage the group stays; its entries may
/// be there twice then, and are read once.
pub(super) async fn write(core: Arc<Core>) {
    loop {
        core.audit.filled().await;
        let group = core.audit.take();
        if core.settings.audit_per_subscription > 0 {
            write_group(&core, &group).await;
        }
        core.audit.done(&group);
    }
}

async fn write_group(core: &Core, group: &[Kept]) {
    let (mut writes, mut counts) = core.audit_commands(group);
    let mut refusals = 0;
    while let Err((failed, error)) = core.link.write_each(WRITE_LIMIT, &writes).await {
        // What others took is not written again: it would push older attempts out.
        let mut place = 0..;
        writes.retain(|_| place.next().is_some_and(|place| failed.contains(&place)));
        counts = failed.iter().map(|place| counts[*place]).collect();
        if core.link.is_up() {
            refusals += 1;
        }
        if refusals == REFUSALS_MAX {
            return core.losses.lost(counts.iter().sum(), &error);
        }
        tokio::time::sleep(AGAIN_AFTER).await;
        core.link.wait_up().await;
    }
    core.losses.kept();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_grow_and_follow_the_time() {
        let at = UnixMillis(1_772_368_200_000);
        let first = next_position(0, at, 7);
        assert_eq!(position_ms(first), 1_772_368_200_000);
        assert_eq!(
            next_position(first, at, 3),
            first + 1,
            "the same millisecond"
        );
        let earlier = UnixMillis(at.0 - 1000);
        assert_eq!(
            next_position(first, earlier, 3),
            first + 1,
            "the clock went back"
        );
        let later = next_position(first, UnixMillis(at.0 + 1), 0);
        assert!(later > first);
        assert!(
            first < position_after(position_ms(first))
                && position_after(position_ms(first)) <= later
        );
    }
}
