//! A dispatcher of one's own: in this process, in a private directory, on free ports, with
//! the calls of its API that tests make.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carillon::adapters::sqlite::OpenError;
use carillon::app::Carillon;
use carillon::config::Config;
use carillon::ports::Parcel;
use http::{HeaderMap, Method};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::backend::Place;

#[path = "described.rs"]
pub mod described;
#[path = "../support/until.rs"]
mod until;

/// The account of most tests.
pub const TENANT: &str = "acme";
/// Long enough for anything that works, on a busy machine too.
const WITHIN: Duration = Duration::from_secs(40);

/// Looks again and again until `look` gives something; fails when it has not in good time.
pub async fn poll_until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until::until(what, WITHIN, look).await
}

/// Milliseconds.
pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// An event of no special type.
pub fn event(id: &str) -> Value {
    typed_event(id, "demo.happened", &json!({ "n": id }))
}

/// An event of type `kind` that happened to [`TENANT`].
pub fn typed_event(id: &str, kind: &str, data: &Value) -> Value {
    json!({
        "id": id, "type": kind, "tenant": TENANT, "timestamp": "2026-03-01T12:30:00Z",
        "data": data,
    })
}

/// Events `e0`, `e1` and so on.
pub fn events(count: usize) -> Value {
    (0..count).map(|n| event(&format!("e{n}"))).collect()
}

/// A dispatcher that does not run: its configuration and its files.
pub struct Setup {
    folder: TempDir,
    /// What it starts with.
    pub config: Config,
    place: Place,
}

impl Setup {
    /// The default configuration but for free ports, private files, loopback allowed, no
    /// rate limit, and what `change` does.
    pub fn new(change: impl FnOnce(&mut Config)) -> Self {
        // Whoever comes second finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = TempDir::new().unwrap();
        let mut config = Config::default();
        config.embedded.path = folder.path().join("carillon.db");
        config.http.listen.set_port(0);
        config.ops.listen.set_port(0);
        config.egress.allow = vec!["127.0.0.1/32".parse().unwrap()];
        config.delivery.rate_limit = None;
        change(&mut config);
        Self {
            folder,
            config,
            place: Place::new(),
        }
    }

    /// Puts parcels where it will find them.
    pub async fn put(&self, parcels: Vec<Parcel>) {
        self.place.put(&self.config, parcels).await;
    }

    /// A path for another file.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts it, as soon as the one before has let go of the file: what that did not wait
    /// for when it stopped goes on in this process.
    pub async fn start(mut self) -> Dispatcher {
        self.place.prepare(&mut self.config).await;
        let carillon = started(&self.config).await;
        let base = format!("http://{}", carillon.api_addr());
        let ops = format!("http://{}", carillon.ops_addr());
        let api = Api::at(&base, &ops, None);
        Dispatcher {
            carillon,
            api,
            setup: self,
        }
    }
}

/// Starts one as soon as the file is free. A program that another test starts just now holds what
/// this process has open, for the moment until it is itself.
pub async fn started(config: &Config) -> Carillon {
    poll_until("the file is free", async || {
        match Carillon::start(config).await {
            Err(error) if is_in_use(&error) => None,
            started => Some(started.unwrap()),
        }
    })
    .await
}

fn is_in_use(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(OpenError::InUse(_)))
}

/// A dispatcher that runs.
pub struct Dispatcher {
    carillon: Carillon,
    /// Speaks to it.
    pub api: Api,
    setup: Setup,
}

impl Dispatcher {
    /// Starts one with the configuration of [`Setup::new`].
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Starts one with a changed configuration.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Setup::new(change).start().await
    }

    /// What it was started with.
    #[allow(
        dead_code,
        reason = "only some of the binaries with this module need it"
    )]
    pub fn config(&self) -> &Config {
        &self.setup.config
    }

    /// Drains it; says whether all requests ended in time.
    pub async fn stop(self) -> (Setup, bool) {
        let ended = self.carillon.stop().await;
        (self.setup, ended)
    }

    /// Stops it and starts it again on the same file.
    pub async fn restart(self) -> Self {
        self.stop().await.0.start().await
    }
}

/// What the API answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The document; null when there is none.
    pub body: Value,
}

impl Answer {
    /// The document of an answer with this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// The document of a refusal: a whole problem document (RFC 9457).
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Value {
        let body = &self.body;
        assert_eq!(self.status, status, "{body}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(body["code"], code, "{body}");
        assert_eq!(body["status"], status, "{body}");
        for member in ["type", "title", "detail"] {
            let text = body[member].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{member}: {body}");
        }
        self.body
    }
}

/// A subscription as it was created.
#[derive(Debug)]
pub struct Subscribed {
    /// Its id.
    pub id: String,
    /// The whole answer.
    pub document: Value,
}

impl Subscribed {
    /// Its path in the API.
    pub fn path(&self) -> String {
        format!("/v1/subscriptions/{}", self.id)
    }

