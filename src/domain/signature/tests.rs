//! Tests of signatures, made and checked.

use super::*;

const NOW: UnixMillis = UnixMillis(1_772_368_200_999);

fn secrets(previous: Option<UnixMillis>) -> Secrets {
    Secrets {
        current: Secret::new([1; 32]),
        previous: previous
            .map(|until| (Secret::new([2; 32]), until))
            .into_iter()
            .collect(),
    }
}

fn key(byte: u8) -> VerificationKey {
    VerificationKey::Secret(Secret::new([byte; 32]))
}

#[test]
fn either_secret_verifies_during_the_overlap_and_only_then() {
    let until = UnixMillis(NOW.0 + 10_000);
    let keys = SigningKeys::new(&secrets(Some(until)), Signing::HmacSha256);
    for (at, both) in [(NOW, true), (until, false)] {
        let signature = keys.standard("msg_1", at, b"{}");
        let timestamp = at.seconds().to_string();
        let headers = SignedHeaders {
            id: Some("msg_1"),
            timestamp: Some(&timestamp),
            signature: Some(&signature),
            leicbit: None,
        };
        assert_eq!(key(1).verify_standard(&headers, b"{}", at, 300), Ok(()));
        let old = key(2).verify_standard(&headers, b"{}", at, 300);
        assert_eq!(old.is_ok(), both);
        let leicbit = keys.leicbit(at, b"{}");
        assert_eq!(key(1).verify_leicbit(&leicbit, b"{}", at, 300), Ok(()));
        assert_eq!(
            key(2).verify_leicbit(&leicbit, b"{}", at, 300).is_ok(),
            both
        );
    }
}

#[test]
fn a_rotation_within_a_rotation_ends_no_secret() {
    let until = |s: i64| UnixMillis(NOW.0 + s * 1000);
    let mut secrets = Secrets::only(Secret::new([1; 32]));
    for (n, overlap) in [(2, 60), (3, 10), (4, 30)] {
        secrets = secrets
            .rotated(Secret::new([n; 32]), NOW, until(overlap))
            .unwrap();
    }
    let keys = SigningKeys::new(&secrets, Signing::HmacSha256);
    for (at, good) in [
        (NOW, vec![4, 3, 2, 1]),
        (until(10), vec![4, 3]),
        (until(30), vec![4]),
    ] {
        let signature = keys.leicbit(at, b"{}");
        let verifies = |n: &u8| key(*n).verify_leicbit(&signature, b"{}", at, 300).is_ok();
        assert_eq!(
            [4, 3, 2, 1]
                .into_iter()
                .filter(verifies)
                .collect::<Vec<_>>(),
            good
        );
    }
    secrets = secrets
        .rotated(Secret::new([5; 32]), NOW, until(60))
        .unwrap();
    assert!(
        secrets
            .rotated(Secret::new([6; 32]), NOW, until(60))
            .is_none()
    );
    assert!(
        secrets
            .rotated(Secret::new([6; 32]), until(10), until(60))
            .is_some()
    );
    let at_once = secrets.rotated(Secret::new([6; 32]), NOW, NOW).unwrap();
    assert!(at_once.previous.is_empty());
}

#[test]
fn a_changed_part_is_noticed() {
    let keys = SigningKeys::new(&secrets(None), Signing::HmacSha256);
    let signature = keys.standard("msg_1", NOW, b"{}");
    let timestamp = NOW.seconds().to_string();
    let good = SignedHeaders {
        id: Some("msg_1"),
        timestamp: Some(&timestamp),
        signature: Some(&signature),
        leicbit: None,
    };
    let verify =
        |headers: &SignedHeaders<'_>, body: &[u8]| key(1).verify_standard(headers, body, NOW, 300);
    assert_eq!(verify(&good, b"{}"), Ok(()));
    assert_eq!(verify(&good, b"{ }"), Err(SignatureFault::NoMatch));
    let other_id = SignedHeaders {
        id: Some("msg_2"),
        ..good
    };
    assert_eq!(verify(&other_id, b"{}"), Err(SignatureFault::NoMatch));
    let late = key(1).verify_standard(&good, b"{}", UnixMillis(NOW.0 + 301_000), 300);
    assert!(matches!(late, Err(SignatureFault::OutsideTolerance { .. })));
    let unsigned = SignedHeaders {
        signature: None,
        ..good
    };
    let missing = SignatureFault::MissingHeader("webhook-signature");
    assert_eq!(verify(&unsigned, b"{}"), Err(missing));
}

#[test]
fn key_pairs_sign_and_verify() {
    let secret = Secret::new([7; 32]);
    let public = VerificationKey::parse(&secret.public_key()).unwrap();
    let secrets = Secrets::only(secret);
    let keys = SigningKeys::new(&secrets, Signing::Ed25519);
    let signature = keys.standard("msg_1", NOW, b"{}");
    assert!(signature.starts_with("v1a,"));
    let timestamp = NOW.seconds().to_string();
    let headers = SignedHeaders {
        id: Some("msg_1"),
        timestamp: Some(&timestamp),
        signature: Some(&signature),
        leicbit: None,
    };
    assert_eq!(public.verify_standard(&headers, b"{}", NOW, 300), Ok(()));
    assert!(public.verify_standard(&headers, b"{}x", NOW, 300).is_err());
    assert!(key(7).verify_standard(&headers, b"{}", NOW, 300).is_err());
}

#[test]
fn secrets_are_read_in_both_forms_and_never_shown_by_accident() {
    let secret = Secret::new([0xAB; 32]);
    for text in [secret.to_hex(), secret.to_whsec()] {
        assert_eq!(Secret::parse(&text).unwrap().bytes(), secret.bytes());
    }
    for bad in ["", "whsec_", "whsec_!!", "abcd", &"g".repeat(64)] {
        assert!(Secret::parse(bad).is_none(), "{bad}");
    }
    assert_eq!(format!("{secret:?}"), "Secret(…)");
}
