//! Who is asking, and what that lets them do: bearer tokens (RFC 6750).
//!
//! The admin token sees and changes everything, a tenant token what belongs to its tenant.
//! Without an admin token configured, whoever can connect is the admin: the listener is on
//! loopback only then (`config` sees to that), and what a web page of another origin has a
//! browser send is refused.
//!
//! *Invariant: no handler runs before [`authenticate`] has said who is asking*, but for those that
//! answer anyone the same; the route table puts it in front of each.

pub mod session;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, Method, Uri};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use super::Api;
use super::limits::{Limited, TenantRates, UnderWay, WrongTokens};
use super::problem::{Code, Problem};
use crate::codec::tenant_token::{self, TenantToken, TokenKey};
use crate::domain::id::TenantId;
use crate::domain::subscription::Scope;
use crate::domain::timestamp::UnixMillis;

/// Whoever sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// May do everything.
    Admin,
    /// Sees and changes what belongs to this tenant; nothing else is there for it.
    Tenant(TenantId),
}

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever can connect, with a token or without: there is nothing of anybody's.
    Anyone,
    /// The admin alone.
    Admin,
    /// Tenants too; the handler sees to it that they reach their own things only.
    Tenants,
}

/// What tells callers apart.
pub struct Gate {
    admin: Option<AdminToken>,
    key: TokenKey,
    wrong: WrongTokens,
    rates: TenantRates,
}

/// The admin token, as a digest: its length does not show in the time a check takes.
struct AdminToken([u8; 32]);

/// Put on a request that this process sends to itself, for a caller that was let in before.
#[derive(Clone, Debug)]
pub(super) struct Inside(pub Caller);

/// What of a request is looked at here.
struct Knock<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    peer: IpAddr,
}

impl Caller {
    /// The tenant to whom everything that is looked up has to belong, unless it is the admin.
    pub fn owner(&self) -> Option<TenantId> {
        match self {
            Self::Admin => None,
            Self::Tenant(tenant) => Some(tenant.clone()),
        }
    }

    /// Whether there is such a thing for the caller as one of `scope`.
    pub fn sees(&self, scope: &Scope) -> bool {
        match (self, scope) {
            (Self::Admin, _) => true,
            (Self::Tenant(_), Scope::Every) => false,
            (Self::Tenant(own), Scope::One(tenant)) => own == tenant,
        }
    }

    /// Refuses to write what would belong to `scope`, unless that is the caller's.
    ///
    /// # Errors
    /// [`Problem`]: 403, the same whether there is such a tenant or not.
    pub fn check(&self, scope: &Scope) -> Result<(), Problem> {
        match self {
            Self::Tenant(own) if !self.sees(scope) => Err(forbidden(format!(
                "this token is for the tenant {own} alone"
            ))),
            _ => Ok(()),
        }
    }
}

impl Access {
    /// Lets `caller` through who may call the route.
    fn check(self, caller: Caller) -> Result<Caller, Problem> {
        match (&caller, self) {
            (Caller::Tenant(_), Self::Admin) => Err(forbidden(
                "this is for the admin token alone, and the token is a tenant's".to_owned(),
            )),
            _ => Ok(caller),
        }
    }
}

/// Who is asking, as [`authenticate`] found out.
impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Self>();
        caller.cloned().ok_or_else(Problem::internal)
    }
}

