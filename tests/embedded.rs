//! The running dispatcher, end to end, on a SQLite file of its own.

// A test that cannot go on is to end, in what it shares with others too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "dispatcher/mod.rs"]
mod dispatcher;
#[path = "dispatcher/on_a_file.rs"]
mod on_a_file;
#[path = "support/process.rs"]
mod process;
#[path = "dispatcher/leaks/store_file.rs"]
mod store;

mod backend {
    //! Where a dispatcher keeps everything.

    use std::sync::Arc;

    use carillon::adapters::sqlite::{OpenError, Sqlite, SqliteSettings};
    use carillon::adapters::system::SystemClock;
    use carillon::codec::vault::Vault;
    use carillon::config::Config;
    use carillon::ports::{Outbox as _, Parcel};

    use super::dispatcher::harness::poll_until;

    /// A file, which is in the folder of each test already.
    pub struct Place;

    impl Place {
        /// Nothing is needed.
        pub fn new() -> Self {
            Self
        }

        /// In how many looks, one after the other, there has to be nothing left.
        pub const SETTLED_LOOKS: u32 = 1;

        /// Whether several dispatchers may share it.
        pub const IS_SHARED: bool = false;

        /// Says in `config` where it is.
        pub async fn prepare(&mut self, _config: &mut Config) {}

        /// Puts parcels where a dispatcher that does not run will find them.
        pub async fn put(&self, config: &Config, parcels: Vec<Parcel>) {
            let settings = SqliteSettings {
                vault: Vault::default(),
                path: config.embedded.path.clone(),
                dedup_window: config.dedup.window,
                audit_keep: config.audit.keep,
                audit_per_subscription: config.audit.per_subscription,
                audit_body_bytes: config.audit.body_bytes,
                audit_dropped: Arc::default(),
                telemetry: carillon::telemetry::Telemetry::new().unwrap(),
                clock: Arc::new(SystemClock),
            };
            let store = poll_until("the file is free", async || {
                match Sqlite::open(settings.clone()) {
                    Err(OpenError::InUse(_)) => None,
                    opened => Some(opened.unwrap()),
                }
            });
            store.await.put(parcels).await.unwrap();
        }
    }
}
