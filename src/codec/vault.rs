//! Signing secrets at rest: encrypted with XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha), where
//! there are keys.
//!
//! Each is bound to its subscription, as the associated data: copied into another record it
//! does not open. The id of the key stands beside what it encrypted, so that keys can be
//! changed one after the other.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::domain::id::SubscriptionId;
use crate::domain::keys::{KeyRing, MasterKey};
use crate::domain::signature::Secret;
use crate::ports::{Chance, StoreError};

/// Bytes of a nonce: long enough to be drawn at random.
const NONCE_BYTES: usize = 24;

/// Encrypts and decrypts signing secrets. By default it has no keys, and does neither.
#[derive(Clone, Default)]
pub struct Vault(Arc<Inner>);

#[derive(Default)]
struct Inner {
    keys: KeyRing,
    chance: Option<Arc<dyn Chance>>,
}

/// A secret as it is kept.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Kept {
    /// Encrypted: which key, and the base64 of nonce and ciphertext.
    Sealed { key: String, sealed: String },
    /// As its hexadecimal digits, as there was no key.
    Plain(Zeroizing<String>),
}

/// Why a record, or the secret in it, cannot be read. Says neither a secret nor a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// The secret is encrypted with the key of this id, which is not there.
    KeyMissing(String),
    /// A sentence on what is wrong.
    Damaged(String),
}

impl Unreadable {
    /// What a store says of the record of `subscription`.
    pub fn of(self, subscription: &str) -> StoreError {
        match self {
            Self::KeyMissing(key) => StoreError::KeyMissing {
                subscription: subscription.to_owned(),
                key,
            },
            Self::Damaged(problem) => {
                StoreError::Damaged(format!("subscription {subscription}: {problem}"))
            }
        }
    }
}

impl From<String> for Unreadable {
    fn from(problem: String) -> Self {
        Self::Damaged(problem)
    }
}

impl Vault {
    /// Encrypts with the first of `keys`; without one nothing is encrypted. Nonces come from
    /// `chance`.
    pub fn new(keys: KeyRing, chance: Arc<dyn Chance>) -> Self {
        Self(Arc::new(Inner {
            keys,
            chance: Some(chance),
        }))
    }

    /// The secret of `subscription` as it is to be kept.
    pub(super) fn seal(&self, secret: &Secret, subscription: &SubscriptionId) -> Kept {
        let Inner { keys, chance } = &*self.0;
        let (Some(MasterKey { id, key }), Some(chance)) = (keys.first(), chance) else {
            return Kept::Plain(secret.to_hex());
        };
        let mut nonce = [0; NONCE_BYTES];
        chance.fill(&mut nonce);
        let (msg, aad) = (&secret.bytes()[..], subscription.as_str().as_bytes());
        let sealed = cipher(key).encrypt(&XNonce::from(nonce), Payload { msg, aad });
        // It fails for texts of more than 256 GiB.
        let sealed = sealed.unwrap_or_default();
        Kept::Sealed {
            key: id.clone(),
            sealed: BASE64.encode([&nonce[..], &sealed].concat()),
        }
    }

    /// The secret of `subscription` that was kept.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub(super) fn open(
        &self,
        kept: &Kept,
        subscription: &SubscriptionId,
    ) -> Result<Secret, Unreadable> {
        let damaged = || Unreadable::Damaged("the secret is damaged".to_owned());
        let (id, sealed) = match kept {
            Kept::Plain(hex) => return Secret::parse(hex).ok_or_else(damaged),
            Kept::Sealed { key, sealed } => (key, sealed),
        };
        let Some(MasterKey { key, .. }) = self.0.keys.find(id) else {
            return Err(Unreadable::KeyMissing(id.clone()));
        };
        let bytes = BASE64.decode(sealed).map_err(|_| damaged())?;
        let (nonce, msg) = bytes
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or_else(damaged)?;
        let aad = subscription.as_str().as_bytes();
        let opened = cipher(key).decrypt(&XNonce::from(*nonce), Payload { msg, aad });
        let opened = opened.map(Zeroizing::new).map_err(|_| {
            Unreadable::Damaged(format!(
                "its secret does not open with the key `{id}`: another key of that name, or the \
                 record of another subscription"
            ))
        })?;
        let bytes: [u8; 32] = opened.as_slice().try_into().map_err(|_| damaged())?;
        Ok(Secret::new(bytes))
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Vault").field(&self.0.keys).finish()
    }
}

