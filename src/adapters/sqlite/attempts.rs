//! The attempts that wait for the writer, and whose turn it is.
//!
//! The audit log is in the file that everything else is in, but nobody waits for it: it gets
//! a share of the writer's time, so that many or slow attempts hold up neither a settlement nor
//! a retry. What the disk takes for them at the commit is not counted. What finds no room is not kept, and counted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::audit::AuditRow;

/// The most attempts and their bytes that wait, so that a slow disk takes no memory.
const ROWS_MAX: usize = 8192;
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// How many bytes of them go with one commit: who waits for that waits for them too.
const COMMIT_BYTES_MAX: usize = 1024 * 1024;
/// How long a commit is held up by them, but for one that is slow by itself.
const TURN_MAX: Duration = Duration::from_millis(20);
/// So many times as long as a turn took, the next one waits: at most a quarter of the time.
const REST: u32 = 3;
/// How long they wait after they could not be written.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What waits.
#[derive(Default)]
pub(super) struct Attempts {
    rows: VecDeque<AuditRow>,
    bytes: usize,
    /// When the next turn may begin; at once when `None`.
    rest_until: Option<Instant>,
    /// Whether all are to be written, however long that takes.
    hurry: bool,
}

/// Those of one commit.
#[derive(Default)]
pub(super) struct Turn {
    pub(super) rows: Vec<AuditRow>,
    /// How long writing them may take; `None` for as long as it does.
    pub(super) limit: Option<Duration>,
    /// What came of it.
    pub(super) done: Done,
}

/// How far a turn came.
#[derive(Clone, Copy, Default)]
pub(super) struct Done {
    /// How many, the first of them, are written.
    pub(super) rows: usize,
    pub(super) took: Duration,
}

impl Attempts {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether one of so many bytes would be taken.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.rows.len() < ROWS_MAX && self.bytes + bytes <= BYTES_MAX
    }

    /// Takes one, if there is room; says whether there was.
    pub(super) fn push(&mut self, row: AuditRow) -> bool {
        let has_room = self.has_room(row.bytes());
        if has_room {
            self.bytes += row.bytes();
            self.rows.push_back(row);
        }
        has_room
    }

    /// When what waits may be written, if something does: never before `soonest`.
    pub(super) fn due(&self, soonest: Instant) -> Option<Instant> {
        if self.rows.is_empty() {
            return None;
        }
        let rested = self.rest_until.filter(|_| !self.hurry);
        Some(rested.map_or(soonest, |at| at.max(soonest)))
    }

    /// How many may be written now.
    pub(super) fn ready(&self, now: Instant) -> usize {
        match self.due(now) {
            Some(due) if due <= now => self.rows.len(),
            _ => 0,
        }
    }

    /// Has all that waits written by the next commit.
    pub(super) fn hurry(&mut self) {
        self.hurry = true;
    }

    /// What is to be written with a commit that begins now.
    pub(super) fn take(&mut self, now: Instant) -> Turn {
        if std::mem::take(&mut self.hurry) {
            self.bytes = 0;
            return Turn {
                rows: std::mem::take(&mut self.rows).into(),
                ..Turn::default()
            };
        }
        let mut turn = Turn {
            limit: Some(TURN_MAX),
            ..Turn::default()
        };
        if self.rest_until.is_some_and(|at| at > now) {
            return turn;
        }
        let mut bytes = 0;
        while bytes < COMMIT_BYTES_MAX
            && let Some(row) = self.rows.pop_front()
        {
            bytes += row.bytes();
            turn.rows.push(row);
        }
        self.bytes -= bytes;
        turn
    }

    /// Notes that a turn is over: what was left of it waits on, in front.
    pub(super) fn wrote(&mut self, left: Vec<AuditRow>, took: Duration, now: Instant) {
        self.rest_until = Some(now + took * REST);
        for row in left.into_iter().rev() {
            // There was room for it before; those that came meanwhile wait for the next.
            self.bytes += row.bytes();
            self.rows.push_front(row);
        }
    }

    /// Notes that they could not be written, and takes `rows` back as far as there is room;
    /// says how many there is none for.
    pub(super) fn failed(&mut self, rows: Vec<AuditRow>, now: Instant) -> usize {
        self.rest_until = Some(now + REST_AFTER_FAILURE);
        let mut dropped = 0;
        // The oldest go first: what has the latest to tell is wanted most.
        for row in rows.into_iter().rev() {
            if self.has_room(row.bytes()) {
                self.bytes += row.bytes();
                self.rows.push_front(row);
            } else {
                dropped += 1;
            }
        }
        dropped
    }
}

impl Turn {
    /// Takes out what was not written.
    pub(super) fn left(&mut self) -> Vec<AuditRow> {
        self.rows.split_off(self.done.rows.min(self.rows.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::attempt;
    use super::*;

    fn row(body_bytes: usize) -> AuditRow {
        AuditRow::encode(&attempt(body_bytes), usize::MAX)
    }

    #[test]
    fn attempts_beyond_the_bound_find_no_room() {
        let mut attempts = Attempts::default();
        let kept = (0..10_000).take_while(|_| attempts.push(row(1))).count();
        assert_eq!(kept, 8192);
        let mut attempts = Attempts::default();
        let kept = (0..100).take_while(|_| attempts.push(row(1 << 20))).count();
        assert!((1..=32).contains(&kept), "{kept}");
    }

    #[test]
    fn what_is_taken_back_keeps_the_bound_on_bytes() {
        let now = Instant::now();
        let mut attempts = Attempts::default();
        let fill = |attempts: &mut Attempts| while attempts.push(row(1 << 20)) {};
        fill(&mut attempts);
        let full = attempts.len();
        attempts.hurry();
        let taken = attempts.take(now).rows;
        assert_eq!((taken.len(), attempts.len()), (full, 0));
        // As many came while those could not be written.
        fill(&mut attempts);
        assert_eq!(attempts.failed(taken, now), full);
        assert_eq!(attempts.len(), full);
        assert!(!attempts.has_room(1 << 20));
    }

    #[test]
    fn a_turn_is_small_and_the_next_waits_for_three_times_as_long() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut attempts = Attempts::default();
        for _ in 0..5 {
            attempts.push(row(300 * 1024));
        }
        assert_eq!(attempts.due(at(0)), Some(at(0)));
        let mut turn = attempts.take(at(0));
        assert_eq!((turn.rows.len(), attempts.len()), (4, 1));
        turn.done.rows = 3;
        let left = turn.left();
        assert_eq!((turn.rows.len(), left.len()), (3, 1));
        attempts.wrote(left, Duration::from_millis(10), at(10));
        assert_eq!(attempts.len(), 2);
        assert_eq!(attempts.due(at(11)), Some(at(40)));
        assert!(attempts.take(at(39)).rows.is_empty());
        assert_eq!(attempts.take(at(40)).rows.len(), 2);
        assert_eq!(attempts.due(at(41)), None);
        assert_eq!(attempts.bytes, 0);
    }

    #[test]
    fn in_a_hurry_all_are_taken_at_once() {
        let now = Instant::now();
        let mut attempts = Attempts::default();
        for _ in 0..5 {
            attempts.push(row(300 * 1024));
        }
        attempts.wrote(Vec::new(), Duration::from_secs(60), now);
        attempts.hurry();
        assert_eq!(attempts.due(now), Some(now));
        let turn = attempts.take(now);
        assert_eq!((turn.rows.len(), turn.limit), (5, None));
        assert_eq!(attempts.bytes, 0);
    }
}
