//! Quarantine: what was not understood is kept as it came, and can be tried again.

use bytes::Bytes;

use carillon::domain::event::{EventFault, FaultReason};
use carillon::domain::timestamp::UnixMillis;
use carillon::ports::{EventMessage, Parcel, QuarantineQuery, Quarantined};

use crate::harness::{Harness, Limits};

fn quarantined(body: &'static [u8], reason: FaultReason) -> Quarantined {
    Quarantined {
        message: EventMessage {
            body: Bytes::from_static(body),
            content_type: Some("text/plain".to_owned()),
            traceparent: Some("00-1-2-01".to_owned()),
            ..EventMessage::default()
        },
        fault: EventFault {
            reason,
            field: Some("data.alerts[0]".to_owned()),
            sentence: "`data.alerts[0]` must be an object, found a number".to_owned(),
        },
        at: UnixMillis(77),
    }
}

pub async fn a_message_keeps_its_bytes_and_reason<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let reasons = [
        FaultReason::Malformed,
        FaultReason::TooLarge,
        FaultReason::UnsupportedContentType,
        FaultReason::MissingField,
        FaultReason::InvalidField,
        FaultReason::ReservedType,
        FaultReason::Unroutable,
    ];
    let sent: Vec<_> = reasons
        .map(|reason| quarantined(b"\xff\x00{", reason))
        .into();
    let parcels = sent.iter().cloned().map(Parcel::Quarantine);
    store.put(parcels.collect()).await;
    for _ in 0..100 {
        let found = store.quarantine.list(100).await.unwrap();
        let found: Vec<_> = found.into_iter().map(|(_, found)| found).collect();
        assert_eq!(format!("{found:?}"), format!("{sent:?}"));
    }
    let two = store.quarantine.list(2).await.unwrap();
    assert_eq!(two.len(), 2);
    assert_eq!(two[1].1.fault.reason, FaultReason::TooLarge, "oldest first");
    store.no_event_comes().await;
}

pub async fn it_can_be_requeued_once<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let sent = quarantined(b"{}", FaultReason::MissingField);
    let other = quarantined(b"{", FaultReason::Malformed);
    store
        .put(vec![
            Parcel::Quarantine(sent.clone()),
            Parcel::Quarantine(other),
        ])
        .await;
    let id = store.quarantine.list(1).await.unwrap().remove(0).0;
    assert!(store.quarantine.requeue(&id).await.unwrap());
    assert!(!store.quarantine.requeue(&id).await.unwrap());
    assert!(!store.quarantine.requeue("no such id").await.unwrap());
    let taken = store.take_events(1).await;
    assert_eq!(taken[0].message, sent.message);
    store.no_event_comes().await;
    assert_eq!(store.quarantine.list(10).await.unwrap().len(), 1);
}

pub async fn those_that_match_are_requeued_oldest_first<H: Harness>() {
    const COUNT: i64 = 130;
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    let every_third = |n| match n % 3 {
        0 => FaultReason::TooLarge,
        _ => FaultReason::Malformed,
    };
    let parcel = |n: i64| {
        Parcel::Quarantine(Quarantined {
            message: EventMessage {
                body: n.to_string().into(),
                ..EventMessage::default()
            },
            at: UnixMillis(n),
            ..quarantined(b"", every_third(n))
        })
    };
    store.put((0..COUNT).map(parcel).collect()).await;
    let requeue = async |reason, until: Option<i64>, limit| {
        let query = QuarantineQuery {
            reason,
            until: until.map(UnixMillis),
            limit,
        };
        store.quarantine.requeue_all(&query).await.unwrap()
    };
    let taken = async |count| {
        let mut numbers = Vec::new();
        for taken in store.take_events(count).await {
            numbers.push(
                std::str::from_utf8(&taken.message.body)
                    .unwrap()
                    .parse()
                    .unwrap(),
            );
            taken.receipt.ack();
        }
        numbers
    };
    for limit in [1, 40, 130, 40, 1] {
        let found = store.quarantine.list(limit).await.unwrap();
        let oldest: Vec<i64> = found.iter().map(|(_, found)| found.at.0).collect();
        assert_eq!(oldest, (0..COUNT).take(limit).collect::<Vec<_>>());
    }
    assert_eq!(requeue(Some(FaultReason::Unroutable), None, 9).await, 0);
    assert_eq!(requeue(Some(FaultReason::TooLarge), None, 4).await, 4);
    let numbers: Vec<i64> = taken(4).await;
    assert_eq!(numbers, [0, 3, 6, 9]);
    assert_eq!(requeue(None, Some(5), 100).await, 3);
    let numbers: Vec<i64> = taken(3).await;
    assert_eq!(numbers, [1, 2, 4]);
    let left = store.quarantine.list(1000).await.unwrap();
    let mut left: Vec<i64> = left.iter().map(|(_, found)| found.at.0).collect();
    // What was passed over may be behind the others now.
    left.sort_unstable();
    let others = (5..COUNT).filter(|n| ![6, 9].contains(n));
    assert_eq!(left, others.collect::<Vec<_>>());
    assert_eq!(requeue(None, None, 1000).await, left.len() as u64);
    let mut numbers: Vec<i64> = taken(left.len()).await;
    numbers.sort_unstable();
    assert_eq!(numbers, left);
    assert!(store.quarantine.list(1).await.unwrap().is_empty());
    store.no_event_comes().await;
}

pub async fn it_survives_a_crash<H: Harness>() {
    let mut backend = H::start(Limits::default()).await;
    let sent = quarantined(b"\xfe", FaultReason::Malformed);
    let parcel = Parcel::Quarantine(sent.clone());
    backend.store().put(vec![parcel]).await;
    backend.crash().await;
    let found = backend.store().quarantine.list(10).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(format!("{:?}", found[0].1), format!("{sent:?}"));
}
