//! Who is let in, and who is not: tables over tokens, origins and tenants.

use super::*;

const ADMIN: &str = "correct-horse-battery";
const NOW: UnixMillis = UnixMillis(1_772_368_200_000);

fn gate() -> Gate {
    Gate::new(Some(ADMIN), [0; 32])
}

/// What comes of a request with these headers.
fn admitted(
    gate: &Gate,
    method: &Method,
    headers: &[(&str, &str)],
    access: Access,
) -> Result<Caller, (u16, &'static str)> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        map.append(name, value.parse().unwrap());
    }
    let knock = Knock {
        method,
        uri: &Uri::from_static("/v1/subscriptions"),
        headers: &map,
        peer: Ipv4Addr::LOCALHOST.into(),
    };
    let admitted = gate.admit(&knock, access, NOW);
    admitted.map_err(|problem| (problem.status().as_u16(), problem.code()))
}

fn with_token(gate: &Gate, token: &str, access: Access) -> Result<Caller, (u16, &'static str)> {
    let authorization = format!("Bearer {token}");
    admitted(
        gate,
        &Method::POST,
        &[("authorization", &authorization)],
        access,
    )
}

fn token_until(gate: &Gate, expires_at: UnixMillis) -> String {
    let tenant = TenantId::parse("acme").unwrap();
    gate.write(&TenantToken { tenant, expires_at }).to_string()
}

#[test]
fn a_tenant_is_let_in_until_its_token_expires() {
    let gate = gate();
    let good = token_until(&gate, UnixMillis(NOW.0 + 1000));
    let acme = Caller::Tenant(TenantId::parse("acme").unwrap());
    assert_eq!(with_token(&gate, &good, Access::Tenants), Ok(acme));
    assert_eq!(
        with_token(&gate, &good, Access::Admin),
        Err((403, "forbidden"))
    );
    let old = token_until(&gate, NOW);
    assert_eq!(
        with_token(&gate, &old, Access::Tenants),
        Err((401, "token_expired"))
    );
    let foreign = token_until(
        &Gate::new(Some("another"), [0; 32]),
        UnixMillis(NOW.0 + 1000),
    );
    assert_eq!(
        with_token(&gate, &foreign, Access::Tenants),
        Err((401, "unauthorized"))
    );
}

#[test]
fn wrong_tokens_are_limited_and_lock_nobody_out() {
    let gate = gate();
    let unauthorized = Err((401, "unauthorized"));
    for _ in 0..super::super::limits::WRONG_TOKENS_MAX {
        assert_eq!(with_token(&gate, "guess", Access::Admin), unauthorized);
    }
    let limited = Err((429, "too_many_requests"));
    assert_eq!(with_token(&gate, "guess", Access::Admin), limited);
    assert_eq!(with_token(&gate, ADMIN, Access::Admin), Ok(Caller::Admin));
    let good = token_until(&gate, UnixMillis(NOW.0 + 1000));
    assert!(with_token(&gate, &good, Access::Tenants).is_ok());
}

#[test]
fn of_two_tokens_none_is_taken() {
    let both = [ADMIN, ADMIN].map(|token| format!("Bearer {token}"));
    let headers = both
        .each_ref()
        .map(|value| ("authorization", value.as_str()));
    let refused = admitted(&gate(), &Method::GET, &headers, Access::Admin);
    assert_eq!(refused, Err((401, "unauthorized")));
}

#[test]
fn without_an_admin_token_pages_of_others_are_not_let_in() {
    let open = Gate::new(None, [1; 32]);
    let ask = |method: &Method, headers: &[(&str, &str)]| {
        admitted(&open, method, headers, Access::Admin).is_ok()
    };
    let here = ("host", "127.0.0.1:8080");
    for host in [
        "127.0.0.1:8080",
        "localhost:8080",
        "LOCALHOST",
        "[::1]:8080",
        "127.1.2.3",
    ] {
        assert!(ask(&Method::POST, &[("host", host)]), "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example:8080",
        "10.0.0.1:8080",
        "[::1",
        "",
    ] {
        assert!(!ask(&Method::GET, &[("host", host)]), "{host}");
    }
    assert!(ask(
        &Method::POST,
        &[here, ("origin", "http://127.0.0.1:8080")]
    ));
    for origin in ["https://evil.example", "http://127.0.0.1:9999", "null"] {
        assert!(!ask(&Method::POST, &[here, ("origin", origin)]), "{origin}");
        assert!(!ask(&Method::GET, &[here, ("origin", origin)]), "{origin}");
    }
    assert!(ask(
        &Method::POST,
        &[here, ("sec-fetch-site", "same-origin")]
    ));
    for site in ["cross-site", "same-site"] {
        assert!(
            !ask(&Method::DELETE, &[here, ("sec-fetch-site", site)]),
            "{site}"
        );
    }
}

#[test]
fn tenants_see_their_own_alone() {
    let acme = Scope::parse("acme").unwrap();
    let caller = Caller::Tenant(TenantId::parse("acme").unwrap());
    assert!(caller.sees(&acme) && caller.check(&acme).is_ok());
    for other in ["bell", "*"].map(|text| Scope::parse(text).unwrap()) {
        assert!(!caller.sees(&other) && caller.check(&other).is_err());
        assert!(Caller::Admin.sees(&other) && Caller::Admin.check(&other).is_ok());
    }
}
