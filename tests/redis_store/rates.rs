//! Rates over all replicas: never too many in any window, never fewer than they could be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use carillon::adapters::redis::Redis;
use carillon::domain::subscription::RateLimit;
use carillon::ports::{Backend as _, RateAnswer, RateAsk, SharedRates as _, StoreError};

use crate::harness::until::Looks;
use crate::harness::{PATIENCE, id, open, open_with, prefix, settings, unavailable, until};
use crate::services::{self, Proxy, RedisServer};

/// What a lane may wait for an answer, and something for a busy machine.
const SOON: Duration = Duration::from_secs(1);

pub fn ask(n: u32, per_second: f64, burst: u32, wanted: u32) -> RateAsk {
    RateAsk {
        endpoint: id(n),
        rate: RateLimit { per_second, burst },
        wanted,
        debt: Duration::ZERO,
    }
}

/// One answer.
async fn take(redis: &Redis, ask: RateAsk) -> Result<RateAnswer, StoreError> {
    Ok(redis.take(&[ask]).await?[0])
}

/// Runs `scenario` with a number that begins endpoints of its own. Runs it again with others
/// while a busy machine is late with an answer: what that one granted is unknown.
pub async fn undisturbed(mut scenario: impl AsyncFnMut(u32) -> Result<(), StoreError>) {
    static NEXT: AtomicU32 = AtomicU32::new(1000);
    until("an undisturbed run", PATIENCE, async || {
        let n = NEXT.fetch_add(1000, Ordering::Relaxed);
        scenario(n).await.is_ok()
    })
    .await;
}

/// Requests that Redis granted at some time between two.
struct Grant {
    asked: Instant,
    answered: Instant,
    count: u32,
}

/// Asks at once, again and again, until `left` is used up.
async fn ask_until_done(redis: Arc<Redis>, rate: RateLimit, left: Arc<AtomicU32>) -> Vec<Grant> {
    let mut grants = Vec::new();
    let mut wanted = 1;
    loop {
        let have = left.load(Ordering::SeqCst);
        if have == 0 {
            return grants;
        }
        wanted = wanted % 7 + 1;
        let asked = Instant::now();
        let one = ask(1, rate.per_second, rate.burst, wanted.min(have));
        // What a late answer granted is not counted, and so cannot be too many.
        let Ok(answers) = redis.take(&[one]).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let count = answers[0].granted;
        assert!(count <= wanted, "no more than were asked for");
        let take = |left: u32| Some(left.saturating_sub(count));
        let _ = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
        grants.push(Grant {
            asked,
            answered: Instant::now(),
            count,
        });
        if count == 0 {
            // As a lane does: not before the next may go, by what was answered.
            let allowed = f64::from(rate.burst - 1) / rate.per_second;
            let wait = answers[0].debt.as_secs_f64() - allowed;
            let next = Instant::now() + Duration::from_secs_f64(wait.max(0.0));
            let mut looks = Looks::new(PATIENCE);
            while Instant::now() < next {
                looks.next("the next to be allowed").await;
            }
        }
    }
}

