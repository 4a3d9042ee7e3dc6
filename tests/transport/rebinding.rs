//! Names whose addresses change, or hide one another. Beside what the rules permit there is a
//! listener on 127.0.0.2, the same port, that they forbid: it counts, and each test also shows
//! that it is reached when they do not.

use carillon::adapters::https::HttpsTransport;
use carillon::domain::address::{EgressRefusal, EgressRule, Refused};
use carillon::domain::outcome::Failure;
use tokio::io::AsyncWriteExt;

use crate::endpoints::{endpoint_on, read_request};
use crate::harness::{AMPLE, answer, asking, failure, post};
use crate::name_server::{NameServer, Question, Record, Reply, addresses, name_server};
use crate::watched::{Watched, on_one_port};

/// What is permitted: 127.0.0.1, and 127.0.0.3, where nobody listens.
const STRICT: &[&str] = &["127.0.0.1/32", "127.0.0.3/32"];
/// The forbidden listener as well.
const WIDE: &[&str] = &["127.0.0.0/8"];

/// Asks for `hooks.example`.
async fn ask(transport: &HttpsTransport, port: u16) -> carillon::ports::Exchange {
    post(transport, &format!("http://hooks.example:{port}/"), AMPLE).await
}

/// Asks and is refused because of `address`.
async fn ask_refused(transport: &HttpsTransport, port: u16, address: &str) {
    let exchange = ask(transport, port).await;
    let refusal = EgressRefusal {
        target: Refused::Address(address.parse().unwrap()),
        rule: EgressRule::Loopback,
    };
    assert_eq!(failure(&exchange), Failure::Blocked(refusal));
    assert_eq!(failure(&exchange).reason().code(), "blocked_address");
    assert_eq!(exchange.timing.connect, None);
}

/// The name server's address changes from the second question for A on.
fn changing(question: &Question, before: &str, after: &str) -> Reply {
    // The other family's question comes with it, in either order.
    match (question.is_a, question.asked) {
        (false, _) => addresses([]),
        (true, 1) => addresses([before]),
        (true, _) => addresses([after]),
    }
}

#[tokio::test]
async fn a_name_that_is_bound_again_is_refused() {
    let (allowed, forbidden) = Watched::pair();
    let server = name_server(|question| changing(question, "127.0.0.1", "127.0.0.2")).await;
    let strict = asking(&server, STRICT);
    assert_eq!(answer(ask(&strict, allowed.port()).await).body, "ok");
    for _ in 0..3 {
        ask_refused(&strict, allowed.port(), "127.0.0.2").await;
    }
    assert_eq!((allowed.count(), forbidden.count()), (1, 0));

    let server = name_server(|question| changing(question, "127.0.0.1", "127.0.0.2")).await;
    let wide = asking(&server, WIDE);
    for _ in 0..2 {
        assert_eq!(answer(ask(&wide, allowed.port()).await).body, "ok");
    }
    assert_eq!((allowed.count(), forbidden.count()), (2, 1));
}

#[tokio::test]
async fn a_name_that_is_bound_again_is_used_again_when_it_is_back() {
    let (allowed, forbidden) = Watched::pair();
    let server = name_server(|question| match (question.is_a, question.asked % 2) {
        (false, _) => addresses([]),
        (true, 0) => addresses(["127.0.0.1"]),
        (true, _) => addresses(["127.0.0.2"]),
    })
    .await;
    let strict = asking(&server, STRICT);
    for _ in 0..5 {
        ask_refused(&strict, allowed.port(), "127.0.0.2").await;
        assert_eq!(answer(ask(&strict, allowed.port()).await).body, "ok");
    }
    assert_eq!((allowed.count(), forbidden.count()), (5, 0));
}

type Script = fn(&Question) -> Reply;

