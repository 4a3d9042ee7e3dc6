//! Tenant tokens: who may see and change what belongs to one tenant, and until when.
//!
//! `ct_<payload>.<tag>`, both base64url without padding (RFC 4648 section 5): the payload is
//! JSON `{"tenant", "expires_at"}` with Unix seconds, the tag HMAC-SHA256 (RFC 2104) over all
//! before the dot. The key is derived from the admin token: every replica accepts what one has
//! made, nothing has to be stored, and another admin token ends them all.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use pbkdf2::pbkdf2;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::domain::id::TenantId;
use crate::domain::signature::{HmacSha256, hmac_keyed, hmac_of};
use crate::domain::timestamp::UnixMillis;

/// What every tenant token begins with.
pub const PREFIX: &str = "ct_";
/// What every session of the admin begins with.
const SESSION_PREFIX: &str = "cs_";
/// Rounds of the derivation: what each guess costs.
const ROUNDS: u32 = 100_000;
/// Longest token that is looked at: the longest tenant, escaped, and its frame are far shorter.
const BYTES_MAX: usize = 2048;

/// The key under which tenant tokens are made.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct TokenKey([u8; 32]);

/// A token as it was read.
#[derive(Debug, PartialEq, Eq)]
pub struct TenantToken {
    /// Whose things it opens.
    pub tenant: TenantId,
    /// It opens nothing from then on.
    pub expires_at: UnixMillis,
}

#[derive(Serialize, Deserialize)]
struct Payload<'a> {
    tenant: std::borrow::Cow<'a, str>,
    expires_at: i64,
}

impl TokenKey {
    /// The key that goes with this admin token: PBKDF2 (RFC 8018 section 5.2), as whoever has a
    /// tenant token could try admin tokens against it, as fast as that goes. Takes some hundredths
    /// of a second.
    pub fn of_admin_token(token: &str) -> Self {
        let mut key = [0; 32];
        let salt = b"carillon.tenant-token.v1";
        // HMAC takes keys of every length, so this does not fail.
        let _ = pbkdf2::<HmacSha256>(token.as_bytes(), salt, ROUNDS, &mut key);
        Self(key)
    }

