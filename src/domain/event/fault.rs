//! Why something is not an event, or cannot be taken as one: a reason for programs, a sentence for a person.

/// What to do when matching takes too many steps.
const TOO_COSTLY: &str = "it has very large arrays or texts where filters have very many alternatives; \
    simplify those filters, or publish less in one event";

/// Why something is not an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct EventFault {
    /// The kind of fault, for programs.
    pub reason: FaultReason,
    /// The field at fault, as a path: `data.alerts[0].result`.
    pub field: Option<String>,
    /// What was expected, what came, what to do.
    pub sentence: String,
}

/// The kinds of event faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultReason {
    /// The bytes are not what their content type says.
    Malformed,
    /// Larger than `intake.max_event_bytes`.
    TooLarge,
    /// The content type is none that Carillon reads.
    UnsupportedContentType,
    /// A required field is absent.
    MissingField,
    /// A field breaks its rule.
    InvalidField,
    /// The type is made by Carillon alone.
    ReservedType,
    /// The broker had no queue for it.
    Unroutable,
    /// It was handed out again and again, and never settled.
    DeliveryLimit,
    /// Matching it against its tenant's filters takes more steps than an event may.
    TooCostly,
}

impl FaultReason {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::Malformed,
        Self::TooLarge,
        Self::UnsupportedContentType,
        Self::MissingField,
        Self::InvalidField,
        Self::ReservedType,
        Self::Unroutable,
        Self::DeliveryLimit,
        Self::TooCostly,
    ];

    /// Finds the reason that has this code.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// The reason as it stands in headers, API answers and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::UnsupportedContentType => "unsupported_content_type",
            Self::MissingField => "missing_field",
            Self::InvalidField => "invalid_field",
            Self::ReservedType => "reserved_type",
            Self::Unroutable => "unroutable",
            Self::DeliveryLimit => "delivery_limit",
            Self::TooCostly => "too_costly",
        }
    }
}

impl EventFault {
    /// A fault of the whole message rather than of one field.
    pub fn whole(reason: FaultReason, sentence: impl Into<String>) -> Self {
        Self {
            reason,
            field: None,
            sentence: sentence.into(),
        }
    }

    /// Matching the event with so many subscriptions takes too many steps.
    pub fn too_costly(subscriptions: usize) -> Self {
        let sentence = format!(
            "matching the event with {subscriptions} subscriptions takes too many steps: {TOO_COSTLY}"
        );
        Self::whole(FaultReason::TooCostly, sentence)
    }

    /// `field` is absent.
    pub fn missing(field: &str, expected: &str) -> Self {
        Self {
            reason: FaultReason::MissingField,
            field: Some(field.to_owned()),
            sentence: format!("`{field}` is missing: an event of this kind needs {expected} there"),
        }
    }

    /// `field` is there and wrong.
    pub fn invalid(field: &str, expected: &str, found: &str) -> Self {
        Self {
            reason: FaultReason::InvalidField,
            field: Some(field.to_owned()),
            sentence: format!("`{field}` must be {expected}, found {found}"),
        }
    }
}
