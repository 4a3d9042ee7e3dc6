//! Where a webhook may be sent, as far as its URL says: scheme, host, port, and no tricks.
//!
//! A customer chooses the URL, and each piece of software between them and the socket reads it
//! for itself. So what two parsers could read in two ways is refused when it is written:
//! characters that the URL Standard strips or turns into others, and anything but two slashes
//! behind the scheme. Addresses, in every notation, are judged by
//! [`EgressRules`](super::address::EgressRules).

use std::fmt;

use url::Url;

/// Longest endpoint URL, in bytes.
pub const URL_BYTES_MAX: usize = 2048;

/// Ports on which something else than HTTP is expected, or what runs a cluster: the list of the
/// Fetch Standard (section 2.9, port blocking), databases, brokers, and orchestration. Without 1
/// and 9, which are there: nothing on them takes orders, and people write them for an endpoint
/// that is away.
const DENIED_PORTS: &[u16] = &[
    0, 7, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102,
    103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 445,
    465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 873, 989,
    990, 993, 995, 1433, 1521, 1719, 1720, 1723, 2049, 2181, 2375, 2376, 2379, 2380, 3306, 3389,
    3659, 4045, 4190, 5060, 5061, 5432, 5671, 5672, 5900, 5984, 6000, 6379, 6443, 6566, 6665, 6666,
    6667, 6668, 6669, 6679, 6697, 8086, 9042, 9092, 9100, 9200, 9300, 10080, 10250, 10255, 11211,
    27017,
];

/// Whether a request may go to `port`.
pub fn is_denied_port(port: u16) -> bool {
    DENIED_PORTS.binary_search(&port).is_ok()
}

/// The rules that a URL may break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UrlRule {
    /// It has characters that parsers read in different ways.
    Characters,
    /// The scheme is not followed by just two slashes.
    Slashes,
    /// It is no absolute URL, has no host, or is too long.
    Url,
    /// Another scheme than the format allows.
    Scheme,
    /// A user name or password.
    UserInfo,
    /// A fragment.
    Fragment,
    /// A port on which no HTTP is expected.
    Port,
}

impl UrlRule {
    /// The rule in one word.
    pub fn code(self) -> &'static str {
        match self {
            Self::Characters => "characters",
            Self::Slashes => "slashes",
            Self::Url => "url",
            Self::Scheme => "scheme",
            Self::UserInfo => "user_info",
            Self::Fragment => "fragment",
            Self::Port => "port",
        }
    }
}

/// Why a URL is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct UrlRefusal {
    /// The first rule that says no.
    pub rule: UrlRule,
    /// What it had to look like, as a continuation of "`url`".
    pub problem: String,
}

/// A URL that a subscription of its format may have.
#[derive(Clone, PartialEq, Eq)]
pub struct EndpointUrl(Url);

impl EndpointUrl {
    /// Checks what somebody wrote; `needs_https` says why it must be https, where it must. Whether
    /// its address may be connected to is another question.
    ///
    /// # Errors
    /// [`UrlRefusal`].
    pub fn parse(text: &str, needs_https: Option<&str>) -> Result<Self, UrlRefusal> {
        check_text(text)?;
        let url = Self::parse_stored(text)?.0;
        // As it is shown, to be written again: `ü` has become `%C3%BC`.
        check_length(url.as_str())?;
        check_scheme(url.scheme(), needs_https)?;
        let refuse = |rule, problem: String| Err(UrlRefusal { rule, problem });
        if authority(text).contains('@') {
            let advice = "must not carry a user name or password: use `headers` instead";
            return refuse(UrlRule::UserInfo, advice.to_owned());
        }
        if url.fragment().is_some() {
            let advice = "must not have a fragment (`#…`): it is never sent";
            return refuse(UrlRule::Fragment, advice.to_owned());
        }
        match url.port() {
            Some(port) if is_denied_port(port) => {
                let problem = format!("must not have the port {port}: no webhook listens there");
                refuse(UrlRule::Port, problem)
            }
            _ => Ok(Self(url)),
        }
    }

