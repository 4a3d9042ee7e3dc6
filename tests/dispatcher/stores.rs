//! The API over stores that are not as they should be: one that has lost what it had, one that is
//! down, and one in which somebody else changes what was just looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use carillon::adapters::https::{HttpsSettings, HttpsTransport};
use carillon::adapters::sqlite::{Sqlite, SqliteSettings};
use carillon::adapters::system::{SystemChance, SystemClock};
use carillon::api::auth::Gate;
use carillon::api::{ApiContext, Insight, Tester, router};
use carillon::codec::vault::Vault;
use carillon::domain::attempt::Attempt;
use carillon::domain::id::{SubscriptionId, TenantId};
use carillon::domain::lane::LaneState;
use carillon::domain::recent::{Recent, Summary};
use carillon::domain::signature::Secret;
use carillon::domain::subscription::{DisabledReason, Scope, Subscription};
use carillon::domain::timestamp::UnixMillis;
use carillon::ports::{Ports, StoreError, StoredSubscription, SubscriptionStore};
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::declare::{ALL, item};
use super::harness::Setup;

/// How a store is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    /// It has lost what it had, until it is told.
    Lost,
    /// It has lost what it had, and cannot be told.
    Down,
}

/// A store that is like this, and behind which somebody else is at work.
struct Fickle {
    store: Arc<Sqlite>,
    lost: AtomicBool,
    down: bool,
    /// What is looked at next is changed by somebody else right afterwards.
    meddles: AtomicBool,
}

impl Fickle {
    fn check(&self) -> Result<(), StoreError> {
        if self.lost.load(Ordering::Acquire) {
            return Err(StoreError::Lost("the marker is missing".to_owned()));
        }
        Ok(())
    }
}

#[async_trait]
impl SubscriptionStore for Fickle {
    async fn of_scope(&self, scope: &Scope) -> Result<Vec<StoredSubscription>, StoreError> {
        self.check()?;
        self.store.of_scope(scope).await
    }

    async fn get(&self, id: &SubscriptionId) -> Result<Option<StoredSubscription>, StoreError> {
        self.check()?;
        let found = self.store.get(id).await?;
        if let Some(seen) = &found
            && self.meddles.swap(false, Ordering::AcqRel)
        {
            self.store.put(seen.clone(), Some(seen.version)).await?;
        }
        Ok(found)
    }

    async fn list(
        &self,
        scope: Option<&Scope>,
        after: Option<&SubscriptionId>,
        limit: usize,
    ) -> Result<Vec<StoredSubscription>, StoreError> {
        self.check()?;
        self.store.list(scope, after, limit).await
    }

    async fn put(
        &self,
        stored: StoredSubscription,
        expected: Option<u64>,
    ) -> Result<(), StoreError> {
        self.check()?;
        self.store.put(stored, expected).await
    }

    async fn put_all(&self, stored: Vec<StoredSubscription>) -> Result<(), StoreError> {
        if self.down {
            return Err(StoreError::Unavailable("nobody answers".to_owned()));
        }
        self.store.put_all(stored).await?;
        self.lost.store(false, Ordering::Release);
        Ok(())
    }

    async fn disable(
        &self,
        id: &SubscriptionId,
        reason: DisabledReason,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        self.check()?;
        self.store.disable(id, reason, now).await
    }

    async fn delete(&self, id: &SubscriptionId, expected: Option<u64>) -> Result<bool, StoreError> {
        self.check()?;
        self.store.delete(id, expected).await
    }

    fn on_change(&self, listener: Box<dyn Fn(&Scope) + Send + Sync>) {
        self.store.on_change(listener);
    }
}

/// Nobody asks it anything here.
struct NoTester;

#[async_trait]
impl Insight for NoTester {
    fn recent(&self, _: Option<&TenantId>, most: usize) -> Summary {
        Recent::default().summary(None, UnixMillis(0), most)
    }

    fn lane(&self, _: &SubscriptionId) -> Option<LaneState> {
        None
    }

    fn attempts(&self, _: Option<&TenantId>) -> Option<watch::Receiver<u64>> {
        None
    }

    async fn queues(&self) -> Result<Vec<(&'static str, u64)>, String> {
        Err("not here".to_owned())
    }

    async fn ready(&self) -> Result<(), String> {
        Err("not here".to_owned())
    }
}

#[async_trait]
impl Tester for NoTester {
    async fn test(&self, _: &Subscription) -> Result<Arc<Attempt>, String> {
        Err("not here".to_owned())
    }
}

