//! Hearing of changes: those of one's own before the call returns, those of others within
//! a second, also when messages do not come.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use carillon::adapters::redis::Redis;
use carillon::domain::subscription::{DisabledReason, Scope};
use carillon::domain::timestamp::UnixMillis;
use carillon::ports::SubscriptionStore;

use crate::harness::{PATIENCE, PROMPT, id, looked, open, prefix, scope, subscription, until};
use crate::services::{self, RedisServer};

/// What a listener heard.
#[derive(Clone)]
pub struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    pub fn by(store: &dyn SubscriptionStore) -> Self {
        let heard = Self(Arc::default());
        let hear = heard.clone();
        store.on_change(Box::new(move |scope| {
            hear.0.lock().unwrap().push(scope.as_str().to_owned());
        }));
        heard
    }

    pub fn take(&self) -> Vec<String> {
        let mut heard = std::mem::take(&mut *self.0.lock().unwrap());
        heard.sort();
        heard.dedup();
        heard
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.lock().unwrap().iter().any(|scope| scope == name)
    }
}

/// Changes `acme`, which `hearer` has loaded, and has it hear of that in time.
async fn told_in_time(writer: &Redis, hearer: &Redis, heard: &Heard, n: u32) -> Duration {
    // The first time there is no marker yet. It counts as loaded all the same.
    let _ = hearer.of_scope(&scope("acme")).await;
    heard.take();
    writer.put(subscription("acme", n, ""), None).await.unwrap();
    until("the other hears", PROMPT, async || heard.has("acme")).await
}

#[tokio::test]
async fn another_process_hears_at_once() {
    let (url, prefix) = (services::redis_url().await, prefix());
    let (one, two) = (open(&url, &prefix).await, open(&url, &prefix).await);
    let heard = Heard::by(&*two);
    // The first may come before the other listens. It is looked up then.
    told_in_time(&one, &two, &heard, 1).await;
    // Looks come twice a second: by them alone, eight of ten are never this quick. On a busy
    // machine it may take a while until ten in a row are undisturbed.
    let mut latest = VecDeque::new();
    let quick = async {
        for n in 2.. {
            let took = told_in_time(&one, &two, &heard, n).await;
            latest.push_back(took < Duration::from_millis(100));
            if latest.len() > 10 {
                latest.pop_front();
            }
            if latest.iter().filter(|quick| **quick).count() >= 8 {
                return;
            }
        }
    };
    let limit = Duration::from_secs(60);
    let came = tokio::time::timeout(limit, quick).await;
    came.expect("messages come sooner than looks");
}

#[tokio::test]
async fn another_process_hears_after_its_messages_broke_off() {
    let server = RedisServer::start().await;
    let (one, two) = (
        open(&server.url(), "c").await,
        open(&server.url(), "c").await,
    );
    let heard = Heard::by(&*two);
    for n in 0..5 {
        server.cli(&["client", "kill", "type", "pubsub"]).await;
        told_in_time(&one, &two, &heard, n).await;
    }
}

#[tokio::test]
async fn another_process_hears_without_messages() {
    let server = RedisServer::start().await;
    server
        .cli(&[
            "acl",
            "setuser",
            "mute",
            "on",
            ">pw",
            "~*",
            "&*",
            "+@all",
            "-subscribe",
        ])
        .await;
    let one = open(&server.url(), "c").await;
    let two = open(&server.url().replace("redis://", "redis://mute:pw@"), "c").await;
    one.init().await.unwrap();
    let heard = Heard::by(&*two);
    for n in 0..5 {
        told_in_time(&one, &two, &heard, n).await;
    }
    two.of_scope(&scope("acme")).await.unwrap();
    heard.take();
    assert!(one.delete(&id(0), None).await.unwrap());
    until("the deletion is told", PROMPT, async || heard.has("acme")).await;
}

#[tokio::test]
async fn nothing_is_told_twice_or_for_nothing() {
    let server = RedisServer::start().await;
    let redis = open(&server.url(), "c").await;
    let heard = Heard::by(&*redis);
    redis.put(subscription("acme", 1, ""), None).await.unwrap();
    assert_eq!(heard.take(), ["acme"]);
    let moved = subscription("*", 1, "");
    redis.put(moved, Some(1)).await.unwrap();
    assert_eq!(heard.take(), ["*", "acme"]);
    let gone = DisabledReason::Gone;
    assert!(redis.disable(&id(1), gone, UnixMillis(5)).await.unwrap());
    assert_eq!(heard.take(), ["*"]);
    assert!(!redis.disable(&id(1), gone, UnixMillis(6)).await.unwrap());
    redis.put_all(Vec::new()).await.unwrap();
    // Its own messages come before it has looked twice.
    looked(&server, 2).await;
    assert!(heard.take().is_empty());
}

