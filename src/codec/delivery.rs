//! Deliveries and dead letters at rest: messages `carillon.v1.Delivery` and `DeadLetter`.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;

use super::proto;
use crate::domain::delivery::{Delivery, EventFacts, LastAttempt};
use crate::domain::id::{DeliveryId, EventId, EventType, IdFault, SubscriptionId, TenantId};
use crate::domain::outcome::Reason;
use crate::domain::timestamp::UnixMillis;
use crate::domain::trace::{Lineage, TraceContext};

/// Why bytes are no delivery.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryFault {
    /// Not the protobuf message.
    #[error("the body is no carillon.v1.Delivery: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A field breaks its rule.
    #[error("`{field}` {fault}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// How.
        fault: IdFault,
    },
}

/// Encodes `delivery`.
pub fn encode(delivery: &Delivery) -> Vec<u8> {
    let event = &delivery.event;
    proto::Delivery {
        id: delivery.id.as_str().to_owned(),
        subscription_id: delivery.subscription.as_str().to_owned(),
        tenant: event.tenant.as_str().to_owned(),
        event_id: event.id.as_str().to_owned(),
        event_type: event.kind.as_str().to_owned(),
        attempts: delivery.attempts,
        body: delivery.body.clone(),
        has_more: delivery.has_more,
        taken_at_ms: event.taken_at.0,
        first_attempt_at_ms: delivery.first_attempt_at.map_or(0, |at| at.0),
        last_status: delivery
            .last
            .and_then(|last| last.status)
            .map_or(0, u32::from),
        last_reason: delivery
            .last
            .map_or(String::new(), |last| last.reason.code().to_owned()),
        traceparent: event.traceparent.as_deref().unwrap_or_default().to_owned(),
        redrives: delivery.redrives,
        series: delivery.series,
        hops: delivery.hops,
        own: !delivery.shared,
        span: text(delivery.lineage.parent),
        last_attempt_span: text(delivery.lineage.last_attempt),
    }
    .encode_to_vec()
}

fn text(context: Option<TraceContext>) -> String {
    context.map_or(String::new(), |context| context.to_string())
}

/// Decodes what [`encode`] wrote. The body is not copied.
///
/// # Errors
/// [`DeliveryFault`].
pub fn decode(bytes: &Bytes) -> Result<Delivery, DeliveryFault> {
    let message = proto::Delivery::decode(bytes.clone())?;
    let facts = EventFacts {
        id: named("event_id", EventId::parse(&message.event_id))?,
        kind: named("event_type", EventType::parse(&message.event_type))?,
        tenant: named("tenant", TenantId::parse(&message.tenant))?,
        taken_at: UnixMillis(message.taken_at_ms),
        traceparent: Some(message.traceparent)
            .filter(|text| !text.is_empty())
            .map(String::into_boxed_str),
    };
    let subscription = SubscriptionId::parse(&message.subscription_id);
    Ok(Delivery {
        id: named("id", DeliveryId::parse(&message.id))?,
        subscription: named("subscription_id", subscription)?,
        shared: !message.own,
        event: Arc::new(facts),
        body: message.body,
        has_more: message.has_more,
        attempts: message.attempts,
        first_attempt_at: Some(message.first_attempt_at_ms)
            .filter(|ms| *ms != 0)
            .map(UnixMillis),
        last: Reason::from_code(&message.last_reason).map(|reason| LastAttempt {
            status: u16::try_from(message.last_status).ok().filter(|s| *s != 0),
            reason,
        }),
        redrives: message.redrives,
        series: message.series,
        hops: message.hops,
        lineage: Lineage {
            parent: TraceContext::parse(&message.span),
            last_attempt: TraceContext::parse(&message.last_attempt_span),
        },
    })
}

fn named<T>(field: &'static str, parsed: Result<T, IdFault>) -> Result<T, DeliveryFault> {
    parsed.map_err(|fault| DeliveryFault::Invalid { field, fault })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::outcome::Failure;

    fn delivery() -> Delivery {
        let facts = EventFacts {
            id: EventId::parse("evt_1").unwrap(),
            kind: EventType::parse("a.b").unwrap(),
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

    #[test]
    fn comes_back_as_it_went() {
        let last = LastAttempt {
            status: Some(503),
            reason: Failure::Timeout.reason(),
        };
        let mut sent = delivery().attempted(UnixMillis(7), last).redriven();
        sent.series = u64::MAX;
        sent.shared = true;
        let span = |id| TraceContext {
            trace_id: [7; 16],
            span_id: [id; 8],
            flags: 1,
        };
        sent.lineage = Lineage {
            parent: Some(span(1)),
            last_attempt: Some(span(2)),
        };
        let back = decode(&encode(&sent).into()).unwrap();
        assert_eq!(format!("{back:?}"), format!("{sent:?}"));
        let fresh = decode(&encode(&delivery()).into()).unwrap();
        assert_eq!((fresh.first_attempt_at, fresh.last), (None, None));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail_without_panic(
            noise in proptest::collection::vec(any::<u8>(), 0..100),
            at in any::<usize>(),
        ) {
            let _ = decode(&noise.clone().into());
            let mut bytes = encode(&delivery());
            let at = at % bytes.len();
            bytes.splice(at..at, noise);
            let _ = decode(&bytes.into());
        }
    }
}