/// Finds out who is asking, and lets those through who may call the route.
pub async fn authenticate(
    State((api, access)): State<(Api, Access)>,
    mut request: Request,
    next: Next,
) -> Response {
    if access == Access::Anyone {
        return next.run(request).await;
    }
    let admitted = match request.extensions().get::<Inside>() {
        // Whoever was let in before has taken the request then.
        Some(Inside(caller)) => access.check(caller.clone()).map(|caller| (None, caller)),
        None => {
            let knock = Knock {
                method: request.method(),
                uri: request.uri(),
                headers: request.headers(),
                peer: peer_of(request.extensions()),
            };
            let admitted = api.gate.admit(&knock, access, api.ports.clock.now());
            admitted.and_then(|caller| Ok((api.gate.take(&caller)?, caller)))
        }
    };
    match admitted {
        Ok((_under_way, caller)) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// Where a request comes from.
pub(super) fn peer_of(extensions: &http::Extensions) -> IpAddr {
    let peer = extensions.get::<ConnectInfo<SocketAddr>>();
    peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.0.ip())
}

impl Gate {
    /// A gate for this admin token. Without one, tenant tokens are made under a key of random
    /// bytes, and end with the process.
    pub fn new(admin_token: Option<&str>, random: [u8; 32]) -> Self {
        Self {
            admin: admin_token.map(AdminToken::new),
            key: admin_token.map_or(TokenKey::random(random), TokenKey::of_admin_token),
            wrong: WrongTokens::default(),
            rates: TenantRates::default(),
        }
    }

    /// The text of a tenant token.
    pub fn write(&self, token: &TenantToken) -> zeroize::Zeroizing<String> {
        self.key.write(token)
    }

    fn admit(&self, knock: &Knock<'_>, access: Access, now: UnixMillis) -> Result<Caller, Problem> {
        let caller = match (&self.admin, bearer(knock.headers)) {
            (_, Some(token)) if token.starts_with(tenant_token::PREFIX) => {
                Caller::Tenant(self.tenant(token, now)?)
            }
            (Some(admin), Some(token)) => {
                // The right one passes always: behind a proxy all have one address, and nobody may
                // lock out the others.
                if !admin.is(token) {
                    self.wrong.take(knock.peer).map_err(limited)?;
                    return Err(unauthorized("the token is not valid"));
                }
                Caller::Admin
            }
            (Some(_), None) => {
                let detail = "a token is needed: `Authorization: Bearer <token>`";
                return Err(unauthorized(detail));
            }
            (None, _) => {
                check_origin(knock)?;
                Caller::Admin
            }
        };
        access.check(caller)
    }

    /// Takes a request of the caller, under way as long as what is returned is held.
    ///
    /// # Errors
    /// [`Problem`]: 429 when a tenant asks too fast, or too much at once.
    pub fn take(&self, caller: &Caller) -> Result<Option<UnderWay>, Problem> {
        match caller {
            Caller::Admin => Ok(None),
            Caller::Tenant(tenant) => self.rates.take(tenant).map(Some).map_err(limited),
        }
    }

    fn tenant(&self, token: &str, now: UnixMillis) -> Result<TenantId, Problem> {
        let read = self.key.read(token);
        let token = read.ok_or_else(|| unauthorized("the token is not valid"))?;
        if token.expires_at <= now {
            let detail = format!(
                "the token expired at {}: have another one made",
                token.expires_at
            );
            return Err(Problem::new(Code::TokenExpired, detail));
        }
        Ok(token.tenant)
    }
}

impl AdminToken {
    fn new(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    fn is(&self, token: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        self.0.ct_eq(&given).into()
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (Some(one), None) = (given.next(), given.next()) else {
        // Of two, nobody knows which one is meant.
        return None;
    };
    let (scheme, token) = one.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Where nobody needs a token, a browser must not be what lets a page of another origin in:
/// neither by a request across origins, nor by a name that leads here (DNS rebinding).
fn check_origin(knock: &Knock<'_>) -> Result<(), Problem> {
    let text = |name| {
        knock
            .headers
            .get(name)
            .map(|value| value.to_str().unwrap_or("?"))
    };
    let host = text(HOST).or_else(|| knock.uri.authority().map(http::uri::Authority::as_str));
    let refuse = |what: String| {
        Err(Problem::new(
            Code::CrossOrigin,
            format!(
                "{what}; without `http.admin_token`, only what comes from this machine itself is answered"
            ),
        ))
    };
    if let Some(host) = host.filter(|host| !is_loopback(host)) {
        return refuse(format!(
            "the request is for the host {host}, which is not loopback"
        ));
    }
    if knock.method.is_safe() && !knock.uri.path().starts_with("/v1/") {
        return Ok(());
    }
    if let Some(origin) = text(ORIGIN)
        && origin
            .split_once("://")
            .is_none_or(|(_, authority)| Some(authority) != host)
    {
        return refuse(format!("the request was made by a page of {origin}"));
    }
    let site = knock.headers.get("sec-fetch-site");
    if site.is_some_and(|site| site != "same-origin" && site != "none") {
        return refuse("the request was made by a page of another site".to_owned());
    }
    Ok(())
}

/// Whether a `Host` (RFC 9110 section 7.2) names this machine by its loopback.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let literal = bare.unwrap_or(name).parse::<IpAddr>();
    literal.map_or(name.eq_ignore_ascii_case("localhost"), |ip| {
        ip.is_loopback()
    })
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(Code::Unauthorized, detail)
}

fn forbidden(detail: String) -> Problem {
    Problem::new(Code::Forbidden, detail)
}

fn limited(Limited { what, after }: Limited) -> Problem {
    let detail = format!("{what}: try again in {} s", after.as_secs());
    Problem::new(Code::TooManyRequests, detail).retry_after(after)
}

#[cfg(test)]
mod tests;
