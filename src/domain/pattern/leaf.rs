//! One leaf of a pattern: the alternatives a field's value may meet.
//!
//! A [`Draft`] collects alternatives as they are read; sealing it sorts them so that a value is tested against thousands
//! of them in a few comparisons. Whether a field is there at all is decided by the caller (see `eval`); a leaf only says
//! whether being absent is among its alternatives.

use std::fmt;

use ipnet::IpNet;

use super::number::{Num, Range};
use super::text::{Nets, Prefixes, Suffixes, Texts, Wildcard, fold};

/// A value of an event that is neither an array nor an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Scalar<'e> {
    Null,
    Bool(bool),
    Number(Num),
    Text(&'e str),
}

/// What a field's value may be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leaf {
    any: Alternatives,
    /// Each `anything-but`: met by whatever it does not name.
    but: Box<[Alternatives]>,
    /// `exists: true`: every value will do.
    present: bool,
    /// `exists: false` is among the alternatives.
    absent: bool,
    /// What is tried one by one, on a number and on a text.
    tried: [usize; 2],
    /// The alternatives as text, cut to a readable length.
    wanted: Box<str>,
}

/// A set of values, given by value or by rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Alternatives {
    null: bool,
    truth: [bool; 2],
    numbers: Box<[Num]>,
    ranges: Box<[Range]>,
    texts: Texts,
    prefixes: Prefixes,
    suffixes: Suffixes,
    wildcards: Box<[Wildcard]>,
    nets: Nets,
    /// Present only when a rule ignores case, so that the others do not pay for it.
    folded: Option<Box<Folded>>,
}

/// The rules that ignore case, on folded text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Folded {
    texts: Texts,
    prefixes: Prefixes,
    suffixes: Suffixes,
}

/// [`Alternatives`] while they are being read.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) null: bool,
    pub(super) truth: [bool; 2],
    pub(super) numbers: Vec<Num>,
    pub(super) ranges: Vec<Range>,
    pub(super) texts: Vec<Box<str>>,
    pub(super) prefixes: Vec<Box<str>>,
    pub(super) suffixes: Vec<Box<str>>,
    pub(super) wildcards: Vec<Wildcard>,
    pub(super) nets: Vec<IpNet>,
    pub(super) folded_texts: Vec<Box<str>>,
    pub(super) folded_prefixes: Vec<Box<str>>,
    pub(super) folded_suffixes: Vec<Box<str>>,
}

/// A [`Leaf`] while it is being read.
#[derive(Debug, Default)]
pub(super) struct LeafDraft {
    pub(super) any: Draft,
    pub(super) but: Vec<Draft>,
    pub(super) present: bool,
    pub(super) absent: bool,
}

impl Leaf {
    /// Whether a value that is there is one of the alternatives.
    pub(super) fn accepts(&self, value: Scalar<'_>) -> bool {
        self.present
            || self.any.contain(value)
            || self.but.iter().any(|named| !named.contain(value))
    }

    /// Steps that [`Self::accepts`] takes at most.
    pub(super) fn cost(&self, value: Scalar<'_>) -> usize {
        /// Bytes that are compared in about a step, and bytes in which a rule is searched.
        const COMPARED_BYTES: usize = 256;
        const SEARCHED_BYTES: usize = 4;
        let [numbers, texts] = self.tried;
        match value {
            Scalar::Text(text) => {
                1 + text.len() / COMPARED_BYTES + texts * (1 + text.len() / SEARCHED_BYTES)
            }
            _ => 1 + numbers,
        }
    }

    /// Whether the field may be absent.
    pub(super) fn accepts_absence(&self) -> bool {
        self.absent
    }

    /// What the pattern asks for, in short.
    pub(super) fn wanted(&self) -> &str {
        &self.wanted
    }

    /// The alternatives one by one, when each is a plain value and so can be looked up.
    pub(super) fn plain_values(&self) -> Option<impl Iterator<Item = Scalar<'_>>> {
        let plain = self.but.is_empty() && !self.present && !self.absent && self.any.is_plain();
        plain.then(|| self.any.values())
    }
}

impl Alternatives {
    fn contain(&self, value: Scalar<'_>) -> bool {
        match value {
            Scalar::Null => self.null,
            Scalar::Bool(truth) => self.truth[usize::from(truth)],
            Scalar::Number(number) => {
                self.numbers.binary_search(&number).is_ok()
                    || self.ranges.iter().any(|range| range.contains(number))
            }
            Scalar::Text(text) => self.contain_text(text),
        }
    }

