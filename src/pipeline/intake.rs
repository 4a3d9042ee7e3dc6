//! Intake: takes events and due deliveries from their queues and decodes them.
//!
//! What cannot be understood goes to quarantine with its bytes and a reason, and never
//! blocks what is behind it. Of two messages with the same event, the second waits until
//! the first is settled; then the ledger knows what is left to do.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::directory::{CompiledScope, Endpoint};
use super::in_flight::{AgainReceiver, ChunkKey, Waiting};
use super::plan::{plan, rest_of};
use super::settle::{self, patiently, put, until_available};
use super::settlement::Ticket;
use super::{Context, Pipeline, Work};
use crate::codec;
use crate::domain::delivery::{DeadReason, EventFacts};
use crate::domain::event::{Event, EventFault, FaultReason};
use crate::domain::id::{LedgerKey, SubscriptionId, TenantId};
use crate::domain::lane::{DeferReason, Freshness};
use crate::domain::subscription::Scope;
use crate::domain::trace::TraceContext;
use crate::ports::{Begun, Chunk, EventMessage, Parcel, Quarantined, Receipt, StoreError, Taken};
use crate::telemetry::events::{Faulty, InQuarantine, MessageQuarantined, StoreTrouble};
use crate::telemetry::spans::{DeliveryTaken, EventTaken, FaultyTaken, Planning, Traced};

/// Most messages taken at once.
const BATCH: usize = 256;
/// How long to wait before asking again for an event that another process is at.
const ELSEWHERE_PAUSE: Duration = Duration::from_millis(200);
/// How long the rest of a wide event waits at most for what was planned of it: endpoints that
/// do not answer hold up the others only so long.
const REST_AFTER: Duration = Duration::from_secs(1);
/// How often it looks.
const REST_LOOK_EVERY: Duration = Duration::from_millis(5);

/// Takes events, for ever.
pub async fn take_events(pipeline: Pipeline) {
    let slots = Arc::new(Semaphore::new(pipeline.context.settings.prefetch));
    loop {
        let batch = take_batch(&pipeline, &slots).await;
        take_in(&pipeline, batch).await;
    }
}

/// Takes in the messages whose wait for another is over, for ever.
pub async fn take_again(pipeline: Pipeline, again: Arc<AgainReceiver>) {
    while let Some(waiting) = again.lock().await.recv().await {
        take_in(&pipeline, vec![waiting]).await;
    }
}

/// The next messages, each with its slot of the prefetch.
async fn take_batch(pipeline: &Pipeline, slots: &Arc<Semaphore>) -> Vec<Waiting> {
    let context = &pipeline.context;
    let taken = take_some(context, slots, "take events", |max| {
        context.ports.inbox.events(max)
    });
    let pair = |(taken, slot)| Waiting { taken, slot };
    taken.await.into_iter().map(pair).collect()
}

/// Waits for room, then takes at most as many messages as there is room for.
async fn take_some<M, F: Future<Output = Result<Vec<Taken<M>>, StoreError>>>(
    context: &Context,
    slots: &Arc<Semaphore>,
    action: &'static str,
    take: impl Fn(usize) -> F,
) -> Vec<(Taken<M>, OwnedSemaphorePermit)> {
    // The semaphore is never closed.
    let Ok(first) = Arc::clone(slots).acquire_owned().await else {
        return Vec::new();
    };
    let room = 1 + slots.available_permits().min(BATCH - 1);
    let taken = patiently(context, action, || take(room)).await;
    let mut slot = Some(first);
    let mut with_slots = Vec::with_capacity(taken.len());
    for message in taken {
        let free = slot
            .take()
            .or_else(|| Arc::clone(slots).try_acquire_owned().ok());
        // Only this task takes slots, so there are as many as it saw; else it requeues.
        if let Some(free) = free {
            with_slots.push((message, free));
        }
    }
    with_slots
}

/// Decodes, deduplicates, plans and offers a batch.
async fn take_in(pipeline: &Pipeline, batch: Vec<Waiting>) {
    let context = &pipeline.context;
    let mut claimed = Vec::with_capacity(batch.len());
    let mut faulty = Vec::new();
    for waiting in batch {
        let message = &waiting.taken.message;
        let bytes_max = context.settings.event_bytes_max;
        let decoded =
            codec::event::decode(&message.body, message.content_type.as_deref(), bytes_max);
        match decoded {
            Err(fault) => {
                let span = context.telemetry.begin(FaultyTaken {
                    bytes: message.body.len(),
                    traceparent: message.traceparent.as_deref(),
                });
                span.failed(fault.reason.code());
                let Waiting { taken, slot } = waiting;
                faulty.push((taken.message, fault, (taken.receipt, slot)));
            }
            Ok(mut event) => {
                event.data.let_go();
                let key = (event.key(), message.resume_after.clone());
                claimed.extend(claim(pipeline, event, &key, waiting));
            }
        }
    }
    if !faulty.is_empty() {
        put_aside(pipeline, faulty, Faulty::Event, take_away);
    }
    begin(pipeline, claimed).await;
}

