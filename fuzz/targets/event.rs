//! Whatever bytes come as an event, decoding them does not panic; what is accepted keeps the
//! limits of contract section 1, and comes back the same from each of the three encodings.
//!
//! Input: one byte that picks the content type, then the body.
#![no_main]

use bytes::Bytes;
use carillon::codec::event::decode;
use carillon::codec::proto;
use carillon::domain::event::{Event, TEST_TYPE};
use carillon::domain::json::{Json, Object};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use serde_json::{Map, Value, json};

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";
const CLOUD_EVENTS: &str = "application/cloudevents+json";
/// Less than libFuzzer's inputs may have, so that this limit is met too.
const BYTES_MAX: usize = 2048;

fuzz_target!(|input: &[u8]| {
    let Some((first, body)) = input.split_first() else {
        return;
    };
    let content_type = match first {
        b'j' => Some(JSON),
        b'p' => Some(PROTOBUF),
        b'c' => Some(CLOUD_EVENTS),
        other if other % 2 == 0 => Some(PROTOBUF),
        _ => None,
    };
    if let Ok(event) = decode(&Bytes::copy_from_slice(body), content_type, BYTES_MAX) {
        assert!(body.len() <= BYTES_MAX);
        keeps_the_rules(&event);
        comes_back_the_same(&event);
    }
});

fn keeps_the_rules(event: &Event) {
    for name in [event.id.as_str(), event.tenant.as_str()] {
        assert!((1..=128).contains(&name.len()), "{name:?}");
        assert!(name.bytes().all(|b| (0x21..=0x7e).contains(&b)), "{name:?}");
    }
    let kind = event.kind.as_str();
    assert!(kind.len() <= 128, "{kind:?}");
    let in_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let is_word = |word: &str| !word.is_empty() && word.chars().all(in_word);
    assert!(kind.split('.').all(is_word), "{kind:?}");
    let timestamp = event.timestamp.as_str();
    assert!(is_rfc3339(timestamp.as_bytes()), "{timestamp:?}");
    let text: Value = serde_json::from_str(event.data.text()).expect("JSON");
    let fields = text.as_object().expect("an object");
    assert!(is_the_same_object(event.data.fields(), fields), "{event:?}");
    assert!(has_what_its_type_needs(kind, fields), "{event:?}");
}

/// Whether what filters see is what a receiver reads.
fn is_the_same(seen: &Json, read: &Value) -> bool {
    match (seen, read) {
        (Json::Null, Value::Null) => true,
        (Json::Bool(seen), Value::Bool(read)) => seen == read,
        (Json::Number(seen), Value::Number(read)) => seen == read,
        (Json::Text(seen), Value::String(read)) => **seen == **read,
        (Json::Array(seen), Value::Array(read)) => {
            let pairs = || seen.iter().zip(read);
            seen.len() == read.len() && pairs().all(|(seen, read)| is_the_same(seen, read))
        }
        (Json::Object(seen), Value::Object(read)) => is_the_same_object(seen, read),
        _ => false,
    }
}

fn is_the_same_object(seen: &Object, read: &Map<String, Value>) -> bool {
    let is_read = |(name, seen)| read.get(name).is_some_and(|read| is_the_same(seen, read));
    seen.iter().count() == read.len() && seen.iter().all(is_read)
}

/// RFC 3339 section 5.6, with a space for the `T` as its note allows.
fn is_rfc3339(text: &[u8]) -> bool {
    let fits = |text: &[u8], form: &[u8]| {
        let fits = |(byte, form): (&u8, &u8)| match form {
            b'0' => byte.is_ascii_digit(),
            b'T' => matches!(byte, b'T' | b't' | b' '),
            b'+' => matches!(byte, b'+' | b'-'),
            other => byte == other,
        };
        text.len() == form.len() && text.iter().zip(form).all(fits)
    };
    let Some((date_time, rest)) = text.split_at_checked(19) else {
        return false;
    };
    let zone = match rest.split_first() {
        Some((b'.', rest)) => {
            let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            if digits == 0 {
                return false;
            }
            &rest[digits..]
        }
        _ => rest,
    };
    fits(date_time, b"0000-00-00T00:00:00")
        && (fits(zone, b"Z") || fits(zone, b"z") || fits(zone, b"+00:00"))
}

fn has_what_its_type_needs(kind: &str, data: &Map<String, Value>) -> bool {
    let object = |field: &str| data.get(field).is_some_and(Value::is_object);
    let string = |field: &str| data.get(field).is_some_and(Value::is_string);
    let is_alert = |item: &Value| item["alert"].is_object() && item["result"].is_object();
    match kind {
        "credential_theft_detected" | "domain_compromise_suspected" | "threat_resolved" => {
            object("domain") && object("user") && object("alert")
        }
        "monitoring_started" => {
            let alert = data.get("alert").unwrap_or(&Value::Null);
            object("domain") && object("user") && (alert.is_null() || alert.is_object())
        }
        "lookup_result.alerts" => {
            let alerts = data.get("alerts").and_then(Value::as_array);
            string("domain")
                && string("lookup_id")
                && alerts.is_some_and(|alerts| alerts.iter().all(is_alert))
        }
        kind => kind != TEST_TYPE,
    }
}

fn comes_back_the_same(event: &Event) {
    let (id, kind, tenant) = (
        event.id.as_str(),
        event.kind.as_str(),
        event.tenant.as_str(),
    );
    let (timestamp, data) = (event.timestamp.as_str(), event.data.text());
    // Put together as text: the data must stay as it was written.
    let with_data = |envelope: Value| {
        let envelope = envelope.to_string();
        format!("{},\"data\":{data}}}", envelope.trim_end_matches('}'))
    };
    let json = with_data(json!({"id": id, "type": kind, "tenant": tenant, "timestamp": timestamp}));
    let cloud = with_data(json!({
        "specversion": "1.0", "id": id, "type": kind, "tenant": tenant, "time": timestamp,
    }));
    let message = proto::Event {
        id: id.to_owned(),
        r#type: kind.to_owned(),
        tenant: tenant.to_owned(),
        timestamp: timestamp.to_owned(),
        data: Bytes::copy_from_slice(data.as_bytes()),
    };
    for (content_type, body) in [
        (JSON, json.into()),
        (CLOUD_EVENTS, cloud.into()),
        (PROTOBUF, message.encode_to_vec().into()),
    ] {
        let back = decode(&body, Some(content_type), usize::MAX).expect(content_type);
        assert_eq!(format!("{back:?}"), format!("{event:?}"), "{content_type}");
    }
}