fn cipher(key: &Secret) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.bytes().into())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    struct Counting;

    impl Chance for Counting {
        fn fraction(&self) -> f64 {
            0.0
        }

        fn fill(&self, bytes: &mut [u8]) {
            for (n, byte) in (0..).zip(bytes) {
                *byte = n;
            }
        }
    }

    /// With keys of these names, each of its first letter.
    pub(in super::super) fn vault(names: &[&str]) -> Vault {
        let mut keys = KeyRing::default();
        for name in names {
            let key = MasterKey {
                id: (*name).to_owned(),
                key: Secret::new([name.as_bytes()[0]; 32]),
            };
            keys.add(key).unwrap();
        }
        Vault::new(keys, Arc::new(Counting))
    }

    fn id(text: &str) -> SubscriptionId {
        SubscriptionId::parse(text).unwrap()
    }

    #[test]
    fn what_was_sealed_opens_with_its_key_for_its_subscription_alone() {
        let secret = Secret::new([0xAB; 32]);
        let kept = vault(&["a"]).seal(&secret, &id("sub_1"));
        let text = serde_json::to_string(&kept).unwrap();
        let (hex, whsec) = (secret.to_hex(), secret.to_whsec());
        assert!(
            !text.contains(&**hex) && !text.contains(&whsec[6..]),
            "{text}"
        );
        let open = |names: &[&str], sub: &str| vault(names).open(&kept, &id(sub));
        assert_eq!(open(&["b", "a"], "sub_1").unwrap().bytes(), secret.bytes());
        let Unreadable::Damaged(problem) = open(&["a"], "sub_2").unwrap_err() else {
            panic!("the key is there");
        };
        assert!(problem.contains("does not open"), "{problem}");
        let missing = Unreadable::KeyMissing("a".to_owned());
        assert_eq!(open(&["b"], "sub_1").unwrap_err(), missing);
        assert_eq!(open(&["another", "b"], "sub_1").unwrap_err(), missing);
    }

    #[test]
    fn without_keys_it_is_kept_as_it_is_and_still_read_with_keys() {
        let secret = Secret::new([3; 32]);
        let kept = vault(&[]).seal(&secret, &id("sub_1"));
        let opened = vault(&["a"]).open(&kept, &id("sub_1")).unwrap();
        assert_eq!(opened.bytes(), secret.bytes());
    }

    #[test]
    fn what_was_changed_does_not_open() {
        let kept = vault(&["a"]).seal(&Secret::new([3; 32]), &id("sub_1"));
        let Kept::Sealed { key, sealed } = kept else {
            panic!("there is a key");
        };
        let bytes = BASE64.decode(&sealed).unwrap();
        for n in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[n] ^= 1;
            let sealed = BASE64.encode(&changed);
            let kept = Kept::Sealed {
                key: key.clone(),
                sealed,
            };
            assert!(vault(&["a"]).open(&kept, &id("sub_1")).is_err(), "{n}");
        }
        for sealed in ["", "AAAA", "%"].map(str::to_owned) {
            let kept = Kept::Sealed {
                key: key.clone(),
                sealed,
            };
            assert!(vault(&["a"]).open(&kept, &id("sub_1")).is_err());
        }
    }

    #[test]
    fn the_construction_is_the_one_of_its_draft() {
        // draft-irtf-cfrg-xchacha-03, appendix A.3.1: what this cipher makes of its vector.
        let key: [u8; 32] = std::array::from_fn(|n| 0x80 + n as u8);
        let nonce: [u8; 24] = std::array::from_fn(|n| 0x40 + n as u8);
        let msg =
            b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for \
            the future, sunscreen would be it.";
        let aad = hex::decode("50515253c0c1c2c3c4c5c6c7").unwrap();
        let sealed = cipher(&Secret::new(key))
            .encrypt(&XNonce::from(nonce), Payload { msg, aad: &aad })
            .unwrap();
        let tag = hex::encode(&sealed[msg.len()..]);
        assert_eq!(tag, "c0875924c1c7987947deafd8780acf49");
        assert!(hex::encode(&sealed).starts_with("bd6d179d3e83d43b9576579493c0e939"));
    }
}
