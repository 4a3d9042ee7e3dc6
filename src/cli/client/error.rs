//! Why the API did not do what was asked, as a sentence with what to do about it.

use std::fmt;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;
use url::Url;

use super::super::output;

/// Why the API did not do what was asked.
#[derive(Debug)]
pub enum ApiError {
    /// It did not answer.
    Unreachable {
        /// Where it was looked for.
        base: Url,
        /// No connection was made at all.
        no_connection: bool,
        /// What went wrong.
        detail: String,
    },
    /// It answered with an error.
    Refused(Box<Problem>),
    /// It answered with something that Carillon does not answer.
    Unexpected(String),
}

/// An error answer: the members of RFC 9457 and Carillon's own.
#[derive(Clone, Debug, Default)]
pub struct Problem {
    /// The HTTP status code.
    pub status: u16,
    /// What kind of problem, in words.
    pub title: String,
    /// What happened this time.
    pub detail: String,
    /// What kind of problem, for programs.
    pub code: String,
    /// The field at fault.
    pub field: Option<String>,
    /// The whole document; null when it was none.
    pub document: Value,
    /// How long the server asked to be left alone.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    /// The answer, if there was one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            Self::Unreachable { .. } | Self::Unexpected(_) => None,
        }
    }

    /// Whether it is an answer with this code.
    pub fn is(&self, code: &str) -> bool {
        self.problem().is_some_and(|problem| problem.code == code)
    }

    /// Whether the same call may succeed a little later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            // Somebody has to say first what there is to be.
            Self::Refused(problem) if problem.code == "store_lost" => false,
            Self::Refused(problem) => matches!(problem.status, 429 | 503),
            Self::Unexpected(_) => false,
        }
    }

    /// How long the server asked to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.problem().and_then(|problem| problem.retry_after)
    }
}

impl std::error::Error for ApiError {}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable {
                base,
                no_connection: true,
                detail,
            } => write!(
                f,
                "cannot reach {base} ({detail}): is `carillon serve` running there? \
                 Set --api or CARILLON_API if it is elsewhere."
            ),
            Self::Unreachable { base, detail, .. } => {
                write!(f, "{base} did not answer properly: {detail}")
            }
            Self::Refused(problem) => problem.fmt(f),
            Self::Unexpected(detail) => f.write_str(detail),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.title.is_empty() {
            "the API refused"
        } else {
            &self.title
        })?;
        if !self.detail.is_empty() && self.detail != self.title {
            write!(f, ": {}", self.detail)?;
        }
        let field = self.field.as_deref().filter(|f| !self.detail.contains(f));
        match (field, self.code.as_str()) {
            (Some(field), "") => write!(f, " (field {field})")?,
            (Some(field), code) => write!(f, " (field {field}, {code})")?,
            (None, "") => write!(f, " (status {})", self.status)?,
            (None, code) => write!(f, " ({code})")?,
        }
        let advice = match self.status {
            401 => "Give a valid token with --token or CARILLON_TOKEN.",
            403 => "Use a token that may do this: a tenant's token only serves its tenant.",
            413 => "Send less at a time.",
            429 | 503 => "Try again later; `/readyz` of the operations listener says more.",
            500 => "The log of `carillon serve` says more.",
            _ => return Ok(()),
        };
        write!(f, ". {advice}")
    }
}

impl Problem {
    /// Reads an error answer; what it does not say stays empty.
    pub(super) fn read(status: StatusCode, document: Value) -> Self {
        let text = |name: &str| output::text_of(&document, name);
        let field = Some(text("field")).filter(|field| !field.is_empty());
        let title = match text("title") {
            title if title.is_empty() => status.to_string(),
            title => title,
        };
        Self {
            status: status.as_u16(),
            title,
            detail: text("detail"),
            code: text("code"),
            field,
            retry_after: None,
            document,
        }
    }
}
