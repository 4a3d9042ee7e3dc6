//! Opening connections: measured, and the far end checked once more.
//!
//! The client hands its connector the target in a type that cannot be looked into, so
//! nothing can be refused here before the socket is opened; the addresses it may open
//! are those of the resolver and of the URL, both checked before. What is checked here
//! is the socket itself, once it is open and before any request is written to it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::{Connection, HttpInfo};
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::domain::address::EgressRules;

use super::probe::Probe;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Puts an [`Opening`] around the client's connector.
#[derive(Clone, Debug)]
pub(super) struct OpeningLayer {
    rules: Arc<EgressRules>,
}

/// A connector whose connections are measured and checked.
#[derive(Clone, Debug)]
pub(super) struct Opening<S> {
    connector: S,
    rules: Arc<EgressRules>,
}

impl OpeningLayer {
    pub(super) fn new(rules: Arc<EgressRules>) -> Self {
        Self { rules }
    }
}

impl<S> Layer<S> for OpeningLayer {
    type Service = Opening<S>;

    fn layer(&self, connector: S) -> Opening<S> {
        Opening {
            connector,
            rules: Arc::clone(&self.rules),
        }
    }
}

impl<S, Target> Service<Target> for Opening<S>
where
    S: Service<Target, Error = BoxError>,
    S::Response: Connection + Send,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, target: Target) -> Self::Future {
        let begun = Instant::now();
        let starter = Probe::current();
        if let Some(probe) = &starter {
            probe.opening_begins();
        }
        let opening = self.connector.call(target);
        let rules = Arc::clone(&self.rules);
        Box::pin(async move {
            let opened = opening.await;
            match (Probe::current(), starter) {
                (Some(probe), _) if opened.is_ok() => probe.opening_ends(begun),
                // A failure leaves the stage, which tells what it was that failed.
                (Some(_), _) | (None, None) => {}
                // In the background now, so the request went on with another one.
                (None, Some(probe)) => probe.opening_passed_on(),
            }
            let connection = opened?;
            check_peer(&rules, &connection)?;
            Ok(connection)
        })
    }
}

/// Checks whom `connection` leads to. One that cannot say is no longer connected.
fn check_peer(rules: &EgressRules, connection: &impl Connection) -> Result<(), BoxError> {
    let mut known = http::Extensions::new();
    connection.connected().get_extras(&mut known);
    let Some(info) = known.get::<HttpInfo>() else {
        return Err(io::Error::from(io::ErrorKind::NotConnected).into());
    };
    Ok(rules.check(info.remote_addr().ip())?)
}

#[cfg(test)]
mod tests {
    use hyper_util::client::legacy::connect::HttpConnector;
    use tower::ServiceExt;

    use super::*;
    use crate::domain::address::{EgressRefusal, EgressRule};

    /// Opens a connection to a listener on loopback as the client would.
    async fn open(rules: EgressRules) -> Result<(), BoxError> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = format!("http://{}/", listener.local_addr().unwrap());
        let connector = HttpConnector::new().map_err(BoxError::from);
        let opening = OpeningLayer::new(Arc::new(rules)).layer(connector);
        let target: http::Uri = target.parse().unwrap();
        opening.oneshot(target).await.map(drop)
    }

    #[tokio::test]
    async fn a_connection_that_leads_to_a_denied_address_is_not_used() {
        let error = open(EgressRules::default()).await.unwrap_err();
        let refusal = error.downcast_ref::<EgressRefusal>().unwrap();
        assert_eq!(refusal.rule, EgressRule::Loopback);
    }

    #[tokio::test]
    async fn a_connection_that_leads_to_a_permitted_address_is_used() {
        let rules = EgressRules {
            allow: vec!["127.0.0.0/8".parse().unwrap()],
            deny: Vec::new(),
        };
        open(rules).await.unwrap();
    }
}
