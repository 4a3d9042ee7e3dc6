//! One rule each; random sequences of everything are in `sequences`,
//! failing endpoints in `circuits`.

mod circuits;
mod sequences;

use super::*;

const NOW: Duration = Duration::from_secs(100);
const ROOM: Room = Room {
    slot: true,
    occupied: usize::MAX,
    held_for: HELD_FOR,
};
const OPEN: OpenTimes = OpenTimes {
    first: Duration::from_secs(5),
    max: Duration::from_secs(60),
};

fn limits(in_flight_max: u32, per_second: Option<f64>) -> LaneLimits {
    LaneLimits {
        in_flight_max,
        per_second,
        open: OPEN,
    }
}

fn lane(in_flight_max: u32, per_second: Option<f64>) -> Lane<u32> {
    Lane::new(limits(in_flight_max, per_second), NOW)
}

fn offer(lane: &mut Lane<u32>, work: u32) -> Verdict<u32> {
    lane.offer(work, Freshness::Fresh, NOW, ROOM, || Ok(()))
}

fn offer_at(lane: &mut Lane<u32>, work: u32, now: Duration) -> Verdict<u32> {
    lane.offer(work, Freshness::Fresh, now, ROOM, || Ok(()))
}

fn next(lane: &mut Lane<u32>, now: Duration) -> Verdict<u32> {
    lane.next(now, ROOM, || Ok(()))
}

fn limited(wait: Duration) -> impl Fn() -> Result<(), RateWait> {
    move || Err(RateWait::After(wait))
}

fn start(verdict: Verdict<u32>) -> (u32, Pass) {
    match verdict {
        Verdict::Start(work, pass) => (work, pass),
        other => panic!("it should start: {other:?}"),
    }
}

fn deferred(verdict: Verdict<u32>) -> (Duration, DeferReason) {
    match verdict {
        Verdict::Defer(_, until, reason) => (until, reason),
        other => panic!("it should be turned away: {other:?}"),
    }
}

/// One attempt that takes no time.
fn attempt(lane: &mut Lane<u32>, now: Duration, answer: Answer) {
    let (_, pass) = start(offer_at(lane, 0, now));
    lane.answered(pass, answer, now, None);
    lane.release(pass, now);
}

const WAITS: Verdict<u32> = Verdict::Wait(Awaits::Room);

#[test]
fn starts_up_to_the_window_and_then_in_order() {
    let mut lane = lane(2, None);
    let (one, first) = start(offer(&mut lane, 1));
    let (two, second) = start(offer(&mut lane, 2));
    assert_eq!((one, two), (1, 2));
    assert_eq!(offer(&mut lane, 3), WAITS);
    assert_eq!(offer(&mut lane, 4), WAITS);
    assert_eq!(next(&mut lane, NOW), WAITS);
    lane.release(first, NOW);
    assert_eq!(start(next(&mut lane, NOW)).0, 3);
    lane.release(second, NOW);
    assert_eq!(start(next(&mut lane, NOW)).0, 4);
}

#[test]
fn fresh_work_goes_before_returning_work() {
    let mut lane = lane(1, None);
    let (_, pass) = start(offer(&mut lane, 0));
    let returning = lane.offer(1, Freshness::Returning, NOW, ROOM, || Ok(()));
    assert_eq!(returning, WAITS);
    assert_eq!(offer(&mut lane, 2), WAITS);
    lane.release(pass, NOW);
    assert_eq!(start(next(&mut lane, NOW)).0, 2);
}

#[test]
fn a_reached_rate_says_when_to_ask_again() {
    let mut lane = lane(4, Some(10.0));
    let wait = Duration::from_millis(100);
    let verdict = lane.offer(1, Freshness::Fresh, NOW, ROOM, limited(wait));
    let then = Verdict::Wait(Awaits::Time(NOW + wait));
    assert_eq!(verdict, then);
    assert_eq!(lane.next(NOW, ROOM, limited(wait)), then);
    assert_eq!(start(next(&mut lane, NOW + wait)).0, 1);
}

#[test]
fn who_keeps_the_rate_is_asked_and_the_work_waits() {
    let mut lane = lane(4, Some(10.0));
    let asked = || Err(RateWait::Asked);
    let verdict = lane.offer(1, Freshness::Fresh, NOW, ROOM, asked);
    assert_eq!(verdict, Verdict::Wait(Awaits::Rate));
    assert_eq!(lane.next(NOW, ROOM, asked), Verdict::Wait(Awaits::Rate));
    assert_eq!((lane.held(), lane.in_flight(), lane.free()), (1, 0, 4));
    assert_eq!(start(next(&mut lane, NOW)).0, 1);
}

