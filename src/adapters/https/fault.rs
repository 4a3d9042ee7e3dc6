//! What an error of the client means, found by the types in its chain and never by text.
//!
//! An error comes wrapped several times: the client's around the connection's around the
//! protocol's around the operating system's or TLS's. Each layer that is recognised
//! refines what the one around it said; ours end the search.

use std::error::Error;
use std::io;
use std::time::Duration;

use rustls::CertificateError;

use crate::domain::address::EgressRefusal;
use crate::domain::outcome::{Failure, TlsFailure};

use super::probe::Stage;
use super::resolver::LookupError;

/// Longest sentence kept: certificates carry as many names as their owner likes.
const DETAIL_CHARS_MAX: usize = 300;

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// In a word.
    pub failure: Failure,
    /// In a sentence, without secrets and without the URL.
    pub detail: String,
}

impl Fault {
    /// The address may not be connected to.
    pub(super) fn blocked(refusal: EgressRefusal) -> Self {
        Self {
            detail: refusal.to_string(),
            failure: Failure::Blocked(refusal),
        }
    }

    /// The attempt's time, `limit`, was over in `stage`.
    pub(super) fn of_timeout(stage: Stage, limit: Duration) -> Self {
        let failure = timeout_failure(stage);
        Self {
            detail: failure.reason().sentence().to_owned(),
            failure,
        }
        .after(limit)
    }

    /// The client gave up in `stage` with `error`. It has `connect_limit` for looking up
    /// the name and connecting.
    pub(super) fn of_error(error: &reqwest::Error, stage: Stage, connect_limit: Duration) -> Self {
        let mut failure = None;
        let mut innermost: Option<&(dyn Error + 'static)> = None;
        for cause in causes(error) {
            if let Some(lookup) = cause.downcast_ref::<LookupError>() {
                return Self::of_lookup(lookup, connect_limit);
            }
            if let Some(refusal) = cause.downcast_ref::<EgressRefusal>() {
                return Self::blocked(refusal.clone());
            }
            failure = recognise(cause, stage).or(failure);
            innermost = Some(cause);
        }
        let failure = match failure {
            Some(failure) => failure,
            None if error.is_timeout() => return Self::of_timeout(stage, connect_limit),
            None => Failure::Other,
        };
        let sentence = failure.reason().sentence();
        let detail = match innermost {
            Some(cause) => plain(&format!("{sentence}: {cause}")),
            None => sentence.to_owned(),
        };
        Self { failure, detail }
    }

    fn of_lookup(error: &LookupError, limit: Duration) -> Self {
        let because = |failure| Self {
            failure,
            detail: plain(&error.to_string()),
        };
        match error {
            LookupError::Blocked(refusal) => Self::blocked(refusal.clone()),
            LookupError::NotFound(_) => because(Failure::NameNotFound),
            LookupError::Timeout(_) => because(Failure::NameTimeout).after(limit),
            LookupError::Failed(..) => because(Failure::NameLookup),
        }
    }

    fn after(mut self, limit: Duration) -> Self {
        self.detail.push_str(&format!(" (limit {limit:?})"));
        self
    }
}

fn timeout_failure(stage: Stage) -> Failure {
    match stage {
        Stage::Resolving => Failure::NameTimeout,
        Stage::Connecting => Failure::ConnectTimeout,
        Stage::Begun | Stage::Connected => Failure::Timeout,
    }
}

/// `text` on one line, without control characters, and not too long.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .take(DETAIL_CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// What lies below the client's own error, from outside to inside. That one itself is
/// left out, as its text carries the URL.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |cause| below(*cause))
}

fn below<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match cause.downcast_ref::<io::Error>() {
        // `source` of an I/O error passes over the error that it wraps.
        Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => cause.source(),
    }
}

fn recognise(cause: &(dyn Error + 'static), stage: Stage) -> Option<Failure> {
    if let Some(error) = cause.downcast_ref::<rustls::Error>() {
        return Some(Failure::Tls(tls_failure(error)));
    }
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        return io_failure(error.kind(), stage);
    }
    if let Some(error) = cause.downcast_ref::<h2::Error>() {
        // An error of its input or output is the next cause in the chain.
        let ended = error.is_remote() || error.is_io();
        return Some(if ended {
            Failure::Closed
        } else {
            Failure::Protocol
        });
    }
    cause.downcast_ref::<hyper::Error>().map(http_failure)
}

fn http_failure(error: &hyper::Error) -> Failure {
    if error.is_user() {
        Failure::Other
    } else if error.is_timeout() {
        Failure::Timeout
    } else if error.is_incomplete_message()
        || error.is_canceled()
        || error.is_closed()
        || error.is_shutdown()
        || error.is_body_write_aborted()
    {
        Failure::Closed
    } else {
        // Something that cannot be read as HTTP, or came unasked. Trouble below HTTP is
        // the next cause in the chain.
        Failure::Protocol
    }
}

