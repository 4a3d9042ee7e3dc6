//! Lanes: how well `carillon serve` keeps endpoints and tenants apart.
//!
//! `cargo bench --bench lanes [-- --backend production --scenario NAME --seconds N --events N]`
//!
//! Each run starts dispatchers of its own, and with `--backend production` a RabbitMQ and a Redis of
//! its own, all private and on loopback. Publisher and receiver are this process, so that one clock
//! times both: an event carries the time at which its publishing was begun, and its latency is
//! the time from there until its request has been read. What never arrived counts with its age
//! when the run ended, so that it does not make a run look better than it was.
//!
//! It reports, and judges nothing: it fails only when something could not be measured.
//! What it does not do: measure TLS, throughput at its best, a cluster, or a network.

#[path = "lanes/args.rs"]
mod args;
#[path = "lanes/arrivals.rs"]
mod arrivals;
#[path = "lanes/audit.rs"]
mod audit;
#[path = "lanes/clock.rs"]
mod clock;
#[allow(dead_code, reason = "the bench of the throughput uses more of it")]
#[path = "common/dispatcher.rs"]
mod dispatcher;
#[path = "lanes/endpoints.rs"]
mod endpoints;
#[allow(dead_code, reason = "the bench of the throughput uses more of it")]
#[path = "common/exchange.rs"]
mod exchange;
#[path = "lanes/fairness.rs"]
mod fairness;
#[path = "lanes/herd.rs"]
mod herd;
#[path = "lanes/isolation.rs"]
mod isolation;
#[path = "lanes/latency.rs"]
mod latency;
#[path = "lanes/pace.rs"]
mod pace;
#[allow(dead_code, reason = "the bench of the throughput uses more of it")]
#[path = "common/process.rs"]
mod process;
#[path = "lanes/publisher.rs"]
mod publisher;
#[path = "lanes/rate.rs"]
mod rate;
#[path = "lanes/report.rs"]
mod report;
#[allow(dead_code, reason = "the bench of the throughput uses more of it")]
#[path = "common/servers.rs"]
mod servers;
#[path = "lanes/stage.rs"]
mod stage;
#[path = "lanes/window.rs"]
mod window;

use std::process::{Command, ExitCode};

use clap::Parser as _;

use args::{Args, Backend, Scenario};
use isolation::Shape;
use process::interrupted;
use report::Report;
use stage::Servers;

/// As in the `carillon` command, so that all processes allocate alike.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    if !args.bench {
        println!("not measured: `cargo bench --bench lanes` does that");
        return ExitCode::SUCCESS;
    }
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
        tokio::select! {
            result = measure(args) => result,
            result = interrupted() => result,
        }
    });
    // Endpoints that never answer are not waited for.
    runtime.shutdown_background();
    result
}

/// Measures one scenario after the other. One that could not be measured does not keep the
/// next from it; in the end it makes this an error.
async fn measure(args: &Args) -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        eprintln!("warning: this is a debug build; its numbers mean little");
    }
    endpoints::check_files()?;
    let on = match args.backend {
        Backend::Embedded => "embedded: one SQLite file".to_owned(),
        Backend::Production => Servers::start().await?.versions()?,
    };
    println!("{on}");
    // What the build has left to be written would be in the way of the first run's own writes.
    Command::new("sync").status()?;
    let mut summary = report::Summary::new(&on);
    let mut fault = None;
    for scenario in args.scenarios() {
        println!("\n{scenario}");
        match measure_one(args, scenario).await {
            Ok(report) => {
                println!("\n{}", report.text);
                summary.add(scenario, report.notes);
            }
            Err(error) => {
                eprintln!("error: {scenario}: {error:#}");
                summary.add(scenario, vec![format!("not measured: {error:#}")]);
                fault.get_or_insert(error.context(scenario));
            }
        }
    }
    println!("\n{summary}");
    fault.map_or(Ok(()), Err)
}

async fn measure_one(args: &Args, scenario: Scenario) -> anyhow::Result<Report> {
    match scenario {
        Scenario::Isolation => isolation::measure(args, Shape::OneEach).await,
        Scenario::IsolationFanout => isolation::measure(args, Shape::FanOut).await,
        Scenario::Rate => rate::measure(args, rate::Redis::Stays).await,
        Scenario::RateRedisStops => rate::measure(args, rate::Redis::Stops).await,
        Scenario::Herd => herd::measure(args).await,
        Scenario::Fairness => fairness::measure(args).await,
    }
}
