//! [`EndpointHealth`]: a hash of the endpoints that fail, with since when they do.
//!
//! It shares the hash tag of subscriptions, so that one step both deletes a subscription and
//! forgets that it fails.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;

use super::Redis;
use crate::domain::id::SubscriptionId;
use crate::domain::timestamp::UnixMillis;
use crate::ports::{EndpointHealth, StoreError};

/// How long a call may take: deliveries wait for it.
const LIMIT: Duration = Duration::from_secs(1);
/// How many successes one call of the script tells of; Redis does nothing else meanwhile.
const SUCCESSES_MAX: usize = 500;
/// About how many endpoints are read at once.
const PAGE: usize = 1000;

#[async_trait]
impl EndpointHealth for Redis {
    async fn failed(
        &self,
        endpoint: &SubscriptionId,
        at: UnixMillis,
    ) -> Result<UnixMillis, StoreError> {
        let core = &self.core;
        let (keys, scripts) = (&core.keys, &core.scripts);
        let call = vec![
            keys.failing.clone(),
            keys.records.clone(),
            endpoint.as_str().to_owned(),
            at.0.to_string(),
        ];
        let since = core.link.call_all(LIMIT, &scripts.failed, &[call]).await?;
        Ok(since.first().map_or(at, |since| UnixMillis(*since)))
    }

    async fn succeeded(
        &self,
        endpoints: &[(SubscriptionId, UnixMillis)],
    ) -> Result<(), StoreError> {
        let core = &self.core;
        let call = |some: &[(SubscriptionId, UnixMillis)]| {
            let mut words = vec![core.keys.failing.clone()];
            for (endpoint, at) in some {
                words.extend([endpoint.as_str().to_owned(), at.0.to_string()]);
            }
            words
        };
        let calls: Vec<_> = endpoints.chunks(SUCCESSES_MAX).map(call).collect();
        let told = core.link.call_all(LIMIT, &core.scripts.succeeded, &calls);
        told.await.map(|_: Vec<u64>| ())
    }

    /// In parts, so that many hold nobody up. One that begins or ends to fail meanwhile may be
    /// among them or not.
    async fn failing(&self) -> Result<Vec<(SubscriptionId, UnixMillis)>, StoreError> {
        let core = &self.core;
        // A part may have some of another again.
        let mut found = HashMap::new();
        let mut cursor = 0_u64;
        loop {
            let mut ask = ::redis::cmd("HSCAN");
            ask.arg(&core.keys.failing).arg(cursor);
            ask.arg("COUNT").arg(PAGE);
            let ask = async |mut conn| ask.query_async(&mut conn).await;
            let (next, page): (u64, Vec<(String, i64)>) = core.link.run(LIMIT, ask).await?;
            found.extend(page.into_iter().filter_map(|(id, since)| {
                let endpoint = SubscriptionId::parse(&id).ok()?;
                Some((endpoint, UnixMillis(since)))
            }));
            cursor = next;
            if cursor == 0 {
                return Ok(found.into_iter().collect());
            }
        }
    }
}
