//! The audit log: newest first, every filter, a bounded ring per subscription.

use std::time::Duration;

use bytes::Bytes;

use carillon::domain::attempt::{Attempt, NextAction, Response, SentRequest, Timing};
use carillon::domain::id::EventType;
use carillon::domain::outcome::Reason;
use carillon::domain::timestamp::UnixMillis;
use carillon::ports::AttemptQuery;

use crate::harness::{Harness, Limits, Store, delivery_to, subscription_id, tenant};

/// Attempt `number` of the delivery of event `event` to `subscription`.
fn attempt(tenant: &str, event: u32, subscription: u32, number: u32, at: UnixMillis) -> Attempt {
    let delivery = delivery_to(tenant, event, subscription);
    let failed = number % 2 == 1;
    Attempt {
        delivery: delivery.id,
        number,
        redrives: 0,
        subscription: delivery.subscription,
        shared: false,
        tenant: delivery.event.tenant.clone(),
        event: delivery.event.id.clone(),
        kind: EventType::parse("a.b").unwrap(),
        at,
        request: SentRequest {
            url: "https://example.com/hook".to_owned(),
            headers: vec![("webhook-id".to_owned(), "msg_1".to_owned())],
            body: delivery.body,
            body_cut: false,
        },
        response: Some(Response {
            status: 204,
            body: Bytes::from_static(b"answer"),
            ..Response::default()
        }),
        reason: failed.then(|| Reason::from_code("timeout").unwrap()),
        detail: String::new(),
        timing: Timing::default(),
        next_action: NextAction::None,
        next_at: None,
        test: false,
    }
}

fn all() -> AttemptQuery {
    AttemptQuery {
        limit: 1000,
        ..AttemptQuery::default()
    }
}

/// The numbers of the attempts found.
async fn numbers(store: &Store, query: &AttemptQuery) -> Vec<u32> {
    let found = store.audit.attempts(query).await.unwrap();
    let positions: Vec<u64> = found.iter().map(|(position, _)| *position).collect();
    assert!(positions.is_sorted_by(|a, b| a > b), "{positions:?}");
    found.iter().map(|(_, attempt)| attempt.number).collect()
}

pub async fn newest_first_with_a_cursor<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let now = backend.now();
    for n in 0..25 {
        store.audit.append(attempt("acme", n, n % 3, n, now).into());
    }
    store.backend.flush().await;
    let sent = attempt("acme", 24, 0, 24, now);
    let newest = store.audit.attempts(&all()).await.unwrap().remove(0).1;
    assert_eq!(format!("{newest:?}"), format!("{sent:?}"));
    let mut seen = Vec::new();
    let mut page = AttemptQuery { limit: 10, ..all() };
    loop {
        let found = store.audit.attempts(&page).await.unwrap();
        assert!(found.len() <= 10);
        let Some((last, _)) = found.last() else {
            break;
        };
        page.before = Some(*last);
        seen.extend(found.iter().map(|(_, attempt)| attempt.number));
        // What comes meanwhile is on no later page.
        store
            .audit
            .append(attempt("acme", 99, 5, 99, backend.now()).into());
        store.backend.flush().await;
    }
    assert_eq!(seen, (0..25).rev().collect::<Vec<_>>());
}

pub async fn every_filter_filters<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let begin = backend.now();
    let at = |s: u64| begin.before(Duration::from_secs(100 - s));
    for (tenant, event, subscription, number) in [
        ("acme", 1, 1, 1),
        ("acme", 1, 1, 2),
        ("acme", 1, 2, 3),
        ("acme", 2, 2, 4),
        ("bell", 2, 3, 5),
        ("bell", 3, 3, 6),
    ] {
        let at = at(number.into());
        store
            .audit
            .append(attempt(tenant, event, subscription, number, at).into());
    }
    store.backend.flush().await;
    let event = |n| Some(delivery_to("acme", n, 1).event.id.clone());
    let of_acme = || AttemptQuery {
        tenant: Some(tenant("acme")),
        ..all()
    };
    let to = |n| AttemptQuery {
        subscription: Some(subscription_id(n)),
        ..all()
    };
    let first = || Some(delivery_to("acme", 1, 1).id);
    let cases = [
        (all(), vec![6, 5, 4, 3, 2, 1]),
        (of_acme(), vec![4, 3, 2, 1]),
        (to(2), vec![4, 3]),
        (
            AttemptQuery {
                event: event(2),
                ..all()
            },
            vec![5, 4],
        ),
        (
            AttemptQuery {
                event: event(2),
                ..of_acme()
            },
            vec![4],
        ),
        (
            AttemptQuery {
                delivery: first(),
                ..all()
            },
            vec![2, 1],
        ),
        (
            AttemptQuery {
                delivered: Some(true),
                ..all()
            },
            vec![6, 4, 2],
        ),
        (
            AttemptQuery {
                delivered: Some(false),
                ..all()
            },
            vec![5, 3, 1],
        ),
        (
            AttemptQuery {
                delivered: Some(false),
                ..of_acme()
            },
            vec![3, 1],
        ),
        (
            AttemptQuery {
                delivered: Some(true),
                ..to(2)
            },
            vec![4],
        ),
        (
            AttemptQuery {
                since: Some(at(4)),
                ..all()
            },
            vec![6, 5, 4],
        ),
        (
            AttemptQuery {
                since: Some(at(2)),
                ..to(1)
            },
            vec![2],
        ),
        (
            AttemptQuery {
                tenant: Some(tenant("bell")),
                ..to(2)
            },
            vec![],
        ),
        (
            AttemptQuery {
                delivery: first(),
                ..to(2)
            },
            vec![],
        ),
        (
            AttemptQuery {
                limit: 2,
                ..of_acme()
            },
            vec![4, 3],
        ),
    ];
    for (query, expected) in cases {
        assert_eq!(numbers(&store, &query).await, expected, "{query:?}");
    }
}

