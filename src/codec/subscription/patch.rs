//! JSON merge patches (RFC 7396).

use serde_json::{Map, Value, json};

/// Applies `patch` to `target` as RFC 7396 says.
pub fn merge_patch(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, change) in patch {
        match change {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(inner) => {
                let slot = target.entry(key.clone()).or_insert_with(|| json!({}));
                if !slot.is_object() {
                    *slot = json!({});
                }
                if let Value::Object(slot) = slot {
                    merge_patch(slot, inner);
                }
            }
            other => {
                target.insert(key.clone(), other.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_follows_rfc_7396() {
        let mut target = json!({"a": {"b": 1, "c": 2}, "d": 3, "e": 4});
        let patch = json!({"a": {"b": null, "x": {"y": 1}}, "d": null, "e": [1]});
        merge_patch(target.as_object_mut().unwrap(), patch.as_object().unwrap());
        assert_eq!(target, json!({"a": {"c": 2, "x": {"y": 1}}, "e": [1]}));
    }
}
