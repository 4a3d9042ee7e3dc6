//! [`Accounts`]: a hash of sums, and beside it what each process said last.
//!
//! A process says how much it has counted since it began; the script adds what is new of that.
//! So a call whose answer was lost may be made again.

use std::time::Duration;

use async_trait::async_trait;

use super::{Redis, expiry_ms};
use crate::domain::accounts::{Account, Sums};
use crate::ports::{Accounts, StoreError};

/// How long a call may take.
const LIMIT: Duration = Duration::from_secs(1);
/// How long it is kept what a process said last: longer than one is cut off and goes on.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

#[async_trait]
impl Accounts for Redis {
    async fn tell(&self, own: Sums) -> Result<Sums, StoreError> {
        let core = &self.core;
        let sums = &core.keys.accounts;
        let mut call = vec![
            sums.clone(),
            format!("{sums}:{}", core.replicas.id()),
            expiry_ms(KEPT).to_string(),
        ];
        for account in Account::ALL {
            call.extend([account.name().to_owned(), own.of(account).to_string()]);
        }
        let (script, calls) = (&core.scripts.account, [call]);
        let told: Vec<Vec<u64>> = core.link.call_all(LIMIT, script, &calls).await?;
        let told = told.into_iter().flatten().collect::<Vec<_>>();
        Ok(Sums::new(|account| {
            told.get(account as usize).copied().unwrap_or_default()
        }))
    }
}