/// Every window from an ask to an answer holds no more than burst + rate * length: what was
/// both asked for and answered within it was granted within it.
fn assert_never_too_many(grants: &mut [Grant], rate: RateLimit) {
    grants.sort_by_key(|grant| grant.answered);
    for first in 0..grants.len() {
        let begin = grants[first].asked;
        let mut granted = 0;
        for grant in grants.iter().filter(|grant| grant.asked >= begin) {
            granted += grant.count;
            let length = grant.answered - begin;
            let most = f64::from(rate.burst) + rate.per_second * length.as_secs_f64();
            assert!(
                f64::from(granted) <= most + 1e-3,
                "{granted} in {length:?}, at most {most}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_window_sees_too_many_and_all_are_granted() {
    let (url, prefix) = (services::redis_url().await, prefix());
    for (per_second, burst, all) in [(200.0, 20, 600), (1000.0, 1, 1500)] {
        let rate = RateLimit { per_second, burst };
        let begun = Instant::now();
        let left = Arc::new(AtomicU32::new(all));
        let mut askers = Vec::new();
        for _ in 0..4 {
            let redis = open(&url, &format!("{prefix}-{burst}")).await;
            for _ in 0..2 {
                let asking = ask_until_done(Arc::clone(&redis), rate, Arc::clone(&left));
                askers.push(tokio::spawn(asking));
            }
        }
        let mut grants = Vec::new();
        for asker in askers {
            let granted = tokio::time::timeout(PATIENCE, asker).await;
            grants.extend(granted.unwrap().unwrap());
        }
        let took = begun.elapsed().as_secs_f64();
        let granted: u32 = grants.iter().map(|grant| grant.count).sum();
        assert!(granted >= all);
        let expected = f64::from(all - burst) / per_second;
        assert!(took >= expected, "{took} s, {expected} at the rate");
        assert!(took < 4.0 * expected + 5.0, "{took} s, {expected} expected");
        assert_never_too_many(&mut grants, rate);
    }
}

#[tokio::test]
async fn a_burst_is_granted_and_owed() {
    let (url, prefix) = (services::redis_url().await, prefix());
    let redis = open(&url, &prefix).await;
    undisturbed(async |n| {
        let first = take(&redis, ask(n, 0.1, 5, 3)).await?;
        assert_eq!(first.granted, 3);
        assert_eq!(first.debt, Duration::from_secs(30));
        let second = take(&redis, ask(n, 0.1, 5, 3)).await?;
        assert_eq!(second.granted, 2, "what is left of it");
        assert!(second.debt > Duration::from_secs(40) && second.debt <= Duration::from_secs(50));
        let third = take(&redis, ask(n, 0.1, 5, 1)).await?;
        assert_eq!(third.granted, 0);
        assert!(third.debt <= second.debt);
        assert_eq!(take(&redis, ask(n + 1, 0.1, 5, 9)).await?.granted, 5);
        // One endpoint twice at once.
        let asks = [2, 3, 2].map(|endpoint| ask(n + endpoint, 0.1, 5, 3));
        let answers = redis.take(&asks).await?;
        let granted: Vec<_> = answers.iter().map(|answer| answer.granted).collect();
        assert_eq!(granted, [3, 3, 2]);
        assert!(redis.take(&[]).await?.is_empty());
        Ok(())
    })
    .await;
}

/// A store that has lost what is owed begins with what the asker remembers.
#[tokio::test]
async fn a_flushed_store_gives_no_new_burst() {
    let server = RedisServer::start().await;
    let redis = open(&server.url(), "c").await;
    let other = open(&server.url(), "c").await;
    undisturbed(async |n| {
        let one = ask(n, 0.01, 10, 10);
        let remembering = |debt| RateAsk {
            debt,
            ..one.clone()
        };
        let before = take(&redis, one.clone()).await?;
        assert_eq!(before.granted, 10);
        server.cli(&["flushall"]).await;
        let after = take(&redis, remembering(before.debt)).await?;
        assert_eq!((after.granted, after.debt), (0, before.debt));
        // Now the others are held to it too.
        assert_eq!(take(&other, one.clone()).await?.granted, 0);
        // Half of the burst that is remembered leaves the rest.
        server.cli(&["flushall"]).await;
        let half = take(&redis, remembering(before.debt / 2)).await?;
        assert_eq!(half.granted, 5);
        // What is remembered and less than what is kept changes nothing.
        let kept = take(&redis, remembering(Duration::from_secs(1))).await?;
        assert_eq!(kept.granted, 0);
        assert!(kept.debt > Duration::from_secs(950), "{:?}", kept.debt);
        server.cli(&["flushall"]).await;
        assert_eq!(take(&redis, one.clone()).await?.granted, 10, "nobody knew");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_slowest_and_the_fastest_rates_work() {
    let (url, prefix) = (services::redis_url().await, prefix());
    let redis = open(&url, &prefix).await;
    let year = Duration::from_secs(365 * 24 * 3600);
    undisturbed(async |n| {
        for (n, per_second) in [(n + 1, 1e-300), (n + 2, f64::MIN_POSITIVE), (n + 3, 1e-9)] {
            let slow = take(&redis, ask(n, per_second, 3, u32::MAX)).await?;
            assert_eq!(slow.granted, 3);
            assert!(slow.debt > 3 * year, "{:?}", slow.debt);
            let again = take(&redis, ask(n, per_second, 3, u32::MAX)).await?;
            assert_eq!(again.granted, 0);
            assert!(again.debt > 3 * year, "{:?}", again.debt);
        }
        // Beyond what Lua counts exactly; still never too many.
        let absurd = take(&redis, ask(n + 4, 1e-300, 1_000_000, u32::MAX)).await?;
        assert!((999_999..=1_000_000).contains(&absurd.granted));
        let again = take(&redis, ask(n + 4, 1e-300, 1_000_000, u32::MAX)).await?;
        assert!(again.granted + absurd.granted <= 1_000_000);
        let fast = take(&redis, ask(n + 5, 1e6, 1_000_000, u32::MAX)).await?;
        assert_eq!(fast.granted, 1_000_000);
        assert_eq!(fast.debt, Duration::from_secs(1));
        let endless = RateAsk {
            debt: Duration::MAX,
            ..ask(n + 6, 1.0, 5, 1)
        };
        assert_eq!(take(&redis, endless).await?.granted, 0);
        Ok(())
    })
    .await;
}

/// After a rate was raised, or a clock went back, an endpoint is not held up for what it owed
/// before.
#[tokio::test]
async fn nobody_owes_more_than_the_burst() {
    let server = RedisServer::start().await;
    let redis = open(&server.url(), "c").await;
    let until_granted = async |n| {
        until("it may go", PATIENCE, async || {
            let answer = take(&redis, ask(n, 5.0, 2, 1)).await;
            answer.is_ok_and(|answer| answer.granted == 1)
        })
        .await;
    };
    undisturbed(async |n| {
        assert_eq!(take(&redis, ask(n, 1e-4, 10, 10)).await?.granted, 10);
        let raised = take(&redis, ask(n, 5.0, 2, 1)).await?;
        assert_eq!(raised.granted, 0, "no new burst");
        assert_eq!(raised.debt, Duration::from_millis(400));
        until_granted(n).await;
        Ok(())
    })
    .await;
    let key = format!("c:r:{}", id(1));
    server.cli(&["set", &key, "4000000000000000"]).await;
    until_granted(1).await;
}

/// Nothing is kept of an endpoint that owes nothing.
#[tokio::test]
async fn what_is_owed_expires() {
    let server = RedisServer::start().await;
    let redis = open(&server.url(), "c").await;
    undisturbed(async |n| {
        let (soon, late) = (ask(n, 100.0, 20, 20), ask(n + 1, 0.01, 1, 1));
        server.cli(&["flushall"]).await;
        redis.take(&[soon, late]).await?;
        let key = format!("c:r:{}", id(n + 1));
        until("one to be left", PATIENCE, async || {
            server.cli(&["keys", "c:r:*"]).await == key
        })
        .await;
        let left: i64 = server.cli(&["pttl", &key]).await.parse().unwrap();
        assert!((60_000..=100_000).contains(&left), "{left}");
        Ok(())
    })
    .await;
}

/// A hundred endpoints at once, each with a burst of its own: first by `one`, then by `two`.
pub async fn a_hundred(one: &Redis, two: &Redis) {
    undisturbed(async |n| {
        let asks: Vec<_> = (0..100).map(|i| ask(n + i, 0.01, i % 10 + 1, 6)).collect();
        for (redis, before) in [(one, 0), (two, 6)] {
            let begun = Instant::now();
            let answers = redis.take(&asks).await?;
            assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
            let granted: Vec<_> = answers.iter().map(|answer| answer.granted).collect();
            let left = |i: u32| (i % 10 + 1_u32).saturating_sub(before).min(6);
            let expected: Vec<_> = (0..100).map(left).collect();
            assert_eq!(granted, expected, "in the order asked");
        }
        Ok(())
    })
    .await;
}

/// By a way so long that there is no time for many.
#[tokio::test]
async fn a_hundred_endpoints_are_asked_for_in_one_round_trip() {
    let url = services::redis_url().await;
    let address = url.trim_start_matches("redis://").trim_end_matches('/');
    let proxy = Proxy::start(address.parse().unwrap()).await;
    let redis = open(&format!("redis://{}", proxy.addr()), &prefix()).await;
    // From here on the server knows the script.
    a_hundred(&redis, &redis).await;
    proxy.delay(Duration::from_millis(70));
    a_hundred(&redis, &redis).await;
}

#[tokio::test]
async fn a_server_that_forgot_the_script_is_told_again() {
    let server = RedisServer::start().await;
    let redis = open(&server.url(), "c").await;
    a_hundred(&redis, &redis).await;
    server.cli(&["script", "flush"]).await;
    a_hundred(&redis, &redis).await;
    server.restart().await;
    a_hundred(&redis, &redis).await;
}

/// It is not there, or does not answer: an error soon, and it works again unaided.
#[tokio::test]
async fn without_redis_there_is_an_error_soon() {
    let server = RedisServer::start().await;
    let redis = open(&server.url(), "c").await;
    let one = [ask(1, 1e6, 1, 1)];
    let fails_soon = async |what: &str| {
        let begun = Instant::now();
        unavailable(redis.take(&one).await);
        assert!(begun.elapsed() < SOON, "{what}: {:?}", begun.elapsed());
    };
    let works = async || redis.take(&one).await.is_ok();
    until("it works", PATIENCE, works).await;
    server.pause().await;
    for _ in 0..3 {
        fails_soon("it hangs").await;
    }
    server.resume().await;
    until("it works again", PATIENCE, works).await;
    server.kill().await;
    for _ in 0..3 {
        fails_soon("it is gone").await;
    }
    server.restart().await;
    until("it works again", PATIENCE, works).await;
    redis.crash();
    fails_soon("it is closed").await;
}

/// Waits until each of `all` counts so many.
async fn until_counted(all: &[&Arc<Redis>], count: u32) {
    let what = format!("{count} replicas");
    until(&what, PATIENCE, async || {
        all.iter().all(|redis| redis.replicas() == count)
    })
    .await;
}

#[tokio::test]
async fn replicas_are_counted_up_and_down() {
    let server = RedisServer::start().await;
    let url = server.url();
    let one = open(&url, "c").await;
    until("it is there", PATIENCE, async || {
        server.cli(&["zcard", "c:replicas"]).await == "1"
    })
    .await;
    let (two, three) = (open(&url, "c").await, open(&url, "c").await);
    let elsewhere = open(&url, "other").await;
    until_counted(&[&one, &two, &three], 3).await;
    until_counted(&[&elsewhere], 1).await;
    // An orderly end counts at once.
    three.close().await;
    assert_eq!(server.cli(&["zcard", "c:replicas"]).await, "2");
    until_counted(&[&one, &two], 2).await;
    // Any other does after a while.
    two.crash();
    assert_eq!(server.cli(&["zcard", "c:replicas"]).await, "2");
    until_counted(&[&one], 1).await;
}

#[tokio::test]
async fn without_redis_the_replicas_stay_as_they_were() {
    let server = RedisServer::start().await;
    let settings = settings(&server.url(), "c");
    let alone = Redis::open(settings.clone()).unwrap();
    assert_eq!(alone.replicas(), 1, "before it is known");
    let (one, two) = (open_with(settings.clone()).await, open_with(settings).await);
    until_counted(&[&one, &two, &alone], 3).await;
    server.kill().await;
    until("it is noticed", PATIENCE, async || {
        one.take(&[ask(1, 1.0, 1, 1)]).await.is_err()
    })
    .await;
    for redis in [&one, &two, &alone] {
        assert_eq!(redis.replicas(), 3);
    }
    // Whoever ends meanwhile is not waited for.
    alone.crash();
    drop(two);
    assert_eq!(one.replicas(), 3);
    server.restart().await;
    until_counted(&[&one], 1).await;
    // All that was kept is lost: each says again that it is there.
    let again = open(&server.url(), "c").await;
    until_counted(&[&one, &again], 2).await;
    server.cli(&["flushall"]).await;
    until("both are there again", PATIENCE, async || {
        server.cli(&["zcard", "c:replicas"]).await == "2"
    })
    .await;
}
