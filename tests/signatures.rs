//! Signatures, checked by others: the Standard Webhooks library, and known answers of a
//! program in another language.
//!
//! The library (`standardwebhooks`) knows `v1` only. Ed25519 (`v1a`) and
//! `X-Leicbit-Signature` stand on the known answers alone, which
//! `tests/fixtures/signatures/make.py` works out from the contract (section 3): bodies,
//! ids and signatures, compared byte for byte.

// All of this file is tests and their parts: what cannot be read is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use http::HeaderMap;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;
use standardwebhooks::{Webhook, WebhookError};

use carillon::codec::event::decode;
use carillon::domain::event::Event;
use carillon::domain::id::{DeliveryId, SubscriptionId};
use carillon::domain::pattern::{Budget, Pattern, Selection};
use carillon::domain::payload::{self, Payload};
use carillon::domain::signature::{
    Secret, Secrets, SignatureFault, SignedHeaders, SigningKeys, VerificationKey,
};
use carillon::domain::subscription::{Format, Signing};
use carillon::domain::timestamp::UnixMillis;

/// What the library allows, in seconds; it cannot be told another.
const TOLERANCE: u64 = 300;
/// Near enough to now that the tolerance holds however slow the machine is.
const NEAR: i64 = 200;

/// What goes over the wire, as far as signatures know it.
#[derive(Clone, Debug)]
struct Request {
    id: String,
    timestamp: String,
    signature: String,
    body: String,
}

impl Request {
    fn signed(keys: &SigningKeys, id: &str, at: UnixMillis, body: &str) -> Self {
        Self {
            id: id.to_owned(),
            timestamp: at.seconds().to_string(),
            signature: keys.standard(id, at, body.as_bytes()),
            body: body.to_owned(),
        }
    }

    fn ours(&self, secret: [u8; 32]) -> Result<(), SignatureFault> {
        let headers = SignedHeaders {
            id: Some(&self.id),
            timestamp: Some(&self.timestamp),
            signature: Some(&self.signature),
            leicbit: None,
        };
        let key = VerificationKey::Secret(Secret::new(secret));
        key.verify_standard(&headers, self.body.as_bytes(), now(), TOLERANCE)
    }

    fn theirs(&self, secret: [u8; 32]) -> Result<(), WebhookError> {
        let mut headers = HeaderMap::new();
        headers.insert(
            standardwebhooks::HEADER_WEBHOOK_ID,
            self.id.parse().unwrap(),
        );
        headers.insert(
            standardwebhooks::HEADER_WEBHOOK_TIMESTAMP,
            self.timestamp.parse().unwrap(),
        );
        headers.insert(
            standardwebhooks::HEADER_WEBHOOK_SIGNATURE,
            self.signature.parse().unwrap(),
        );
        library(secret).verify(self.body.as_bytes(), &headers)
    }

    /// Whether a receiver with `secret` takes it; ours and theirs must say the same.
    fn accepted(&self, secret: [u8; 32]) -> bool {
        let (ours, theirs) = (self.ours(secret), self.theirs(secret));
        match (&ours, &theirs) {
            (Ok(()), Ok(())) => true,
            (Err(SignatureFault::NoMatch), Err(WebhookError::InvalidSignature)) => false,
            _ => panic!("ours {ours:?}, theirs {theirs:?}: {self:?}"),
        }
    }
}

fn now() -> UnixMillis {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    UnixMillis(since.as_millis().try_into().unwrap())
}

/// The library as a receiver sets it up: with the secret in the form that was shown.
fn library(secret: [u8; 32]) -> Webhook {
    Webhook::new(&Secret::new(secret).to_whsec()).unwrap()
}

fn keys(current: [u8; 32], previous: Option<([u8; 32], UnixMillis)>) -> SigningKeys {
    let secrets = Secrets {
        current: Secret::new(current),
        previous: previous
            .map(|(secret, until)| (Secret::new(secret), until))
            .into_iter()
            .collect(),
    };
    SigningKeys::new(&secrets, Signing::HmacSha256)
}

fn ids() -> impl Strategy<Value = String> {
    "msg_[A-Za-z0-9]{26,64}"
}

/// JSON as it is sent, and any other text: signatures must not care.
fn bodies() -> impl Strategy<Value = String> {
    let json = any::<String>().prop_map(|text| Value::from(vec![text]).to_string());
    prop_oneof![json, any::<String>()]
}

