//! Attempts: one HTTP request of a delivery, as the audit log keeps it.

use std::time::Duration;

use bytes::Bytes;

use super::id::{DeliveryId, EventId, EventType, SubscriptionId, TenantId};
use super::outcome::Reason;
use super::timestamp::UnixMillis;

/// How much of a response body is read and kept.
///
/// Read, not sliced: a hostile endpoint must not choose our memory.
pub const RESPONSE_BYTES_MAX: usize = 16 * 1024;

/// What was sent, what came back, how long it took and what follows.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The attempt's number within it, from 1 each time that a person has it sent again.
    pub number: u32,
    /// How often a person had it sent again before.
    pub redrives: u32,
    /// Whom it was for.
    pub subscription: SubscriptionId,
    /// Whether that is a subscription of every tenant.
    pub shared: bool,
    /// The event's tenant.
    pub tenant: TenantId,
    /// The event.
    pub event: EventId,
    /// The event's type.
    pub kind: EventType,
    /// When the request began.
    pub at: UnixMillis,
    /// What was sent.
    pub request: SentRequest,
    /// What came back; `None` when no answer came.
    pub response: Option<Response>,
    /// Why it failed; `None` when it was delivered.
    pub reason: Option<Reason>,
    /// A sentence on what went wrong; empty when it was delivered.
    pub detail: String,
    /// How long its parts took.
    pub timing: Timing,
    /// What follows: the code of an action.
    pub next_action: NextAction,
    /// When the retry is due.
    pub next_at: Option<UnixMillis>,
    /// Whether the Test action made it.
    pub test: bool,
}

impl Attempt {
    /// Whether it belongs to `tenant`: its event does, and its subscription is the tenant's own.
    pub fn is_of(&self, tenant: &TenantId) -> bool {
        !self.shared && self.tenant == *tenant
    }
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextAction {
    /// Nothing: delivered, or a test.
    None,
    /// Another attempt.
    Retry,
    /// It was given up.
    DeadLetter,
}

impl NextAction {
    /// The name in JSON.
    pub fn code(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Retry => "retry",
            Self::DeadLetter => "dead_letter",
        }
    }

    /// Finds the action that has this name.
    pub fn from_code(code: &str) -> Self {
        [Self::Retry, Self::DeadLetter]
            .into_iter()
            .find(|action| action.code() == code)
            .unwrap_or(Self::None)
    }
}

/// A request as it went out.
#[derive(Clone, Debug)]
pub struct SentRequest {
    /// Where to.
    pub url: String,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Bytes,
    /// Whether `body` was cut for keeping, so that it cannot be sent again from here.
    pub body_cut: bool,
}

/// An answer as it came in.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// The HTTP status code.
    pub status: u16,
    /// Its headers, names in lower case; what is not UTF-8 is replaced.
    pub headers: Vec<(String, String)>,
    /// The first [`RESPONSE_BYTES_MAX`] bytes of its body.
    pub body: Bytes,
    /// Whether the body went on, or broke off.
    pub body_cut: bool,
}

/// How long the parts of an attempt took, where known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Looking up the name.
    pub dns: Option<Duration>,
    /// Connecting, TLS included.
    pub connect: Option<Duration>,
    /// Until the head of the answer was there.
    pub first_byte: Option<Duration>,
    /// The whole attempt.
    pub total: Duration,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An attempt of nothing in particular, delivered.
    pub(crate) fn plain() -> Attempt {
        Attempt {
            delivery: DeliveryId::parse("msg_1").unwrap(),
            number: 1,
            redrives: 0,
            subscription: SubscriptionId::parse("sub_1").unwrap(),
            shared: false,
            tenant: TenantId::parse("acme").unwrap(),
            event: EventId::parse("e").unwrap(),
            kind: EventType::parse("t").unwrap(),
            at: UnixMillis(1000),
            request: SentRequest {
                url: "https://example.com/".to_owned(),
                headers: Vec::new(),
                body: Bytes::new(),
                body_cut: false,
            },
            response: None,
            reason: None,
            detail: String::new(),
            timing: Timing::default(),
            next_action: NextAction::None,
            next_at: None,
            test: false,
        }
    }
}
