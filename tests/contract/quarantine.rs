//! Quarantine: what was not understood is kept as it came, and can be tried again.

use bytes::Bytes;

use carillon::domain::event::{EventFault, FaultReason};
use carillon::domain::timestamp::UnixMillis;
use carillon::ports::{EventMessage, Parcel, Quarantined};

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