/// Milliseconds from now, within the tolerance on both sides.
fn offsets() -> impl Strategy<Value = i64> {
    -NEAR * 1000..NEAR * 1000
}

/// Milliseconds until an overlap ends: the last of them often.
fn lefts() -> impl Strategy<Value = i64> {
    prop_oneof![Just(1), 1..90_000_000_i64]
}

proptest! {
    #[test]
    fn the_library_accepts_what_we_sign(
        secret: [u8; 32], id in ids(), offset in offsets(), body in bodies(),
    ) {
        let at = UnixMillis(now().0 + offset);
        let request = Request::signed(&keys(secret, None), &id, at, &body);
        prop_assert!(request.accepted(secret));
        let theirs = library(secret).sign(&id, at.seconds(), body.as_bytes()).unwrap();
        prop_assert_eq!(request.signature, theirs);
    }

    #[test]
    fn we_accept_what_the_library_signs(
        secret: [u8; 32], id in ids(), offset in offsets(), body in bodies(),
    ) {
        let seconds = now().seconds() + offset / 1000;
        let signature = library(secret).sign(&id, seconds, body.as_bytes()).unwrap();
        let request = Request { id, timestamp: seconds.to_string(), signature, body };
        prop_assert_eq!(request.ours(secret), Ok(()));
    }

    #[test]
    fn in_a_rotation_either_secret_is_enough(
        [current, previous, other] in distinct_secrets::<3>(),
        id in ids(), offset in offsets(), body in bodies(), left in lefts(),
    ) {
        let at = UnixMillis(now().0 + offset);
        let during = keys(current, Some((previous, UnixMillis(at.0 + left))));
        let request = Request::signed(&during, &id, at, &body);
        prop_assert!(request.accepted(current));
        prop_assert!(request.accepted(previous));
        prop_assert!(!request.accepted(other));
        let newest_first = [current, previous]
            .map(|secret| library(secret).sign(&id, at.seconds(), body.as_bytes()).unwrap());
        prop_assert_eq!(&request.signature, &newest_first.join(" "));

        let after = keys(current, Some((previous, UnixMillis(at.0 + 1 - left))));
        let request = Request::signed(&after, &id, at, &body);
        prop_assert!(request.accepted(current));
        prop_assert!(!request.accepted(previous));
    }

    #[test]
    fn signatures_of_others_are_passed_over(
        [secret, other, third] in distinct_secrets::<3>(),
        id in ids(), body in bodies(), place in 0..4_usize,
    ) {
        let at = now();
        let mut request = Request::signed(&keys(secret, None), &id, at, &body);
        let foreign = Request::signed(&keys(other, None), &id, at, &body).signature;
        let mut values = vec![foreign, "v1a,AAAA".to_owned(), "v2,====".to_owned()];
        values.insert(place, request.signature);
        request.signature = values.join(" ");
        prop_assert!(request.accepted(secret));
        prop_assert!(request.accepted(other));
        prop_assert!(!request.accepted(third));
    }

    #[test]
    fn both_refuse_what_was_changed(
        [secret, other] in distinct_secrets::<2>(),
        id in ids(), offset in offsets(), body in bodies(),
        at_char: prop::sample::Index, shift in 1..50_i64,
    ) {
        let at = UnixMillis(now().0 + offset);
        let body = format!("{body}.");
        let request = Request::signed(&keys(secret, None), &id, at, &body);
        let edits: [&dyn Fn(&mut Request); 8] = [
            &|it| it.body.push(' '),
            &|it| it.body = with_another_char(&it.body, at_char),
            &|it| it.id = with_another_char(&it.id, at_char),
            &|it| it.timestamp = (at.seconds() + shift).to_string(),
            &|it| it.signature = with_another_char(&it.signature, at_char),
            &|it| it.signature = "v1,".to_owned(),
            &|it| it.signature = it.signature.replace("v1,", "v1a,"),
            &|it| it.signature = it.signature.replace(',', "="),
        ];
        for edit in edits {
            let mut changed = request.clone();
            edit(&mut changed);
            prop_assert!(!changed.accepted(secret), "{changed:?}");
        }
        prop_assert!(request.accepted(secret));
        prop_assert!(!request.accepted(other));
    }

    #[test]
    fn both_refuse_what_is_too_old_or_too_new(
        secret: [u8; 32], id in ids(), body in bodies(), away in 1_000..1_000_000_i64,
    ) {
        for seconds in [now().seconds() - away, now().seconds() + away] {
            let at = UnixMillis(seconds * 1000);
            let request = Request::signed(&keys(secret, None), &id, at, &body);
            let outside = request.ours(secret).unwrap_err();
            prop_assert!(matches!(outside, SignatureFault::OutsideTolerance { .. }), "{outside}");
            let theirs = request.theirs(secret).unwrap_err();
            let late = seconds < now().seconds();
            prop_assert!(match theirs {
                WebhookError::TimestampTooOldError => late,
                WebhookError::FutureTimestampError => !late,
                _ => false,
            }, "{theirs}");
        }
    }
}

