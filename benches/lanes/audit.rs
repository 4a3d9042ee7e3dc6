//! What the audit log says about a subscription's attempts.

use std::ops::AddAssign;

use anyhow::Context as _;
use serde_json::Value;

use crate::dispatcher::Api;

/// Keeps every attempt of a run.
pub const KEEP_ALL: (&str, &str) = ("CARILLON_AUDIT__PER_SUBSCRIPTION", "100000");

/// Attempts in the audit log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attempts {
    /// All that are kept.
    pub kept: u64,
    /// Of them, those that are not a delivery's first.
    pub later: u64,
}

/// Reads all attempts of a subscription, page by page.
pub async fn attempts(api: &Api, subscription: &str) -> anyhow::Result<Attempts> {
    let first = format!("/v1/attempts?subscription={subscription}&limit=1000");
    let (mut attempts, mut path) = (Attempts::default(), first.clone());
    loop {
        let page = api.get(&path).await?;
        let items = page["items"].as_array().context("a page without items")?;
        attempts.kept += items.len() as u64;
        let later = items.iter().filter(|item| item["attempt"] != 1);
        attempts.later += later.count() as u64;
        match &page["next"] {
            Value::String(next) => path = format!("{first}&cursor={next}"),
            _ => return Ok(attempts),
        }
    }
}

impl AddAssign for Attempts {
    fn add_assign(&mut self, other: Self) {
        self.kept += other.kept;
        self.later += other.later;
    }
}
