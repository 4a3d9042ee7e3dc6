//! Events from their three encodings: JSON, protobuf, CloudEvents (contract section 1).
//!
//! Says precisely what is wrong with what is not an event. Never panics, whatever comes.

use std::fmt;

use bytes::Bytes;
use prost::Message as _;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::proto;
use crate::domain::event::{Data, Event, EventFault, EventTime, FaultReason};
use crate::domain::id::{EventId, EventType, IdFault, TenantId, shown};

/// The encodings of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`, also when nothing is said.
    Json,
    /// `application/x-protobuf`: message `carillon.v1.Event`.
    Protobuf,
    /// `application/cloudevents+json`: CloudEvents 1.0, structured.
    CloudEvents,
}

impl Encoding {
    /// Reads a content type, with or without parameters.
    ///
    /// # Errors
    /// [`EventFault`] when it is none of the three.
    pub fn of(content_type: Option<&str>) -> Result<Self, EventFault> {
        let Some(content_type) = content_type else {
            return Ok(Self::Json);
        };
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        match essence.to_ascii_lowercase().as_str() {
            "" | "application/json" => Ok(Self::Json),
            "application/x-protobuf" | "application/protobuf" => Ok(Self::Protobuf),
            "application/cloudevents+json" => Ok(Self::CloudEvents),
            other => Err(EventFault::whole(
                FaultReason::UnsupportedContentType,
                format!(
                    "the content type must be application/json, application/x-protobuf or application/cloudevents+json, found {other:?}"
                ),
            )),
        }
    }
}

/// Decodes one event.
///
/// # Errors
/// [`EventFault`] with the reason and a sentence.
pub fn decode(
    body: &Bytes,
    content_type: Option<&str>,
    bytes_max: usize,
) -> Result<Event, EventFault> {
    if body.len() > bytes_max {
        return Err(EventFault::whole(
            FaultReason::TooLarge,
            format!(
                "the event has {} bytes, more than the {bytes_max} that `intake.max_event_bytes` allows",
                body.len()
            ),
        ));
    }
    match Encoding::of(content_type)? {
        Encoding::Json => decode_json(body),
        Encoding::Protobuf => decode_protobuf(body),
        Encoding::CloudEvents => decode_cloud_event(body),
    }
}

/// A field that the JSON form or CloudEvents reads.
#[derive(Clone, Copy, serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Name {
    Id,
    Type,
    Tenant,
    Timestamp,
    Data,
    Specversion,
    Time,
    DataBase64,
    #[serde(other)]
    Other,
}

/// How many names are read.
const NAMES: usize = Name::Other as usize;

/// The fields of the JSON form and of CloudEvents, as text; `None` for null too.
#[derive(Default)]
struct Parts<'a> {
    found: [Option<&'a RawValue>; NAMES],
    given: [bool; NAMES],
    /// One that is there twice: who reads the last value would not see what was checked.
    twice: Option<Name>,
}

impl<'de> Deserialize<'de> for Parts<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PartsVisitor)
    }
}

struct PartsVisitor;

impl<'de> Visitor<'de> for PartsVisitor {
    type Value = Parts<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Parts<'de>, A::Error> {
        let mut parts = Parts::default();
        while let Some(name) = access.next_key::<Name>()? {
            let at = name as usize;
            if at == NAMES {
                access.next_value::<IgnoredAny>()?;
                continue;
            }
            parts.found[at] = access.next_value()?;
            if std::mem::replace(&mut parts.given[at], true) {
                parts.twice = Some(name);
            }
        }
        Ok(parts)
    }
}

impl Name {
    fn as_str(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Type => "type",
            Self::Tenant => "tenant",
            Self::Timestamp => "timestamp",
            Self::Data => "data",
            Self::Specversion => "specversion",
            Self::Time => "time",
            Self::DataBase64 => "data_base64",
            Self::Other => "",
        }
    }
}

impl Parts<'_> {
    fn get(&self, name: Name) -> Option<&RawValue> {
        self.found.get(name as usize).copied().flatten()
    }

    fn string(&self, name: Name) -> Result<String, EventFault> {
        string(name.as_str(), self.get(name))
    }

    /// Checks the parts; the time stands in `time`.
    fn into_event(self, time: Name) -> Result<Event, EventFault> {
        Event::try_new(
            named("id", EventId::parse(&self.string(Name::Id)?))?,
            named("type", EventType::parse(&self.string(Name::Type)?))?,
            named("tenant", TenantId::parse(&self.string(Name::Tenant)?))?,
            EventTime::parse(&self.string(time)?).map_err(|fault| EventFault {
                sentence: fault.sentence.replace("timestamp", time.as_str()),
                field: Some(time.as_str().to_owned()),
                ..fault
            })?,
            data(self.get(Name::Data))?,
        )
    }
}

