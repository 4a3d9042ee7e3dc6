//! The pipeline: intake → plan → admit → send → decide → settle → record, one file a stage.
//!
//! ```text
//!            ┌──────────────────────────── one process ─────────────────────────────┐
//! events  →  intake → plan ──────→ admit → send → decide → settle → (message acked)  │
//!            │ decode   match      rate    sign    outcome   durable: done,          │
//!            │ dedup    render     window  POST    → action  retry or dead letter    │
//! due     →  intake ─────────────→ admit …                   record: audit, metrics  │
//! deliveries └──────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! First attempts are made straight from the event; only what cannot be delivered now
//! becomes a durable delivery of its own. *Invariant: an event is acknowledged last.*

pub mod accounts;
pub mod admit;
pub mod directory;
pub mod health;
pub mod in_flight;
pub mod intake;
pub mod lately;
pub mod observe;
pub mod plan;
pub mod record;
pub mod send;
pub mod settle;
pub mod settlement;
pub mod test_action;
pub mod turns;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use admit::{Admission, Admit, AdmitSettings, Granted, Permit};
use directory::{CompiledScope, Directory, Endpoint, EndpointDefaults};
use health::Health;
use in_flight::{InFlight, Waiting};
use lately::Lately;
use record::Follows;
use settlement::Ticket;

use crate::domain::decide::{Action, decide};
use crate::domain::delivery::{DeadReason, Delivery};
use crate::domain::id::SubscriptionId;
use crate::domain::lane::{Answer, DeferReason, Freshness, LaneState};
use crate::domain::outcome::Class;
use crate::domain::subscription::Scope;
use crate::ports::{Ports, StoreError};
use crate::telemetry::Telemetry;

/// How long a loop that ended by a bug stays down.
const BEGIN_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How the pipeline runs.
#[derive(Clone, Debug)]
pub struct PipelineSettings {
    /// Events, and due deliveries, in flight at most: `intake.prefetch`.
    pub prefetch: usize,
    /// Largest event, in bytes: `intake.max_event_bytes`.
    pub event_bytes_max: usize,
    /// Deliveries planned from one message at most: `plan.chunk`.
    pub chunk: usize,
    /// Requests at once: `delivery.max_in_flight`.
    pub in_flight_max: usize,
    /// What holds for subscriptions that do not say otherwise.
    pub endpoint: EndpointDefaults,
    /// Whether events are remembered: `dedup.window` is not zero.
    pub dedup: bool,
    /// How long an endpoint may fail without a success: `delivery.disable_after`.
    pub disable_after: Duration,
    /// Endpoints with metrics of their own: `telemetry.endpoint_series`.
    pub endpoint_series: usize,
}

/// What every stage needs.
pub struct Context {
    /// The ways to the outside.
    pub ports: Ports,
    /// How to run.
    pub settings: PipelineSettings,
    /// Where to tell what happens.
    pub telemetry: Telemetry,
    /// The endpoints.
    pub directory: Directory,
    /// How they have been of late.
    pub health: Health,
    /// What was attempted lately.
    pub lately: Lately,
}

/// A delivery on its way through the process.
#[derive(Debug)]
pub struct Work {
    /// The delivery.
    pub delivery: Delivery,
    /// Its part in the settlement of its message.
    pub ticket: Ticket,
}

/// The running pipeline.
#[derive(Clone)]
pub struct Pipeline {
    context: Arc<Context>,
    admit: Admit<Work>,
    intake: Arc<InFlight>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// The grace is over: what is under way is dropped, and so comes again.
    cut_off: CancellationToken,
}

impl Pipeline {
    /// Starts taking events and due deliveries.
    pub fn start(ports: Ports, settings: PipelineSettings, telemetry: Telemetry) -> Self {
        let (admit, granted) = Admit::new(AdmitSettings {
            in_flight_max: settings.in_flight_max,
            // The other half is always there for those that answer soon.
            slow_max: settings.prefetch / 2,
            rates: ports.rates.clone(),
        });
        let store = Arc::clone(&ports.subscriptions);
        let directory = Directory::new(store, settings.endpoint.clone(), telemetry.clone());
        let context = Context {
            ports,
            settings,
            telemetry,
            directory,
            health: Health::default(),
            lately: Lately::default(),
        };
        let (intake, again) = InFlight::new(context.settings.prefetch);
        let pipeline = Self {
            context: Arc::new(context),
            admit,
            intake: Arc::new(intake),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            cut_off: CancellationToken::new(),
        };
        pipeline.spawn_loops(granted, again);
        pipeline
    }

