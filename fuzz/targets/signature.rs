//! A receiver's checks. Whatever the headers, the secret or a captured request hold, reading them
//! does not panic; a signature is accepted for exactly the text that was signed with that secret.
//!
//! Input, in lines: a secret, `webhook-id`, `webhook-timestamp`, `webhook-signature`,
//! `X-Leicbit-Signature`, and the body up to a line `--`, behind which another body may stand.
#![no_main]

use carillon::cli::verify::captured::Captured;
use carillon::domain::signature::{
    Secret, Secrets, SignatureFault, SignedHeaders, SigningKeys, VerificationKey,
};
use carillon::domain::subscription::Signing;
use carillon::domain::timestamp::UnixMillis;
use libfuzzer_sys::fuzz_target;

const NOW: UnixMillis = UnixMillis(1_772_368_200_000);
const TOLERANCE_S: u64 = 300;
const NO_MATCH: Result<(), SignatureFault> = Err(SignatureFault::NoMatch);

/// What an input says of a request.
struct Request<'a> {
    id: &'a str,
    timestamp: &'a str,
    standard: &'a str,
    leicbit: &'a str,
    body: &'a str,
    other_body: &'a str,
}

fuzz_target!(|text: &str| {
    read_captured(text);
    let mut lines = text.splitn(6, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let secret = line();
    let (id, timestamp, standard, leicbit) = (line(), line(), line(), line());
    let rest = line();
    let (body, other_body) = rest.split_once("\n--\n").unwrap_or((rest, ""));
    let request = Request {
        id,
        timestamp,
        standard,
        leicbit,
        body,
        other_body,
    };
    let key = VerificationKey::parse(secret);
    if let Some(VerificationKey::Public(_)) = &key {
        // Nobody here has the private key; reading must not panic.
        let _ = check_standard(key.as_ref().expect("just seen"), &request, body, u64::MAX);
    }
    let secret = match key {
        Some(VerificationKey::Secret(secret)) => secret,
        _ => Secret::new([7; 32]),
    };
    shown_reads_back(&secret);
    only_the_signer_is_accepted(&secret, &request);
    only_what_was_signed_is_accepted(&secret, &request);
    // Ed25519 is slow: for one input in sixteen.
    if body.len() % 16 == 1 {
        only_what_the_pair_signed_is_accepted(&secret, &request);
    }
});

fn headers<'a>(id: &'a str, timestamp: &'a str, signature: &'a str) -> SignedHeaders<'a> {
    SignedHeaders {
        id: Some(id),
        timestamp: Some(timestamp),
        signature: Some(signature),
        leicbit: None,
    }
}

fn check_standard(
    key: &VerificationKey,
    request: &Request<'_>,
    body: &str,
    tolerance: u64,
) -> Result<(), SignatureFault> {
    let headers = headers(request.id, request.timestamp, request.standard);
    key.verify_standard(&headers, body.as_bytes(), NOW, tolerance)
}

fn shown_reads_back(secret: &Secret) {
    for shown in [secret.to_hex(), secret.to_whsec()] {
        let back = Secret::parse(&shown).expect("what is shown can be read");
        assert_eq!(back.bytes(), secret.bytes());
    }
}

/// The input's own headers: accepted only with the signature that the secret makes.
fn only_the_signer_is_accepted(secret: &Secret, request: &Request<'_>) {
    let key = VerificationKey::Secret(secret.clone());
    let signer = SigningKeys::new(&Secrets::only(secret.clone()), Signing::HmacSha256);
    if check_standard(&key, request, request.body, u64::MAX).is_ok() {
        let at = at(request.timestamp);
        let signature = signer.standard(request.id, at, request.body.as_bytes());
        let mut given = request.standard.split(' ');
        assert!(given.any(|given| given == signature), "{signature}");
    }
    let accepted = key.verify_leicbit(request.leicbit, request.body.as_bytes(), NOW, u64::MAX);
    if accepted.is_ok() {
        let (timestamp, given) = request.leicbit.split_once(',').expect("two parts");
        let timestamp = timestamp.trim().strip_prefix("t=").expect("a time");
        let signature = signer.leicbit(at(timestamp), request.body.as_bytes());
        let (_, signature) = signature.split_once(',').expect("two parts");
        let mut given = given.split(',').map(str::trim);
        assert!(
            given.any(|given| given.eq_ignore_ascii_case(signature)),
            "{signature}"
        );
    }
}

