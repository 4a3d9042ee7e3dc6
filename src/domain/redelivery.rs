//! Redelivery: what was sent, sent again because a person asks for it.
//!
//! The audit log keeps all that a delivery is made of, so any recorded one can be made again:
//! the same `webhook-id`, the same body, and a fresh series of attempts.

use std::sync::Arc;

use super::attempt::Attempt;
use super::delivery::{Delivery, EventFacts, HAS_MORE_HEADER};
use super::timestamp::UnixMillis;
use super::trace::{Lineage, TRACEPARENT_HEADER, TraceContext};

/// Why an attempt's delivery cannot be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRepeatable {
    /// The Test action made it, outside the queue: its event is nobody's.
    Test,
    /// The body that was kept is not the whole one.
    BodyNotKept,
}

/// The delivery that `attempt` was of, to be sent again from its first attempt on.
///
/// It is a message of its own, beside whatever is still under way of the same delivery: with
/// `series`, which is random and not 0, and the time at which it is asked for as the time at
/// which it was taken, nothing that the ledger knows is a copy of it. So what is asked for
/// twice is sent twice, a retry that waits goes on waiting, and neither ends the other.
///
/// # Errors
/// [`NotRepeatable`].
pub fn redelivery(
    attempt: &Attempt,
    now: UnixMillis,
    series: u64,
) -> Result<Delivery, NotRepeatable> {
    if attempt.test {
        return Err(NotRepeatable::Test);
    }
    let request = &attempt.request;
    if request.body_cut {
        return Err(NotRepeatable::BodyNotKept);
    }
    let facts = EventFacts {
        id: attempt.event.clone(),
        kind: attempt.kind.clone(),
        tenant: attempt.tenant.clone(),
        taken_at: now,
        // Its trace has long ended: this is another, which refers to it.
        traceparent: None,
    };
    let header = |wanted: &str| {
        let mut headers = request.headers.iter();
        let found = headers.find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str())
    };
    Ok(Delivery {
        id: attempt.delivery.clone(),
        subscription: attempt.subscription.clone(),
        shared: attempt.shared,
        event: Arc::new(facts),
        body: request.body.clone(),
        has_more: header(HAS_MORE_HEADER) == Some("true"),
        attempts: 0,
        first_attempt_at: None,
        last: None,
        redrives: attempt.redrives.saturating_add(1),
        series: series.max(1),
        hops: 1,
        lineage: Lineage {
            parent: None,
            last_attempt: header(TRACEPARENT_HEADER).and_then(TraceContext::parse),
        },
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::attempt::{NextAction, SentRequest, Timing};
    use crate::domain::id::{EventId, EventType, SubscriptionId, TenantId};

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn first() -> Delivery {
        let facts = EventFacts {
            id: EventId::parse("e").unwrap(),
            kind: EventType::parse("lookup_result.alerts").unwrap(),
            tenant: TenantId::parse("acme").unwrap(),
            taken_at: UnixMillis(5),
            traceparent: Some("00-abc".into()),
        };
        let subscription = SubscriptionId::parse("sub_1").unwrap();
        Delivery::new(
            Arc::new(facts),
            subscription,
            Bytes::from_static(b"{}"),
            true,
        )
    }

    fn attempt(delivery: &Delivery) -> Attempt {
        let headers = [
            ("webhook-id", delivery.id.as_str()),
            (HAS_MORE_HEADER, "true"),
        ];
        let kept = if delivery.has_more { 2 } else { 1 };
        let headers = headers[..kept].iter();
        Attempt {
            delivery: delivery.id.clone(),
            number: delivery.attempts + 1,
            redrives: delivery.redrives,
            subscription: delivery.subscription.clone(),
            shared: delivery.shared,
            tenant: delivery.event.tenant.clone(),
            event: delivery.event.id.clone(),
            kind: delivery.event.kind.clone(),
            at: UnixMillis(9),
            request: SentRequest {
                url: "https://example.com/".to_owned(),
                headers: headers.map(|(n, v)| ((*n).into(), (*v).into())).collect(),
                body: delivery.body.clone(),
                body_cut: false,
            },
            response: None,
            reason: None,
            detail: String::new(),
            timing: Timing::default(),
            next_action: NextAction::None,
            next_at: None,
            test: false,
        }
    }

    #[test]
    fn it_is_the_same_delivery_begun_anew() {
        for has_more in [true, false] {
            let first = Delivery {
                has_more,
                attempts: 9,
                redrives: 2,
                ..first()
            };
            let again = redelivery(&attempt(&first), NOW, 7).unwrap();
            assert_eq!(again.id, first.id);
            assert_eq!(again.body, first.body);
            assert_eq!(again.has_more, has_more);
            assert_eq!(again.event.key(), first.event.key());
            assert_eq!(again.event.kind, first.event.kind);
            assert_eq!(again.subscription, first.subscription);
            assert_eq!((again.attempts, again.redrives), (0, 3));
            assert!(again.last.is_none() && again.first_attempt_at.is_none());
        }
    }

    #[test]
    fn nobody_takes_it_for_a_copy_and_it_settles_nothing_else() {
        let waiting = first().moved();
        let attempt = attempt(&waiting);
        let [one, two] = [7, 8].map(|series| redelivery(&attempt, NOW, series).unwrap());
        let mut messages = vec![first(), waiting.clone(), waiting.moved()];
        for series in [one, two] {
            messages.extend([
                series.clone(),
                series.clone().moved(),
                series.moved().moved(),
            ]);
        }
        for (n, a) in messages.iter().enumerate() {
            for b in &messages[..n] {
                assert_ne!(a.wait_key(), b.wait_key());
            }
        }
        // Each move settles the one before it, and the first of a redelivery none of these.
        for (n, message) in messages.iter().enumerate() {
            let is_before = |other: &Delivery| other.wait_key() == message.settles();
            let before = messages.iter().position(is_before);
            let expected = if [0, 1, 3, 6].contains(&n) {
                None
            } else {
                Some(n - 1)
            };
            assert_eq!(before, expected, "{n}");
            assert_eq!(message.settles() == message.event.key(), n < 2, "{n}");
        }
        assert!(redelivery(&attempt, NOW, 0).unwrap().is_redelivery());
    }

    #[test]
    fn what_is_not_whole_or_a_test_is_not_sent_again() {
        let mut cut = attempt(&first());
        cut.request.body_cut = true;
        assert_eq!(
            redelivery(&cut, NOW, 7).unwrap_err(),
            NotRepeatable::BodyNotKept
        );
        cut.test = true;
        assert_eq!(redelivery(&cut, NOW, 7).unwrap_err(), NotRepeatable::Test);
    }
}
