//! A subscription as the fields of a form, and a form as the document of a subscription.
//!
//! What it must look like is the API's to say: here a field is only split and joined.

use serde_json::{Map, Value, json};

use super::page::Form;
use super::view::Subscription;
use crate::codec::subscription::WRITABLE;

/// The fields, as they stand in the form.
#[derive(Default)]
pub struct Fields {
    pub tenant: String,
    pub url: String,
    pub format: String,
    pub signing: String,
    pub description: String,
    /// One a line.
    pub event_types: String,
    /// JSON
    pub filter: String,
    /// `name: value`, one a line.
    pub headers: String,
    pub per_second: String,
    pub burst: String,
    pub timeout_ms: String,
    /// JSON
    pub retry: String,
}

/// What is wrong with which field.
#[derive(Default)]
pub struct Fault {
    pub field: String,
    pub detail: String,
}

impl Fault {
    /// The field: `filter.data.x` and `headers[2]` are parts of one.
    fn own(&self) -> &str {
        self.field.split(['.', '[']).next().unwrap_or_default()
    }

    /// What is wrong with this field; nothing when it is another's.
    pub fn of(&self, field: &str) -> &str {
        if self.own() == field {
            &self.detail
        } else {
            ""
        }
    }

    /// The element of the field that is wrong.
    pub fn shown_field(&self) -> &str {
        match self.own() {
            "rate_limit" => "per_second",
            field => field,
        }
    }

    /// What is wrong with none of the fields that are shown.
    pub fn elsewhere(&self) -> &str {
        // All but `enabled` is in the form: that has buttons of its own.
        let is_shown = self.own() != "enabled" && WRITABLE.contains(&self.own());
        if is_shown { "" } else { &self.detail }
    }
}

impl Fields {
    /// The fields of what is there.
    pub fn of(subscription: &Subscription) -> Self {
        let json = |value: &Option<Value>| {
            let text = value.as_ref().map(serde_json::to_string_pretty);
            text.and_then(Result::ok).unwrap_or_default()
        };
        let number = |name: &str| {
            let rate = subscription.rate_limit.as_ref();
            let number = rate.and_then(|rate| rate.get(name));
            number.map_or(String::new(), Value::to_string)
        };
        let header = |(name, value): (&String, &String)| format!("{name}: {value}");
        Self {
            tenant: subscription.tenant.clone(),
            url: subscription.url.clone(),
            format: subscription.format.clone(),
            signing: subscription.signing.clone(),
            description: subscription.description.clone(),
            event_types: subscription.event_types.join("\n"),
            filter: json(&subscription.filter),
            headers: lines(subscription.headers.iter().map(header)),
            per_second: number("per_second"),
            burst: number("burst"),
            timeout_ms: subscription.timeout_ms.to_string(),
            retry: json(&subscription.retry),
        }
    }

    /// The fields as someone filled them in.
    pub fn read(form: &Form) -> Self {
        let text = |name| form.text(name).to_owned();
        Self {
            tenant: text("tenant"),
            url: text("url"),
            format: text("format"),
            signing: text("signing"),
            description: text("description"),
            event_types: text("event_types"),
            filter: text("filter"),
            headers: text("headers"),
            per_second: text("per_second"),
            burst: text("burst"),
            timeout_ms: text("timeout_ms"),
            retry: text("retry"),
        }
    }

    /// The document; what is empty is null, which has its default.
    pub fn document(&self) -> Result<Value, Fault> {
        let text = |text: &str| match text {
            "" => Value::Null,
            text => json!(text),
        };
        let types = self.event_types.split(['\n', ',']).map(str::trim);
        let types: Vec<&str> = types.filter(|glob| !glob.is_empty()).collect();
        Ok(json!({
            "tenant": text(&self.tenant),
            "url": text(&self.url),
            "format": text(&self.format),
            "signing": text(&self.signing),
            "description": text(&self.description.replace("\r\n", "\n")),
            "event_types": if types.is_empty() { Value::Null } else { json!(types) },
            "filter": json_of("filter", &self.filter)?,
            "headers": self.header_map()?,
            "rate_limit": self.rate_limit()?,
            "timeout_ms": number("timeout_ms", &self.timeout_ms)?,
            "retry": json_of("retry", &self.retry)?,
        }))
    }

    fn header_map(&self) -> Result<Value, Fault> {
        let mut headers = Map::new();
        for line in self
            .headers
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
        {
            let Some((name, value)) = line.split_once(':') else {
                return Err(fault("headers", "each line must be `name: value`"));
            };
            headers.insert(name.trim().to_owned(), json!(value.trim()));
        }
        Ok(if headers.is_empty() {
            Value::Null
        } else {
            headers.into()
        })
    }

    fn rate_limit(&self) -> Result<Value, Fault> {
        let [per_second, burst] = [&self.per_second, &self.burst];
        if per_second.is_empty() && burst.is_empty() {
            return Ok(Value::Null);
        }
        let mut limit = Map::new();
        for (name, text) in [("per_second", per_second), ("burst", burst)] {
            let value = number("rate_limit", text)?;
            if !value.is_null() {
                limit.insert(name.to_owned(), value);
            }
        }
        Ok(limit.into())
    }
}

/// What has to be sent as a JSON merge patch (RFC 7396) to make of one form the other: what is in
/// both the same is not touched, whatever rules hold for it now.
pub fn patch(from: &Fields, to: &Fields) -> Result<Value, Fault> {
    let Value::Object(mut wanted) = to.document()? else {
        return Ok(json!({}));
    };
    // It cannot be changed, and is not in the form.
    wanted.remove("tenant");
    for (field, value) in &wanted {
        if let Some(name) = value.as_object().and_then(null_within) {
            return Err(fault(
                field,
                format!("`{name}` must not be null; leave it out instead"),
            ));
        }
    }
    let Value::Object(mut current) = from.document()? else {
        return Ok(wanted.into());
    };
    current.remove("tenant");
    Ok(difference(&current, wanted).into())
}

