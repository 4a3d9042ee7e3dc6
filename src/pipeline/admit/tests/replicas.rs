//! Several processes with one rate, which somebody keeps for all of them, or nobody does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;

use super::*;
use crate::ports::{RateAnswer, StoreError};

const RATE: f64 = 20.0;
const BURST: u32 = 5;
const REPLICAS: u32 = 3;

/// Keeps rates as a store that all replicas share would, by tokio's clock.
struct Shared {
    began: Instant,
    /// Until when each endpoint's rate is used up.
    used_until: Mutex<HashMap<SubscriptionId, Duration>>,
    asked: AtomicUsize,
}

/// The way of one replica to it.
struct Way {
    shared: Arc<Shared>,
    is_cut: AtomicBool,
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            used_until: Mutex::default(),
            asked: AtomicUsize::new(0),
        })
    }
}

#[async_trait]
impl SharedRates for Way {
    async fn take(&self, asks: &[RateAsk]) -> Result<Vec<RateAnswer>, StoreError> {
        let shared = &self.shared;
        shared.asked.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(1)).await;
        if self.is_cut.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("away".to_owned()));
        }
        let now = shared.began.elapsed();
        let mut all = shared.used_until.lock().unwrap();
        let answer = |ask: &RateAsk| {
            let interval = Duration::from_secs_f64(1.0 / ask.rate.per_second);
            let used_until = all.entry(ask.endpoint.clone()).or_default();
            *used_until = (*used_until).max(now + ask.debt).max(now);
            let mut granted = 0;
            while granted < ask.wanted && *used_until - now <= interval * (ask.rate.burst - 1) {
                *used_until += interval;
                granted += 1;
            }
            RateAnswer {
                granted,
                debt: *used_until - now,
            }
        };
        Ok(asks.iter().map(answer).collect())
    }

    fn replicas(&self) -> u32 {
        REPLICAS
    }
}

/// Processes with the loops of each.
struct Replicas {
    all: Arc<Vec<Admit<u32>>>,
    ways: Vec<Arc<Way>>,
    turns: Arc<Mutex<fastrand::Rng>>,
    starts: Arc<Mutex<Vec<Duration>>>,
    loops: Vec<tokio::task::JoinHandle<()>>,
}

impl Replicas {
    /// A request that has started ends 20 ms later. What is turned away comes back when it is
    /// due, to any of them.
    fn begin(shared: &Arc<Shared>) -> Self {
        let way = |_| {
            Arc::new(Way {
                shared: Arc::clone(shared),
                is_cut: AtomicBool::new(false),
            })
        };
        let ways: Vec<_> = (0..REPLICAS).map(way).collect();
        let new = |way: &Arc<Way>| {
            Admit::new(AdmitSettings {
                in_flight_max: 1000,
                slow_max: 1000,
                rates: Some(Arc::clone(way) as Arc<dyn SharedRates>),
            })
        };
        let (all, granted): (Vec<_>, Vec<_>) = ways.iter().map(new).unzip();
        let mut replicas = Self {
            all: Arc::new(all),
            ways,
            turns: Arc::new(Mutex::new(fastrand::Rng::with_seed(4))),
            starts: Arc::default(),
            loops: Vec::new(),
        };
        for (n, mut granted) in granted.into_iter().enumerate() {
            let (timers, rates) = (replicas.all[n].clone(), replicas.all[n].clone());
            let (offers, starts) = (replicas.offers(), Arc::clone(&replicas.starts));
            let began = shared.began;
            let serve = async move {
                while let Some(granted) = granted.recv().await {
                    match granted {
                        Granted::Start(_, permit) => {
                            starts.lock().unwrap().push(began.elapsed());
                            tokio::spawn(async move {
                                tokio::time::sleep(Duration::from_millis(20)).await;
                                permit.report(Answer::Success, None);
                            });
                        }
                        Granted::Defer { work, after, .. } => offers.come_back(work, after),
                    }
                }
            };
            replicas.loops.extend([
                tokio::spawn(async move { timers.run_timers().await }),
                tokio::spawn(async move { rates.run_rates().await }),
                tokio::spawn(serve),
            ]);
        }
        replicas
    }

