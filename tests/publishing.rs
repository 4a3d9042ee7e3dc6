//! docs/publishing.md: each of its examples runs as it stands there, and what it publishes
//! arrives.

// A test that cannot go on is to end, in what it shares with others too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use bytes::Bytes;
use carillon::app::Carillon;
use carillon::cli::receiver::{Behaviour, Receiver, ReceiverSettings, channel};
use carillon::codec::event::decode;
use carillon::config::Config;
use lapin::options::{
    BasicGetOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use secrecy::SecretString;
use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;

#[path = "support/services.rs"]
mod services;

use services::Proxy;

const PAGE: &str = include_str!("../docs/publishing.md");
const RUST: &str = include_str!("../examples/publish.rs");
const TOKEN: &str = "correct-horse-battery";
/// Names of this run's own, on a broker that others use too.
const PREFIX: &str = "carillon-test-publishing";
/// What a test that ended badly leaves behind goes away after that.
const QUEUE_EXPIRES_MS: i32 = 10 * 60 * 1000;

/// The text of the block below `<!-- example: NAME -->`.
fn example(name: &str) -> &'static str {
    let mark = format!("<!-- example: {name} -->\n```");
    let mut found = PAGE.split(&mark).skip(1);
    let block = found.next().unwrap_or_else(|| panic!("no {mark}"));
    assert!(found.next().is_none(), "{name} is there twice");
    let (_language, block) = block.split_once('\n').unwrap();
    let (text, _) = block.split_once("\n```\n").unwrap();
    text
}

/// What every example publishes.
fn expected() -> Value {
    json!({
        "id": "scan-4711", "type": "scan.finished", "tenant": "acme",
        "timestamp": "2026-03-01T12:30:00Z", "data": { "findings": 3 },
    })
}

async fn blocking<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(what).await.unwrap()
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {err}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn every_example_is_marked_and_run_here() {
    let marks = PAGE.matches("<!-- example: ").count();
    let names = ["publish.py", "examples/publish.rs", "publish.sh"];
    assert_eq!(marks, names.len());
    assert!(names.iter().all(|name| !example(name).is_empty()));
    let same = format!("{}\n", example("examples/publish.rs")) == RUST;
    assert!(same, "copy examples/publish.rs into docs/publishing.md");
}

#[test]
fn the_event_that_is_shown_is_the_one_that_is_published() {
    let (_, block) = PAGE.split_once("```json\n").unwrap();
    let (shown, _) = block.split_once("```").unwrap();
    assert_eq!(serde_json::from_str::<Value>(shown).unwrap(), expected());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_example_publishes_to_the_api() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = TempDir::new().unwrap();
    let mut config = Config::default();
    config.embedded.path = folder.path().join("carillon.db");
    config.http.listen.set_port(0);
    config.http.admin_token = Some(SecretString::from(TOKEN));
    config.ops.listen.set_port(0);
    config.egress.allow = vec!["127.0.0.1/32".parse().unwrap()];
    let carillon = Carillon::start(&config).await.unwrap();
    let api = format!("http://{}", carillon.api_addr());
    let (observer, mut received) = channel();
    let receiver = Receiver::start(ReceiverSettings {
        behaviour: Behaviour::default(),
        observer: Some(observer),
        ..ReceiverSettings::default()
    });
    let receiver = receiver.await.unwrap();
    let wanted = json!({ "tenant": "acme", "url": receiver.url(), "event_types": ["scan.*"] });
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let created = client
        .post(format!("{api}/v1/subscriptions"))
        .bearer_auth(TOKEN)
        .json(&wanted)
        .send();
    assert_eq!(created.await.unwrap().status(), 201);

    let shell = |token: &'static str| {
        let api = api.clone();
        blocking(move || {
            Command::new("sh")
                .args(["-c", example("publish.sh")])
                .env("CARILLON_API", api)
                .env("CARILLON_TOKEN", token)
                .env("NO_PROXY", "127.0.0.1")
                .output()
                .unwrap()
        })
    };
    let refused = shell("wrong").await;
    assert!(!refused.status.success());
    let answer = succeeded(&shell(TOKEN).await);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer, json!({ "accepted": 1 }));
    let webhook = received.recv().await.unwrap();
    let body: Value = serde_json::from_slice(&webhook.body).unwrap();
    assert_eq!(body["type"], expected()["type"]);
    assert_eq!(body["data"], expected()["data"]);
    assert!(carillon.stop().await);
}

