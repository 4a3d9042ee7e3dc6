//! What checking the signatures of a request gives, with several keys.

use http::HeaderMap;

use crate::domain::signature::{SignatureFault, SignedHeaders, VerificationKey};
use crate::domain::timestamp::UnixMillis;

/// What checking the signatures of a request gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// Standard Webhooks; `None` when there was no key to check with.
    pub standard: Option<Result<(), SignatureFault>>,
    /// `X-Leicbit-Signature`; `None` without a key, or when the header is absent.
    pub leicbit: Option<Result<(), SignatureFault>>,
}

impl Verdicts {
    /// Checks a request against each of `keys`; one that fits is enough.
    pub fn check(
        keys: &[VerificationKey],
        headers: &SignedHeaders<'_>,
        body: &[u8],
        now: UnixMillis,
        tolerance_s: u64,
    ) -> Self {
        let standard = any_key(keys, |key| {
            key.verify_standard(headers, body, now, tolerance_s)
        });
        let leicbit = headers.leicbit.and_then(|header| {
            any_key(keys, |key| {
                key.verify_leicbit(header, body, now, tolerance_s)
            })
        });
        Self { standard, leicbit }
    }

    /// Whether every signature that was checked fits; `None` when none was checked.
    pub fn verified(&self) -> Option<bool> {
        let mut checked = self.standard.iter().chain(&self.leicbit).peekable();
        checked.peek()?;
        Some(checked.all(Result::is_ok))
    }
}

/// The verdict of the first key that fits, else of the last one; `None` without keys.
fn any_key(
    keys: &[VerificationKey],
    check: impl Fn(&VerificationKey) -> Result<(), SignatureFault>,
) -> Option<Result<(), SignatureFault>> {
    let mut verdict = None;
    for key in keys {
        let found = check(key);
        if found.is_ok() {
            return Some(found);
        }
        verdict = Some(found);
    }
    verdict
}

/// The signature headers among `headers`.
pub fn signed_headers(headers: &HeaderMap) -> SignedHeaders<'_> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    SignedHeaders {
        id: text("webhook-id"),
        timestamp: text("webhook-timestamp"),
        signature: text("webhook-signature"),
        leicbit: text("x-leicbit-signature"),
    }
}
