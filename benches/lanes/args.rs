//! What can be typed.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;

/// Measures how well `carillon serve` keeps endpoints and tenants apart
#[derive(Debug, clap::Parser)]
pub struct Args {
    /// What the dispatcher keeps everything in
    #[arg(long, value_enum, default_value_t = Backend::Embedded)]
    pub backend: Backend,
    /// What is measured; may be repeated. Without it, all that the backend can show
    #[arg(long, value_enum, value_name = "NAME")]
    scenario: Vec<Scenario>,
    /// isolation: how long events are published (30); fairness: how long the flood is watched at
    /// most (120)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(3..=3600))]
    seconds: Option<u32>,
    /// rate (2000), herd (5000), fairness (100000): events published at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    events: Option<u32>,

    /// isolation: events per second to each endpoint; fewer where a hundred times as many are more
    /// than the machine can take, because then all runs measure that
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub per_second: u32,

    /// Said by `cargo bench`, and not by `cargo test`
    #[arg(long, hide = true)]
    pub bench: bool,
}

/// What is behind the dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// One SQLite file, one process
    Embedded,
    /// RabbitMQ and Redis, started for each run
    Production,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// A hundred endpoints with events of their own; half of them misbehave
    Isolation,
    /// A hundred endpoints that all get every event; half of them never answer
    IsolationFanout,
    /// One endpoint of 20/s, burst 5; three replicas in production
    Rate,
    /// The same, and Redis stops half way for 30 s; production only
    RateRedisStops,
    /// One endpoint that fails for 10 s while everything comes at once
    Herd,
    /// One tenant publishes all it can, another 10 events a second
    Fairness,
}

impl Args {
    /// What is measured, one after the other.
    pub fn scenarios(&self) -> Vec<Scenario> {
        if !self.scenario.is_empty() {
            return self.scenario.clone();
        }
        let has_redis = self.backend == Backend::Production;
        let all = Scenario::value_variants().iter().copied();
        all.filter(|scenario| has_redis || *scenario != Scenario::RateRedisStops)
            .collect()
    }

    /// How long, where it is not said.
    pub fn seconds(&self, unless_said: u32) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(unless_said).into())
    }

    /// How many events, where it is not said.
    pub fn events(&self, unless_said: u32) -> u32 {
        self.events.unwrap_or(unless_said)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}
