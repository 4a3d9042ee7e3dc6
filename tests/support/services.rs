//! RabbitMQ and Redis for tests: shared ones, private ones that a test may break, and a proxy to
//! break the network with.
//!
//! The servers are started by `tests/services/guard.sh` and end with the value that stands for
//! them, or with the test process, however that ends. Numbers of nodes and servers begin at 1.
#![allow(
    dead_code,
    unused_imports,
    reason = "several test binaries include this file, and each uses a part"
)]

#[path = "services/broker.rs"]
mod broker;
#[path = "services/clean.rs"]
mod clean;
#[path = "services/guard.rs"]
mod guard;
#[path = "services/proxy.rs"]
mod proxy;
#[path = "services/redis.rs"]
mod redis;
#[path = "services/tls.rs"]
mod tls;

use std::env;
use std::sync::OnceLock;

pub use broker::Broker;
pub use clean::delete_declared;
pub use proxy::Proxy;
pub use redis::{RedisCluster, RedisSentinel, RedisServer};

use guard::{Guard, Settings, off_thread};

/// A server that the whole test process shares, or why there is none: told to every test that
/// asks, because another try would end the same way.
type Shared = OnceLock<Result<Guard, String>>;

static BROKER: Shared = OnceLock::new();
static REDIS: Shared = OnceLock::new();

/// The shared RabbitMQ: what `CARILLON_TEST_BROKER_URL` names, else one node that the first
/// caller starts. Others use it too: take names of your own in it, and leave it running.
pub async fn broker_url() -> String {
    shared(&BROKER, "CARILLON_TEST_BROKER_URL", "rabbitmq").await
}

/// The shared Redis: what `CARILLON_TEST_REDIS_URL` names, else one that the first caller
/// starts. Others use it too: take a key prefix of your own, and do not flush it.
pub async fn redis_url() -> String {
    shared(&REDIS, "CARILLON_TEST_REDIS_URL", "redis").await
}

async fn shared(place: &'static Shared, variable: &str, kind: &'static str) -> String {
    if let Some(url) = env::var(variable).ok().filter(|url| !url.is_empty()) {
        return url;
    }
    let start = || Guard::start(&[kind], Settings::new().with("REDIS_FSYNC", "everysec"));
    let url = off_thread(move || match place.get_or_init(start) {
        Ok(guard) => Ok(guard.urls[0].clone()),
        Err(problem) => Err(problem.clone()),
    });
    url.await.unwrap_or_else(|problem| panic!("{problem}"))
}