fn io_failure(kind: io::ErrorKind, stage: Stage) -> Option<Failure> {
    use io::ErrorKind as Kind;
    match kind {
        Kind::ConnectionRefused => Some(Failure::Refused),
        Kind::HostUnreachable
        | Kind::NetworkUnreachable
        | Kind::NetworkDown
        | Kind::AddrNotAvailable
        // What a local firewall says.
        | Kind::PermissionDenied => Some(Failure::Unreachable),
        Kind::TimedOut => Some(timeout_failure(stage)),
        Kind::ConnectionReset
        | Kind::ConnectionAborted
        | Kind::BrokenPipe
        | Kind::NotConnected
        | Kind::UnexpectedEof => Some(Failure::Closed),
        _ => None,
    }
}

fn tls_failure(error: &rustls::Error) -> TlsFailure {
    use rustls::Error as Tls;
    match error {
        Tls::InvalidCertificate(error) => certificate_failure(error),
        Tls::NoCertificatesPresented
        | Tls::UnsupportedNameType
        | Tls::InvalidCertRevocationList(_) => TlsFailure::BadCertificate,
        _ => TlsFailure::Handshake,
    }
}

fn certificate_failure(error: &CertificateError) -> TlsFailure {
    use CertificateError as Bad;
    match error {
        Bad::Expired
        | Bad::ExpiredContext { .. }
        | Bad::NotValidYet
        | Bad::NotValidYetContext { .. } => TlsFailure::Expired,
        Bad::NotValidForName | Bad::NotValidForNameContext { .. } => TlsFailure::WrongName,
        Bad::UnknownIssuer => TlsFailure::UnknownIssuer,
        // An authority's certificate in a server's place: what `openssl req -x509` makes.
        // It is refused before anyone asks for its issuer, which is itself.
        Bad::Other(other)
            if matches!(
                other.0.downcast_ref::<webpki::Error>(),
                Some(webpki::Error::CaUsedAsEndEntity)
            ) =>
        {
            TlsFailure::UnknownIssuer
        }
        _ => TlsFailure::BadCertificate,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn errors_of_the_operating_system_have_their_failures() {
        use io::ErrorKind::*;
        for (kind, expected) in [
            (ConnectionRefused, Some(Failure::Refused)),
            (HostUnreachable, Some(Failure::Unreachable)),
            (NetworkUnreachable, Some(Failure::Unreachable)),
            (PermissionDenied, Some(Failure::Unreachable)),
            (TimedOut, Some(Failure::ConnectTimeout)),
            (ConnectionReset, Some(Failure::Closed)),
            (UnexpectedEof, Some(Failure::Closed)),
            (OutOfMemory, None),
        ] {
            assert_eq!(io_failure(kind, Stage::Connecting), expected, "{kind:?}");
        }
        assert_eq!(
            io_failure(TimedOut, Stage::Connected),
            Some(Failure::Timeout)
        );
    }

    #[test]
    fn certificate_errors_have_their_failures() {
        use CertificateError as Bad;
        let other = |error: webpki::Error| Bad::Other(rustls::OtherError(Arc::new(error)));
        for (error, expected) in [
            (Bad::Expired, TlsFailure::Expired),
            (Bad::NotValidYet, TlsFailure::Expired),
            (Bad::NotValidForName, TlsFailure::WrongName),
            (Bad::UnknownIssuer, TlsFailure::UnknownIssuer),
            (
                other(webpki::Error::CaUsedAsEndEntity),
                TlsFailure::UnknownIssuer,
            ),
            (other(webpki::Error::BadDer), TlsFailure::BadCertificate),
            (Bad::Revoked, TlsFailure::BadCertificate),
            (Bad::BadSignature, TlsFailure::BadCertificate),
        ] {
            assert_eq!(certificate_failure(&error), expected, "{error:?}");
        }
    }

    #[test]
    fn sentences_are_one_line_and_bounded() {
        assert_eq!(plain("a\r\nb\u{1b}[31m"), "a  b [31m");
        assert_eq!(plain(&"é".repeat(1000)).chars().count(), DETAIL_CHARS_MAX);
    }

    #[test]
    fn a_timeout_says_what_the_limit_was() {
        let fault = Fault::of_timeout(Stage::Connected, Duration::from_millis(300));
        assert_eq!(fault.failure, Failure::Timeout);
        assert!(fault.detail.ends_with("(limit 300ms)"));
    }
}
