//! Signing in with a token, and out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use askama::Template;
use axum::extract::{ConnectInfo, State};
use axum::response::Response;
use http::{Extensions, HeaderMap, StatusCode, header};

use super::super::auth::session;
use super::super::extract::Query;
use super::Pages;
use super::page::{Form, Frame, go, refused, render_as};

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    frame: Frame,
    /// Where to go then.
    to: String,
    /// What was wrong.
    fault: String,
}

/// The page that asks for a token.
pub async fn show(query: Query) -> Response {
    let to = query.text("to").unwrap_or_default().to_owned();
    ask(StatusCode::OK, to, String::new())
}

/// Signs in, and goes on to the page that was asked for.
pub async fn enter(
    State(pages): State<Pages>,
    extensions: Extensions,
    headers: HeaderMap,
    form: Form,
) -> Response {
    let now = pages.api.ports.clock.now();
    let peer = extensions.get::<ConnectInfo<SocketAddr>>();
    let peer: IpAddr = peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.0.ip());
    let signed_in = pages.api.gate.sign_in(form.text("token"), peer, now);
    let session = match signed_in {
        Ok(session) => session,
        Err(problem) => {
            let to = form.text("to").to_owned();
            return ask(problem.status(), to, problem.detail().to_owned());
        }
    };
    let seconds = session.expires_at.since(now).as_secs();
    let embedded = form.text("embedded") == "yes";
    let mut response = go(here(form.text("to")));
    set_cookie(&mut response, &headers, &session.value, seconds, embedded);
    response
}

/// Signs out.
pub async fn leave(State(pages): State<Pages>, request: axum::extract::Request) -> Response {
    let (parts, _) = request.into_parts();
    if let Err(problem) = pages.api.gate.visitor(&parts, pages.api.ports.clock.now()) {
        return refused(&problem);
    }
    let mut response = go("/");
    set_cookie(&mut response, &parts.headers, "", 0, false);
    response
}

fn ask(status: StatusCode, to: String, fault: String) -> Response {
    let frame = Frame::of_nobody("Sign in");
    render_as(status, &SignInPage { frame, to, fault })
}

/// A page of the console, and nothing else: whoever made the link must not choose where a
/// visitor goes after signing in.
fn here(to: &str) -> &str {
    let is_here = to.starts_with('/')
        && !to.starts_with("//")
        && !to.contains('\\')
        && to.bytes().all(|b| b.is_ascii_graphic());
    if is_here { to } else { "/" }
}

/// Sets the cookie (RFC 6265 section 4.1): sent to this site alone and hidden from script.
/// Within the frame of another site it is kept by that site and this together (CHIPS).
fn set_cookie(
    response: &mut Response,
    headers: &HeaderMap,
    value: &str,
    seconds: u64,
    embedded: bool,
) {
    let forwarded = headers.get("x-forwarded-proto");
    let is_tls = forwarded.is_some_and(|proto| proto.as_bytes() == b"https");
    let scope = match (is_tls, embedded) {
        (true, true) => "SameSite=None; Secure; Partitioned",
        (true, false) => "SameSite=Lax; Secure",
        (false, _) => "SameSite=Lax",
    };
    let name = session::NAME;
    let cookie = format!("{name}={value}; Path=/; HttpOnly; Max-Age={seconds}; {scope}");
    if let Ok(cookie) = cookie.parse() {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_to_a_page_of_the_console_alone() {
        for (to, expected) in [
            ("/attempts?outcome=failed", "/attempts?outcome=failed"),
            ("", "/"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("https://evil.example", "/"),
            ("javascript:alert(1)", "/"),
            ("/a\nSet-Cookie: x", "/"),
        ] {
            assert_eq!(here(to), expected, "{to:?}");
        }
    }
}
