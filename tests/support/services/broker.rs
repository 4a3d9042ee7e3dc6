//! A private RabbitMQ.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::guard::{Servers, Settings};
use super::tls::Certificates;

/// How long a queue may be without a leader.
const LEADER_PATIENCE: Duration = Duration::from_secs(60);

/// One node or a cluster, all of a test's own; ended when dropped. One node takes some 7 s to
/// boot, three 20 s: share one where tests do not hurt each other.
pub struct Broker {
    servers: Servers,
    /// Where its TLS listener is, and what that shows.
    tls: Option<(String, Certificates)>,
}

impl Broker {
    /// Starts `nodes` nodes and waits until they form one cluster.
    pub async fn start(nodes: usize) -> Self {
        Self::start_with(nodes, &[]).await
    }

    /// The same with more lines in `rabbitmq.conf`.
    pub async fn start_with(nodes: usize, lines: &[&str]) -> Self {
        let settings = Settings::new().with("RMQ_CONF", lines.join("\n"));
        let servers = Servers::start(&["rabbitmq", &nodes.to_string()], settings).await;
        Self { servers, tls: None }
    }

    /// Starts one node that also listens for TLS at [`Self::tls_url`], with a certificate for
    /// 127.0.0.1 and `localhost`. Returns the authority's certificate, a PEM file, too.
    pub async fn start_tls() -> (Self, PathBuf) {
        let certificates = Certificates::make();
        let authority = certificates.authority();
        let settings = Settings::new().with("RMQ_TLS_DIR", certificates.folder());
        let servers = Servers::start(&["rabbitmq", "1"], settings).await;
        let url = servers.ask(&["tls-urls"]).await;
        let tls = Some((url, certificates));
        (Self { servers, tls }, authority)
    }

    /// `amqp://…` of a node; the user may do everything.
    pub fn url(&self, node: usize) -> String {
        self.servers.urls[node - 1].clone()
    }

    /// Those of all nodes, separated by commas.
    pub fn urls(&self) -> String {
        self.servers.urls.join(",")
    }

    /// `amqps://…`, when it was started so.
    pub fn tls_url(&self) -> String {
        self.tls.as_ref().unwrap().0.clone()
    }

    /// An orderly end of a node.
    pub async fn stop(&self, node: usize) {
        self.servers.tell("stop", node, &[]).await;
    }

    /// Starts a node again on its data; returns when it takes part and accepts connections. A
    /// cluster that has lost its majority does not come back with one node: see [`Self::start_all`].
    pub async fn start_node(&self, node: usize) {
        self.servers.tell("start", node, &[]).await;
    }

    /// Starts all nodes that are down, together, as after a power cut.
    pub async fn start_all(&self) {
        let numbers: Vec<String> = (1..=self.servers.urls.len())
            .map(|node| node.to_string())
            .collect();
        let words: Vec<&str> = numbers.iter().map(String::as_str).collect();
        self.servers.ask(&[&["start"], &words[..]].concat()).await;
    }

    /// Ends a node as a crash does; returns when its process is gone.
    pub async fn kill(&self, node: usize) {
        self.servers.tell("kill", node, &[]).await;
    }

    /// Has a node hang; its connections stay open. Past a minute the others take it for lost, and
    /// it may need a stop and a start after [`Self::resume`].
    pub async fn pause(&self, node: usize) {
        self.servers.tell("pause", node, &[]).await;
    }

    pub async fn resume(&self, node: usize) {
        self.servers.tell("resume", node, &[]).await;
    }

    /// `rabbitmqctl` on a node: what it prints. Takes about a second.
    pub async fn ctl(&self, node: usize, words: &[&str]) -> String {
        self.servers.tell("ctl", node, words).await
    }

    /// The node that leads a quorum queue; waits until there is one. Right after a crash it may
    /// still be the dead one.
    pub async fn leader_of(&self, queue: &str) -> usize {
        let begun = Instant::now();
        loop {
            match self.servers.try_ask(&["leader", queue]).await {
                Ok(node) => return node.parse().unwrap(),
                // The question itself takes a second.
                Err(problem) => assert!(begun.elapsed() < LEADER_PATIENCE, "{problem}"),
            }
        }
    }

    /// Resolves when a member of a quorum queue takes part on every node: then it outlives one.
    pub async fn whole(&self, queue: &str) {
        let begun = Instant::now();
        let all = self.servers.urls.len().to_string();
        loop {
            let online = self.servers.try_ask(&["online", queue]).await;
            if online.as_ref() == Ok(&all) {
                return;
            }
            let waited = begun.elapsed();
            assert!(waited < LEADER_PATIENCE, "members of {queue}: {online:?}");
        }
    }

    /// Where its files are.
    pub async fn folder(&self) -> String {
        self.servers.ask(&["dir"]).await
    }

    /// The process of a node that is up.
    pub async fn pid(&self, node: usize) -> u32 {
        let pid = self.servers.tell("pid", node, &[]).await;
        pid.parse().unwrap()
    }
}
