//! Who is asking: bearer tokens (RFC 6750).
//!
//! The admin token sees and changes everything. Without one configured, whoever can
//! connect is the admin, and the listener is on loopback only (`config` sees to that).

use axum::extract::FromRequestParts;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http::request::Parts;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use super::Api;
use super::problem::Problem;

/// The admin token, as a digest: its length does not show in the time a check takes.
pub struct AdminToken([u8; 32]);

impl AdminToken {
    /// Takes over the token's text.
    pub fn new(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    fn is(&self, token: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        self.0.ct_eq(&given).into()
    }
}

/// Proof that the caller may do everything.
pub struct Admin(());

impl FromRequestParts<Api> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let Some(admin) = &api.admin_token else {
            return Ok(Self(()));
        };
        let refuse = |detail| Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail);
        let given = parts
            .headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        match given {
            None => Err(refuse("a token is needed: `Authorization: Bearer <token>`")),
            Some(token) if admin.is(token) => Ok(Self(())),
            Some(_) => Err(refuse("the token is not valid")),
        }
    }
}
