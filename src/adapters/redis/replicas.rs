//! How many replicas there are: each says every two seconds that it is there.
//!
//! One that ends in order says so; one that does not is counted for ten seconds more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::Core;
use crate::ports::StoreError;

/// How often each says that it is there.
const EVERY: Duration = Duration::from_secs(2);
/// How long that counts.
const COUNTS_MS: u64 = 10_000;
/// How long saying so may take.
const LIMIT: Duration = Duration::from_secs(1);

/// This replica, and how many there are.
pub(super) struct Replicas {
    id: String,
    count: AtomicU32,
    /// Held while it says that it is there, or that it leaves.
    saying: tokio::sync::Mutex<()>,
}

impl Replicas {
    pub(super) fn new() -> Self {
        Self {
            id: format!("{:032x}", fastrand::u128(..)),
            count: AtomicU32::new(1),
            saying: tokio::sync::Mutex::default(),
        }
    }

    /// What this one is known by.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// How many there were when Redis was last asked, this one included.
    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Core {
    fn replicas_key(&self) -> String {
        format!("{}:replicas", self.keys.prefix)
    }

    /// Says that this replica is there, and hears how many are.
    async fn register(&self) -> Result<(), StoreError> {
        let replicas = &self.replicas;
        let _saying = replicas.saying.lock().await;
        let call = vec![
            self.replicas_key(),
            replicas.id.clone(),
            COUNTS_MS.to_string(),
        ];
        let script = &self.scripts.register;
        let counts = self.link.call_all::<u32>(LIMIT, script, &[call]).await?;
        let count = counts.first().map_or(1, |count| (*count).max(1));
        replicas.count.store(count, Ordering::Relaxed);
        Ok(())
    }

    /// Says that this replica is there no longer. Ends all loops: they are done.
    pub(super) async fn leave(&self) {
        // First, so that it does not say again that it is there.
        self.stop.cancel();
        let _saying = self.replicas.saying.lock().await;
        let mut leave = ::redis::cmd("ZREM");
        leave.arg(self.replicas_key()).arg(&self.replicas.id);
        let leave = async |mut conn| leave.exec_async(&mut conn).await;
        if let Err(error) = self.link.run(LIMIT, leave).await {
            tracing::debug!(%error, "this replica counts until its time is over");
        }
    }
}

/// Registers this replica at each connection, and again and again.
pub(super) async fn keep_counted(core: Arc<Core>) {
    loop {
        core.link.wait_up().await;
        let connected_again = core.link.next_up();
        if let Err(error) = core.register().await {
            tracing::debug!(%error, "the replicas could not be counted");
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = connected_again => {}
        }
    }
}