/// Takes the event out of its message, if nobody else in this process has it; its ticket
/// releases the claim.
fn claim(pipeline: &Pipeline, event: Event, key: &ChunkKey, waiting: Waiting) -> Option<Unplanned> {
    let Context {
        ports, telemetry, ..
    } = &*pipeline.context;
    let now = ports.clock.now();
    let Waiting { taken, slot } = pipeline.intake.claim(key, waiting, now)?;
    let in_flight = Arc::clone(&pipeline.intake);
    let ledger = Arc::clone(&ports.ledger);
    let (released, tenant) = (key.clone(), event.tenant.clone());
    in_flight.took(&tenant);
    let (event_key, after) = key;
    let chunk = Chunk {
        event: *event_key,
        chunk: after
            .as_ref()
            .map_or(*event_key, |after| LedgerKey::of_rest(*event_key, after)),
        again: taken.message.again,
    };
    let span = telemetry.begin(EventTaken {
        event: &event,
        bytes: taken.message.body.len(),
        traceparent: taken.message.traceparent.as_deref(),
        continues: after.is_some(),
    });
    let begun = Arc::new(AtomicBool::new(false));
    let (is_begun, until_closed) = (Arc::clone(&begun), span.clone());
    let ticket = Ticket::open(taken.receipt, move |acknowledged| {
        until_closed.closed(acknowledged);
        drop(slot);
        if is_begun.load(Ordering::Acquire) {
            ledger.end(chunk.chunk);
        }
        in_flight.gave_back(&tenant);
        in_flight.release(&released);
    });
    Some(Unplanned {
        event,
        message: taken.message,
        chunk,
        begun,
        settled: Vec::new(),
        span,
        ticket,
    })
}

/// Begins events that no other process is at; the others wait on the side.
async fn begin(pipeline: &Pipeline, claimed: Vec<Unplanned>) {
    let chunks: Vec<Chunk> = claimed.iter().map(|claimed| claimed.chunk).collect();
    let begun = begun(&pipeline.context, &chunks).await;
    let mut ours = Vec::with_capacity(claimed.len());
    for (mut unplanned, begun) in claimed.into_iter().zip(begun) {
        if unplanned.take_up(begun) {
            ours.push(unplanned);
        } else {
            pipeline.spawn_until_stopped(|pipeline| async move {
                begin_later(&pipeline, unplanned).await;
            });
        }
    }
    plan_or_wait(pipeline, ours);
}

/// Waits until the other process is done with the event.
async fn begin_later(pipeline: &Pipeline, mut unplanned: Unplanned) {
    loop {
        tokio::time::sleep(ELSEWHERE_PAUSE).await;
        let begun = begun(&pipeline.context, &[unplanned.chunk]).await;
        for begun in begun {
            if unplanned.take_up(begun) {
                return plan_or_wait(pipeline, vec![unplanned]);
            }
        }
    }
}

/// Puts into quarantine what was not understood or cannot be matched: together, and on the side,
/// so that poison does not hold up its neighbours. Then `settle` has what holds each message.
fn put_aside<T: Send + 'static>(
    pipeline: &Pipeline,
    faulty: Vec<(EventMessage, EventFault, T)>,
    was: Faulty,
    settle: fn(T),
) {
    pipeline.spawn_until_cut_off(move |pipeline| async move {
        let context = &pipeline.context;
        let at = context.ports.clock.now();
        let (mut parcels, mut held) = (Vec::new(), Vec::new());
        for (message, fault, holds) in faulty {
            let trace = message.traceparent.as_deref().and_then(TraceContext::parse);
            let fault_told = MessageQuarantined {
                fault: &fault,
                was,
                trace,
            };
            context.telemetry.emit(fault_told);
            let quarantined = Quarantined { message, fault, at };
            parcels.push(Parcel::Quarantine(quarantined));
            held.push(holds);
        }
        put(context, "put into quarantine", parcels).await;
        let count = held.len() as u64;
        context.telemetry.emit(InQuarantine { was, count });
        held.into_iter().for_each(settle);
    });
}

/// Takes a message that is in quarantine out of its queue.
fn take_away((receipt, _slot): (Receipt, OwnedSemaphorePermit)) {
    receipt.ack();
}