    /// Reads what was checked when it was written, perhaps by older rules.
    ///
    /// # Errors
    /// [`UrlRefusal`] when it is no absolute URL with a host.
    pub fn parse_stored(text: &str) -> Result<Self, UrlRefusal> {
        let refuse = |problem| UrlRefusal {
            rule: UrlRule::Url,
            problem,
        };
        let url = Url::parse(text).map_err(|error| {
            // Not what was found: it may hold a password.
            refuse(format!("must be an absolute URL: {error}"))
        })?;
        let is_http = matches!(url.scheme(), "http" | "https");
        if is_http && url.host_str().is_none_or(str::is_empty) {
            return Err(refuse("must name a host".to_owned()));
        }
        Ok(Self(url))
    }

    /// The parsed URL.
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// The URL's text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A query may hold a token.
        let shown = self.as_str().split('?').next();
        f.write_str(shown.unwrap_or_default())
    }
}

/// What the parser would overlook.
fn check_text(text: &str) -> Result<(), UrlRefusal> {
    check_length(text)?;
    let refuse = |rule, problem: String| Err(UrlRefusal { rule, problem });
    if text.contains('\\') || text.contains(char::is_control) || text.trim_matches(' ') != text {
        let problem = "must not have a backslash, a control character, or a space around it";
        return refuse(UrlRule::Characters, problem.to_owned());
    }
    let (scheme, rest) = text.split_once(':').unwrap_or_default();
    let is_http = ["http", "https"]
        .iter()
        .any(|is| scheme.eq_ignore_ascii_case(is));
    if is_http && (!rest.starts_with("//") || rest.starts_with("///")) {
        let problem = "must have two slashes behind the scheme, as in https://example.com";
        return refuse(UrlRule::Slashes, problem.to_owned());
    }
    Ok(())
}

fn check_length(text: &str) -> Result<(), UrlRefusal> {
    let found = text.len();
    if found <= URL_BYTES_MAX {
        return Ok(());
    }
    Err(UrlRefusal {
        rule: UrlRule::Url,
        problem: format!("must be at most {URL_BYTES_MAX} bytes, found {found}"),
    })
}

fn check_scheme(scheme: &str, needs_https: Option<&str>) -> Result<(), UrlRefusal> {
    let problem = match (scheme, needs_https) {
        ("https", _) | ("http", None) => return Ok(()),
        ("http", Some(why)) => format!("must be https: {why}"),
        (other, _) => format!("must be https, found the scheme {other:?}"),
    };
    Err(UrlRefusal {
        rule: UrlRule::Scheme,
        problem,
    })
}

/// What stands between the slashes and the path.
fn authority(text: &str) -> &str {
    let rest = text.split_once("//").map_or("", |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_problem_says_what_to_do() {
        for (text, part) in [
            ("https://example.com:25/", "port 25"),
            ("https://u@example.com/", "`headers`"),
            ("ftp://example.com/", "\"ftp\""),
            ("example.com", "absolute"),
            ("https:/example.com", "two slashes"),
        ] {
            let refusal = EndpointUrl::parse(text, None).unwrap_err();
            assert!(refusal.problem.contains(part), "{text}: {refusal}");
        }
    }

    #[test]
    fn an_accepted_url_can_be_written_again_as_it_is_shown() {
        // Shown as three times as long.
        let longest = |letters: usize| format!("https://example.com/{}", "ü".repeat(letters));
        let shown = EndpointUrl::parse(&longest(338), None).unwrap();
        assert_eq!(shown.as_str().len(), URL_BYTES_MAX);
        assert_eq!(
            EndpointUrl::parse(shown.as_str(), None).as_ref(),
            Ok(&shown)
        );
        let refusal = EndpointUrl::parse(&longest(339), None).unwrap_err();
        assert!(refusal.problem.contains("2054"), "{refusal}");
    }

    #[test]
    fn denied_ports_are_in_order() {
        assert!(DENIED_PORTS.is_sorted_by(|a, b| a < b));
        assert!(is_denied_port(6379) && !is_denied_port(8443));
    }

    #[test]
    fn what_was_stored_by_older_rules_is_still_read() {
        for text in ["https://u@example.com:25/#x", "https:example.com"] {
            assert!(EndpointUrl::parse(text, None).is_err());
            EndpointUrl::parse_stored(text).unwrap();
        }
        assert!(EndpointUrl::parse_stored("/hook").is_err());
    }
}
