//! Receipts: a message is settled by one, or comes again.

use std::sync::Arc;

use super::ReceiptDesk;

/// Settles one message: acknowledged, or dropped and so requeued.
#[must_use = "a dropped receipt requeues its message"]
pub struct Receipt {
    tag: u64,
    desk: Option<Arc<dyn ReceiptDesk>>,
}

impl Receipt {
    /// A receipt that reports to `desk` under `tag`.
    pub fn new(tag: u64, desk: Arc<dyn ReceiptDesk>) -> Self {
        Self {
            tag,
            desk: Some(desk),
        }
    }

    /// The message is done with.
    pub fn ack(mut self) {
        if let Some(desk) = self.desk.take() {
            desk.ack(self.tag);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(desk) = self.desk.take() {
            desk.requeue(self.tag);
        }
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Receipt({})", self.tag)
    }
}
