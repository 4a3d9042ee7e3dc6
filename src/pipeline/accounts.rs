//! Accounts: tells the store what this process counted, and the metrics what all did.

use std::time::Duration;

use super::{Context, Pipeline};
use crate::telemetry::events::{AccountsRead, StoreTrouble};

/// How often it is told: so much a process that is killed takes with it.
const EVERY: Duration = Duration::from_secs(1);

/// Tells it, for ever.
pub async fn keep(pipeline: Pipeline) {
    loop {
        tell(&pipeline.context).await;
        tokio::time::sleep(EVERY).await;
    }
}

/// Tells it once. What cannot be told now is told with the next.
pub async fn tell(context: &Context) {
    let own = context.telemetry.accounts();
    match context.ports.accounts.tell(own).await {
        Ok(sums) => context.telemetry.emit(AccountsRead(sums)),
        Err(error) => {
            let (action, error) = ("keep accounts", &error);
            context.telemetry.emit(StoreTrouble { action, error });
        }
    }
}
