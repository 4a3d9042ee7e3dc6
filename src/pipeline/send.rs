//! Send: signs one request, now, and posts it.
//!
//! Signing comes after the permit, so that a signed timestamp is never stale. Also the
//! Test action's way out, which knows neither queue nor retry.

use std::sync::Arc;
use std::time::Duration;

use super::directory::Endpoint;
use super::{Context, record};
use crate::domain::attempt::{Attempt, SentRequest};
use crate::domain::delivery::{Delivery, EventFacts, LastAttempt};
use crate::domain::event::{Data, Event, EventFault, EventTime};
use crate::domain::id::{EventId, TenantId};
use crate::domain::outcome::{Class, Failure, GONE, Outcome, Reason, classify, parse_retry_after};
use crate::domain::pattern::Selection;
use crate::domain::payload;
use crate::domain::subscription::{Format, Scope, Subscription};
use crate::domain::timestamp::UnixMillis;
use crate::ports::{Exchange, WebhookRequest};
use crate::telemetry::events::EgressBlocked;

/// The `user-agent` of every request.
pub const USER_AGENT: &str = concat!("Carillon/", env!("CARGO_PKG_VERSION"));
/// How long a Test may take.
const TEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A request that was sent, and what came of it.
#[derive(Debug)]
pub struct Sent {
    /// When it began.
    pub began: UnixMillis,
    /// What was sent.
    pub request: SentRequest,
    /// What came of it.
    pub exchange: Exchange,
    /// What that means.
    pub class: Class,
    /// Until when the endpoint wants no more.
    pub pause_until: Option<UnixMillis>,
    /// Whether the Test action sent it.
    pub test: bool,
}

impl Sent {
    /// Why it failed; `None` when it was acknowledged.
    pub fn reason(&self) -> Option<Reason> {
        match self.class {
            Class::Acknowledged => None,
            Class::Gone => Some(GONE),
            Class::Failed { reason, .. } => Some(reason),
        }
    }

    /// How it ended, for the delivery; `None` when it was acknowledged.
    pub fn last(&self) -> Option<LastAttempt> {
        let status = self.exchange.result.as_ref().ok().map(|r| r.status);
        self.reason().map(|reason| LastAttempt { status, reason })
    }
}

/// Sends the next attempt of `delivery`.
pub async fn send(context: &Context, endpoint: &Endpoint, delivery: &Delivery, test: bool) -> Sent {
    let began = context.ports.clock.now();
    let spec = &endpoint.subscription.spec;
    let headers = headers(endpoint, delivery, began);
    let request = WebhookRequest {
        url: spec.url.url().clone(),
        headers: headers.clone(),
        body: delivery.body.clone(),
        timeout: if test { TEST_TIMEOUT } else { spec.timeout },
    };
    let exchange = context.ports.transport.send(request).await;
    let now = context.ports.clock.now();
    let outcome = outcome(&exchange, now);
    if let Outcome::Failed(Failure::Blocked(refusal)) = &outcome {
        let rule = refusal.rule.code();
        context.telemetry.emit(EgressBlocked { rule });
    }
    let class = classify(spec.format, &outcome, now);
    Sent {
        began,
        request: SentRequest {
            url: spec.url.as_str().to_owned(),
            headers,
            body: delivery.body.clone(),
            body_cut: false,
        },
        pause_until: match class {
            Class::Failed { pause_until, .. } => pause_until,
            _ => None,
        },
        exchange,
        class,
        test,
    }
}

/// Sends a `test.delivery` event to one subscription, now, and records the attempt.
///
/// # Errors
/// [`EventFault`] when no test event can be made, which is a bug.
pub async fn test(context: &Context, endpoint: &Endpoint) -> Result<Attempt, EventFault> {
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
    let sent = send(context, endpoint, &delivery, true).await;
    Ok(record::record(context, &delivery, sent, None))
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

fn outcome(exchange: &Exchange, now: UnixMillis) -> Outcome {
    match &exchange.result {
        Err(failure) => Outcome::Failed(failure.clone()),
        Ok(response) => {
            let mut headers = response.headers.iter();
            let retry_after = headers.find(|(name, _)| name == "retry-after");
            Outcome::Answered {
                status: response.status,
                retry_at: retry_after.and_then(|(_, value)| parse_retry_after(value, now)),
            }
        }
    }
}

/// All headers of a request but those of the connection; Carillon's own come first.
fn headers(endpoint: &Endpoint, delivery: &Delivery, now: UnixMillis) -> Vec<(String, String)> {
    let spec = &endpoint.subscription.spec;
    let (id, body) = (delivery.id.as_str(), &delivery.body);
    let mut headers = Vec::with_capacity(8);
    let mut set = |name: &str, value: String| headers.push((name.to_owned(), value));
    set("content-type", "application/json".to_owned());
    set("user-agent", USER_AGENT.to_owned());
    set("webhook-id", id.to_owned());
    set("webhook-timestamp", now.seconds().to_string());
    set("webhook-signature", endpoint.keys.standard(id, now, body));
    if delivery.has_more {
        set("x-webhook-has-more", "true".to_owned());
    }
    if spec.format == Format::Leicbit {
        set("x-leicbit-signature", endpoint.keys.leicbit(now, body));
    }
    for (name, value) in spec.headers.iter() {
        set(name, value.to_owned());
    }
    headers
}
