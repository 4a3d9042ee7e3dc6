//! `carillon serve`, the real program, and what can be asked of it.

use std::collections::HashMap;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::publisher::Message;
use crate::process::Process;
pub use crate::process::{Variables, command};

#[path = "../support/until.rs"]
mod until;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(240);
/// How long one answer of the dispatcher may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const EVENTS_PER_CALL: usize = 500;

/// A running `carillon serve`, and a client of it.
pub struct Dispatcher {
    process: Process,
    client: reqwest::Client,
}

/// What `/metrics` said.
pub struct Metrics(HashMap<String, f64>);

/// What a dispatcher has in flight, by its own account.
#[derive(Clone, Copy, Debug, Default)]
pub struct InFlight {
    /// Events taken and not settled.
    pub events: usize,
    /// Due deliveries taken and not settled.
    pub deliveries: usize,
    /// Deliveries that wait in lanes.
    pub held: usize,
    /// Permits: requests, and what follows them until it is settled.
    pub requests: usize,
}

impl std::fmt::Display for InFlight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            events,
            deliveries,
            held,
            requests,
        } = self;
        write!(
            f,
            "{events} events, {deliveries} due, {held} held, {requests} requests"
        )
    }
}

impl Dispatcher {
    /// Starts one in `folder`.
    pub fn start(folder: &Path, variables: &Variables) -> Self {
        let mut command = command(folder, variables);
        command.stdout(Stdio::null());
        let client = reqwest::Client::builder().timeout(ANSWER_LIMIT);
        Self {
            process: Process::start(command),
            client: client.build().unwrap(),
        }
    }

    /// Where its API is.
    pub fn api(&self) -> &str {
        self.process.api()
    }

    /// Waits until it is ready.
    pub async fn ready(&self) {
        until("the dispatcher to be ready", async || {
            (self.readiness().await? == 200).then_some(())
        })
        .await;
    }

    /// The status of `/readyz`; `None` when it does not answer.
    pub async fn readiness(&self) -> Option<u16> {
        let asked = self
            .client
            .get(format!("{}/readyz", self.process.ops()))
            .send()
            .await;
        Some(asked.ok()?.status().as_u16())
    }

    /// What `/metrics` says; `None` when it does not answer.
    pub async fn try_metrics(&self) -> Option<Metrics> {
        let asked = self
            .client
            .get(format!("{}/metrics", self.process.ops()))
            .send();
        let text = asked.await.ok()?.text().await.ok()?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let series = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Some(Metrics(series.collect()))
    }

    /// The same, when it has to answer.
    pub async fn metrics(&self) -> Metrics {
        self.try_metrics().await.expect("/metrics answers")
    }

    /// A call of its API that has to succeed.
    pub async fn get(&self, path: &str) -> Value {
        let asked = self
            .client
            .get(format!("{}{path}", self.api()))
            .send()
            .await;
        asked
            .unwrap()
            .error_for_status()
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    /// Declares subscriptions, by the API.
    pub async fn declare(&self, subscriptions: &[Value]) -> Value {
        let url = format!("{}/v1/subscriptions", self.api());
        let asked = self
            .client
            .put(url)
            .json(&subscriptions)
            .send()
            .await
            .unwrap();
        let (status, answer) = (asked.status(), asked.text().await.unwrap());
        assert!(status.is_success(), "{status}: {answer}");
        serde_json::from_str(&answer).unwrap()
    }

    /// Publishes events of JSON, by the API.
    pub async fn publish(&self, events: &[Message]) {
        let bodies: Vec<_> = events.iter().map(|event| event.body.as_slice()).collect();
        let calls = bodies.chunks(EVENTS_PER_CALL).map(|bodies| {
            let call = [b"[".as_slice(), &bodies.join(&b','), b"]"].concat();
            let request = self.client.post(format!("{}/v1/events", self.api()));
            request
                .header("content-type", "application/json")
                .body(call)
        });
        for call in calls {
            let status = call.send().await.unwrap().status();
            assert_eq!(status, 202, "events are published");
        }
    }

    /// The most memory it had, in bytes.
    pub fn peak_bytes(&self) -> usize {
        let status = format!("/proc/{}/status", self.process.pid());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.unwrap().trim().trim_end_matches("kB").trim();
        kib.parse::<usize>().unwrap() * 1024
    }

    /// SIGKILL, and gone.
    pub fn kill(self) {
        self.process.kill();
    }

    /// SIGTERM, and waits for its end.
    pub async fn terminate(mut self) -> ExitStatus {
        self.process.tell_to_end();
        until("the dispatcher to end", async || self.process.ended()).await
    }
}

impl Metrics {
    /// The value of a series, named as it stands on the page; 0 when it is absent.
    pub fn value(&self, series: &str) -> usize {
        self.0.get(series).copied().unwrap_or(0.0) as usize
    }

    /// Messages ready in a queue.
    pub fn queue(&self, name: &str) -> usize {
        self.value(&format!("carillon_queue_messages{{queue=\"{name}\"}}"))
    }

    /// What is in flight.
    pub fn in_flight(&self) -> InFlight {
        let stage = |name| self.value(&format!("carillon_in_flight{{stage=\"{name}\"}}"));
        InFlight {
            events: stage("events"),
            deliveries: stage("deliveries"),
            held: stage("held"),
            requests: stage("requests"),
        }
    }

    /// Whether nothing is on its way, by what can be seen from inside.
    pub fn is_at_rest(&self) -> bool {
        let InFlight {
            events,
            deliveries,
            held,
            requests,
        } = self.in_flight();
        let queued = self.queue("events") + self.queue("deliveries") + self.queue("wait");
        queued + events + deliveries + held + requests == 0
    }
}

/// Looks until there is something to be seen.
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until::until(what, PATIENCE, look).await
}

/// Looks until it is so.
pub async fn until_true(what: &str, mut is_so: impl FnMut() -> bool) {
    let mut looks = until::Looks::new(PATIENCE);
    while !is_so() {
        looks.next(what).await;
    }
}