    fn spawn_loops(
        &self,
        granted: mpsc::UnboundedReceiver<Granted<Work>>,
        again: mpsc::UnboundedReceiver<Waiting>,
    ) {
        let granted = Arc::new(Mutex::new(granted));
        let again = Arc::new(Mutex::new(again));
        self.supervise("timers", |pipeline| async move {
            pipeline.admit.run_timers().await;
        });
        self.supervise("rates", |pipeline| async move {
            pipeline.admit.run_rates().await;
        });
        self.supervise("dispatch", move |pipeline| {
            pipeline.dispatch_granted(Arc::clone(&granted))
        });
        self.supervise("events", intake::take_events);
        self.supervise("events again", move |pipeline| {
            intake::take_again(pipeline, Arc::clone(&again))
        });
        self.supervise("deliveries", intake::take_deliveries);
        self.supervise("health", health::compare);
        self.supervise("accounts", accounts::keep);
    }

    /// Runs a loop until the pipeline stops. One that ends before (a panic, so a bug) is
    /// begun again: what it held was dropped, and so comes again.
    fn supervise<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: &'static str,
        begin: impl Fn(Self) -> F + Send + 'static,
    ) {
        let pipeline = self.clone();
        self.tasks.spawn(async move {
            while !pipeline.stop.is_cancelled() {
                let running = begin(pipeline.clone());
                let stop = pipeline.stop.clone();
                let run = async move { stop.run_until_cancelled(running).await };
                let ended = tokio::spawn(run).await;
                if !pipeline.stop.is_cancelled() {
                    let error = ended.err().map(|error| error.to_string());
                    tracing::error!(name, error, "a loop of the pipeline ended; begun again");
                    tokio::time::sleep(BEGIN_AGAIN_AFTER).await;
                }
            }
        });
    }

    /// Runs what waits for others on the side; dropped when the pipeline stops.
    fn spawn_until_stopped<F: Future<Output = ()> + Send + 'static>(
        &self,
        run: impl FnOnce(Self) -> F,
    ) {
        self.spawn_until(&self.stop, run(self.clone()));
    }

    /// Runs what makes something durable on the side; it may end until the grace is over.
    fn spawn_until_cut_off<F: Future<Output = ()> + Send + 'static>(
        &self,
        run: impl FnOnce(Self) -> F,
    ) {
        self.spawn_until(&self.cut_off, run(self.clone()));
    }

    fn spawn_until(
        &self,
        end: &CancellationToken,
        running: impl Future<Output = ()> + Send + 'static,
    ) {
        let end = end.clone();
        self.tasks.spawn(async move {
            // Dropped half way, its message comes again.
            let _ = end.run_until_cancelled(running).await;
        });
    }

    /// How the lane of an endpoint is in this process; `None` when it had no traffic of late.
    pub fn lane(&self, endpoint: &SubscriptionId) -> Option<LaneState> {
        self.admit.lane(endpoint)
    }

    /// The parts that other doors (the API's Test action) use too.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Stops taking, lets requests end for at most `grace`, and makes all durable.
    ///
    /// What waits in memory goes back to its queue. Says whether all requests ended.
    pub async fn drain(&self, grace: Duration) -> bool {
        self.stop.cancel();
        // Dropping what waits requeues its messages.
        drop(self.admit.close());
        self.intake.forget_waiting();
        self.context.ports.inbox.stop().await;
        self.tasks.close();
        let ended = tokio::time::timeout(grace, self.tasks.wait()).await.is_ok();
        self.cut_off.cancel();
        self.tasks.wait().await;
        accounts::tell(&self.context).await;
        self.context.ports.backend.flush().await;
        ended
    }

    /// Brings a delivery to its lane, and on from there.
    fn offer(&self, work: Work, endpoint: &Arc<Endpoint>, freshness: Freshness) {
        let subscription = &endpoint.subscription;
        let (tenant, id) = (&subscription.tenant, &subscription.id);
        match self
            .admit
            .offer(tenant, id, endpoint.limits, work, freshness)
        {
            Admission::Now(work, permit) => self.spawn_attempt(work, permit),
            Admission::Queued => {}
            Admission::Defer {
                work,
                after,
                reason,
            } => self.spawn_deferral(work, after, reason),
            // The end has begun: the message comes again.
            Admission::Refuse(work) => drop(work),
        }
    }

    async fn dispatch_granted(self, granted: Arc<Mutex<mpsc::UnboundedReceiver<Granted<Work>>>>) {
        while let Some(next) = granted.lock().await.recv().await {
            match next {
                Granted::Start(work, permit) => self.spawn_attempt(work, permit),
                Granted::Defer {
                    work,
                    after,
                    reason,
                } => self.spawn_deferral(work, after, reason),
            }
        }
    }

    fn spawn_attempt(&self, work: Work, permit: Permit<Work>) {
        self.spawn_until_cut_off(|pipeline| async move {
            attempt(&pipeline.context, work, permit).await;
        });
    }

    fn spawn_deferral(&self, work: Work, after: Duration, reason: DeferReason) {
        self.spawn_until_cut_off(|pipeline| async move {
            settle::defer(&pipeline.context, work, after, reason).await;
        });
    }
}

