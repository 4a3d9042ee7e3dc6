//! A plain client beside the adapter: what any other program sees and does.

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};

use crate::harness::PATIENCE;
use crate::harness::until::until;

pub struct Plain {
    pub connection: Connection,
    pub channel: Channel,
}

impl Plain {
    pub async fn connect(url: &str) -> Self {
        let connected = Connection::connect(url, ConnectionProperties::default()).await;
        let connection = connected.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let confirm = ConfirmSelectOptions::default();
        channel.confirm_select(confirm).await.unwrap();
        Self {
            connection,
            channel,
        }
    }

    /// How many messages are ready, and how many consumers there are; nothing when the queue is
    /// missing.
    pub async fn try_size(&self, queue: &str) -> Option<(u32, u32)> {
        // A queue that is missing costs the channel, and the client its number.
        let channel = self.connection.create_channel().await.ok()?;
        let passive = QueueDeclareOptions::durable().passive();
        let found = channel
            .queue_declare(queue.into(), passive, FieldTable::default())
            .await
            .ok()?;
        Some((found.message_count(), found.consumer_count()))
    }

    pub async fn ready(&self, queue: &str) -> u32 {
        let size = self.try_size(queue).await;
        size.unwrap_or_else(|| panic!("`{queue}` is missing")).0
    }

    /// Publishes, confirmed.
    pub async fn publish(
        &self,
        exchange: &str,
        key: &str,
        properties: BasicProperties,
        body: &[u8],
    ) {
        let options = BasicPublishOptions::default();
        let published =
            self.channel
                .basic_publish(exchange.into(), key.into(), options, body, properties);
        let confirmed = published.await.unwrap().await.unwrap();
        assert!(confirmed.is_ack(), "{confirmed:?}");
    }

    /// The first message of a queue, taken out.
    pub async fn get(&self, queue: &str) -> Option<Delivery> {
        let options = BasicGetOptions { no_ack: true };
        let got = self.channel.basic_get(queue.into(), options).await.unwrap();
        got.map(|got| got.delivery)
    }

    /// The first message of a queue, taken out as soon as there is one.
    pub async fn wait_for(&self, queue: &str) -> Delivery {
        let what = format!("something to come to `{queue}`");
        until(&what, PATIENCE, async || self.get(queue).await).await
    }

    pub async fn consume(&self, queue: &str, prefetch: u16) -> Consumer {
        let each = BasicQosOptions { global: false };
        self.channel.basic_qos(prefetch, each).await.unwrap();
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = self
            .channel
            .basic_consume(queue.into(), "".into(), options, none);
        consumer.await.unwrap()
    }

    pub async fn delete_queue(&self, queue: &str) {
        let options = QueueDeleteOptions::default();
        let deleted = self.channel.queue_delete(queue.into(), options).await;
        deleted.unwrap();
    }

    pub async fn delete_exchange(&self, exchange: &str) {
        let options = ExchangeDeleteOptions::default();
        let deleted = self.channel.exchange_delete(exchange.into(), options).await;
        deleted.unwrap();
    }

    /// A queue of the test's own, gone with this connection, bound to an exchange.
    pub async fn listen(&self, exchange: &str, key: &str) -> String {
        let options = QueueDeclareOptions::exclusive();
        let declared = self
            .channel
            .queue_declare("".into(), options, FieldTable::default())
            .await
            .unwrap();
        let queue = declared.name().clone();
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        let bound =
            self.channel
                .queue_bind(queue.clone(), exchange.into(), key.into(), options, none);
        bound.await.unwrap();
        queue.as_str().to_owned()
    }
}

/// The next message, acknowledged.
pub async fn next(consumer: &mut Consumer) -> Delivery {
    let found = tokio::time::timeout(PATIENCE, consumer.next()).await;
    let found = found.expect("nothing came").unwrap().unwrap();
    found.acker.ack(BasicAckOptions::default()).await.unwrap();
    found
}

pub fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

pub fn table(entries: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert((*name).into(), value.clone());
    }
    table
}

pub fn with_headers(entries: &[(&str, AMQPValue)]) -> BasicProperties {
    BasicProperties::default().with_headers(table(entries))
}

/// The headers of a message in the order of their names, but for RabbitMQ's own count.
pub fn headers(found: &Delivery) -> Vec<(String, AMQPValue)> {
    let headers = found.properties.headers().as_ref();
    let each = headers.into_iter().flat_map(|headers| headers.inner());
    each.map(|(name, value)| (name.as_str().to_owned(), value.clone()))
        .filter(|(name, _)| name != "x-delivery-count")
        .collect()
}

pub fn header(found: &Delivery, name: &str) -> Option<AMQPValue> {
    let found = headers(found).into_iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value)
}
