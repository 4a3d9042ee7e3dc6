//! TLS: which servers are believed, and why the others are not.

use std::time::Instant;

use carillon::adapters::https::HttpsSettings;
use carillon::domain::outcome::{Failure, TlsFailure};
use tokio::io::AsyncWriteExt;

use crate::certificates::{Authority, self_signed};
use crate::endpoints::{answer_ok, endpoint, read_request, tls_endpoint};
use crate::harness::{
    AMPLE, GRACE, SHORT, answer, failure, local, post, settings, transport, trusting,
};

#[tokio::test]
async fn a_handshake_without_answer_is_a_timeout_of_the_connection() {
    let (address, _) = endpoint(|mut stream, _| async move {
        read_request(&mut stream).await;
    })
    .await;
    let settings = HttpsSettings {
        connect_timeout: SHORT,
        ..settings(&["127.0.0.0/8"])
    };
    let begun = Instant::now();
    let exchange = post(&transport(settings), &format!("https://{address}/"), AMPLE).await;
    assert_eq!(failure(&exchange), Failure::ConnectTimeout);
    assert!(exchange.detail.contains("400ms"), "{}", exchange.detail);
    assert!(begun.elapsed() < SHORT + GRACE);
}

#[tokio::test]
async fn a_certificate_of_a_trusted_root_is_accepted() {
    let authority = Authority::new();
    let (address, _) = tls_endpoint(authority.tls("127.0.0.1", |_| {})).await;
    let exchange = post(
        &trusting(&authority.certificate),
        &format!("https://{address}/"),
        AMPLE,
    )
    .await;
    assert!(exchange.timing.connect.is_some());
    assert_eq!(answer(exchange).body, "ok");
}

#[tokio::test]
async fn certificates_are_refused_for_their_reasons() {
    let authority = Authority::new();
    let expired = authority.tls("127.0.0.1", |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 2, 1);
    });
    let early = authority.tls("127.0.0.1", |params| {
        params.not_before = rcgen::date_time_ymd(3000, 1, 1);
        params.not_after = rcgen::date_time_ymd(3001, 1, 1);
    });
    let wrong_name = authority.tls("hooks.example", |_| {});
    let own = self_signed(|_| {});
    // What `openssl req -x509` makes.
    let own_authority = self_signed(|params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    for (tls, expected) in [
        (expired, TlsFailure::Expired),
        (early, TlsFailure::Expired),
        (wrong_name, TlsFailure::WrongName),
        (own, TlsFailure::UnknownIssuer),
        (own_authority, TlsFailure::UnknownIssuer),
    ] {
        let (address, _) = tls_endpoint(tls).await;
        let url = format!("https://{address}/?k=s3cret");
        let exchange = post(&trusting(&authority.certificate), &url, AMPLE).await;
        assert_eq!(
            failure(&exchange),
            Failure::Tls(expected),
            "{}",
            exchange.detail
        );
    }
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_a_failed_handshake() {
    let (address, _) = endpoint(|mut stream, _| async move {
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        answer_ok(&mut stream).await;
    })
    .await;
    let exchange = post(&local(), &format!("https://{address}/"), AMPLE).await;
    assert_eq!(failure(&exchange), Failure::Tls(TlsFailure::Handshake));
}
