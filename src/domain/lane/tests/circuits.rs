//! Endpoints that fail: what passes, what is turned away, and until when.

use super::*;

/// Five failures at `NOW`.
fn open_lane(in_flight_max: u32) -> Lane<u32> {
    let mut lane = lane(in_flight_max, None);
    for _ in 0..5 {
        attempt(&mut lane, NOW, Answer::Failure);
    }
    assert!(lane.is_open());
    lane
}

#[test]
fn an_open_circuit_turns_away_and_spreads_what_comes_back() {
    let mut lane = open_lane(32);
    let until = NOW + OPEN.first;
    let (first, reason) = deferred(offer(&mut lane, 1));
    // The first is there in time to be the probe.
    assert_eq!((first, reason), (until, DeferReason::CircuitOpen));
    // The others soon after it, one by one, and beyond a while at the same times again.
    let span = OPEN.first * OPEN_SPREAD;
    let mut each_second = [0; 50];
    for work in 1..5000 {
        let (at, _) = deferred(offer(&mut lane, work));
        assert!(at >= until && at < until + span, "{at:?}");
        assert!(work > 100 || at == until + OPEN_INTERVAL * work);
        each_second[(at - until).as_secs() as usize] += 1;
    }
    assert!(
        each_second.iter().all(|count| (99..=100).contains(count)),
        "{each_second:?}"
    );
}

#[test]
fn one_probe_passes_and_closes_the_circuit_again() {
    let mut lane = open_lane(32);
    let then = NOW + OPEN.first;
    let (_, probe) = start(offer_at(&mut lane, 1, then));
    // One more waits for the probe, the others are turned away.
    assert_eq!(offer_at(&mut lane, 2, then), WAITS);
    assert_eq!(next(&mut lane, then), WAITS);
    lane.answered(probe, Answer::Success, then, None);
    lane.release(probe, then);
    assert!(!lane.is_open());
    assert_eq!(lane.free(), 1, "it begins with one at a time");
    assert_eq!(start(next(&mut lane, then)).0, 2);
}

#[test]
fn a_failed_probe_turns_away_what_waited_for_it() {
    let mut lane = open_lane(32);
    let then = NOW + OPEN.first;
    let (_, probe) = start(offer_at(&mut lane, 1, then));
    assert_eq!(offer_at(&mut lane, 2, then), WAITS);
    lane.answered(probe, Answer::Overload, then, None);
    lane.release(probe, then);
    let (at, reason) = deferred(next(&mut lane, then));
    assert_eq!(
        (at, reason),
        (then + 2 * OPEN.first, DeferReason::CircuitOpen)
    );
}

#[test]
fn a_probe_that_is_dropped_is_made_up_for() {
    let mut lane = open_lane(32);
    let then = NOW + OPEN.first;
    let (_, probe) = start(offer_at(&mut lane, 1, then));
    assert_eq!(offer_at(&mut lane, 2, then), WAITS);
    lane.release(probe, then);
    assert_eq!(start(next(&mut lane, then)).0, 2);
}

#[test]
fn what_a_person_changed_begins_afresh() {
    let mut lane = open_lane(32);
    deferred(offer(&mut lane, 1));
    lane.begin_afresh();
    for work in 0..4 {
        start(offer(&mut lane, work));
    }
    assert_eq!(offer(&mut lane, 4), WAITS);
}

/// Every answer, in every state of the circuit, before and after a pause: what passes next.
#[test]
fn every_answer_in_every_state_leads_on() {
    use Answer::{Failure, Overload, Success};
    let second = Duration::from_secs(1);
    let pauses = [None, Some(second), Some(second * 90)];
    // Failures before it, answer, whether the circuit is open then.
    let table = [
        (0, Success, false),
        (0, Failure, false),
        (0, Overload, false),
        (4, Success, false),
        (4, Failure, true),
        (4, Overload, true),
        (5, Success, false),
        (5, Failure, true),
        (5, Overload, true),
    ];
    for (failures, answer, is_open) in table {
        for pause in pauses {
            let mut lane = lane(32, None);
            for _ in 0..failures {
                attempt(&mut lane, NOW, Failure);
            }
            // The probe, when there were five.
            let now = NOW + OPEN.first;
            let (_, pass) = start(offer_at(&mut lane, 0, now));
            let until = pause.map(|pause| now + pause);
            lane.answered(pass, answer, now, until);
            lane.release(pass, now);
            assert_eq!(lane.is_open(), is_open, "{failures} {answer:?}");
            let open_for = match (is_open, failures) {
                (false, _) => Duration::ZERO,
                (true, 5) => 2 * OPEN.first,
                (true, _) => OPEN.first,
            };
            let free_at = now + open_for.max(pause.unwrap_or_default());
            for (at, passes) in [
                (now, free_at == now),
                (free_at - Duration::from_nanos(1), free_at == now),
                (free_at, true),
                (free_at + second, true),
            ] {
                let at = at.max(now);
                let mut lane = lane.clone_for_a_look();
                let verdict = offer_at(&mut lane, 1, at);
                let started = matches!(verdict, Verdict::Start(..));
                assert_eq!(
                    started,
                    passes || at == free_at,
                    "{failures} {answer:?} {pause:?}"
                );
                if !started {
                    assert!(deferred(verdict).0 >= free_at);
                }
            }
        }
    }
}

impl Lane<u32> {
    /// An idle lane in the same state.
    fn clone_for_a_look(&self) -> Self {
        assert_eq!(self.occupied(), 0);
        Self {
            fresh: VecDeque::new(),
            returning: VecDeque::new(),
            under_way: UnderWay::default(),
            ..*self
        }
    }
}
