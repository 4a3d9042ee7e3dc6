//! Settle: makes durable what follows, then settles the delivery's ticket.
//!
//! The one place where an [`Action`] is carried out. *Invariant: no ticket is settled
//! before what it stands for is durable.* A store that is unavailable is asked again,
//! with growing patience, for as long as it takes.

use std::future::Future;
use std::time::Duration;

use backon::Retryable as _;

use super::settlement::Ticket;
use super::{Context, Work};
use crate::codec;
use crate::domain::decide::Action;
use crate::domain::delivery::{DeadLetter, DeadReason, Delivery, LastAttempt};
use crate::domain::id::{SubscriptionId, TenantId};
use crate::domain::lane::DeferReason;
use crate::domain::retry::Due;
use crate::domain::subscription::DisabledReason;
use crate::domain::timestamp::UnixMillis;
use crate::ports::{Parcel, StoreError};
use crate::telemetry::events::{
    DeadLettered, Deferred, Delivered, DeliveriesBegun, RetryScheduled, StoreTrouble,
    SubscriptionDisabled, key_missing,
};
use crate::telemetry::spans::{Putting, Queue, Traced};

/// Carries out what follows the attempt that began at `began`.
pub async fn settle(
    context: &Context,
    delivery: Delivery,
    action: Action,
    began: UnixMillis,
    last: Option<LastAttempt>,
    ticket: Ticket,
) {
    let attempted = |delivery: Delivery| match last {
        Some(last) => delivery.attempted(began, last),
        None => delivery,
    };
    match action {
        Action::Delivered => delivered(context, &delivery, ticket).await,
        Action::Retry { due, reason } => {
            let begins = delivery.is_fresh();
            let mut delivery = attempted(delivery);
            let span = begin_put(context, &delivery, Queue::Deliveries, reason.code());
            span.leads_to(&mut delivery);
            let parcel = Parcel::Delivery { delivery, due };
            put(context, "put retry", vec![parcel]).await;
            drop(span);
            count_begun(context, u64::from(begins));
            ticket.settle();
            context.telemetry.emit(RetryScheduled { reason });
        }
        Action::Dead { reason, disable } => {
            let begins = delivery.is_fresh();
            let delivery = attempted(delivery);
            bury(context, &delivery, reason).await;
            count_begun(context, u64::from(begins));
            // After the dead letter: a crash in between must not leave a delivery whose
            // event finds its subscription disabled, and so nowhere.
            if let Some(why) = disable {
                let tenant = &delivery.event.tenant;
                disable_subscription(context, tenant, &delivery.subscription, why).await;
            }
            ticket.settle();
        }
    }
}

/// So many deliveries have begun: what first became of them is durable.
fn count_begun(context: &Context, count: u64) {
    if count > 0 {
        context.telemetry.emit(DeliveriesBegun { count });
    }
}

/// Begins the span of putting `delivery` into `queue`.
fn begin_put(context: &Context, delivery: &Delivery, queue: Queue, reason: &'static str) -> Traced {
    context.telemetry.begin(Putting {
        delivery,
        queue,
        reason,
    })
}

/// Gives up a delivery.
pub async fn dead(context: &Context, delivery: Delivery, reason: DeadReason, ticket: Ticket) {
    let begins = delivery.is_fresh();
    bury(context, &delivery.moved(), reason).await;
    count_begun(context, u64::from(begins));
    ticket.settle();
}

/// Makes the dead letter durable, and tells of it.
async fn bury(context: &Context, delivery: &Delivery, reason: DeadReason) {
    let mut given_up = delivery.clone();
    let span = begin_put(context, delivery, Queue::DeadLetters, reason.code());
    span.leads_to(&mut given_up);
    let letter = DeadLetter {
        delivery: given_up,
        reason,
        dead_at: context.ports.clock.now(),
    };
    let notice = codec::notice::dead_lettered(&letter);
    let parcels = vec![Parcel::Dead(letter), Parcel::Notice(notice)];
    put(context, "put dead letter", parcels).await;
    drop(span);
    context.telemetry.emit(DeadLettered { delivery, reason });
}

/// Puts a delivery off without an attempt.
pub async fn defer(context: &Context, work: Work, after: Duration, reason: DeferReason) {
    defer_all(context, vec![work], after, reason).await;
}

