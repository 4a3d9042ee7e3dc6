//! Tests on strings and address texts: case folding, prefixes, suffixes, wildcards, networks.
//!
//! A leaf may name thousands of alternatives and an event may hold a string of a mebibyte, so every test here is at most
//! linear in the string, and sets of alternatives are searched by halving rather than one by one (wildcards excepted).
//! Case is folded character by character with Unicode's lower case; there is no normalisation and no locale.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// Strings to be equal to, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Texts(Box<[Box<str>]>);

/// Prefixes, sorted, none of them a prefix of another: so only one of them can begin a given string.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Prefixes(Box<[Box<str>]>);

/// Suffixes, held as [`Prefixes`] of the reversed bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Suffixes(Box<[Box<[u8]>]>);

/// Networks, sorted and disjoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Nets(Box<[IpNet]>);

/// A string in which `*` stands for any run of characters: the literal pieces between the stars.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wildcard(Box<[Box<str>]>);

impl Texts {
    pub(super) fn new(mut texts: Vec<Box<str>>) -> Texts {
        texts.sort_unstable();
        texts.dedup();
        Texts(texts.into())
    }

    pub(super) fn contains(&self, text: &str) -> bool {
        self.0.binary_search_by(|held| (**held).cmp(text)).is_ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|text| &**text)
    }
}

impl Prefixes {
    pub(super) fn new(mut texts: Vec<Box<str>>) -> Prefixes {
        texts.sort_unstable();
        // Sorted, a string directly follows its shortest prefix or another string with that prefix.
        texts.dedup_by(|longer, shorter| longer.starts_with(&**shorter));
        Prefixes(texts.into())
    }

    pub(super) fn begin(&self, text: &str) -> bool {
        // Whatever sorts between a prefix of `text` and `text` begins with that prefix too; as no prefix begins
        // another, the last one not after `text` is the only candidate.
        let after = self.0.partition_point(|prefix| **prefix <= *text);
        after > 0 && text.starts_with(&*self.0[after - 1])
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Suffixes {
    pub(super) fn new(texts: &[Box<str>]) -> Suffixes {
        let mut reversed: Vec<Box<[u8]>> = texts
            .iter()
            .map(|text| text.bytes().rev().collect())
            .collect();
        reversed.sort_unstable();
        reversed.dedup_by(|longer, shorter| longer.starts_with(shorter));
        Suffixes(reversed.into())
    }

    pub(super) fn end(&self, text: &str) -> bool {
        let backwards = || text.bytes().rev();
        let after = self
            .0
            .partition_point(|suffix| suffix.iter().copied().le(backwards()));
        after > 0 && {
            let suffix = &self.0[after - 1];
            suffix.len() <= text.len() && suffix.iter().copied().eq(backwards().take(suffix.len()))
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Nets {
    pub(super) fn new(nets: &[IpNet]) -> Nets {
        let canonical: Vec<IpNet> = nets.iter().map(canonical_net).collect();
        let mut disjoint = IpNet::aggregate(&canonical);
        disjoint.sort_unstable_by_key(IpNet::network);
        Nets(disjoint.into())
    }

    /// Whether `text` is an IP address within one of the networks.
    pub(super) fn contain(&self, text: &str) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let Ok(address) = text.parse::<IpAddr>() else {
            return false;
        };
        let address = address.to_canonical();
        let after = self.0.partition_point(|net| net.network() <= address);
        after > 0 && self.0[after - 1].contains(&address)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Wildcard {
    /// Reads a pattern in which `\*` is an asterisk and `\\` a backslash.
    ///
    /// # Errors
    ///
    /// A sentence: two stars in a row, or a backslash before anything else.
    pub(super) fn parse(text: &str) -> Result<Wildcard, &'static str> {
        let mut pieces = vec![String::new()];
        let mut after_star = false;
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let literal = match c {
                '*' if after_star => {
                    return Err("two `*` in a row say no more than one; write a single `*`");
                }
                '*' => {
                    pieces.push(String::new());
                    after_star = true;
                    continue;
                }
                '\\' => match chars.next() {
                    Some(escaped @ ('*' | '\\')) => escaped,
                    _ => {
                        return Err(
                            r"a backslash may only stand before `*` or `\`; write `\\` for a backslash",
                        );
                    }
                },
                other => other,
            };
            after_star = false;
            // `pieces` begins with one piece and only grows.
            if let Some(last) = pieces.last_mut() {
                last.push(literal);
            }
        }
        Ok(Wildcard::from_pieces(pieces))
    }

    /// The pieces of a text that is split at its stars; `["a", "b"]` is `a*b`.
    pub(super) fn from_pieces<S: Into<Box<str>>>(pieces: impl IntoIterator<Item = S>) -> Wildcard {
        Wildcard(pieces.into_iter().map(Into::into).collect())
    }

    /// Takes each piece at its first occurrence, which never costs a match, and searches in linear time: a hostile
    /// pattern of many stars cannot make this run back and forth.
    pub(super) fn matches(&self, text: &str) -> bool {
        let (first, rest) = match &*self.0 {
            [] => return text.is_empty(),
            [only] => return **only == *text,
            [first, rest @ ..] => (first, rest),
        };
        let Some((last, middle)) = rest.split_last() else {
            return **first == *text;
        };
        let Some(mut left) = strip(text, first, last) else {
            return false;
        };
        for piece in middle {
            let Some(at) = position(left, piece) else {
                return false;
            };
            left = &left[at + piece.len()..];
        }
        true
    }
}

/// What is left of `text` between a beginning and an end that do not overlap. Both are mostly empty,
/// and comparing with an empty string is slow: there is no memory behind it to read.
fn strip<'t>(text: &'t str, first: &str, last: &str) -> Option<&'t str> {
    let left = if first.is_empty() {
        text
    } else {
        text.strip_prefix(first)?
    };
    if last.is_empty() {
        Some(left)
    } else {
        left.strip_suffix(last)
    }
}

/// Where `piece` first occurs. A short piece is simply tried everywhere: that costs a bounded number of steps for each
/// byte, and spares preparing a search that most values end at once.
fn position(text: &str, piece: &str) -> Option<usize> {
    const TRIED_BYTES_MAX: usize = 16;
    let Some((&first, _)) = piece.as_bytes().split_first() else {
        return Some(0);
    };
    if piece.len() > TRIED_BYTES_MAX {
        return text.find(piece);
    }
    let bytes = text.as_bytes();
    let last = bytes.len().checked_sub(piece.len())?;
    (0..=last).find(|at| {
        bytes[*at] == first && bytes[*at..].iter().zip(piece.bytes()).all(|(a, b)| *a == b)
    })
}

/// The form under which two strings that differ only in case are equal.
pub(super) fn fold(text: &str) -> Cow<'_, str> {
    if !text.is_ascii() {
        return text
            .chars()
            .flat_map(char::to_lowercase)
            .collect::<String>()
            .into();
    }
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return text.to_ascii_lowercase().into();
    }
    text.into()
}

