//! What `{:?}` shows of every type that holds a secret: nothing of it.

use carillon::codec::subscription::SpecRules;
use carillon::codec::subscription::declared::read_declared;
use carillon::codec::vault::Vault;
use carillon::config::Config;
use carillon::domain::keys::{KeyRing, MasterKey};
use carillon::domain::signature::{Secret, Secrets, SigningKeys, VerificationKey};
use carillon::domain::subscription::{CustomHeaders, Signing};
use carillon::domain::timestamp::UnixMillis;
use serde_json::{Value, json};

use super::search::{Needle, Search};
use crate::dispatcher::harness::TENANT;

const TEXT: &str = "a-text-that-nobody-is-to-see";

fn secret() -> Secret {
    Secret::new(std::array::from_fn(|n| (n as u8).wrapping_mul(211) ^ 0x5A))
}

fn shown() -> Vec<(&'static str, String)> {
    let secrets = Secrets {
        current: secret(),
        previous: vec![(secret(), UnixMillis(1))],
    };
    let mut ring = KeyRing::default();
    let key = MasterKey {
        id: "k1".to_owned(),
        key: secret(),
    };
    ring.add(key.clone()).unwrap();
    let url = format!("https://example.com/?token={TEXT}");
    let document = json!({
        "tenant": TENANT, "url": url, "secret": secret().to_hex().as_str(),
        "headers": { "authorization": TEXT },
    });
    let Value::Object(document) = document else {
        unreachable!()
    };
    let rules = SpecRules {
        is_stored: false,
        require_https: false,
        timeout: std::time::Duration::from_secs(1),
        retry: carillon::domain::retry::Exponential::default(),
    };
    let declared = read_declared(document, &rules).unwrap();
    let stored = carillon::ports::StoredSubscription {
        subscription: std::sync::Arc::new(carillon::domain::subscription::Subscription {
            id: carillon::domain::id::SubscriptionId::parse("sub_1").unwrap(),
            tenant: declared.written.tenant.clone(),
            spec: declared.written.spec.clone(),
            disabled_reason: None,
            created_at: UnixMillis(0),
            updated_at: UnixMillis(0),
        }),
        secrets: secrets.clone(),
        version: 1,
    };
    let request = carillon::ports::WebhookRequest {
        url: url.parse().unwrap(),
        headers: vec![("authorization".to_owned(), TEXT.to_owned())],
        body: TEXT.into(),
        timeout: std::time::Duration::from_secs(1),
    };
    let mut config = Config::default();
    config.secrets.keys = ring.clone();
    config.http.admin_token = Some(TEXT.into());
    let headers = CustomHeaders::try_new([("authorization".to_owned(), TEXT.to_owned())]);
    let chance = std::sync::Arc::new(carillon::adapters::system::SystemChance);
    vec![
        ("Secret", format!("{:?}", secret())),
        ("Secrets", format!("{secrets:#?}")),
        (
            "SigningKeys",
            format!("{:?}", SigningKeys::new(&secrets, Signing::HmacSha256)),
        ),
        (
            "SigningKeys of a pair",
            format!("{:?}", SigningKeys::new(&secrets, Signing::Ed25519)),
        ),
        (
            "VerificationKey",
            format!("{:?}", VerificationKey::Secret(secret())),
        ),
        ("MasterKey", format!("{key:?}")),
        ("KeyRing", format!("{ring:#?}")),
        ("Vault", format!("{:?}", Vault::new(ring, chance))),
        ("Declared", format!("{declared:?}")),
        ("StoredSubscription", format!("{stored:#?}")),
        ("CustomHeaders", format!("{:?}", headers.unwrap())),
        ("WebhookRequest", format!("{request:?}")),
        ("Config", format!("{config:?}")),
    ]
}

#[test]
fn nothing_that_holds_a_secret_shows_it() {
    let mut needles = vec![Needle::new("text", TEXT)];
    needles.extend(Needle::of_secret("secret", &secret()));
    let search = Search::new(&needles);
    for (name, text) in shown() {
        assert!(!text.is_empty(), "{name}");
        assert!(search.found(text.as_bytes()).is_empty(), "{name}: {text}");
    }
}