    /// Its secret as Standard Webhooks writes it.
    pub fn whsec(&self) -> &str {
        self.document["secret"]["whsec"].as_str().unwrap()
    }
}

/// Speaks to the API and to the operations listener.
#[derive(Clone)]
pub struct Api {
    base: String,
    ops: String,
    client: reqwest::Client,
    /// What was answered with success.
    succeeded: Arc<Mutex<BTreeSet<String>>>,
    /// Sent along with every request.
    pub token: Option<String>,
}

impl Api {
    /// That of a process, with what is sent along.
    pub fn at(base: &str, ops: &str, token: Option<String>) -> Self {
        Self {
            base: base.to_owned(),
            ops: ops.to_owned(),
            client: reqwest::Client::new(),
            succeeded: Arc::default(),
            token,
        }
    }

    /// Where it is, for other clients.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A request to the API, to be sent by [`Api::send`].
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Which operations were answered with success: method and path, as they are described.
    #[allow(
        dead_code,
        reason = "only some of the binaries with this module need it"
    )]
    pub fn succeeded(&self) -> BTreeSet<String> {
        self.succeeded.lock().unwrap().clone()
    }

    /// Sends a request; fails when the answer is none that is described.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let request = request.build().unwrap();
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let response = self.client.execute(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await.unwrap();
        let body = match bytes.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                let text = String::from_utf8_lossy(&bytes);
                panic!("{status}, no JSON ({error}): {text}")
            }),
        };
        let operation = described::check(&method, &path, status, &headers, &body);
        if status < 300 {
            self.succeeded.lock().unwrap().extend(operation);
        }
        Answer {
            status,
            headers,
            body,
        }
    }

    /// `GET`
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// `POST` of a document.
    pub async fn post(&self, path: &str, document: &Value) -> Answer {
        let request = self.request(Method::POST, path).json(document);
        self.send(request).await
    }

    /// `PUT` of a document.
    pub async fn put(&self, path: &str, document: &Value) -> Answer {
        let request = self.request(Method::PUT, path).json(document);
        self.send(request).await
    }

    /// `PATCH` with a merge patch.
    pub async fn patch(&self, path: &str, patch: &Value) -> Answer {
        let request = self.request(Method::PATCH, path).json(patch);
        self.send(request).await
    }

    /// `DELETE`
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// The `items` of a list.
    pub async fn items(&self, path: &str) -> Vec<Value> {
        let list = self.get(path).await.expect(200);
        list["items"].as_array().unwrap().clone()
    }

    /// The `items` of a list, once there are at least `count`.
    pub async fn items_when(&self, path: &str, count: usize) -> Vec<Value> {
        poll_until(&format!("{count} items of {path}"), async || {
            let items = self.items(path).await;
            (items.len() >= count).then_some(items)
        })
        .await
    }

    /// Publishes one event, or an array of them.
    pub async fn publish(&self, events: &Value) {
        let count = events.as_array().map_or(1, Vec::len);
        let accepted = self.post("/v1/events", events).await.expect(202);
        assert_eq!(accepted, json!({ "accepted": count }));
    }

    /// Publishes a body of any kind.
    pub async fn publish_raw(
        &self,
        body: impl Into<Vec<u8>>,
        content_type: Option<&str>,
    ) -> Answer {
        let request = self.request(Method::POST, "/v1/events").body(body.into());
        self.send(match content_type {
            Some(content_type) => request.header("content-type", content_type),
            None => request,
        })
        .await
    }

    /// Creates a subscription of [`TENANT`] for `url` with what `more` says.
    pub async fn subscribe(&self, url: &str, more: Value) -> Subscribed {
        let mut document = json!({ "tenant": TENANT, "url": url });
        let Value::Object(more) = more else {
            panic!("{more} is no object");
        };
        document.as_object_mut().unwrap().extend(more);
        let created = self.post("/v1/subscriptions", &document).await.expect(201);
        Subscribed {
            id: created["id"].as_str().unwrap().to_owned(),
            document: created,
        }
    }

    /// A path of the operations listener: status and text.
    pub async fn ops(&self, path: &str) -> (u16, String) {
        let url = format!("{}{path}", self.ops);
        let response = self.client.get(url).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// A metric, by its name with labels as it is shown; 0 when it is not.
    pub async fn metric(&self, series: &str) -> f64 {
        let (status, text) = self.ops("/metrics").await;
        assert_eq!(status, 200);
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    /// The sum of some metrics at one moment.
    pub async fn sum(&self, all_series: &[&str]) -> f64 {
        let (status, text) = self.ops("/metrics").await;
        assert_eq!(status, 200);
        let value = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            all_series
                .contains(&series)
                .then(|| value.parse::<f64>().unwrap())
        };
        text.lines().filter_map(value).sum()
    }

    /// Deliveries that wait or are under way again.
    pub async fn waiting(&self) -> f64 {
        self.sum(&[
            "carillon_queue_messages{queue=\"deliveries\"}",
            "carillon_queue_messages{queue=\"wait\"}",
            "carillon_in_flight{stage=\"deliveries\"}",
        ])
        .await
    }

    /// Waits until all that was published is delivered, given up or quarantined.
    pub async fn settled(&self) {
        let mut looks = 0;
        poll_until("everything settled", async || {
            looks += 1;
            let events = [
                "carillon_queue_messages{queue=\"events\"}",
                "carillon_in_flight{stage=\"events\"}",
            ];
            if self.sum(&events).await > 0.0 || self.waiting().await > 0.0 {
                looks = 0;
                return None;
            }
            (looks >= Place::SETTLED_LOOKS).then_some(())
        })
        .await;
    }
}
