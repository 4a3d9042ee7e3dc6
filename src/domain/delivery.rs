//! Deliveries: one event on its way to one subscription.
//!
//! A [`Delivery`] holds all that its next attempt needs but the endpoint's address and
//! secret, which are read afresh each time. It is the same in memory and at rest.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::id::{DeliveryId, EventId, EventType, LedgerKey, SubscriptionId, TenantId};
use super::outcome::Reason;
use super::subscription::Scope;
use super::timestamp::UnixMillis;
use super::trace::{Lineage, TraceContext};

/// The header that says that the body leaves alerts out (contract section 3).
pub const HAS_MORE_HEADER: &str = "x-webhook-has-more";

/// One event for one subscription.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The `webhook-id`.
    pub id: DeliveryId,
    /// Whom it is for.
    pub subscription: SubscriptionId,
    /// Whether that is a subscription of every tenant: then it is none of the tenant's business.
    pub shared: bool,
    /// What of the event goes with each of its deliveries.
    pub event: Arc<EventFacts>,
    /// The request body: the same bytes on every attempt.
    pub body: Bytes,
    /// Whether the body leaves alerts out ([`HAS_MORE_HEADER`]).
    pub has_more: bool,
    /// Attempts made so far.
    pub attempts: u32,
    /// When the first attempt began.
    pub first_attempt_at: Option<UnixMillis>,
    /// How the last attempt ended.
    pub last: Option<LastAttempt>,
    /// How often a person had it sent again.
    pub redrives: u32,
    /// Which series of attempts: 0 for the one that its event led to, else a random number
    /// made when it was redelivered, beside whatever else is under way of it.
    pub series: u64,
    /// How often it moved: attempted, deferred, given up or sent again. With its id,
    /// `taken_at` and series it names one message, so that a copy of that is known as one.
    pub hops: u32,
    /// Where it stands in its trace.
    pub lineage: Lineage,
}

/// What of an event goes with each of its deliveries.
#[derive(Clone, Debug)]
pub struct EventFacts {
    /// The publisher's idempotency key.
    pub id: EventId,
    /// What happened.
    pub kind: EventType,
    /// Whose it is.
    pub tenant: TenantId,
    /// When it was taken from the queue.
    pub taken_at: UnixMillis,
    /// The W3C trace context that came with it.
    pub traceparent: Option<Box<str>>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastAttempt {
    /// The HTTP status, if an answer came.
    pub status: Option<u16>,
    /// Why it failed.
    pub reason: Reason,
}

/// Why a delivery was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeadReason {
    /// All attempts failed.
    Exhausted,
    /// The endpoint answered 410.
    Gone,
    /// The subscription was disabled while it waited.
    SubscriptionDisabled,
    /// The subscription was deleted while it waited.
    SubscriptionDeleted,
}

/// A delivery that was given up.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The delivery as it stood.
    pub delivery: Delivery,
    /// Why.
    pub reason: DeadReason,
    /// When.
    pub dead_at: UnixMillis,
}

impl DeadReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [
        Self::Exhausted,
        Self::Gone,
        Self::SubscriptionDisabled,
        Self::SubscriptionDeleted,
    ];

    /// The reason as it stands in headers, API answers and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Gone => "gone",
            Self::SubscriptionDisabled => "subscription_disabled",
            Self::SubscriptionDeleted => "subscription_deleted",
        }
    }

    /// Finds the reason that has this code.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

impl fmt::Display for DeadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl EventFacts {
    /// The span that it came with, if that is a valid one.
    pub fn trace(&self) -> Option<TraceContext> {
        TraceContext::parse(self.traceparent.as_deref()?)
    }

    /// The event's identity for deduplication.
    pub fn key(&self) -> LedgerKey {
        LedgerKey::of_event(&self.tenant, &self.id)
    }
}

impl Delivery {
    /// A fresh delivery, not attempted yet.
    pub fn new(
        event: Arc<EventFacts>,
        subscription: SubscriptionId,
        body: Bytes,
        has_more: bool,
    ) -> Self {
        Self {
            id: DeliveryId::derive(&event.tenant, &event.id, &subscription),
            subscription,
            shared: false,
            event,
            body,
            has_more,
            attempts: 0,
            first_attempt_at: None,
            last: None,
            redrives: 0,
            series: 0,
            hops: 0,
            lineage: Lineage::default(),
        }
    }

