//! Private Redis servers: one, a cluster, or one behind a sentinel.

use std::path::PathBuf;

use super::guard::{Servers, Settings};
use super::tls::Certificates;

/// One server of a test's own that writes through to its file; ended when dropped.
pub struct RedisServer {
    servers: Servers,
    /// Where its TLS listener is, and what that shows.
    tls: Option<(String, Certificates)>,
}

impl RedisServer {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With more lines in `redis.conf`; of two about one thing the later counts.
    pub async fn start_with(lines: &[&str]) -> Self {
        let settings = Settings::new().with("REDIS_CONF", lines.join("\n"));
        let servers = Servers::start(&["redis"], settings).await;
        Self { servers, tls: None }
    }

    /// Starts one whose [`Self::url`] is `rediss://…`, with a certificate for 127.0.0.1 and
    /// `localhost`. Returns the authority's certificate, a PEM file, too.
    pub async fn start_tls() -> (Self, PathBuf) {
        let certificates = Certificates::make();
        let authority = certificates.authority();
        let settings = Settings::new().with("REDIS_TLS_DIR", certificates.folder());
        let servers = Servers::start(&["redis"], settings).await;
        let url = servers.ask(&["tls-urls"]).await;
        let tls = Some((url, certificates));
        (Self { servers, tls }, authority)
    }

    pub fn url(&self) -> String {
        match &self.tls {
            Some((url, _)) => url.clone(),
            None => self.servers.urls[0].clone(),
        }
    }

    /// An orderly end.
    pub async fn stop(&self) {
        self.servers.tell("stop", 1, &[]).await;
    }

    /// Starts it again on its data, whatever ended it; returns when it answers.
    pub async fn restart(&self) {
        self.servers.tell("stop", 1, &[]).await;
        self.servers.tell("start", 1, &[]).await;
    }

    /// Ends it as a crash does; returns when its process is gone.
    pub async fn kill(&self) {
        self.servers.tell("kill", 1, &[]).await;
    }

    /// Has it hang; its connections stay open.
    pub async fn pause(&self) {
        self.servers.tell("pause", 1, &[]).await;
    }

    pub async fn resume(&self) {
        self.servers.tell("resume", 1, &[]).await;
    }

    /// `redis-cli`: what it prints.
    pub async fn cli(&self, words: &[&str]) -> String {
        self.servers.tell("cli", 1, words).await
    }

    /// Where its files are.
    pub async fn folder(&self) -> String {
        self.servers.ask(&["dir"]).await
    }

    /// Its process, when it is up.
    pub async fn pid(&self) -> u32 {
        let pid = self.servers.tell("pid", 1, &[]).await;
        pid.parse().unwrap()
    }
}

/// Masters that share all slots between them, without replicas.
pub struct RedisCluster(Servers);

impl RedisCluster {
    /// Starts one to three masters and waits until each knows the others.
    pub async fn start(masters: usize) -> Self {
        let what = ["redis-cluster", &masters.to_string()];
        Self(Servers::start(&what, Settings::new()).await)
    }

    /// `redis-cluster://127.0.0.1:p1,127.0.0.1:p2`
    pub fn url(&self) -> String {
        self.0.urls[0].clone()
    }

    /// `redis-cli` on one master: what it prints.
    pub async fn cli(&self, master: usize, words: &[&str]) -> String {
        self.0.tell("cli", master, words).await
    }

    pub async fn kill(&self, master: usize) {
        self.0.tell("kill", master, &[]).await;
    }

    /// Starts a master again on its data; the others take it back a moment later.
    pub async fn restart(&self, master: usize) {
        self.0.tell("stop", master, &[]).await;
        self.0.tell("start", master, &[]).await;
    }
}

/// A master by the name of `mymaster`, and one sentinel that decides alone.
pub struct RedisSentinel(Servers);

impl RedisSentinel {
    pub async fn start() -> Self {
        Self(Servers::start(&["redis-sentinel"], Settings::new()).await)
    }

    /// `redis-sentinel://127.0.0.1:p/mymaster`: where the sentinel is.
    pub fn url(&self) -> String {
        self.0.urls[0].clone()
    }

    /// `redis-cli` on the master: what it prints.
    pub async fn cli(&self, words: &[&str]) -> String {
        self.0.tell("cli", 1, words).await
    }

    /// Ends the master as a crash does.
    pub async fn kill_master(&self) {
        self.0.tell("kill", 1, &[]).await;
    }

    /// Starts the master again on its data.
    pub async fn restart_master(&self) {
        self.0.tell("stop", 1, &[]).await;
        self.0.tell("start", 1, &[]).await;
    }
}
