//! The named spans of the pipeline: what each is called, is below, and says.
//!
//! As OpenTelemetry's semantic conventions have it: messages are *processed* (consumer) and
//! *sent* (producer), attempts are HTTP client spans, and what is Carillon's own begins with
//! `carillon.`. *Invariant: no span holds a secret.* Of an endpoint's address a span has the
//! scheme, host and port: paths and queries of webhook URLs often are secrets.
//!
//! Without traces nothing is made: each `begin` is one look at an `Option`.

use opentelemetry::trace::{
    SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, Value};
use tracing::{Dispatch, Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use url::Url;

use crate::domain::attempt::Attempt;
use crate::domain::delivery::Delivery;
use crate::domain::event::Event;
use crate::domain::trace::TraceContext;

/// The target of every span; the subscriber of spans takes no other.
pub(super) const TARGET: &str = "carillon::spans";

/// Makes spans.
pub struct Tracer {
    dispatch: Dispatch,
    system: &'static str,
    events: String,
    deliveries: String,
    dead_letters: String,
}

/// A span under way; nothing when traces are off. It ends when all its handles are dropped.
#[derive(Clone, Debug, Default)]
pub struct Traced(Option<Live>);

#[derive(Clone, Debug)]
struct Live {
    span: Span,
    context: TraceContext,
}

/// A span that can begin.
pub trait Begin {
    /// Begins it.
    fn begin(self, tracer: &Tracer) -> Traced;
}

/// An event was taken: until its message is acknowledged or given back.
pub struct EventTaken<'a> {
    /// The event.
    pub event: &'a Event,
    /// The size of its message.
    pub bytes: usize,
    /// The trace context that it came with.
    pub traceparent: Option<&'a str>,
    /// Whether it is the rest of a big fan-out.
    pub continues: bool,
}

/// A message was taken that is not understood.
pub struct FaultyTaken<'a> {
    /// The size of the message.
    pub bytes: usize,
    /// The trace context that it came with.
    pub traceparent: Option<&'a str>,
}

/// A delivery that waited was taken: until it is settled again.
pub struct DeliveryTaken<'a> {
    /// The delivery.
    pub delivery: &'a Delivery,
    /// The size of its message.
    pub bytes: usize,
}

/// An event's deliveries are planned.
pub struct Planning<'a> {
    /// The span of the event.
    pub within: &'a Traced,
}

/// A delivery's next attempt: one HTTP request.
pub struct Attempting<'a> {
    /// The delivery.
    pub delivery: &'a Delivery,
    /// The endpoint.
    pub url: &'a Url,
}

/// A delivery is put into a queue.
pub struct Putting<'a> {
    /// The delivery.
    pub delivery: &'a Delivery,
    /// Which queue.
    pub queue: Queue,
    /// Why: the failure's, deferral's or dead letter's reason.
    pub reason: &'static str,
}

/// A queue that deliveries are put into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// They come again.
    Deliveries,
    /// They are given up.
    DeadLetters,
}

/// What a span is below.
enum Parent {
    /// A span of this process.
    Local(Option<TraceContext>),
    /// One that came with a message.
    Remote(Option<TraceContext>),
}

impl Tracer {
    /// Makes spans for `dispatch`, which speak of the queues of `system`.
    pub(super) fn new(dispatch: Dispatch, system: &'static str, prefix: &str) -> Self {
        let queue = |name: &str| format!("{prefix}.{name}");
        Self {
            dispatch,
            system,
            events: queue("events"),
            deliveries: queue("deliveries"),
            dead_letters: queue("dead-letters"),
        }
    }

    /// Makes a span below `parent`, with a link to `link`, and starts it.
    fn start(
        &self,
        parent: &Parent,
        link: Option<TraceContext>,
        make: impl FnOnce() -> Span,
    ) -> Traced {
        let span = tracing::dispatcher::with_default(&self.dispatch, make);
        let above = match parent {
            Parent::Local(context) => context.map(|context| span_context(context, false)),
            Parent::Remote(context) => context.map(|context| span_context(context, true)),
        };
        // It was not started before, so that it takes a parent.
        let _ = span.set_parent(above.map_or_else(Context::new, |above| {
            Context::new().with_remote_span_context(above)
        }));
        if let Some(link) = link {
            span.add_link(span_context(link, true));
        }
        let context = trace_context(span.context().span().span_context());
        Traced(context.map(|context| Live { span, context }))
    }
}

