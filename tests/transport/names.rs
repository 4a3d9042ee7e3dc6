//! Names: looked up, judged by all their addresses, kept for their time, and failing.

use std::net::IpAddr;
use std::time::Instant;

use carillon::adapters::https::HttpsSettings;
use carillon::domain::address::{EgressRule, is_localhost};
use carillon::domain::outcome::{Failure, TlsFailure};
use tokio::io::AsyncWriteExt;
use url::Url;

use crate::certificates::Authority;
use crate::endpoints::{answering, endpoint, read_request};
use crate::harness::{
    AMPLE, GRACE, SHORT, answer, asking, blocked_by, failure, post, settings, transport,
};
use crate::name_server::{Reply, addresses, name_server};
use crate::watched::Watched;

#[tokio::test]
async fn a_name_is_looked_up() {
    let (address, _) = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let server = name_server(|_| addresses(["127.0.0.1"])).await;
    let transport = asking(&server, &["127.0.0.0/8"]);
    for host in ["hooks.example", "other.example.", "single"] {
        let exchange = post(
            &transport,
            &format!("http://{host}:{}/", address.port()),
            AMPLE,
        )
        .await;
        assert!(exchange.timing.dns.is_some(), "{host}");
        assert!(exchange.timing.connect.is_some(), "{host}");
        assert_eq!(answer(exchange).status, 200, "{host}");
    }
}

#[tokio::test]
async fn one_private_address_blocks_the_whole_name() {
    let inside = Watched::bind();
    let url = format!("http://hooks.example:{}/", inside.port());
    let server = name_server(|_| addresses(["127.0.0.1", "1.1.1.1"])).await;
    let exchange = post(&asking(&server, &[]), &url, AMPLE).await;
    assert_eq!(blocked_by(&exchange), EgressRule::Loopback);

    // Also where the other family hides it.
    let server = name_server(|_| addresses(["127.0.0.1", "fd00::1"])).await;
    let exchange = post(&asking(&server, &["127.0.0.0/8"]), &url, AMPLE).await;
    assert_eq!(blocked_by(&exchange), EgressRule::Private);
    assert_eq!(inside.count(), 0);
}

#[tokio::test]
async fn a_name_that_changes_its_address_is_checked_again() {
    // Should the check be lost, this machine is where it leads to.
    let (first, second) = Watched::pair();
    let server = name_server(|question| match question.asked {
        1 => addresses(["127.0.0.1"]),
        _ => addresses(["127.0.0.2", "169.254.169.254"]),
    })
    .await;
    let transport = asking(&server, &["127.0.0.0/8"]);
    let url = format!("http://hooks.example:{}/", first.port());
    assert_eq!(answer(post(&transport, &url, AMPLE).await).status, 200);
    let exchange = post(&transport, &url, AMPLE).await;
    assert_eq!(blocked_by(&exchange), EgressRule::LinkLocal);
    assert_eq!((first.count(), second.count()), (1, 0));
}

#[tokio::test]
async fn an_answer_is_kept_for_its_time_to_live() {
    let (address, _) =
        answering("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    let server = name_server(|question| match question.asked {
        1 => Reply::Lasting(vec![IpAddr::from([127, 0, 0, 1])]),
        _ => Reply::Code(3),
    })
    .await;
    let transport = asking(&server, &["127.0.0.0/8"]);
    let url = format!("http://hooks.example:{}/", address.port());
    for _ in 0..3 {
        assert_eq!(answer(post(&transport, &url, AMPLE).await).status, 200);
    }
}

/// The names of this machine's hosts file, and names without a dot, mean what the name server
/// says, and it is asked for nothing else.
#[tokio::test]
async fn names_are_asked_for_as_they_stand() {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let words = hosts.lines().flat_map(|line| {
        let told = line.split('#').next().unwrap_or_default();
        told.split_whitespace().skip(1)
    });
    let mut names: Vec<_> = words.map(str::to_lowercase).collect();
    names.retain(|name| {
        let url = Url::parse(&format!("http://{name}/"));
        let is_name = url.is_ok_and(|url| url.domain() == Some(name));
        is_name && !is_localhost(name) && !name.ends_with('.')
    });
    // Some machines keep thousands there.
    names.truncate(20);
    names.extend(["single", "ip6-loopback", "two.labels", "hooks.example"].map(str::to_owned));

    let absent = name_server(|_| Reply::Code(3)).await;
    let there = name_server(|_| addresses(["127.0.0.2"])).await;
    // What the hosts file and the name server say, on one port.
    let (here, elsewhere) = Watched::pair();
    let all = ["127.0.0.0/8", "::1/128"];
    for (number, name) in names.iter().enumerate() {
        for url in [
            format!("http://{name}:{}/", here.port()),
            format!("http://{name}.:{}/", here.port()),
        ] {
            let exchange = post(&asking(&absent, &all), &url, AMPLE).await;
            assert_eq!(failure(&exchange), Failure::NameNotFound, "{url}");
            let exchange = post(&asking(&there, &all), &url, AMPLE).await;
            assert_eq!(answer(exchange).body, "ok", "{url}");
        }
        assert_eq!((here.count(), elsewhere.count()), (0, 2 * (number + 1)));
    }
    names.iter_mut().for_each(|name| name.push('.'));
    names.sort();
    names.dedup();
    assert_eq!(absent.names(), names);
    assert_eq!(there.names(), names);
}