    fn offers(&self) -> Offers {
        Offers {
            all: Arc::clone(&self.all),
            turns: Arc::clone(&self.turns),
        }
    }

    async fn started(&self, count: usize) -> Vec<Duration> {
        while self.starts.lock().unwrap().len() < count {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.starts.lock().unwrap().clone()
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        for one in &self.loops {
            one.abort();
        }
    }
}

/// Gives work to any of them, as a queue does that they share.
#[derive(Clone)]
struct Offers {
    all: Arc<Vec<Admit<u32>>>,
    turns: Arc<Mutex<fastrand::Rng>>,
}

impl Offers {
    fn offer(&self, work: u32, freshness: Freshness) {
        let turn = self.turns.lock().unwrap().usize(..self.all.len());
        let admit = &self.all[turn];
        let limits = limits(32, Some((RATE, BURST.into())));
        match admit.offer(&Scope::Every, &endpoint("sub_1"), limits, work, freshness) {
            Admission::Now(..) => panic!("nothing starts before anyone was asked"),
            Admission::Queued => {}
            Admission::Defer { work, after, .. } => self.come_back(work, after),
            Admission::Refuse(_) => panic!("it is not closed"),
        }
    }

    fn come_back(&self, work: u32, after: Duration) {
        let offers = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            offers.offer(work, Freshness::Returning);
        });
    }
}

fn assert_within_the_rate(starts: &[Duration]) {
    for (i, from) in starts.iter().enumerate() {
        for (n, to) in starts[i..].iter().enumerate() {
            let allowed = f64::from(BURST) + RATE * (*to - *from).as_secs_f64();
            // A grant is used a moment after it was made.
            let count = (n + 1) as f64;
            assert!(count <= allowed + 1.0, "{count} in {:?}", *to - *from);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn three_replicas_keep_one_rate() {
    const EVENTS: usize = 1200;
    let shared = Shared::new();
    let replicas = Replicas::begin(&shared);
    for work in 0..EVENTS as u32 {
        replicas.offers().offer(work, Freshness::Fresh);
    }
    let starts = replicas.started(EVENTS).await;
    assert_within_the_rate(&starts);
    let took = (starts[EVENTS - 1] - starts[0]).as_secs_f64();
    let least = (EVENTS as f64 - f64::from(BURST)) / RATE;
    assert!(took < least / 0.9, "{took} s, at the rate {least} s");
    // All that is held asks together: far from a question for each request of each replica.
    let asked = shared.asked.load(Ordering::Relaxed);
    assert!(asked < 8_000, "{asked}");
}

#[tokio::test(start_paused = true)]
async fn each_keeps_to_its_share_while_nobody_answers() {
    let shared = Shared::new();
    let replicas = Replicas::begin(&shared);
    for work in 0..900 {
        replicas.offers().offer(work, Freshness::Fresh);
    }
    replicas.started(200).await;
    for way in &replicas.ways {
        way.is_cut.store(true, Ordering::Relaxed);
    }
    let gone_at = shared.began.elapsed();
    replicas.started(500).await;
    let away_for = (shared.began.elapsed() - gone_at).as_secs_f64();
    assert!(
        300.0 / away_for > 0.8 * RATE,
        "they go on: {away_for} s for 300"
    );
    // Who keeps the rates has lost all it knew.
    shared.used_until.lock().unwrap().clear();
    // One after the other notices that somebody answers again.
    for way in &replicas.ways {
        way.is_cut.store(false, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(1200)).await;
    }
    let back_at = shared.began.elapsed();
    let came = replicas.starts.lock().unwrap().len();
    let starts = replicas.started(900).await;
    assert_within_the_rate(&starts);
    let took = (starts[899] - back_at).as_secs_f64();
    let pace = (900 - came) as f64 / took;
    assert!(pace > 0.8 * RATE, "{pace} a second when all are back");
}