impl Traced {
    /// Itself, as others name it.
    pub fn context(&self) -> Option<TraceContext> {
        self.0.as_ref().map(|live| live.context)
    }

    /// The next spans of `delivery` are below this one.
    pub fn leads_to(&self, delivery: &mut Delivery) {
        if let Some(context) = self.context() {
            delivery.lineage.parent = Some(context);
        }
    }

    /// An event's plan was made: so many deliveries, so many left out because they are settled,
    /// and whether there are more to plan.
    pub fn planned(&self, deliveries: usize, settled: usize, is_cut: bool) {
        self.set("carillon.plan.deliveries", count(deliveries));
        self.set("carillon.plan.settled", count(settled));
        self.set("carillon.plan.cut", is_cut);
    }

    /// It failed, for this reason.
    pub fn failed(&self, reason: &'static str) {
        self.set("error.type", reason);
        if let Some(live) = &self.0 {
            live.span.set_status(Status::error(reason));
        }
    }

    /// Its message was acknowledged, or given back to be taken again.
    pub fn closed(&self, acknowledged: bool) {
        self.set("carillon.acknowledged", acknowledged);
    }

    /// Its request is over.
    pub(super) fn attempted(&self, attempt: &Attempt) {
        if self.0.is_none() {
            return;
        }
        if let Some(response) = &attempt.response {
            self.set("http.response.status_code", i64::from(response.status));
        }
        self.set("carillon.next_action", attempt.next_action.code());
        if attempt.test {
            self.set("carillon.test", true);
        }
        if let Some(reason) = attempt.reason {
            self.failed(reason.code());
        }
    }

    fn set(&self, key: &'static str, value: impl Into<Value>) {
        if let Some(live) = &self.0 {
            live.span.set_attribute(key, value);
        }
    }
}

impl Begin for EventTaken<'_> {
    fn begin(self, tracer: &Tracer) -> Traced {
        let Self { event, bytes, .. } = self;
        let parent = Parent::Remote(self.traceparent.and_then(TraceContext::parse));
        tracer.start(&parent, None, || {
            info_span!(
                target: TARGET, parent: None, "process",
                otel.name = format_args!("process {}", tracer.events), otel.kind = "consumer",
                messaging.system = tracer.system,
                messaging.destination.name = tracer.events,
                messaging.operation.name = "process", messaging.operation.r#type = "process",
                messaging.message.id = event.id.as_str(),
                messaging.message.body.size = count(bytes),
                carillon.event.id = event.id.as_str(), carillon.event.r#type = event.kind.as_str(),
                carillon.tenant = event.tenant.as_str(), carillon.continues = self.continues,
            )
        })
    }
}

impl Begin for FaultyTaken<'_> {
    fn begin(self, tracer: &Tracer) -> Traced {
        let parent = Parent::Remote(self.traceparent.and_then(TraceContext::parse));
        tracer.start(&parent, None, || {
            info_span!(
                target: TARGET, parent: None, "process",
                otel.name = format_args!("process {}", tracer.events), otel.kind = "consumer",
                messaging.system = tracer.system,
                messaging.destination.name = tracer.events,
                messaging.operation.name = "process", messaging.operation.r#type = "process",
                messaging.message.body.size = count(self.bytes),
            )
        })
    }
}

impl Begin for DeliveryTaken<'_> {
    fn begin(self, tracer: &Tracer) -> Traced {
        let Self { delivery, bytes } = self;
        let (event, lineage) = (&delivery.event, delivery.lineage);
        tracer.start(&Parent::Remote(delivery.trace()), lineage.last_attempt, || {
            info_span!(
                target: TARGET, parent: None, "process",
                otel.name = format_args!("process {}", tracer.deliveries), otel.kind = "consumer",
                messaging.system = tracer.system,
                messaging.destination.name = tracer.deliveries,
                messaging.operation.name = "process", messaging.operation.r#type = "process",
                messaging.message.id = delivery.id.as_str(),
                messaging.message.body.size = count(bytes),
                carillon.event.id = event.id.as_str(), carillon.event.r#type = event.kind.as_str(),
                carillon.tenant = event.tenant.as_str(),
                carillon.delivery.id = delivery.id.as_str(),
                carillon.subscription.id = delivery.subscription.as_str(),
                carillon.attempts = i64::from(delivery.attempts),
            )
        })
    }
}

impl Begin for Planning<'_> {
    fn begin(self, tracer: &Tracer) -> Traced {
        tracer.start(
            &Parent::Local(self.within.context()),
            None,
            || info_span!(target: TARGET, parent: None, "plan", otel.kind = "internal"),
        )
    }
}

