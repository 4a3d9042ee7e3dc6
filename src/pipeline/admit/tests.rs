//! Lanes, permits and rates together, under a paused clock.

mod replicas;

use super::*;

fn endpoint(name: &str) -> SubscriptionId {
    SubscriptionId::parse(name).unwrap()
}

fn limits(in_flight_max: u32, rate: Option<(f64, u64)>) -> EndpointLimits {
    EndpointLimits {
        in_flight_max,
        rate: rate.map(|(per_second, burst)| RateLimit::try_new(per_second, burst).unwrap()),
        open: OpenTimes {
            first: Duration::from_secs(1),
            max: Duration::from_secs(60),
        },
        changed_at: UnixMillis(0),
    }
}

fn admit<W>(in_flight_max: usize) -> (Admit<W>, mpsc::UnboundedReceiver<Granted<W>>) {
    Admit::new(AdmitSettings {
        in_flight_max,
        slow_max: 1000,
        rates: None,
    })
}

#[tokio::test(start_paused = true)]
async fn a_dropped_permit_starts_what_waits() {
    let (admit, mut granted) = admit(100);
    let one = endpoint("sub_1");
    let offer = |work| admit.offer(&Scope::Every, &one, limits(1, None), work, Freshness::Fresh);
    let Admission::Now(1, permit) = offer(1) else {
        panic!("the lane is free");
    };
    assert!(matches!(offer(2), Admission::Queued));
    assert_eq!(admit.counts().held, 1);
    drop(permit);
    let Some(Granted::Start(2, permit)) = granted.recv().await else {
        panic!("the next one starts");
    };
    drop(permit);
    assert_eq!(admit.counts().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn the_process_bound_is_shared_in_turn() {
    let (admit, mut granted) = admit(1);
    let offer = |name: &str, work| {
        admit.offer(
            &Scope::Every,
            &endpoint(name),
            limits(8, None),
            work,
            Freshness::Fresh,
        )
    };
    let Admission::Now(_, permit) = offer("sub_1", "a1") else {
        panic!("there is room");
    };
    for work in ["a2", "a3"] {
        assert!(matches!(offer("sub_1", work), Admission::Queued));
    }
    assert!(matches!(offer("sub_2", "b1"), Admission::Queued));
    let mut order = Vec::new();
    let mut held = Some(permit);
    for _ in 0..3 {
        drop(held.take());
        if let Some(Granted::Start(work, permit)) = granted.recv().await {
            order.push(work);
            held = Some(permit);
        }
    }
    assert_eq!(order, ["a2", "b1", "a3"]);
}

#[tokio::test(start_paused = true)]
async fn a_rate_holds_in_every_window() {
    let (admit, mut granted) = admit(1000);
    let one = endpoint("sub_1");
    let timers = admit.clone();
    let timers = tokio::spawn(async move { timers.run_timers().await });
    let start = Instant::now();
    let mut starts = Vec::new();
    let mut queued = 0;
    for work in 0..25 {
        match admit.offer(
            &Scope::Every,
            &one,
            limits(50, Some((20.0, 5))),
            work,
            Freshness::Fresh,
        ) {
            Admission::Now(_, permit) => {
                permit.report(Answer::Success, None);
                starts.push(Duration::ZERO);
            }
            Admission::Queued => queued += 1,
            other => panic!("a second's worth is held: {other:?}"),
        }
    }
    assert_eq!(starts.len(), 5);
    for _ in 0..queued {
        let Some(Granted::Start(..)) = granted.recv().await else {
            panic!("what waits starts");
        };
        starts.push(start.elapsed());
    }
    for (i, from) in starts.iter().enumerate() {
        for (n, to) in starts[i..].iter().enumerate() {
            let allowed = 5.0 + 20.0 * (*to - *from).as_secs_f64();
            assert!((n + 1) as f64 <= allowed + 1e-6, "{n} in {:?}", *to - *from);
        }
    }
    let took = starts.last().unwrap().as_secs_f64();
    assert!(took < 20.0 / 20.0 * 1.1 + 0.05, "took {took}");
    admit.close();
    timers.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn closing_gives_back_what_waits() {
    let (admit, _granted) = admit(1);
    let one = endpoint("sub_1");
    let offer = |work| admit.offer(&Scope::Every, &one, limits(1, None), work, Freshness::Fresh);
    let Admission::Now(_, permit) = offer(1) else {
        panic!("the lane is free");
    };
    assert!(matches!(offer(2), Admission::Queued));
    assert_eq!(admit.close(), [2]);
    assert!(matches!(offer(3), Admission::Refuse(3)));
    drop(permit);
    assert_eq!(admit.counts().in_flight, 0);
}