fn decode_json(body: &[u8]) -> Result<Event, EventFault> {
    parse_parts(body)?.into_event(Name::Timestamp)
}

fn decode_cloud_event(body: &[u8]) -> Result<Event, EventFault> {
    let parts = parse_parts(body)?;
    let version = parts.string(Name::Specversion)?;
    if version != "1.0" {
        return Err(EventFault::invalid(
            "specversion",
            "\"1.0\"",
            &shown(&version),
        ));
    }
    if parts.get(Name::Data).is_none() && parts.get(Name::DataBase64).is_some() {
        let sentence = "`data_base64` is not read: send the JSON object as `data`";
        return Err(EventFault {
            reason: FaultReason::InvalidField,
            field: Some("data_base64".to_owned()),
            sentence: sentence.to_owned(),
        });
    }
    parts.into_event(Name::Time)
}

fn decode_protobuf(body: &Bytes) -> Result<Event, EventFault> {
    let message = proto::Event::decode(body.clone()).map_err(|error| {
        let sentence = format!("the body is no carillon.v1.Event: {error}");
        EventFault::whole(FaultReason::Malformed, sentence)
    })?;
    let present = |field: &'static str, text: String| match text.is_empty() {
        true => Err(EventFault::missing(field, "a string")),
        false => Ok(text),
    };
    let json = String::from_utf8(message.data.to_vec()).map_err(|error| EventFault {
        reason: FaultReason::Malformed,
        field: Some("data".to_owned()),
        sentence: format!("`data` must be UTF-8: {error}"),
    })?;
    let json = present("data", json)?;
    let raw = RawValue::from_string(json).map_err(|error| EventFault {
        reason: FaultReason::Malformed,
        field: Some("data".to_owned()),
        sentence: format!("`data` cannot be read as JSON: {error}"),
    })?;
    Event::try_new(
        named("id", EventId::parse(&present("id", message.id)?))?,
        named("type", EventType::parse(&present("type", message.r#type)?))?,
        named(
            "tenant",
            TenantId::parse(&present("tenant", message.tenant)?),
        )?,
        EventTime::parse(&present("timestamp", message.timestamp)?)?,
        Data::parse(raw)?,
    )
}

fn parse_parts(body: &[u8]) -> Result<Parts<'_>, EventFault> {
    let malformed = |sentence: String| EventFault::whole(FaultReason::Malformed, sentence);
    let text = std::str::from_utf8(body)
        .map_err(|error| malformed(format!("the body must be UTF-8: {error}")))?;
    let parts: Parts<'_> = match first_byte(body) {
        None => {
            let sentence = "the body is empty: an event is a JSON object";
            return Err(malformed(sentence.to_owned()));
        }
        // A reader of objects would take an array's elements for fields, in their order.
        Some(byte) if byte != b'{' => {
            let sentence = "the body must be a JSON object, and begin with {";
            return Err(malformed(sentence.to_owned()));
        }
        Some(_) => serde_json::from_str(text).map_err(|error| {
            malformed(format!("the body cannot be read as a JSON object: {error}"))
        })?,
    };
    match parts.twice {
        None => Ok(parts),
        Some(name) => Err(EventFault {
            reason: FaultReason::Malformed,
            field: Some(name.as_str().to_owned()),
            sentence: format!("`{}` is given twice", name.as_str()),
        }),
    }
}

/// What JSON begins with, behind whitespace.
pub(crate) fn first_byte(body: &[u8]) -> Option<u8> {
    body.iter().copied().find(|b| !b.is_ascii_whitespace())
}

/// A field that must be a string. Anything else is not read: it may be as large as the body.
fn string(field: &str, raw: Option<&RawValue>) -> Result<String, EventFault> {
    let raw = raw.ok_or_else(|| EventFault::missing(field, "a string"))?;
    let found = match raw.get().as_bytes().first() {
        Some(b'"') => match serde_json::from_str(raw.get()) {
            Ok(text) => return Ok(text),
            Err(error) => &format!("one that cannot be read: {error}"),
        },
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    };
    Err(EventFault::invalid(field, "a string", found))
}

fn data(raw: Option<&RawValue>) -> Result<Data, EventFault> {
    let raw = raw.ok_or_else(|| EventFault::missing("data", "a JSON object"))?;
    Data::parse(raw.to_owned())
}

