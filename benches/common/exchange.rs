//! The exchange that events are published to, with confirms.
//!
//! Carillon has declared it: what is routed through it waits in a quorum queue.

use anyhow::ensure;
use futures_util::future::try_join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};

/// Its name, and the name of the queue behind it.
pub const EVENTS: &str = "carillon.events";
/// Events on their way at most, of one call.
const UNCONFIRMED_MAX: usize = 1000;
/// `delivery_mode` of a message that is kept on disk.
const PERSISTENT: u8 = 2;

/// A connection that publishes; it ends when it is dropped.
pub struct Exchange {
    connection: Connection,
    /// On which one hears what became of each event.
    pub channel: Channel,
}

/// Connects.
pub async fn connect(url: &str) -> anyhow::Result<Connection> {
    Ok(Connection::connect(url, ConnectionProperties::default()).await?)
}

impl Exchange {
    /// Connects.
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        let connection = connect(url).await?;
        let channel = connection.create_channel().await?;
        let confirms = ConfirmSelectOptions::default();
        channel.confirm_select(confirms).await?;
        Ok(Self {
            connection,
            channel,
        })
    }

    /// Publishes events, each with its type; comes back when all are confirmed.
    pub async fn publish<'a>(
        &self,
        events: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> anyhow::Result<()> {
        let events: Vec<_> = events.into_iter().collect();
        for some in events.chunks(UNCONFIRMED_MAX) {
            try_join_all(
                some.iter()
                    .map(|&(kind, event)| self.publish_one(kind, event)),
            )
            .await?;
        }
        Ok(())
    }

    async fn publish_one(&self, kind: &str, event: &str) -> anyhow::Result<()> {
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT);
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let body = event.as_bytes();
        let published =
            self.channel
                .basic_publish(EVENTS.into(), kind.into(), options, body, properties);
        let confirmed = published.await?.await?;
        ensure!(
            confirmed == Confirmation::Ack(None),
            "an event was not taken: {confirmed:?}"
        );
        Ok(())
    }

    /// Ends the connection in order.
    pub async fn close(self) -> anyhow::Result<()> {
        Ok(self.connection.close(200, "done".into()).await?)
    }
}
