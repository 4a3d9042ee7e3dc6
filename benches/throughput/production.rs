//! One round on RabbitMQ and Redis: the dispatcher, the bare consumer and the bare client,
//! one after the other.
//!
//! RabbitMQ is one for all rounds, Redis a new one for each. The queue is filled beforehand,
//! and the broker rests when a measurement begins: publishing is in nobody's time. The
//! dispatcher is measured from the moment at which it says that it is serving, which is when
//! it begins to consume; the bare consumer from the moment at which it is told to.

use std::fmt;

use anyhow::Context as _;
use tokio::time::Instant;

use crate::broker;
use crate::consumer;
use crate::dispatcher::{Dispatcher, Store};
use crate::load::Load;
use crate::round::{self, Dispatched, Pair};
use crate::servers::Server;
use crate::sink::Sink;

/// What all three did in the same round.
#[derive(Clone, Copy, Debug)]
pub struct Trio {
    /// The dispatcher and the bare client.
    pub pair: Pair,
    /// What the servers did for the dispatcher.
    pub served: Served,
    /// The bare consumer.
    pub consumed: Consumed,
}

/// What the servers did for the dispatcher, per 1,000 deliveries.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// RabbitMQ's CPU seconds.
    pub broker_cpu_s: f64,
    /// Redis's CPU seconds.
    pub redis_cpu_s: f64,
    /// Redis's commands.
    pub redis_commands: f64,
    /// How often Redis read from a connection.
    pub redis_reads: f64,
}

/// What the bare consumer did.
#[derive(Clone, Copy, Debug)]
pub struct Consumed {
    /// Events per second, until the last was acknowledged.
    pub per_second: f64,
    /// Its CPU seconds per 1,000 events.
    pub cpu_s: f64,
    /// RabbitMQ's CPU seconds per 1,000 events.
    pub broker_cpu_s: f64,
}

/// Measures all three; `round` says who begins. In the first it is the dispatcher, which
/// also declares the queue.
pub async fn measure(load: &Load, broker: &Server, round: u32) -> anyhow::Result<Trio> {
    let (mut dispatched, mut consumed, mut bare) = (None, None, None);
    for turn in round..round + 3 {
        match turn % 3 {
            0 => dispatched = Some(dispatcher(load, broker).await?),
            1 => consumed = Some(bare_consumer(load, broker).await?),
            _ => bare = Some(round::bare_client(load).await?),
        }
    }
    let (carillon, served) = dispatched.context("the dispatcher had no turn")?;
    let bare = bare.context("the bare client had no turn")?;
    Ok(Trio {
        pair: Pair { carillon, bare },
        served,
        consumed: consumed.context("the bare consumer had no turn")?,
    })
}

async fn dispatcher(load: &Load, broker: &Server) -> anyhow::Result<(Dispatched, Served)> {
    let mut redis = Server::redis().await?;
    let mut sink = Sink::start(load.deliveries()).await?;
    let redis_url = redis.url.clone();
    let store = Store::Servers {
        broker_url: &broker.url,
        redis_url: &redis_url,
    };
    // One that declares and takes the subscriptions, and ends: the queue fills without it.
    let before = Dispatcher::start(&store, &[]).await?;
    before.subscribe(load, &sink.url).await?;
    before.process.stop().await?;
    broker::publish(&broker.url, load.events.into()).await?;
    broker.rests().await?;

    let counted = redis.redis_counts()?;
    let mut dispatcher = Dispatcher::start(&store, &[]).await?;
    let (broker_cpu_s, redis_cpu_s) = (broker.cpu_s()?, redis.cpu_s()?);
    let dispatched = round::dispatched(load, Vec::new(), &mut dispatcher, &mut sink).await?;
    let (broker_cpu_s, redis_cpu_s) =
        (broker.cpu_s()? - broker_cpu_s, redis.cpu_s()? - redis_cpu_s);
    let counts = redis.redis_counts()?;
    dispatcher.process.stop().await?;
    broker::check_empty(&broker.url).await?;
    let per_thousand = |value: f64| value * 1000.0 / load.deliveries() as f64;
    let served = Served {
        broker_cpu_s: per_thousand(broker_cpu_s),
        redis_cpu_s: per_thousand(redis_cpu_s),
        redis_commands: per_thousand(counts.commands - counted.commands),
        redis_reads: per_thousand(counts.reads - counted.reads),
    };
    Ok((dispatched, served))
}

/// As many events as there are deliveries, so that all take about as long.
async fn bare_consumer(load: &Load, broker: &Server) -> anyhow::Result<Consumed> {
    let events = load.deliveries();
    broker::publish(&broker.url, events).await?;
    let mut consumer = consumer::start(&broker.url, events).await?;
    broker.rests().await?;
    let (cpu_s, broker_cpu_s) = (consumer.cpu_s()?, broker.cpu_s()?);
    let begun = Instant::now();
    consumer.begin()?;
    consumer.done().await?;
    let took_s = begun.elapsed().as_secs_f64();
    let (cpu_s, broker_cpu_s) = (consumer.cpu_s()? - cpu_s, broker.cpu_s()? - broker_cpu_s);
    drop(consumer);
    broker::check_empty(&broker.url).await?;
    let per_thousand = |cpu_s: f64| cpu_s * 1000.0 / events as f64;
    Ok(Consumed {
        per_second: events as f64 / took_s,
        cpu_s: per_thousand(cpu_s),
        broker_cpu_s: per_thousand(broker_cpu_s),
    })
}

impl fmt::Display for Trio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pair, consumed, .. } = self;
        write!(f, "{pair}, {:.0} events/s consumed", consumed.per_second)
    }
}
