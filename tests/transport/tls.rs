//! TLS: which servers are believed, and why the others are not.

use std::time::Instant;

use carillon::adapters::https::HttpsSettings;
use carillon::domain::outcome::{Failure, TlsFailure};
use rcgen::{BasicConstraints, DnType, ExtendedKeyUsagePurpose, IsCa};
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::certificates::{Authority, self_signed, speaking};
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

/// Each is refused by the client, says why, and gets no request.
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
    let wrong_address = authority.tls("127.0.0.2", |_| {});
    // The name where it was looked for before RFC 2818.
    let common_name = authority.tls("127.0.0.1", |params| {
        params.subject_alt_names.clear();
        params
            .distinguished_name
            .push(DnType::CommonName, "127.0.0.1");
    });
    let for_clients = authority.tls("127.0.0.1", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let own = self_signed(|_| {});
    // What `openssl req -x509` makes.
    let own_authority = self_signed(|params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    let stranger = Authority::named("another authority").tls("127.0.0.1", |_| {});
    let pretender = Authority::new().tls("127.0.0.1", |_| {});
    for (what, tls, expected, says) in [
        ("expired", expired, TlsFailure::Expired, "expired"),
        ("early", early, TlsFailure::Expired, "not valid yet"),
        (
            "name",
            wrong_name,
            TlsFailure::WrongName,
            "not valid for name",
        ),
        (
            "address",
            wrong_address,
            TlsFailure::WrongName,
            "not valid for name",
        ),
        (
            "no SAN",
            common_name,
            TlsFailure::WrongName,
            "not valid for",
        ),
        (
            "purpose",
            for_clients,
            TlsFailure::BadCertificate,
            "server authentication",
        ),
        ("own", own, TlsFailure::UnknownIssuer, "UnknownIssuer"),
        (
            "authority",
            own_authority,
            TlsFailure::UnknownIssuer,
            "CaUsedAsEndEntity",
        ),
        (
            "stranger",
            stranger,
            TlsFailure::UnknownIssuer,
            "UnknownIssuer",
        ),
        // Its issuer has the name of the trusted one and another key.
        (
            "pretender",
            pretender,
            TlsFailure::BadCertificate,
            "BadSignature",
        ),
    ] {
        for version in [&TLS12, &TLS13] {
            let (address, count) = tls_endpoint(speaking(&tls, version)).await;
            let url = format!("https://{address}/?k=s3cret");
            let exchange = post(&trusting(&authority.certificate), &url, AMPLE).await;
            assert_eq!(
                failure(&exchange),
                Failure::Tls(expected),
                "{what}: {}",
                exchange.detail
            );
            assert!(
                exchange.detail.contains(says),
                "{what}: {}",
                exchange.detail
            );
            assert_eq!((count.connections(), count.requests()), (1, 0), "{what}");
        }
    }
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken() {
    let authority = Authority::new();
    for version in [&TLS12, &TLS13] {
        let tls = speaking(&authority.tls("127.0.0.1", |_| {}), version);
        let (address, count) = tls_endpoint(tls).await;
        let url = format!("https://{address}/");
        let exchange = post(&trusting(&authority.certificate), &url, AMPLE).await;
        assert_eq!(answer(exchange).body, "ok", "{version:?}");
        assert_eq!(count.requests(), 1);
    }
}

/// Servers that know no more than TLS 1.1, 1.0 or SSL 3.0, in their own words, as no library here
/// has any for them. All that they get besides the offer is an alert.
#[tokio::test]
async fn older_versions_are_refused() {
    for minor in [2, 1, 0] {
        let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
        let (address, count) = endpoint(move |mut stream, _| {
            let heard = heard.clone();
            async move {
                let offer = read_record(&mut stream).await.unwrap();
                stream.write_all(&server_hello([3, minor])).await.unwrap();
                let mut rest = Vec::new();
                while let Some(record) = read_record(&mut stream).await {
                    rest.push(record);
                }
                heard.send((offer, rest)).unwrap();
            }
        })
        .await;
        let url = format!("https://{address}/?k=s3cret");
        let exchange = post(&local(), &url, AMPLE).await;
        assert_eq!(failure(&exchange), Failure::Tls(TlsFailure::Handshake));
        assert!(exchange.detail.contains("Tls12Or13"), "{}", exchange.detail);
        let (offer, rest) = hears.recv().await.unwrap();
        assert_eq!(offered_versions(&offer), [[3, 4], [3, 3]]);
        // A fatal alert (2): protocol version (70).
        assert_eq!(rest, [[ALERT, 3, 3, 0, 2, 2, 70]]);
        assert_eq!(count.connections(), 1);
    }
}

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;

/// One record with its header (RFC 5246 section 6.2.1); `None` when the connection ends first.
async fn read_record(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut record = vec![0; 5];
    stream.read_exact(&mut record).await.ok()?;
    let length = u16::from_be_bytes([record[3], record[4]]);
    let mut content = vec![0; usize::from(length)];
    stream.read_exact(&mut content).await.ok()?;
    record.extend(content);
    Some(record)
}

/// A ServerHello (RFC 5246 section 7.4.1.3) that picks `version`.
fn server_hello(version: [u8; 2]) -> Vec<u8> {
    let mut hello = version.to_vec();
    hello.extend([7; 32]);
    // No session, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, no compression.
    hello.extend([0, 0xc0, 0x13, 0]);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![
        HANDSHAKE,
        version[0],
        version[1],
        0,
        length + 4,
        2,
        0,
        0,
        length,
    ];
    record.extend(hello);
    record
}

/// The versions in the extension `supported_versions` (RFC 8446 section 4.2.1) of a ClientHello.
fn offered_versions(record: &[u8]) -> Vec<[u8; 2]> {
    let u16_at = |at: usize| usize::from(u16::from_be_bytes([record[at], record[at + 1]]));
    // Behind the headers of record and handshake, the version and the random: the session, the
    // ciphers, the compressions, each with its length, and that of the extensions.
    let mut at = 5 + 4 + 2 + 32;
    at += 1 + usize::from(record[at]);
    at += 2 + u16_at(at);
    at += 1 + usize::from(record[at]);
    at += 2;
    while u16_at(at) != 43 {
        at += 4 + u16_at(at + 2);
    }
    let list = &record[at + 5..at + 4 + u16_at(at + 2)];
    let mut versions: Vec<[u8; 2]> = list.chunks(2).map(|v| [v[0], v[1]]).collect();
    versions.sort();
    versions.reverse();
    versions
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_a_failed_handshake() {
    let (address, _) = endpoint(|mut stream, count| async move {
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        answer_ok(&mut stream, &count).await;
    })
    .await;
    let exchange = post(&local(), &format!("https://{address}/"), AMPLE).await;
    assert_eq!(failure(&exchange), Failure::Tls(TlsFailure::Handshake));
}