impl Begin for Attempting<'_> {
    fn begin(self, tracer: &Tracer) -> Traced {
        let Self { delivery, url } = self;
        let (event, lineage) = (&delivery.event, delivery.lineage);
        let resent = i64::from(delivery.attempts);
        tracer.start(&Parent::Local(delivery.trace()), lineage.last_attempt, || {
            info_span!(
                target: TARGET, parent: None, "POST",
                otel.kind = "client",
                http.request.method = "POST",
                http.request.resend_count = (resent > 0).then_some(resent),
                http.request.body.size = count(delivery.body.len()),
                url.scheme = url.scheme(), url.full = without_path(url),
                server.address = url.host_str(), server.port = url.port_or_known_default().map(i64::from),
                carillon.event.id = event.id.as_str(), carillon.event.r#type = event.kind.as_str(),
                carillon.tenant = event.tenant.as_str(),
                carillon.delivery.id = delivery.id.as_str(),
                carillon.subscription.id = delivery.subscription.as_str(),
                carillon.attempt = i64::from(delivery.next_attempt()),
                carillon.redrives = (delivery.redrives > 0).then_some(i64::from(delivery.redrives)),
            )
        })
    }
}

impl Begin for Putting<'_> {
    fn begin(self, tracer: &Tracer) -> Traced {
        let Self {
            delivery,
            queue,
            reason,
        } = self;
        let queue = match queue {
            Queue::Deliveries => &tracer.deliveries,
            Queue::DeadLetters => &tracer.dead_letters,
        };
        tracer.start(&Parent::Local(delivery.trace()), None, || {
            info_span!(
                target: TARGET, parent: None, "send",
                otel.name = format_args!("send {queue}"), otel.kind = "producer",
                messaging.system = tracer.system,
                messaging.destination.name = queue.as_str(),
                messaging.operation.name = "send", messaging.operation.r#type = "send",
                messaging.message.id = delivery.id.as_str(),
                carillon.delivery.id = delivery.id.as_str(),
                carillon.subscription.id = delivery.subscription.as_str(),
                carillon.attempts = i64::from(delivery.attempts), carillon.reason = reason,
            )
        })
    }
}

/// The address without what may be secret: path and query are `REDACTED` where there are any.
fn without_path(url: &Url) -> String {
    let mut shown = url.clone();
    // Every URL of an endpoint can have them; these only clear.
    let _ = (shown.set_username(""), shown.set_password(None));
    let has_more = url.path() != "/" || url.query().is_some();
    shown.set_path(if has_more { "REDACTED" } else { "" });
    shown.set_query(None);
    shown.set_fragment(None);
    shown.into()
}

/// A number that stays one: the layer writes unsigned ones as text.
fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn span_context(context: TraceContext, is_remote: bool) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(context.trace_id),
        SpanId::from_bytes(context.span_id),
        TraceFlags::new(context.flags),
        is_remote,
        TraceState::NONE,
    )
}

fn trace_context(context: &SpanContext) -> Option<TraceContext> {
    context.is_valid().then(|| TraceContext {
        trace_id: context.trace_id().to_bytes(),
        span_id: context.span_id().to_bytes(),
        flags: context.trace_flags().to_u8(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_address_the_path_and_what_follows_is_not_shown() {
        for (url, shown) in [
            ("https://hooks.example.com", "https://hooks.example.com/"),
            ("https://h/#fragment", "https://h/"),
            ("https://h:8443/t0ken", "https://h:8443/REDACTED"),
            ("https://h/a/b?token=c#d", "https://h/REDACTED"),
            ("https://h/?token=c", "https://h/REDACTED"),
            ("http://user:pass@[::1]:80/x", "http://[::1]/REDACTED"),
        ] {
            assert_eq!(without_path(&url.parse().unwrap()), shown);
        }
    }

    #[test]
    fn a_context_is_the_same_on_both_sides() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::parse(text).unwrap();
        let other = span_context(context, true);
        assert!(other.is_remote() && other.is_sampled());
        assert_eq!(other.trace_id().to_string(), text[3..35]);
        assert_eq!(other.span_id().to_string(), text[36..52]);
        assert_eq!(trace_context(&other), Some(context));
        assert_eq!(trace_context(&SpanContext::NONE), None);
    }

    #[test]
    fn without_traces_nothing_is_made() {
        let none = Traced::default();
        none.failed("timeout");
        none.closed(true);
        assert_eq!(none.context(), None);
    }
}
