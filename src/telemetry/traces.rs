//! Traces: has spans made, sampled and sent to a collector, OTLP over gRPC.
//!
//! Spans have a `tracing` subscriber of their own, which nothing else writes to and no log
//! filter touches: what the exporter itself logs can never become spans. They are sent by
//! threads of their own. *Invariant: a collector that is slow, refuses or hangs costs spans,
//! each of them counted, and nothing else.*

mod export;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Runtime;
use tracing::Dispatch;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use url::Url;

use super::Metrics;
use super::spans::{TARGET, Tracer};
use export::Export;

/// How long the end waits at most for the collector to take what is left.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Where spans go, and what they say of the queues.
pub struct TraceSettings<'a> {
    /// The collector: `telemetry.otlp_endpoint`.
    pub endpoint: &'a Url,
    /// `messaging.system`: what the queues are kept in.
    pub system: &'static str,
    /// What the names of queues begin with.
    pub prefix: &'a str,
}

/// Why no spans can be sent.
#[derive(Debug, thiserror::Error)]
pub enum TracesFault {
    /// The endpoint, or an `OTEL_` variable, says what cannot be done.
    #[error("the exporter of spans cannot be made: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// No thread for it.
    #[error("the threads that send spans cannot be started: {0}")]
    Threads(#[from] std::io::Error),
}

/// Sends spans until it is ended or dropped.
pub struct Traces {
    tracer: Arc<Tracer>,
    provider: SdkTracerProvider,
    export: Export,
    runtime: Option<Runtime>,
}

impl Traces {
    /// Begins to send spans. The collector need not be there.
    ///
    /// # Errors
    /// [`TracesFault`].
    pub fn start(settings: &TraceSettings<'_>, metrics: &Metrics) -> Result<Self, TracesFault> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(2)
            .thread_name("carillon-traces")
            .enable_all()
            .build()?;
        let exporter = {
            // The connection lives there.
            let _within = runtime.enter();
            exporter(settings.endpoint)?
        };
        let export = Export::new(runtime.handle().clone(), metrics);
        let provider = SdkTracerProvider::builder()
            .with_resource(resource())
            .with_span_processor(export.processor(exporter))
            .build();
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("carillon"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false);
        let ours = filter_fn(|metadata| metadata.target() == TARGET)
            .with_max_level_hint(LevelFilter::INFO);
        let subscriber = tracing_subscriber::registry().with(layer).with(ours);
        let tracer = Tracer::new(Dispatch::new(subscriber), settings.system, settings.prefix);
        Ok(Self {
            tracer: Arc::new(tracer),
            provider,
            export,
            runtime: Some(runtime),
        })
    }

    /// What makes spans.
    pub(super) fn tracer(&self) -> Arc<Tracer> {
        Arc::clone(&self.tracer)
    }

    /// The end: sends what is left, if the collector takes it in time.
    pub async fn end(self) {
        self.export.ends();
        let provider = self.provider.clone();
        let end = move || provider.shutdown_with_timeout(END_WITHIN);
        let ended = tokio::task::spawn_blocking(end);
        // The limit inside holds but for a thread that gets no time.
        let _ = tokio::time::timeout(END_WITHIN + END_WITHIN / 4, ended).await;
        self.export.ended();
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn exporter(endpoint: &Url) -> Result<SpanExporter, TracesFault> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint.as_str());
    let exporter = match endpoint.scheme() {
        "https" => exporter.with_tls_config(ClientTlsConfig::new().with_native_roots()),
        _ => exporter,
    };
    Ok(exporter.build()?)
}

/// Who sends spans: what the environment says, and else Carillon.
fn resource() -> Resource {
    let given = Resource::builder().build();
    let is_given = |key: &str| {
        let value = given.get(&Key::new(key.to_owned()));
        value.is_some_and(|value| !value.as_str().starts_with("unknown_service"))
    };
    let ours = [
        ("service.name", "carillon".to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", instance_id()),
    ];
    let ours = ours.into_iter().filter(|(key, _)| !is_given(key));
    Resource::builder()
        .with_attributes(ours.map(|(key, value)| KeyValue::new(key, value)))
        .build()
}

/// A random UUID: this process.
fn instance_id() -> String {
    const VERSION: u128 = 0xf << 76;
    const VARIANT: u128 = 0b11 << 62;
    let bits = fastrand::u128(..) & !VERSION & !VARIANT | 4 << 76 | 0b10 << 62;
    let digits = format!("{bits:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32];
    parts.map(|part| &digits[part]).join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_a_random_uuid() {
        let [one, two] = [instance_id(), instance_id()];
        assert_ne!(one, two);
        let parts: Vec<usize> = one.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12], "{one}");
        assert_eq!(one.as_bytes()[14], b'4', "{one}");
        assert!(b"89ab".contains(&one.as_bytes()[19]), "{one}");
    }
}