/// What went to a subscription of every tenant is none of the event's tenant's business.
pub async fn an_owner_sees_its_own<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let now = backend.now();
    for (tenant, event, subscription, number, shared) in [
        ("acme", 1, 1, 1, false),
        ("acme", 1, 2, 2, true),
        ("bell", 2, 2, 3, true),
        ("bell", 2, 3, 4, false),
        ("acme", 4, 1, 5, false),
    ] {
        let attempt = attempt(tenant, event, subscription, number, now);
        let attempt = Attempt { shared, ..attempt };
        store.audit.append(attempt.into());
    }
    store.backend.flush().await;
    let of = |name: &str| AttemptQuery {
        owner: Some(tenant(name)),
        ..all()
    };
    let acme = || Some(tenant("acme"));
    let to = |n| Some(subscription_id(n));
    let delivery = |name, event, n| Some(delivery_to(name, event, n).id);
    let cases = [
        (of("acme"), vec![5, 1]),
        (of("bell"), vec![4]),
        (of("none"), vec![]),
        (
            AttemptQuery {
                limit: 1,
                ..of("acme")
            },
            vec![5],
        ),
        (
            AttemptQuery {
                tenant: acme(),
                ..of("acme")
            },
            vec![5, 1],
        ),
        (
            AttemptQuery {
                tenant: acme(),
                ..of("bell")
            },
            vec![],
        ),
        (
            AttemptQuery {
                tenant: acme(),
                ..all()
            },
            vec![5, 2, 1],
        ),
        (
            AttemptQuery {
                subscription: to(1),
                ..of("acme")
            },
            vec![5, 1],
        ),
        (
            AttemptQuery {
                subscription: to(2),
                ..of("acme")
            },
            vec![],
        ),
        (
            AttemptQuery {
                subscription: to(3),
                ..of("acme")
            },
            vec![],
        ),
        (
            AttemptQuery {
                delivery: delivery("acme", 1, 1),
                ..of("acme")
            },
            vec![1],
        ),
        (
            AttemptQuery {
                delivery: delivery("acme", 1, 2),
                ..of("acme")
            },
            vec![],
        ),
        (
            AttemptQuery {
                delivery: delivery("bell", 2, 3),
                ..of("acme")
            },
            vec![],
        ),
        (
            AttemptQuery {
                delivered: Some(false),
                ..of("acme")
            },
            vec![5, 1],
        ),
    ];
    for (query, expected) in cases {
        assert_eq!(numbers(&store, &query).await, expected, "{query:?}");
    }
}

pub async fn the_ring_keeps_the_newest<H: Harness>() {
    let limits = Limits {
        audit_per_subscription: 3,
        ..Limits::default()
    };
    let mut backend = H::start(limits).await;
    for round in 0..4 {
        let store = backend.store();
        for n in round * 5..round * 5 + 5 {
            store
                .audit
                .append(attempt("acme", n, 1, n, backend.now()).into());
        }
        if round == 0 {
            store
                .audit
                .append(attempt("acme", 0, 2, 100, backend.now()).into());
        }
        store.backend.flush().await;
        let of_1 = AttemptQuery {
            subscription: Some(subscription_id(1)),
            ..all()
        };
        let last = round * 5 + 4;
        assert_eq!(numbers(&store, &of_1).await, [last, last - 1, last - 2]);
        let of_2 = AttemptQuery {
            subscription: Some(subscription_id(2)),
            ..all()
        };
        assert_eq!(numbers(&store, &of_2).await, [100], "others keep theirs");
        if round % 2 == 1 {
            backend.restart().await;
        }
    }
}

pub async fn old_ones_are_not_shown<H: Harness>() {
    let limits = Limits {
        audit_keep: Duration::from_secs(4),
        ..Limits::default()
    };
    let backend = H::start(limits).await;
    let store = backend.store();
    store
        .audit
        .append(attempt("acme", 1, 1, 1, backend.now()).into());
    backend.pass(Duration::from_secs(2)).await;
    store
        .audit
        .append(attempt("acme", 1, 1, 2, backend.now()).into());
    store.backend.flush().await;
    assert_eq!(numbers(&store, &all()).await, [2, 1]);
    backend.pass(Duration::from_secs(3)).await;
    assert_eq!(numbers(&store, &all()).await, [2]);
}

pub async fn a_long_body_is_cut<H: Harness>() {
    let limits = Limits {
        audit_body_bytes: 10,
        ..Limits::default()
    };
    let backend = H::start(limits).await;
    let store = backend.store();
    for body in [b"0123456789".as_slice(), b"0123456789a"] {
        let mut attempt = attempt("acme", 1, 1, 1, backend.now());
        attempt.request.body = Bytes::from_static(body);
        store.audit.append(attempt.into());
    }
    store.backend.flush().await;
    let found = store.audit.attempts(&all()).await.unwrap();
    let kept = |n: usize| (&found[n].1.request.body[..], found[n].1.request.body_cut);
    assert_eq!(kept(0), (b"0123456789".as_slice(), true));
    assert_eq!(kept(1), (b"0123456789".as_slice(), false));
}

pub async fn it_survives_an_orderly_end<H: Harness>() {
    let mut backend = H::start(Limits::default()).await;
    for n in 0..100 {
        let attempt = attempt("acme", n, n, n, backend.now());
        backend.store().audit.append(attempt.into());
    }
    backend.restart().await;
    let found = numbers(&backend.store(), &all()).await;
    assert_eq!(found, (0..100).rev().collect::<Vec<_>>());
}
