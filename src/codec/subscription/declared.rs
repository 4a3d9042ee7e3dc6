//! Subscriptions as they are declared: what creating takes, and optionally the id and the
//! secret that they are to have.

use serde_json::{Map, Value};

use super::{SpecRules, Written, known_fields, named, read, text, wrong};
use crate::domain::id::SubscriptionId;
use crate::domain::signature::Secret;
use crate::domain::subscription::FieldFault;

/// A subscription as it is to be.
#[derive(Clone, Debug)]
pub struct Declared {
    /// Its id; a new one is made when there is none.
    pub id: Option<SubscriptionId>,
    /// Its secret; the one that is there is kept, or a new one is made, when there is none.
    pub secret: Option<Secret>,
    /// All else.
    pub written: Written,
}

/// Reads a whole declared subscription; what is absent or null has its default.
///
/// # Errors
/// [`FieldFault`] of the first field that breaks its rule. It never says what was found in
/// place of a secret.
pub fn read_declared(
    mut document: Map<String, Value>,
    rules: &SpecRules,
) -> Result<Declared, FieldFault> {
    let secret = match document.remove("secret") {
        None | Some(Value::Null) => None,
        Some(value) => Some(secret(&value)?),
    };
    let id = match document.get("id") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let id = SubscriptionId::parse(text("id", value)?);
            Some(id.map_err(|fault| {
                let problem = format!("must be {}, found {}", fault.expected, named(value));
                FieldFault::new("id", problem)
            })?)
        }
    };
    let written = read(&document, rules)?;
    Ok(Declared {
        id,
        secret,
        written,
    })
}

/// A secret in one of its forms, or both as creating shows them.
fn secret(value: &Value) -> Result<Secret, FieldFault> {
    let either = "must be whsec_ and base64 of 32 bytes, or 64 hexadecimal digits";
    let parts = match value {
        Value::String(text) => return parse("secret", text, either),
        Value::Object(parts) => parts,
        other => return Err(wrong("secret", "a string or an object", other)),
    };
    known_fields("secret.", parts, &[&["hex", "whsec"]])?;
    let part = |name: &str, expected: &str, is_form: fn(&str) -> bool| {
        let Some(value) = parts.get(name).filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        let field = format!("secret.{name}");
        let text = text(&field, value)?;
        if !is_form(text) {
            return Err(FieldFault::new(field, expected));
        }
        parse(&field, text, expected).map(Some)
    };
    let hex = part("hex", "must be 64 hexadecimal digits", |text| {
        !text.starts_with("whsec_")
    })?;
    let whsec = part("whsec", "must be whsec_ and base64 of 32 bytes", |text| {
        text.starts_with("whsec_")
    })?;
    match (hex, whsec) {
        (Some(hex), Some(whsec)) if hex.bytes() != whsec.bytes() => {
            let problem = "must be one secret: `hex` and `whsec` are different ones";
            Err(FieldFault::new("secret", problem))
        }
        (Some(secret), _) | (None, Some(secret)) => Ok(secret),
        (None, None) => {
            let problem = "must have `hex` or `whsec`; leave it out to have one made";
            Err(FieldFault::new("secret", problem))
        }
    }
}

fn parse(field: &str, text: &str, expected: &str) -> Result<Secret, FieldFault> {
    Secret::parse(text).ok_or_else(|| FieldFault::new(field, expected))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::domain::retry::Exponential;

    fn try_read(more: &Value) -> Result<Declared, FieldFault> {
        let mut document = json!({"tenant": "acme", "url": "https://example.com/"});
        let target = document.as_object_mut().unwrap();
        target.extend(more.as_object().unwrap().clone());
        let rules = SpecRules {
            is_stored: false,
            require_https: false,
            timeout: Duration::from_secs(10),
            retry: Exponential::default(),
        };
        read_declared(target.clone(), &rules)
    }

    #[test]
    fn a_secret_is_read_in_every_form_it_is_shown_in() {
        let secret = Secret::new([7; 32]);
        let (hex, whsec) = (secret.to_hex(), secret.to_whsec());
        for form in [
            json!(*hex),
            json!(*whsec),
            json!({"hex": *hex}),
            json!({"whsec": *whsec}),
            json!({"hex": *hex, "whsec": *whsec}),
            json!({"hex": *hex, "whsec": null}),
        ] {
            let declared = try_read(&json!({"secret": form, "id": "sub_1"})).unwrap();
            assert_eq!(declared.secret.unwrap().bytes(), &[7; 32], "{form}");
            assert_eq!(declared.id.unwrap().as_str(), "sub_1");
        }
        let neither = try_read(&json!({"secret": null, "id": null})).unwrap();
        assert!(neither.id.is_none() && neither.secret.is_none());
    }

    #[test]
    fn a_fault_names_its_field_and_tells_no_secret() {
        let (hex, other) = ("07".repeat(32), Secret::new([8; 32]).to_whsec());
        for (more, field) in [
            (json!({"id": 1}), "id"),
            (json!({"id": "msg_1"}), "id"),
            (json!({"url": "no"}), "url"),
            (json!({"secret": 1}), "secret"),
            (json!({"secret": {}}), "secret"),
            (json!({"secret": "abcdef"}), "secret"),
            (json!({"secret": {"hex": *other}}), "secret.hex"),
            (json!({"secret": {"hex": "abcdef"}}), "secret.hex"),
            (json!({"secret": {"whsec": hex}}), "secret.whsec"),
            (
                json!({"secret": {"public_key": "whpk_"}}),
                "secret.public_key",
            ),
            (json!({"secret": {"hex": hex, "whsec": *other}}), "secret"),
            (json!({"colour": "red"}), "colour"),
        ] {
            let fault = try_read(&more).unwrap_err();
            assert_eq!(fault.field, field, "{more}");
            for secret in [hex.as_str(), other.as_str(), "abcdef"] {
                assert!(!fault.to_string().contains(secret), "{fault}");
            }
        }
    }
}
