//! Throughput: `carillon serve` beside a bare client loop, against the same kind of sink.
//!
//! `cargo bench --bench throughput [-- --events N --rounds R | --quick]`
//!
//! Events of 512 bytes go to 1 and to 10 endpoints. Dispatcher, client and sink are
//! processes of their own; what is measured in one round is put side by side with what
//! is measured in the same round, so that a busy machine disturbs both alike. The bare
//! client posts bodies of the same size with headers of the same size at the same
//! concurrency, and neither signs nor stores: the ratio is what Carillon's promises cost.
//! The publisher is this process; its own time is in nobody's CPU seconds.
//! What it does not do: measure TLS, latency, retries, or RabbitMQ and Redis.

#[path = "throughput/args.rs"]
mod args;
#[path = "throughput/client.rs"]
mod client;
#[path = "throughput/dispatcher.rs"]
mod dispatcher;
#[path = "throughput/load.rs"]
mod load;
#[path = "throughput/process.rs"]
mod process;
#[path = "throughput/report.rs"]
mod report;
#[path = "throughput/round.rs"]
mod round;
#[path = "throughput/sink.rs"]
mod sink;

use std::process::ExitCode;

use anyhow::bail;
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use args::{Args, Role};

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
            Role::Client(job) => client::run(job).await,
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

/// One round to warm up, then those that count. What is wrong with them is said when
/// all is measured: the numbers tell more about it.
async fn measure(args: &Args) -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        eprintln!("warning: this is a debug build; its numbers mean little");
    }
    let mut faults = Vec::new();
    for load in args.loads() {
        let mut pairs = Vec::new();
        for round in 0..=args.rounds() {
            let pair = round::measure(&load, round % 2 == 1).await?;
            let name = match round {
                0 => "warm-up".to_owned(),
                counted => format!("round {counted} of {}", args.rounds()),
            };
            println!("{load}, {name}: {pair}");
            if round > 0 {
                pairs.push(pair);
            }
        }
        println!("\n{}\n", report::table(&load, &pairs));
        faults.extend(pairs.iter().find_map(|pair| pair.check(&load).err()));
    }
    faults.into_iter().next().map_or(Ok(()), Err)
}

/// Ends in an error when this process is told to stop, so that what it started is ended.
async fn interrupted() -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    bail!("interrupted")
}
