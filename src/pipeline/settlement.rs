//! Settlements: an event is acknowledged when the last of its deliveries is settled.
//!
//! *Invariant: forgetting is safe.* Each delivery holds a [`Ticket`]; a ticket that is
//! dropped without being settled (a panic, a shutdown, a bug) makes the message come
//! again instead of being acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::ports::Receipt;

/// One message under way, shared by the tickets of its deliveries.
///
/// The last ticket dropped closes it; the count of tickets is the count of references.
struct Settlement {
    receipt: Option<Receipt>,
    forgotten: AtomicBool,
    on_close: Option<Box<dyn FnOnce(bool) + Send + Sync>>,
}

/// The part of one delivery in the settlement of its message.
#[must_use = "a dropped ticket makes its message come again"]
pub struct Ticket {
    settlement: Arc<Settlement>,
    settled: bool,
}

impl Ticket {
    /// Opens a settlement; this is its first ticket. `on_close` is told whether the
    /// message was acknowledged.
    pub fn open(receipt: Receipt, on_close: impl FnOnce(bool) + Send + Sync + 'static) -> Self {
        Self {
            settlement: Arc::new(Settlement {
                receipt: Some(receipt),
                forgotten: AtomicBool::new(false),
                on_close: Some(Box::new(on_close)),
            }),
            settled: false,
        }
    }

    /// One more ticket of the same settlement.
    pub fn another(&self) -> Self {
        Self {
            settlement: Arc::clone(&self.settlement),
            settled: false,
        }
    }

    /// How many other tickets of this settlement are open.
    pub fn siblings(&self) -> usize {
        Arc::strong_count(&self.settlement) - 1
    }

    /// This part is durable.
    pub fn settle(mut self) {
        self.settled = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.settled {
            self.settlement.forgotten.store(true, Ordering::Release);
        }
    }
}

impl Drop for Settlement {
    fn drop(&mut self) {
        let acknowledged = !*self.forgotten.get_mut();
        if let Some(receipt) = self.receipt.take()
            && acknowledged
        {
            receipt.ack();
        }
        if let Some(on_close) = self.on_close.take() {
            on_close(acknowledged);
        }
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ticket(settled: {})", self.settled)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::ports::ReceiptDesk;

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

    fn seen(desk: &Desk) -> Vec<(&'static str, u64)> {
        desk.0.lock().unwrap().clone()
    }

    #[test]
    fn the_last_settled_ticket_acknowledges() {
        let desk = Arc::new(Desk::default());
        let first = Ticket::open(Receipt::new(7, desk.clone()), |ok| assert!(ok));
        let second = first.another();
        first.settle();
        assert_eq!(seen(&desk), []);
        second.settle();
        assert_eq!(seen(&desk), [("ack", 7)]);
    }

    #[test]
    fn one_forgotten_ticket_requeues() {
        let desk = Arc::new(Desk::default());
        let first = Ticket::open(Receipt::new(7, desk.clone()), |ok| assert!(!ok));
        let second = first.another();
        drop(second);
        first.settle();
        assert_eq!(seen(&desk), [("requeue", 7)]);
    }

    #[test]
    fn a_panic_requeues() {
        let desk = Arc::new(Desk::default());
        let ticket = Ticket::open(Receipt::new(1, desk.clone()), |_| {});
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = ticket;
            panic!("a bug");
        }));
        assert!(result.is_err());
        assert_eq!(seen(&desk), [("requeue", 1)]);
    }
}
