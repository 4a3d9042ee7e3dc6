//! The queue that events come from: filled beforehand with confirms, and seen to be empty.
//!
//! Carillon has declared it: a quorum queue, whoever consumes from it.

use std::time::Duration;

use anyhow::ensure;
use futures_util::future::try_join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use tokio::time::Instant;

use crate::load::{TYPE, events};
use crate::process::PATIENCE;

/// Exchange and queue of events.
pub const EVENTS: &str = "carillon.events";
/// Events on their way at most.
const UNCONFIRMED_MAX: usize = 1000;
/// `delivery_mode` of a message that is kept on disk.
const PERSISTENT: u8 = 2;
/// How often it is asked whether a consumer is gone.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Connects.
pub async fn connect(url: &str) -> anyhow::Result<Connection> {
    Ok(Connection::connect(url, ConnectionProperties::default()).await?)
}

/// Publishes so many events; comes back when all are confirmed.
pub async fn publish(url: &str, count: u64) -> anyhow::Result<()> {
    let connection = connect(url).await?;
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let events: Vec<String> = events(count).collect();
    for some in events.chunks(UNCONFIRMED_MAX) {
        try_join_all(some.iter().map(|event| publish_one(&channel, event))).await?;
    }
    let (ready, _) = size(&channel).await?;
    ensure!(
        u64::from(ready) == count,
        "{ready} events in the queue, not {count}"
    );
    connection.close(200, "done".into()).await?;
    Ok(())
}

async fn publish_one(channel: &Channel, event: &str) -> anyhow::Result<()> {
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT);
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let body = event.as_bytes();
    let published = channel.basic_publish(EVENTS.into(), TYPE.into(), options, body, properties);
    let confirmed = published.await?.await?;
    ensure!(
        confirmed == Confirmation::Ack(None),
        "an event was not taken: {confirmed:?}"
    );
    Ok(())
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
