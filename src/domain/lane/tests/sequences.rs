//! Random sequences of everything that can happen to a lane.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Offer(bool),
    Next,
    /// Ends one of the requests under way, chosen by the number.
    End(usize, Option<Answer>, Option<u16>),
    Expire,
    Pass(u16),
    Ceiling(u32),
    Afresh,
}

fn step() -> impl Strategy<Value = Step> {
    let answer = prop_oneof![
        Just(Some(Answer::Success)),
        Just(Some(Answer::Failure)),
        Just(Some(Answer::Failure)),
        Just(Some(Answer::Overload)),
        Just(None),
    ];
    let pause = prop_oneof![9 => Just(None), 1 => (0u16..20_000).prop_map(Some)];
    prop_oneof![
        6 => any::<bool>().prop_map(Step::Offer),
        4 => Just(Step::Next),
        6 => (any::<usize>(), answer, pause).prop_map(|(n, answer, pause)| Step::End(n, answer, pause)),
        1 => Just(Step::Expire),
        3 => (0u16..4_000).prop_map(Step::Pass),
        1 => (0u32..40).prop_map(Step::Ceiling),
        1 => Just(Step::Afresh),
    ]
}

/// A lane, and what is known of its work from outside.
struct World {
    lane: Lane<u32>,
    now: Duration,
    offered: u32,
    /// Work that waits in the lane.
    held: usize,
    under_way: BTreeMap<u32, Pass>,
    /// Turned away, with its time.
    later: Vec<(Duration, u32)>,
    done: Vec<u32>,
    ceiling: u32,
}

impl World {
    fn new() -> Self {
        Self {
            lane: lane(8, None),
            now: NOW,
            offered: 0,
            held: 0,
            under_way: BTreeMap::new(),
            later: Vec::new(),
            done: Vec::new(),
            ceiling: 8,
        }
    }

    fn hear(&mut self, verdict: Verdict<u32>, was_held: bool) {
        self.held -= usize::from(was_held && !matches!(verdict, Verdict::Wait(_)));
        match verdict {
            Verdict::Start(work, pass) => {
                assert!(!self.lane.is_paused(self.now), "started in a pause");
                if self.lane.is_open() {
                    assert!(pass.is_probe, "only a probe passes");
                    let probes = self.under_way.values().filter(|pass| pass.is_probe);
                    assert_eq!(probes.count(), 0, "there is a probe already");
                }
                self.under_way.insert(work, pass);
            }
            Verdict::Wait(_) => self.held += usize::from(!was_held),
            Verdict::Defer(work, until, _) => {
                assert!(until >= self.now);
                self.later.push((until, work));
            }
        }
    }

    fn offer(&mut self, work: u32, freshness: Freshness) {
        let verdict = self.lane.offer(work, freshness, self.now, ROOM, || Ok(()));
        self.hear(verdict, false);
    }

    fn next(&mut self) -> bool {
        if self.lane.held() == 0 {
            return false;
        }
        let verdict = self.lane.next(self.now, ROOM, || Ok(()));
        let moved = !matches!(verdict, Verdict::Wait(_));
        self.hear(verdict, true);
        moved
    }

    fn end(&mut self, work: u32, answer: Option<Answer>, pause: Option<u16>) {
        let Some(pass) = self.under_way.remove(&work) else {
            return;
        };
        if let Some(answer) = answer {
            let until = pause.map(|ms| self.now + Duration::from_millis(ms.into()));
            self.lane.answered(pass, answer, self.now, until);
        }
        self.lane.release(pass, self.now);
        match answer {
            Some(Answer::Success) => self.done.push(work),
            // It failed: it comes back.
            _ => self.later.push((self.now, work)),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Offer(fresh) => {
                self.offered += 1;
                let returning = if fresh {
                    Freshness::Fresh
                } else {
                    Freshness::Returning
                };
                self.offer(self.offered, returning);
            }
            Step::Next => drop(self.next()),
            Step::End(n, answer, pause) => {
                let count = self.under_way.len().max(1);
                let chosen = self.under_way.keys().nth(n % count).copied();
                if let Some(work) = chosen {
                    self.end(work, answer, pause);
                }
            }
            Step::Expire => {
                while let Some(verdict) = self.lane.next_excess(self.now, ROOM) {
                    self.hear(verdict, true);
                }
            }
            Step::Pass(ms) => self.now += Duration::from_millis(ms.into()),
            Step::Ceiling(ceiling) => {
                self.ceiling = self.ceiling.max(ceiling);
                self.lane.set_limits(limits(ceiling, None));
            }
            Step::Afresh => self.lane.begin_afresh(),
        }
    }

    fn check(&self) {
        let under_way = self.under_way.len();
        assert_eq!(self.lane.in_flight() as usize, under_way, "a permit leaks");
        assert!(under_way <= self.ceiling.max(1) as usize);
        assert_eq!(self.lane.held(), self.held);
        let all = self.held + under_way + self.later.len() + self.done.len();
        assert_eq!(all, self.offered as usize, "work is lost, or there twice");
    }

    /// The endpoint is healthy from now on: everything arrives, in a bounded number of steps.
    fn drain(&mut self) {
        for _ in 0..10_000 {
            let under_way: Vec<u32> = self.under_way.keys().copied().collect();
            self.now += Duration::from_millis(10);
            for work in under_way {
                self.end(work, Some(Answer::Success), None);
            }
            let due = |(at, _): &(Duration, u32)| *at <= self.now;
            let due: Vec<_> = self.later.extract_if(.., |one| due(one)).collect();
            for (_, work) in due {
                self.offer(work, Freshness::Returning);
            }
            while self.next() {}
            self.check();
            let idle = self.under_way.is_empty() && self.held == 0;
            match self.later.iter().map(|(at, _)| *at).min() {
                None if idle => return,
                Some(at) if idle => self.now = self.now.max(at),
                _ => {}
            }
        }
        panic!("{} wait and {:?} is to come", self.held, self.later.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nothing_leaks_and_a_healthy_endpoint_gets_everything(
        steps in proptest::collection::vec(step(), 0..400),
    ) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
            world.check();
        }
        world.drain();
        prop_assert_eq!(world.done.len(), world.offered as usize);
    }
}