    fn contain_text(&self, text: &str) -> bool {
        self.texts.contains(text)
            || self.prefixes.begin(text)
            || self.suffixes.end(text)
            || self.nets.contain(text)
            || self
                .folded
                .as_ref()
                .is_some_and(|folded| folded.contain(&fold(text)))
            || self.wildcards.iter().any(|wildcard| wildcard.matches(text))
    }

    fn is_plain(&self) -> bool {
        self.ranges.is_empty()
            && self.prefixes.is_empty()
            && self.suffixes.is_empty()
            && self.wildcards.is_empty()
            && self.nets.is_empty()
            && self.folded.is_none()
    }

    fn values(&self) -> impl Iterator<Item = Scalar<'_>> {
        let nulls = self.null.then_some(Scalar::Null).into_iter();
        let truths = [false, true]
            .into_iter()
            .filter(|truth| self.truth[usize::from(*truth)]);
        nulls
            .chain(truths.map(Scalar::Bool))
            .chain(self.numbers.iter().copied().map(Scalar::Number))
            .chain(self.texts.iter().map(Scalar::Text))
    }
}

impl Folded {
    fn contain(&self, folded: &str) -> bool {
        self.texts.contains(folded) || self.prefixes.begin(folded) || self.suffixes.end(folded)
    }
}

impl LeafDraft {
    pub(super) fn seal(self, wanted: String) -> Leaf {
        let sets = || self.but.iter().chain([&self.any]);
        // Folding a text reads and writes all of it.
        let folds = |set: &Draft| {
            let folded = [
                &set.folded_texts,
                &set.folded_prefixes,
                &set.folded_suffixes,
            ];
            usize::from(folded.iter().any(|texts| !texts.is_empty()))
        };
        let numbers = self.but.len() + sets().map(|set| set.ranges.len()).sum::<usize>();
        let texts = sets().map(|set| set.wildcards.len() + folds(set));
        let texts = texts.sum::<usize>();
        Leaf {
            tried: [numbers, texts],
            any: self.any.seal(),
            but: self.but.into_iter().map(Draft::seal).collect(),
            present: self.present,
            absent: self.absent,
            wanted: wanted.into(),
        }
    }
}

impl Draft {
    fn seal(mut self) -> Alternatives {
        self.numbers.sort_unstable();
        self.numbers.dedup();
        let folded = Folded {
            texts: Texts::new(self.folded_texts),
            prefixes: Prefixes::new(self.folded_prefixes),
            suffixes: Suffixes::new(&self.folded_suffixes),
        };
        let ignores_case =
            !(folded.texts.is_empty() && folded.prefixes.is_empty() && folded.suffixes.is_empty());
        Alternatives {
            null: self.null,
            truth: self.truth,
            numbers: self.numbers.into(),
            ranges: self.ranges.into(),
            texts: Texts::new(self.texts),
            prefixes: Prefixes::new(self.prefixes),
            suffixes: Suffixes::new(&self.suffixes),
            wildcards: self.wildcards.into(),
            nets: Nets::new(&self.nets),
            folded: ignores_case.then(|| Box::new(folded)),
        }
    }
}

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Null => f.write_str("null"),
            Scalar::Bool(truth) => truth.fmt(f),
            Scalar::Number(Num::Whole(whole)) => whole.fmt(f),
            Scalar::Number(Num::Float(float)) => float.fmt(f),
            Scalar::Text(text) => write!(f, "\"{}\"", shortened(text)),
        }
    }
}

/// At most 60 characters of `text`, with an ellipsis where it was cut.
pub(super) fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    match text.char_indices().nth(CHARS_MAX) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_values_are_listed_only_when_there_is_nothing_else() {
        let mut draft = LeafDraft::default();
        draft.any.null = true;
        draft.any.truth = [false, true];
        draft.any.texts = vec!["b".into(), "a".into(), "a".into()];
        let leaf = draft.seal(String::new());
        let values: Vec<String> = leaf
            .plain_values()
            .expect("plain")
            .map(|value| value.to_string())
            .collect();
        assert_eq!(values, ["null", "true", "\"a\"", "\"b\""]);

        let mut draft = LeafDraft::default();
        draft.any.texts = vec!["a".into()];
        draft.any.folded_texts = vec!["a".into()];
        assert!(draft.seal(String::new()).plain_values().is_none());
        let absent = LeafDraft {
            absent: true,
            ..LeafDraft::default()
        };
        assert!(absent.seal(String::new()).plain_values().is_none());
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened(&"é".repeat(61)), format!("{}…", "é".repeat(60)));
    }
}