/// `localhost` is this machine, whatever a name server says, and nobody asks one.
#[tokio::test]
async fn localhost_is_never_asked_for() {
    let server = name_server(|_| addresses(["127.0.0.2"])).await;
    let (here, elsewhere) = Watched::pair();
    let names = ["localhost", "localhost.", "LocalHost", "foo.localhost"];
    for name in names {
        let url = format!("http://{name}:{}/", here.port());
        let exchange = post(&asking(&server, &["127.0.0.2/32"]), &url, AMPLE).await;
        assert_eq!(blocked_by(&exchange), EgressRule::Loopback, "{name}");
    }
    assert_eq!((here.count(), elsewhere.count()), (0, 0));
    for name in names {
        let url = format!("http://{name}:{}/", here.port());
        let exchange = post(&asking(&server, &["127.0.0.0/8"]), &url, AMPLE).await;
        assert_eq!(answer(exchange).body, "ok", "{name}");
    }
    assert_eq!((here.count(), elsewhere.count()), (names.len(), 0));
    assert_eq!(server.questions(), []);
}

/// The endpoint sees the name that the customer wrote, in the request and in TLS, and its
/// certificate is for that name; the connection leads to the address that was checked.
#[tokio::test]
async fn the_name_stays_while_the_connection_leads_to_the_address() {
    let authority = Authority::new();
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let tls = authority.tls("hooks.example", |_| {});
    let (address, count) = endpoint(move |stream, _| {
        let (heard, tls) = (heard.clone(), tls.clone());
        async move {
            let Ok(mut stream) = tls.accept(stream).await else {
                return;
            };
            let name = stream.get_ref().1.server_name().map(str::to_owned);
            let request = read_request(&mut stream).await.unwrap();
            heard
                .send((name, String::from_utf8(request).unwrap()))
                .unwrap();
            let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    let server = name_server(|_| addresses(["127.0.0.1"])).await;
    let transport = transport(HttpsSettings {
        extra_roots: vec![authority.certificate.clone()],
        name_servers: Some(vec![server.address]),
        ..settings(&["127.0.0.1/32"])
    });
    let url = format!("https://Hooks.Example:{}/in", address.port());
    assert_eq!(answer(post(&transport, &url, AMPLE).await).status, 204);
    let (name, request) = hears.recv().await.unwrap();
    assert_eq!(name.as_deref(), Some("hooks.example"));
    let host = format!("\r\nhost: hooks.example:{}\r\n", address.port());
    assert!(request.starts_with("POST /in HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&host), "{request}");

    // An address has no name to be sent, and the certificate is not for it.
    let url = format!("https://{address}/in");
    let exchange = post(&transport, &url, AMPLE).await;
    assert_eq!(failure(&exchange), Failure::Tls(TlsFailure::WrongName));
    assert_eq!(count.connections(), 2);
}

#[tokio::test]
async fn names_fail_in_their_ways() {
    for (code, expected) in [(3, Failure::NameNotFound), (2, Failure::NameLookup)] {
        let server = name_server(move |_| Reply::Code(code)).await;
        let exchange = post(
            &asking(&server, &[]),
            "https://hooks.example/?k=s3cret",
            AMPLE,
        )
        .await;
        assert_eq!(failure(&exchange), expected);
        assert!(exchange.detail.contains("hooks.example"));
    }
    let server = name_server(|_| addresses([])).await;
    let exchange = post(&asking(&server, &[]), "https://hooks.example/", AMPLE).await;
    assert_eq!(failure(&exchange), Failure::NameNotFound);
}

#[tokio::test]
async fn a_silent_name_server_is_a_timeout_of_the_name() {
    let silent = name_server(|_| Reply::Silence).await;
    let within = |connect_timeout| HttpsSettings {
        connect_timeout,
        name_servers: Some(vec![silent.address]),
        ..settings(&[])
    };
    for (connect_timeout, timeout) in [(AMPLE, SHORT), (SHORT, AMPLE)] {
        let begun = Instant::now();
        let transport = transport(within(connect_timeout));
        let exchange = post(&transport, "https://hooks.example/", timeout).await;
        assert_eq!(failure(&exchange), Failure::NameTimeout);
        assert!(begun.elapsed() < SHORT + GRACE);
    }
}
