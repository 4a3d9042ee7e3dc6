//! JSON as events hold it: compact in memory, and read strictly where readers differ.
//!
//! What a filter is matched against and what a receiver reads are two readings of one text, and must not differ: a name
//! that an object has twice is refused, as some readers take its first value and some its last. So is what many readers
//! give up on: deep nesting, numbers beyond an `f64`, half of a surrogate pair. All in the one pass that reads the text.
//!
//! `serde_json`'s own value takes up to 96 times the text it was read from (a tree node for each `{"":0}`), so that a batch of
//! hostile events would be gigabytes; `tests/crowded.rs` says what is taken now.

mod spread;

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

pub use spread::spread;

use super::pattern::{push_key, push_position};

/// Levels of arrays and objects. A receiver gets an event's data one level deeper, and many readers end at 128.
pub const DEPTH_MAX: usize = 126;
/// Longest path in a fault, in bytes.
const PATH_BYTES_MAX: usize = 300;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number; the text that receivers get is not made from it.
    Number(Number),
    /// A string.
    Text(Box<str>),
    /// An array.
    Array(Box<[Json]>),
    /// An object.
    Object(Object),
}

/// A JSON object: each name once, in the order of their bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object(Box<[(Box<str>, Json)]>);

/// Why a text is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct JsonFault {
    /// Where: names joined by dots, positions in brackets. Empty for the whole of it, and where it is not known.
    pub path: String,
    /// What is wrong there.
    pub problem: String,
}

/// Reads a text that is one JSON value.
///
/// # Errors
/// [`JsonFault`] with the place and what is wrong there.
pub fn read(text: &str) -> Result<Json, JsonFault> {
    read_from(&mut serde_json::Deserializer::from_str(text))
}

/// The same from bytes, which must be UTF-8.
///
/// # Errors
/// [`JsonFault`] with the place and what is wrong there.
pub fn read_slice(bytes: &[u8]) -> Result<Json, JsonFault> {
    read_from(&mut serde_json::Deserializer::from_slice(bytes))
}

fn read_from<'de, R: serde_json::de::Read<'de>>(
    deserializer: &mut serde_json::Deserializer<R>,
) -> Result<Json, JsonFault> {
    let trail = RefCell::new(Trail::default());
    let reader = Reader {
        levels_left: DEPTH_MAX,
        trail: &trail,
    };
    let read = reader.deserialize(&mut *deserializer);
    let read = read.and_then(|json| deserializer.end().map(|()| json));
    read.map_err(|error| {
        let Trail { steps, problem, .. } = trail.take();
        JsonFault {
            path: path_of(&steps),
            problem: problem.unwrap_or_else(|| format!("cannot be read as JSON: {error}")),
        }
    })
}

impl Json {
    /// What kind of value it is, for a sentence.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

impl Object {
    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&Json> {
        let found = self.0.binary_search_by(|(held, _)| (**held).cmp(name));
        found.ok().map(|at| &self.0[at].1)
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values, in the order of the names' bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }
}

impl From<Json> for Value {
    fn from(json: Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(truth) => Self::Bool(truth),
            Json::Number(number) => Self::Number(number),
            Json::Text(text) => Self::String(text.into()),
            Json::Array(elements) => elements.into_iter().map(Self::from).collect(),
            Json::Object(Object(fields)) => fields
                .into_iter()
                .map(|(name, value)| (String::from(name), Self::from(value)))
                .collect(),
        }
    }
}

/// Where reading ended, from the inside out, and why, if it was not the text's grammar.
#[derive(Default)]
struct Trail {
    steps: Vec<Step>,
    /// The way there tells nobody more.
    is_of_whole: bool,
    problem: Option<String>,
}

enum Step {
    Key(Box<str>),
    Position(usize),
}

/// Reads one value.
#[derive(Clone, Copy)]
struct Reader<'t> {
    levels_left: usize,
    trail: &'t RefCell<Trail>,
}

