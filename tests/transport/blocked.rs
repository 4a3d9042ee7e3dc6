//! Addresses in the URL that must not be connected to, and are not.

use carillon::domain::address::EgressRule;
use url::Url;

use crate::endpoints::endpoint_on;
use crate::harness::{AMPLE, answer, asking, blocked_by, post, settings, transport};
use crate::name_server::{addresses, name_server};
use crate::watched::{Watched, on_one_port};

/// Spellings of 127.0.0.1 that parsers of URLs, `inet_aton` or both understand.
const SPELLINGS: &[&str] = &[
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "0x7f.1",
    "0x7f.0.0.0x1",
    "0X7F000001",
    "0177.0.0.1",
    "017700000001",
    "2130706433",
    "%31%32%37.0.0.1",
    "１２７.0.0.1",
    "127。0。0。1",
    "①②⑦.⓪.⓪.①",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:FFFF:127.0.0.1]",
    "localhost",
    "localhost.",
    "LOCALHOST",
    "foo.localhost",
    "foo.localhost.",
];

#[tokio::test]
async fn addresses_in_the_url_are_blocked_in_every_spelling() {
    let inside = Watched::bind();
    let port = inside.port();
    // A resolver that would lead there is not asked.
    let server = name_server(|_| addresses(["127.0.0.1"])).await;
    let strict = asking(&server, &[]);
    for host in SPELLINGS {
        let exchange = post(&strict, &format!("http://{host}:{port}/"), AMPLE).await;
        assert_eq!(blocked_by(&exchange), EgressRule::Loopback, "{host}");
        assert_eq!(exchange.timing.connect, None);
    }
    assert_eq!(inside.count(), 0);
    assert_eq!(server.questions(), []);

    // Each of them leads to the listener where that is permitted.
    let wide = asking(&server, &["127.0.0.0/8"]);
    for host in SPELLINGS {
        let exchange = post(&wide, &format!("http://{host}:{port}/"), AMPLE).await;
        assert_eq!(answer(exchange).status, 200, "{host}");
    }
    assert_eq!(inside.count(), SPELLINGS.len());
    assert_eq!(server.questions(), []);
}

#[tokio::test]
async fn other_roads_to_this_machine_are_blocked() {
    let inside = Watched::bind();
    let port = inside.port();
    let strict = transport(settings(&[]));
    for (host, rule) in [
        ("[::1]", EgressRule::Loopback),
        ("[0:0::0:1]", EgressRule::Loopback),
        ("0", EgressRule::Unspecified),
        ("0.0.0.0", EgressRule::Unspecified),
        ("[::]", EgressRule::Unspecified),
        ("[::ffff:0.0.0.0]", EgressRule::Unspecified),
        ("[::127.0.0.1]", EgressRule::Transition),
        ("[::ffff:0:127.0.0.1]", EgressRule::Transition),
        ("[64:ff9b::127.0.0.1]", EgressRule::Transition),
        ("[2002:7f00:1::]", EgressRule::Transition),
    ] {
        let exchange = post(&strict, &format!("http://{host}:{port}/"), AMPLE).await;
        assert_eq!(blocked_by(&exchange), rule, "{host}");
    }
    // What only `inet_aton` takes for an address is no URL at all.
    for host in ["0x7f.0.0.0.1", "127.0.0.0x100000000", "127.0.0.256", "08.1"] {
        assert!(
            Url::parse(&format!("http://{host}:{port}/")).is_err(),
            "{host}"
        );
    }
    assert_eq!(inside.count(), 0);
}

/// "Any address" is the machine itself for who connects to it. Where somebody permits it, in
/// the URL or in an answer of the resolver, the far end of the open connection tells.
#[tokio::test]
async fn a_connection_that_leads_elsewhere_than_it_said_carries_no_request() {
    let [listener] = on_one_port(["127.0.0.1"]);
    let (heard, mut bytes) = tokio::sync::mpsc::unbounded_channel();
    let (address, count) = endpoint_on(listener, move |mut stream, _| {
        let heard = heard.clone();
        async move {
            let mut all = Vec::new();
            let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut all);
            // The connection may end in any way.
            drop(read.await);
            heard.send(all).unwrap();
        }
    });
    let server = name_server(|_| addresses(["0.0.0.0"])).await;
    let transport = asking(&server, &["0.0.0.0/32"]);
    for (number, (host, scheme)) in [
        ("0.0.0.0", "http"),
        ("0", "http"),
        ("hooks.example", "http"),
    ]
    .into_iter()
    .enumerate()
    {
        let url = format!("{scheme}://{host}:{}/", address.port());
        let exchange = post(&transport, &url, AMPLE).await;
        assert_eq!(blocked_by(&exchange), EgressRule::Loopback, "{host}");
        assert!(bytes.recv().await.unwrap().is_empty(), "{host}");
        assert_eq!(count.connections(), number + 1);
    }
}

#[tokio::test]
async fn a_denied_network_is_stronger_than_a_permitted_one() {
    let inside = Watched::bind();
    let allowed = settings(&["127.0.0.0/8"]);
    let mut denied = allowed.clone();
    denied.rules.deny = vec!["127.0.0.1/32".parse().unwrap()];
    let url = format!("http://127.0.0.1:{}/", inside.port());
    let exchange = post(&transport(denied), &url, AMPLE).await;
    assert_eq!(blocked_by(&exchange), EgressRule::Denied);
    assert_eq!(inside.count(), 0);
    assert_eq!(
        answer(post(&transport(allowed), &url, AMPLE).await).status,
        200
    );
    assert_eq!(inside.count(), 1);
}
