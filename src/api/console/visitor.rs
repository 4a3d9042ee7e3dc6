//! Who looks at a page.

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse as _, Redirect, Response};
use http::Method;
use http::request::Parts;

use super::super::auth::Caller;
use super::super::limits::UnderWay;
use super::Pages;
use super::calls::{Calls, with_query};
use super::page;
use crate::domain::timestamp::UnixMillis;

/// Someone who is signed in, or needs not.
pub struct Visitor {
    /// Who it is.
    pub caller: Caller,
    /// The API as this visitor has it.
    pub calls: Calls,
    /// When the page was asked for.
    pub now: UnixMillis,
    /// Whether there is anything to sign out of.
    pub signed_in: bool,
    /// A page is one request of its tenant, whatever the page asks of the API.
    _under_way: Option<UnderWay>,
}

impl Visitor {
    /// Whether it is the admin.
    pub fn is_admin(&self) -> bool {
        self.caller == Caller::Admin
    }

    /// The tenant whose things alone are seen; empty for the admin.
    pub fn tenant(&self) -> &str {
        match &self.caller {
            Caller::Admin => "",
            Caller::Tenant(tenant) => tenant.as_str(),
        }
    }
}

impl FromRequestParts<Pages> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, pages: &Pages) -> Result<Self, Response> {
        let api = &pages.api;
        let now = api.ports.clock.now();
        let visitor = api.gate.visitor(parts, now);
        let caller = visitor.map_err(|problem| page::refused(&problem))?;
        let Some(caller) = caller else {
            return Err(sign_in_first(parts));
        };
        let under_way = api.gate.take(&caller);
        let under_way = under_way.map_err(|problem| page::refused(&problem))?;
        Ok(Self {
            _under_way: under_way,
            calls: Calls::new(pages.routes.clone(), caller.clone()),
            signed_in: !api.gate.is_open() || caller != Caller::Admin,
            caller,
            now,
        })
    }
}

/// To the sign-in page, and from there back to the page that was asked for.
fn sign_in_first(parts: &Parts) -> Response {
    let asked = parts
        .uri
        .path_and_query()
        .map_or("/", |asked| asked.as_str());
    let to = if parts.method == Method::GET && asked != "/" {
        asked
    } else {
        ""
    };
    Redirect::to(&with_query("/sign-in", &[("to", to)])).into_response()
}