impl Reader<'_> {
    fn refuse<E: Error>(self, problem: String) -> E {
        self.trail.borrow_mut().problem = Some(problem);
        E::custom("refused")
    }

    fn inside<E: Error>(self) -> Result<Self, E> {
        match self.levels_left.checked_sub(1) {
            Some(levels_left) => Ok(Self {
                levels_left,
                ..self
            }),
            None => {
                self.trail.borrow_mut().is_of_whole = true;
                Err(self.refuse(format!("is nested deeper than {DEPTH_MAX} levels")))
            }
        }
    }

    fn ended_at(self, step: Step) {
        let mut trail = self.trail.borrow_mut();
        if !trail.is_of_whole {
            trail.steps.push(step);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Json, E> {
        Ok(Json::Bool(truth))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Json, E> {
        // JSON has no other numbers than finite ones.
        Ok(Number::from_f64(number).map_or(Json::Null, Json::Number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let inside = self.inside()?;
        let mut elements = Vec::new();
        loop {
            match access.next_element_seed(inside) {
                Ok(Some(element)) => elements.push(element),
                Ok(None) => return Ok(Json::Array(elements.into())),
                Err(error) => {
                    self.ended_at(Step::Position(elements.len()));
                    return Err(error);
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let inside = self.inside()?;
        let mut fields: Vec<(Box<str>, Json)> = Vec::new();
        while let Some(name) = access.next_key::<Box<str>>()? {
            match access.next_value_seed(inside) {
                Ok(value) => fields.push((name, value)),
                Err(error) => {
                    self.ended_at(Step::Key(name));
                    return Err(error);
                }
            }
        }
        if !fields.is_sorted_by(|a, b| a.0 < b.0) {
            fields.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            let twice = fields.windows(2).position(|pair| pair[0].0 == pair[1].0);
            if let Some(at) = twice {
                let (name, _) = fields.swap_remove(at);
                self.ended_at(Step::Key(name));
                return Err(self.refuse("is given twice".to_owned()));
            }
        }
        Ok(Json::Object(Object(fields.into())))
    }
}

/// The path of `steps`, which are given from the inside out, cut to a readable length.
fn path_of(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps.iter().rev() {
        match step {
            Step::Key(name) => push_key(&mut path, name),
            Step::Position(at) => push_position(&mut path, *at),
        }
        if path.len() > PATH_BYTES_MAX {
            path.push('…');
            break;
        }
    }
    path
}

#[cfg(test)]
impl From<&Value> for Json {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(truth) => Self::Bool(*truth),
            Value::Number(number) => Self::Number(number.clone()),
            Value::String(text) => Self::Text(text.as_str().into()),
            Value::Array(elements) => Self::Array(elements.iter().map(Self::from).collect()),
            Value::Object(fields) => {
                let mut fields: Vec<_> = fields
                    .iter()
                    .map(|(name, value)| (name.as_str().into(), Self::from(value)))
                    .collect();
                fields.sort_unstable_by(|a: &(Box<str>, Self), b| a.0.cmp(&b.0));
                Self::Object(Object(fields.into()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn refused(text: &str) -> (String, String) {
        let fault = read(text).expect_err(&text.chars().take(80).collect::<String>());
        (fault.path, fault.problem)
    }

    #[test]
    fn what_is_read_is_what_is_written() {
        let value = json!({"b": [1, -2, 0.5, null, true, "\u{0}é😀"], "a": {}, "": [[]]});
        let read = read(&value.to_string()).unwrap();
        assert_eq!(read, Json::from(&value));
        assert_eq!(Value::from(read), value);
        let Json::Object(object) = Json::from(&value) else {
            panic!("an object");
        };
        assert_eq!(object.get("a").unwrap().kind(), "an object");
        assert!(object.get("c").is_none());
    }

    #[test]
    fn a_name_is_given_once_however_it_is_written() {
        for (text, path) in [
            (r#"{"a":1,"a":1}"#, "a"),
            (r#"{"a":1,"b":2,"\u0061":3}"#, "a"),
            (r#"{"x":[0,{"y":{"a":1,"c":2,"a":3}}]}"#, "x[1].y.a"),
            (r#"{"x y":{"":1,"":2}}"#, r#"["x y"][""]"#),
            (r#"[[{"k":{},"k":{}}]]"#, "[0][0].k"),
        ] {
            assert_eq!(
                refused(text),
                (path.to_owned(), "is given twice".to_owned())
            );
        }
        // Names are compared as they are: not by case, not after normalisation.
        assert!(read(r#"{"a":1,"A":2,"é":3,"e\u0301":4,"a\u0000":5}"#).is_ok());
    }

    #[test]
    fn depth_is_bounded_whatever_it_is_made_of() {
        let arrays = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let objects = |depth: usize| "{\"a\":".repeat(depth) + "0" + &"}".repeat(depth);
        for nested in [arrays, objects as fn(usize) -> String] {
            assert!(read(&nested(DEPTH_MAX)).is_ok());
            for depth in [DEPTH_MAX + 1, 128, 129, 100_000] {
                let (path, problem) = refused(&nested(depth));
                assert!(problem.contains("deeper than 126 levels"), "{problem}");
                assert_eq!(path, "");
            }
        }
        // A text that does not even end.
        assert!(refused(&"[".repeat(1 << 20)).1.contains("deeper"));
    }

    #[test]
    fn what_readers_differ_on_is_refused_with_its_place() {
        for (value, problem) in [
            (r#""\ud800""#, "hex escape"),
            (r#""\ud800\ud800""#, "surrogate"),
            (r#""\udc00x""#, "surrogate"),
            ("\"a\u{1}b\"", "control character"),
            ("\"a\nb\"", "control character"),
            ("1e999999", "out of range"),
            (&"9".repeat(400), "out of range"),
            ("01", "invalid number"),
            ("+1", "expected value"),
            ("NaN", "expected value"),
            (".5", "expected value"),
            ("'a'", "expected value"),
            ("1 // no", "expected"),
        ] {
            let (path, found) = refused(&format!(r#"{{"x":[0,{value}]}}"#));
            assert!(path.starts_with('x'), "{value}: {path}");
            assert!(found.contains(problem), "{value}: {found}");
        }
        for text in [
            "",
            " ",
            "{",
            "{}{}",
            "[1,]",
            "\u{feff}{}",
            r#"{"\ud800":1}"#,
        ] {
            assert!(read(text).is_err(), "{text:?}");
        }
        for bytes in [
            &b"\"\xff\""[..],
            b"\"\xc0\xaf\"",
            b"\"\xed\xa0\x80\"",
            b"\"\xf4\x90\x80\x80\"",
            b"\xef\xbb\xbf{}",
        ] {
            assert!(read_slice(bytes).is_err(), "{bytes:?}");
        }
        for fine in [
            r#""\u0000""#,
            "-0",
            "1e-999999",
            r#""\ud83d\ude00""#,
            "0.1e1",
        ] {
            assert!(read(fine).is_ok(), "{fine}");
        }
        assert!(read(&format!("0.{}", "1".repeat(400))).is_ok());
    }

    #[test]
    fn values_are_small() {
        assert!(size_of::<Json>() <= 24);
        assert!(size_of::<(Box<str>, Json)>() <= 40);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_panic(text in "[\\[\\]{}:,\"\\\\uda0-9e. ]{0,60}") {
            let theirs = serde_json::from_str::<Value>(&text);
            match read(&text) {
                Ok(json) => prop_assert_eq!(Value::from(json), theirs.unwrap()),
                Err(fault) if fault.problem == "is given twice" => prop_assert!(theirs.is_ok()),
                Err(_) => prop_assert!(theirs.is_err()),
            }
        }
    }
}
