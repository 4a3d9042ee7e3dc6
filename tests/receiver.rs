//! The embeddable receiver takes signed requests, plain and over TLS, and judges them.

use std::time::Duration;

use carillon::cli::receiver::{
    Behaviour, Receiver, ReceiverSettings, Reply, TlsIdentity, Verdicts, channel,
};
use carillon::domain::signature::{Secret, Secrets, SignatureFault, SigningKeys, VerificationKey};
use carillon::domain::subscription::Signing;
use carillon::domain::timestamp::UnixMillis;
use http::StatusCode;
use reqwest::{Certificate, Client, ClientBuilder};

const BODY: &str = r#"{"type":"a.b"}"#;

fn client_builder() -> ClientBuilder {
    // Whoever comes first installs it; it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(20))
}

fn key(byte: u8) -> VerificationKey {
    VerificationKey::Secret(Secret::new([byte; 32]))
}

fn signing(byte: u8) -> SigningKeys {
    let secrets = Secrets::only(Secret::new([byte; 32]));
    SigningKeys::new(&secrets, Signing::HmacSha256)
}

async fn post(
    client: &Client,
    url: &str,
    keys: &SigningKeys,
    at: UnixMillis,
) -> reqwest::Result<StatusCode> {
    let request = client
        .post(format!("{url}/hook?a=1"))
        .header("webhook-id", "msg_1")
        .header("webhook-timestamp", at.seconds().to_string())
        .header(
            "webhook-signature",
            keys.standard("msg_1", at, BODY.as_bytes()),
        )
        .header("x-leicbit-signature", keys.leicbit(at, BODY.as_bytes()))
        .body(BODY);
    Ok(request.send().await?.status())
}

#[tokio::test]
async fn signatures_are_judged_one_by_one() {
    let (observer, mut requests) = channel();
    let receiver = Receiver::start(ReceiverSettings {
        keys: vec![key(9), key(1)],
        observer: Some(observer),
        ..ReceiverSettings::default()
    })
    .await
    .unwrap();
    let client = client_builder().build().unwrap();
    let now = carillon::cli::args::now();
    let old = now.before(Duration::from_secs(3600));
    for (keys, at) in [(signing(1), now), (signing(2), now), (signing(1), old)] {
        let status = post(&client, &receiver.url(), &keys, at).await.unwrap();
        assert_eq!(status, StatusCode::OK);
    }
    let good = requests.recv().await.unwrap();
    assert_eq!(good.path, "/hook?a=1");
    assert_eq!(good.body, BODY);
    assert_eq!(good.header("webhook-id"), Some("msg_1"));
    let both = Verdicts {
        standard: Some(Ok(())),
        leicbit: Some(Ok(())),
    };
    assert_eq!(good.verdicts, both);
    let forged = requests.recv().await.unwrap().verdicts;
    assert_eq!(forged.standard, Some(Err(SignatureFault::NoMatch)));
    assert_eq!(forged.leicbit, Some(Err(SignatureFault::NoMatch)));
    let late = requests.recv().await.unwrap().verdicts;
    let outside = |verdict| matches!(verdict, Some(Err(SignatureFault::OutsideTolerance { .. })));
    assert!(outside(late.standard) && outside(late.leicbit));

    let counts = receiver.stop().await;
    assert_eq!((counts.requests, counts.acknowledged), (3, 3));
    assert_eq!((counts.verified, counts.unverified), (1, 2));
    assert_eq!(counts.in_flight, 0);
}

#[tokio::test]
async fn tls_serves_those_who_trust_the_certificate() {
    let (identity, trusted) = TlsIdentity::self_signed(["localhost", "127.0.0.1"]).unwrap();
    let (observer, mut requests) = channel();
    let receiver = Receiver::start(ReceiverSettings {
        tls: Some(identity),
        keys: vec![key(1)],
        observer: Some(observer),
        ..ReceiverSettings::default()
    })
    .await
    .unwrap();
    assert!(receiver.url().starts_with("https://"));
    let now = carillon::cli::args::now();
    let trusted = Certificate::from_der(&trusted).unwrap();
    for http1 in [true, false] {
        let mut client = client_builder().tls_certs_only([trusted.clone()]);
        if http1 {
            client = client.http1_only();
        }
        let client = client.build().unwrap();
        let status = post(&client, &receiver.url(), &signing(1), now)
            .await
            .unwrap();
        assert_eq!(status, StatusCode::OK);
        let received = requests.recv().await.unwrap();
        assert_eq!(received.verdicts.verified(), Some(true));
    }
    let stranger = client_builder().build().unwrap();
    let refused = stranger.post(receiver.url()).send().await;
    assert!(refused.is_err_and(|error| error.is_connect()));
    assert_eq!(receiver.stop().await.requests, 2);
}

