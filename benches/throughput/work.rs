//! What a dispatcher is to do in a round: take subscriptions and events, and settle them.

use std::time::Duration;

use anyhow::ensure;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use tokio::time::Instant;

use crate::dispatcher::Dispatcher;
use crate::load::{Load, TENANT, path};
use crate::process::PATIENCE;

/// Calls to publish at once.
const CALLS_AT_ONCE: usize = 4;
/// How often it is asked whether everything is settled.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// What a dispatcher has counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Deliveries that were acknowledged and settled.
    pub delivered: f64,
    /// Deliveries that were put off without an attempt.
    pub deferrals: f64,
    /// Attempts that the audit log could not take.
    pub audit_dropped: f64,
}

impl Dispatcher {
    /// Makes a subscription for each of `load`'s endpoints at the sink `url`.
    pub async fn subscribe(&self, load: &Load, url: &str) -> anyhow::Result<()> {
        for endpoint in 0..load.fan_out {
            let subscription = json!({"tenant": TENANT, "url": format!("{url}{}", path(endpoint))});
            let body = serde_json::to_vec(&subscription)?;
            self.api.post("/v1/subscriptions", body).await?;
        }
        Ok(())
    }

    /// Publishes; comes back when all is accepted.
    pub async fn publish(&self, calls: Vec<Vec<u8>>) -> anyhow::Result<()> {
        stream::iter(calls)
            .map(|call| self.api.post("/v1/events", call))
            .buffer_unordered(CALLS_AT_ONCE)
            .try_for_each(async |_| Ok(()))
            .await
    }

    /// Waits until it has settled all that the sink has got.
    pub async fn settled(&self, deliveries: u64) -> anyhow::Result<Counts> {
        let give_up_at = Instant::now() + PATIENCE;
        loop {
            let counts = self.counts().await?;
            if counts.delivered >= deliveries as f64 {
                return Ok(counts);
            }
            ensure!(
                Instant::now() < give_up_at,
                "it does not settle: {counts:?}"
            );
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    async fn counts(&self) -> anyhow::Result<Counts> {
        let metrics = self.metrics().await?;
        Ok(Counts {
            delivered: metrics
                .sum(r#"carillon_deliveries_total{reason="none",result="delivered"}"#),
            deferrals: metrics.sum("carillon_deferrals_total"),
            audit_dropped: metrics.sum("carillon_audit_dropped_total"),
        })
    }
}
