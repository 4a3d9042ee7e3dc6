//! The named events of the pipeline, each with the metrics and the log line it means.
//!
//! Log lines are for the person on call: one per attempt at `info`, `warn` for what may
//! need them. None holds a secret, a body or a URL's query.

use std::time::{Duration, Instant};

use tracing::field::{DisplayValue, display};
use tracing::{debug, error, info, warn};

use super::labels::{AttemptOutcome, CacheResult, Dependency, Ended, EventResult};
use super::seldom::Seldom;
use super::spans::Traced;
use super::{Emit, Told};
use crate::domain::accounts::{Account, Sums};
use crate::domain::address::EgressRule;
use crate::domain::attempt::Attempt;
use crate::domain::delivery::{DeadReason, Delivery};
use crate::domain::event::{Event, EventFault};
use crate::domain::id::SubscriptionId;
use crate::domain::lane::DeferReason;
use crate::domain::outcome::Reason;
use crate::domain::subscription::DisabledReason;
use crate::domain::trace::{Hex, TraceContext};

/// The trace of a log line; absent where there is none.
fn trace_id(trace: &Option<TraceContext>) -> Option<DisplayValue<Hex<'_>>> {
    trace.as_ref().map(|trace| display(trace.trace_hex()))
}

/// An event was planned.
pub struct EventPlanned<'a> {
    /// The event.
    pub event: &'a Event,
    /// What became of it.
    pub result: EventResult,
    /// How many deliveries it leads to, as far as they are planned.
    pub deliveries: usize,
    /// From its timestamp to its being taken.
    pub age: Duration,
    /// Where it stands in its trace.
    pub trace: Option<TraceContext>,
}

/// More of a wide event was planned: it counts as an event only once.
pub struct RestPlanned {
    /// How many deliveries it leads to.
    pub deliveries: usize,
}

impl Emit for RestPlanned {
    fn emit(self, told: &Told) {
        told.metrics.planned.inc_by(count(self.deliveries));
    }
}

fn count(of: usize) -> u64 {
    u64::try_from(of).unwrap_or(u64::MAX)
}

impl Emit for EventPlanned<'_> {
    fn emit(self, told: &Told) {
        let metrics = &told.metrics;
        metrics.events.of(self.result).inc();
        metrics.planned.inc_by(count(self.deliveries));
        metrics.event_age.observe(self.age.as_secs_f64());
        let result = self.result.name();
        debug!(
            event = %self.event.id, tenant = %self.event.tenant, kind = %self.event.kind,
            result, deliveries = self.deliveries, trace_id = trace_id(&self.trace), "event planned"
        );
    }
}

/// What a message was that is in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faulty {
    /// An event.
    Event,
    /// The rest of a wide event, which counted when its beginning was planned.
    Rest,
    /// A delivery that came back.
    Delivery,
}

/// A message goes to quarantine.
pub struct MessageQuarantined<'a> {
    /// Why.
    pub fault: &'a EventFault,
    /// What it was.
    pub was: Faulty,
    /// Where it stands in its trace.
    pub trace: Option<TraceContext>,
}

impl Emit for MessageQuarantined<'_> {
    fn emit(self, told: &Told) {
        if self.was == Faulty::Event {
            told.metrics.events.of(EventResult::Quarantined).inc();
        }
        warn!(
            reason = self.fault.reason.code(), error = %self.fault,
            trace_id = trace_id(&self.trace), "message quarantined"
        );
    }
}

/// Messages are in quarantine, and durable there.
pub struct InQuarantine {
    /// What they were.
    pub was: Faulty,
    /// How many.
    pub count: u64,
}

impl Emit for InQuarantine {
    fn emit(self, told: &Told) {
        if self.was == Faulty::Delivery {
            told.count(Account::Quarantined, self.count);
        }
    }
}

/// An attempt ended.
pub struct AttemptFinished<'a> {
    /// The attempt, with what follows.
    pub attempt: &'a Attempt,
    /// Its span.
    pub span: &'a Traced,
    /// Where its delivery stands in its trace.
    pub trace: Option<TraceContext>,
}

impl Emit for AttemptFinished<'_> {
    fn emit(self, told: &Told) {
        let attempt = self.attempt;
        let outcome = AttemptOutcome(attempt.reason);
        let seconds = attempt.timing.total.as_secs_f64();
        self.span.attempted(attempt);
        let span = self.span.context();
        let trace = span.or(self.trace);
        told.metrics.attempts.of(outcome).inc();
        told.metrics.attempt_duration.of(outcome).observe(seconds);
        let outcome = outcome.name();
        info!(
            event = %attempt.event, delivery = %attempt.delivery,
            subscription = %attempt.subscription, attempt = attempt.number, outcome,
            status = attempt.response.as_ref().map(|response| response.status),
            total_ms = u64::try_from(attempt.timing.total.as_millis()).unwrap_or(u64::MAX),
            next = attempt.next_action.code(), test = attempt.test, detail = attempt.detail,
            trace_id = trace_id(&trace),
            span_id = span.as_ref().map(|span| display(span.span_hex())), "attempt finished"
        );
    }
}

/// A request was refused because of its address.
pub struct EgressBlocked {
    /// The rule that said no.
    pub rule: EgressRule,
}

impl Emit for EgressBlocked {
    fn emit(self, told: &Told) {
        told.metrics.egress_blocked.of(self.rule).inc();
    }
}

/// A delivery was acknowledged and settled.
pub struct Delivered {
    /// From taking the event to the acknowledgement.
    pub latency: Duration,
}

