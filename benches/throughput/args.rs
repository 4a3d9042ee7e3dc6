//! What can be typed, and which part a process plays.

use crate::load::Load;
use crate::{client, consumer};

/// Events per round, and rounds.
const EMBEDDED: (u32, u32) = (50_000, 5);
const PRODUCTION: (u32, u32) = (30_000, 5);
const AUDIT: (u32, u32) = (20_000, 5);
/// Fewer: a Redis that is slow lets some 300 a second through, for the ledger's sake.
const AUDIT_PRODUCTION: (u32, u32) = (10_000, 5);
const TELEMETRY: (u32, u32) = (60_000, 5);
const QUICK: (u32, u32) = (5_000, 1);

/// Measures the throughput of `carillon serve` beside bare loops
#[derive(Debug, clap::Parser)]
pub struct Args {
    /// What the dispatcher keeps everything in
    #[arg(long, value_enum, default_value_t = Backend::Embedded)]
    pub backend: Backend,
    /// Events per round at fan-out 1; at fan-out 10 a tenth, which makes as many deliveries
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1000..))]
    events: Option<u32>,
    /// Rounds that count, after one to warm up
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// The dispatcher beside itself, while the audit log's store is in trouble
    #[arg(long)]
    pub audit: bool,
    /// The dispatcher beside itself, while it is scraped and traced
    #[arg(long, conflicts_with = "audit")]
    pub telemetry: bool,
    /// See that it works, in some seconds
    #[arg(long)]
    quick: bool,

    /// Said by `cargo bench`, and not by `cargo test`
    #[arg(long, hide = true)]
    bench: bool,
    /// Be the sink: say when this many requests came
    #[arg(long, hide = true, value_name = "DELIVERIES")]
    sink: Option<u64>,
    /// Be the collector: count spans
    #[arg(long, hide = true)]
    collector: bool,
    /// Be the bare client: post to endpoints below this URL
    #[arg(long, hide = true, value_name = "URL", requires = "endpoints")]
    client: Option<String>,
    /// Be the bare consumer: take events from the broker at this URL
    #[arg(long, hide = true, value_name = "URL", requires = "deliveries")]
    consumer: Option<String>,
    #[arg(long, hide = true)]
    endpoints: Option<u32>,
    #[arg(long, hide = true)]
    deliveries: Option<u64>,
}

/// What is behind the dispatcher.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Backend {
    /// One SQLite file
    Embedded,
    /// RabbitMQ and Redis, started for this
    Production,
}

/// The part of this process.
pub enum Role {
    /// Count requests.
    Sink(u64),
    /// Count spans.
    Collector,
    /// Post requests.
    Client(client::Job),
    /// Consume events.
    Consumer(consumer::Job),
    /// Start the others, and measure them.
    Measure,
    /// It was run as a test.
    Nothing,
}

impl Args {
    /// The part of this process.
    pub fn role(&self) -> Role {
        if let Some(deliveries) = self.sink {
            return Role::Sink(deliveries);
        }
        if self.collector {
            return Role::Collector;
        }
        if let (Some(url), Some(events)) = (&self.consumer, self.deliveries) {
            let url = url.clone();
            return Role::Consumer(consumer::Job { url, events });
        }
        if let (Some(url), Some(endpoints), Some(deliveries)) =
            (&self.client, self.endpoints, self.deliveries)
        {
            return Role::Client(client::Job {
                url: url.clone(),
                endpoints,
                deliveries,
            });
        }
        match self.bench {
            true => Role::Measure,
            false => Role::Nothing,
        }
    }

    /// What is measured, one after the other.
    pub fn loads(&self) -> [Load; 2] {
        let events = self.events.unwrap_or(self.unless_said().0);
        [Load::new(events, 1), Load::new(events / 10, 10)]
    }

    /// The rounds that count.
    pub fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(self.unless_said().1)
    }

    fn unless_said(&self) -> (u32, u32) {
        match self.backend {
            _ if self.quick => QUICK,
            _ if self.telemetry => TELEMETRY,
            Backend::Embedded if self.audit => AUDIT,
            Backend::Production if self.audit => AUDIT_PRODUCTION,
            Backend::Embedded => EMBEDDED,
            Backend::Production => PRODUCTION,
        }
    }
}
