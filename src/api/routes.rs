//! The route table: what there is, and who may call it.
//!
//! *Invariant: every route of the API is a line of this table.* Its access is checked before
//! its handler runs, its limits hold, it takes no query parameter but those that are described, and
//! the tests walk through it.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use http::Method;

use super::auth::{Access, authenticate};
use super::extract::check_query;
use super::openapi::{Describe, Schemas};
use super::{
    Api, attempts, dead_letters, deliveries, events, explain, openapi, overview, quarantine,
    secrets, subscriptions, tokens,
};

/// Largest request body, but for those named otherwise.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// Largest body of a request that publishes events or declares subscriptions.
const BATCH_BYTES_MAX: usize = 32 * 1024 * 1024;

/// One thing that can be asked.
pub struct Route {
    /// How.
    pub method: Method,
    /// Where; `{…}` stands for a name.
    pub path: &'static str,
    /// By whom.
    pub access: Access,
    /// Largest body, in bytes.
    pub body_bytes_max: usize,
    /// What it is.
    pub describe: Describe,
    handler: MethodRouter<Api>,
}

/// Everything that can be asked.
#[rustfmt::skip] // One line each.
pub fn table() -> Vec<Route> {
    use Access::{Admin, Anyone, Tenants};
    use subscriptions::describe as of_subscriptions;
    let at = Route::new;
    let (get_, post_, put_, delete_) = (Method::GET, Method::POST, Method::PUT, Method::DELETE);
    vec![
        at(&get_, "/openapi.json", Anyone, get(openapi::show), openapi::describe_show),
        at(&post_, "/v1/events", Tenants, post(events::publish), events::describe_publish).of_many(),
        at(&get_, "/v1/subscriptions", Tenants, get(subscriptions::list), of_subscriptions::list),
        at(&post_, "/v1/subscriptions", Tenants, post(subscriptions::create), of_subscriptions::create),
        at(&put_, "/v1/subscriptions", Admin, put(subscriptions::declare), of_subscriptions::declare).of_many(),
        at(&get_, "/v1/subscriptions/{id}", Tenants, get(subscriptions::show), of_subscriptions::show),
        at(&put_, "/v1/subscriptions/{id}", Tenants, put(subscriptions::declare_one), of_subscriptions::declare_one),
        at(&Method::PATCH, "/v1/subscriptions/{id}", Tenants, patch(subscriptions::change), of_subscriptions::change),
        at(&delete_, "/v1/subscriptions/{id}", Tenants, delete(subscriptions::delete), of_subscriptions::delete),
        at(&post_, "/v1/subscriptions/{id}/test", Tenants, post(subscriptions::test), of_subscriptions::test),
        at(&post_, "/v1/subscriptions/{id}/rotate-secret", Tenants, post(subscriptions::rotate_secret), of_subscriptions::rotate_secret),
        at(&post_, "/v1/explain", Tenants, post(explain::run), explain::describe_run),
        at(&get_, "/v1/subscriptions/{id}/lane", Tenants, get(overview::lane), overview::describe_lane),
        at(&get_, "/v1/overview", Tenants, get(overview::show), overview::describe_show),
        at(&get_, "/v1/attempts", Tenants, get(attempts::list), attempts::describe_list),
        at(&get_, "/v1/deliveries/{id}", Tenants, get(deliveries::show), deliveries::describe_show),
        at(&post_, "/v1/deliveries/{id}/redeliver", Tenants, post(deliveries::redeliver), deliveries::describe_redeliver),
        at(&get_, "/v1/dead-letters", Tenants, get(dead_letters::list), dead_letters::describe_list),
        at(&post_, "/v1/dead-letters/redrive", Tenants, post(dead_letters::redrive), dead_letters::describe_redrive),
        at(&delete_, "/v1/dead-letters/{id}", Tenants, delete(dead_letters::discard), dead_letters::describe_discard),
        at(&get_, "/v1/quarantine", Admin, get(quarantine::list), quarantine::describe_list),
        at(&post_, "/v1/quarantine/requeue", Admin, post(quarantine::requeue_all), quarantine::describe_requeue_all),
        at(&post_, "/v1/quarantine/{id}/requeue", Admin, post(quarantine::requeue), quarantine::describe_requeue),
        at(&post_, "/v1/secrets/rotate", Admin, post(secrets::rotate), secrets::describe_rotate),
        at(&post_, "/v1/tenants/{tenant}/tokens", Admin, post(tokens::create), tokens::describe_create),
    ]
}

/// A router of the whole table.
pub(super) fn router(api: &Api) -> Router<Api> {
    let mut router = Router::new();
    for route in table() {
        let gate = from_fn_with_state((api.clone(), route.access), authenticate);
        let limit = DefaultBodyLimit::max(route.body_bytes_max);
        let mut handler = route.handler.route_layer(limit);
        // A link to what anyone may read often has something of its own behind it.
        if route.access != Access::Anyone {
            let described = (route.describe)(&mut Schemas::default());
            let known: Arc<[String]> = described.query_names().collect();
            handler = handler.route_layer(from_fn_with_state(known, check_query));
        }
        router = router.route(route.path, handler.route_layer(gate));
    }
    router
}

impl Route {
    fn new(
        method: &Method,
        path: &'static str,
        access: Access,
        handler: MethodRouter<Api>,
        describe: Describe,
    ) -> Self {
        Self {
            method: method.clone(),
            path,
            access,
            body_bytes_max: BODY_BYTES_MAX,
            describe,
            handler,
        }
    }

    /// The same, with a body of many things.
    fn of_many(self) -> Self {
        Self {
            body_bytes_max: BATCH_BYTES_MAX,
            ..self
        }
    }
}
