//! The request bodies of both formats (contract section 3).
//!
//! Built from the text that the publisher sent, piece by piece: nothing is parsed into
//! numbers and written again, so that no receiver sees another value than was published.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::event::Event;
use super::id::SubscriptionId;
use super::pattern::Selection;

/// Most alerts in one request.
pub const ALERTS_MAX: usize = 25;

/// A rendered request body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The body.
    pub body: Bytes,
    /// Whether alerts were left out: the header `x-webhook-has-more: true` is sent.
    pub has_more: bool,
}

/// Renders the `standard` body with the alerts that `selection` names.
///
/// The body is the same for every subscription with the same selection.
pub fn standard(event: &Event, selection: &Selection) -> Payload {
    if !event.has_selectable_alerts() {
        let body = standard_body(event, event.data.text().as_bytes());
        return Payload {
            body,
            has_more: false,
        };
    }
    let (data, has_more) = lookup_data(event, selection);
    Payload {
        body: standard_body(event, &data),
        has_more,
    }
}

/// Renders the `leicbit` body for one subscription.
pub fn leicbit(event: &Event, subscription: &SubscriptionId) -> Payload {
    let parts = raw_fields(event.data.text());
    let object = |field: &str| match parts.get(field) {
        Some(raw) if raw.get().starts_with('{') => raw.get().as_bytes(),
        _ => b"null",
    };
    let mut body = Vec::with_capacity(event.data.text().len() + 256);
    body.extend_from_slice(b"{\"event_id\":");
    push_string(&mut body, event.id.as_str());
    body.extend_from_slice(b",\"event_type\":");
    push_string(&mut body, event.kind.as_str());
    body.extend_from_slice(b",\"timestamp\":");
    push_string(&mut body, event.timestamp.as_str());
    for field in ["domain", "alert", "user"] {
        body.extend_from_slice(b",\"");
        body.extend_from_slice(field.as_bytes());
        body.extend_from_slice(b"\":");
        body.extend_from_slice(object(field));
    }
    body.extend_from_slice(b",\"webhook_id\":");
    push_string(&mut body, subscription.as_str());
    body.push(b'}');
    Payload {
        body: body.into(),
        has_more: false,
    }
}

fn standard_body(event: &Event, data: &[u8]) -> Bytes {
    let mut body = Vec::with_capacity(data.len() + 128);
    body.extend_from_slice(b"{\"type\":");
    push_string(&mut body, event.kind.as_str());
    body.extend_from_slice(b",\"timestamp\":");
    push_string(&mut body, event.timestamp.as_str());
    body.extend_from_slice(b",\"data\":");
    body.extend_from_slice(data);
    body.push(b'}');
    body.into()
}

/// `{"domain","lookup_id","count","total","has_more","alerts"}`, and `has_more`.
fn lookup_data(event: &Event, selection: &Selection) -> (Vec<u8>, bool) {
    let parts = raw_fields(event.data.text());
    let text = |field: &str| parts.get(field).map_or("null", |raw| raw.get());
    let alerts: Vec<&RawValue> = parts
        .get("alerts")
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or_default();
    let chosen: Vec<&str> = match selection {
        Selection::All => alerts.iter().map(|raw| raw.get()).collect(),
        Selection::Some(indexes) => indexes
            .iter()
            .filter_map(|i| alerts.get(*i))
            .map(|raw| raw.get())
            .collect(),
    };
    let (total, count) = (chosen.len(), chosen.len().min(ALERTS_MAX));
    let has_more = total > ALERTS_MAX;
    let head = format!(
        "{{\"domain\":{},\"lookup_id\":{},\"count\":{count},\"total\":{total},\"has_more\":{has_more},\"alerts\":[",
        text("domain"),
        text("lookup_id"),
    );
    let mut data = head.into_bytes();
    data.extend_from_slice(chosen[..count].join(",").as_bytes());
    data.extend_from_slice(b"]}");
    (data, has_more)
}

