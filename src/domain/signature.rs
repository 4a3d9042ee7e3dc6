//! Signatures of both kinds, made and checked.
//!
//! Standard Webhooks (`v1`: HMAC-SHA256 by RFC 2104; `v1a`: Ed25519 by RFC 8032) over
//! `<id>.<timestamp>.<body>`, and `X-Leicbit-Signature` over `<timestamp><body>`.
//! During a rotation both secrets sign, newest first. [`Secret`] has no `Display`, and
//! its `Debug` shows nothing.

use std::fmt;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature, Signer as _, SigningKey, Verifier as _, VerifyingKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::subscription::Signing;
use super::timestamp::UnixMillis;

pub(crate) type HmacSha256 = Hmac<Sha256>;

/// 32 secret bytes: an HMAC key, or the seed of an Ed25519 key pair.
#[derive(Clone)]
pub struct Secret(Zeroizing<[u8; 32]>);

/// Most secrets of one subscription that sign at once: the current one, and those before it
/// whose overlaps are not over.
pub const SECRETS_MAX: usize = 5;

/// A subscription's secrets: the current one, and during a rotation those before.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// Signs first.
    pub current: Secret,
    /// Those before it, newest first. Each signs too, until its time is over.
    pub previous: Vec<(Secret, UnixMillis)>,
}

/// Signing keys with their state prepared, so that signing hashes the message alone.
#[derive(Clone)]
pub struct SigningKeys {
    current: PreparedKey,
    previous: Vec<(PreparedKey, UnixMillis)>,
}

#[derive(Clone)]
enum PreparedKey {
    Hmac {
        /// Keyed with the raw bytes: Standard Webhooks.
        raw: Box<HmacSha256>,
        /// Keyed with the ASCII of the hex text: Leicbit.
        hex: Box<HmacSha256>,
    },
    Ed25519(Box<SigningKey>),
}