impl Emit for Delivered {
    fn emit(self, told: &Told) {
        let metrics = &told.metrics;
        metrics.deliveries.of(Ended::Delivered).inc();
        told.count(Account::Delivered, 1);
        metrics.delivery_latency.observe(self.latency.as_secs_f64());
    }
}

/// A delivery was given up and settled.
pub struct DeadLettered<'a> {
    /// The delivery.
    pub delivery: &'a Delivery,
    /// Why.
    pub reason: DeadReason,
}

impl Emit for DeadLettered<'_> {
    fn emit(self, told: &Told) {
        let ended = Ended::DeadLettered(self.reason);
        told.metrics.deliveries.of(ended).inc();
        told.count(Account::DeadLettered, 1);
        let delivery = self.delivery;
        let trace = delivery.trace();
        warn!(
            event = %delivery.event.id, delivery = %delivery.id,
            subscription = %delivery.subscription, attempts = delivery.attempts,
            reason = self.reason.code(), trace_id = trace_id(&trace), "delivery dead-lettered"
        );
    }
}

/// A retry was made durable.
pub struct RetryScheduled {
    /// Why the attempt failed.
    pub reason: Reason,
}

impl Emit for RetryScheduled {
    fn emit(self, told: &Told) {
        told.metrics.retries.of(self.reason).inc();
    }
}

/// A delivery was put off without an attempt.
pub struct Deferred {
    /// Why.
    pub reason: DeferReason,
}

impl Emit for Deferred {
    fn emit(self, told: &Told) {
        told.metrics.deferrals.of(self.reason).inc();
    }
}

/// A subscription was disabled by Carillon.
pub struct SubscriptionDisabled<'a> {
    /// Which.
    pub subscription: &'a SubscriptionId,
    /// Why.
    pub reason: DisabledReason,
}

impl Emit for SubscriptionDisabled<'_> {
    fn emit(self, told: &Told) {
        told.metrics.disabled.of(self.reason).inc();
        warn!(
            subscription = %self.subscription, reason = self.reason.name(),
            "subscription disabled"
        );
    }
}

/// Compiled subscriptions were looked up.
pub struct CacheRequest(pub CacheResult);

impl Emit for CacheRequest {
    fn emit(self, told: &Told) {
        told.metrics.cache_requests.of(self.0).inc();
    }
}

/// What first becomes of deliveries is durable: they have begun.
pub struct DeliveriesBegun {
    /// How many.
    pub count: u64,
}

impl Emit for DeliveriesBegun {
    fn emit(self, told: &Told) {
        told.count(Account::Begun, self.count);
    }
}

/// The accounts over all processes were read.
pub struct AccountsRead(pub Sums);

impl Emit for AccountsRead {
    fn emit(self, told: &Told) {
        for account in Account::ALL {
            let counter = told.metrics.accounted.of(account);
            let sum = self.0.of(account);
            // A store that lost them begins anew.
            if sum < counter.get() {
                counter.reset();
            }
            counter.inc_by(sum - counter.get());
        }
    }
}

/// Something the store was asked for did not work and is tried again, or done without. Every
/// delivery may meet that: one line a minute tells of each action.
pub struct StoreTrouble<'a> {
    /// What was asked for.
    pub action: &'static str,
    /// What it said.
    pub error: &'a dyn std::fmt::Display,
}

impl Emit for StoreTrouble<'_> {
    fn emit(self, _told: &Told) {
        static TOLD: Seldom = Seldom::new();
        if TOLD.is_time(self.action, Instant::now()) {
            warn!(action = self.action, error = %self.error, "store trouble, trying again");
        }
    }
}

/// A secret cannot be read for want of the key of the id `key`. Every event and delivery of its
/// tenant meets that, and every call of the API: one line a minute tells of each key.
pub fn key_missing(key: &str, error: &dyn std::fmt::Display) {
    static TOLD: Seldom = Seldom::new();
    if TOLD.is_time(key, Instant::now()) {
        error!(key, %error, "a key is missing: the events of those whose secrets need it wait; `carillon doctor` counts them");
    }
}

/// A connection was not accepted, as when there are no file handles left: one line a minute.
pub fn not_accepted(error: &std::io::Error) {
    static TOLD: Seldom = Seldom::new();
    if TOLD.is_time("", Instant::now()) {
        error!(%error, "connections cannot be accepted: are there file handles left (`ulimit -n`)?");
    }
}

/// A server that Carillon needs began to answer, or stopped.
pub struct DependencyChanged<'a> {
    /// Which.
    pub name: Dependency,
    /// Why it does not answer; `None` when it does.
    pub fault: Option<&'a dyn std::fmt::Display>,
}

impl Emit for DependencyChanged<'_> {
    fn emit(self, told: &Told) {
        let is_up = u64::from(self.fault.is_none());
        told.metrics.dependency_up.set(self.name, is_up);
        let name = self.name.name();
        match self.fault {
            None => info!(name, "connected"),
            Some(error) => warn!(name, %error, "not reachable, trying again"),
        }
    }
}

/// RabbitMQ began to hold publishing, or goes on.
pub struct BrokerBlocked<'a> {
    /// What RabbitMQ is short of; `None` when it takes messages again.
    pub reason: Option<&'a str>,
}

impl Emit for BrokerBlocked<'_> {
    fn emit(self, told: &Told) {
        let is_blocked = i64::from(self.reason.is_some());
        told.metrics.broker_blocked.set(is_blocked);
        match self.reason {
            None => info!("RabbitMQ takes messages again"),
            Some(reason) => warn!(
                reason,
                "RabbitMQ holds publishing: retries and new events wait; deliveries go on"
            ),
        }
    }
}
