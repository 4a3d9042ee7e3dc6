//! The codes of problems: what programs go by. *Invariant: there are no others*, as a
//! [`Problem`](super::Problem) is made of one.

use http::StatusCode;

use crate::domain::delivery::DeadReason;
use crate::domain::event::FaultReason;

macro_rules! codes {
    ($(#[doc = $sentence:literal] $name:ident = $status:ident $code:literal;)+) => {
        /// What went wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $(#[doc = $sentence] $name,)+
            /// What is wrong with an event.
            Event(FaultReason),
            /// Why a delivery would not be sent.
            Dead(DeadReason),
        }

        impl Code {
            const OWN: &[Self] = &[$(Self::$name),+];

            /// As it stands in the document.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)+
                    Self::Event(reason) => reason.code(),
                    Self::Dead(reason) => reason.code(),
                }
            }

            /// The status that it is answered with.
            pub fn status(self) -> StatusCode {
                match self {
                    $(Self::$name => StatusCode::$status,)+
                    Self::Event(reason) => status_of(reason),
                    Self::Dead(_) => StatusCode::CONFLICT,
                }
            }

            /// What it means, for a person.
            pub fn sentence(self) -> &'static str {
                match self {
                    $(Self::$name => $sentence.trim_ascii(),)+
                    Self::Event(reason) => sentence_of(reason),
                    Self::Dead(DeadReason::SubscriptionDisabled) => "Its subscription is disabled.",
                    Self::Dead(_) => "Its subscription was deleted.",
                }
            }
        }
    };
}

codes! {
    /// The body is not JSON, or not of the kind that is expected.
    Malformed = BAD_REQUEST "malformed";
    /// The body broke off.
    IncompleteBody = BAD_REQUEST "incomplete_body";
    /// A header of the request breaks its rule; `field` names it.
    InvalidHeader = BAD_REQUEST "invalid_header";
    /// A token is needed, or the token is not valid.
    Unauthorized = UNAUTHORIZED "unauthorized";
    /// The tenant token is over: have another one made.
    TokenExpired = UNAUTHORIZED "token_expired";
    /// The token is good, and not for this.
    Forbidden = FORBIDDEN "forbidden";
    /// Without `http.admin_token`, what a browser sends for a page of another origin is refused.
    CrossOrigin = FORBIDDEN "cross_origin";
    /// There is no such thing, or it is not the caller's.
    NotFound = NOT_FOUND "not_found";
    /// The resource does not know the method; `Allow` says which ones it does.
    MethodNotAllowed = METHOD_NOT_ALLOWED "method_not_allowed";
    /// The body did not arrive in good time.
    SlowBody = REQUEST_TIMEOUT "slow_body";
    /// Someone else changed it at the same time: read it again and repeat.
    Conflict = CONFLICT "conflict";
    /// The idempotency key made something that is older than a day or was changed since; `id` names it.
    IdempotencyKeyUsed = CONFLICT "idempotency_key_used";
    /// The idempotency key made something else; `id` names it.
    IdempotencyKeyReused = CONFLICT "idempotency_key_reused";
    /// As many secrets as may sign for it already: wait until an overlap is over.
    TooManySecrets = CONFLICT "too_many_secrets";
    /// `secrets.keys` is not set, so there is no key to encrypt under.
    NoKeys = CONFLICT "no_keys";
    /// The Test action made it: test the subscription again instead.
    TestDelivery = CONFLICT "test_delivery";
    /// Only the beginning of its body was kept: publish its event again.
    BodyNotKept = CONFLICT "body_not_kept";
    /// It has another version than was asked for; `etag` is the one that it has.
    PreconditionFailed = PRECONDITION_FAILED "precondition_failed";
    /// The body is larger than the resource takes.
    TooLarge = PAYLOAD_TOO_LARGE "too_large";
    /// The content type is none that the resource reads.
    UnsupportedContentType = UNSUPPORTED_MEDIA_TYPE "unsupported_content_type";
    /// A field breaks its rule; `field` is its path, `index` which item of a list.
    InvalidField = UNPROCESSABLE_ENTITY "invalid_field";
    /// A parameter of the query breaks its rule or is not known; `field` names it.
    InvalidParameter = UNPROCESSABLE_ENTITY "invalid_parameter";
    /// The list has too many items, or none.
    InvalidBatch = UNPROCESSABLE_ENTITY "invalid_batch";
    /// An item of the list is not what is expected; `index` says which.
    InvalidItem = UNPROCESSABLE_ENTITY "invalid_item";
    /// Too often; `Retry-After` says when to try again.
    TooManyRequests = TOO_MANY_REQUESTS "too_many_requests";
    /// Something went wrong inside; the log says what.
    Internal = INTERNAL_SERVER_ERROR "internal";
    /// The store does not answer; nothing was changed, or it is not known: try again.
    StoreUnavailable = SERVICE_UNAVAILABLE "store_unavailable";
    /// The store has lost what it held: restore it, or run `carillon init` for a new one.
    StoreLost = SERVICE_UNAVAILABLE "store_lost";
    /// A subscription is encrypted under a key that `secrets.keys` does not have; `key` is its id.
    KeyMissing = SERVICE_UNAVAILABLE "key_missing";
}

impl Code {
    /// What may be wrong with an event that is published.
    pub const OF_EVENTS: [Self; 6] = [
        Self::Event(FaultReason::Malformed),
        Self::Event(FaultReason::TooLarge),
        Self::Event(FaultReason::UnsupportedContentType),
        Self::Event(FaultReason::MissingField),
        Self::Event(FaultReason::InvalidField),
        Self::Event(FaultReason::ReservedType),
    ];
    /// Why a delivery would not be sent again.
    pub const OF_REDELIVERIES: [Self; 4] = [
        Self::TestDelivery,
        Self::BodyNotKept,
        Self::Dead(DeadReason::SubscriptionDisabled),
        Self::Dead(DeadReason::SubscriptionDeleted),
    ];

    /// Every code that is answered; some of events have the name of another.
    pub fn all() -> impl Iterator<Item = Self> {
        let own = Self::OWN.iter().copied();
        let others = Self::OF_EVENTS.into_iter().chain(Self::OF_REDELIVERIES);
        let costly = Self::Event(FaultReason::TooCostly);
        own.chain(others.filter(|code| !Self::OWN.contains(code)))
            .chain([costly])
    }
}

fn status_of(reason: FaultReason) -> StatusCode {
    match reason {
        FaultReason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        FaultReason::UnsupportedContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

fn sentence_of(reason: FaultReason) -> &'static str {
    match reason {
        FaultReason::Malformed => "The bytes are not what their content type says.",
        FaultReason::TooLarge => "The event is larger than `intake.max_event_bytes`.",
        FaultReason::UnsupportedContentType => "The content type is none of an event.",
        FaultReason::MissingField => "The event lacks a field; `field` is its path.",
        FaultReason::InvalidField => "A field of the event breaks its rule; `field` is its path.",
        FaultReason::ReservedType => "Carillon alone makes events of this type.",
        FaultReason::TooCostly => "Matching the event takes more steps than one may.",
        FaultReason::Unroutable => "The broker had no queue for the event.",
        FaultReason::DeliveryLimit => "The event was handed out again and again.",
    }
}
