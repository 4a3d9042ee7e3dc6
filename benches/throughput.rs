//! Throughput: `carillon serve` beside bare loops, against the same kind of sink.
//!
//! `cargo bench --bench throughput [-- --backend production --events N --rounds R | --quick]`
//!
//! Events of 512 bytes go to 1 and to 10 endpoints. Dispatcher, client and sink are
//! processes of their own; what is measured in one round is put side by side with what
//! is measured in the same round, so that a busy machine disturbs both alike. The bare
//! client posts bodies of the same size with headers of the same size at the same
//! concurrency, and neither signs nor stores: the ratio is what Carillon's promises cost.
//! The publisher is this process; its own time is in nobody's CPU seconds.
//!
//! With `--backend production` the dispatcher runs on RabbitMQ and Redis, both private and on
//! loopback: a single node with quorum queues, and `appendfsync everysec`. Then the events wait
//! in the queue before it begins, and beside it stands a bare loop that consumes as many
//! from the same queue and acknowledges them: the ratio is what is left of the broker's speed.
//!
//! With `--audit` it measures the dispatcher alone, beside itself: with an audit log whose store
//! is well, and with one that takes nothing, is slow, or is gone.
//! With `--telemetry` it measures the dispatcher beside itself: scraped, and traced.
//! What it does not do: measure TLS, latency, retries, a cluster, or publishing.

#[path = "throughput/args.rs"]
mod args;
#[path = "throughput/audit.rs"]
mod audit;
#[path = "throughput/broker.rs"]
mod broker;
#[path = "throughput/client.rs"]
mod client;
#[path = "throughput/consumer.rs"]
mod consumer;
#[allow(dead_code, reason = "the bench of the lanes uses more of it")]
#[path = "common/dispatcher.rs"]
mod dispatcher;
#[path = "common/exchange.rs"]
mod exchange;
#[path = "common/grid.rs"]
mod grid;
#[path = "throughput/load.rs"]
mod load;
#[path = "common/process.rs"]
mod process;
#[path = "throughput/production.rs"]
mod production;
#[allow(
    dead_code,
    clippy::unwrap_used,
    reason = "the tests use more of it, and may end with a panic"
)]
#[path = "../tests/support/services/proxy.rs"]
mod proxy;
#[path = "throughput/report.rs"]
mod report;
#[path = "throughput/round.rs"]
mod round;
#[path = "common/servers.rs"]
mod servers;
#[path = "throughput/sink.rs"]
mod sink;
#[path = "throughput/telemetry.rs"]
mod telemetry;
#[path = "throughput/work.rs"]
mod work;

use std::fmt::Display;
use std::process::ExitCode;

use clap::Parser as _;

use args::{Args, Backend, Role};
use load::Load;
use process::interrupted;
use servers::Server;

/// As in the `carillon` command, so that all processes allocate alike.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    // reqwest panics without a provider; a second install can only be of the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Err(error) = run(&args) else {
        return ExitCode::SUCCESS;
    };
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

fn run(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(async {
        match args.role() {
            Role::Sink(deliveries) => sink::run(deliveries).await,
            Role::Collector => telemetry::run().await,
            Role::Client(job) => client::run(job).await,
            Role::Consumer(job) => consumer::run(job).await,
            Role::Measure => tokio::select! {
                result = measure(args) => result,
                result = interrupted() => result,
            },
            Role::Nothing => {
                println!("not measured: `cargo bench --bench throughput` does that");
                Ok(())
            }
        }
    });
    // A thread that reads standard input ends with the process.
    runtime.shutdown_background();
    result
}

/// What is wrong with the rounds is said when all is measured: the numbers tell more about it.
async fn measure(args: &Args) -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        eprintln!("warning: this is a debug build; its numbers mean little");
    }
    let broker = match args.backend {
        Backend::Embedded => None,
        Backend::Production => Some(broker().await?),
    };
    if args.audit {
        return measure_audit(args, broker.as_ref()).await;
    }
    if args.telemetry {
        return measure_telemetry(args, broker.as_ref()).await;
    }
    let mut faults = Vec::new();
    for load in args.loads() {
        let (table, checked) = match &broker {
            None => {
                let measure = async |round| round::measure(&load, round % 2 == 1).await;
                let pairs = rounds(args, &load, measure).await?;
                let checked = pairs.iter().try_for_each(|pair| pair.check(&load));
                (report::table(&load, &pairs), checked)
            }
            Some(broker) => {
                let measure = async |round| production::measure(&load, broker, round).await;
                let trios = rounds(args, &load, measure).await?;
                let checked = trios.iter().try_for_each(|trio| trio.pair.check(&load));
                (report::production(&load, &trios), checked)
            }
        };
        println!("\n{table}\n");
        faults.extend(checked.err());
    }
    faults.into_iter().next().map_or(Ok(()), Err)
}

async fn measure_audit(args: &Args, broker: Option<&Server>) -> anyhow::Result<()> {
    let cases = audit::cases(args.backend);
    for load in args.loads() {
        let measure = async |round| audit::measure(&load, broker, &cases, round).await;
        let measured = rounds(args, &load, measure).await?;
        println!("\n{}\n", report::audit(&load, &cases, &measured));
    }
    Ok(())
}

async fn measure_telemetry(args: &Args, broker: Option<&Server>) -> anyhow::Result<()> {
    for load in args.loads() {
        let measure = async |round| telemetry::measure(&load, broker, round).await;
        let measured = rounds(args, &load, measure).await?;
        println!("\n{}\n", report::telemetry(&load, &measured));
    }
    Ok(())
}

/// One round to warm up, then those that count.
async fn rounds<R: Display>(
    args: &Args,
    load: &Load,
    measure: impl AsyncFn(u32) -> anyhow::Result<R>,
) -> anyhow::Result<Vec<R>> {
    let mut counted = Vec::new();
    for round in 0..=args.rounds() {
        let measured = measure(round).await?;
        let name = match round {
            0 => "warm-up".to_owned(),
            counted => format!("round {counted} of {}", args.rounds()),
        };
        println!("{load}, {name}: {measured}");
        if round > 0 {
            counted.push(measured);
        }
    }
    Ok(counted)
}

/// Starts RabbitMQ, and says what is measured with.
async fn broker() -> anyhow::Result<Server> {
    let mut broker = Server::rabbitmq().await?;
    let redis = Server::redis().await?.version()?;
    println!(
        "RabbitMQ {}, one node, quorum queues; Redis {redis}, appendfsync everysec",
        broker.version()?
    );
    Ok(broker)
}