/// An IPv4 network written as IPv6 (`::ffff:10.0.0.0/104`) is that IPv4 network, as an address so written is that address.
fn canonical_net(net: &IpNet) -> IpNet {
    let (IpNet::V6(v6), IpAddr::V4(v4)) = (net, net.network().to_canonical()) else {
        return net.trunc();
    };
    match v6
        .prefix_len()
        .checked_sub(96)
        .map(|len| Ipv4Net::new(v4, len))
    {
        Some(Ok(net)) => IpNet::V4(net.trunc()),
        _ => net.trunc(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn boxed(texts: &[String]) -> Vec<Box<str>> {
        texts.iter().map(|text| text.as_str().into()).collect()
    }

    #[test]
    fn wildcards() {
        let cases = [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything", true),
            ("a*", "a", true),
            ("*a", "ba", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("Simple*Service", "SimpleQueueService", true),
            ("*/bin/*.jar", "/usr/bin/x.jar", true),
            ("*/bin/*.jar", "/usr/bin.jar", false),
            ("*ab*ab*", "abab", true),
            ("*ab*ab*", "aba", false),
            (r"a\*b", "a*b", true),
            (r"a\*b", "axb", false),
            (r"a\\*", r"a\b", true),
            (r"*\**", "x*y", true),
            ("é*ü", "éñü", true),
        ];
        for (pattern, text, expected) in cases {
            let wildcard = Wildcard::parse(pattern).expect(pattern);
            assert_eq!(wildcard.matches(text), expected, "{pattern} on {text}");
        }
        for refused in ["**", "a**b", r"a\b", r"a\"] {
            assert!(Wildcard::parse(refused).is_err(), "{refused}");
        }
        assert!(Wildcard::parse(r"*\**").is_ok());
    }

    #[test]
    fn a_wildcard_of_many_stars_is_not_slow() {
        let pattern = "a*".repeat(2_000) + "b";
        let text = "a".repeat(1 << 20);
        assert!(!Wildcard::parse(&pattern).expect("valid").matches(&text));
        let needle = format!("*{}b*", "a".repeat(1 << 15));
        assert!(!Wildcard::parse(&needle).expect("valid").matches(&text));
    }

    #[test]
    fn networks() {
        let nets = |texts: &[&str]| {
            Nets::new(
                &texts
                    .iter()
                    .map(|t| t.parse().expect(t))
                    .collect::<Vec<IpNet>>(),
            )
        };
        let v4 = nets(&["10.0.0.7/24", "192.168.0.0/16", "10.0.0.128/25"]);
        for (text, expected) in [
            ("10.0.0.0", true),
            ("10.0.0.255", true),
            ("10.0.1.0", false),
            ("::ffff:10.0.0.1", true),
            ("::a00:1", false),
            ("192.168.3.4", true),
            ("10.0.0.1/32", false),
            ("ten", false),
            ("", false),
        ] {
            assert_eq!(v4.contain(text), expected, "{text}");
        }
        let v6 = nets(&["2001:db8::/32", "::ffff:172.16.0.0/108"]);
        assert!(v6.contain("2001:db8:ffff::1"));
        assert!(!v6.contain("2001:db9::1"));
        assert!(v6.contain("172.16.5.5"));
        assert!(nets(&["0.0.0.0/0"]).contain("1.2.3.4"));
        assert!(!nets(&["0.0.0.0/0"]).contain("::1"));
    }

    #[test]
    fn folding_is_by_character() {
        assert_eq!(fold("already"), "already");
        assert_eq!(fold("MiXed"), "mixed");
        assert_eq!(fold("ÄΣ"), "äσ");
    }

    proptest! {
        #[test]
        fn affix_sets_agree_with_trying_each(
            affixes in prop::collection::vec("[ab]{0,4}", 0..6),
            text in "[abé]{0,6}",
        ) {
            let begins = affixes.iter().any(|affix| text.starts_with(affix));
            let ends = affixes.iter().any(|affix| text.ends_with(affix));
            prop_assert_eq!(Prefixes::new(boxed(&affixes)).begin(&text), begins);
            prop_assert_eq!(Suffixes::new(&boxed(&affixes)).end(&text), ends);
            prop_assert_eq!(Texts::new(boxed(&affixes)).contains(&text), affixes.contains(&text));
        }
    }
}
