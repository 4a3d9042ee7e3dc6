//! The way of spans to the collector: a queue with a limit, batches, and a count of what was
//! lost.
//!
//! The SDK's batches do the work; around them, [`Gate`] turns away what is over the limit, and
//! [`Sender`] bounds each batch in time, so that every lost span is seen and counted.

use std::env;
use std::fmt::{self, Display};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor,
};
use prometheus::IntCounter;
use tokio::runtime::Handle;
use tracing::warn;

use super::super::Metrics;
use super::super::seldom::Seldom;

/// Spans that wait at most, unless `OTEL_BSP_MAX_QUEUE_SIZE` says otherwise: those of all the
/// events that a process has in flight (`intake.prefetch`), should they end at once.
const WAITING_MAX: usize = 4096;
/// How long sending a batch may take, unless `OTEL_EXPORTER_OTLP_TIMEOUT` says otherwise.
const BATCH_WITHIN: Duration = Duration::from_secs(10);

/// What the gate and the sender share.
#[derive(Clone)]
pub(super) struct Export(Arc<Shared>);

struct Shared {
    /// Spans that ended and are not sent or lost yet.
    waiting: AtomicUsize,
    waiting_max: usize,
    /// `carillon_trace_spans_dropped_total`
    dropped: IntCounter,
    told: Seldom,
    /// Whether the end was asked for: a provider that is only dropped must not wait for the
    /// collector.
    ends: AtomicBool,
    /// Whether it is over: what was on its way is counted as lost by then.
    is_over: AtomicBool,
    runtime: Handle,
}

impl Export {
    /// Sends from `runtime`.
    pub(super) fn new(runtime: Handle, metrics: &Metrics) -> Self {
        let waiting_max = number("OTEL_BSP_MAX_QUEUE_SIZE").filter(|max| *max > 0);
        Self(Arc::new(Shared {
            waiting: AtomicUsize::new(0),
            waiting_max: waiting_max.unwrap_or(WAITING_MAX),
            dropped: metrics.trace_spans_dropped.clone(),
            told: Seldom::new(),
            ends: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            runtime,
        }))
    }

    /// Batches for `exporter`.
    pub(super) fn processor<E: SpanExporter + 'static>(&self, exporter: E) -> Gate {
        let within = number("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT");
        let within = within.or_else(|| number("OTEL_EXPORTER_OTLP_TIMEOUT"));
        let sender = Sender {
            exporter: Arc::new(exporter),
            export: self.clone(),
            within: within.map_or(BATCH_WITHIN, Duration::from_millis),
        };
        let config = BatchConfigBuilder::default().with_max_queue_size(self.0.waiting_max);
        Gate {
            batches: BatchSpanProcessor::builder(sender)
                .with_batch_config(config.build())
                .build(),
            export: self.clone(),
        }
    }

    /// The end was asked for.
    pub(super) fn ends(&self) {
        self.0.ends.store(true, Ordering::Release);
    }

    /// The end is over: what still waits is lost.
    pub(super) fn ended(&self) {
        self.0.is_over.store(true, Ordering::Release);
        let left = self.0.waiting.swap(0, Ordering::AcqRel);
        self.lost(left, &"the collector did not take them before the end");
    }

    fn lost(&self, count: usize, why: &dyn Display) {
        if count == 0 {
            return;
        }
        self.0.dropped.inc_by(count as u64);
        if self.0.told.is_time("", Instant::now()) {
            warn!(
                %why,
                "spans are not sent; deliveries go on, and carillon_trace_spans_dropped_total counts"
            );
        }
    }

    fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::Acquire)
    }
}

/// A number of the environment.
fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    env::var(name).ok()?.trim().parse().ok()
}

/// Lets in as many spans as may wait.
#[derive(Debug)]
pub(super) struct Gate {
    batches: BatchSpanProcessor,
    export: Export,
}

impl SpanProcessor for Gate {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        let shared = &self.export.0;
        if self.export.is_over() {
            return self.export.lost(1, &"it is the end");
        }
        if shared.waiting.fetch_add(1, Ordering::AcqRel) >= shared.waiting_max {
            shared.waiting.fetch_sub(1, Ordering::AcqRel);
            return self.export.lost(1, &"too many wait for the collector");
        }
        self.batches.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        if !self.export.0.ends.load(Ordering::Acquire) {
            return Ok(());
        }
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// Sends batches, each within a time, and counts those that are lost.
#[derive(Debug)]
struct Sender<E> {
    exporter: Arc<E>,
    export: Export,
    within: Duration,
}

impl<E: SpanExporter + 'static> SpanExporter for Sender<E> {
    fn export(&self, batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        let count = batch.len();
        let (exporter, within) = (Arc::clone(&self.exporter), self.within);
        let sent = self.export.0.runtime.spawn(async move {
            let sent = tokio::time::timeout(within, exporter.export(batch)).await;
            sent.unwrap_or(Err(OTelSdkError::Timeout(within)))
        });
        async move {
            let sent = sent.await.unwrap_or_else(|error| {
                // The runtime ended with the process.
                Err(OTelSdkError::InternalFailure(error.to_string()))
            });
            if self.export.is_over() {
                return sent;
            }
            self.export.0.waiting.fetch_sub(count, Ordering::AcqRel);
            if let Err(error) = &sent {
                self.export.lost(count, error);
            }
            sent
        }
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Nothing is being sent yet when the provider is made, so nobody shares it.
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            exporter.set_resource(resource);
        }
    }
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Export")
    }
}
