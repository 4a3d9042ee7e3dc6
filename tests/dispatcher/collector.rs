//! A collector of spans: a real OTLP service, over gRPC on loopback, that remembers what came.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use url::Url;

type Requests = Arc<Mutex<Vec<ExportTraceServiceRequest>>>;

/// A running collector; ended when dropped.
pub struct Collector {
    url: Url,
    requests: Requests,
    serving: JoinHandle<()>,
}

/// A span as it came.
#[derive(Clone, Debug)]
pub struct Span {
    pub name: String,
    /// `internal`, `client`, `producer` or `consumer`.
    pub kind: &'static str,
    pub trace: String,
    pub id: String,
    /// Empty for the first of a trace.
    pub parent: String,
    /// Whether the parent is said to be of another process.
    pub parent_is_remote: bool,
    /// The spans that it has links to.
    pub links: Vec<String>,
    pub attributes: BTreeMap<String, Value>,
    /// What an error says; `None` when there was none.
    pub error: Option<String>,
    pub began: u64,
    pub ended: u64,
    /// Who sent it.
    pub resource: BTreeMap<String, Value>,
}

struct Remember(Requests);

#[tonic::async_trait]
impl TraceService for Remember {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Starts one.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = url_of(&listener);
        let requests = Requests::default();
        let service = TraceServiceServer::new(Remember(Arc::clone(&requests)));
        let serving = Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpIncoming::from(listener));
        Self {
            url,
            requests,
            serving: tokio::spawn(async move { serving.await.unwrap() }),
        }
    }

    /// Where it is: for `telemetry.otlp_endpoint`.
    pub fn url(&self) -> Url {
        self.url.clone()
    }

    /// All that came, as bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let requests = self.requests.lock().unwrap();
        requests
            .iter()
            .flat_map(ExportTraceServiceRequest::encode_to_vec)
            .collect()
    }

    /// All spans that came, by their beginning.
    pub fn spans(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        for request in self.requests.lock().unwrap().iter() {
            for of_resource in &request.resource_spans {
                let resource = of_resource.resource.as_ref().unwrap();
                let resource = attributes(&resource.attributes);
                for scope in &of_resource.scope_spans {
                    let read = scope.spans.iter().map(|span| read(span, &resource));
                    spans.extend(read);
                }
            }
        }
        spans.sort_by_key(|span: &Span| span.began);
        spans
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Span {
    /// An attribute; null when it is not there.
    pub fn get(&self, key: &str) -> &Value {
        self.attributes.get(key).unwrap_or(&Value::Null)
    }

    /// Its `traceparent`, with the flag of a trace that is kept.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace, self.id)
    }
}

/// The address of a listener.
pub fn url_of(listener: &TcpListener) -> Url {
    let address = listener.local_addr().unwrap();
    format!("http://{address}").parse().unwrap()
}

fn read(
    span: &opentelemetry_proto::tonic::trace::v1::Span,
    resource: &BTreeMap<String, Value>,
) -> Span {
    const IS_REMOTE: u32 = 0x200;
    const ERROR: i32 = 2;
    let kinds = ["", "internal", "server", "client", "producer", "consumer"];
    let links = span.links.iter().map(|link| hex::encode(&link.span_id));
    let status = span.status.as_ref();
    let error = status.filter(|status| status.code == ERROR);
    Span {
        name: span.name.clone(),
        kind: kinds[usize::try_from(span.kind).unwrap()],
        trace: hex::encode(&span.trace_id),
        id: hex::encode(&span.span_id),
        parent: hex::encode(&span.parent_span_id),
        parent_is_remote: span.flags & IS_REMOTE != 0,
        links: links.collect(),
        attributes: attributes(&span.attributes),
        error: error.map(|status| status.message.clone()),
        began: span.start_time_unix_nano,
        ended: span.end_time_unix_nano,
        resource: resource.clone(),
    }
}

fn attributes(all: &[KeyValue]) -> BTreeMap<String, Value> {
    let read = |one: &KeyValue| {
        let value = match one.value.as_ref().unwrap().value.as_ref().unwrap() {
            Any::StringValue(text) => json!(text),
            Any::BoolValue(truth) => json!(truth),
            Any::IntValue(number) => json!(number),
            other => panic!("{other:?} is not expected"),
        };
        (one.key.clone(), value)
    };
    all.iter().map(read).collect()
}
