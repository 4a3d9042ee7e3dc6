//! What can be read of a store's records of subscriptions, for whoever looks at it from outside.

use std::collections::BTreeMap;

use super::record::{Record, decode_record};
use crate::codec::vault::{Kept, Unreadable, Vault};

/// What was seen in records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// How many there are.
    pub records: usize,
    /// How many cannot be read for want of a key, by the id of the key.
    pub missing: BTreeMap<String, usize>,
    /// How many cannot be read for another reason.
    pub damaged: usize,
    /// How many have a secret that is not encrypted.
    pub plain: usize,
    /// The host of the first one, when that is a name.
    pub host: Option<String>,
}

impl Survey {
    /// Looks at one more record.
    pub fn add(&mut self, record: &[u8], vault: &Vault) {
        self.records += 1;
        match decode_record(record, vault) {
            Ok(stored) => {
                let url = stored.subscription.spec.url.url();
                if let (None, Some(url::Host::Domain(host))) = (&self.host, url.host()) {
                    self.host = Some(host.to_owned());
                }
            }
            Err(Unreadable::KeyMissing(key)) => *self.missing.entry(key).or_default() += 1,
            Err(Unreadable::Damaged(_)) => self.damaged += 1,
        }
        let record: Option<Record> = serde_json::from_slice(record).ok();
        if let Some(Kept::Plain(_)) = record.map(|record| record.secret) {
            self.plain += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::encode_record;
    use super::*;
    use crate::codec::subscription::tests::try_read;
    use crate::codec::vault::tests::vault;
    use crate::domain::id::SubscriptionId;
    use crate::domain::signature::{Secret, Secrets};
    use crate::domain::subscription::Subscription;
    use crate::domain::timestamp::UnixMillis;
    use crate::ports::StoredSubscription;

    fn record(id: &str, url: &str, vault: &Vault) -> Vec<u8> {
        let written = try_read(&json!({"tenant": "acme", "url": url})).unwrap();
        let subscription = Subscription {
            id: SubscriptionId::parse(id).unwrap(),
            tenant: written.tenant,
            spec: written.spec,
            disabled_reason: None,
            created_at: UnixMillis(1),
            updated_at: UnixMillis(1),
        };
        let stored = StoredSubscription {
            subscription: Arc::new(subscription),
            secrets: Secrets::only(Secret::new([1; 32])),
            version: 1,
        };
        encode_record(&stored, vault)
    }

    #[test]
    fn what_cannot_be_read_is_counted_by_its_reason() {
        let (ours, theirs) = (vault(&["a"]), vault(&["lost"]));
        let mut survey = Survey::default();
        for (id, url, vault) in [
            ("sub_1", "https://192.0.2.1/", &ours),
            ("sub_2", "https://one.example/", &ours),
            ("sub_3", "https://two.example/", &theirs),
            ("sub_4", "https://two.example/", &theirs),
            ("sub_5", "https://two.example/", &vault(&[])),
        ] {
            survey.add(&record(id, url, vault), &ours);
        }
        survey.add(b"{}", &ours);
        let expected = Survey {
            records: 6,
            missing: BTreeMap::from([("lost".to_owned(), 2)]),
            damaged: 1,
            plain: 1,
            host: Some("one.example".to_owned()),
        };
        assert_eq!(survey, expected);
    }
}
