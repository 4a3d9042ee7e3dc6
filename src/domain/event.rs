//! Events: the facts that detection systems publish, with the rules that each must keep.
//!
//! An [`Event`] that exists is valid. What breaks a rule becomes an [`EventFault`]: a
//! machine-readable reason and a sentence that a person can act on. How bytes become
//! the parts of an event is the business of `codec`.

use std::sync::OnceLock;

use serde_json::Value;
mod fault;

use serde_json::value::RawValue;

use super::id::{EventId, EventType, LedgerKey, TenantId, shown};
use super::json::{self, Json, JsonFault, Object};
use super::pattern::EventView;
use super::timestamp::UnixMillis;

pub use fault::{EventFault, FaultReason};

/// The type that only the Test action makes.
pub const TEST_TYPE: &str = "test.delivery";

/// The type whose `data.alerts` filters select from.
pub const LOOKUP_ALERTS_TYPE: &str = "lookup_result.alerts";

/// Longest data that are kept parsed while their event waits, in bytes.
const PARSED_BYTES_MAX: usize = 16 * 1024;

/// A valid event.
#[derive(Clone, Debug)]
pub struct Event {
    /// The publisher's idempotency key.
    pub id: EventId,
    /// What happened.
    pub kind: EventType,
    /// Whose it is.
    pub tenant: TenantId,
    /// When it happened.
    pub timestamp: EventTime,
    /// The details.
    pub data: Data,
}

/// When an event happened: RFC 3339, kept as it was written.
#[derive(Clone, Debug)]
pub struct EventTime {
    text: Box<str>,
    at: UnixMillis,
}

/// An event's JSON object: its text as it was published, and the same parsed.
///
/// The text is what receivers get, so that no number or key order changes on the way.
#[derive(Clone, Debug)]
pub struct Data {
    text: Box<RawValue>,
    /// Read once to check it, and again when it was let go of in between.
    fields: OnceLock<Object>,
}

impl EventTime {
    /// Checks `text` against RFC 3339.
    ///
    /// # Errors
    /// [`EventFault`] naming `timestamp`.
    pub fn parse(text: &str) -> Result<Self, EventFault> {
        let at = UnixMillis::parse_rfc3339(text).ok_or_else(|| {
            let expected = "RFC 3339 such as 2026-03-01T12:30:00Z";
            EventFault::invalid("timestamp", expected, &shown(text))
        })?;
        Ok(Self {
            text: text.into(),
            at,
        })
    }

    /// As the publisher wrote it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The point in time.
    pub fn at(&self) -> UnixMillis {
        self.at
    }
}

impl Data {
    /// Parses `text`, which must be a JSON object.
    ///
    /// # Errors
    /// [`EventFault`] naming `data`.
    pub fn parse(text: Box<RawValue>) -> Result<Self, EventFault> {
        match json::read(text.get()) {
            Ok(Json::Object(fields)) => Ok(Self {
                text,
                fields: fields.into(),
            }),
            Ok(other) => Err(EventFault::invalid("data", "a JSON object", other.kind())),
            Err(JsonFault { path, problem }) => {
                let dot = if path.is_empty() || path.starts_with('[') {
                    ""
                } else {
                    "."
                };
                let field = format!("data{dot}{path}");
                Err(EventFault {
                    reason: FaultReason::Malformed,
                    sentence: format!("`{field}` {problem}"),
                    field: Some(field),
                })
            }
        }
    }

    /// Lets go of what was parsed, where that is large: it may take many times the text.
    pub fn let_go(&mut self) {
        if self.text().len() > PARSED_BYTES_MAX {
            self.fields = OnceLock::new();
        }
    }

    /// The object's JSON text as it was published.
    pub fn text(&self) -> &str {
        self.text.get()
    }

    /// The object, parsed.
    pub fn fields(&self) -> &Object {
        let again = || match json::read(self.text()) {
            Ok(Json::Object(fields)) => fields,
            // It was read before.
            _ => Object::default(),
        };
        self.fields.get_or_init(again)
    }
}