    /// The same, for a subscription of this scope.
    #[must_use]
    pub fn within(mut self, scope: &Scope) -> Self {
        self.shared = *scope == Scope::Every;
        self
    }

    /// Whether it belongs to `tenant`: its event does, and its subscription is the tenant's own.
    pub fn is_of(&self, tenant: &TenantId) -> bool {
        !self.shared && self.event.tenant == *tenant
    }

    /// What the ledger knows this message by, as long as it does not move on.
    pub fn wait_key(&self) -> LedgerKey {
        self.wait_key_at(self.hops)
    }

    fn wait_key_at(&self, hops: u32) -> LedgerKey {
        LedgerKey::of_wait(&self.id, self.event.taken_at, self.series, hops)
    }

    /// What is settled once this message is durable: the wait before it or, at its first
    /// move, the event's part for this subscription.
    ///
    /// A redelivery settles nothing of its event, which may still be under way: what it comes
    /// from is a wait that nobody else knows.
    pub fn settles(&self) -> LedgerKey {
        match (self.is_redelivery(), self.hops) {
            (false, 0 | 1) => self.event.key(),
            (_, hops) => self.wait_key_at(hops.saturating_sub(1)),
        }
    }

    /// Whether a person had it sent again from the audit log, with a series of attempts of its
    /// own.
    pub fn is_redelivery(&self) -> bool {
        self.series != 0
    }

    /// Whether it comes straight from its event: nothing became of it yet that is durable.
    pub fn is_fresh(&self) -> bool {
        self.hops == 0 && !self.is_redelivery()
    }

    /// The span that its next ones are below: one of Carillon's own or, where no spans are sent,
    /// the one that its event came with.
    pub fn trace(&self) -> Option<TraceContext> {
        self.lineage.parent.or_else(|| self.event.trace())
    }

    /// The number of the next attempt, from 1. A damaged message may have said any number before.
    pub fn next_attempt(&self) -> u32 {
        self.attempts.saturating_add(1)
    }

    /// The same delivery after one more attempt, begun at `began`.
    #[must_use]
    pub fn attempted(mut self, began: UnixMillis, last: LastAttempt) -> Self {
        self.attempts = self.next_attempt();
        self.first_attempt_at.get_or_insert(began);
        self.last = Some(last);
        self.moved()
    }

    /// The same delivery, moved without an attempt: deferred, or given up.
    #[must_use]
    pub fn moved(mut self) -> Self {
        // Round rather than full: each move must differ from the one before.
        self.hops = self.hops.wrapping_add(1);
        self
    }

    /// The same delivery, sent again by a person: with all its attempts before it.
    #[must_use]
    pub fn redriven(mut self) -> Self {
        self.attempts = 0;
        self.redrives = self.redrives.saturating_add(1);
        self.moved()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::outcome::Failure;

    #[test]
    fn what_came_damaged_can_be_moved_on() {
        let facts = EventFacts {
            id: EventId::parse("evt_1").unwrap(),
            kind: EventType::parse("a.b").unwrap(),
            tenant: TenantId::parse("acme").unwrap(),
            taken_at: UnixMillis(5),
            traceparent: None,
        };
        let subscription = SubscriptionId::parse("sub_1").unwrap();
        let mut last = Delivery::new(Arc::new(facts), subscription, Bytes::new(), false);
        (last.attempts, last.redrives, last.hops) = (u32::MAX, u32::MAX, u32::MAX);
        let failed = LastAttempt {
            status: None,
            reason: Failure::Timeout.reason(),
        };
        let attempted = last.clone().attempted(UnixMillis(7), failed);
        assert_eq!(attempted.attempts, u32::MAX);
        assert_ne!(attempted.wait_key(), last.wait_key());
        assert_ne!(last.clone().moved().wait_key(), last.wait_key());
        assert_eq!(last.redriven().redrives, u32::MAX);
    }
}