/// The members of `to` that are others in `from`; null for those that it has not.
fn difference(from: &Map<String, Value>, to: Map<String, Value>) -> Map<String, Value> {
    let gone = from.keys().filter(|name| !to.contains_key(*name));
    let mut patch: Map<_, _> = gone.map(|name| (name.clone(), Value::Null)).collect();
    for (name, wanted) in to {
        let value = match (from.get(&name), wanted) {
            (Some(current), wanted) if *current == wanted => continue,
            (Some(Value::Object(current)), Value::Object(wanted)) => {
                difference(current, wanted).into()
            }
            (_, wanted) => wanted,
        };
        patch.insert(name, value);
    }
    patch
}

/// A member that is null, which a merge patch would take away.
fn null_within(object: &Map<String, Value>) -> Option<&str> {
    object.iter().find_map(|(name, value)| match value {
        Value::Null => Some(name.as_str()),
        Value::Object(inner) => null_within(inner),
        _ => None,
    })
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.collect::<Vec<_>>().join("\n")
}

fn fault(field: &str, detail: impl Into<String>) -> Fault {
    let (field, detail) = (field.to_owned(), detail.into());
    Fault { field, detail }
}

fn number(field: &str, text: &str) -> Result<Value, Fault> {
    match text {
        "" => Ok(Value::Null),
        text => match serde_json::from_str(text) {
            Ok(Value::Number(number)) => Ok(number.into()),
            _ => Err(fault(field, "must be a number")),
        },
    }
}

fn json_of(field: &str, text: &str) -> Result<Value, Fault> {
    if text.is_empty() {
        return Ok(Value::Null);
    }
    let read = crate::domain::json::read_slice(text.as_bytes());
    read.map(Into::into).map_err(|error| {
        let at = match error.path.as_str() {
            "" => String::new(),
            path => format!("`{path}` "),
        };
        fault(field, format!("must be JSON: {at}{}", error.problem))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown() -> Value {
        json!({
            "id": "sub_1", "tenant": "acme", "url": "https://a.example/in", "format": "standard",
            "description": "Ours\nand yours", "enabled": true, "event_types": ["a.*", "b"],
            "filter": {"tenant": ["a"], "data": {"n": [{"numeric": [">", 1.50]}]}},
            "headers": {"x-a": "1: 2", "x-b": ""}, "rate_limit": {"per_second": 0.5, "burst": 3},
            "timeout_ms": 7000, "retry": {"max_attempts": 3}, "signing": "hmac-sha256",
            "disabled_reason": null, "created_at": "", "updated_at": "",
        })
    }

    #[test]
    fn what_is_shown_and_saved_again_is_the_same() {
        let subscription: Subscription = serde_json::from_value(shown()).unwrap();
        let fields = Fields::of(&subscription);
        let document = fields.document().map_err(|fault| fault.detail).unwrap();
        for (name, value) in document.as_object().unwrap() {
            assert_eq!(*value, shown()[name], "{name}");
        }
        let nothing = patch(&fields, &fields).map_err(|fault| fault.detail);
        assert_eq!(nothing, Ok(json!({})));
    }

    #[test]
    fn a_patch_takes_away_what_the_form_has_no_more() {
        let from = Fields::of(&serde_json::from_value(shown()).unwrap());
        let to = Fields {
            filter: r#"{"data": {"m": ["x"]}}"#.into(),
            headers: "x-a: 1: 2".into(),
            burst: String::new(),
            retry: String::new(),
            description: String::new(),
            ..Fields::of(&serde_json::from_value(shown()).unwrap())
        };
        let expected = json!({
            "filter": {"tenant": null, "data": {"n": null, "m": ["x"]}}, "headers": {"x-b": null},
            "rate_limit": {"burst": null}, "retry": null, "description": null,
        });
        assert_eq!(
            patch(&from, &to).map_err(|fault| fault.detail),
            Ok(expected)
        );
        let null = Fields {
            filter: r#"{"data": {"n": null}}"#.into(),
            ..Fields::default()
        };
        let refused = patch(&from, &null).err().unwrap();
        assert!(!refused.of("filter").is_empty());
    }

    #[test]
    fn a_fault_stands_at_its_field() {
        for (fields, field) in [
            (
                Fields {
                    filter: "{".into(),
                    ..Fields::default()
                },
                "filter",
            ),
            (
                Fields {
                    headers: "x".into(),
                    ..Fields::default()
                },
                "headers",
            ),
            (
                Fields {
                    burst: "many".into(),
                    ..Fields::default()
                },
                "rate_limit",
            ),
            (
                Fields {
                    timeout_ms: "[]".into(),
                    ..Fields::default()
                },
                "timeout_ms",
            ),
        ] {
            let fault = fields.document().err().unwrap();
            assert!(!fault.of(field).is_empty(), "{field}");
            assert_eq!(fault.elsewhere(), "");
        }
        let document = Fields::default().document().ok().unwrap();
        for field in document.as_object().unwrap().keys() {
            assert_eq!(fault(field, "must be").elsewhere(), "", "{field}");
        }
        for field in ["enabled", "id", "other"] {
            assert_eq!(fault(field, "must be").elsewhere(), "must be", "{field}");
        }
        let inside = fault("filter.data.n[0]", "must be");
        assert_eq!(inside.of("filter"), "must be");
        assert_eq!(fault("", "no room").elsewhere(), "no room");
    }
}
