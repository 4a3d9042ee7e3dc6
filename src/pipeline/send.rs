//! Send: signs one request, now, and posts it.
//!
//! Signing comes after the permit, so that a signed timestamp is never stale.

use std::time::Duration;

use super::Context;
use super::directory::Endpoint;
use crate::domain::attempt::SentRequest;
use crate::domain::delivery::{Delivery, HAS_MORE_HEADER, LastAttempt};
use crate::domain::outcome::{Class, Failure, GONE, Outcome, Reason, classify, parse_retry_after};
use crate::domain::subscription::Format;
use crate::domain::timestamp::UnixMillis;
use crate::domain::trace::TRACEPARENT_HEADER;
use crate::ports::{Exchange, WebhookRequest};
use crate::telemetry::events::EgressBlocked;
use crate::telemetry::spans::{Attempting, Traced};

/// The `user-agent` of every request.
pub const USER_AGENT: &str = concat!("Carillon/", env!("CARGO_PKG_VERSION"));

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
    /// Its span.
    pub span: Traced,
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

/// Sends the next attempt of `delivery`, which may take as long as `timeout`.
pub async fn send(
    context: &Context,
    endpoint: &Endpoint,
    delivery: &Delivery,
    timeout: Duration,
) -> Sent {
    let began = context.ports.clock.now();
    let spec = &endpoint.subscription.spec;
    let url = spec.url.url();
    let span = context.telemetry.begin(Attempting { delivery, url });
    let mut headers = headers(endpoint, delivery, began);
    if let Some(context) = span.context() {
        headers.push((TRACEPARENT_HEADER.to_owned(), context.to_string()));
    }
    let request = WebhookRequest {
        url: url.clone(),
        headers: headers.clone(),
        body: delivery.body.clone(),
        timeout,
    };
    let exchange = context.ports.transport.send(request).await;
    let now = context.ports.clock.now();
    let outcome = outcome(&exchange, now);
    if let Outcome::Failed(Failure::Blocked(refusal)) = &outcome {
        let rule = refusal.rule;
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
        span,
    }
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
        set(HAS_MORE_HEADER, "true".to_owned());
    }
    if spec.format == Format::Leicbit {
        set("x-leicbit-signature", endpoint.keys.leicbit(now, body));
    }
    for (name, value) in spec.headers.iter() {
        set(name, value.to_owned());
    }
    headers
}
