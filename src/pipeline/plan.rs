//! Plan: which deliveries an event leads to, each with its body rendered.
//!
//! Matches the event against its tenant's subscriptions and those for every tenant,
//! cuts big fan-outs into chunks, leaves out what the ledger says is settled, and
//! renders each distinct body once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Context;
use super::directory::{CompiledScope, Endpoint};
use crate::domain::delivery::{Delivery, EventFacts};
use crate::domain::event::{Event, EventFault};
use crate::domain::id::SubscriptionId;
use crate::domain::pattern::{Budget, Selection};
use crate::domain::payload::{self, Payload};
use crate::domain::subscription::Format;
use crate::ports::EventMessage;
use crate::telemetry::events::{EventPlanned, RestPlanned};
use crate::telemetry::labels::EventResult;
use crate::telemetry::spans::Traced;

/// What an event leads to.
#[derive(Debug, Default)]
pub struct Plan {
    /// Deliveries to make, with their endpoints, by subscription id.
    pub deliveries: Vec<(Delivery, Arc<Endpoint>)>,
    /// How many were left out because they are settled.
    pub settled: usize,
    /// The subscription after which another message goes on, when there are more.
    pub continue_after: Option<SubscriptionId>,
}

impl Plan {
    /// Tells of the plan, in its `span` too. A continuation is the same event: its deliveries
    /// count, and it does not again.
    pub fn report(
        &self,
        context: &Context,
        event: &Event,
        facts: &EventFacts,
        is_first: bool,
        span: &Traced,
    ) {
        let deliveries = self.deliveries.len();
        span.planned(deliveries, self.settled, self.continue_after.is_some());
        if !is_first {
            return context.telemetry.emit(RestPlanned { deliveries });
        }
        let result = match (deliveries, self.settled) {
            (0, 0) if self.continue_after.is_none() => EventResult::Unmatched,
            (0, 1..) if self.continue_after.is_none() => EventResult::Duplicate,
            _ => EventResult::Accepted,
        };
        context.telemetry.emit(EventPlanned {
            event,
            result,
            deliveries,
            age: facts.taken_at.since(event.timestamp.at()),
            trace: span.context().or_else(|| facts.trace()),
        });
    }
}

/// Plans `event`: `scopes` are its tenant's and every tenant's endpoints, `resume_after`
/// where an earlier chunk ended, `settled` what the ledger remembers.
///
/// # Errors
/// [`EventFault`] when matching the event takes too many steps.
pub fn plan(
    event: &Event,
    facts: &Arc<EventFacts>,
    scopes: &[Arc<CompiledScope>],
    resume_after: Option<&SubscriptionId>,
    settled: &[SubscriptionId],
    chunk: usize,
) -> Result<Plan, EventFault> {
    let asked = scopes.iter().map(|scope| scope.len()).sum();
    let budget = Budget::of_event(asked);
    let mut endpoints = matching(event, scopes, resume_after, &budget);
    let mut plan = Plan::default();
    if endpoints.len() > chunk {
        endpoints.truncate(chunk);
        plan.continue_after = endpoints.last().map(|last| last.subscription.id.clone());
    }
    let settled: HashSet<&SubscriptionId> = settled.iter().collect();
    let mut bodies = Bodies::default();
    for endpoint in endpoints {
        let id = &endpoint.subscription.id;
        if budget.is_spent() {
            break;
        }
        if settled.contains(id) {
            plan.settled += 1;
            continue;
        }
        let selection = endpoint.subscription.spec.selection(event, &budget);
        let Some(selection) = selection else {
            continue;
        };
        let Payload { body, has_more } = bodies.render(event, &endpoint, selection);
        let delivery = Delivery::new(Arc::clone(facts), id.clone(), body, has_more);
        let delivery = delivery.within(&endpoint.subscription.tenant);
        plan.deliveries.push((delivery, endpoint));
    }
    if budget.is_spent() {
        return Err(EventFault::too_costly(asked));
    }
    Ok(plan)
}

/// The rest of a wide event, from `after` on; in its trace, and below what came before.
pub fn rest_of(message: EventMessage, after: SubscriptionId, span: &Traced) -> EventMessage {
    let below = span.context().map(|context| context.to_string());
    EventMessage {
        resume_after: Some(after),
        traceparent: below.or(message.traceparent),
        again: false,
        ..message
    }
}

/// The endpoints that want the event, by id, after `resume_after`.
fn matching(
    event: &Event,
    scopes: &[Arc<CompiledScope>],
    resume_after: Option<&SubscriptionId>,
    budget: &Budget,
) -> Vec<Arc<Endpoint>> {
    let view = event.view();
    let mut endpoints = Vec::new();
    for scope in scopes {
        scope.matching(&view, budget, &mut endpoints);
    }
    if let Some(after) = resume_after {
        endpoints.retain(|endpoint| endpoint.subscription.id > *after);
    }
    endpoints.sort_by(|a, b| a.subscription.id.cmp(&b.subscription.id));
    endpoints
}

/// The distinct bodies of one event.
#[derive(Default)]
struct Bodies {
    standard: HashMap<Selection, Payload>,
}

impl Bodies {
    fn render(&mut self, event: &Event, endpoint: &Endpoint, selection: Selection) -> Payload {
        let subscription = &endpoint.subscription;
        match subscription.spec.format {
            Format::Leicbit => payload::leicbit(event, &subscription.id),
            Format::Standard => self
                .standard
                .entry(selection)
                .or_insert_with_key(|selection| payload::standard(event, selection))
                .clone(),
        }
    }
}
