//! What can be typed, and which part a process plays.

use crate::client::Job;
use crate::load::Load;

/// Events per round, and rounds.
const DEFAULT: (u32, u32) = (50_000, 5);
const QUICK: (u32, u32) = (5_000, 1);

/// Measures the throughput of `carillon serve` beside a bare client loop
#[derive(Debug, clap::Parser)]
pub struct Args {
    /// Events per round at fan-out 1; at fan-out 10 a tenth, which makes as many deliveries
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(10..))]
    events: Option<u32>,
    /// Rounds that count, after one to warm up
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// See that it works, in some seconds
    #[arg(long)]
    quick: bool,

    /// Said by `cargo bench`, and not by `cargo test`
    #[arg(long, hide = true)]
    bench: bool,
    /// Be the sink: say when this many requests came
    #[arg(long, hide = true, value_name = "DELIVERIES")]
    sink: Option<u64>,
    /// Be the bare client: post to endpoints below this URL
    #[arg(long, hide = true, value_name = "URL", requires = "endpoints")]
    client: Option<String>,
    #[arg(long, hide = true)]
    endpoints: Option<u32>,
    #[arg(long, hide = true)]
    deliveries: Option<u64>,
}

/// The part of this process.
pub enum Role {
    /// Count requests.
    Sink(u64),
    /// Post requests.
    Client(Job),
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
        if let (Some(url), Some(endpoints), Some(deliveries)) =
            (&self.client, self.endpoints, self.deliveries)
        {
            return Role::Client(Job {
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
        if self.quick { QUICK } else { DEFAULT }
    }
}