fn at(timestamp: &str) -> UnixMillis {
    let seconds: i64 = timestamp.parse().expect("accepted, so a number");
    UnixMillis(seconds.saturating_mul(1000))
}

/// A request that was signed: accepted as it is, among any other signatures; and not with another
/// body, another id or another secret.
fn only_what_was_signed_is_accepted(secret: &Secret, request: &Request<'_>) {
    let Request {
        id,
        body,
        other_body,
        ..
    } = *request;
    let key = VerificationKey::Secret(secret.clone());
    let signer = SigningKeys::new(&Secrets::only(secret.clone()), Signing::HmacSha256);
    let (signature, leicbit) = (
        signer.standard(id, NOW, body.as_bytes()),
        signer.leicbit(NOW, body.as_bytes()),
    );
    let timestamp = NOW.seconds().to_string();
    let among = format!("{} {signature} {}", request.standard, request.standard);
    let leicbit_among = format!("{leicbit},{}", request.leicbit);
    let standard = |key: &VerificationKey, id: &str, signature: &str, body: &str| {
        let headers = headers(id, &timestamp, signature);
        key.verify_standard(&headers, body.as_bytes(), NOW, TOLERANCE_S)
    };
    let leicbit_of = |key: &VerificationKey, header: &str, body: &str| {
        key.verify_leicbit(header, body.as_bytes(), NOW, TOLERANCE_S)
    };
    for (signature, leicbit) in [(&signature, &leicbit), (&among, &leicbit_among)] {
        assert_eq!(standard(&key, id, signature, body), Ok(()));
        assert_eq!(leicbit_of(&key, leicbit, body), Ok(()));
    }
    if other_body != body {
        assert_eq!(standard(&key, id, &signature, other_body), NO_MATCH);
        assert_eq!(leicbit_of(&key, &leicbit, other_body), NO_MATCH);
    }
    assert_eq!(
        standard(&key, &format!("{id}x"), &signature, body),
        NO_MATCH
    );
    let mut bytes = *secret.bytes();
    bytes[body.len() % 32] ^= 1;
    let other_key = VerificationKey::Secret(Secret::new(bytes));
    assert_eq!(standard(&other_key, id, &signature, body), NO_MATCH);
    assert_eq!(leicbit_of(&other_key, &leicbit, body), NO_MATCH);
    // The input's timestamp instead: accepted only if that is the text that was signed.
    let moved = headers(id, request.timestamp, &signature);
    let accepted = key.verify_standard(&moved, body.as_bytes(), NOW, u64::MAX);
    assert_eq!(accepted.is_ok(), request.timestamp == timestamp);
}

fn only_what_the_pair_signed_is_accepted(secret: &Secret, request: &Request<'_>) {
    let Request {
        id,
        body,
        other_body,
        ..
    } = *request;
    let signer = SigningKeys::new(&Secrets::only(secret.clone()), Signing::Ed25519);
    let key = VerificationKey::parse(&secret.public_key()).expect("a public key");
    let signature = signer.standard(id, NOW, body.as_bytes());
    let timestamp = NOW.seconds().to_string();
    let headers = headers(id, &timestamp, &signature);
    let verified = |body: &str| key.verify_standard(&headers, body.as_bytes(), NOW, TOLERANCE_S);
    assert_eq!(verified(body), Ok(()));
    if other_body != body {
        assert_eq!(verified(other_body), NO_MATCH);
    }
}

/// A captured request: what is read, written out again, is read as the same.
fn read_captured(text: &str) {
    let Ok(captured) = Captured::parse(text.as_bytes()) else {
        return;
    };
    let mut again = b"POST / HTTP/1.1\r\n".to_vec();
    for (name, value) in &captured.headers {
        again.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    again.extend_from_slice(b"\r\n");
    again.extend_from_slice(&captured.body);
    assert_eq!(Captured::parse(&again).as_ref(), Ok(&captured));
}
