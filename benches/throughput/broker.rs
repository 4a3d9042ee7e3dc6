//! The queue that events come from: filled beforehand, and seen to be empty.

use std::time::Duration;

use anyhow::ensure;
use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use tokio::time::Instant;

use crate::exchange::{EVENTS, Exchange, connect};
use crate::load::{TYPE, events};
use crate::process::PATIENCE;

/// How often it is asked whether a consumer is gone.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Publishes so many events; comes back when all are confirmed.
pub async fn publish(url: &str, count: u64) -> anyhow::Result<()> {
    let exchange = Exchange::connect(url).await?;
    let events: Vec<String> = events(count).collect();
    let events = events.iter().map(|event| (TYPE, event.as_str()));
    exchange.publish(events).await?;
    let (ready, _) = size(&exchange.channel).await?;
    ensure!(
        u64::from(ready) == count,
        "{ready} events in the queue, not {count}"
    );
    exchange.close().await
}

/// Checks that whoever has consumed has acknowledged all: when it is gone, nothing came back.
pub async fn check_empty(url: &str) -> anyhow::Result<()> {
    let connection = connect(url).await?;
    let channel = connection.create_channel().await?;
    let give_up_at = Instant::now() + PATIENCE;
    loop {
        let (ready, consumers) = size(&channel).await?;
        if consumers == 0 {
            ensure!(ready == 0, "{ready} events were not acknowledged");
            break;
        }
        ensure!(Instant::now() < give_up_at, "a consumer does not go away");
        tokio::time::sleep(ASK_EVERY).await;
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}

/// How many events are ready, and how many consume. Answered after what was said before on
/// the same channel.
pub async fn size(channel: &Channel) -> anyhow::Result<(u32, u32)> {
    let passive = QueueDeclareOptions::durable().passive();
    let found = channel.queue_declare(EVENTS.into(), passive, FieldTable::default());
    let found = found.await?;
    Ok((found.message_count(), found.consumer_count()))
}