impl Secret {
    /// Takes over random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Reads `whsec_<base64>` or 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = match text.strip_prefix("whsec_") {
            Some(rest) => BASE64.decode(rest).ok()?,
            None => hex::decode(text).ok()?,
        };
        Some(Self::new(Zeroizing::new(bytes).as_slice().try_into().ok()?))
    }

    /// The raw bytes: for encryption and storage only.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hex form that is shown once.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(*self.0))
    }

    /// The Standard Webhooks form that is shown once.
    pub fn to_whsec(&self) -> Zeroizing<String> {
        // Long enough from the start: what grows leaves a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(64));
        text.push_str("whsec_");
        BASE64.encode_string(*self.0, &mut text);
        text
    }

    /// The public key of the pair that this seeds: `whpk_<base64>`.
    pub fn public_key(&self) -> String {
        let key = SigningKey::from_bytes(&self.0).verifying_key();
        format!("whpk_{}", BASE64.encode(key.as_bytes()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKeys(…)")
    }
}

impl Secrets {
    /// Only this one.
    pub fn only(current: Secret) -> Self {
        Self {
            current,
            previous: Vec::new(),
        }
    }

    /// These with another current one at `now`. The one that is current signs too until `until`,
    /// and each before it for as long as it was to, but no longer than that. `None` when too many
    /// would sign.
    pub fn rotated(&self, current: Secret, now: UnixMillis, until: UnixMillis) -> Option<Self> {
        let current_too = std::iter::once((&self.current, until));
        let before = self.previous.iter();
        let before = before.map(|(secret, own)| (secret, until.min(*own)));
        let previous = current_too.chain(before).filter(|(_, until)| now < *until);
        let previous: Vec<_> = previous
            .map(|(secret, until)| (secret.clone(), until))
            .collect();
        let signing = 1 + previous.len();
        (signing <= SECRETS_MAX).then_some(Self { current, previous })
    }
}

impl PreparedKey {
    fn new(secret: &Secret, signing: Signing) -> Self {
        match signing {
            Signing::HmacSha256 => Self::Hmac {
                raw: Box::new(hmac_keyed(secret.bytes())),
                hex: Box::new(hmac_keyed(secret.to_hex().as_bytes())),
            },
            Signing::Ed25519 => Self::Ed25519(Box::new(SigningKey::from_bytes(secret.bytes()))),
        }
    }

    fn standard(&self, parts: &[&[u8]], out: &mut String) {
        match self {
            Self::Hmac { raw, .. } => {
                out.push_str("v1,");
                BASE64.encode_string(hmac_of(raw, parts), out);
            }
            Self::Ed25519(key) => {
                out.push_str("v1a,");
                let signature = key.sign(&parts.concat());
                BASE64.encode_string(signature.to_bytes(), out);
            }
        }
    }
}

impl SigningKeys {
    /// Prepares `secrets` for signing.
    pub fn new(secrets: &Secrets, signing: Signing) -> Self {
        Self {
            current: PreparedKey::new(&secrets.current, signing),
            previous: secrets
                .previous
                .iter()
                .map(|(secret, until)| (PreparedKey::new(secret, signing), *until))
                .collect(),
        }
    }

    /// The value of `webhook-signature` for the request sent at `now`.
    pub fn standard(&self, id: &str, now: UnixMillis, body: &[u8]) -> String {
        let timestamp = now.seconds().to_string();
        let parts = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
        let mut value = String::with_capacity(96);
        for key in self.keys(now) {
            if !value.is_empty() {
                value.push(' ');
            }
            key.standard(&parts, &mut value);
        }
        value
    }

    /// The value of `X-Leicbit-Signature` for the request sent at `now`.
    ///
    /// Ed25519 keys have no part in it: that combination is refused when written.
    pub fn leicbit(&self, now: UnixMillis, body: &[u8]) -> String {
        let timestamp = now.seconds().to_string();
        let mut value = format!("t={timestamp}");
        for key in self.keys(now) {
            if let PreparedKey::Hmac { hex: state, .. } = key {
                let digest = hmac_of(state, &[timestamp.as_bytes(), body]);
                // Writing to a String cannot fail.
                let _ = write!(value, ",v1={}", hex::encode(digest));
            }
        }
        value
    }

    fn keys(&self, now: UnixMillis) -> impl Iterator<Item = &PreparedKey> {
        let previous = self.previous.iter().filter(move |(_, until)| now < *until);
        std::iter::once(&self.current).chain(previous.map(|(key, _)| key))
    }
}

/// What a receiver checks signatures with.
#[derive(Clone, Debug)]
pub enum VerificationKey {
    /// The shared secret.
    Secret(Secret),
    /// The public key of a pair.
    Public(VerifyingKey),
}

/// Why a signature is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFault {
    /// A header is absent.
    #[error("the header `{0}` is missing")]
    MissingHeader(&'static str),
    /// A header cannot be read.
    #[error("the header `{header}` must be {expected}")]
    Malformed {
        /// Which header.
        header: &'static str,
        /// What it had to look like.
        expected: &'static str,
    },
    /// The timestamp is too far from the clock.
    #[error(
        "the timestamp is {seconds} s away from the clock, more than the {tolerance} s allowed"
    )]
    OutsideTolerance {
        /// How far.
        seconds: u64,
        /// How far it may be.
        tolerance: u64,
    },
    /// No signature fits.
    #[error("no signature matches: another secret, or the body was changed on the way")]
    NoMatch,
}

/// The headers that carry a request's signatures.
#[derive(Clone, Copy, Debug, Default)]
pub struct SignedHeaders<'a> {
    /// `webhook-id`
    pub id: Option<&'a str>,
    /// `webhook-timestamp`
    pub timestamp: Option<&'a str>,
    /// `webhook-signature`
    pub signature: Option<&'a str>,
    /// `x-leicbit-signature`
    pub leicbit: Option<&'a str>,
}

impl VerificationKey {
    /// Reads a shown secret (`whsec_…` or hex) or public key (`whpk_…`).
    pub fn parse(text: &str) -> Option<Self> {
        let Some(rest) = text.strip_prefix("whpk_") else {
            return Secret::parse(text).map(Self::Secret);
        };
        let bytes = BASE64.decode(rest).ok()?;
        let key = VerifyingKey::from_bytes(bytes.as_slice().try_into().ok()?).ok()?;
        Some(Self::Public(key))
    }

