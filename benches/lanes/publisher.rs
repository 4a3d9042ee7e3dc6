//! Events, and the two ways in: the API of an embedded dispatcher, RabbitMQ in production.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::micros;
use crate::dispatcher::Api;
use crate::exchange::Exchange;

/// Events of one call, at most: what the API takes.
pub const EVENTS_PER_CALL: u32 = 1000;

/// When it happened does not matter here.
const TIMESTAMP: &str = "2026-01-01T00:00:00Z";

/// An event, before it is published.
pub struct Event {
    /// Its `type`, which is its routing key too.
    pub kind: String,
    /// The whole of it.
    json: String,
}

impl Event {
    /// The event of this number, which nothing else of the tenant has; `sent` says when its
    /// publishing began.
    pub fn new(tenant: &str, kind: String, number: u64, sent: Duration) -> Self {
        let sent_us = micros(sent);
        let json = format!(
            r#"{{"id":"evt_{number:08}","type":"{kind}","tenant":"{tenant}","timestamp":"{TIMESTAMP}","data":{{"number":{number},"sent_us":{sent_us}}}}}"#
        );
        Self { kind, json }
    }
}

/// One who publishes; clones share a connection.
#[derive(Clone)]
pub enum Publisher {
    /// By `POST /v1/events`.
    Api(Api),
    /// By AMQP.
    Exchange(Arc<Exchange>),
}

impl Publisher {
    /// Publishes [`EVENTS_PER_CALL`] at most; comes back when all are durable.
    pub async fn publish(&self, events: &[Event]) -> anyhow::Result<()> {
        match self {
            Self::Api(api) => {
                let events: Vec<&str> = events.iter().map(|event| &*event.json).collect();
                let call = format!("[{}]", events.join(",")).into_bytes();
                api.post("/v1/events", call).await.map(drop)
            }
            Self::Exchange(exchange) => {
                let events = events.iter().map(|event| (&*event.kind, &*event.json));
                exchange.publish(events).await
            }
        }
    }
}
