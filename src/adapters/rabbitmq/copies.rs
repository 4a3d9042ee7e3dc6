//! Copies: a due delivery's message that comes while another of the same delivery is out.
//!
//! After a lost connection there may be two: one that was put again because its confirm was
//! lost, or one that is handed out again while the first is under way. The copy waits for what
//! becomes of the first: it is acknowledged or given back with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::locked;
use crate::domain::id::LedgerKey;
use crate::ports::{Receipt, ReceiptDesk};

/// The due deliveries that are out.
#[derive(Default)]
pub(super) struct Out(Mutex<Open>);

#[derive(Default)]
struct Open {
    next: u64,
    numbers: HashMap<LedgerKey, u64>,
    receipts: HashMap<u64, (LedgerKey, Vec<Receipt>)>,
}

impl Out {
    /// A receipt for all messages of the delivery with this key; `None` when it is out already.
    pub(super) fn hand_out(self: &Arc<Self>, key: LedgerKey, receipt: Receipt) -> Option<Receipt> {
        let mut open = locked(&self.0);
        if let Some(number) = open.numbers.get(&key).copied()
            && let Some((_, receipts)) = open.receipts.get_mut(&number)
        {
            receipts.push(receipt);
            return None;
        }
        let number = open.next;
        open.next += 1;
        open.numbers.insert(key, number);
        open.receipts.insert(number, (key, vec![receipt]));
        Some(Receipt::new(number, Arc::clone(self) as _))
    }

    /// The receipts that one stands for; nothing is out any more.
    fn close(&self, number: u64) -> Vec<Receipt> {
        let mut open = locked(&self.0);
        let Some((key, receipts)) = open.receipts.remove(&number) else {
            return Vec::new();
        };
        open.numbers.remove(&key);
        receipts
    }
}

impl ReceiptDesk for Out {
    fn ack(&self, number: u64) {
        self.close(number).into_iter().for_each(Receipt::ack);
    }

    fn requeue(&self, number: u64) {
        drop(self.close(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Desk(Mutex<Vec<(&'static str, u64)>>);

    impl ReceiptDesk for Desk {
        fn ack(&self, tag: u64) {
            self.0.lock().unwrap().push(("ack", tag));
        }
        fn requeue(&self, tag: u64) {
            self.0.lock().unwrap().push(("requeue", tag));
        }
    }

    #[test]
    fn a_copy_shares_the_fate_of_the_first() {
        let (out, desk) = (Arc::new(Out::default()), Arc::new(Desk::default()));
        let receipt = |tag| Receipt::new(tag, Arc::clone(&desk) as _);
        let seen = || std::mem::take(&mut *desk.0.lock().unwrap());
        let (one, two) = (LedgerKey([1; 16]), LedgerKey([2; 16]));
        let first = out.hand_out(one, receipt(1)).unwrap();
        assert!(out.hand_out(one, receipt(2)).is_none());
        let other = out.hand_out(two, receipt(3)).unwrap();
        assert_eq!(seen(), []);
        first.ack();
        assert_eq!(seen(), [("ack", 1), ("ack", 2)]);
        let again = out.hand_out(one, receipt(4)).unwrap();
        assert!(out.hand_out(one, receipt(5)).is_none());
        drop(again);
        assert_eq!(seen(), [("requeue", 4), ("requeue", 5)]);
        other.ack();
        assert_eq!(seen(), [("ack", 3)]);
    }
}