/// What the ledger says of each chunk; all are ours, and nobody served, when it cannot be asked.
async fn begun(context: &Context, chunks: &[Chunk]) -> Vec<Begun> {
    let nobody = || vec![Begun::Ours(Vec::new()); chunks.len()];
    if !context.settings.dedup || chunks.is_empty() {
        return nobody();
    }
    match context.ports.ledger.begin(chunks).await {
        Ok(begun) if begun.len() == chunks.len() => begun,
        Ok(_) => nobody(),
        Err(error) => {
            let (action, error) = ("read ledger", &error);
            context.telemetry.emit(StoreTrouble { action, error });
            nobody()
        }
    }
}

/// Events whose subscriptions are known are planned at once. Where they have to be loaded, a
/// tenant's events wait in a task of their own, holding their slots of the prefetch: who is
/// known goes on being served, and intake pauses when all slots wait. A tenant's events keep
/// their order: what was in flight when a process ended is soon served again.
fn plan_or_wait(pipeline: &Pipeline, events: Vec<Unplanned>) {
    let context = &pipeline.context;
    let mut unknown: HashMap<TenantId, Vec<Unplanned>> = HashMap::new();
    for unplanned in events {
        let tenant = &unplanned.event.tenant;
        if !unknown.contains_key(tenant)
            && let Some(scopes) = scopes_in_memory(context, tenant)
        {
            plan_and_offer(pipeline, unplanned, &scopes);
        } else {
            let waiting = unknown.entry(tenant.clone()).or_default();
            waiting.push(unplanned);
        }
    }
    for (tenant, waiting) in unknown {
        pipeline.spawn_until_stopped(|pipeline| async move {
            plan_loaded(&pipeline, &tenant, waiting).await;
        });
    }
}

async fn plan_loaded(pipeline: &Pipeline, tenant: &TenantId, waiting: Vec<Unplanned>) {
    let context = &pipeline.context;
    let load = || scopes_of(context, tenant);
    let loaded = until_available(context, "load subscriptions", load).await;
    for unplanned in waiting {
        match &loaded {
            Ok(scopes) => plan_and_offer(pipeline, unplanned, scopes),
            Err(_) => come_again(unplanned.ticket),
        }
        tokio::task::consume_budget().await;
    }
}

/// A record that cannot be read is one tenant's trouble: its messages go back to their queue
/// and come again after a while, instead of holding the slots of all others.
fn come_again(ticket: Ticket) {
    drop(ticket);
}

/// An event that was understood, before its plan.
struct Unplanned {
    event: Event,
    message: EventMessage,
    chunk: Chunk,
    /// Whether it is this process's, so that its end is to be told.
    begun: Arc<AtomicBool>,
    settled: Vec<SubscriptionId>,
    span: Traced,
    ticket: Ticket,
}

impl Unplanned {
    /// Takes it up, unless another process is at it; says whether it did.
    fn take_up(&mut self, begun: Begun) -> bool {
        let Begun::Ours(settled) = begun else {
            return false;
        };
        self.begun.store(true, Ordering::Release);
        self.settled = settled;
        true
    }
}

fn plan_and_offer(pipeline: &Pipeline, unplanned: Unplanned, scopes: &[Arc<CompiledScope>; 2]) {
    let Unplanned {
        event,
        message,
        settled,
        span,
        ticket,
        ..
    } = unplanned;
    let context = &pipeline.context;
    let now = context.ports.clock.now();
    let facts = Arc::new(EventFacts {
        id: event.id.clone(),
        kind: event.kind.clone(),
        tenant: event.tenant.clone(),
        taken_at: now,
        traceparent: message.traceparent.as_deref().map(Into::into),
    });
    let (after, chunk) = (message.resume_after.as_ref(), context.settings.chunk);
    let planning = context.telemetry.begin(Planning { within: &span });
    let planned = plan(&event, &facts, scopes, after, &settled, chunk);
    let planned = match planned.inspect_err(|fault| planning.failed(fault.reason.code())) {
        Ok(planned) => planned,
        Err(fault) => {
            span.failed(fault.reason.code());
            let was = after.map_or(Faulty::Event, |_| Faulty::Rest);
            let faulty = vec![(message, fault, ticket)];
            return put_aside(pipeline, faulty, was, Ticket::settle);
        }
    };
    planned.report(context, &event, &facts, after.is_none(), &planning);
    drop(planning);
    let count = planned.deliveries.len();
    let work = |mut delivery| {
        span.leads_to(&mut delivery);
        Work {
            delivery,
            ticket: ticket.another(),
        }
    };
    if count > 0
        && let Some(after) = pipeline.intake.excess(&event.tenant)
    {
        let deliveries = planned.deliveries.into_iter();
        let all: Vec<Work> = deliveries.map(|(delivery, _)| work(delivery)).collect();
        pipeline.spawn_until_cut_off(|pipeline| async move {
            settle::defer_all(&pipeline.context, all, after, DeferReason::TenantShare).await;
        });
    } else {
        for (delivery, endpoint) in planned.deliveries {
            pipeline.offer(work(delivery), &endpoint, Freshness::Fresh);
        }
    }
    let Some(after) = planned.continue_after else {
        return ticket.settle();
    };
    let rest = rest_of(message, after, &span);
    pipeline.spawn_until_cut_off(|pipeline| async move {
        put_rest(&pipeline.context, rest, ticket, count / 2).await;
    });
}