fn distinct_secrets<const N: usize>() -> impl Strategy<Value = [[u8; 32]; N]> {
    (any::<[u8; 31]>(), any::<u8>()).prop_map(|(start, last)| {
        // They differ in the last byte alone: all 32 count.
        std::array::from_fn(|i| {
            let mut secret = [0; 32];
            secret[..31].copy_from_slice(&start);
            secret[31] = last.wrapping_add(u8::try_from(i).unwrap());
            secret
        })
    })
}

/// `text` with one character made another that is as fit for a header.
fn with_another_char(text: &str, index: prop::sample::Index) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    let at = index.index(chars.len());
    chars[at] = if chars[at] == 'x' { 'y' } else { 'x' };
    chars.into_iter().collect()
}

#[test]
fn the_library_is_the_specification() {
    // The example that the Standard Webhooks specification publishes. Its secret has 24
    // bytes and ours have 32, so that it can measure the library alone.
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let body = br#"{"test": 2432232314}"#;
    let signature =
        Webhook::new(secret)
            .unwrap()
            .sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
    assert_eq!(
        signature.unwrap(),
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    );
    assert!(Secret::parse(secret).is_none());
}

#[test]
fn public_keys_are_those_of_rfc_8032() {
    // Section 7.1, tests 1 and 2.
    for (seed, public) in [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        ),
    ] {
        let key = VerificationKey::parse(&Secret::parse(seed).unwrap().public_key()).unwrap();
        let VerificationKey::Public(key) = key else {
            panic!("{key:?} is not a public key");
        };
        assert_eq!(hex::encode(key.as_bytes()), public);
    }
}

/// One known answer: what goes in, and what `make.py` says must come out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KnownAnswer {
    name: String,
    published: String,
    subscription: String,
    format: String,
    filter: Option<Value>,
    signing: String,
    secret: String,
    previous: Option<Previous>,
    now_ms: i64,
    body: String,
    headers: BTreeMap<String, String>,
    public_keys: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Previous {
    secret: String,
    until_ms: i64,
}

impl KnownAnswer {
    fn all() -> Vec<Self> {
        let all: Vec<Self> =
            serde_json::from_str(include_str!("fixtures/signatures/known_answers.json")).unwrap();
        assert!(!all.is_empty());
        all
    }

    fn now(&self) -> UnixMillis {
        UnixMillis(self.now_ms)
    }

    fn event(&self) -> Event {
        let published = Bytes::copy_from_slice(self.published.as_bytes());
        decode(&published, Some("application/json"), 1 << 20).expect(&self.name)
    }

    fn subscription(&self) -> SubscriptionId {
        SubscriptionId::parse(&self.subscription).unwrap()
    }

    fn format(&self) -> Format {
        Format::from_name(&self.format).unwrap()
    }

    fn signing(&self) -> Signing {
        Signing::from_name(&self.signing).unwrap()
    }

    fn secrets(&self) -> Secrets {
        let parse = |hex: &str| Secret::parse(hex).unwrap();
        let previous = self.previous.as_ref();
        Secrets {
            current: parse(&self.secret),
            previous: previous
                .map(|old| (parse(&old.secret), UnixMillis(old.until_ms)))
                .into_iter()
                .collect(),
        }
    }

    /// The secrets whose receivers must be served: newest first.
    fn signers(&self) -> Vec<Secret> {
        let Secrets { current, previous } = self.secrets();
        let previous = previous
            .into_iter()
            .filter(|(_, until)| self.now() < *until);
        std::iter::once(current)
            .chain(previous.map(|(secret, _)| secret))
            .collect()
    }

