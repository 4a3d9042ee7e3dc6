//! Which messages of a channel are settled, and which acks can go in one frame.
//!
//! Tags count from 1 in each channel. An ack "up to" a tag settles all before it as well;
//! RabbitMQ refuses one for a tag that is not open (AMQP 0-9-1, basic.ack).

use std::collections::BTreeSet;

/// The settled tags of a channel.
#[derive(Default)]
pub(super) struct Acked {
    /// All up to here are settled.
    up_to: u64,
    /// Settled, with a gap before them.
    beyond: BTreeSet<u64>,
    /// Settled, and RabbitMQ does not know it yet.
    held: BTreeSet<u64>,
}

impl Acked {
    /// Notes that tags are done with, and to be acknowledged.
    pub(super) fn settle(&mut self, tags: &[u64]) {
        for tag in tags {
            self.skip(*tag);
            self.held.insert(*tag);
        }
    }

    /// Notes that a tag is settled in another way.
    pub(super) fn skip(&mut self, tag: u64) {
        self.beyond.insert(tag);
        while self.beyond.remove(&(self.up_to + 1)) {
            self.up_to += 1;
        }
    }

    /// Up to which tag all are to be acknowledged now, in one frame.
    pub(super) fn together(&mut self) -> Option<u64> {
        let alone = self.held.split_off(&(self.up_to + 1));
        let together = std::mem::replace(&mut self.held, alone);
        together.last().copied()
    }

    /// Whether some are not acknowledged because of a gap.
    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Those: each is to be acknowledged by itself.
    pub(super) fn alone(&mut self) -> impl Iterator<Item = u64> + use<> {
        std::mem::take(&mut self.held).into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(acked: &mut Acked, tags: &[u64]) -> Option<u64> {
        acked.settle(tags);
        acked.together()
    }

    #[test]
    fn what_has_no_gap_is_acknowledged_together() {
        let mut acked = Acked::default();
        assert_eq!(add(&mut acked, &[3, 2]), None);
        assert_eq!(add(&mut acked, &[1]), Some(3));
        assert!(!acked.is_holding());
        assert_eq!(add(&mut acked, &[6, 7]), None);
        assert!(acked.is_holding());
        assert_eq!(acked.alone().collect::<Vec<_>>(), [6, 7]);
        assert_eq!(add(&mut acked, &[4]), Some(4));
        acked.skip(5);
        assert_eq!(acked.together(), None, "6 and 7 are known already");
        assert_eq!(add(&mut acked, &[9, 8, 11]), Some(9));
    }

    #[test]
    fn only_an_open_tag_is_acknowledged() {
        let mut acked = Acked::default();
        let mut open: BTreeSet<u64> = (1..=300).collect();
        let mut left: Vec<u64> = open.iter().copied().collect();
        let mut random = fastrand::Rng::with_seed(7);
        random.shuffle(&mut left);
        while !left.is_empty() {
            let some = left.split_off(left.len() - left.len().min(random.usize(1..9)));
            if let Some(tag) = add(&mut acked, &some) {
                assert!(open.contains(&tag), "{tag}");
                open.retain(|open| *open > tag);
            }
            if random.u8(0..4) == 0 {
                for tag in acked.alone() {
                    assert!(open.remove(&tag), "{tag}");
                }
            }
        }
        for tag in acked.alone() {
            assert!(open.remove(&tag), "{tag}");
        }
        assert!(open.is_empty(), "{open:?}");
    }
}
