//! The services of the tests themselves: that they come up, can be broken, keep what they
//! confirmed, and are gone afterwards.

#[path = "support/services.rs"]
mod services;
#[path = "support/until.rs"]
mod until;

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use redis::AsyncCommands as _;
use services::{Broker, Proxy, RedisCluster, RedisSentinel, RedisServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until::until(what, PATIENCE, look).await
}

async fn amqp(url: &str) -> (Connection, Channel) {
    let connected = Connection::connect(url, ConnectionProperties::default()).await;
    let connection = connected.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

async fn declare(channel: &Channel, queue: &str) {
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(queue.into(), options, arguments);
    declared.await.unwrap();
}

async fn publish(channel: &Channel, queue: &str, body: &[u8]) {
    let confirms = ConfirmSelectOptions::default();
    channel.confirm_select(confirms).await.unwrap();
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default().with_delivery_mode(2);
    let sent = channel.basic_publish("".into(), queue.into(), options, body, properties);
    let confirmation = sent.await.unwrap().await.unwrap();
    assert!(confirmation.is_ack(), "{confirmation:?}");
}

/// The next message of a queue. Without a leader the queue answers with an error, which
/// closes the connection: so each try has one of its own.
async fn get(url: &str, queue: &str) -> Vec<u8> {
    until("the queue to answer", async || {
        let (_connection, channel) = amqp(url).await;
        let options = BasicGetOptions { no_ack: true };
        let got = channel.basic_get(queue.into(), options).await.ok()??;
        Some(got.delivery.data.clone())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_keeps_what_it_confirmed_over_a_restart_and_a_crash() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (broker, authority) = Broker::start_tls().await;
    let (_connection, channel) = amqp(&broker.url(1)).await;
    declare(&channel, "kept").await;
    publish(&channel, "kept", b"over a stop").await;
    let pid = broker.pid(1).await;
    broker.stop(1).await;
    broker.start_node(1).await;
    assert_ne!(broker.pid(1).await, pid);
    assert_eq!(get(&broker.url(1), "kept").await, b"over a stop");

    // And TLS beside it.
    let tls = OwnedTLSConfig {
        identity: None,
        cert_chain: Some(fs::read_to_string(authority).unwrap()),
    };
    let runtime = lapin::runtime::default_runtime().unwrap();
    let properties = ConnectionProperties::default();
    let url = broker.tls_url();
    let secured = Connection::connect_with_config(&url, properties, tls, runtime);
    assert!(secured.await.unwrap().status().connected());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_keeps_what_it_confirmed_when_the_leader_crashes() {
    let broker = Broker::start(3).await;
    assert_eq!(broker.urls().split(',').count(), 3);
    let (_connection, channel) = amqp(&broker.url(2)).await;
    declare(&channel, "kept").await;
    publish(&channel, "kept", b"over a crash").await;
    broker.whole("kept").await;
    let leader = broker.leader_of("kept").await;
    assert_eq!(leader, 2, "it is led from where it was declared");
    broker.kill(leader).await;
    assert_eq!(get(&broker.url(3), "kept").await, b"over a crash");
    assert_ne!(broker.leader_of("kept").await, leader);
    broker.start_node(leader).await;
    let running = broker
        .ctl(1, &["cluster_status", "--formatter", "json"])
        .await;
    let running: serde_json::Value = serde_json::from_str(&running).unwrap();
    assert_eq!(running["running_nodes"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shared_ones_answer_and_are_one() {
    let (broker, again) = tokio::join!(services::broker_url(), services::broker_url());
    assert_eq!(broker, again);
    let (connection, _channel) = amqp(&broker).await;
    assert!(connection.status().connected());
    // From another runtime too.
    let elsewhere = tokio::task::spawn_blocking(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(services::redis_url())
    });
    let redis = services::redis_url().await;
    assert_eq!(elsewhere.await.unwrap(), redis);
    let client = redis::Client::open(redis).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let answer: String = connection.ping().await.unwrap();
    assert_eq!(answer, "PONG");
}

#[tokio::test]
async fn redis_keeps_what_it_answered_over_restarts_and_crashes() {
    let redis = RedisServer::start_with(&["maxmemory 99mb"]).await;
    let config = redis.cli(&["config", "get", "maxmemory"]).await;
    assert!(config.ends_with("103809024"), "{config}");
    assert_eq!(redis.cli(&["set", "a key", ""]).await, "OK");
    redis.restart().await;
    assert_eq!(redis.cli(&["exists", "a key"]).await, "1");
    assert_eq!(redis.cli(&["set", "b", "2"]).await, "OK");
    redis.kill().await;
    let client = redis::Client::open(redis.url()).unwrap();
    assert!(client.get_multiplexed_async_connection().await.is_err());
    redis.restart().await;
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let found: String = connection.get("b").await.unwrap();
    assert_eq!(found, "2");
    // Paused it takes connections and says nothing.
    redis.pause().await;
    let ping = async {
        let mut stream = TcpStream::connect(address(&redis.url())).await.unwrap();
        stream.write_all(b"PING\r\n").await.unwrap();
        stream.read_u8().await.unwrap()
    };
    let silent = tokio::time::timeout(Duration::from_millis(300), ping).await;
    assert!(silent.is_err(), "{silent:?}");
    redis.resume().await;
    assert_eq!(redis.cli(&["ping"]).await, "PONG");
}

/// The address in `scheme://127.0.0.1:port/`.
fn address(url: &str) -> SocketAddr {
    let (_, rest) = url.split_once("://").unwrap();
    rest.trim_end_matches('/').parse().unwrap()
}

#[tokio::test]
async fn redis_speaks_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (server, authority) = RedisServer::start_tls().await;
    let certificates = redis::TlsCertificates {
        client_tls: None,
        root_cert: Some(fs::read(authority).unwrap()),
    };
    let client = redis::Client::build_with_tls(server.url(), certificates).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let () = connection.set("a", 1).await.unwrap();
    assert_eq!(server.cli(&["get", "a"]).await, "1");
}

#[tokio::test]
async fn clusters_of_redis_share_the_slots() {
    for masters in [1, 3] {
        let cluster = RedisCluster::start(masters).await;
        let url = cluster.url();
        let nodes = url.strip_prefix("redis-cluster://").unwrap().split(',');
        let nodes: Vec<String> = nodes.map(|node| format!("redis://{node}")).collect();
        assert_eq!(nodes.len(), masters);
        let client = redis::cluster::ClusterClient::new(nodes).unwrap();
        let mut connection = client.get_async_connection().await.unwrap();
        for n in 0..50 {
            let () = connection.set(format!("k{n}"), n).await.unwrap();
        }
        let mut kept = 0;
        for master in 1..=masters {
            let size = cluster.cli(master, &["dbsize"]).await;
            let size: usize = size.parse().unwrap();
            assert!(size > 0, "master {master} has no part in it");
            kept += size;
        }
        assert_eq!(kept, 50);
    }
}

#[tokio::test]
async fn a_sentinel_knows_its_master() {
    let sentinel = RedisSentinel::start().await;
    let url = sentinel.url();
    let (node, name) = url
        .strip_prefix("redis-sentinel://")
        .and_then(|rest| rest.split_once('/'))
        .unwrap();
    let open = async |node: &str| {
        let client = redis::Client::open(format!("redis://{node}")).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    };
    let ask = redis::cmd("SENTINEL")
        .arg("get-master-addr-by-name")
        .arg(name)
        .clone();
    let (host, port): (String, u16) = ask.query_async(&mut open(node).await).await.unwrap();
    let mut connection = open(&format!("{host}:{port}")).await;
    let () = connection.set("a", 1).await.unwrap();
    assert_eq!(sentinel.cli(&["get", "a"]).await, "1");
}

/// All processes that live, as `(pid, parent)`.
fn processes() -> Vec<(u32, u32)> {
    let columns = ["-A", "-o", "pid=,ppid=,stat="];
    let listed = Command::new("ps").args(columns).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    let each = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let pid = words.next()?.parse().ok()?;
        let parent = words.next()?.parse().ok()?;
        // A zombie only waits to be counted.
        (!words.next()?.starts_with('Z')).then_some((pid, parent))
    });
    each.collect()
}

/// Those whose pids are in the `pid` files below a folder, and what they started.
fn started(folder: &Path) -> HashSet<u32> {
    let mut found = HashSet::new();
    let read = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u32>().ok();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        found.extend(read(&path.join("pid")));
        if path.extension().is_some_and(|ending| ending == "pid") {
            found.extend(read(&path));
        }
    }
    let all = processes();
    loop {
        let before = found.len();
        let children = all.iter().filter(|(_, parent)| found.contains(parent));
        let children: Vec<u32> = children.map(|(pid, _)| *pid).collect();
        found.extend(children);
        if found.len() == before {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outlives_the_input_of_a_guard() {
    for kind in ["redis", "rabbitmq"] {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/guard.sh");
        let mut guard = Command::new(script)
            .arg(kind)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut commands = guard.stdin.take().unwrap();
        let mut answers = BufReader::new(guard.stdout.take().unwrap()).lines();
        let mut next = move || answers.next().unwrap().unwrap();
        assert!(next().starts_with("ready "));
        // An interrupt at the terminal reaches the whole group.
        let group = format!("-{}", guard.id());
        let interrupt = ["-INT", "--", &group];
        let sent = Command::new("kill").args(interrupt).status().unwrap();
        assert!(sent.success());
        writeln!(commands, "dir").unwrap();
        let folder = next();
        let folder = Path::new(folder.strip_prefix("| ").unwrap());
        assert_eq!(next(), "ok");
        // One that hangs goes as well.
        writeln!(commands, "pause 1").unwrap();
        assert_eq!(next(), "ok");
        let mut left = started(&folder.join("servers"));
        let least = if kind == "redis" { 1 } else { 3 };
        assert!(left.len() >= least, "{kind}: {left:?}");

        drop(commands);
        until("the processes to end", async || {
            let alive: HashSet<u32> = processes().into_iter().map(|(pid, _)| pid).collect();
            left.retain(|pid| alive.contains(pid));
            left.is_empty().then_some(())
        })
        .await;
        let ended = tokio::task::spawn_blocking(move || guard.wait());
        assert!(ended.await.unwrap().unwrap().success());
        assert!(!folder.exists());
    }
}

/// Sends back what it gets.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

async fn said(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(bytes).await?;
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).await?;
    Ok(back)
}

#[tokio::test]
async fn a_proxy_cuts_refuses_stalls_and_delays() {
    let proxy = Proxy::start(echo().await).await;
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(said(&mut stream, b"passes").await.unwrap(), b"passes");
    let much = vec![7; 3_000_000];
    let (mut from, mut to) = stream.split();
    let mut back = vec![0; much.len()];
    let (sent, read) = tokio::join!(to.write_all(&much), from.read_exact(&mut back));
    assert!(sent.is_ok() && read.is_ok() && back == much);
    assert_eq!(proxy.connections(), 1);

    proxy.stall();
    let brief = Duration::from_millis(100);
    let stalled = tokio::time::timeout(brief, said(&mut stream, b"held")).await;
    assert!(stalled.is_err());
    proxy.flow();
    let mut held = [0; 4];
    stream.read_exact(&mut held).await.unwrap();
    assert_eq!(&held, b"held");

    proxy.delay(Duration::from_millis(50));
    let begun = Instant::now();
    said(&mut stream, b"later").await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(100));
    proxy.delay(Duration::ZERO);

    proxy.refuse().await;
    let refused = TcpStream::connect(proxy.addr()).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(said(&mut stream, b"stays").await.unwrap(), b"stays");
    proxy.cut().await;
    let reset = stream.read_u8().await.unwrap_err();
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(proxy.connections(), 0);

    proxy.accept().await;
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(said(&mut stream, b"again").await.unwrap(), b"again");
    // An orderly end is passed on as one.
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    let address = proxy.addr();
    drop(proxy);
    until("the port to close", async || {
        TcpStream::connect(address).await.err().map(drop)
    })
    .await;
}
