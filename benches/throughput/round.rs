//! One round: the dispatcher and the bare client, one after the other, each with a sink
//! of its own.

use std::fmt;

use anyhow::ensure;
use tokio::time::Instant;

use crate::client;
use crate::dispatcher::{Dispatcher, Store};
use crate::load::Load;
use crate::process::Process;
use crate::sink::Sink;
use crate::work::Counts;

/// Lines of the dispatcher's log that are shown after it was measured.
const LINES_SHOWN: usize = 5;

/// What both did in the same round.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// `carillon serve`.
    pub carillon: Dispatched,
    /// The bare client.
    pub bare: Sample,
}

/// What `carillon serve` did.
#[derive(Clone, Copy, Debug)]
pub struct Dispatched {
    /// As the bare client is measured.
    pub sample: Sample,
    /// Its peak memory, in MiB.
    pub peak_rss_mib: f64,
    /// What it has counted.
    pub counts: Counts,
}

/// What one of them did.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Deliveries per second, from the first event until the sink had all.
    pub per_second: f64,
    /// Its CPU seconds per 1,000 deliveries, until all was settled.
    pub cpu_s: f64,
    /// The sink's CPU seconds per 1,000 deliveries.
    pub sink_cpu_s: f64,
    /// Connections that it opened to the sink.
    pub connections: u64,
}

impl Pair {
    /// Checks that both kept their connections.
    pub fn check(&self, load: &Load) -> anyhow::Result<()> {
        let most = load.connections_max();
        for (name, sample) in [
            ("carillon", &self.carillon.sample),
            ("bare client", &self.bare),
        ] {
            let opened = sample.connections;
            ensure!(
                opened <= most,
                "{load}: {name} opened {opened} connections, more than {most}: it does not keep them"
            );
        }
        Ok(())
    }
}

/// How things were when a measurement began.
struct Begun {
    at: Instant,
    /// Deliveries that the sink had already, which do not count.
    came: u64,
    /// CPU seconds of who sends, and of the sink.
    sender_cpu_s: f64,
    sink_cpu_s: f64,
}

/// Measures both; `bare_first` says in which order.
pub async fn measure(load: &Load, bare_first: bool) -> anyhow::Result<Pair> {
    let bare_before = match bare_first {
        true => Some(bare_client(load).await?),
        false => None,
    };
    let carillon = embedded(load).await?;
    let bare = match bare_before {
        Some(bare) => bare,
        None => bare_client(load).await?,
    };
    Ok(Pair { carillon, bare })
}

async fn embedded(load: &Load) -> anyhow::Result<Dispatched> {
    let calls = load.calls();
    let mut sink = Sink::start(load.deliveries()).await?;
    let mut dispatcher = Dispatcher::start(&Store::Embedded, &[]).await?;
    dispatcher.subscribe(load, &sink.url).await?;
    dispatched(load, calls, &mut dispatcher, &mut sink).await
}

/// Measures the dispatcher from now until it has settled what `load` says; `calls` are what
/// is still to be published.
pub async fn dispatched(
    load: &Load,
    calls: Vec<Vec<u8>>,
    dispatcher: &mut Dispatcher,
    sink: &mut Sink,
) -> anyhow::Result<Dispatched> {
    let begun = Begun::now(&dispatcher.process, sink).await?;
    let measured = async {
        tokio::try_join!(dispatcher.publish(calls), sink.all_came())?;
        let took_s = begun.at.elapsed().as_secs_f64();
        let counts = dispatcher.settled(load.deliveries()).await?;
        let ids = load.deliveries();
        let sample = begun.end(load, took_s, &dispatcher.process, sink, ids);
        Ok(Dispatched {
            sample: sample.await?,
            peak_rss_mib: dispatcher.process.peak_rss_mib()?,
            counts,
        })
    };
    let measured = measured.await;
    let said = dispatcher.process.unheard();
    for line in said.iter().take(LINES_SHOWN) {
        eprintln!("carillon: {line}");
    }
    if said.len() > LINES_SHOWN {
        eprintln!("carillon: {} more lines", said.len() - LINES_SHOWN);
    }
    measured
}

/// Measures the bare client.
pub async fn bare_client(load: &Load) -> anyhow::Result<Sample> {
    let mut sink = Sink::start(load.deliveries()).await?;
    let mut client = client::start(load, &sink.url).await?;
    let begun = Begun::now(&client, &mut sink).await?;
    client.begin()?;
    tokio::try_join!(client.done(), sink.all_came())?;
    let took_s = begun.at.elapsed().as_secs_f64();
    // It says the same id each time.
    begun.end(load, took_s, &client, &mut sink, 1).await
}

impl Begun {
    async fn now(sender: &Process, sink: &mut Sink) -> anyhow::Result<Self> {
        Ok(Self {
            came: sink.count().await?.requests,
            sender_cpu_s: sender.cpu_s()?,
            sink_cpu_s: sink.process.cpu_s()?,
            at: Instant::now(),
        })
    }

    async fn end(
        self,
        load: &Load,
        took_s: f64,
        sender: &Process,
        sink: &mut Sink,
        ids: u64,
    ) -> anyhow::Result<Sample> {
        let deliveries = (load.deliveries() - self.came) as f64;
        let per_thousand = |cpu_s: f64| cpu_s * 1000.0 / deliveries;
        let sender_cpu_s = sender.cpu_s()? - self.sender_cpu_s;
        let sink_cpu_s = sink.process.cpu_s()? - self.sink_cpu_s;
        Ok(Sample {
            per_second: deliveries / took_s,
            cpu_s: per_thousand(sender_cpu_s),
            sink_cpu_s: per_thousand(sink_cpu_s),
            connections: sink.check(load, ids).await?.connections,
        })
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { carillon, bare, .. } = self;
        write!(
            f,
            "{:.0}/s beside {:.0}/s",
            carillon.sample.per_second, bare.per_second
        )
    }
}
