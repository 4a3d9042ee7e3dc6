//! Names: looked up, judged by all their addresses, kept for their time, and failing.

use std::net::IpAddr;
use std::time::Instant;

use carillon::adapters::https::HttpsSettings;
use carillon::domain::address::EgressRule;
use carillon::domain::outcome::Failure;

use crate::endpoints::{Untouched, answering};
use crate::harness::{
    AMPLE, GRACE, SHORT, answer, asking, blocked_by, failure, post, settings, transport,
};
use crate::name_server::{Reply, name_server};

fn addresses<const N: usize>(addresses: [&str; N]) -> Reply {
    let addresses = addresses.map(|address| address.parse::<IpAddr>().unwrap());
    Reply::Addresses(addresses.to_vec())
}

#[tokio::test]
async fn a_name_is_looked_up() {
    let (address, _) = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let server = name_server(|_| addresses(["127.0.0.1"])).await;
    let transport = asking(server, &["127.0.0.0/8"]);
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
    let inside = Untouched::bind();
    let url = format!("http://hooks.example:{}/", inside.port());
    let server = name_server(|_| addresses(["1.1.1.1", "127.0.0.1"])).await;
    let exchange = post(&asking(server, &[]), &url, AMPLE).await;
    assert_eq!(blocked_by(&exchange), EgressRule::Loopback);

    // Also where the other family hides it.
    let server = name_server(|_| addresses(["127.0.0.1", "fd00::1"])).await;
    let exchange = post(&asking(server, &["127.0.0.0/8"]), &url, AMPLE).await;
    assert_eq!(blocked_by(&exchange), EgressRule::Private);
    inside.assert();
}

#[tokio::test]
async fn a_name_that_changes_its_address_is_checked_again() {
    let (address, count) =
        answering("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    let server = name_server(|asked| match asked {
        1 => addresses(["127.0.0.1"]),
        _ => addresses(["169.254.169.254"]),
    })
    .await;
    let transport = asking(server, &["127.0.0.0/8"]);
    let url = format!("http://hooks.example:{}/", address.port());
    assert_eq!(answer(post(&transport, &url, AMPLE).await).status, 200);
    let exchange = post(&transport, &url, AMPLE).await;
    assert_eq!(blocked_by(&exchange), EgressRule::LinkLocal);
    assert_eq!(count.connections(), 1);
}

#[tokio::test]
async fn an_answer_is_kept_for_its_time_to_live() {
    let (address, _) =
        answering("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    let server = name_server(|asked| match asked {
        1 => Reply::Lasting(vec![IpAddr::from([127, 0, 0, 1])]),
        _ => Reply::Code(3),
    })
    .await;
    let transport = asking(server, &["127.0.0.0/8"]);
    let url = format!("http://hooks.example:{}/", address.port());
    for _ in 0..3 {
        assert_eq!(answer(post(&transport, &url, AMPLE).await).status, 200);
    }
}

#[tokio::test]
async fn names_fail_in_their_ways() {
    for (code, expected) in [(3, Failure::NameNotFound), (2, Failure::NameLookup)] {
        let server = name_server(move |_| Reply::Code(code)).await;
        let exchange = post(
            &asking(server, &[]),
            "https://hooks.example/?k=s3cret",
            AMPLE,
        )
        .await;
        assert_eq!(failure(&exchange), expected);
        assert!(exchange.detail.contains("hooks.example"));
    }
    let server = name_server(|_| addresses([])).await;
    let exchange = post(&asking(server, &[]), "https://hooks.example/", AMPLE).await;
    assert_eq!(failure(&exchange), Failure::NameNotFound);
}

#[tokio::test]
async fn a_silent_name_server_is_a_timeout_of_the_name() {
    let silent = name_server(|_| Reply::Silence).await;
    let within = |connect_timeout| HttpsSettings {
        connect_timeout,
        name_servers: Some(vec![silent]),
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