/// Answers that lead to the forbidden listener by one of their parts, with the address that
/// gives them away. What is permitted in them has nobody listening, so that a client which goes
/// on to the next address comes to the listener.
const MIXED: &[(&str, Script, &str)] = &[
    (
        "both in one answer",
        |_| addresses(["127.0.0.3", "127.0.0.2"]),
        "127.0.0.2",
    ),
    (
        "both in one answer, the forbidden one first",
        |_| addresses(["127.0.0.2", "127.0.0.3"]),
        "127.0.0.2",
    ),
    (
        "as the last that is tried",
        |_| {
            let mut all = vec!["127.0.0.3".parse().unwrap(); 15];
            all.push("127.0.0.2".parse().unwrap());
            Reply::Addresses(all)
        },
        "127.0.0.2",
    ),
    (
        "in the other family",
        |_| addresses(["127.0.0.3", "::ffff:127.0.0.2"]),
        "::ffff:127.0.0.2",
    ),
    (
        "in the other family alone",
        |_| addresses(["::ffff:127.0.0.2"]),
        "::ffff:127.0.0.2",
    ),
    (
        "by an alias that the other family alone has",
        |question| match question.is_a {
            true => addresses(["127.0.0.3"]),
            false => Reply::Records(vec![
                Record::alias(&question.name, "inside.example."),
                Record::address("inside.example.", "::ffff:127.0.0.2"),
            ]),
        },
        "::ffff:127.0.0.2",
    ),
    (
        "at the end of a chain of aliases",
        |question| {
            Reply::Records(match question.is_a {
                true => vec![
                    Record::alias(&question.name, "one.example."),
                    Record::alias("one.example.", "two.example."),
                    Record::address("two.example.", "127.0.0.2"),
                ],
                false => vec![],
            })
        },
        "127.0.0.2",
    ),
    (
        "at the end of a chain of aliases that is asked for link by link",
        |question| {
            let next = match question.name.as_str() {
                "hooks.example." => "one.example.",
                "one.example." => "two.example.",
                _ => return addresses(["127.0.0.2"]),
            };
            Reply::Records(vec![Record::alias(&question.name, next)])
        },
        "127.0.0.2",
    ),
];

#[tokio::test]
async fn one_forbidden_address_refuses_the_name_wherever_it_stands() {
    for (what, script, found) in MIXED {
        let forbidden = Watched::beside_nobody();
        let server = name_server(script).await;
        let strict = asking(&server, STRICT);
        for _ in 0..2 {
            ask_refused(&strict, forbidden.port(), found).await;
        }
        assert_eq!(forbidden.count(), 0, "{what}");

        let exchange = ask(&asking(&server, WIDE), forbidden.port()).await;
        assert_eq!(answer(exchange).body, "ok", "{what}");
        assert_eq!(forbidden.count(), 1, "{what}");
    }
}

/// All are judged, of which no more than sixteen are tried.
#[tokio::test]
async fn a_forbidden_address_behind_many_refuses_the_name() {
    let (allowed, forbidden) = Watched::pair();
    for place in [16, 17, 30] {
        let server = name_server(move |_| {
            let mut all = vec!["127.0.0.1".parse().unwrap(); 31];
            all[place] = "127.0.0.2".parse().unwrap();
            Reply::Addresses(all)
        })
        .await;
        ask_refused(&asking(&server, STRICT), allowed.port(), "127.0.0.2").await;
    }
    assert_eq!((allowed.count(), forbidden.count()), (0, 0));
}

/// IPv6 is judged although IPv4 would do, and the other way round.
#[tokio::test]
async fn the_answer_changes_between_the_questions_for_the_two_families() {
    for first_is_a in [true, false] {
        let forbidden = Watched::beside_nobody();
        // Whichever question is named first gets what is permitted.
        let server = name_server(move |question| match (question.is_a, first_is_a) {
            (true, true) => addresses(["127.0.0.3"]),
            (false, true) => addresses(["::ffff:127.0.0.2"]),
            (true, false) => addresses(["127.0.0.2"]),
            (false, false) => addresses(["::ffff:127.0.0.3"]),
        })
        .await;
        let found = if first_is_a {
            "::ffff:127.0.0.2"
        } else {
            "127.0.0.2"
        };
        ask_refused(&asking(&server, STRICT), forbidden.port(), found).await;
        assert_eq!(forbidden.count(), 0);
        let exchange = ask(&asking(&server, WIDE), forbidden.port()).await;
        assert_eq!(answer(exchange).body, "ok");
        assert_eq!(forbidden.count(), 1);
    }
}