/// Puts the rest of a wide event when only `some` of what was planned is left, or after a
/// while: so that a wide event has about one chunk in flight, and others their place beside it.
async fn put_rest(context: &Context, rest: EventMessage, ticket: Ticket, some: usize) {
    let begun = Instant::now();
    while ticket.siblings() > some && begun.elapsed() < REST_AFTER {
        tokio::time::sleep(REST_LOOK_EVERY).await;
    }
    put(context, "put continuation", vec![Parcel::Event(rest)]).await;
    ticket.settle();
}

/// What is wanted of `tenant`'s events: by its own subscriptions, and by those for every tenant.
async fn scopes_of(
    context: &Context,
    tenant: &TenantId,
) -> Result<[Arc<CompiledScope>; 2], StoreError> {
    let own = Scope::One(tenant.clone());
    let directory = &context.directory;
    Ok([
        directory.scope(&own).await?,
        directory.scope(&Scope::Every).await?,
    ])
}

/// The same if it need not be loaded.
fn scopes_in_memory(context: &Context, tenant: &TenantId) -> Option<[Arc<CompiledScope>; 2]> {
    let own = Scope::One(tenant.clone());
    let directory = &context.directory;
    Some([
        directory.in_memory(&own)?,
        directory.in_memory(&Scope::Every)?,
    ])
}

/// Takes due deliveries, for ever.
pub async fn take_deliveries(pipeline: Pipeline) {
    let slots = Arc::new(Semaphore::new(pipeline.context.settings.prefetch));
    loop {
        for (message, slot) in take_due(&pipeline, &slots).await {
            bring_back(&pipeline, message, slot);
        }
    }
}

async fn take_due(
    pipeline: &Pipeline,
    slots: &Arc<Semaphore>,
) -> Vec<(Taken<Bytes>, OwnedSemaphorePermit)> {
    let context = &pipeline.context;
    take_some(context, slots, "take deliveries", |max| {
        context.ports.inbox.deliveries(max)
    })
    .await
}

/// Brings one due delivery to its lane.
fn bring_back(pipeline: &Pipeline, taken: Taken<Bytes>, slot: OwnedSemaphorePermit) {
    let context = &pipeline.context;
    let mut delivery = match codec::delivery::decode(&taken.message) {
        Ok(delivery) => delivery,
        Err(error) => {
            let message = EventMessage {
                body: taken.message,
                content_type: Some("application/x-protobuf".to_owned()),
                ..EventMessage::default()
            };
            let fault = EventFault::whole(FaultReason::Malformed, error.to_string());
            let faulty = vec![(message, fault, (taken.receipt, slot))];
            return put_aside(pipeline, faulty, Faulty::Delivery, take_away);
        }
    };
    let in_flight = Arc::clone(&pipeline.intake);
    in_flight.delivery_began();
    let span = context.telemetry.begin(DeliveryTaken {
        delivery: &delivery,
        bytes: taken.message.len(),
    });
    span.leads_to(&mut delivery);
    let ticket = Ticket::open(taken.receipt, move |acknowledged| {
        span.closed(acknowledged);
        drop(slot);
        in_flight.delivery_ended();
    });
    let work = Work { delivery, ticket };
    // As with events: who is known goes on being served.
    let tenant = &work.delivery.event.tenant;
    if let Some(scopes) = scopes_in_memory(context, tenant) {
        let found = super::endpoint_of(&scopes, &work.delivery.subscription);
        return offer_again(pipeline, work, found);
    }
    pipeline.spawn_until_stopped(|pipeline| async move {
        let context = &pipeline.context;
        let load = || super::current_endpoint(context, &work.delivery);
        match until_available(context, "load subscription", load).await {
            Ok(found) => offer_again(&pipeline, work, found),
            Err(_) => come_again(work.ticket),
        }
    });
}

/// What ends here is given up on the side: many that do share their commits.
fn offer_again(pipeline: &Pipeline, work: Work, found: Result<Arc<Endpoint>, DeadReason>) {
    match found {
        Ok(endpoint) => pipeline.offer(work, &endpoint, Freshness::Returning),
        Err(reason) => pipeline.spawn_until_cut_off(|pipeline| async move {
            let Work { delivery, ticket } = work;
            settle::dead(&pipeline.context, delivery, reason, ticket).await;
        }),
    }
}
