//! A subscription's own retry settings.

use serde_json::{Map, Value};

use super::{known_fields, object, wrong};
use crate::domain::retry::{Exponential, RetryOverride};
use crate::domain::subscription::FieldFault;

/// Reads them; what is absent or null is the installation's.
///
/// # Errors
/// [`FieldFault`] of `retry` or of one of its parts.
pub(super) fn retry(value: &Value, base: &Exponential) -> Result<RetryOverride, FieldFault> {
    let parts = object("retry", value)?;
    let known = ["max_attempts", "initial_ms", "multiplier", "max_ms"];
    known_fields("retry.", parts, &[&known])?;
    let part = |name: &str| parts.get(name).filter(|value| !value.is_null());
    let whole = |name: &str| match part(name) {
        None => Ok(None),
        Some(value) => value
            .as_u64()
            .map(Some)
            .ok_or_else(|| wrong(&format!("retry.{name}"), "a positive integer", value)),
    };
    let changes = RetryOverride {
        max_attempts: whole("max_attempts")?.map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
        initial_ms: whole("initial_ms")?,
        multiplier: match part("multiplier") {
            None => None,
            Some(value) => Some(
                value
                    .as_f64()
                    .ok_or_else(|| wrong("retry.multiplier", "a number", value))?,
            ),
        },
        max_ms: whole("max_ms")?,
    };
    base.with(&changes).check().map_err(|fault| {
        let name = match fault.field {
            "initial" => "initial_ms",
            "max" => "max_ms",
            other => other,
        };
        FieldFault::new(format!("retry.{name}"), fault.problem)
    })?;
    Ok(changes)
}

/// As the API shows them.
pub(super) fn show_retry(retry: &RetryOverride) -> Value {
    let mut shown = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            shown.insert(name.to_owned(), value);
        }
    };
    set("max_attempts", retry.max_attempts.map(Into::into));
    set("initial_ms", retry.initial_ms.map(Into::into));
    set("multiplier", retry.multiplier.map(Into::into));
    set("max_ms", retry.max_ms.map(Into::into));
    shown.into()
}