/// How many changes were heard of, and the versions in each scope that is kept.
type Kept = (AtomicU64, Mutex<HashMap<Scope, Vec<u64>>>);

/// Keeps what it loads until it hears of a change, as the directory does.
struct Cache {
    store: Arc<Redis>,
    inner: Arc<Kept>,
}

impl Cache {
    fn over(store: Arc<Redis>) -> Self {
        let inner: Arc<Kept> = Arc::default();
        let hear = Arc::clone(&inner);
        store.on_change(Box::new(move |scope| {
            let mut kept = hear.1.lock().unwrap();
            hear.0.fetch_add(1, Ordering::SeqCst);
            kept.remove(scope);
        }));
        Self { store, inner }
    }

    /// The versions in `scope`, kept or loaded.
    async fn versions(&self, scope: &Scope) -> Vec<u64> {
        if let Some(kept) = self.inner.1.lock().unwrap().get(scope) {
            return kept.clone();
        }
        let changes = self.inner.0.load(Ordering::SeqCst);
        let loaded = self.store.of_scope(scope).await.unwrap();
        let versions: Vec<u64> = loaded.iter().map(|stored| stored.version).collect();
        let mut kept = self.inner.1.lock().unwrap();
        if self.inner.0.load(Ordering::SeqCst) == changes {
            kept.insert(scope.clone(), versions.clone());
        }
        versions
    }
}

/// Loads and changes race, messages break off: a second after the last change nobody
/// serves anything old.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_is_never_old_for_longer_than_a_second() {
    let server = RedisServer::start().await;
    let one = open(&server.url(), "c").await;
    let cache = Cache::over(open(&server.url(), "c").await);
    let names = ["a", "b", "c", "d"];
    for (n, name) in (0..).zip(names) {
        one.put(subscription(name, n, ""), None).await.unwrap();
    }
    for round in 1..=4_u64 {
        let begin = Instant::now();
        let mut version = 0;
        let change = async {
            while begin.elapsed() < Duration::from_millis(500) {
                for (n, name) in (0..).zip(names) {
                    let stored = one.get(&id(n)).await.unwrap().unwrap();
                    version = stored.version + 1;
                    let changed = subscription(name, n, "");
                    one.put(changed, Some(stored.version)).await.unwrap();
                }
            }
            if round % 2 == 0 {
                server.cli(&["client", "kill", "type", "pubsub"]).await;
            }
            for (n, name) in (0..).zip(names) {
                let stored = one.get(&id(n)).await.unwrap().unwrap();
                version = stored.version + 1;
                let changed = subscription(name, n, "");
                one.put(changed, Some(stored.version)).await.unwrap();
            }
        };
        let load = async {
            while begin.elapsed() < Duration::from_millis(700) {
                for name in names {
                    cache.versions(&scope(name)).await;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(change, load);
        until("all is new", PROMPT, async || {
            for name in names {
                if cache.versions(&scope(name)).await != [version] {
                    return false;
                }
            }
            true
        })
        .await;
    }
}

#[tokio::test]
async fn pages_of_a_scope_belong_together() {
    let (url, prefix) = (services::redis_url().await, prefix());
    let (one, two) = (open(&url, &prefix).await, open(&url, &prefix).await);
    // All of one change have the same version: a mixture would show.
    let all = || {
        (0..2500)
            .map(|n| subscription("acme", n, ""))
            .collect::<Vec<_>>()
    };
    one.put_all(all()).await.unwrap();
    let write = async {
        for _ in 0..10 {
            one.put_all(all()).await.unwrap();
        }
    };
    let read = async {
        for _ in 0..10 {
            let found = two.of_scope(&scope("acme")).await.unwrap();
            assert_eq!(found.len(), 2500);
            assert!(
                found
                    .iter()
                    .all(|stored| stored.version == found[0].version)
            );
        }
    };
    tokio::time::timeout(2 * PATIENCE, async { tokio::join!(write, read) })
        .await
        .unwrap();
}