/// The API over a store in this state, and the store.
fn over(setup: &Setup, state: State) -> (axum::Router, Arc<Fickle>) {
    let config = &setup.config;
    let store = Sqlite::open(SqliteSettings {
        vault: Vault::default(),
        path: config.embedded.path.clone(),
        dedup_window: config.dedup.window,
        audit_keep: Duration::from_secs(60),
        audit_per_subscription: 1,
        audit_body_bytes: 1,
        clock: Arc::new(SystemClock),
        audit_dropped: Arc::new(AtomicU64::new(0)),
        telemetry: carillon::telemetry::Telemetry::new().unwrap(),
    })
    .unwrap();
    let transport = HttpsTransport::new(HttpsSettings {
        rules: config.egress_rules(),
        connect_timeout: Duration::from_secs(1),
        extra_roots: Vec::new(),
        name_servers: None,
    })
    .unwrap();
    let fickle = Arc::new(Fickle {
        store: Arc::clone(&store),
        lost: AtomicBool::new(state != State::Whole),
        down: state == State::Down,
        meddles: AtomicBool::new(false),
    });
    let ports = Ports {
        clock: Arc::new(SystemClock),
        chance: Arc::new(SystemChance),
        inbox: store.clone(),
        outbox: store.clone(),
        ledger: store.clone(),
        rates: None,
        health: store.clone(),
        accounts: store.clone(),
        subscriptions: fickle.clone(),
        audit: store.clone(),
        dead_letters: store.clone(),
        quarantine: store.clone(),
        transport: Arc::new(transport),
        backend: store,
    };
    let api = router(Arc::new(ApiContext {
        ports,
        telemetry: carillon::telemetry::Telemetry::new().unwrap(),
        tester: Arc::new(NoTester),
        insight: Arc::new(NoTester),
        embed_in: Vec::new(),
        stopping: CancellationToken::new(),
        rules: config.spec_rules(),
        egress: config.egress_rules(),
        encrypts: false,
        event_bytes_max: config.intake.max_event_bytes,
        gate: Gate::new(None, [0; 32]),
    }));
    (api, fickle)
}

async fn asked(router: &axum::Router, method: Method, path: &str, body: &Value) -> (u16, Value) {
    let body = Body::from(body.to_string());
    let request = Request::builder().method(method).uri(path).body(body);
    let response = router.clone().oneshot(request.unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_has_lost_everything_is_filled_again() {
    let setup = Setup::new(|_| {});
    let (router, _) = over(&setup, State::Lost);
    let none = json!({});
    assert_eq!(asked(&router, Method::GET, ALL, &none).await.0, 503);
    let one = asked(&router, Method::PUT, &format!("{ALL}/sub_1"), &item(&none)).await;
    assert_eq!(one.0, 503);
    let secret = Secret::new([7; 32]);
    let items = json!([
        item(&json!({ "id": "sub_1", "secret": *secret.to_hex() })),
        item(&json!({ "id": "sub_2" })),
    ]);
    let (status, answer) = asked(&router, Method::PUT, ALL, &items).await;
    assert_eq!((status, &answer["created"]), (200, &json!(2)), "{answer}");
    assert!(answer["items"][0].get("secret").is_none());
    assert!(answer["items"][1]["secret"]["whsec"].is_string());
    let (_, list) = asked(&router, Method::GET, ALL, &none).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    let (_, again) = asked(&router, Method::PUT, ALL, &list).await;
    assert_eq!(again["unchanged"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_down_is_no_loss() {
    let setup = Setup::new(|_| {});
    let (router, _) = over(&setup, State::Down);
    let items = json!([item(&json!({ "id": "sub_1" }))]);
    let (status, problem) = asked(&router, Method::PUT, ALL, &items).await;
    assert_eq!(
        (status, &problem["code"]),
        (503, &json!("store_unavailable"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_someone_else_changed_meanwhile_is_not_deleted() {
    let setup = Setup::new(|_| {});
    let (router, store) = over(&setup, State::Whole);
    let one = format!("{ALL}/sub_1");
    let made = asked(&router, Method::PUT, &one, &item(&json!({}))).await;
    assert_eq!(made.0, 201);
    let send = async |method: Method, tag: &str| {
        let request = Request::builder().method(method).uri(&one);
        let request = request.header("if-match", tag).body(Body::empty());
        router.clone().oneshot(request.unwrap()).await.unwrap()
    };
    let seen = send(Method::GET, "*").await.headers()["etag"].clone();
    let seen = seen.to_str().unwrap();
    store.meddles.store(true, Ordering::Release);
    assert_eq!(send(Method::DELETE, seen).await.status(), 412);
    let there = send(Method::GET, "*").await;
    assert_eq!(there.status(), 200);
    assert_ne!(there.headers()["etag"], seen);
    // Whatever is there may go: then it goes as it is in the end.
    store.meddles.store(true, Ordering::Release);
    assert_eq!(send(Method::DELETE, "*").await.status(), 204);
    assert_eq!(send(Method::GET, "*").await.status(), 404);
}
