//! Captured requests and what is found about them.

use super::*;
use crate::domain::signature::{Secret, Secrets, SigningKeys};
use crate::domain::subscription::Signing;

const NOW: UnixMillis = UnixMillis(1_772_368_200_000);
const BODY: &str = r#"{"type":"a.b"}"#;

fn keys_of(bytes: &[u8]) -> Vec<VerificationKey> {
    let key = |byte: &u8| VerificationKey::Secret(Secret::new([*byte; 32]));
    bytes.iter().map(key).collect()
}

fn public(byte: u8) -> VerificationKey {
    VerificationKey::parse(&Secret::new([byte; 32]).public_key()).unwrap()
}

/// Signed by the secret of ones.
fn captured(signing: Signing, leicbit: bool, body: &str) -> Captured {
    let secrets = Secrets::only(Secret::new([1; 32]));
    let keys = SigningKeys::new(&secrets, signing);
    let mut text = format!(
        "POST / HTTP/1.1\r\nWebhook-Id: msg_1\r\nWebhook-Timestamp: {}\r\nWebhook-Signature: {}\r\n",
        NOW.seconds(),
        keys.standard("msg_1", NOW, BODY.as_bytes()),
    );
    if leicbit {
        let value = keys.leicbit(NOW, BODY.as_bytes());
        text.push_str(&format!("X-Leicbit-Signature: {value}\r\n"));
    }
    text.push_str("\r\n");
    Captured::parse((text + body).as_bytes()).unwrap()
}

fn hmac(body: &str) -> Captured {
    captured(Signing::HmacSha256, true, body)
}

#[test]
fn both_kinds_verify_with_the_key_that_fits() {
    let findings = examine(&hmac(BODY), &keys_of(&[2, 1]), NOW, Some(300));
    let kinds: Vec<_> = findings.iter().map(|found| found.kind).collect();
    assert_eq!(kinds, ["standard", "leicbit"]);
    for found in findings {
        assert!(found.verified());
        assert_eq!(found.json()["key"], 2);
        assert_eq!(found.signed_at, Some(NOW));
        assert_eq!(found.problem(), None);
    }
}

#[test]
fn another_secret_or_body_does_not_verify() {
    for (body, key) in [(BODY, 2), (r#"{"type":"a.c"}"#, 1)] {
        for found in examine(&hmac(body), &keys_of(&[key]), NOW, Some(300)) {
            assert!(!found.verified());
            assert_eq!(found.fit, Err(SignatureFault::NoMatch));
            assert_eq!(found.hint, None);
        }
    }
}

#[test]
fn age_is_judged_apart() {
    let later = UnixMillis(NOW.0 + 301_000);
    for found in examine(&hmac(BODY), &keys_of(&[1]), later, Some(300)) {
        assert!(found.fit.is_ok() && !found.verified());
        assert!(found.problem().unwrap().contains("301 s away"));
    }
    for found in examine(&hmac(BODY), &keys_of(&[1]), later, None) {
        assert!(found.verified() && found.age_ignored);
    }
    // An old one with another secret has both faults.
    for found in examine(&hmac(BODY), &keys_of(&[2]), later, Some(300)) {
        assert!(found.problem().unwrap().contains("; and the timestamp"));
    }
}

#[test]
fn a_line_break_that_was_added_fails_with_a_hint() {
    for end in ["\n", "\r\n"] {
        for found in examine(&hmac(&format!("{BODY}{end}")), &keys_of(&[1]), NOW, None) {
            assert!(!found.verified());
            assert!(found.hint.unwrap().contains("without the line break"));
        }
    }
    let mut cut = hmac("{");
    cut.headers
        .push(("content-length".to_owned(), "14".to_owned()));
    for found in examine(&cut, &keys_of(&[1]), NOW, None) {
        assert!(found.hint.unwrap().contains("says 14 bytes"));
    }
}

#[test]
fn the_kind_of_key_matters() {
    let ed25519 = captured(Signing::Ed25519, false, BODY);
    let found = &examine(&ed25519, &keys_of(&[1]), NOW, None)[0];
    assert!(found.hint.as_ref().unwrap().contains("whpk_"));
    assert!(examine(&ed25519, &[public(1)], NOW, None)[0].verified());
    assert!(!examine(&ed25519, &[public(2)], NOW, None)[0].verified());
    let found = &examine(&hmac(BODY), &[public(1)], NOW, None)[0];
    assert!(found.hint.as_ref().unwrap().contains("whsec_"));
}

#[test]
fn headers_that_are_missing_or_unreadable_are_named() {
    let mut request = hmac(BODY);
    request.headers.retain(|(name, _)| name != "webhook-id");
    let found = &examine(&request, &keys_of(&[1]), NOW, Some(300))[0];
    assert!(found.problem().unwrap().contains("`webhook-id` is missing"));
    request
        .headers
        .retain(|(name, _)| name != "x-leicbit-signature");
    let odd = ("x-leicbit-signature".to_owned(), "t=soon".to_owned());
    request.headers.push(odd);
    let found = &examine(&request, &keys_of(&[1]), NOW, Some(300))[1];
    assert!(found.problem().unwrap().contains("Unix seconds"));
    assert!(!found.verified());
    assert!(examine(&Captured::default(), &keys_of(&[1]), NOW, None).is_empty());
}

#[test]
fn a_wrong_secret_is_not_repeated() {
    let secrets = ["00".repeat(32).into(), "hunter2".to_owned().into()];
    let error = keys(&secrets).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    assert!(text.contains("number 2") && !text.contains("hunter2"));
}

#[test]
fn the_time_to_judge_at_has_four_forms() {
    assert_eq!(Judge::parse("now"), Ok(Judge::Now));
    assert_eq!(Judge::parse("ignore"), Ok(Judge::Ignore));
    assert_eq!(Judge::parse("1772368200"), Ok(Judge::At(NOW)));
    assert_eq!(Judge::parse("2026-03-01T12:30:00Z"), Ok(Judge::At(NOW)));
    assert!(Judge::parse("yesterday").is_err());
}