/// One attempt, from the permit to the settled ticket.
///
/// The permit is held until what follows is durable, not only until the answer is there: so
/// an endpoint's window is also the most that it may see again after a crash, and a store
/// that does not take what follows stops what is sent.
async fn attempt(context: &Context, work: Work, permit: Permit<Work>) {
    let Work {
        mut delivery,
        ticket,
    } = work;
    let load = || current_endpoint(context, &delivery);
    let endpoint = match settle::until_available(context, "load subscription", load).await {
        Ok(Ok(endpoint)) => endpoint,
        Ok(Err(reason)) => return settle::dead(context, delivery, reason, ticket).await,
        // Damaged: it comes again after a while.
        Err(_) => return drop(ticket),
    };
    // The endpoint says whose it is: the id may have been another's when the delivery was made.
    delivery = delivery.within(&endpoint.subscription.tenant);
    let timeout = endpoint.subscription.spec.timeout;
    let sent = send::send(context, &endpoint, &delivery, timeout).await;
    let now = context.ports.clock.now();
    let pause = sent.pause_until.map(|until| until.since(now));
    permit.report(answer_of(sent.class), pause);
    let chance = context.ports.chance.fraction();
    let action = match decide(&endpoint.retry, &delivery, sent.class, now, chance) {
        Action::Retry { due, reason } => {
            let due = context.ports.outbox.rounded(due, now);
            Action::Retry { due, reason }
        }
        ended => ended,
    };
    let (began, class) = (sent.began, sent.class);
    let last = sent.last();
    let span = sent.span.context();
    let event = Arc::clone(&delivery.event);
    record::record(context, &delivery, sent, Follows::Action(action));
    delivery.lineage.last_attempt = span.or(delivery.lineage.last_attempt);
    settle::settle(context, delivery, action, began, last, ticket).await;
    drop(permit);
    health::note(context, &endpoint, &event.tenant, class, now).await;
}

/// What an attempt's class says about the endpoint.
fn answer_of(class: Class) -> Answer {
    match class {
        Class::Acknowledged => Answer::Success,
        Class::Failed {
            overloaded: true, ..
        } => Answer::Overload,
        Class::Failed { .. } | Class::Gone => Answer::Failure,
    }
}

/// The endpoint as it is now, or why the delivery ends here.
async fn current_endpoint(
    context: &Context,
    delivery: &Delivery,
) -> Result<Result<Arc<Endpoint>, DeadReason>, StoreError> {
    let scope = Scope::One(delivery.event.tenant.clone());
    let found = context.directory.endpoint(&scope, &delivery.subscription);
    Ok(served(found.await?))
}

/// The same among what is in memory.
fn endpoint_of(
    scopes: &[Arc<CompiledScope>],
    id: &SubscriptionId,
) -> Result<Arc<Endpoint>, DeadReason> {
    served(scopes.iter().find_map(|scope| scope.get(id)))
}

fn served(found: Option<Arc<Endpoint>>) -> Result<Arc<Endpoint>, DeadReason> {
    match found {
        None => Err(DeadReason::SubscriptionDeleted),
        Some(endpoint) if endpoint.subscription.disabled_reason.is_some() => {
            Err(DeadReason::SubscriptionDisabled)
        }
        Some(endpoint) => Ok(endpoint),
    }
}
