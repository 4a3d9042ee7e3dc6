//! What it costs to be watched: deliveries a second and CPU beside those of the same round with
//! metrics alone, which are always on.
//!
//! Prometheus scrapes at most every few seconds; here once each second. Spans go to a collector in
//! a process of its own, which counts them and keeps none: all of them, one in a hundred, or all to
//! a collector that accepts connections and never answers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tonic::transport::Server as Grpc;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::dispatcher::{Dispatcher, Store};
use crate::load::Load;
use crate::process::{Process, say};
use crate::round::{self, Dispatched};
use crate::servers::Server;
use crate::sink::Sink;

/// How often the metrics are scraped, where they are.
const SCRAPED_EVERY: Duration = Duration::from_secs(1);
/// How long spans may take to come after the deliveries: longer than a batch waits.
const SPANS_WITHIN: Duration = Duration::from_secs(20);

/// How it is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Metrics are kept, as always, and nobody asks for them.
    Metrics,
    /// They are scraped.
    Scraped,
    /// Spans of all events go to a collector.
    Traces,
    /// Spans of one event in a hundred do.
    Sampled,
    /// The collector never answers.
    Hangs,
}

impl Case {
    /// All, in the order of the table.
    pub const ALL: [Self; 5] = [
        Self::Metrics,
        Self::Scraped,
        Self::Traces,
        Self::Sampled,
        Self::Hangs,
    ];
}

/// What was measured in one round, in the order of the cases.
pub struct Round(pub Vec<Watched>);

/// What was measured in one case.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    /// What the dispatcher did.
    pub dispatched: Dispatched,
    /// Spans that the collector got for each delivery.
    pub spans: f64,
}

/// Measures all cases; `round` says which begins.
pub async fn measure(load: &Load, broker: Option<&Server>, round: u32) -> anyhow::Result<Round> {
    let mut measured = [None; Case::ALL.len()];
    for turn in 0..measured.len() {
        let place = (turn + round as usize) % measured.len();
        let case = Case::ALL[place];
        let one = in_case(load, broker, case).await;
        measured[place] = Some(one.with_context(|| case.to_string())?);
    }
    Ok(Round(measured.into_iter().flatten().collect()))
}

async fn in_case(load: &Load, broker: Option<&Server>, case: Case) -> anyhow::Result<Watched> {
    // Where the collector hangs, the system takes connections that nobody accepts.
    let hanging = TcpListener::bind("127.0.0.1:0").await?;
    let mut collector = Collector::start().await?;
    let url = match case {
        Case::Hangs => format!("http://{}", hanging.local_addr()?),
        _ => collector.url.clone(),
    };
    let mut settings = Vec::new();
    if matches!(case, Case::Traces | Case::Sampled | Case::Hangs) {
        settings.push(("CARILLON_TELEMETRY__OTLP_ENDPOINT", url.as_str()));
    }
    if case == Case::Sampled {
        settings.push(("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"));
        settings.push(("OTEL_TRACES_SAMPLER_ARG", "0.01"));
    }
    let redis = match broker {
        None => None,
        Some(_) => Some(Server::redis().await?),
    };
    let store = match (broker, &redis) {
        (Some(broker), Some(redis)) => Store::Servers {
            broker_url: &broker.url,
            redis_url: &redis.url,
        },
        _ => Store::Embedded,
    };
    let mut sink = Sink::start(load.deliveries()).await?;
    let mut dispatcher = Dispatcher::start(&store, &settings).await?;
    dispatcher.subscribe(load, &sink.url).await?;
    let scraping = (case == Case::Scraped).then(|| dispatcher.scrape_every(SCRAPED_EVERY));
    let dispatched = round::dispatched(load, load.calls(), &mut dispatcher, &mut sink).await?;
    drop(scraping);
    dispatcher.process.stop().await?;
    let spans = collector.counted(case == Case::Traces).await?;
    Ok(Watched {
        dispatched,
        spans: spans as f64 / load.deliveries() as f64,
    })
}

/// A collector in a process of its own.
struct Collector {
    process: Process,
    url: String,
}

impl Collector {
    async fn start() -> anyhow::Result<Self> {
        let mut process = Process::start_self("the collector", &["--collector".to_owned()])?;
        let url = process.line().await?;
        Ok(Self { process, url })
    }

    /// The spans that came, after those under way.
    async fn counted(&mut self, wants_some: bool) -> anyhow::Result<u64> {
        self.process.tell("count")?;
        let spans = tokio::time::timeout(SPANS_WITHIN, self.process.line()).await??;
        let spans = spans.parse()?;
        ensure!(!wants_some || spans > 0, "no span came");
        Ok(spans)
    }
}

#[derive(Clone, Default)]
struct Count(Arc<AtomicU64>);

#[tonic::async_trait]
impl TraceService for Count {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let scopes = resources.flat_map(|of| of.scope_spans);
        let spans: usize = scopes.map(|scope| scope.spans.len()).sum();
        self.0.fetch_add(spans as u64, Ordering::Relaxed);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Is the collector: says its URL, answers each line with how many spans came, and ends when its
/// input does.
pub async fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let count = Count::default();
    let serving = Grpc::builder()
        .add_service(TraceServiceServer::new(count.clone()))
        .serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(serving);
    say(&url);
    let mut asked = BufReader::new(tokio::io::stdin()).lines();
    while asked.next_line().await?.is_some() {
        say(&count.0.load(Ordering::Relaxed).to_string());
    }
    Ok(())
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Metrics => "metrics, not scraped",
            Self::Scraped => "metrics, scraped every second",
            Self::Traces => "and traces of all",
            Self::Sampled => "and traces of 1 in 100",
            Self::Hangs => "and a collector that hangs",
        })
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let speeds = self.0.iter().map(|one| one.dispatched.sample.per_second);
        let speeds: Vec<String> = speeds.map(|speed| format!("{speed:.0}/s")).collect();
        f.write_str(&speeds.join(", "))
    }
}
