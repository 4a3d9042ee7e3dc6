//! From a filter's JSON to rules, or to an error that names the place and the remedy.
//!
//! Everything a tenant may send is refused here or bounded here, so that matching has nothing left to check. The reader
//! of the JSON bounds its size; this bounds what is made of it.

use serde_json::{Map, Value};

use super::PatternError;
use super::eval::{ObjectRule, Rule};
use super::leaf::shortened;

mod operators;

/// Levels of objects and arrays: far more than events have, and few enough that recursion over them is harmless.
const DEPTH_MAX: usize = 32;
/// Alternatives of all leaves together. Plain values are searched by halving, so many are cheap.
const ALTERNATIVES_MAX: usize = 4_096;
/// Alternatives that must be tried one by one: `wildcard`, `numeric` ranges, `anything-but`.
const TRIED_MAX: usize = 256;

/// Bounds that came after filters had been stored.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Fields with alternatives. Each may have a path of its own in the tree of its tenant's filters, which takes about a
    /// kilobyte, and each is tried on every element of an array.
    leaves_max: usize,
    /// Bytes of all names and texts.
    text_bytes_max: usize,
}

impl Bounds {
    /// What is written now.
    pub(super) const NEW: Bounds = Bounds {
        leaves_max: 512,
        text_bytes_max: 128 * 1024,
    };
    /// What was written before.
    pub(super) const STORED: Bounds = Bounds {
        leaves_max: usize::MAX,
        text_bytes_max: usize::MAX,
    };
}

/// Which object of the pattern is read.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    /// The event itself, which has five fields.
    Event,
    /// `data` or something below it.
    Data,
}

/// One step from the root of the filter to the place being read.
enum Step<'j> {
    Key(&'j str),
    Position(usize),
}

/// Where the reader is and what it has counted so far.
struct Reader<'j> {
    bounds: Bounds,
    path: Vec<Step<'j>>,
    leaves: usize,
    alternatives: usize,
    tried: usize,
}

type Read<T> = Result<T, PatternError>;

/// Compiles a whole filter.
pub(super) fn compile(json: &Value, bounds: Bounds) -> Read<ObjectRule> {
    let mut reader = Reader {
        bounds,
        path: Vec::new(),
        leaves: 0,
        alternatives: 0,
        tried: 0,
    };
    let rule = reader.object(json, Level::Event, false)?;
    let (found, most) = (text_bytes(json), bounds.text_bytes_max);
    if found > most {
        return reader.fault(format!(
            "the names and texts of the filter have {found} bytes, at most {most} are allowed; use a second subscription"
        ));
    }
    Ok(rule)
}

