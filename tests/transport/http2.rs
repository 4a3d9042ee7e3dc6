//! HTTP/2 is bounded like HTTP/1.1.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use bytes::Bytes;
use carillon::domain::attempt::RESPONSE_BYTES_MAX;
use carillon::domain::outcome::Failure;
use futures_util::stream;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio_rustls::TlsAcceptor;

use crate::certificates::Authority;
use crate::endpoints::{Count, endpoint};
use crate::harness::{AMPLE, SHORT, answer, failure, post, trusting};

#[tokio::test]
async fn http2_is_bounded_in_the_same_ways() {
    let authority = Authority::new();
    let (address, count) = http2_endpoint(authority.tls("127.0.0.1", |_| {})).await;
    let trusting = trusting(&authority.certificate);
    let url = |path: &str| format!("https://{address}{path}");

    let response = answer(post(&trusting, &url("/"), AMPLE).await);
    assert_eq!((response.status, response.body_cut), (200, false));
    assert_eq!(response.body, "ok");
    let response = answer(post(&trusting, &url("/flood"), AMPLE).await);
    assert_eq!(response.body.len(), RESPONSE_BYTES_MAX);
    assert!(response.body_cut);
    assert!(count.sent() < 1_000_000, "{}", count.sent());
    let exchange = post(&trusting, &url("/silence"), SHORT).await;
    assert_eq!(failure(&exchange), Failure::Timeout);
    // A stream that was given up does not cost the connection.
    assert_eq!(answer(post(&trusting, &url("/"), AMPLE).await).body, "ok");
    assert_eq!(count.connections(), 1);

    let exchange = post(&trusting, &url("/headers"), AMPLE).await;
    assert_eq!(failure(&exchange), Failure::Protocol);
    assert_eq!(answer(post(&trusting, &url("/"), AMPLE).await).body, "ok");
}

/// An endpoint that speaks HTTP/2 and does what the path says: `/flood` a body
/// without end, `/headers` headers of 400 KB, `/silence` nothing, else 200 and `ok`.
async fn http2_endpoint(tls: TlsAcceptor) -> (SocketAddr, Count) {
    let mut config = tls.config().as_ref().clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = TlsAcceptor::from(Arc::new(config));
    endpoint(move |stream, count| {
        let tls = tls.clone();
        async move {
            let stream = TokioIo::new(tls.accept(stream).await.unwrap());
            let service = service_fn(move |request: Request<Incoming>| {
                http2_answer(request.uri().path().to_owned(), count.clone())
            });
            let server = auto::Builder::new(TokioExecutor::new());
            // How the client ends the connection is its business.
            let _ = server.serve_connection(stream, service).await;
        }
    })
    .await
}

async fn http2_answer(path: String, count: Count) -> Result<Response<Body>, Infallible> {
    let mut response = Response::new(Body::from("ok"));
    match path.as_str() {
        "/flood" => {
            let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
            let chunks = stream::repeat_with(move || {
                count.sent.fetch_add(chunk.len(), Ordering::SeqCst);
                Ok::<_, Infallible>(chunk.clone())
            });
            *response.body_mut() = Body::from_stream(chunks);
        }
        "/headers" => {
            for _ in 0..100 {
                let value = "v".repeat(4000).parse().unwrap();
                response.headers_mut().append("x-a", value);
            }
        }
        "/silence" => std::future::pending().await,
        _ => {}
    }
    Ok(response)
}
