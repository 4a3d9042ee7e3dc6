//! What happened at an attempt, and how it is classed.
//!
//! [`Outcome`] is what the transport saw; [`classify`] says what it means for a
//! subscription's format (contract section 4). What follows from it is `decide`.

use std::time::Duration;

use super::address::EgressRefusal;
use super::subscription::Format;
use super::timestamp::UnixMillis;

/// The longest pause that an endpoint may ask for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// What the transport saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint answered.
    Answered {
        /// The HTTP status code.
        status: u16,
        /// When it asked to be left alone until, from `Retry-After`.
        retry_at: Option<UnixMillis>,
    },
    /// No answer came.
    Failed(Failure),
}

/// Why no answer came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The address may not be connected to.
    Blocked(EgressRefusal),
    /// The name has no address.
    NameNotFound,
    /// The name servers gave no usable answer.
    NameLookup,
    /// Looking up the name took too long.
    NameTimeout,
    /// Nothing listens there.
    Refused,
    /// The network or host cannot be reached.
    Unreachable,
    /// The connection was not there in time.
    ConnectTimeout,
    /// The certificate was not accepted, or TLS was not agreed on.
    Tls(TlsFailure),
    /// The whole attempt took too long.
    Timeout,
    /// The connection ended before the answer was there.
    Closed,
    /// What came was not HTTP.
    Protocol,
    /// Any other trouble with the request or the connection.
    Other,
}

/// Why TLS was not established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFailure {
    /// The certificate's time is over, or has not begun.
    Expired,
    /// The certificate is for another name.
    WrongName,
    /// No trusted authority signed the certificate.
    UnknownIssuer,
    /// The certificate was revoked or is otherwise not acceptable.
    BadCertificate,
    /// No common version, cipher or extension; or not TLS at all.
    Handshake,
}

/// Why an attempt failed, in one word: audit log, metrics and API answers carry it.
///
/// A closed set, so that it may be a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reason(&'static str);

impl Reason {
    /// The word.
    pub fn code(self) -> &'static str {
        self.0
    }

    /// Every reason.
    pub fn all() -> impl Iterator<Item = Self> {
        REASONS.iter().map(|(code, _)| Self(code))
    }

    /// Its place among all.
    pub fn place(self) -> usize {
        let place = REASONS.iter().position(|(code, _)| *code == self.0);
        // Each is made of a code that is there, by a test.
        place.unwrap_or_default()
    }

    /// Finds the reason that has this code, such as one read back from storage.
    pub fn from_code(code: &str) -> Option<Self> {
        REASONS
            .iter()
            .find(|(known, _)| *known == code)
            .map(|(known, _)| Self(known))
    }

    /// A sentence for a person.
    pub fn sentence(self) -> &'static str {
        REASONS
            .iter()
            .find(|(code, _)| *code == self.0)
            .map_or("", |(_, sentence)| sentence)
    }
}

/// Every reason with its sentence.
pub const REASONS: &[(&str, &str)] = &[
    (
        "blocked_address",
        "the address is private, internal or denied by configuration",
    ),
    ("dns_not_found", "the host name has no address"),
    ("dns_failed", "the name servers gave no usable answer"),
    ("dns_timeout", "looking up the host name took too long"),
    ("connection_refused", "nothing accepts connections there"),
    ("unreachable", "the network or host cannot be reached"),
    ("connect_timeout", "no connection was established in time"),
    ("tls_expired", "the certificate is expired or not yet valid"),
    ("tls_wrong_name", "the certificate is for another name"),
    (
        "tls_unknown_issuer",
        "the certificate is not signed by a trusted authority",
    ),
    ("tls_bad_certificate", "the certificate is not acceptable"),
    (
        "tls_handshake",
        "no TLS connection could be agreed on (TLS 1.2 or later is needed)",
    ),
    ("timeout", "no complete answer came in time"),
    (
        "connection_closed",
        "the connection ended before an answer came",
    ),
    ("protocol_error", "the answer was not HTTP"),
    ("request_failed", "the request could not be carried out"),
    ("gone", "the endpoint answered 410: it wants no more"),
    (
        "rate_limited",
        "the endpoint answered 429: too many requests",
    ),
    ("unavailable", "the endpoint answered 503"),
    ("bad_gateway", "the endpoint answered 502"),
    ("gateway_timeout", "the endpoint answered 504"),
    (
        "redirect",
        "the endpoint answered with a redirect, which is never followed",
    ),
    ("client_error", "the endpoint answered with a 4xx status"),
    ("server_error", "the endpoint answered with a 5xx status"),
    (
        "not_acknowledged",
        "the status is no acknowledgement in this format",
    ),
];

/// What an outcome means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The endpoint has it.
    Acknowledged,
    /// The endpoint wants no more.
    Gone,
    /// It did not work this time.
    Failed {
        /// Why.
        reason: Reason,
        /// Whether the endpoint is overloaded, so that its concurrency is to be cut.
        overloaded: bool,
        /// Until when the whole endpoint is to be left alone, if it said so.
        pause_until: Option<UnixMillis>,
    },
}

