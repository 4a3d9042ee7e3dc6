//! The transport under test: what it is allowed, what it is asked, and what came of it.

use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use carillon::adapters::https::{HttpsSettings, HttpsTransport};
use carillon::domain::address::{EgressRule, EgressRules};
use carillon::domain::attempt::Response;
use carillon::domain::outcome::Failure;
use carillon::ports::{Exchange, Transport, WebhookRequest};
use rustls_pki_types::CertificateDer;
use url::Url;

use crate::name_server::NameServer;

/// Long enough for anything that works.
pub const AMPLE: Duration = Duration::from_secs(20);
/// Short enough to wait for.
pub const SHORT: Duration = Duration::from_millis(400);
/// A busy machine's excuse on top of a limit.
pub const GRACE: Duration = Duration::from_secs(4);

pub fn settings(allow: &[&str]) -> HttpsSettings {
    HttpsSettings {
        rules: EgressRules {
            allow: allow.iter().map(|net| net.parse().unwrap()).collect(),
            deny: Vec::new(),
        },
        connect_timeout: AMPLE,
        extra_roots: Vec::new(),
        name_servers: Some(Vec::new()),
    }
}

pub fn transport(settings: HttpsSettings) -> HttpsTransport {
    HttpsTransport::new(settings).unwrap()
}

/// May connect to loopback.
pub fn local() -> HttpsTransport {
    transport(settings(&["127.0.0.0/8"]))
}

pub fn trusting(root: &CertificateDer<'static>) -> HttpsTransport {
    transport(HttpsSettings {
        extra_roots: vec![root.clone()],
        ..settings(&["127.0.0.0/8"])
    })
}

pub fn asking(name_server: &NameServer, allow: &[&str]) -> HttpsTransport {
    transport(HttpsSettings {
        name_servers: Some(vec![name_server.address]),
        ..settings(allow)
    })
}

pub async fn post(transport: &HttpsTransport, url: &str, timeout: Duration) -> Exchange {
    let request = WebhookRequest {
        url: Url::parse(url).unwrap(),
        headers: vec![
            ("content-type".to_owned(), "application/json".to_owned()),
            ("user-agent".to_owned(), "Carillon/test".to_owned()),
        ],
        body: Bytes::from_static(b"{}"),
        timeout,
    };
    transport.send(request).await
}

pub fn answer(exchange: Exchange) -> Response {
    assert_eq!(exchange.detail, "");
    exchange.result.unwrap()
}

/// The failure, whose sentence must be one line without the URL's query.
pub fn failure(exchange: &Exchange) -> Failure {
    let failure = exchange.result.as_ref().unwrap_err().clone();
    assert!(!exchange.detail.is_empty(), "{failure:?}");
    assert!(
        !exchange.detail.contains(['\n', '?']),
        "{}",
        exchange.detail
    );
    assert!(!exchange.detail.contains("s3cret"), "{}", exchange.detail);
    failure
}

pub fn blocked_by(exchange: &Exchange) -> EgressRule {
    match failure(exchange) {
        Failure::Blocked(refusal) => refusal.rule,
        other => panic!("{other:?}: {}", exchange.detail),
    }
}

/// Tells a process that it is one that `alone` started.
const ALONE: &str = "CARILLON_TEST_ALONE";

/// Runs a test again in a process of its own: `test` is its full name, and `prepare` changes what
/// the process is to find. There, [`is_alone`] says so.
pub fn alone(test: &str, prepare: impl FnOnce(&mut Command)) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test]).env(ALONE, "1");
    prepare(&mut command);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let ran = String::from_utf8_lossy(&output.stdout);
    assert!(ran.contains("1 passed"), "{ran}");
}

pub fn is_alone() -> bool {
    std::env::var_os(ALONE).is_some()
}

pub fn block_on(work: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(work);
}
