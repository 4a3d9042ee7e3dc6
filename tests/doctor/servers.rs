//! In production: RabbitMQ and Redis as they should be, and as they should not.

use carillon::adapters::rabbitmq::declared;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};

use crate::harness::{Patient, free_address};
use crate::program::run;
use crate::services::{self, Broker, RedisCluster, RedisSentinel, RedisServer};

/// Names of its own in the shared servers; what is declared under them goes with it.
struct Names {
    prefix: String,
    broker: String,
}

impl Names {
    async fn new() -> Self {
        let mut random = [0; 6];
        getrandom::fill(&mut random).unwrap();
        Self {
            prefix: format!("doctor-{}", hex::encode(random)),
            broker: services::broker_url().await,
        }
    }

    async fn patient(&self) -> Patient {
        let redis = services::redis_url().await;
        Patient::new()
            .with("CARILLON_BROKER__URL", &self.broker)
            .with("CARILLON_BROKER__PREFIX", &self.prefix)
            .with("CARILLON_REDIS__URL", &redis)
            .with("CARILLON_REDIS__PREFIX", &self.prefix)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        services::delete_declared(&self.broker, declared(&self.prefix));
    }
}

async fn init(patient: &Patient) {
    let (code, _, err) = run(patient.command(&["init"]), String::new()).await;
    assert_eq!(code, 0, "{err}");
}

