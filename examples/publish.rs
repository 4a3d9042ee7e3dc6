//! Publishes an event to Carillon; returns when the broker has it on disk.
//!
//! Needs the crates anyhow, lapin 4, serde_json, and tokio with macros, rt-multi-thread, time.

use std::env;
use std::time::Duration;

use anyhow::bail;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

const TRIES: u32 = 10;
const TRY_TIMEOUT: Duration = Duration::from_secs(30);
const PERSISTENT: u8 = 2;

struct Publisher {
    url: String,
    exchange: String,
    open: Option<(Connection, Channel)>,
}

impl Publisher {
    /// Returns when the event is on disk. Until then the same event is published again.
    async fn publish(&mut self, event: &Value) -> anyhow::Result<()> {
        for n in 1..=TRIES {
            let problem = match timeout(TRY_TIMEOUT, self.try_publish(event)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            eprintln!("try {n} of {TRIES}: {problem}");
            self.open = None; // The next try connects anew.
            sleep(Duration::from_secs(2_u64.pow(n - 1).min(30))).await;
        }
        bail!("not published: keep the event and publish it later with the same id")
    }

    async fn try_publish(&mut self, event: &Value) -> anyhow::Result<()> {
        let exchange = self.exchange.as_str().into();
        let routing_key = event["type"].as_str().unwrap_or_default().into();
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT);
        let body = event.to_string();
        let channel = self.channel().await?;
        let sent = channel
            .basic_publish(exchange, routing_key, options, body.as_bytes(), properties)
            .await?;
        match sent.await? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) => bail!("returned: no queue takes it"),
            Confirmation::Nack(_) => bail!("refused: the queue could not take it"),
            Confirmation::NotRequested => bail!("the channel does not confirm"),
        }
    }

    async fn channel(&mut self) -> anyhow::Result<Channel> {
        if let Some((_, channel)) = &self.open {
            return Ok(channel.clone());
        }
        let connection = Connection::connect(&self.url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        self.open = Some((connection, channel.clone()));
        Ok(channel)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let setting = |name, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let mut publisher = Publisher {
        url: setting("BROKER_URL", "amqp://guest:guest@localhost:5672/%2f"),
        exchange: setting("EVENTS_EXCHANGE", "carillon.events"),
        open: None,
    };
    let event = json!({
        "id": "scan-4711", // The scan's own number: the same whenever it is published again.
        "type": "scan.finished",
        "tenant": "acme",
        "timestamp": "2026-03-01T12:30:00Z",
        "data": {"findings": 3},
    });
    publisher.publish(&event).await?;
    println!("published {}", event["id"]);
    Ok(())
}
