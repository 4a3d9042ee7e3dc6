//! Intake: takes events and due deliveries from their queues and decodes them.
//!
//! What cannot be understood goes to quarantine with its bytes and a reason, and never
//! blocks what is behind it. Of two messages with the same event, the second waits until
//! the first is settled; then the ledger knows what is left to do.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::directory::{CompiledScope, Endpoint};
use super::plan::{Plan, plan};
use super::settle::{self, patiently, put, until_available};
use super::settlement::Ticket;
use super::{Context, Pipeline, Work};
use crate::codec;
use crate::domain::delivery::{DeadReason, EventFacts};
use crate::domain::event::{Event, EventFault, FaultReason};
use crate::domain::id::{LedgerKey, SubscriptionId};
use crate::domain::lane::Freshness;
use crate::domain::subscription::Scope;
use crate::domain::timestamp::UnixMillis;
use crate::ports::{EventMessage, Parcel, Quarantined, StoreError, Taken};
use crate::telemetry::events::{EventPlanned, EventResult, MessageQuarantined, StoreTrouble};

/// Most messages taken at once.
const BATCH: usize = 256;

/// A message that waits for another with the same event to settle.
pub struct Waiting {
    taken: Taken<EventMessage>,
    slot: OwnedSemaphorePermit,
}

/// Where messages come whose wait is over; shared, so that a loop can begin again.
pub type AgainReceiver = tokio::sync::Mutex<mpsc::UnboundedReceiver<Waiting>>;

/// What identifies a chunk of an event: the event, and where the chunk begins.
type ChunkKey = (LedgerKey, Option<SubscriptionId>);

/// The events in flight in this process.
pub struct InFlight {
    claims: Mutex<HashMap<ChunkKey, Claim>>,
    deliveries: AtomicUsize,
    again: mpsc::UnboundedSender<Waiting>,
}

struct Claim {
    taken_at: UnixMillis,
    waiting: Vec<Waiting>,
}

impl InFlight {
    /// Nothing in flight, and the channel on which messages come whose wait is over.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Waiting>) {
        let (again, receiver) = mpsc::unbounded_channel();
        let in_flight = Self {
            claims: Mutex::default(),
            deliveries: AtomicUsize::new(0),
            again,
        };
        (in_flight, receiver)
    }

    /// Events that are taken and not settled.
    pub fn events(&self) -> usize {
        self.claims().len()
    }

    /// Due deliveries that are taken and not settled.
    pub fn deliveries(&self) -> usize {
        self.deliveries.load(Ordering::Relaxed)
    }

    /// How long ago the oldest event in flight was taken.
    pub fn oldest_age(&self, now: UnixMillis) -> Duration {
        let oldest = self.claims().values().map(|claim| claim.taken_at).min();
        oldest.map_or(Duration::ZERO, |at| now.since(at))
    }

    /// Gives back all messages that wait for another.
    pub fn forget_waiting(&self) {
        let waiting: Vec<Waiting> = {
            let mut claims = self.claims();
            let each = claims.values_mut();
            each.flat_map(|claim| std::mem::take(&mut claim.waiting))
                .collect()
        };
        drop(waiting);
    }

    fn claims(&self) -> std::sync::MutexGuard<'_, HashMap<ChunkKey, Claim>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims the chunk for the caller, or has the message wait for who has it.
    fn claim(&self, key: &ChunkKey, waiting: Waiting, now: UnixMillis) -> Option<Waiting> {
        let mut claims = self.claims();
        if let Some(claim) = claims.get_mut(key) {
            claim.waiting.push(waiting);
            return None;
        }
        let claim = Claim {
            taken_at: now,
            waiting: Vec::new(),
        };
        claims.insert(key.clone(), claim);
        Some(waiting)
    }

    fn release(&self, key: &ChunkKey) {
        let released = self.claims().remove(key);
        for waiting in released.into_iter().flat_map(|claim| claim.waiting) {
            // After the end nobody takes it: dropped, it is requeued.
            let _ = self.again.send(waiting);
        }
    }
}

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
    let mut tickets = Vec::with_capacity(batch.len());
    let mut faulty = Vec::new();
    for waiting in batch {
        let message = &waiting.taken.message;
        let bytes_max = context.settings.event_bytes_max;
        let decoded =
            codec::event::decode(&message.body, message.content_type.as_deref(), bytes_max);
        match decoded {
            Err(fault) => faulty.push((waiting, fault)),
            Ok(event) => {
                let key = (event.key(), message.resume_after.clone());
                if let Some((message, ticket)) = claim(pipeline, &key, waiting) {
                    tickets.push((event, key, message, ticket));
                }
            }
        }
    }
    if !faulty.is_empty() {
        put_aside(pipeline, faulty);
    }
    let keys: Vec<LedgerKey> = tickets.iter().map(|(_, key, ..)| key.0).collect();
    let settled = settled(context, &keys).await;
    for ((event, _, message, ticket), settled) in tickets.into_iter().zip(settled) {
        let unplanned = Unplanned {
            event,
            message,
            settled,
            ticket,
        };
        plan_or_wait(pipeline, unplanned).await;
    }
}