#[test]
fn holds_about_a_second_and_spreads_the_rest() {
    let mut lane = lane(4, Some(20.0));
    let mut untils = Vec::new();
    for work in 0..100 {
        match lane.offer(work, Freshness::Fresh, NOW, ROOM, limited(HELD_FOR)) {
            Verdict::Wait(_) => {}
            Verdict::Defer(_, until, reason) => {
                assert_eq!(reason, DeferReason::RateLimited);
                untils.push(until);
            }
            Verdict::Start(..) => panic!("the rate was reached"),
        }
    }
    assert_eq!(lane.held(), 40);
    assert_eq!(untils.len(), 60);
    for pair in untils.windows(2) {
        let gap = (pair[1] - pair[0]).as_millis();
        assert!((39..=40).contains(&gap), "20 a second, in haste: {gap}");
    }
    // Who comes back in a heap is spread from now on, not after all others.
    let later = NOW + Duration::from_secs(2);
    let mut again = Vec::new();
    for work in 0..60 {
        let verdict = lane.offer(work, Freshness::Returning, later, ROOM, limited(HELD_FOR));
        if let Verdict::Defer(_, until, _) = verdict {
            again.push(until);
        }
    }
    assert!(again.len() >= 58, "{}", again.len());
    let first = later + HELD_FOR;
    assert!(again[0] <= first + Duration::from_millis(50) && again[57] <= first + HELD_FOR * 3);
}

#[test]
fn a_pause_turns_away_what_waits() {
    let mut lane = lane(1, None);
    let (_, pass) = start(offer(&mut lane, 0));
    assert_eq!(offer(&mut lane, 1), WAITS);
    let until = NOW + Duration::from_secs(30);
    lane.answered(pass, Answer::Overload, NOW, Some(until));
    lane.release(pass, NOW);
    assert!(lane.is_paused(NOW));
    let (at, reason) = deferred(next(&mut lane, NOW));
    assert_eq!(reason, DeferReason::Paused);
    assert!(at > until);
    let (later, _) = deferred(offer(&mut lane, 2));
    assert!(later > at);
    assert!(!lane.is_idle(until, Duration::ZERO));
    assert!(lane.is_idle(later, Duration::ZERO));
}

#[test]
fn what_would_wait_long_for_its_rate_is_not_held() {
    let mut lane = lane(4, Some(1.0 / 3600.0));
    start(offer(&mut lane, 1));
    let hour = Duration::from_secs(3600);
    let second = lane.offer(2, Freshness::Fresh, NOW, ROOM, limited(hour));
    let (first_at, reason) = deferred(second);
    assert_eq!(reason, DeferReason::RateLimited);
    assert!(first_at >= NOW + hour);
    assert_eq!(lane.held(), 0);
    let third = lane.offer(3, Freshness::Fresh, NOW, ROOM, limited(hour));
    let (next_at, _) = deferred(third);
    // A little too early: then it is turned away once more.
    assert!(next_at >= first_at + hour.mul_f64(0.79));
}

#[test]
fn returning_work_is_not_starved_by_fresh_work() {
    let mut lane = lane(1, None);
    let (_, mut pass) = start(offer(&mut lane, 0));
    let returning = lane.offer(999, Freshness::Returning, NOW, ROOM, || Ok(()));
    assert_eq!(returning, WAITS);
    for work in 1..=20 {
        assert_eq!(offer(&mut lane, work), WAITS);
    }
    let mut started = Vec::new();
    for _ in 0..RETURNING_TURN {
        lane.release(pass, NOW);
        let (work, next) = start(next(&mut lane, NOW));
        started.push(work);
        pass = next;
    }
    assert!(started.contains(&999), "{started:?}");
}

#[test]
fn times_handed_out_in_an_outage_do_not_outlast_it() {
    let mut lane = lane(1, None);
    // An endpoint that takes ten seconds for each: a tenth of a request a second.
    let mut now = NOW;
    for _ in 0..50 {
        let (_, pass) = start(offer_at(&mut lane, 0, now));
        now += Duration::from_secs(10);
        lane.answered(pass, Answer::Success, now, None);
        lane.release(pass, now);
    }
    let mut latest = Duration::ZERO;
    for work in 0..5_000 {
        if let Verdict::Defer(_, until, _) = offer_at(&mut lane, work, now) {
            latest = latest.max(until);
        }
    }
    assert!(latest > now + Duration::from_secs(600), "they are spread");
    assert!(
        latest < now + SPREAD_MAX + Duration::from_secs(60),
        "{latest:?}"
    );
}

#[test]
fn rates_beyond_all_measure_are_no_fault() {
    let mut lane = lane(1, Some(1e-300));
    for work in 0..5 {
        let never = limited(Duration::MAX / 4);
        deferred(lane.offer(work, Freshness::Fresh, NOW, ROOM, never));
    }
}

#[test]
fn without_a_slot_work_waits() {
    let mut lane = lane(4, None);
    let room = Room {
        slot: false,
        ..ROOM
    };
    let verdict = lane.offer(1, Freshness::Fresh, NOW, room, || {
        panic!("no rate is used up")
    });
    assert_eq!(verdict, WAITS);
    assert_eq!(lane.held(), 1);
}

