//! A detection system: publishes through RabbitMQ and believes nothing but confirms.

use std::ops::Range;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::json;

use super::arrivals::TENANT;
use super::dispatcher::{PATIENCE, until};

/// Where events go.
pub const EXCHANGE: &str = "carillon.events";
/// How many are published before their confirms are waited for.
const CHUNK: usize = 250;
/// How long a confirm may take before its outcome counts as unknown.
const CONFIRM_LIMIT: Duration = Duration::from_secs(20);
/// How soon it is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A message to publish.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its routing key.
    pub kind: String,
    /// Its encoding, if it says so.
    pub content_type: Option<&'static str>,
    /// The encoded event.
    pub body: Vec<u8>,
}

/// Publishes to one node of several, and to the next one when that is lost.
pub struct Publisher {
    urls: Vec<String>,
    node: usize,
    /// Messages sent without being confirmed, all counted.
    unconfirmed: usize,
    open: Option<(Connection, Channel)>,
}

impl Publisher {
    /// With the URLs of all nodes, separated by commas.
    pub fn new(urls: &str) -> Self {
        Self {
            urls: urls.split(',').map(str::to_owned).collect(),
            node: 0,
            unconfirmed: 0,
            open: None,
        }
    }

    /// Publishes all, and whatever was not confirmed again. Returns how often one was
    /// sent and not confirmed.
    pub async fn publish(&mut self, messages: &[Message]) -> usize {
        let before = self.unconfirmed;
        for chunk in messages.chunks(CHUNK) {
            let mut left: Vec<&Message> = chunk.iter().collect();
            let begun = Instant::now();
            let mut tries = tokio::time::interval(AGAIN_AFTER);
            while !left.is_empty() {
                tries.tick().await;
                assert!(begun.elapsed() < PATIENCE, "events were not confirmed");
                left = self.try_publish(&left).await;
            }
        }
        self.unconfirmed - before
    }

    /// Publishes these; returns those that were not confirmed.
    async fn try_publish<'a>(&mut self, messages: &[&'a Message]) -> Vec<&'a Message> {
        let Some(channel) = self.channel().await else {
            return messages.to_vec();
        };
        let mut published = Vec::with_capacity(messages.len());
        for message in messages {
            published.push(confirmed(&channel, message));
        }
        let mut left = Vec::new();
        for (message, confirmed) in messages.iter().zip(join_all(published).await) {
            if !confirmed {
                left.push(*message);
            }
        }
        if !left.is_empty() {
            self.unconfirmed += left.len();
            self.open = None;
        }
        left
    }

    async fn channel(&mut self) -> Option<Channel> {
        if let Some((connection, channel)) = &self.open
            && connection.status().connected()
            && channel.status().connected()
        {
            return Some(channel.clone());
        }
        self.node += 1;
        let url = &self.urls[self.node % self.urls.len()];
        let opening = tokio::time::timeout(CONNECT_LIMIT, open(url)).await;
        let (connection, channel) = opening.ok()?.ok()?;
        self.open = Some((connection, channel.clone()));
        Some(channel)
    }
}

async fn open(url: &str) -> Result<(Connection, Channel), lapin::Error> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let confirms = ConfirmSelectOptions::default();
    channel.confirm_select(confirms).await?;
    Ok((connection, channel))
}

/// Whether RabbitMQ confirmed it, and did not return it.
async fn confirmed(channel: &Channel, message: &Message) -> bool {
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let mut properties = BasicProperties::default().with_delivery_mode(2);
    if let Some(content_type) = message.content_type {
        properties = properties.with_content_type(content_type.into());
    }
    let kind = message.kind.as_str().into();
    let sent = channel.basic_publish(EXCHANGE.into(), kind, options, &message.body, properties);
    let confirmed = async { sent.await?.await };
    let confirmed = tokio::time::timeout(CONFIRM_LIMIT, confirmed).await;
    matches!(confirmed, Ok(Ok(lapin::Confirmation::Ack(None))))
}

/// The id of an event.
pub fn name(n: usize) -> String {
    format!("e{n}")
}

/// Ordinary events.
pub fn events(numbers: Range<usize>) -> Vec<Message> {
    let event = |n| event(TENANT, &name(n), n);
    numbers.map(event).collect()
}

/// An ordinary event.
pub fn event(tenant: &str, id: &str, n: usize) -> Message {
    let body = json!({
        "id": id, "type": "scan.finished", "tenant": tenant,
        "timestamp": "2026-03-01T12:30:00Z", "data": {"n": n},
    });
    Message {
        kind: "scan.finished".to_owned(),
        content_type: None,
        body: body.to_string().into_bytes(),
    }
}

/// How many messages are ready in a queue, by RabbitMQ's own account.
pub async fn ready_in(channel: &Channel, queue: &str) -> usize {
    let passive = QueueDeclareOptions::durable().passive();
    let found = channel.queue_declare(queue.into(), passive, FieldTable::default());
    found.await.unwrap().message_count() as usize
}

/// All messages of some queues, which stay in them: they go back when `connection` ends. What
/// moves from one to another meanwhile is found in either.
pub async fn look_through(connection: &Connection, queues: &[String]) -> Vec<Vec<u8>> {
    let channel = connection.create_channel().await.unwrap();
    let mut found = Vec::new();
    let mut passes_without = 0;
    while passes_without < 2 {
        passes_without += 1;
        for queue in queues {
            let options = BasicGetOptions { no_ack: false };
            while let Some(message) = channel
                .basic_get(queue.as_str().into(), options)
                .await
                .unwrap()
            {
                found.push(message.delivery.data);
                passes_without = 0;
            }
        }
    }
    found
}

/// A connection to a node that answers.
pub async fn connect(urls: &str) -> Connection {
    let mut urls = urls.split(',').cycle();
    until("RabbitMQ to answer", async || {
        let connecting = Connection::connect(urls.next()?, ConnectionProperties::default());
        let connected = tokio::time::timeout(CONNECT_LIMIT, connecting).await;
        connected.ok()?.ok()
    })
    .await
}