/// Puts deliveries off together.
pub async fn defer_all(context: &Context, all: Vec<Work>, after: Duration, reason: DeferReason) {
    let ports = &context.ports;
    let due = || match reason {
        // Whatever else wakes it up knows nothing of the endpoint's wish.
        DeferReason::Paused | DeferReason::CircuitOpen => Due::at(ports.clock.now().after(after)),
        DeferReason::RateLimited | DeferReason::Busy | DeferReason::TenantShare => {
            Due::about(ports.clock.now(), after, ports.chance.fraction())
        }
    };
    let (mut parcels, mut tickets) = (Vec::with_capacity(all.len()), Vec::new());
    let mut begun = 0;
    for Work { delivery, ticket } in all {
        begun += u64::from(delivery.is_fresh());
        let (mut delivery, due) = (delivery.moved(), due());
        let span = begin_put(context, &delivery, Queue::Deliveries, reason.code());
        span.leads_to(&mut delivery);
        parcels.push(Parcel::Delivery { delivery, due });
        tickets.push((ticket, span));
    }
    put(context, "put deferral", parcels).await;
    count_begun(context, begun);
    for (ticket, span) in tickets {
        drop(span);
        ticket.settle();
        context.telemetry.emit(Deferred { reason });
    }
}

async fn delivered(context: &Context, delivery: &Delivery, ticket: Ticket) {
    let latency = context.ports.clock.now().since(delivery.event.taken_at);
    // What came from the queue of due deliveries was remembered when it was put there.
    let is_first = delivery.attempts == 0 && delivery.redrives == 0;
    if context.settings.dedup && is_first {
        let key = delivery.event.key();
        let settled = vec![(key, delivery.subscription.clone())];
        let record = context.ports.ledger.record(settled);
        if let Err(error) = record.await {
            // The ledger saves duplicates; it never holds up a delivery.
            let (action, error) = ("record in ledger", &error);
            context.telemetry.emit(StoreTrouble { action, error });
        }
    }
    count_begun(context, u64::from(delivery.is_fresh()));
    ticket.settle();
    context.telemetry.emit(Delivered { latency });
}

/// Disables a subscription, and tells of it unless it was disabled already.
pub async fn disable_subscription(
    context: &Context,
    tenant: &TenantId,
    subscription: &SubscriptionId,
    reason: DisabledReason,
) {
    let now = context.ports.clock.now();
    let changed = patiently(context, "disable subscription", || {
        context
            .ports
            .subscriptions
            .disable(subscription, reason, now)
    });
    if changed.await {
        let notice = codec::notice::disabled(tenant, subscription, reason, now);
        put(context, "put notice", vec![Parcel::Notice(notice)]).await;
        context.telemetry.emit(SubscriptionDisabled {
            subscription,
            reason,
        });
    }
}

/// Puts all parcels; resolves when they are durable.
pub async fn put(context: &Context, action: &'static str, parcels: Vec<Parcel>) {
    patiently(context, action, || {
        context.ports.outbox.put(parcels.clone())
    })
    .await;
}

/// Asks the store until it does as asked, or holds something that asking again will not mend.
///
/// # Errors
/// Any but an outage.
pub async fn until_available<T, F: Future<Output = Result<T, StoreError>>>(
    context: &Context,
    action: &'static str,
    ask: impl Fn() -> F,
) -> Result<T, StoreError> {
    let answer = ask_while(context, action, ask, StoreError::is_outage).await;
    answer.inspect_err(|error| tell(context, action, error))
}

/// Tells that the store did not do as asked.
fn tell(context: &Context, action: &'static str, error: &StoreError) {
    match error {
        StoreError::KeyMissing { key, .. } => key_missing(key, error),
        _ => context.telemetry.emit(StoreTrouble { action, error }),
    }
}

/// Asks the store until it does as asked.
pub async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(
    context: &Context,
    action: &'static str,
    ask: impl Fn() -> F,
) -> T {
    loop {
        // Tries have no maximum, so this ends with an answer; the loop tells the compiler.
        if let Ok(answer) = ask_while(context, action, &ask, |_| true).await {
            return answer;
        }
    }
}

async fn ask_while<T, F: Future<Output = Result<T, StoreError>>>(
    context: &Context,
    action: &'static str,
    ask: impl Fn() -> F,
    is_worth_it: impl FnMut(&StoreError) -> bool,
) -> Result<T, StoreError> {
    let tell = |error: &StoreError, _| tell(context, action, error);
    ask.retry(patience()).when(is_worth_it).notify(tell).await
}

/// How long to wait before a store is asked again: growing, without end.
fn patience() -> backon::ExponentialBuilder {
    backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times()
}
