//! The transport under test: what it is allowed, what it is asked, and what came of it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use carillon::adapters::https::{HttpsSettings, HttpsTransport};
use carillon::domain::address::{EgressRule, EgressRules};
use carillon::domain::attempt::Response;
use carillon::domain::outcome::Failure;
use carillon::ports::{Exchange, Transport, WebhookRequest};
use rustls_pki_types::CertificateDer;
use url::Url;

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

pub fn asking(name_server: SocketAddr, allow: &[&str]) -> HttpsTransport {
    transport(HttpsSettings {
        name_servers: Some(vec![name_server]),
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
