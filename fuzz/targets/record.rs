//! What is kept of subscriptions and attempts: arbitrary bytes decode or fail, without a panic;
//! what decodes comes back as it went; a sealed secret with anything about it changed, be it the
//! name of its key or its subscription, does not open.
//!
//! Input: a byte that says what the rest is: `s` a subscription's record, `a` an attempt as it is
//! kept, `p` an attempt not compressed yet, and any other the change to a record with sealed
//! secrets.
#![no_main]

use std::sync::{Arc, LazyLock};

use carillon::codec::attempt;
use carillon::codec::subscription::{decode_record, encode_record, show};
use carillon::codec::vault::Vault;
use carillon::domain::keys::{KeyRing, MasterKey};
use carillon::domain::signature::Secret;
use carillon::ports::{Chance, StoredSubscription};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

/// Nonces that make every run the same.
struct Same;

impl Chance for Same {
    fn fraction(&self) -> f64 {
        0.0
    }

    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0x5a);
    }
}

static VAULT: LazyLock<Vault> = LazyLock::new(|| {
    let mut keys = KeyRing::default();
    for (id, byte) in [("new", 1), ("old", 2)] {
        let id = id.to_owned();
        let key = Secret::new([byte; 32]);
        assert!(keys.add(MasterKey { id, key }).is_ok());
    }
    Vault::new(keys, Arc::new(Same))
});

/// A record with two sealed secrets.
static SEALED: LazyLock<Value> = LazyLock::new(|| {
    let plain = json!({
        "subscription": {"id": "sub_1", "tenant": "acme", "url": "https://example.com/"},
        "created_at_ms": 1, "updated_at_ms": 2, "version": 3,
        "secret": "ab".repeat(32), "previous_secrets": [["cd".repeat(32), 9]],
    });
    let stored = decode(plain.to_string().as_bytes()).expect("a record");
    let sealed = serde_json::from_slice(&encode_record(&stored, &VAULT)).expect("JSON");
    assert!(decode(Value::to_string(&sealed).as_bytes()).is_ok());
    sealed
});

fuzz_target!(|input: &[u8]| {
    match input.split_first() {
        Some((b's', record)) => subscription(record),
        Some((b'a', record)) => attempt(record),
        Some((b'p', message)) => attempt(&lz4_flex::compress_prepend_size(message)),
        Some((which, change)) => changed_does_not_open(*which, change),
        None => {}
    }
});

fn decode(record: &[u8]) -> Result<StoredSubscription, String> {
    decode_record(record, &VAULT).map_err(|why| format!("{why:?}"))
}

fn subscription(record: &[u8]) {
    let Ok(stored) = decode(record) else {
        return;
    };
    let encoded = encode_record(&stored, &VAULT);
    let back = decode(&encoded).expect("what was encoded decodes");
    let shown = |stored: &StoredSubscription| show(&stored.subscription, &stored.secrets);
    assert_eq!(shown(&back), shown(&stored));
    let secrets = |stored: &StoredSubscription| {
        let previous = stored.secrets.previous.iter();
        let previous = previous.map(|(secret, until)| (*secret.bytes(), *until));
        (
            *stored.secrets.current.bytes(),
            previous.collect::<Vec<_>>(),
        )
    };
    assert_eq!(secrets(&back), secrets(&stored));
    assert_eq!(encode_record(&back, &VAULT), encoded);
}

fn attempt(record: &[u8]) {
    let Some(kept) = attempt::decode(record) else {
        return;
    };
    let encoded = attempt::encode(&kept, usize::MAX);
    let back = attempt::decode(&encoded).expect("what was encoded decodes");
    assert_eq!(format!("{back:?}"), format!("{kept:?}"));
}

/// Puts `change` over the text of a sealed secret, from a place on that `which` gives; or in place
/// of what it is bound to.
fn changed_does_not_open(which: u8, change: &[u8]) {
    let Ok(change) = std::str::from_utf8(change) else {
        return;
    };
    let mut record = SEALED.clone();
    let place = match which % 4 {
        0 => &mut record["subscription"]["id"],
        1 => &mut record["secret"]["key"],
        2 => &mut record["secret"]["sealed"],
        _ => &mut record["previous_secrets"][0][0]["sealed"],
    };
    let before = place.as_str().expect("text").to_owned();
    let from = usize::from(which / 4) % (before.len() + 1);
    let to = (from + change.len()).min(before.len());
    let after = format!("{}{change}{}", &before[..from], &before[to..]);
    *place = after.clone().into();
    assert_eq!(
        decode(record.to_string().as_bytes()).is_ok(),
        after == before,
        "{after}"
    );
}