    /// Checks the Standard Webhooks signature as a receiver does.
    ///
    /// # Errors
    /// [`SignatureFault`]: what is wrong.
    pub fn verify_standard(
        &self,
        headers: &SignedHeaders<'_>,
        body: &[u8],
        now: UnixMillis,
        tolerance: u64,
    ) -> Result<(), SignatureFault> {
        let id = headers
            .id
            .ok_or(SignatureFault::MissingHeader("webhook-id"))?;
        let timestamp = headers
            .timestamp
            .ok_or(SignatureFault::MissingHeader("webhook-timestamp"))?;
        let signatures = headers
            .signature
            .ok_or(SignatureFault::MissingHeader("webhook-signature"))?;
        check_timestamp("webhook-timestamp", timestamp, now, tolerance)?;
        let parts = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
        let fits = signatures
            .split(' ')
            .filter_map(|signature| signature.split_once(','))
            .any(|(version, encoded)| self.fits(version, encoded, &parts));
        if fits {
            Ok(())
        } else {
            Err(SignatureFault::NoMatch)
        }
    }

    /// Checks `X-Leicbit-Signature` as a receiver does.
    ///
    /// # Errors
    /// [`SignatureFault`]: what is wrong.
    pub fn verify_leicbit(
        &self,
        header: &str,
        body: &[u8],
        now: UnixMillis,
        tolerance: u64,
    ) -> Result<(), SignatureFault> {
        let malformed = SignatureFault::Malformed {
            header: "x-leicbit-signature",
            expected: "t=<unix seconds>,v1=<hex>",
        };
        let mut parts = header.split(',').map(str::trim);
        let timestamp = parts
            .next()
            .and_then(|part| part.strip_prefix("t="))
            .ok_or(malformed)?;
        check_timestamp("x-leicbit-signature", timestamp, now, tolerance)?;
        let Self::Secret(secret) = self else {
            return Err(SignatureFault::NoMatch);
        };
        let state = hmac_keyed(secret.to_hex().as_bytes());
        let expected = hmac_of(&state, &[timestamp.as_bytes(), body]);
        let fits = parts
            .filter_map(|part| part.strip_prefix("v1="))
            .filter_map(|digits| hex::decode(digits).ok())
            .any(|digest| digest.ct_eq(&expected).into());
        if fits {
            Ok(())
        } else {
            Err(SignatureFault::NoMatch)
        }
    }

    fn fits(&self, version: &str, encoded: &str, parts: &[&[u8]]) -> bool {
        let Ok(given) = BASE64.decode(encoded) else {
            return false;
        };
        match (self, version) {
            (Self::Secret(secret), "v1") => {
                let expected = hmac_of(&hmac_keyed(secret.bytes()), parts);
                given.ct_eq(&expected).into()
            }
            (Self::Public(key), "v1a") => Signature::from_slice(&given)
                .is_ok_and(|signature| key.verify(&parts.concat(), &signature).is_ok()),
            _ => false,
        }
    }
}

fn check_timestamp(
    header: &'static str,
    text: &str,
    now: UnixMillis,
    tolerance: u64,
) -> Result<(), SignatureFault> {
    let expected = "Unix seconds";
    let at: i64 = text
        .parse()
        .map_err(|_| SignatureFault::Malformed { header, expected })?;
    let seconds = now.seconds().abs_diff(at);
    if seconds > tolerance {
        return Err(SignatureFault::OutsideTolerance { seconds, tolerance });
    }
    Ok(())
}

pub(crate) fn hmac_keyed(key: &[u8]) -> HmacSha256 {
    // HMAC takes keys of any length (RFC 2104 section 2).
    #[allow(clippy::expect_used)]
    HmacSha256::new_from_slice(key).expect("HMAC takes keys of any length")
}

pub(crate) fn hmac_of(state: &HmacSha256, parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = state.clone();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests;
