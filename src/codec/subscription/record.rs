//! The record of a subscription at rest.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{SpecRules, read, show};
use crate::codec::vault::{Kept, Unreadable, Vault};
use crate::domain::id::SubscriptionId;
use crate::domain::retry::{DELAY_MAX, Exponential};
use crate::domain::signature::Secrets;
use crate::domain::subscription::{DisabledReason, Subscription};
use crate::domain::timestamp::UnixMillis;
use crate::ports::StoredSubscription;

#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    subscription: Map<String, Value>,
    created_at_ms: i64,
    updated_at_ms: i64,
    pub(super) secret: Kept,
    #[serde(default)]
    previous_secrets: Vec<(Kept, i64)>,
    version: u64,
}

/// Encodes the record at rest; `vault` encrypts the secrets.
pub fn encode_record(stored: &StoredSubscription, vault: &Vault) -> Vec<u8> {
    let subscription = &stored.subscription;
    let secrets = &stored.secrets;
    let seal = |secret| vault.seal(secret, &subscription.id);
    let record = Record {
        subscription: show(subscription, secrets),
        created_at_ms: subscription.created_at.0,
        updated_at_ms: subscription.updated_at.0,
        secret: seal(&secrets.current),
        previous_secrets: secrets
            .previous
            .iter()
            .map(|(secret, until)| (seal(secret), until.0))
            .collect(),
        version: stored.version,
    };
    // The record holds strings, numbers and JSON only: nothing that fails to encode.
    serde_json::to_vec(&record).unwrap_or_default()
}

/// Decodes what [`encode_record`] wrote; rules that were tightened since do not apply.
///
/// # Errors
/// [`Unreadable`]: what is wrong with the record.
pub fn decode_record(bytes: &[u8], vault: &Vault) -> Result<StoredSubscription, Unreadable> {
    let record: Record = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let lenient = SpecRules {
        is_stored: true,
        require_https: false,
        timeout: Duration::from_secs(10),
        // What was valid on top of `[retry]` as it was then is valid on top of this.
        retry: Exponential {
            initial: Duration::from_millis(1),
            max: DELAY_MAX,
            ..Exponential::default()
        },
    };
    let document = &record.subscription;
    let written = read(document, &lenient).map_err(|fault| fault.to_string())?;
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    let id = SubscriptionId::parse(text("id").unwrap_or_default());
    let id = id.map_err(|fault| format!("`id` {fault}"))?;
    let open = |kept: &Kept| vault.open(kept, &id);
    let previous = record.previous_secrets.iter();
    let previous = previous.map(|(kept, until)| Ok((open(kept)?, UnixMillis(*until))));
    let secrets = Secrets {
        current: open(&record.secret)?,
        previous: previous.collect::<Result<_, Unreadable>>()?,
    };
    let subscription = Subscription {
        id,
        tenant: written.tenant,
        spec: written.spec,
        disabled_reason: text("disabled_reason").and_then(DisabledReason::from_name),
        created_at: UnixMillis(record.created_at_ms),
        updated_at: UnixMillis(record.updated_at_ms),
    };
    Ok(StoredSubscription {
        subscription: Arc::new(subscription),
        secrets,
        version: record.version,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::codec::subscription::tests::try_read;
    use crate::codec::vault::tests::vault;
    use crate::domain::signature::Secret;

    #[test]
    fn a_record_comes_back_as_it_went() {
        let document = json!({
            "tenant": "*", "url": "https://example.com/hook", "description": "d",
            "event_types": ["a.*"], "filter": {"data": {"n": [1]}}, "headers": {"x-a": "1"},
            "rate_limit": {"per_second": 0.5, "burst": 2}, "timeout_ms": 500,
            "retry": {"max_attempts": 3}, "signing": "ed25519",
        });
        let written = try_read(&document).unwrap();
        let stored = StoredSubscription {
            subscription: Arc::new(Subscription {
                id: SubscriptionId::parse("sub_1").unwrap(),
                tenant: written.tenant,
                spec: written.spec,
                disabled_reason: Some(DisabledReason::Gone),
                created_at: UnixMillis(1),
                updated_at: UnixMillis(2),
            }),
            secrets: Secrets {
                current: Secret::new([1; 32]),
                previous: vec![(Secret::new([2; 32]), UnixMillis(3))],
            },
            version: 7,
        };
        for names in [&[][..], &["a"]] {
            let (vault, other) = (vault(names), vault(&["b"]));
            comes_back(&stored, &vault);
            let lost = decode_record(&encode_record(&stored, &vault), &other);
            assert_eq!(lost.is_err(), !names.is_empty());
        }
    }

    fn comes_back(stored: &StoredSubscription, vault: &Vault) {
        let back = decode_record(&encode_record(stored, vault), vault).unwrap();
        let shown = |s: &StoredSubscription| show(&s.subscription, &s.secrets);
        assert_eq!(shown(&back), shown(stored));
        assert_eq!(back.secrets.current.bytes(), &[1; 32]);
        let previous: Vec<_> = back.secrets.previous.iter().collect();
        assert_eq!(
            (previous[0].0.bytes(), previous[0].1),
            (&[2; 32], UnixMillis(3))
        );
        assert_eq!(back.version, 7);
        assert_eq!(shown(stored)["enabled"], json!(false));
    }
}