/// The message with its ticket, if nobody else has its event; the ticket releases the claim.
fn claim(pipeline: &Pipeline, key: &ChunkKey, waiting: Waiting) -> Option<(EventMessage, Ticket)> {
    let now = pipeline.context.ports.clock.now();
    let Waiting { taken, slot } = pipeline.intake.claim(key, waiting, now)?;
    let in_flight = Arc::clone(&pipeline.intake);
    let released = key.clone();
    let ticket = Ticket::open(taken.receipt, move |_| {
        drop(slot);
        in_flight.release(&released);
    });
    Some((taken.message, ticket))
}

/// Puts into quarantine what a batch has that was not understood: together, and on the side,
/// so that poison does not hold up its neighbours.
fn put_aside(pipeline: &Pipeline, faulty: Vec<(Waiting, EventFault)>) {
    pipeline.spawn_until_cut_off(|pipeline| async move {
        let context = &pipeline.context;
        let at = context.ports.clock.now();
        let mut parcels = Vec::with_capacity(faulty.len());
        for (Waiting { taken, .. }, fault) in &faulty {
            context.telemetry.emit(MessageQuarantined { fault });
            parcels.push(Parcel::Quarantine(Quarantined {
                message: taken.message.clone(),
                fault: fault.clone(),
                at,
            }));
        }
        put(context, "put into quarantine", parcels).await;
        for (Waiting { taken, slot }, _) in faulty {
            taken.receipt.ack();
            drop(slot);
        }
    });
}

/// What the ledger remembers of each event; nothing when it cannot be read.
async fn settled(context: &Context, keys: &[LedgerKey]) -> Vec<Vec<SubscriptionId>> {
    if !context.settings.dedup || keys.is_empty() {
        return vec![Vec::new(); keys.len()];
    }
    match context.ports.ledger.settled(keys).await {
        Ok(settled) if settled.len() == keys.len() => settled,
        Ok(_) => vec![Vec::new(); keys.len()],
        Err(error) => {
            let (action, error) = ("read ledger", &error);
            context.telemetry.emit(StoreTrouble { action, error });
            vec![Vec::new(); keys.len()]
        }
    }
}

/// An event whose subscriptions are known is planned at once. One whose subscriptions
/// cannot be loaded now waits in a task of its own, holding its slot of the prefetch: who is
/// known goes on being served, and intake pauses when all slots wait.
async fn plan_or_wait(pipeline: &Pipeline, planned: Unplanned) {
    match scopes_of(&pipeline.context, &planned.event).await {
        Ok(scopes) => plan_and_offer(pipeline, planned, &scopes).await,
        Err(error) if error.is_outage() => {
            pipeline.spawn_until_stopped(|pipeline| async move {
                let context = &pipeline.context;
                let load = || scopes_of(context, &planned.event);
                let scopes = until_available(context, "load subscriptions", load).await;
                if let Ok(scopes) = scopes {
                    plan_and_offer(&pipeline, planned, &scopes).await;
                }
            });
        }
        Err(error) => come_again(&pipeline.context, planned.ticket, &error),
    }
}

