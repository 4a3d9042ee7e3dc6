//! The bare consumer: a process that takes events and acknowledges them, and does nothing else.

use anyhow::Context as _;
use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, message::Delivery};

use crate::broker;
use crate::exchange::{EVENTS, connect};
use crate::process::{Process, when_told};

/// Events fetched ahead: the default of `intake.prefetch`.
const PREFETCH: u16 = 1000;
/// Events that are acknowledged together.
const ACK_TOGETHER: u64 = 100;

/// What the bare consumer is to do.
pub struct Job {
    /// The broker's URL.
    pub url: String,
    /// Events in all.
    pub events: u64,
}

/// Is the bare consumer.
pub async fn run(job: Job) -> anyhow::Result<()> {
    let connection = connect(&job.url).await?;
    let channel = connection.create_channel().await?;
    channel
        .basic_qos(PREFETCH, BasicQosOptions::default())
        .await?;
    when_told(consume_all(&channel, job.events)).await
}

async fn consume_all(channel: &Channel, events: u64) -> anyhow::Result<()> {
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let consumer = channel.basic_consume(EVENTS.into(), "".into(), options, none);
    let mut consumer = consumer.await?;
    for taken in 1..=events {
        let event: Delivery = consumer.next().await.context("the consumer was ended")??;
        if taken % ACK_TOGETHER == 0 || taken == events {
            let together = BasicAckOptions { multiple: true };
            channel.basic_ack(event.delivery_tag, together).await?;
        }
    }
    // Answered after the last acknowledgement.
    broker::size(channel).await.map(drop)
}

/// Starts one, in a process of its own, that is ready to consume so many events.
pub async fn start(url: &str, events: u64) -> anyhow::Result<Process> {
    let events = events.to_string();
    let args = ["--consumer", url, "--deliveries", &events];
    let mut process = Process::start_self("the bare consumer", &args.map(str::to_owned))?;
    process.ready().await?;
    Ok(process)
}
