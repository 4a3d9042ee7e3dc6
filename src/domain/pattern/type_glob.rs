//! Globs over event types: `credential_theft_detected`, `lookup_result.*`, `*`.
//!
//! `*` stands for any run of characters, dots included, and may be empty. There is nothing else: no `?`, no classes, no
//! escapes, as an event type has no character that would need one.

use super::text::Wildcard;

/// Longest glob, in bytes: an event type has no more, and so has a glob over them.
pub const GLOB_BYTES_MAX: usize = 128;

/// One entry of a subscription's `event_types`.
#[derive(Clone, Debug)]
pub struct TypeGlob {
    text: Box<str>,
    wildcard: Wildcard,
}

/// Why a text is not a glob over event types.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event type `{glob}`: {problem}")]
pub struct TypeGlobError {
    /// The text, cut to a readable length.
    pub glob: String,
    /// What was expected, what came, and what to do.
    pub problem: String,
}

impl TypeGlob {
    /// Reads an exact event type or a glob.
    ///
    /// # Errors
    ///
    /// When the text is empty, longer than 128 bytes, has a character outside `[A-Za-z0-9_.-*]`, or is an exact type that no
    /// event can have because a dot stands at an end or beside another.
    pub fn parse(text: &str) -> Result<TypeGlob, TypeGlobError> {
        let refuse = |problem: String| {
            Err(TypeGlobError {
                glob: super::leaf::shortened(text),
                problem,
            })
        };
        if text.is_empty() {
            return refuse("is empty; write an event type, or `*` for all of them".to_owned());
        }
        if text.len() > GLOB_BYTES_MAX {
            return refuse(format!(
                "is {} bytes long, at most {GLOB_BYTES_MAX} are allowed",
                text.len()
            ));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '*');
        if let Some(other) = text.chars().find(|c| !allowed(*c)) {
            return refuse(format!(
                "has {other:?}; an event type is made of A-Z a-z 0-9 _ - and dots, and `*` stands for any run of them"
            ));
        }
        if !text.contains('*') && text.split('.').any(str::is_empty) {
            return refuse(
                "is no event type: a dot stands between two names; remove the stray dot".to_owned(),
            );
        }
        let wildcard = Wildcard::from_pieces(text.split('*'));
        Ok(TypeGlob {
            text: text.into(),
            wildcard,
        })
    }

    /// Whether events of type `kind` are wanted.
    pub fn matches(&self, kind: &str) -> bool {
        self.wildcard.matches(kind)
    }

    /// The text this was read from.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether this names one event type, without a star.
    pub fn is_exact(&self) -> bool {
        !self.text.contains('*')
    }
}

/// Two globs are equal when they are written alike.
impl PartialEq for TypeGlob {
    fn eq(&self, other: &TypeGlob) -> bool {
        self.text == other.text
    }
}

impl Eq for TypeGlob {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_types() {
        let cases = [
            ("*", "anything.at-all", true),
            ("lookup_result.*", "lookup_result.alerts", true),
            ("lookup_result.*", "lookup_result.a.b", true),
            ("lookup_result.*", "lookup_result", false),
            ("lookup_result.alerts", "lookup_result.alerts", true),
            ("lookup_result.alerts", "lookup_result.alertsx", false),
            ("*.alerts", "lookup_result.alerts", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acd", false),
            ("**", "x", true),
        ];
        for (glob, kind, expected) in cases {
            let glob = TypeGlob::parse(glob).expect(glob);
            assert_eq!(glob.matches(kind), expected, "{} on {kind}", glob.as_str());
        }
    }

    #[test]
    fn what_is_no_glob_is_refused_with_the_reason() {
        let long = "a".repeat(129);
        let cases = [
            ("", "is empty"),
            (long.as_str(), "129 bytes"),
            ("a b", "has ' '"),
            ("a?", "has '?'"),
            ("é", "has 'é'"),
            ("a..b", "stray dot"),
            (".a", "stray dot"),
            ("a.", "stray dot"),
        ];
        for (text, reason) in cases {
            let error = TypeGlob::parse(text).expect_err(text).to_string();
            assert!(error.contains(reason), "{error}");
        }
        assert!(TypeGlob::parse(&"a".repeat(128)).is_ok());
    }
}
