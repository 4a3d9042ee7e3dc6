//! Signing in with a token, and out.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};

use super::super::auth::{peer_of, session};
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
    /// Whether somebody is signed in already.
    is_signed_in: bool,
}

/// The page that asks for a token.
pub async fn show(State(pages): State<Pages>, headers: HeaderMap, query: Query) -> Response {
    let now = pages.api.ports.clock.now();
    let page = SignInPage {
        frame: Frame::of_nobody("Sign in"),
        to: query.text("to").unwrap_or_default().to_owned(),
        fault: String::new(),
        is_signed_in: pages.api.gate.looks(&headers, now).is_some(),
    };
    render_as(StatusCode::OK, &page)
}

/// Signs in, and goes on to the page that was asked for.
pub async fn enter(
    State(pages): State<Pages>,
    extensions: Extensions,
    headers: HeaderMap,
    form: Form,
) -> Response {
    // Nobody is signed in as somebody else by another site.
    if let Err(problem) = session::check_same_origin(&headers) {
        return refused(&problem);
    }
    let now = pages.api.ports.clock.now();
    let signed_in = pages
        .api
        .gate
        .sign_in(form.text("token"), peer_of(&extensions), now);
    let session = match signed_in {
        Ok(session) => session,
        Err(problem) => {
            let page = SignInPage {
                frame: Frame::of_nobody("Sign in"),
                to: form.text("to").to_owned(),
                fault: problem.detail().to_owned(),
                is_signed_in: false,
            };
            return render_as(problem.status(), &page);
        }
    };
    let seconds = session.expires_at.since(now).as_secs();
    // What the script sends does not say where its page is shown, so the script does.
    let dest = headers.get("sec-fetch-dest").map(HeaderValue::as_bytes);
    let in_frame = form.text("in_frame") == "yes" || dest == Some(b"iframe");
    let cookie = session::keep(&headers, &session.value, seconds, in_frame);
    with_cookies(go(here(form.text("to"))), [cookie])
}

/// Signs out, in a frame or not.
pub async fn leave(State(pages): State<Pages>, request: axum::extract::Request) -> Response {
    let (parts, _) = request.into_parts();
    if let Err(problem) = pages.api.gate.visitor(&parts, pages.api.ports.clock.now()) {
        return refused(&problem);
    }
    let ended = [true, false].map(|in_frame| session::keep(&parts.headers, "", 0, in_frame));
    with_cookies(go("/"), ended)
}

fn with_cookies(mut response: Response, cookies: impl IntoIterator<Item = String>) -> Response {
    let cookies = cookies.into_iter().filter_map(|cookie| cookie.parse().ok());
    for cookie in cookies {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
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
