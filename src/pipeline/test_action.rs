//! The Test action: one `test.delivery` event to one subscription, now.
//!
//! Outside the queue and without a retry, but signed, guarded and recorded as any attempt.

use std::sync::Arc;
use std::time::Duration;

use super::Context;
use super::directory::Endpoint;
use super::record::{Follows, record};
use super::send::send;
use crate::domain::attempt::Attempt;
use crate::domain::delivery::{Delivery, EventFacts};
use crate::domain::event::{Data, Event, EventFault, EventTime};
use crate::domain::id::{EventId, TenantId};
use crate::domain::pattern::Selection;
use crate::domain::payload;
use crate::domain::subscription::{Format, Scope, Subscription};

/// How long a Test may take.
const TEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends a `test.delivery` event to one subscription, now, and records the attempt.
///
/// # Errors
/// [`EventFault`] when no test event can be made, which is a bug.
pub async fn test(context: &Context, endpoint: &Endpoint) -> Result<Arc<Attempt>, EventFault> {
    let event = test_event(context, &endpoint.subscription)?;
    let id = &endpoint.subscription.id;
    let payload = match endpoint.subscription.spec.format {
        Format::Standard => payload::standard(&event, &Selection::All),
        Format::Leicbit => payload::leicbit(&event, id),
    };
    let facts = Arc::new(EventFacts {
        id: event.id,
        kind: event.kind,
        tenant: event.tenant,
        taken_at: event.timestamp.at(),
        traceparent: None,
    });
    let delivery = Delivery::new(facts, id.clone(), payload.body, payload.has_more);
    let delivery = delivery.within(&endpoint.subscription.tenant);
    let sent = send(context, endpoint, &delivery, TEST_TIMEOUT).await;
    Ok(record(context, &delivery, sent, Follows::Test))
}

fn test_event(context: &Context, subscription: &Subscription) -> Result<Event, EventFault> {
    let mut random = [0; 12];
    context.ports.chance.fill(&mut random);
    let as_fault = |error: crate::domain::id::IdFault| {
        EventFault::invalid("test", error.expected, &error.found)
    };
    let id = EventId::parse(&format!("test_{}", hex::encode(random))).map_err(as_fault)?;
    // A subscription for every tenant is tested as a tenant of that name.
    let tenant = match &subscription.tenant {
        Scope::One(tenant) => tenant.clone(),
        Scope::Every => TenantId::parse("*").map_err(as_fault)?,
    };
    let data = serde_json::json!({
        "message": "This is a test of your webhook. No action is needed.",
        "domain": {"name": "example.com"},
        "alert": null,
        "user": null,
    });
    let raw = serde_json::value::to_raw_value(&data)
        .map_err(|error| EventFault::invalid("data", "JSON", &error.to_string()))?;
    let now = context.ports.clock.now();
    let timestamp = EventTime::parse(&now.to_string())?;
    Ok(Event::test(id, tenant, timestamp, Data::parse(raw)?))
}
