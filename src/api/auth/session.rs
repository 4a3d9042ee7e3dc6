//! Who looks at the console: a cookie that holds a tenant token or, for the admin, a session
//! made under the same key, so that the admin token itself is kept in no browser.
//!
//! A cookie comes with what other sites have a browser send, too: it counts for the console
//! alone, never for the API, and nothing is changed for a page of another origin.

use std::net::IpAddr;
use std::time::Duration;

use http::header::{COOKIE, HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

use super::{Caller, Gate, Knock, check_origin, limited, peer_of, unauthorized};
use crate::api::problem::{Code, Problem};
use crate::codec::tenant_token;
use crate::domain::timestamp::UnixMillis;

/// The cookie's name.
const NAME: &str = "carillon_session";
/// The same where it is known that the visitor's connection is TLS: nobody else can have set a
/// cookie of this name (RFC 6265bis section 4.1.3.2).
const NAME_BY_TLS: &str = "__Host-carillon_session";
/// The same in a frame: it is sent there alone, and counts before the other.
const NAME_IN_FRAME: &str = "__Host-carillon_frame";
/// How long the admin stays signed in.
const ADMIN_FOR: Duration = Duration::from_secs(12 * 3600);

/// What a browser keeps of someone who signed in.
pub struct Session {
    /// The cookie's value.
    pub value: zeroize::Zeroizing<String>,
    /// It is worth nothing from then on.
    pub expires_at: UnixMillis,
}

impl Gate {
    /// Whether everyone who can connect is the admin.
    pub fn is_open(&self) -> bool {
        self.admin.is_none()
    }

    /// Signs in whoever has this token.
    ///
    /// # Errors
    /// [`Problem`]: 401 for a token that is not valid (any more), 429 after too many of them.
    pub fn sign_in(&self, token: &str, peer: IpAddr, now: UnixMillis) -> Result<Session, Problem> {
        if token.starts_with(tenant_token::PREFIX) {
            self.tenant(token, now)?;
            let expires_at = self.key.read(token).map_or(now, |token| token.expires_at);
            return Ok(Session {
                value: token.to_owned().into(),
                expires_at,
            });
        }
        if !self.admin.as_ref().is_some_and(|admin| admin.is(token)) {
            self.wrong.take(peer).map_err(limited)?;
            return Err(unauthorized("the token is not valid"));
        }
        let expires_at = now.after(ADMIN_FOR);
        Ok(Session {
            value: self.key.write_session(expires_at),
            expires_at,
        })
    }

    /// Who sent a request to the console; `None` when nobody is signed in.
    ///
    /// # Errors
    /// [`Problem`]: 403 when a page of another origin has the browser change something, and for
    /// what does not come from this machine where no token is needed.
    pub fn visitor(&self, parts: &Parts, now: UnixMillis) -> Result<Option<Caller>, Problem> {
        if !parts.method.is_safe() {
            check_same_origin(&parts.headers)?;
        }
        if self.is_open() {
            check_origin(&Knock {
                method: &parts.method,
                uri: &parts.uri,
                headers: &parts.headers,
                peer: peer_of(&parts.extensions),
            })?;
        }
        Ok(self.looks(&parts.headers, now))
    }

    /// Who looks at the console, as the cookie says; `None` when nobody is signed in.
    pub fn looks(&self, headers: &HeaderMap, now: UnixMillis) -> Option<Caller> {
        let of_cookie = cookie(headers).and_then(|value| self.holder(value, now));
        of_cookie.or_else(|| self.is_open().then_some(Caller::Admin))
    }

    /// Whose cookie this is; nobody's when it is not valid any more.
    fn holder(&self, value: &str, now: UnixMillis) -> Option<Caller> {
        if value.starts_with(tenant_token::PREFIX) {
            return self.tenant(value, now).ok().map(Caller::Tenant);
        }
        let expires_at = self.key.read_session(value)?;
        (now < expires_at).then_some(Caller::Admin)
    }
}

/// What a browser is told to keep (RFC 6265 section 4.1): sent to this site alone and hidden from
/// script. In a frame of another site's page it is kept by that site and this together (CHIPS).
pub fn keep(headers: &HeaderMap, value: &str, seconds: u64, in_frame: bool) -> String {
    let origin = headers.get(ORIGIN).map(HeaderValue::as_bytes);
    let is_secure = is_tls(headers) || origin.is_some_and(|origin| origin.starts_with(b"https://"));
    let scope = match (is_secure, in_frame) {
        (true, true) => "SameSite=None; Secure; Partitioned",
        (true, false) => "SameSite=Lax; Secure",
        (false, _) => "SameSite=Lax",
    };
    let name = match (is_tls(headers), in_frame) {
        (true, true) => NAME_IN_FRAME,
        (true, false) => NAME_BY_TLS,
        (false, _) => NAME,
    };
    format!("{name}={value}; Path=/; HttpOnly; Max-Age={seconds}; {scope}")
}

/// The value of the cookie (RFC 6265 section 5.4).
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let names: &[&str] = match is_tls(headers) {
        true => &[NAME_IN_FRAME, NAME_BY_TLS],
        false => &[NAME],
    };
    let lines = || {
        headers
            .get_all(COOKIE)
            .iter()
            .filter_map(|line| line.to_str().ok())
    };
    names.iter().find_map(|name| {
        let mut pairs = lines().flat_map(|line| line.split(';'));
        pairs.find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
    })
}