    fn payload(&self) -> Payload {
        let event = self.event();
        let selection = self.filter.as_ref().map_or(Selection::All, |filter| {
            Pattern::compile(filter)
                .unwrap()
                .select_alerts(&event.view(), &Budget::of_event(1))
        });
        match self.format() {
            Format::Standard => payload::standard(&event, &selection),
            Format::Leicbit => payload::leicbit(&event, &self.subscription()),
        }
    }

    /// The headers that the contract promises for this case, by our own making.
    fn made_headers(&self) -> BTreeMap<String, String> {
        let (event, now) = (self.event(), self.now());
        let id = DeliveryId::derive(&event.tenant, &event.id, &self.subscription());
        let keys = SigningKeys::new(&self.secrets(), self.signing());
        let Payload { body, has_more } = self.payload();
        let mut headers = vec![
            ("webhook-id", id.as_str().to_owned()),
            ("webhook-timestamp", now.seconds().to_string()),
            ("webhook-signature", keys.standard(id.as_str(), now, &body)),
        ];
        if has_more {
            headers.push(("x-webhook-has-more", "true".to_owned()));
        }
        if self.format() == Format::Leicbit {
            headers.push(("x-leicbit-signature", keys.leicbit(now, &body)));
        }
        headers
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    fn signed_headers(&self) -> SignedHeaders<'_> {
        let header = |name: &str| self.headers.get(name).map(String::as_str);
        SignedHeaders {
            id: header("webhook-id"),
            timestamp: header("webhook-timestamp"),
            signature: header("webhook-signature"),
            leicbit: header("x-leicbit-signature"),
        }
    }

    /// What the receivers hold, as it was shown to them.
    fn verification_keys(&self) -> Vec<VerificationKey> {
        let shown: Vec<String> = match self.signing() {
            Signing::HmacSha256 => self
                .signers()
                .iter()
                .map(|secret| secret.to_whsec().to_string())
                .collect(),
            Signing::Ed25519 => self.public_keys.clone(),
        };
        shown
            .iter()
            .map(|text| VerificationKey::parse(text).unwrap())
            .collect()
    }
}

#[test]
fn bodies_are_the_known_answers() {
    for known in KnownAnswer::all() {
        let body = known.payload().body;
        assert_eq!(str::from_utf8(&body).unwrap(), known.body, "{}", known.name);
    }
}

#[test]
fn headers_are_the_known_answers() {
    for known in KnownAnswer::all() {
        assert_eq!(known.made_headers(), known.headers, "{}", known.name);
    }
}

#[test]
fn public_keys_are_the_known_answers() {
    let pairs = KnownAnswer::all()
        .into_iter()
        .filter(|known| known.signing() == Signing::Ed25519);
    let mut seen = 0;
    for known in pairs {
        let ours: Vec<String> = known.signers().iter().map(Secret::public_key).collect();
        assert_eq!(ours, known.public_keys, "{}", known.name);
        seen += ours.len();
    }
    assert!(seen > 0, "no known answer is signed with a key pair");
}

#[test]
fn receivers_accept_the_known_answers_and_no_others() {
    for known in KnownAnswer::all() {
        let (headers, now, name) = (known.signed_headers(), known.now(), &known.name);
        let body = known.body.as_bytes();
        let changed = [body, b"\n"].concat();
        for key in known.verification_keys() {
            let verify = |body: &[u8]| key.verify_standard(&headers, body, now, TOLERANCE);
            assert_eq!(verify(body), Ok(()), "{name}");
            assert_eq!(verify(&changed), Err(SignatureFault::NoMatch), "{name}");
            let Some(leicbit) = headers.leicbit else {
                continue;
            };
            let verify = |body: &[u8]| key.verify_leicbit(leicbit, body, now, TOLERANCE);
            assert_eq!(verify(body), Ok(()), "{name}");
            assert_eq!(verify(&changed), Err(SignatureFault::NoMatch), "{name}");
        }
        let stranger = VerificationKey::Secret(Secret::new([0; 32]));
        let refused = stranger.verify_standard(&headers, body, now, TOLERANCE);
        assert_eq!(refused, Err(SignatureFault::NoMatch), "{name}");
    }
}