impl Event {
    /// Puts an event together and checks the rules of its type.
    ///
    /// # Errors
    /// [`EventFault`]: the type is reserved, or `data` lacks what the type needs.
    pub fn try_new(
        id: EventId,
        kind: EventType,
        tenant: TenantId,
        timestamp: EventTime,
        data: Data,
    ) -> Result<Self, EventFault> {
        // As a scope that is every tenant's, and an event belongs to one.
        if tenant.as_str() == "*" {
            return Err(EventFault::invalid("tenant", "one tenant", "`*`"));
        }
        let event = Self {
            id,
            kind,
            tenant,
            timestamp,
            data,
        };
        check_type_rules(event.kind.as_str(), event.data.fields())?;
        Ok(event)
    }

    /// The event that the Test action sends. The one place where its type is allowed.
    pub fn test(id: EventId, tenant: TenantId, timestamp: EventTime, data: Data) -> Self {
        Self {
            id,
            // The constant keeps the rule of event types (tested below).
            #[allow(clippy::expect_used)]
            kind: EventType::parse(TEST_TYPE).expect("the test type is an event type"),
            tenant,
            timestamp,
            data,
        }
    }

    /// The event's identity for deduplication.
    pub fn key(&self) -> LedgerKey {
        LedgerKey::of_event(&self.tenant, &self.id)
    }

    /// The fields that a filter may name.
    pub fn view(&self) -> EventView<'_> {
        EventView {
            id: self.id.as_str(),
            kind: self.kind.as_str(),
            tenant: self.tenant.as_str(),
            timestamp: self.timestamp.as_str(),
            data: self.data.fields(),
        }
    }

    /// Whether filters select among `data.alerts` of this event.
    pub fn has_selectable_alerts(&self) -> bool {
        self.kind.as_str() == LOOKUP_ALERTS_TYPE
    }
}

/// The JSON type of `value`, for a sentence.
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// What `data` needs for the types that have rules of their own (contract section 1).
fn check_type_rules(kind: &str, data: &Object) -> Result<(), EventFault> {
    match kind {
        "credential_theft_detected" | "domain_compromise_suspected" | "threat_resolved" => {
            require_object(data, "domain")?;
            require_object(data, "user")?;
            require_object(data, "alert")
        }
        "monitoring_started" => {
            require_object(data, "domain")?;
            require_object(data, "user")?;
            match data.get("alert") {
                None | Some(Json::Null) => Ok(()),
                Some(_) => require_object(data, "alert"),
            }
        }
        LOOKUP_ALERTS_TYPE => {
            require(data, "domain", "a string", |json| {
                matches!(json, Json::Text(_))
            })?;
            require(data, "lookup_id", "a string", |json| {
                matches!(json, Json::Text(_))
            })?;
            require(data, "alerts", "an array", |json| {
                matches!(json, Json::Array(_))
            })?;
            check_alerts(data)
        }
        TEST_TYPE => Err(EventFault {
            reason: FaultReason::ReservedType,
            field: Some("type".to_owned()),
            sentence: format!(
                "`{TEST_TYPE}` is reserved: use the Test action (POST /v1/subscriptions/{{id}}/test) to send one"
            ),
        }),
        _ => Ok(()),
    }
}

fn check_alerts(data: &Object) -> Result<(), EventFault> {
    let Some(Json::Array(alerts)) = data.get("alerts") else {
        return Ok(());
    };
    for (i, item) in alerts.iter().enumerate() {
        let Json::Object(item) = item else {
            let path = format!("data.alerts[{i}]");
            let expected = "an object with `alert` and `result`";
            return Err(EventFault::invalid(&path, expected, item.kind()));
        };
        for part in ["alert", "result"] {
            let path = || format!("data.alerts[{i}].{part}");
            match item.get(part) {
                Some(Json::Object(_)) => {}
                None => return Err(EventFault::missing(&path(), "an object")),
                Some(other) => {
                    return Err(EventFault::invalid(&path(), "an object", other.kind()));
                }
            }
        }
    }
    Ok(())
}

fn require_object(data: &Object, field: &str) -> Result<(), EventFault> {
    require(data, field, "an object", |json| {
        matches!(json, Json::Object(_))
    })
}