/// The bytes of all names and texts. The reader has bounded the depth.
fn text_bytes(json: &Value) -> usize {
    match json {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(text_bytes).sum(),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| key.len() + text_bytes(value))
            .sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// Objects, fields and `$or`.
impl<'j> Reader<'j> {
    fn object(&mut self, json: &'j Value, level: Level, is_branch: bool) -> Read<ObjectRule> {
        let Value::Object(map) = json else {
            return self.fault(format!(
                r#"expected an object with the fields to match, such as {{"type": ["…"]}}, found {}"#,
                described(json)
            ));
        };
        if map.is_empty() {
            return self.fault("expected at least one field, found an empty object; name a field, or leave this out");
        }
        let mut fields = Vec::new();
        let mut any_of = Vec::new();
        for (key, value) in map {
            if key == "$or" {
                any_of = self.within(Step::Key(key), |reader| reader.branches(value, level))?;
            } else {
                let rule = self.within(Step::Key(key), |reader| {
                    reader.field(key, value, level, is_branch)
                })?;
                fields.push((key.as_str().into(), rule));
            }
        }
        Ok(ObjectRule::new(fields, any_of))
    }

    fn branches(&mut self, json: &'j Value, level: Level) -> Read<Vec<ObjectRule>> {
        match json {
            Value::Array(branches) if branches.len() >= 2 => (branches.iter().enumerate())
                .map(|(at, branch)| {
                    self.within(Step::Position(at), |reader| reader.object(branch, level, true))
                })
                .collect(),
            Value::Array(branches) => self.fault(format!(
                "expected an array of at least two patterns, found {}; without an alternative, write the fields directly",
                branches.len()
            )),
            other => self.fault(format!(
                "expected an array of at least two patterns, found {}; `$or` is never a field of an event",
                described(other)
            )),
        }
    }

    fn field(&mut self, key: &str, json: &'j Value, level: Level, is_branch: bool) -> Read<Rule> {
        if is_branch && is_operator(key) {
            return self.fault(format!(
                r#"expected the name of a field, found the operator `{key}`; put it into a leaf: {{"field": [{{"{key}": …}}]}}"#
            ));
        }
        if level == Level::Event {
            self.check_event_field(key, json)?;
        }
        match json {
            Value::Object(_) => Ok(Rule::Object(self.object(json, Level::Data, false)?)),
            Value::Array(alternatives) => {
                self.count_leaf()?;
                Ok(Rule::leaf(self.leaf(alternatives, json)?))
            }
            other if is_operator(key) => self.fault(format!(
                r#"expected an array of alternatives or an object, found {}; an operator stands inside an array: [{{"{key}": …}}]"#,
                described(other)
            )),
            other => self.fault(format!(
                "expected an array of alternatives or an object, found {}; put it into an array: [{}]",
                described(other),
                quoted(other)
            )),
        }
    }

    fn check_event_field(&self, key: &str, json: &Value) -> Read<()> {
        let hint = match key {
            "data" if matches!(json, Value::Object(_)) => return Ok(()),
            "data" => {
                return self.fault(format!(
                    "expected an object with the fields of `data` to match, found {}; `data` is an object in every event",
                    described(json)
                ));
            }
            "id" | "type" | "tenant" | "timestamp" if !matches!(json, Value::Object(_)) => {
                return Ok(());
            }
            "id" | "type" | "tenant" | "timestamp" => {
                return self.fault(format!(
                    "expected an array of alternatives, found an object; `{key}` is a string in every event"
                ));
            }
            "detail" => "; EventBridge's `detail` is `data` here",
            "detail-type" | "source" => "; the kind of an event is its `type` here",
            "account" => "; EventBridge's `account` is `tenant` here",
            "time" => "; EventBridge's `time` is `timestamp` here",
            _ => "; other fields are below `data`",
        };
        self.fault(format!(
            "expected one of id, type, tenant, timestamp, data, found `{}`{hint}",
            shortened(key)
        ))
    }
}

/// Place, count, refuse.
impl<'j> Reader<'j> {
    /// Reads something one step further in. After a fault the path is of no more use, so it is not restored.
    fn within<T>(
        &mut self,
        step: Step<'j>,
        read: impl FnOnce(&mut Reader<'j>) -> Read<T>,
    ) -> Read<T> {
        self.path.push(step);
        if self.path.len() > DEPTH_MAX {
            return self.fault(format!(
                "the filter is nested deeper than {DEPTH_MAX} levels; flatten it"
            ));
        }
        let value = read(self)?;
        self.path.pop();
        Ok(value)
    }

    /// The only entry of an operator object.
    fn single(&self, object: &'j Map<String, Value>, known: &str) -> Read<(&'j str, &'j Value)> {
        let mut entries = object.iter();
        match (entries.next(), entries.next()) {
            (Some((name, operand)), None) => Ok((name, operand)),
            (None, _) => self.fault(format!(
                "expected one of the operators {known}, found an empty object"
            )),
            (Some((first, _)), Some((second, _))) => self.fault(format!(
                "expected a single operator, found `{}` and `{}`; give each its own object",
                shortened(first),
                shortened(second)
            )),
        }
    }

    fn count_leaf(&mut self) -> Read<()> {
        self.leaves += 1;
        let most = self.bounds.leaves_max;
        if self.leaves > most {
            return self.fault(format!(
                "the filter has more than {most} fields with alternatives; list the alternatives of one field together, or use a second subscription"
            ));
        }
        Ok(())
    }

    fn count_alternative(&mut self) -> Read<()> {
        self.alternatives += 1;
        if self.alternatives > ALTERNATIVES_MAX {
            return self.fault(format!(
                "the filter has more than {ALTERNATIVES_MAX} alternatives; use `prefix` or `cidr` for several at once, or a second subscription"
            ));
        }
        Ok(())
    }

    fn count_tried(&mut self) -> Read<()> {
        self.tried += 1;
        if self.tried > TRIED_MAX {
            return self.fault(format!(
                "the filter has more than {TRIED_MAX} of `wildcard`, `numeric` and `anything-but`; use a list inside one `anything-but`, plain values, or a second subscription"
            ));
        }
        Ok(())
    }

    fn fault<T>(&self, problem: impl Into<String>) -> Read<T> {
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Key(key) => push_key(&mut path, key),
                Step::Position(at) => push_position(&mut path, *at),
            }
        }
        Err(PatternError {
            path,
            problem: problem.into(),
        })
    }
}

/// Appends a key to a path in the notation of [`PatternError::path`].
pub(in crate::domain) fn push_key(path: &mut String, key: &str) {
    let plain = !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$'));
    if !plain {
        path.push_str(&format!("[{:?}]", shortened(key)));
        return;
    }
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(&shortened(key));
}

/// Appends a position in an array to a path.
pub(in crate::domain) fn push_position(path: &mut String, at: usize) {
    path.push_str(&format!("[{at}]"));
}

fn is_operator(key: &str) -> bool {
    matches!(
        key,
        "prefix"
            | "suffix"
            | "equals-ignore-case"
            | "wildcard"
            | "anything-but"
            | "numeric"
            | "cidr"
            | "exists"
            | "exactly"
    )
}

/// What kind of thing a value is, for a sentence.
fn described(json: &Value) -> String {
    match json {
        Value::Null => "null".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the string {}", quoted(&Value::from(shortened(text)))),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(map) if map.is_empty() => "an empty object".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// A value as JSON, cut to a readable length.
fn quoted(json: &Value) -> String {
    const CHARS_MAX: usize = 120;
    let text = json.to_string();
    match text.char_indices().nth(CHARS_MAX) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}
