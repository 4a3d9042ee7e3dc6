//! Verifies the signatures of Carillon's webhooks, in both formats.
//!
//! verify standard|leicbit SECRET [NOW] < captured.json
//!
//! Needs the crates base64, ed25519-dalek 3 (`v1a` alone), hex, hmac 0.13, sha2 0.11, subtle;
//! and serde_json for the command line.

use std::collections::HashMap;
use std::io::Read as _;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// Seconds. An older request may be one that somebody sends again.
const TOLERANCE: u64 = 5 * 60;

const USAGE: &str = "verify standard|leicbit SECRET [NOW] < captured.json";

/// Names in lower case.
type Headers = HashMap<String, String>;

/// Takes `whsec_…` or `whpk_…`, the headers and the raw body; says why a request is refused.
pub fn verify_standard(
    secret: &str,
    headers: &Headers,
    body: &[u8],
    now: u64,
) -> Result<(), String> {
    let (key, is_public) = standard_key(secret).ok_or("malformed secret")?;
    let id = header(headers, "webhook-id")?;
    let timestamp = header(headers, "webhook-timestamp")?;
    let mut signatures = header(headers, "webhook-signature")?.split(' ');
    check_timestamp("webhook-timestamp", timestamp, now)?;
    let content = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
    let fits = if is_public {
        let key = VerifyingKey::from_bytes(&key).map_err(|_| "malformed secret")?;
        signatures.any(|signature| fits_ed25519(&key, &content, signature))
    } else {
        let expected = format!("v1,{}", BASE64.encode(digest(&key, &content)?));
        contains(signatures, &expected)
    };
    fits.then_some(()).ok_or("no signature matches".into())
}

/// Takes the secret in hex, the headers and the raw body; says why a request is refused.
pub fn verify_leicbit(
    secret: &str,
    headers: &Headers,
    body: &[u8],
    now: u64,
) -> Result<(), String> {
    let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if secret.len() != 64 || !secret.bytes().all(is_hex) {
        return Err("malformed secret".into());
    }
    let mut parts = header(headers, "x-leicbit-signature")?.split(',');
    let first = parts.next().unwrap_or_default();
    let timestamp = first
        .strip_prefix("t=")
        .ok_or("malformed header x-leicbit-signature")?;
    check_timestamp("x-leicbit-signature", timestamp, now)?;
    // The key is the hex text itself, not the bytes that it stands for.
    let digest = digest(secret.as_bytes(), &[timestamp.as_bytes(), body].concat())?;
    let expected = format!("v1={}", hex::encode(digest));
    let fits = contains(parts, &expected);
    fits.then_some(()).ok_or("no signature matches".into())
}

/// The 32 bytes of a secret, and whether they are a public key.
///
/// An empty key, of a setting that is missing, is one that everybody has.
fn standard_key(secret: &str) -> Option<([u8; 32], bool)> {
    let public = secret.strip_prefix("whpk_");
    let text = public.or_else(|| secret.strip_prefix("whsec_"))?;
    let key = BASE64.decode(text).ok()?.try_into().ok()?;
    Some((key, public.is_some()))
}

fn header<'a>(headers: &'a Headers, name: &str) -> Result<&'a str, String> {
    let value = headers.get(name).filter(|value| !value.is_empty());
    value
        .map(String::as_str)
        .ok_or(format!("missing header {name}"))
}

fn check_timestamp(name: &str, timestamp: &str, now: u64) -> Result<(), String> {
    let digits = timestamp.bytes().all(|b| b.is_ascii_digit());
    let at = timestamp
        .parse::<u64>()
        .ok()
        .filter(|_| digits && timestamp.len() <= 12)
        .ok_or(format!("malformed header {name}"))?;
    if now.abs_diff(at) > TOLERANCE {
        return Err("timestamp outside tolerance".into());
    }
    Ok(())
}

fn digest(key: &[u8], content: &[u8]) -> Result<[u8; 32], String> {
    let mac = Hmac::<Sha256>::new_from_slice(key).map_err(|_| "malformed secret")?;
    Ok(mac.chain_update(content).finalize().into_bytes().into())
}

/// Whether one of them is `expected`, in a time that does not tell how much of it fits.
fn contains<'a>(mut signatures: impl Iterator<Item = &'a str>, expected: &str) -> bool {
    signatures.any(|given| given.as_bytes().ct_eq(expected.as_bytes()).into())
}

fn fits_ed25519(key: &VerifyingKey, content: &[u8], signature: &str) -> bool {
    let given = signature
        .strip_prefix("v1a,")
        .and_then(|text| BASE64.decode(text).ok())
        .and_then(|bytes| Signature::from_slice(&bytes).ok());
    given.is_some_and(|given| key.verify(content, &given).is_ok())
}

/// What the command line does: the arguments, what came on standard input, and the clock.
/// Says with which code to end, and why.
pub fn run(arguments: &[&str], input: &[u8], clock: u64) -> Result<(), (u8, String)> {
    let usage = || (2, USAGE.to_owned());
    let (format, secret, now) = match arguments {
        [format, secret] => (*format, *secret, clock),
        [format, secret, now] => (*format, *secret, now.parse().map_err(|_| usage())?),
        _ => return Err(usage()),
    };
    let verify = match format {
        "standard" => verify_standard,
        "leicbit" => verify_leicbit,
        _ => return Err(usage()),
    };
    let (headers, body) = captured(input).ok_or((1, "not a captured request".to_owned()))?;
    verify(secret, &headers, &body, now).map_err(|reason| (1, reason))
}

fn captured(input: &[u8]) -> Option<(Headers, Vec<u8>)> {
    let captured: serde_json::Value = serde_json::from_slice(input).ok()?;
    let headers = captured.get("headers")?.as_object()?;
    let text = |(name, value): (&String, &serde_json::Value)| {
        Some((name.to_ascii_lowercase(), value.as_str()?.to_owned()))
    };
    let body = captured.get("body")?.as_str()?.as_bytes().to_vec();
    Some((headers.iter().filter_map(text).collect(), body))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let clock = SystemTime::now().duration_since(UNIX_EPOCH);
    let clock = clock.map_or(0, |since| since.as_secs());
    let mut input = Vec::new();
    if let Err(error) = std::io::stdin().read_to_end(&mut input) {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    match run(&arguments, &input, clock) {
        Ok(()) => {
            println!("valid");
            ExitCode::SUCCESS
        }
        Err((code, reason)) => {
            eprintln!("{reason}");
            ExitCode::from(code)
        }
    }
}