/// An answer that is kept is the one that was checked, and it is checked at each use.
#[tokio::test]
async fn an_answer_that_lasts_is_not_bound_again() {
    fn lasting(question: &Question, first: &str, then: &str) -> Reply {
        match (question.is_a, question.asked) {
            (false, _) => addresses([]),
            (true, 1) => Reply::Lasting(vec![first.parse().unwrap()]),
            (true, _) => addresses([then]),
        }
    }
    let (allowed, forbidden) = Watched::pair();
    let server = name_server(|question| lasting(question, "127.0.0.1", "127.0.0.2")).await;
    let strict = asking(&server, STRICT);
    for _ in 0..3 {
        assert_eq!(answer(ask(&strict, allowed.port()).await).body, "ok");
    }
    assert_eq!(asked_for_a(&server), 1);
    assert_eq!((allowed.count(), forbidden.count()), (3, 0));

    let server = name_server(|question| lasting(question, "127.0.0.2", "127.0.0.1")).await;
    let strict = asking(&server, STRICT);
    for _ in 0..3 {
        ask_refused(&strict, allowed.port(), "127.0.0.2").await;
    }
    assert_eq!(asked_for_a(&server), 1);
    assert_eq!((allowed.count(), forbidden.count()), (3, 0));

    let wide = asking(&server, WIDE);
    // The second question, which another resolver asks, has the second answer.
    assert_eq!(answer(ask(&wide, allowed.port()).await).body, "ok");
    let server = name_server(|question| lasting(question, "127.0.0.2", "127.0.0.1")).await;
    let exchange = ask(&asking(&server, WIDE), allowed.port()).await;
    assert_eq!(answer(exchange).body, "ok");
    assert_eq!((allowed.count(), forbidden.count()), (4, 1));
}

fn asked_for_a(server: &NameServer) -> usize {
    server.questions().iter().filter(|q| q.is_a).count()
}

/// A kept-alive connection leads where it was opened to, whatever the name says by now; the next
/// one is judged by what it says then.
#[tokio::test]
async fn a_pooled_connection_keeps_to_the_address_that_was_checked() {
    for (allow, reached) in [(STRICT, 0), (WIDE, 1)] {
        let [first, second] = on_one_port(["127.0.0.1", "127.0.0.2"]);
        let forbidden = Watched::watch(second);
        // Two requests are served on a connection, the second is its last.
        let (_, count) = endpoint_on(first, |mut stream, _| async move {
            for more in ["", "connection: close\r\n"] {
                read_request(&mut stream).await.unwrap();
                let answer = format!("HTTP/1.1 200 OK\r\n{more}content-length: 2\r\n\r\nok");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let server = name_server(|question| changing(question, "127.0.0.1", "127.0.0.2")).await;
        let transport = asking(&server, allow);
        for number in 1..=2 {
            let exchange = ask(&transport, forbidden.port()).await;
            assert_eq!(exchange.timing.connect.is_some(), number == 1);
            assert_eq!(answer(exchange).body, "ok");
        }
        assert_eq!((count.connections(), forbidden.count()), (1, 0));
        if reached == 0 {
            ask_refused(&transport, forbidden.port(), "127.0.0.2").await;
        } else {
            assert_eq!(answer(ask(&transport, forbidden.port()).await).body, "ok");
        }
        assert_eq!((count.connections(), forbidden.count()), (1, reached));
    }
}
