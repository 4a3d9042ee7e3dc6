//! Ways around the URL: redirects, and the proxies of the environment. Nobody goes there.

use std::process::Command;
use std::sync::Arc;

use carillon::domain::outcome::{Class, Outcome, classify};
use carillon::domain::subscription::Format;
use carillon::domain::timestamp::UnixMillis;

use crate::certificates::Authority;
use crate::endpoints::{answering, tls_endpoint};
use crate::harness::{AMPLE, alone, answer, asking, block_on, is_alone, post, trusting};
use crate::name_server::{addresses, name_server};
use crate::watched::Watched;

/// Permitted or not, another host or the same: a `Location` is text in an answer.
#[tokio::test]
async fn a_redirect_is_an_answer() {
    let server = name_server(|question| match question.name.as_str() {
        "inside.example." => addresses(["127.0.0.2"]),
        _ => addresses(["127.0.0.1"]),
    })
    .await;
    let (elsewhere, forbidden) = Watched::pair();
    let port = elsewhere.port();
    let locations = [
        format!("http://127.0.0.2:{port}/"),
        format!("//127.0.0.2:{port}/"),
        format!("http://inside.example:{port}/"),
        format!("//inside.example:{port}/"),
        format!("http://127.0.0.1:{port}/"),
        "/elsewhere".to_owned(),
    ];
    let strict = asking(&server, &["127.0.0.1/32"]);
    let wide = asking(&server, &["127.0.0.0/8"]);
    for status in [301, 302, 303, 307, 308] {
        for location in &locations {
            let (address, count) = answering(format!(
                "HTTP/1.1 {status} Gone\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
            ))
            .await;
            for transport in [&strict, &wide] {
                let url = format!("http://hooks.example:{}/", address.port());
                let response = answer(post(transport, &url, AMPLE).await);
                assert_eq!(response.status, status, "{location}");
                assert!(failed(status), "{status}");
            }
            // Each asked once and went nowhere else, here neither.
            assert_eq!(count.requests(), 2, "{status} {location}");
        }
    }
    assert_eq!((elsewhere.count(), forbidden.count()), (0, 0));

    // All of it can be reached by who is sent there.
    let url = format!("http://inside.example:{port}/");
    assert_eq!(answer(post(&wide, &url, AMPLE).await).status, 200);
    let url = format!("http://127.0.0.1:{port}/");
    assert_eq!(answer(post(&wide, &url, AMPLE).await).status, 200);
    assert_eq!((elsewhere.count(), forbidden.count()), (1, 1));
}

/// Whether an answer of this status is a failure by its status, for every format.
fn failed(status: u16) -> bool {
    let outcome = Outcome::Answered {
        status,
        retry_at: None,
    };
    [Format::Standard, Format::Leicbit].iter().all(|format| {
        let class = classify(*format, &outcome, UnixMillis(0));
        matches!(class, Class::Failed { reason, .. } if reason.code() == "redirect")
    })
}

/// Says which client is to be used by the process that has a proxy in its environment.
const CLIENT: &str = "CARILLON_TEST_CLIENT";

/// The environment belongs to the process, so this test runs itself in others, each started
/// with one proxy in its environment. A client that looks there shows that it can be found.
#[test]
fn proxies_of_the_environment_are_not_used() {
    if is_alone() {
        return block_on(send_beside_proxies());
    }
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        for name in [name.to_owned(), name.to_lowercase()] {
            assert_eq!(connections_to_the_proxy(&name, "ours"), 0, "{name}");
            assert!(connections_to_the_proxy(&name, "another") > 0, "{name}");
        }
    }
}

/// How often `client` connects to the proxy that the variable `name` gives it.
fn connections_to_the_proxy(name: &str, client: &str) -> usize {
    const TEST: &str = "detours::proxies_of_the_environment_are_not_used";
    let proxy = Watched::bind();
    let prepare = |inner: &mut Command| {
        for other in ["HTTP", "HTTPS", "ALL", "NO"] {
            let other = format!("{other}_PROXY");
            inner.env_remove(&other).env_remove(other.to_lowercase());
        }
        // With it, clients distrust a variable that a header of a request may have set.
        inner.env_remove("REQUEST_METHOD");
        let url = format!("http://127.0.0.1:{}", proxy.port());
        inner.env(name, url).env(CLIENT, client);
    };
    alone(TEST, prepare);
    proxy.count()
}

/// Sends with and without TLS.
async fn send_beside_proxies() {
    let authority = Authority::new();
    let (plain, _) = answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let (secure, _) = tls_endpoint(authority.tls("127.0.0.1", |_| {})).await;
    let urls = [format!("http://{plain}/"), format!("https://{secure}/")];
    if std::env::var(CLIENT).unwrap() == "ours" {
        let ours = trusting(&authority.certificate);
        for url in urls {
            assert_eq!(answer(post(&ours, &url, AMPLE).await).body, "ok");
        }
        return;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let another = reqwest::Client::builder().tls_backend_preconfigured(tls);
    let another = another.build().unwrap();
    for url in urls {
        // Through a tunnel that leads nowhere there is no answer.
        let _ = another.post(url).body("{}").send().await;
    }
}