/// An exchange of the test's own, as Carillon's is, and the queue behind it.
struct Broker {
    url: String,
    exchange: String,
    channel: Channel,
    _connection: Connection,
}

impl Broker {
    /// Declares an exchange; nothing is bound to it yet.
    async fn declare(name: &str) -> Self {
        let url = services::broker_url().await;
        let connection = Connection::connect(&url, ConnectionProperties::default());
        let connection = connection.await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let exchange = format!("{PREFIX}.{}.{name}", std::process::id());
        let options = ExchangeDeclareOptions::default();
        let none = FieldTable::default();
        let declared =
            channel.exchange_declare(exchange.as_str().into(), ExchangeKind::Topic, options, none);
        declared.await.unwrap();
        Self {
            url,
            exchange,
            channel,
            _connection: connection,
        }
    }

    /// Binds a queue to everything, as Carillon does.
    async fn bind(&self) {
        let mut arguments = FieldTable::default();
        let kind = AMQPValue::LongString("quorum".into());
        arguments.insert("x-queue-type".into(), kind);
        arguments.insert("x-expires".into(), AMQPValue::LongInt(QUEUE_EXPIRES_MS));
        let name = || self.exchange.as_str().into();
        let queue = QueueDeclareOptions::durable();
        let declared = self.channel.queue_declare(name(), queue, arguments);
        declared.await.unwrap();
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        let bound = self
            .channel
            .queue_bind(name(), name(), "#".into(), options, none);
        bound.await.unwrap();
    }

    /// The queue holds the event once, as a publisher is to send it.
    async fn holds_the_event(&self) {
        let get = || {
            let queue = self.exchange.as_str().into();
            self.channel
                .basic_get(queue, BasicGetOptions { no_ack: true })
        };
        let message = get().await.unwrap().expect("the queue is empty").delivery;
        assert!(get().await.unwrap().is_none(), "published twice");
        assert_eq!(message.routing_key.as_str(), expected()["type"]);
        let content_type = message.properties.content_type().as_ref();
        let content_type = content_type.map(|text| text.as_str());
        assert_eq!(content_type, Some("application/json"));
        assert_eq!(
            *message.properties.delivery_mode(),
            Some(2),
            "not persistent"
        );
        assert!(message.properties.expiration().is_none());
        let found: Value = serde_json::from_slice(&message.data).unwrap();
        assert_eq!(found, expected());
        decode(&Bytes::from(message.data), content_type, 1 << 20).unwrap();
    }

    async fn remove(self) {
        let name = || self.exchange.as_str().into();
        let queue = self
            .channel
            .queue_delete(name(), QueueDeleteOptions::default());
        queue.await.unwrap();
        let exchange = ExchangeDeleteOptions::default();
        self.channel
            .exchange_delete(name(), exchange)
            .await
            .unwrap();
    }
}

/// A program that runs; ended when it is dropped before it has ended.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> (Self, Stderr) {
        let spawned = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = spawned.unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        (Self(child), stderr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

type Stderr = BufReader<ChildStderr>;

/// Reads on until a line that has `text`; returns that line.
async fn told(mut stderr: Stderr, text: &'static str) -> (String, Stderr) {
    blocking(move || {
        let mut line = String::new();
        while stderr.read_line(&mut line).unwrap() > 0 && !line.contains(text) {
            line.clear();
        }
        assert!(!line.is_empty(), "it ended without saying `{text}`");
        (line, stderr)
    })
    .await
}

/// Where `proxy` is, as the broker's URL.
fn through(proxy: &Proxy, broker: &Url) -> String {
    let mut url = broker.clone();
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(proxy.addr().port())).unwrap();
    url.into()
}

