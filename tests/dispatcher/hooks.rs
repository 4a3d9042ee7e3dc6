//! Receivers on loopback that remember what came and answer by a script.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use carillon::cli::listen::pem;
use carillon::cli::receiver::{
    Behaviour, Received, Receiver, ReceiverSettings, Reply, TlsIdentity,
};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::Value;

use super::harness::poll_until;

/// A receiver and what came to it; paths tell its endpoints apart.
pub struct Hooks {
    receiver: Receiver,
    seen: Arc<Mutex<Vec<Received>>>,
}

impl Hooks {
    /// Answers 200 to everything.
    pub async fn start() -> Self {
        Self::answering(|_, _| status(200)).await
    }

    /// Answers as `script` says of a request and of how often it came so far, itself
    /// included, to the same path with the same `webhook-id`.
    pub async fn answering(
        script: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::serving(None, script).await
    }

    /// The same over HTTPS; returns the certificate to trust as well, in PEM.
    pub async fn secure(
        script: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static,
    ) -> (Self, String) {
        let (identity, authority) = TlsIdentity::self_signed(["127.0.0.1"]).unwrap();
        (Self::serving(Some(identity), script).await, pem(&authority))
    }

    async fn serving(
        tls: Option<TlsIdentity>,
        script: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Vec::<Received>::new()));
        let record = Arc::clone(&seen);
        let behaviour = Behaviour::scripted(move |received| {
            let mut seen = record.lock().unwrap();
            seen.push(received.clone());
            let same = |other: &&Received| {
                other.path == received.path && webhook_id(other) == webhook_id(received)
            };
            let times = seen.iter().filter(same).count();
            drop(seen);
            script(received, times)
        });
        let receiver = Receiver::start(ReceiverSettings {
            tls,
            behaviour,
            ..ReceiverSettings::default()
        });
        Self {
            receiver: receiver.await.unwrap(),
            seen,
        }
    }

    /// The URL of one of its endpoints.
    pub fn url(&self, name: &str) -> String {
        format!("{}/{name}", self.receiver.url())
    }

    /// Connections that were made to it.
    pub fn connections(&self) -> u64 {
        self.receiver.counts().connections
    }

    /// What came to an endpoint so far.
    pub fn seen(&self, name: &str) -> Vec<Received> {
        let path = format!("/{name}");
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|r| r.path == path).cloned().collect()
    }

    /// What came to an endpoint, once there are at least `count`.
    pub async fn arrived(&self, name: &str, count: usize) -> Vec<Received> {
        poll_until(&format!("{count} requests to {name}"), async || {
            let seen = self.seen(name);
            (seen.len() >= count).then_some(seen)
        })
        .await
    }
}

/// An empty answer.
pub fn status(status: u16) -> Reply {
    Reply::status(StatusCode::from_u16(status).unwrap())
}

/// An empty answer after some time.
pub fn slowly(status_code: u16, delay: Duration) -> Reply {
    status(status_code).after(delay)
}

/// An answer with a header.
pub fn with_header(reply: Reply, name: &'static str, value: &str) -> Reply {
    let mut headers = reply.headers;
    let value = HeaderValue::from_str(value).unwrap();
    headers.insert(HeaderName::from_static(name), value);
    Reply { headers, ..reply }
}

/// The `webhook-id` of a request.
pub fn webhook_id(received: &Received) -> &str {
    received.header("webhook-id").unwrap_or_default()
}

/// The body of a request as JSON.
pub fn json_body(received: &Received) -> Value {
    serde_json::from_slice(&received.body).unwrap()
}

/// The field `data.n` of every body, sorted: which events of `harness::event` came.
pub fn event_ids(received: &[Received]) -> Vec<String> {
    let n = |received| {
        json_body(received)["data"]["n"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let mut ids: Vec<String> = received.iter().map(n).collect();
    ids.sort();
    ids
}