/// A record that cannot be read is one tenant's trouble: its messages go back to their queue
/// and come again after a while, instead of holding the slots of all others.
fn come_again(context: &Context, ticket: Ticket, error: &StoreError) {
    let action = "load subscriptions";
    context.telemetry.emit(StoreTrouble { action, error });
    drop(ticket);
}

/// An event that was understood, before its plan.
struct Unplanned {
    event: Event,
    message: EventMessage,
    settled: Vec<SubscriptionId>,
    ticket: Ticket,
}

async fn plan_and_offer(
    pipeline: &Pipeline,
    unplanned: Unplanned,
    scopes: &[Arc<CompiledScope>; 2],
) {
    let Unplanned {
        event,
        message,
        settled,
        ticket,
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
    let planned = plan(&event, &facts, scopes, after, &settled, chunk);
    report(context, &event, &planned, now, after.is_some());
    if let Some(after) = planned.continue_after {
        let rest = EventMessage {
            resume_after: Some(after),
            ..message
        };
        put(context, "put continuation", vec![Parcel::Event(rest)]).await;
    }
    for (delivery, endpoint) in planned.deliveries {
        let work = Work {
            delivery,
            ticket: ticket.another(),
        };
        pipeline.offer(work, &endpoint, Freshness::Fresh);
    }
    ticket.settle();
}

async fn scopes_of(
    context: &Context,
    event: &Event,
) -> Result<[Arc<CompiledScope>; 2], StoreError> {
    let own = Scope::One(event.tenant.clone());
    let directory = &context.directory;
    Ok([
        directory.scope(&own).await?,
        directory.scope(&Scope::Every).await?,
    ])
}

/// Continuations are the same event: they are not counted again.
fn report(context: &Context, event: &Event, plan: &Plan, now: UnixMillis, continues: bool) {
    if continues {
        return;
    }
    let deliveries = plan.deliveries.len();
    let result = match (deliveries, plan.settled) {
        (0, 0) if plan.continue_after.is_none() => EventResult::Unmatched,
        (0, 1..) if plan.continue_after.is_none() => EventResult::Duplicate,
        _ => EventResult::Accepted,
    };
    context.telemetry.emit(EventPlanned {
        event,
        result,
        deliveries,
        age: now.since(event.timestamp.at()),
    });
}

/// Takes due deliveries, for ever.
pub async fn take_deliveries(pipeline: Pipeline) {
    let slots = Arc::new(Semaphore::new(pipeline.context.settings.prefetch));
    loop {
        for (message, slot) in take_due(&pipeline, &slots).await {
            bring_back(&pipeline, message, slot).await;
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
async fn bring_back(pipeline: &Pipeline, taken: Taken<Bytes>, slot: OwnedSemaphorePermit) {
    let context = &pipeline.context;
    let delivery = match codec::delivery::decode(&taken.message) {
        Ok(delivery) => delivery,
        Err(error) => {
            let message = EventMessage {
                body: taken.message,
                content_type: Some("application/x-protobuf".to_owned()),
                ..EventMessage::default()
            };
            let receipt = taken.receipt;
            let taken = Taken { message, receipt };
            let fault = EventFault::whole(FaultReason::Malformed, error.to_string());
            return put_aside(pipeline, vec![(Waiting { taken, slot }, fault)]);
        }
    };
    let in_flight = Arc::clone(&pipeline.intake);
    in_flight.deliveries.fetch_add(1, Ordering::Relaxed);
    let ticket = Ticket::open(taken.receipt, move |_| {
        drop(slot);
        in_flight.deliveries.fetch_sub(1, Ordering::Relaxed);
    });
    let work = Work { delivery, ticket };
    match super::current_endpoint(context, &work.delivery).await {
        Ok(found) => offer_again(pipeline, work, found),
        // As with events: who is known goes on being served.
        Err(error) if error.is_outage() => {
            pipeline.spawn_until_stopped(|pipeline| async move {
                let context = &pipeline.context;
                let load = || super::current_endpoint(context, &work.delivery);
                if let Ok(found) = until_available(context, "load subscription", load).await {
                    offer_again(&pipeline, work, found);
                }
            });
        }
        Err(error) => come_again(context, work.ticket, &error),
    }
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