#[test]
fn the_window_follows_the_answers() {
    let mut lane = lane(32, None);
    assert_eq!(lane.free(), 4);
    for _ in 0..1000 {
        attempt(&mut lane, NOW, Answer::Success);
    }
    assert_eq!(lane.free(), 32);
    attempt(&mut lane, NOW, Answer::Failure);
    assert_eq!(lane.free(), 32, "a failure is not an overload");
    attempt(&mut lane, NOW, Answer::Overload);
    assert_eq!(lane.free(), 16);
    lane.set_limits(limits(3, None));
    assert_eq!(lane.free(), 3);
}

#[test]
fn an_endpoint_that_does_not_answer_is_known_before_its_time_is_up() {
    let mut lane = lane(32, None);
    for work in 0..4 {
        start(offer(&mut lane, work));
    }
    let soon = NOW + Duration::from_millis(100);
    assert!(!lane.is_slow(soon));
    let late = NOW + Duration::from_secs(2);
    assert!(lane.is_slow(late));
    // Two a second: that much is held, and twice that of fresh work.
    let mut held = 0;
    while offer_at(&mut lane, 9, late) == WAITS {
        held += 1;
    }
    assert_eq!(held, 4);
}

#[test]
fn nothing_waits_long_in_memory() {
    let mut lane = lane(1, None);
    start(offer(&mut lane, 0));
    for work in 1..=3 {
        let at = NOW + Duration::from_millis(u64::from(work) * 100);
        assert_eq!(offer_at(&mut lane, work, at), WAITS);
    }
    assert_eq!(
        lane.next_excess(NOW + Duration::from_millis(200), ROOM),
        None
    );
    let late = NOW + Duration::from_millis(2250);
    let mut untils = Vec::new();
    while let Some(verdict) = lane.next_excess(late, ROOM) {
        let (until, reason) = deferred(verdict);
        assert_eq!(reason, DeferReason::Busy);
        assert!(until > late);
        untils.push(until);
    }
    assert_eq!((untils.len(), lane.held()), (2, 1));
    assert!(untils[1] > untils[0]);
}

#[test]
fn what_is_too_much_by_now_is_turned_away() {
    let mut lane = lane(2, None);
    let (_, first) = start(offer(&mut lane, 0));
    for work in 1..=60 {
        offer(&mut lane, work);
    }
    assert_eq!((lane.held(), lane.in_flight()), (59, 2));
    let soon = NOW + Duration::from_millis(100);
    let mut left = |now, room| {
        while lane.next_excess(now, room).is_some() {}
        lane.held()
    };
    // Twenty a second, then two, then a share of two in all; those under way stay.
    assert_eq!(left(soon, ROOM), 40);
    let second = NOW + Duration::from_secs(1);
    assert_eq!(left(second, ROOM), 4);
    let share = Room {
        occupied: 3,
        ..ROOM
    };
    assert_eq!(left(second, share), 1);
    let share = Room {
        occupied: 1,
        ..ROOM
    };
    assert_eq!(left(second, share), 0);
    lane.release(first, second);
    assert_eq!(lane.in_flight(), 1);
}

#[test]
fn a_store_that_is_slow_does_not_make_the_endpoint_slow() {
    let mut lane = lane(1, None);
    let (_, pass) = start(offer(&mut lane, 0));
    lane.answered(pass, Answer::Success, NOW, None);
    assert_eq!(offer(&mut lane, 1), WAITS);
    let late = NOW + Duration::from_secs(60);
    assert!(!lane.is_slow(late));
    assert_eq!(lane.next_excess(late, ROOM), None);
    lane.release(pass, late);
    assert_eq!(start(next(&mut lane, late)).0, 1);
}

#[test]
fn a_slow_lane_keeps_to_its_share_of_memory() {
    let mut lane = lane(32, None);
    let room = Room {
        slot: true,
        occupied: 2,
        held_for: HELD_FOR,
    };
    let offer =
        |lane: &mut Lane<u32>, work| lane.offer(work, Freshness::Fresh, NOW, room, || Ok(()));
    let (_, first) = start(offer(&mut lane, 1));
    let (_, second) = start(offer(&mut lane, 2));
    assert_eq!(deferred(offer(&mut lane, 3)).1, DeferReason::Busy);
    lane.release(first, NOW);
    start(offer(&mut lane, 4));
    lane.release(second, NOW);
    // What waits already does not start beyond the share either.
    assert_eq!(lane.occupied(), 1);
    let none = Room {
        occupied: 1,
        ..room
    };
    let slotless = Room {
        slot: false,
        ..room
    };
    let waits = lane.offer(5, Freshness::Fresh, NOW, slotless, || Ok(()));
    assert_eq!(waits, WAITS);
    assert_eq!(lane.next(NOW, none, || Ok(())), WAITS);
    assert_eq!(start(lane.next(NOW, room, || Ok(()))).0, 5);
}
