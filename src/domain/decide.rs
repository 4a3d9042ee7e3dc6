//! What follows from an attempt: a function, so that every rule is a table test.
//!
//! `pipeline::settle` carries the [`Action`] out; nothing else does.

use std::time::Duration;

use super::delivery::{DeadReason, Delivery};
use super::outcome::{Class, Reason};
use super::retry::{Due, RetryPolicy};
use super::subscription::DisabledReason;
use super::timestamp::UnixMillis;

/// What is to be made durable after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// The endpoint has it.
    Delivered,
    /// Another attempt is due.
    Retry {
        /// When.
        due: Due,
        /// Why the attempt failed.
        reason: Reason,
    },
    /// It is given up.
    Dead {
        /// Why.
        reason: DeadReason,
        /// Whether the subscription is to be disabled with it.
        disable: Option<DisabledReason>,
    },
}

impl Action {
    /// The action in one word, for the audit log.
    pub fn code(self) -> &'static str {
        match self {
            Self::Delivered => "none",
            Self::Retry { .. } => "retry",
            Self::Dead { .. } => "dead_letter",
        }
    }
}

/// Decides what follows from the attempt that ended at `now` as `class`.
///
/// `delivery` is as it was before the attempt: the attempt's number is
/// `delivery.next_attempt()`. `chance` in `[0, 1)` picks the jitter.
pub fn decide(
    policy: &RetryPolicy,
    delivery: &Delivery,
    class: Class,
    now: UnixMillis,
    chance: f64,
) -> Action {
    match class {
        Class::Acknowledged => Action::Delivered,
        Class::Gone => Action::Dead {
            reason: DeadReason::Gone,
            disable: Some(DisabledReason::Gone),
        },
        Class::Failed {
            reason,
            pause_until,
            ..
        } => match policy.due(delivery.next_attempt(), now, chance) {
            Some(due) => Action::Retry {
                due: pause_until.map_or(due, |until| due.no_sooner_than(until)),
                reason,
            },
            None => Action::Dead {
                reason: DeadReason::Exhausted,
                disable: None,
            },
        },
    }
}

/// Whether an endpoint that failed at `at`, without a success since `since`, has failed for so
/// long that it is to be disabled. Who changes the subscription, as by enabling it again, at
/// `changed_at`, begins the time anew.
pub fn fails_too_long(
    since: UnixMillis,
    changed_at: UnixMillis,
    at: UnixMillis,
    disable_after: Duration,
) -> bool {
    at.since(since.max(changed_at)) >= disable_after
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::domain::delivery::EventFacts;
    use crate::domain::id::{EventId, EventType, SubscriptionId, TenantId};
    use crate::domain::outcome::{Outcome, classify};
    use crate::domain::retry::Exponential;
    use crate::domain::subscription::Format;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn delivery(attempts: u32) -> Delivery {
        let facts = EventFacts {
            id: EventId::parse("e").unwrap(),
            kind: EventType::parse("t").unwrap(),
            tenant: TenantId::parse("acme").unwrap(),
            taken_at: NOW,
            traceparent: None,
        };
        let subscription = SubscriptionId::parse("sub_1").unwrap();
        let mut delivery = Delivery::new(Arc::new(facts), subscription, Bytes::new(), false);
        delivery.attempts = attempts;
        delivery
    }

    fn answered(attempts: u32, status: u16, retry_at: Option<UnixMillis>) -> Action {
        let policy = RetryPolicy::exponential(Exponential::default(), 0.25).unwrap();
        let class = classify(
            Format::Standard,
            &Outcome::Answered { status, retry_at },
            NOW,
        );
        decide(&policy, &delivery(attempts), class, NOW, 0.0)
    }

    fn at(action: Action) -> UnixMillis {
        match action {
            Action::Retry { due, .. } => due.earliest,
            other => panic!("expected a retry, found {other:?}"),
        }
    }

    #[test]
    fn every_answer_leads_where_the_contract_says() {
        for attempts in [0, 8, 9] {
            assert_eq!(answered(attempts, 200, None), Action::Delivered);
            let gone = Action::Dead {
                reason: DeadReason::Gone,
                disable: Some(DisabledReason::Gone),
            };
            assert_eq!(answered(attempts, 410, None), gone);
        }
        for status in [302, 400, 404, 429, 500, 502, 503, 504] {
            assert_eq!(at(answered(0, status, None)), UnixMillis(NOW.0 + 5_000));
            assert_eq!(at(answered(1, status, None)), UnixMillis(NOW.0 + 20_000));
            let exhausted = Action::Dead {
                reason: DeadReason::Exhausted,
                disable: None,
            };
            assert_eq!(answered(9, status, None), exhausted);
        }
    }

    #[test]
    fn the_time_to_disable_begins_with_the_first_failure_or_the_last_change() {
        let day = Duration::from_secs(86_400);
        let later = |days: u32| NOW.after(day * days);
        let after = day * 5;
        for (since, changed, at, expected) in [
            (0, 0, 0, false),
            (0, 0, 4, false),
            (0, 0, 5, true),
            (0, 3, 5, false),
            (0, 3, 8, true),
            (3, 0, 5, false),
            // Clocks of replicas differ.
            (6, 0, 5, false),
        ] {
            let found = fails_too_long(later(since), later(changed), later(at), after);
            assert_eq!(found, expected, "{since} {changed} {at}");
        }
    }

    #[test]
    fn retry_after_only_ever_delays() {
        let sooner = Some(NOW.after(Duration::from_secs(1)));
        let later = Some(NOW.after(Duration::from_secs(60)));
        assert_eq!(at(answered(0, 429, sooner)), UnixMillis(NOW.0 + 5_000));
        assert_eq!(at(answered(0, 429, later)), UnixMillis(NOW.0 + 60_000));
        assert_eq!(at(answered(0, 500, later)), UnixMillis(NOW.0 + 5_000));
    }
}
