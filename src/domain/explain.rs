//! Explain: whether a subscription wants an event and, if not, which rule says no.
//!
//! For people who ask where their webhook is. Delivering goes by the same rules, compiled
//! together (`pattern::Matcher`).

use super::event::Event;
use super::pattern::{Budget, Mismatch, Selection};
use super::subscription::{DisabledReason, Scope, Subscription};

/// What a subscription says to an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It gets the event, or these of its alerts.
    Wanted(Selection),
    /// It does not.
    Refused(Rule),
}

/// The first rule that says no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The event is another tenant's.
    Tenant,
    /// The subscription is disabled.
    Enabled(DisabledReason),
    /// None of its `event_types` is the event's.
    EventTypes,
    /// Its `filter` does not match.
    Filter(Mismatch),
    /// Its `filter` matches none of the alerts by itself.
    Alerts,
}

impl Rule {
    /// Every name of a rule.
    pub const CODES: [&str; 4] = ["tenant", "enabled", "event_types", "filter"];

    /// The rule's name: the subscription's field, where it is one.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Enabled(_) => "enabled",
            Self::EventTypes => "event_types",
            Self::Filter(_) | Self::Alerts => "filter",
        }
    }
}

/// What `subscription` says to `event`. Means nothing when the budget is spent.
pub fn explain(subscription: &Subscription, event: &Event, budget: &Budget) -> Verdict {
    let spec = &subscription.spec;
    let is_foreign = matches!(&subscription.tenant, Scope::One(tenant) if *tenant != event.tenant);
    if is_foreign {
        return Verdict::Refused(Rule::Tenant);
    }
    if let Some(reason) = subscription.disabled_reason {
        return Verdict::Refused(Rule::Enabled(reason));
    }
    let kind = event.kind.as_str();
    if !spec.event_types.iter().any(|glob| glob.matches(kind)) {
        return Verdict::Refused(Rule::EventTypes);
    }
    let pattern = spec.filter.as_ref().map(|filter| &filter.pattern);
    if let Some(mismatch) = pattern.and_then(|pattern| pattern.explain(&event.view(), budget)) {
        return Verdict::Refused(Rule::Filter(mismatch));
    }
    match spec.selection(event, budget) {
        Some(selection) => Verdict::Wanted(selection),
        None => Verdict::Refused(Rule::Alerts),
    }
}