#[tokio::test]
async fn a_client_stuck_in_its_handshake_holds_up_nobody() {
    let (identity, trusted) = TlsIdentity::self_signed(["127.0.0.1"]).unwrap();
    let receiver = Receiver::start(ReceiverSettings {
        tls: Some(identity),
        ..ReceiverSettings::default()
    })
    .await
    .unwrap();
    let _silent = tokio::net::TcpStream::connect(receiver.local_addr())
        .await
        .unwrap();
    let trusted = Certificate::from_der(&trusted).unwrap();
    let client = client_builder().tls_certs_only([trusted]).build().unwrap();
    let status = post(&client, &receiver.url(), &signing(1), UnixMillis(0))
        .await
        .unwrap();
    assert_eq!(status, StatusCode::OK);
    let counts = receiver.stop().await;
    assert_eq!((counts.connections, counts.requests), (2, 1));
    assert_eq!((counts.verified, counts.unverified), (0, 0));
}

#[tokio::test]
async fn a_script_routes_by_path_and_shapes_the_answer() {
    let script = Behaviour::scripted(|received| match received.path.as_str() {
        "/busy" => {
            let mut reply = Reply::status(StatusCode::TOO_MANY_REQUESTS);
            reply.headers.insert("retry-after", 7.into());
            reply.body = "later".into();
            reply
        }
        _ => Reply::status(StatusCode::GONE),
    });
    let receiver = Receiver::start(ReceiverSettings {
        behaviour: script,
        ..ReceiverSettings::default()
    })
    .await
    .unwrap();
    let client = client_builder().build().unwrap();
    let busy = client.post(format!("{}/busy", receiver.url()));
    let busy = busy.send().await.unwrap();
    assert_eq!(busy.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(busy.headers()["retry-after"], "7");
    assert_eq!(busy.text().await.unwrap(), "later");
    let other = client.post(format!("{}/other", receiver.url()));
    assert_eq!(other.send().await.unwrap().status(), StatusCode::GONE);
    assert_eq!(receiver.stop().await.acknowledged, 0);
}

#[tokio::test]
async fn failing_and_body_size_have_limits() {
    let receiver = Receiver::start(ReceiverSettings {
        behaviour: Behaviour::Steady {
            status: StatusCode::OK,
            delay: Duration::from_millis(1),
            fail_rate: 1.0,
        },
        body_bytes_max: 10,
        ..ReceiverSettings::default()
    })
    .await
    .unwrap();
    let client = client_builder().build().unwrap();
    let send = |body: &'static str| client.post(receiver.url()).body(body).send();
    let failed = send("small").await.unwrap().status();
    assert_eq!(failed, StatusCode::INTERNAL_SERVER_ERROR);
    let refused = send("larger than ten bytes").await.unwrap().status();
    assert_eq!(refused, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(receiver.stop().await.requests, 1);
}

#[tokio::test]
async fn stopping_finishes_what_is_under_way() {
    let (observer, mut requests) = channel();
    let receiver = Receiver::start(ReceiverSettings {
        behaviour: Behaviour::Steady {
            status: StatusCode::OK,
            delay: Duration::from_millis(200),
            fail_rate: 0.0,
        },
        observer: Some(observer),
        ..ReceiverSettings::default()
    })
    .await
    .unwrap();
    let client = client_builder().build().unwrap();
    let sent = tokio::spawn(client.post(receiver.url()).send());
    requests.recv().await.unwrap();
    assert_eq!(receiver.counts().in_flight, 1);
    let address = receiver.local_addr();
    let counts = receiver.stop().await;
    assert_eq!((counts.in_flight, counts.in_flight_max), (0, 1));
    assert_eq!(sent.await.unwrap().unwrap().status(), StatusCode::OK);
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