/// Whether a proxy says that the visitor came by TLS: the first of several, if there are.
fn is_tls(headers: &HeaderMap) -> bool {
    let forwarded = headers.get("x-forwarded-proto");
    let first = forwarded.and_then(|proto| proto.to_str().ok()?.split(',').next());
    first.is_some_and(|proto| proto.trim().eq_ignore_ascii_case("https"))
}

/// Browsers say of what they send whether the page is of the same origin (Fetch Metadata), and
/// of what changes something which origin it is of (RFC 6454 section 7.3).
///
/// # Errors
/// [`Problem`]: 403 for what a page of another origin had a browser send.
pub fn check_same_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_same = match (text("sec-fetch-site"), text(ORIGIN.as_str())) {
        (Some(site), _) => site == "same-origin" || site == "none",
        (None, Some(origin)) => origin
            .split_once("://")
            .is_some_and(|(_, authority)| Some(authority) == text(HOST.as_str())),
        (None, None) => false,
    };
    if is_same {
        return Ok(());
    }
    let detail = "the console changes nothing for a page of another origin, nor for a request \
                  that says of none; programs use the API";
    Err(Problem::new(Code::CrossOrigin, detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tenant_token::TenantToken;
    use crate::domain::id::TenantId;

    const NOW: UnixMillis = UnixMillis(1_772_368_200_000);
    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn visitor(gate: &Gate, method: &str, headers: &[(&str, &str)]) -> Result<Option<Caller>, u16> {
        let mut request = http::Request::builder().method(method).uri("/attempts");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let found = gate.visitor(&parts, NOW);
        found.map_err(|problem| problem.status().as_u16())
    }

    fn session(gate: &Gate, token: &str) -> String {
        let session = gate.sign_in(token, HOME, NOW).unwrap();
        assert!(session.expires_at > NOW);
        format!("other=1; {NAME}={}; more=2", *session.value)
    }

    #[test]
    fn a_cookie_says_who_it_is() {
        let gate = Gate::new(Some("correct-horse"), [0; 32]);
        let acme = TenantId::parse("acme").unwrap();
        let token = gate.write(&TenantToken {
            tenant: acme.clone(),
            expires_at: NOW.after(Duration::from_secs(60)),
        });
        let (admin, tenant) = (session(&gate, "correct-horse"), session(&gate, &token));
        assert!(!admin.contains("correct-horse"));
        for (cookie, expected) in [
            (admin.as_str(), Some(Caller::Admin)),
            (&tenant, Some(Caller::Tenant(acme))),
            ("carillon_session=correct-horse", None),
            ("carillon_session=cs_x.y", None),
            ("carillon_sessions=1", None),
            ("", None),
        ] {
            let found = visitor(&gate, "GET", &[("cookie", cookie)]);
            assert_eq!(found, Ok(expected), "{cookie}");
        }
        let other = Gate::new(Some("another"), [0; 32]);
        assert_eq!(visitor(&other, "GET", &[("cookie", &admin)]), Ok(None));
        let late = NOW.after(ADMIN_FOR);
        assert_eq!(gate.holder(&gate.key.write_session(late), late), None);
    }

    #[test]
    fn by_tls_another_cookie_counts() {
        let gate = Gate::new(Some("correct-horse"), [0; 32]);
        let value = gate.sign_in("correct-horse", HOME, NOW).unwrap().value;
        for (plain, proto, in_frame, expected) in [
            (true, "http", true, "SameSite=Lax"),
            (false, "https", false, "SameSite=Lax; Secure"),
            (
                false,
                "HTTPS, http",
                true,
                "SameSite=None; Secure; Partitioned",
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-proto", proto.parse().unwrap());
            let kept = keep(&headers, &value, 60, in_frame);
            assert!(
                kept.ends_with(&format!("; HttpOnly; Max-Age=60; {expected}")),
                "{kept}"
            );
            assert_eq!(kept.starts_with("__Host-"), !plain);
            headers.insert(COOKIE, kept.split(';').next().unwrap().parse().unwrap());
            assert_eq!(gate.looks(&headers, NOW), Some(Caller::Admin));
            let other = if plain { "https" } else { "http" };
            headers.insert("x-forwarded-proto", other.parse().unwrap());
            assert_eq!(gate.looks(&headers, NOW), None, "{kept}");
        }
        // In a frame, whoever is signed in there counts.
        let acme = TenantId::parse("acme").unwrap();
        let framed = gate.write(&TenantToken {
            tenant: acme.clone(),
            expires_at: NOW.after(Duration::from_secs(60)),
        });
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-proto", "https".parse().unwrap());
        let both = format!("{NAME_BY_TLS}={}; {NAME_IN_FRAME}={}", *value, *framed);
        headers.insert(COOKIE, both.parse().unwrap());
        assert_eq!(gate.looks(&headers, NOW), Some(Caller::Tenant(acme)));
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, "https://c.example".parse().unwrap());
        assert!(keep(&headers, "x", 60, false).ends_with("; Secure"));
    }

    #[test]
    fn a_wrong_token_is_refused_and_counted() {
        let gate = Gate::new(Some("correct-horse"), [0; 32]);
        let mut refused = (0..1000).map(|_| {
            let refused = gate.sign_in("wrong", HOME, NOW);
            refused.map(|_| ()).unwrap_err().status().as_u16()
        });
        assert_eq!(refused.next(), Some(401));
        assert!(refused.any(|status| status == 429));
        assert!(gate.sign_in("correct-horse", HOME, NOW).is_ok());
    }

    #[test]
    fn nothing_is_changed_for_another_origin() {
        let gate = Gate::new(Some("correct-horse"), [0; 32]);
        let cookie = session(&gate, "correct-horse");
        for (headers, allowed) in [
            (&[("sec-fetch-site", "same-origin")][..], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (
                &[("origin", "https://c.example"), ("host", "c.example")],
                true,
            ),
            (
                &[("origin", "https://d.example"), ("host", "c.example")],
                false,
            ),
            (&[("origin", "null"), ("host", "c.example")], false),
            (&[], false),
        ] {
            let mut all = headers.to_vec();
            all.push(("cookie", &cookie));
            let found = visitor(&gate, "POST", &all);
            let expected = allowed.then_some(Some(Caller::Admin)).ok_or(403);
            assert_eq!(found, expected, "{headers:?}");
            assert_eq!(visitor(&gate, "GET", &all), Ok(Some(Caller::Admin)));
        }
    }

    #[test]
    fn without_an_admin_token_only_this_machine_looks() {
        let gate = Gate::new(None, [0; 32]);
        let own = [("host", "127.0.0.1:8080")];
        assert_eq!(visitor(&gate, "GET", &own), Ok(Some(Caller::Admin)));
        let rebound = [("host", "evil.example")];
        assert_eq!(visitor(&gate, "GET", &rebound), Err(403));
    }
}