async fn address(broker: &Url) -> SocketAddr {
    let host = broker.host_str().unwrap();
    let port = broker.port().unwrap_or(5672);
    let mut found = tokio::net::lookup_host((host, port)).await.unwrap();
    found.next().unwrap()
}

/// Runs a publisher twice: first the broker cannot be reached, then nothing is bound, then a
/// queue is there; the second time it is there from the beginning.
async fn publishes(name: &str, program: impl Fn() -> Command) {
    let broker = Broker::declare(name).await;
    let url = Url::parse(&broker.url).unwrap();
    let proxy = Proxy::start(address(&url).await).await;
    let command = || {
        let mut command = program();
        command.env("BROKER_URL", through(&proxy, &url));
        command.env("EVENTS_EXCHANGE", &broker.exchange);
        command
    };
    proxy.refuse().await;
    let (mut running, stderr) = Running::start(command());
    let (line, stderr) = told(stderr, "try 1 of").await;
    assert!(!line.contains("returned"), "{line}");
    proxy.accept().await;
    let (_, mut stderr) = told(stderr, "returned").await;
    broker.bind().await;
    let ended = blocking(move || {
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        (running.0.wait().unwrap(), rest)
    });
    let (status, rest) = ended.await;
    assert!(status.success(), "{status}: {rest}");
    broker.holds_the_event().await;

    let mut command = command();
    let output = blocking(move || command.output().unwrap()).await;
    assert!(succeeded(&output).contains("scan-4711"));
    broker.holds_the_event().await;
    broker.remove().await;
}

/// A Python with pika: the one that is there, or one in `folder`, with pika from PyPI.
fn python_with_pika(folder: &Path) -> PathBuf {
    let runs = |program: &Path, args: &[&str]| {
        let output = Command::new(program).args(args).output();
        output
            .map_err(|error| error.to_string())
            .and_then(|output| {
                let err = String::from_utf8_lossy(&output.stderr).into_owned();
                output.status.success().then_some(()).ok_or(err)
            })
    };
    let python = PathBuf::from("python3");
    if let Err(error) = runs(&python, &["--version"]) {
        panic!("the Python example needs `python3` to be tested: {error}");
    }
    if runs(&python, &["-c", "import pika"]).is_ok() {
        return python;
    }
    if let Err(error) = runs(&python, &["-m", "venv", folder.to_str().unwrap()]) {
        panic!("the Python example needs Python's `venv` to be tested: {error}");
    }
    let python = folder.join("bin/python");
    let install = ["-m", "pip", "install", "--quiet", "pika"];
    if let Err(error) = runs(&python, &install) {
        panic!("the Python example needs pika, which cannot be had from PyPI: {error}");
    }
    python
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_example_publishes_to_the_broker() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("publish.py");
    fs::write(&file, example("publish.py")).unwrap();
    let home = folder.path().join("python");
    let python = blocking(move || python_with_pika(&home)).await;
    let program = || {
        let mut command = Command::new(&python);
        command.arg(&file);
        command
    };
    publishes("python", program).await;
}

/// The built example: `cargo test` builds it, a single test target does not.
fn built_example() -> PathBuf {
    let programs = Path::new(env!("CARGO_BIN_EXE_carillon")).parent().unwrap();
    let built = programs.join("examples/publish");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/publish.rs");
    let age = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    let current = age(&built) >= age(&source);
    assert!(
        current,
        "{} is not built, or older than its source: `cargo build --example publish`",
        built.display()
    );
    built
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_example_publishes_to_the_broker() {
    let built = built_example();
    publishes("rust", || Command::new(&built)).await;
}