fn named<T>(field: &str, parsed: Result<T, IdFault>) -> Result<T, EventFault> {
    parsed.map_err(|fault| EventFault::invalid(field, fault.expected, &fault.found))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn good() -> Value {
        json!({
            "id": "evt_1",
            "type": "credential_theft_detected",
            "tenant": "acme",
            "timestamp": "2026-03-01T12:30:00Z",
            "data": {"domain": {}, "user": {}, "alert": {}},
            "extra": [1, 2, 3],
        })
    }

    fn decoded(value: &Value) -> Result<Event, EventFault> {
        decode(&value.to_string().into(), None, 1 << 20)
    }

    #[test]
    fn the_three_encodings_give_the_same_event() {
        let json = decoded(&good()).unwrap();
        let cloud = json!({
            "specversion": "1.0", "source": "/detector", "id": "evt_1",
            "type": "credential_theft_detected", "tenant": "acme",
            "time": "2026-03-01T12:30:00Z", "data": {"domain": {}, "user": {}, "alert": {}},
        });
        let content_type = Some("application/cloudevents+json; charset=utf-8");
        let cloud = decode(&cloud.to_string().into(), content_type, 1 << 20).unwrap();
        let message = proto::Event {
            id: "evt_1".to_owned(),
            r#type: "credential_theft_detected".to_owned(),
            tenant: "acme".to_owned(),
            timestamp: "2026-03-01T12:30:00Z".to_owned(),
            data: json.data.text().to_owned().into_bytes().into(),
        };
        let encoded = Bytes::from(message.encode_to_vec());
        let proto = decode(&encoded, Some("application/x-protobuf"), 1 << 20).unwrap();
        for other in [cloud, proto] {
            assert_eq!(other.id, json.id);
            assert_eq!(other.kind, json.kind);
            assert_eq!(other.tenant, json.tenant);
            assert_eq!(other.timestamp.as_str(), json.timestamp.as_str());
            assert_eq!(other.data.fields(), json.data.fields());
        }
    }

    #[test]
    fn every_broken_rule_is_named() {
        for field in ["id", "type", "tenant", "timestamp", "data"] {
            let mut lacking = good();
            lacking.as_object_mut().unwrap().remove(field);
            let fault = decoded(&lacking).unwrap_err();
            assert_eq!(fault.reason, FaultReason::MissingField, "{field}");
            assert_eq!(fault.field.as_deref(), Some(field));
            let mut wrong = good();
            wrong[field] = json!(5);
            let fault = decoded(&wrong).unwrap_err();
            assert_eq!(fault.reason, FaultReason::InvalidField, "{field}");
            assert!(fault.sentence.contains("found a number"), "{fault}");
        }
        let cases = [
            ("id", json!("")),
            ("id", json!("x".repeat(129))),
            ("id", json!("a b")),
            ("type", json!("a..b")),
            ("tenant", json!("é")),
            ("timestamp", json!("yesterday")),
        ];
        for (field, value) in cases {
            let mut wrong = good();
            wrong[field] = value;
            assert_eq!(decoded(&wrong).unwrap_err().field.as_deref(), Some(field));
        }
    }

    #[test]
    fn what_is_no_event_is_said_plainly() {
        let reason = |body: &str, content_type| {
            let body = Bytes::copy_from_slice(body.as_bytes());
            decode(&body, content_type, 100).unwrap_err().reason
        };
        for body in [
            "",
            "{",
            "[]",
            "null",
            "\"x\"",
            "{\"id\":\"a\",\"id\":\"b\"}",
            "{}{}",
        ] {
            assert_eq!(reason(body, None), FaultReason::Malformed, "{body}");
        }
        assert_eq!(reason(&" ".repeat(101), None), FaultReason::TooLarge);
        let by_position = r#"["id","a.b","acme","2026-03-01T12:30:00Z",{}]"#;
        assert_eq!(reason(by_position, None), FaultReason::Malformed);
        let unsupported = FaultReason::UnsupportedContentType;
        assert_eq!(reason("{}", Some("text/xml")), unsupported);
        let cloud = Some("application/cloudevents+json");
        assert_eq!(
            reason(r#"{"specversion":"0.3"}"#, cloud),
            FaultReason::InvalidField
        );
        assert_eq!(
            reason("\u{1}", Some("application/x-protobuf")),
            FaultReason::Malformed
        );
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail_without_panic(
            body in proptest::collection::vec(any::<u8>(), 0..200),
            which in 0..4usize,
        ) {
            let content_type = [
                None,
                Some("application/x-protobuf"),
                Some("application/cloudevents+json"),
                Some("nonsense"),
            ][which];
            let _ = decode(&body.into(), content_type, 1 << 20);
        }

        #[test]
        fn any_cut_of_an_event_fails_without_panic(cut in 0..180usize, flip in any::<u8>()) {
            let mut bytes = good().to_string().into_bytes();
            let at = cut.min(bytes.len() - 1);
            bytes[at] ^= flip;
            let _ = decode(&Bytes::copy_from_slice(&bytes), None, 1 << 20);
            bytes.truncate(at);
            prop_assert!(decode(&bytes.into(), None, 1 << 20).is_err());
        }
    }
}