fn require(
    data: &Object,
    field: &str,
    expected: &str,
    fits: fn(&Json) -> bool,
) -> Result<(), EventFault> {
    match data.get(field) {
        Some(value) if fits(value) => Ok(()),
        Some(value) => Err(EventFault::invalid(
            &format!("data.{field}"),
            expected,
            value.kind(),
        )),
        None => Err(EventFault::missing(&format!("data.{field}"), expected)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(kind: &str, data: Value) -> Result<Event, EventFault> {
        let text = RawValue::from_string(data.to_string()).unwrap();
        Event::try_new(
            EventId::parse("e1").unwrap(),
            EventType::parse(kind).unwrap(),
            TenantId::parse("acme").unwrap(),
            EventTime::parse("2026-03-01T12:30:00Z").unwrap(),
            Data::parse(text)?,
        )
    }

    #[test]
    fn type_rules_hold() {
        let full = json!({"domain": {}, "user": {}, "alert": {}});
        for kind in [
            "credential_theft_detected",
            "domain_compromise_suspected",
            "threat_resolved",
        ] {
            assert!(event(kind, full.clone()).is_ok());
            for part in ["domain", "user", "alert"] {
                let mut lacking = full.clone();
                lacking.as_object_mut().unwrap().remove(part);
                let fault = event(kind, lacking).unwrap_err();
                assert_eq!(fault.reason, FaultReason::MissingField);
                assert_eq!(fault.field, Some(format!("data.{part}")));
                let mut wrong = full.clone();
                wrong[part] = json!("text");
                let fault = event(kind, wrong).unwrap_err();
                assert_eq!(fault.reason, FaultReason::InvalidField);
                assert!(fault.sentence.contains("found a string"), "{fault}");
            }
        }
        assert!(event("monitoring_started", json!({"domain": {}, "user": {}})).is_ok());
        assert!(
            event(
                "monitoring_started",
                json!({"domain": {}, "user": {}, "alert": 1})
            )
            .is_err()
        );
        assert!(event("anything.else", json!({})).is_ok());
        assert_eq!(
            event(TEST_TYPE, json!({})).unwrap_err().reason,
            FaultReason::ReservedType
        );
    }

    #[test]
    fn lookup_rules_name_the_element_at_fault() {
        let good =
            json!({"domain": "d", "lookup_id": "l", "alerts": [{"alert": {}, "result": {}}]});
        assert!(event(LOOKUP_ALERTS_TYPE, good.clone()).is_ok());
        let cases = [
            (json!({"lookup_id": "l", "alerts": []}), "data.domain"),
            (
                json!({"domain": 1, "lookup_id": "l", "alerts": []}),
                "data.domain",
            ),
            (json!({"domain": "d", "alerts": []}), "data.lookup_id"),
            (json!({"domain": "d", "lookup_id": "l"}), "data.alerts"),
            (
                json!({"domain": "d", "lookup_id": "l", "alerts": {}}),
                "data.alerts",
            ),
            (
                json!({"domain": "d", "lookup_id": "l", "alerts": [1]}),
                "data.alerts[0]",
            ),
            (
                json!({"domain": "d", "lookup_id": "l", "alerts": [{"alert": {}, "result": {}}, {"alert": {}}]}),
                "data.alerts[1].result",
            ),
            (
                json!({"domain": "d", "lookup_id": "l", "alerts": [{"alert": [], "result": {}}]}),
                "data.alerts[0].alert",
            ),
        ];
        for (data, field) in cases {
            let fault = event(LOOKUP_ALERTS_TYPE, data).unwrap_err();
            assert_eq!(fault.field.as_deref(), Some(field));
        }
    }

    #[test]
    fn data_must_be_an_object_that_parses() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        assert!(Data::parse(raw("[]")).is_err());
        assert!(Data::parse(raw("null")).is_err());
        assert!(Data::parse(raw(r#"{"a":"\ud800"}"#)).is_err());
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(500), "]".repeat(500));
        assert_eq!(
            Data::parse(raw(&deep)).unwrap_err().reason,
            FaultReason::Malformed
        );
    }
}