/// With the user information of `url` replaced.
fn with_password(url: &str, user: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{user}@{host}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_found_and_nothing_is_made() {
    let names = Names::new().await;
    let patient = names.patient().await;
    for _ in 0..2 {
        let found = patient.look().await;
        assert_eq!(found.code, 1, "{}", found.text);
        assert_eq!(found.names("failed"), ["redis marker"], "{}", found.text);
        found.expect("redis marker", "failed", "carillon init");
        found.expect("rabbitmq", "ok", "version");
        found.expect("queues", "ok", "none is there yet");
        found.expect("broker alarm", "ok", "takes messages");
        found.expect("redis", "ok", "version");
        found.expect("clock", "ok", "within 5 s");
    }
    init(&patient).await;
    let (patient, process) = patient.serve().await;
    patient.subscribe(&process).await;
    let found = patient.look().await;
    assert_eq!(found.code, 0, "{}", found.text);
    found.expect("queues", "ok", "all ");
    found.expect("redis marker", "ok", &names.prefix);
    found.expect("stored secrets", "ok", "1 subscription");
    found.expect("api", "ok", "takes the token");
    found.expect("ready", "ok", "takes events");
    process.kill();
    let patient = patient.with("CARILLON_SECRETS__KEYS", "[]");
    let found = patient.look().await;
    assert_eq!(found.code, 1, "{}", found.text);
    found.expect("stored secrets", "failed", "`a`");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_differs_is_named() {
    let names = Names::new().await;
    let patient = names.patient().await;
    let connected = Connection::connect(&names.broker, ConnectionProperties::default()).await;
    let connection = connected.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let queue = format!("{}.dead-letters", names.prefix);
    let (durable, none) = (QueueDeclareOptions::durable(), FieldTable::default());
    let declared = channel.queue_declare(queue.as_str().into(), durable, none);
    declared.await.unwrap();
    let found = patient.look().await;
    assert_eq!(found.code, 1, "{}", found.text);
    found.expect("queues", "failed", &queue);
    found.expect("queues", "failed", "x-queue-type");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_is_told_why() {
    let names = Names::new().await;
    let patient = names.patient().await;
    let redis = services::redis_url().await;
    let patient = patient
        .with(
            "CARILLON_BROKER__URL",
            &with_password(&names.broker, "guest:hunter2"),
        )
        .with("CARILLON_REDIS__URL", &with_password(&redis, ":hunter2"));
    let found = patient.look().await;
    assert_eq!(found.code, 1, "{}", found.text);
    found.expect("rabbitmq", "failed", "the password");
    found.expect("redis", "failed", "password");
    assert!(!found.text.contains("hunter2"), "{}", found.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_listens_is_told() {
    let names = Names::new().await;
    let patient = names.patient().await;
    let (one, two) = (free_address(), free_address());
    let dead = patient
        .with("CARILLON_BROKER__URL", &format!("amqp://{one}"))
        .with("CARILLON_REDIS__URL", &format!("redis://{two}"));
    let found = dead.look().await;
    assert_eq!(found.code, 1);
    found.expect("rabbitmq", "failed", &one);
    found.expect("redis", "failed", &two);
    // One of two is enough to go on with.
    let both = format!("amqp://{one},{}", names.broker);
    let some = names.patient().await.with("CARILLON_BROKER__URL", &both);
    init(&some).await;
    let found = some.look().await;
    assert_eq!(found.code, 0, "{}", found.text);
    found.expect("rabbitmq", "warning", &one);
    found.expect("queues", "ok", "none is there yet");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_hides_no_other() {
    let names = Names::new().await;
    // Its backlog takes connections, and nobody reads them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = silent.local_addr().unwrap();
    let brokers = format!("amqp://{place},{}", names.broker);
    let patient = names
        .patient()
        .await
        .with("CARILLON_BROKER__URL", &brokers)
        .with("CARILLON_REDIS__URL", &format!("redis://{place}"));
    let found = patient.look().await;
    assert_eq!(found.code, 1, "{}", found.text);
    assert_eq!(found.names("failed"), ["redis"], "{}", found.text);
    found.expect("redis", "failed", &place.to_string());
    found.expect("rabbitmq", "warning", &place.to_string());
    found.expect("queues", "ok", "none is there yet");
    found.expect("broker alarm", "ok", "takes messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_may_lose_something_is_a_warning() {
    let names = Names::new().await;
    let lines = [
        "maxmemory 100mb",
        "maxmemory-policy allkeys-lru",
        "appendonly no",
        "user mute on >hunter2 ~* &* +@all -info",
    ];
    let server = RedisServer::start_with(&lines).await;
    let patient = names.patient().await;
    let patient = patient.with("CARILLON_REDIS__URL", &server.url());
    init(&patient).await;
    let found = patient.look().await;
    assert_eq!(found.code, 0, "{}", found.text);
    found.expect("redis eviction", "warning", "allkeys-lru");
    found.expect("redis persistence", "warning", "appendonly yes");
    found.expect("redis memory", "ok", "% of `maxmemory`");
    assert_eq!(patient.look_with(&["--strict"]).await.code, 1);
    // Who may not ask is told what to allow, and is served all the same.
    let muted = with_password(&server.url(), "mute:hunter2");
    let found = patient.with("CARILLON_REDIS__URL", &muted).look().await;
    assert_eq!(found.code, 0, "{}", found.text);
    found.expect("redis", "warning", "allow `INFO`");
    found.expect("redis marker", "ok", &names.prefix);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_redis_is_looked_at() {
    let names = Names::new().await;
    let (cluster, sentinel) = (RedisCluster::start(2).await, RedisSentinel::start().await);
    for (url, servers) in [(cluster.url(), 2), (sentinel.url(), 1)] {
        let patient = names.patient().await;
        let patient = patient.with("CARILLON_REDIS__URL", &url);
        patient
            .look()
            .await
            .expect("redis marker", "failed", "init");
        init(&patient).await;
        let found = patient.look().await;
        assert_eq!(found.names("failed"), [""; 0], "{}", found.text);
        found.expect("redis marker", "ok", &names.prefix);
        found.expect("stored secrets", "ok", "no subscriptions yet");
        let looked_at = found
            .names("ok")
            .into_iter()
            .filter(|name| *name == "redis");
        assert_eq!(looked_at.count(), servers, "{}", found.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_and_short_of_memory() {
    let (broker, authority) = Broker::start_tls().await;
    let names = Names::new().await;
    let patient = names.patient().await;
    let patient = patient.with("CARILLON_BROKER__URL", &broker.tls_url());
    init(&patient).await;
    patient
        .look()
        .await
        .expect("rabbitmq", "failed", "broker.ca_file");
    let authority = authority.display().to_string();
    let patient = patient.with("CARILLON_BROKER__CA_FILE", &authority);
    let found = patient.look().await;
    assert_eq!(found.code, 0, "{}", found.text);
    found.expect("rabbitmq", "ok", "version");
    // Everything is declared, so that there is much to ask of a connection that RabbitMQ may hold.
    let (patient, _process) = patient.serve().await;
    let little = ["set_vm_memory_high_watermark", "absolute", "1"];
    broker.ctl(1, &little).await;
    let found = patient.look().await;
    assert_eq!(found.code, 1, "{}", found.text);
    assert_eq!(found.names("failed"), ["broker alarm"], "{}", found.text);
    found.expect("broker alarm", "failed", "memory");
    found.expect("queues", "ok", "all ");
    found.expect("ready", "ok", "takes events");
}