/// Classes `outcome` for `format`. `now` bounds how far ahead a pause may reach.
pub fn classify(format: Format, outcome: &Outcome, now: UnixMillis) -> Class {
    match outcome {
        Outcome::Answered { status, .. } if format.acknowledges(*status) => Class::Acknowledged,
        Outcome::Answered { status: 410, .. } => Class::Gone,
        Outcome::Answered { status, retry_at } => Class::Failed {
            reason: status_reason(*status),
            overloaded: matches!(status, 429 | 502 | 504),
            pause_until: retry_at
                .filter(|_| matches!(status, 429 | 503))
                .map(|at| at.min(now.after(RETRY_AFTER_MAX))),
        },
        Outcome::Failed(failure) => Class::Failed {
            reason: failure.reason(),
            overloaded: matches!(failure, Failure::Timeout | Failure::ConnectTimeout),
            pause_until: None,
        },
    }
}

impl Failure {
    /// The failure in one word.
    pub fn reason(&self) -> Reason {
        Reason(match self {
            Self::Blocked(_) => "blocked_address",
            Self::NameNotFound => "dns_not_found",
            Self::NameLookup => "dns_failed",
            Self::NameTimeout => "dns_timeout",
            Self::Refused => "connection_refused",
            Self::Unreachable => "unreachable",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls(TlsFailure::Expired) => "tls_expired",
            Self::Tls(TlsFailure::WrongName) => "tls_wrong_name",
            Self::Tls(TlsFailure::UnknownIssuer) => "tls_unknown_issuer",
            Self::Tls(TlsFailure::BadCertificate) => "tls_bad_certificate",
            Self::Tls(TlsFailure::Handshake) => "tls_handshake",
            Self::Timeout => "timeout",
            Self::Closed => "connection_closed",
            Self::Protocol => "protocol_error",
            Self::Other => "request_failed",
        })
    }
}

/// The reason of the outcome `Class::Gone`.
pub const GONE: Reason = Reason("gone");

fn status_reason(status: u16) -> Reason {
    Reason(match status {
        429 => "rate_limited",
        502 => "bad_gateway",
        503 => "unavailable",
        504 => "gateway_timeout",
        300..=399 => "redirect",
        400..=499 => "client_error",
        500..=599 => "server_error",
        _ => "not_acknowledged",
    })
}

/// Reads a `Retry-After` value (RFC 9110 section 10.2.3): seconds, or an HTTP date.
///
/// Returns when the pause ends; `None` for anything else, which is as good as absent.
pub fn parse_retry_after(value: &str, now: UnixMillis) -> Option<UnixMillis> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are as long as can be said; `classify` caps it.
        let seconds = value.parse::<u32>().unwrap_or(u32::MAX);
        return Some(now.after(Duration::from_secs(seconds.into())));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let ms = at.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis();
    Some(UnixMillis(i64::try_from(ms).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_772_368_200_000);

    fn answered(status: u16) -> Outcome {
        Outcome::Answered {
            status,
            retry_at: None,
        }
    }

    #[test]
    fn every_status_has_its_class() {
        let class = |format, status| classify(format, &answered(status), NOW);
        for status in 100..=599u16 {
            let standard = class(Format::Standard, status);
            assert_eq!(
                standard == Class::Acknowledged,
                (200..300).contains(&status)
            );
            let leicbit = class(Format::Leicbit, status);
            assert_eq!(leicbit == Class::Acknowledged, status == 200);
            assert_eq!(standard == Class::Gone, status == 410);
        }
        let expected = [
            (302, "redirect", false),
            (404, "client_error", false),
            (429, "rate_limited", true),
            (500, "server_error", false),
            (502, "bad_gateway", true),
            (503, "unavailable", false),
            (504, "gateway_timeout", true),
        ];
        for (status, code, cut) in expected {
            let Class::Failed {
                reason, overloaded, ..
            } = class(Format::Standard, status)
            else {
                panic!("{status} should fail");
            };
            assert_eq!((reason.code(), overloaded), (code, cut));
        }
        let Class::Failed { reason, .. } = class(Format::Leicbit, 204) else {
            panic!("204 is no acknowledgement for leicbit");
        };
        assert_eq!(reason.code(), "not_acknowledged");
    }

    #[test]
    fn pauses_are_asked_for_by_429_and_503_only_and_capped() {
        let pause = |status, at| {
            let outcome = Outcome::Answered {
                status,
                retry_at: Some(at),
            };
            match classify(Format::Standard, &outcome, NOW) {
                Class::Failed { pause_until, .. } => pause_until,
                _ => None,
            }
        };
        let soon = UnixMillis(NOW.0 + 7_000);
        assert_eq!(pause(429, soon), Some(soon));
        assert_eq!(pause(503, soon), Some(soon));
        assert_eq!(pause(500, soon), None);
        let far = UnixMillis(NOW.0 + 90_000_000);
        assert_eq!(pause(429, far), Some(NOW.after(RETRY_AFTER_MAX)));
    }

    #[test]
    fn retry_after_reads_both_forms() {
        let cases = [
            ("0", Some(NOW)),
            (" 120 ", Some(UnixMillis(NOW.0 + 120_000))),
            (
                "Sun, 01 Mar 2026 12:31:00 GMT",
                Some(UnixMillis(NOW.0 + 60_000)),
            ),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_retry_after(text, NOW), expected, "{text}");
        }
        assert!(parse_retry_after("99999999999999999999", NOW).is_some());
    }

    #[test]
    fn every_reason_has_a_sentence() {
        for (code, _) in REASONS {
            let reason = Reason::from_code(code).unwrap();
            assert!(!reason.sentence().is_empty());
        }
        for status in 100..=599 {
            assert!(Reason::from_code(status_reason(status).code()).is_some());
        }
        assert_eq!(Reason::from_code("no_such_reason"), None);
    }
}
