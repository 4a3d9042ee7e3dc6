//! Record: what was done, for the audit log, the metrics and the log.
//!
//! Never slows a delivery: the audit log takes the attempt at once or counts it as lost.

use std::sync::Arc;

use super::Context;
use super::send::Sent;
use crate::domain::attempt::{Attempt, NextAction};
use crate::domain::decide::Action;
use crate::domain::delivery::Delivery;
use crate::domain::outcome::Reason;
use crate::telemetry::events::AttemptFinished;

/// What follows an attempt.
#[derive(Clone, Copy, Debug)]
pub enum Follows {
    /// What was decided.
    Action(Action),
    /// Nothing: the Test action made it.
    Test,
}

/// Records the attempt that was sent and what follows.
pub fn record(
    context: &Context,
    delivery: &Delivery,
    sent: Sent,
    follows: Follows,
) -> Arc<Attempt> {
    let reason = sent.reason();
    let (next_action, next_at) = match follows {
        Follows::Action(Action::Retry { due, .. }) => (NextAction::Retry, Some(due.at)),
        Follows::Action(Action::Dead { .. }) => (NextAction::DeadLetter, None),
        Follows::Action(Action::Delivered) | Follows::Test => (NextAction::None, None),
    };
    let detail = detail(&sent, reason);
    let attempt = Arc::new(Attempt {
        delivery: delivery.id.clone(),
        number: delivery.next_attempt(),
        redrives: delivery.redrives,
        subscription: delivery.subscription.clone(),
        shared: delivery.shared,
        tenant: delivery.event.tenant.clone(),
        event: delivery.event.id.clone(),
        kind: delivery.event.kind.clone(),
        at: sent.began,
        request: sent.request,
        response: sent.exchange.result.ok(),
        reason,
        detail,
        timing: sent.exchange.timing,
        next_action,
        next_at,
        test: matches!(follows, Follows::Test),
    });
    let finished = AttemptFinished {
        attempt: &attempt,
        span: &sent.span,
        trace: delivery.trace(),
    };
    context.telemetry.emit(finished);
    context.lately.note(&attempt, context.ports.clock.now());
    context.ports.audit.append(Arc::clone(&attempt));
    attempt
}

/// What the transport said, or else what the reason means.
fn detail(sent: &Sent, reason: Option<Reason>) -> String {
    match reason {
        None => String::new(),
        Some(_) if !sent.exchange.detail.is_empty() => sent.exchange.detail.clone(),
        Some(reason) => reason.sentence().to_owned(),
    }
}