/// The fields of an object as raw text; an event's data have each once.
fn raw_fields(text: &str) -> HashMap<std::borrow::Cow<'_, str>, &RawValue> {
    // An event's data has been parsed as an object before (`Data::parse`).
    serde_json::from_str(text).unwrap_or_default()
}

fn push_string(body: &mut Vec<u8>, text: &str) {
    // Writing a string to a Vec cannot fail.
    let _ = serde_json::to_writer(body, text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::{Data, EventTime};
    use crate::domain::id::{EventId, EventType, TenantId};

    fn event(kind: &str, data: &str) -> Event {
        Event::try_new(
            EventId::parse("evt\"1").unwrap(),
            EventType::parse(kind).unwrap(),
            TenantId::parse("acme").unwrap(),
            EventTime::parse("2026-03-01T12:30:00.10Z").unwrap(),
            Data::parse(RawValue::from_string(data.to_owned()).unwrap()).unwrap(),
        )
        .unwrap()
    }

    fn text(payload: &Payload) -> &str {
        std::str::from_utf8(&payload.body).unwrap()
    }

    fn lookup(alerts: usize) -> Event {
        let alerts: Vec<_> = (0..alerts)
            .map(|i| format!(r#"{{"alert":{{"n":{i}}},"result":{{}}}}"#))
            .collect();
        let data = format!(
            r#"{{"lookup_id":"l1","alerts":[{}],"domain":"example.com","x":1}}"#,
            alerts.join(",")
        );
        event("lookup_result.alerts", &data)
    }

    #[test]
    fn standard_hands_the_data_on_as_published() {
        let payload = standard(
            &event("a.b", r#"{"n":1.10,"big":12345678901234567890123}"#),
            &Selection::All,
        );
        assert_eq!(
            text(&payload),
            r#"{"type":"a.b","timestamp":"2026-03-01T12:30:00.10Z","data":{"n":1.10,"big":12345678901234567890123}}"#
        );
        assert!(!payload.has_more);
    }

    #[test]
    fn lookups_are_cut_at_25() {
        for (alerts, count, has_more) in [
            (0, 0, false),
            (25, 25, false),
            (26, 25, true),
            (40, 25, true),
        ] {
            let payload = standard(&lookup(alerts), &Selection::All);
            assert_eq!(payload.has_more, has_more);
            let head = format!(
                r#"{{"type":"lookup_result.alerts","timestamp":"2026-03-01T12:30:00.10Z","data":{{"domain":"example.com","lookup_id":"l1","count":{count},"total":{alerts},"has_more":{has_more},"alerts":["#
            );
            assert!(text(&payload).starts_with(&head), "{}", text(&payload));
            let value: serde_json::Value = serde_json::from_slice(&payload.body).unwrap();
            assert_eq!(value["data"]["alerts"].as_array().unwrap().len(), count);
        }
    }

    #[test]
    fn lookups_hold_only_what_was_selected() {
        let payload = standard(&lookup(40), &Selection::Some(vec![3, 39]));
        assert!(text(&payload).ends_with(
            r#""count":2,"total":2,"has_more":false,"alerts":[{"alert":{"n":3},"result":{}},{"alert":{"n":39},"result":{}}]}}"#
        ));
    }

    #[test]
    fn leicbit_takes_objects_and_leaves_null_for_the_rest() {
        let subscription = SubscriptionId::parse("sub_1").unwrap();
        let data = r#"{"user":{"email":"u"},"domain":{"name":"d"}}"#;
        let payload = leicbit(&event("monitoring_started", data), &subscription);
        assert_eq!(
            text(&payload),
            r#"{"event_id":"evt\"1","event_type":"monitoring_started","timestamp":"2026-03-01T12:30:00.10Z","domain":{"name":"d"},"alert":null,"user":{"email":"u"},"webhook_id":"sub_1"}"#
        );
        let other = leicbit(
            &event("other", r#"{"domain":"text","alert":[1]}"#),
            &subscription,
        );
        assert!(text(&other).contains(r#""domain":null,"alert":null,"user":null"#));
    }
}