    /// A key of its own, from random bytes: where there is no admin token.
    pub fn random(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The token's text.
    pub fn write(&self, token: &TenantToken) -> Zeroizing<String> {
        let payload = Payload {
            tenant: token.tenant.as_str().into(),
            expires_at: token.expires_at.seconds(),
        };
        // A struct of a text and a number is always JSON.
        self.seal(PREFIX, &serde_json::to_vec(&payload).unwrap_or_default())
    }

    /// Reads a token that this key made, expired or not; `None` for anything else.
    pub fn read(&self, text: &str) -> Option<TenantToken> {
        let payload = self.open(PREFIX, text)?;
        let payload: Payload<'_> = serde_json::from_slice(&payload).ok()?;
        Some(TenantToken {
            tenant: TenantId::parse(&payload.tenant).ok()?,
            expires_at: UnixMillis(payload.expires_at.checked_mul(1000)?),
        })
    }

    /// The text of a session of the admin: `cs_<payload>.<tag>`, the payload Unix seconds.
    pub fn write_session(&self, expires_at: UnixMillis) -> Zeroizing<String> {
        self.seal(SESSION_PREFIX, expires_at.seconds().to_string().as_bytes())
    }

    /// Until when this session is the admin's; `None` when this key did not make it.
    pub fn read_session(&self, text: &str) -> Option<UnixMillis> {
        let payload = self.open(SESSION_PREFIX, text)?;
        let seconds: i64 = std::str::from_utf8(&payload).ok()?.parse().ok()?;
        Some(UnixMillis(seconds.checked_mul(1000)?))
    }

    fn seal(&self, prefix: &str, payload: &[u8]) -> Zeroizing<String> {
        let mut text = format!("{prefix}{}", BASE64URL.encode(payload));
        let tag = BASE64URL.encode(tag(&self.0, &text));
        text.push('.');
        text.push_str(&tag);
        Zeroizing::new(text)
    }

    /// The payload. The tag is compared in constant time, before anything is decoded.
    fn open(&self, prefix: &str, text: &str) -> Option<Vec<u8>> {
        if text.len() > BYTES_MAX {
            return None;
        }
        let (signed, given) = text.split_once('.')?;
        let payload = signed.strip_prefix(prefix)?;
        let given = BASE64URL.decode(given).ok()?;
        if !bool::from(tag(&self.0, signed).ct_eq(&given)) {
            return None;
        }
        BASE64URL.decode(payload).ok()
    }
}

fn tag(key: &[u8], text: &str) -> [u8; 32] {
    hmac_of(&hmac_keyed(key), &[text.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> TenantToken {
        TenantToken {
            tenant: TenantId::parse("acme/\"eu\"").unwrap(),
            expires_at: UnixMillis(1_772_368_200_000),
        }
    }

    #[test]
    fn comes_back_as_it_was_made_under_the_same_admin_token_alone() {
        let key = TokenKey::of_admin_token("one");
        let text = key.write(&token());
        assert_eq!(key.read(&text), Some(token()));
        assert_eq!(
            TokenKey::of_admin_token("one").read(&text),
            Some(token()),
            "another replica"
        );
        assert_eq!(TokenKey::of_admin_token("two").read(&text), None);
        assert_eq!(TokenKey::random([0; 32]).read(&text), None);
    }

    #[test]
    fn a_session_is_no_token_and_a_token_no_session() {
        let key = TokenKey::of_admin_token("one");
        let session = key.write_session(UnixMillis(1_772_368_200_000));
        let read = key.read_session(&session);
        assert_eq!(read, Some(UnixMillis(1_772_368_200_000)));
        assert_eq!(TokenKey::of_admin_token("two").read_session(&session), None);
        assert_eq!(key.read(&session), None);
        assert_eq!(key.read_session(&key.write(&token())), None);
        assert_eq!(key.read(&session.replace("cs_", "ct_")), None);
    }

    /// Made with another implementation: Python's `hashlib`, `hmac`, `json` and `base64`.
    #[test]
    fn is_what_the_format_says() {
        let key = TokenKey::of_admin_token("correct-horse");
        let token = TenantToken {
            tenant: TenantId::parse("acme").unwrap(),
            expires_at: UnixMillis(1_772_368_200_000),
        };
        let expected = "ct_eyJ0ZW5hbnQiOiJhY21lIiwiZXhwaXJlc19hdCI6MTc3MjM2ODIwMH0.MO3N3mhJaS5rV3U73UeaZQnquZvoNZpOqTglJXnRwck";
        assert_eq!(*key.write(&token), expected);
    }

    #[test]
    fn no_changed_character_is_accepted() {
        let key = TokenKey::of_admin_token("one");
        let text = key.write(&token());
        for at in 0..text.len() {
            for other in [b'A', b'b', b'_', b'.', b'='] {
                let mut changed = text.as_bytes().to_vec();
                if changed[at] == other {
                    continue;
                }
                changed[at] = other;
                let changed = String::from_utf8(changed).unwrap();
                assert_eq!(key.read(&changed), None, "{changed}");
            }
            assert_eq!(key.read(&text[..at]), None, "cut at {at}");
        }
        assert_eq!(key.read(&format!("{}x", *text)), None);
    }

    #[test]
    fn what_is_no_token_is_none() {
        let key = TokenKey::random([1; 32]);
        let huge = "a".repeat(BYTES_MAX);
        for text in ["", "ct_", "ct_.", "ct_e30.", ".", "ct_\u{e4}.x", &huge] {
            assert_eq!(key.read(text), None, "{text:?}");
        }
        // Well signed, and still nothing that this program makes.
        for payload in [
            &b"{}"[..],
            b"",
            b"{\"tenant\":\"\",\"expires_at\":1}",
            b"null",
        ] {
            let signed = format!("{PREFIX}{}", BASE64URL.encode(payload));
            let tag = BASE64URL.encode(tag(&key.0, &signed));
            assert_eq!(key.read(&format!("{signed}.{tag}")), None);
        }
    }
}
