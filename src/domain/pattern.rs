//! Event patterns: which events a subscription wants.
//!
//! A subscription's `filter` is an event pattern of Amazon EventBridge, as [event-ruler] documents it, over the event
//! `{"id","type","tenant","timestamp","data"}`. [`Pattern`] is one compiled filter, [`TypeGlob`] one entry of
//! `event_types`, [`Matcher`] all subscriptions of a tenant compiled together. Written here because no crate holds up
//! under this language; the design notes say which were tried.
//!
//! # The language
//!
//! - A pattern is an object that mirrors the event. Different fields must all be met. A leaf is an array of
//!   alternatives, of which one must be met: plain values, and `prefix`, `suffix`, `wildcard`, `equals-ignore-case`,
//!   `anything-but`, `numeric`, `cidr`, `exists`. `$or` holds patterns of which one must be met, together with its siblings.
//! - **Arrays.** A leaf is met by an array when it is met by one of its values, however deeply nested. A pattern object
//!   is met by an array when **one** element meets the whole of it, its `$or` included: fields named together below an
//!   array are met by the same element. An element that is no object has none of the fields.
//! - **Absence.** A field is absent when the event does not have it, when its value is an object (a leaf asks for a
//!   value), and when its value is an array that holds no value. An absent field meets only `{"exists": false}`; `null`
//!   is a value, met by `null`, by `{"exists": true}` and by every `anything-but`.
//! - **`anything-but`** needs a value and is met by any it does not name, also of another type: `{"anything-but": 5}` by
//!   `"5"`. On an array it is met when one value differs (not: when all do).
//!
//! # Departures from event-ruler
//!
//! - Numbers are compared exactly, without its limits of ±5 × 10⁹ and six decimals; `[">=", 5, "<=", 5]` is allowed.
//! - A plain string is only ever that string; event-ruler reads one that looks like an IP address as the address.
//! - A field name with dots is a plain key, not a path of several.
//! - `{"exists": false}` below an array asks for one element that lacks the field; where some elements lack it and others do
//!   not, event-ruler's answer depends on the order of the field names.
//! - Each `$or` above an array, and each pattern object beside it, looks at that array for itself; event-ruler holds
//!   the fields of the whole rule to one element. Written inside the object below the array, both agree.
//! - `$or` is always the operator, and anything but an array of two or more patterns is refused; event-ruler may take it for
//!   a field. As there, a branch may not name a field like an operator.
//! - A field of the event that does not exist, `data` as a leaf and `type` as an object are refused: they never match.
//! - Case is folded with Unicode's lower case, character by character. The undocumented `exactly` is not known.
//!
//! # Bounds
//!
//! A tenant writes patterns and a publisher writes events, so both may be hostile. Patterns are bounded when they are
//! compiled; `$or` is never multiplied out; matching visits each pair of pattern node and event node at most once,
//! recurses no deeper than the pattern, and every test on a string is linear in it. As all pairs may still be
//! thousands of millions, an event has a [`Budget`] of steps.
//!
//! Not here: which tenants exist, where events come from, what is sent. No clock, no I/O, no cache.
//!
//! [event-ruler]: https://github.com/aws/event-ruler

mod budget;
mod compile;
mod eval;
mod leaf;
mod matcher;
mod number;
#[cfg(test)]
mod tests;
mod text;
mod type_glob;

use std::sync::Arc;

use serde_json::Value;

pub use self::budget::Budget;
pub(super) use self::compile::{push_key, push_position};
use self::eval::{Node, ObjectRule};
pub use self::matcher::Matcher;
pub use self::type_glob::{GLOB_BYTES_MAX, TypeGlob, TypeGlobError};
use super::json::Object;

/// The event type whose `data.alerts` a pattern also selects from.
pub const ALERTS_EVENT_TYPE: &str = "lookup_result.alerts";

/// An event as patterns see it.
#[derive(Clone, Copy, Debug)]
pub struct EventView<'a> {
    /// The publisher's key.
    pub id: &'a str,
    /// The event's `type`.
    pub kind: &'a str,
    /// Whose event it is.
    pub tenant: &'a str,
    /// RFC 3339; to a pattern it is text.
    pub timestamp: &'a str,
    /// What happened.
    pub data: &'a Object,
}

/// One compiled filter. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Pattern {
    root: Arc<ObjectRule>,
}

/// Why a filter does not compile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filter: {}{problem}", at(path))]
pub struct PatternError {
    /// Where the fault is: keys joined by dots, positions in brackets (`data.alerts.score[0].numeric[1]`); a key that is
    /// not made of letters, digits, `_`, `-` and `$` is quoted in brackets (`data["a.b"][0]`). Empty when it is the whole filter.
    pub path: String,
    /// What was expected, what came, and what to do.
    pub problem: String,
}

/// Which elements of `data.alerts` a subscription gets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selection {
    /// The event matches and the pattern does not tell one alert from another (also: it is not an event with alerts).
    All,
    /// The positions of the alerts that match, ascending. **Empty means no delivery**: no alert, or not the event.
    Some(Vec<usize>),
}

/// The first rule of a pattern that said no to an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Where in the event, in the notation of [`PatternError::path`].
    pub path: String,
    /// What the pattern asks for there, cut to a readable length.
    pub wanted: String,
    /// What the event has there, in short; `absent` for nothing.
    pub found: String,
}

impl Pattern {
    /// Compiles an event pattern.
    ///
    /// # Errors
    ///
    /// A [`PatternError`] for the first fault met, keys taken in the order of the map.
    pub fn compile(json: &Value) -> Result<Pattern, PatternError> {
        let root = Arc::new(compile::compile(json, compile::Bounds::NEW)?);
        Ok(Pattern { root })
    }

    /// Compiles what was accepted before, perhaps with wider bounds.
    ///
    /// # Errors
    ///
    /// A [`PatternError`].
    pub fn compile_stored(json: &Value) -> Result<Pattern, PatternError> {
        let root = Arc::new(compile::compile(json, compile::Bounds::STORED)?);
        Ok(Pattern { root })
    }

    /// Whether the event meets the pattern. When `budget` is spent, this is no answer.
    pub fn matches(&self, event: &EventView<'_>, budget: &Budget) -> bool {
        self.root.holds(Node::of_event(event), budget)
    }

    /// Which alerts of a `lookup_result.alerts` event the pattern selects: those with which alone in `data.alerts` the
    /// event would match. Takes time in proportion to the alerts. For any other event: [`Selection::All`] when it
    /// matches, else an empty [`Selection::Some`]. When `budget` is spent, this is no answer.
    pub fn select_alerts(&self, event: &EventView<'_>, budget: &Budget) -> Selection {
        eval::select_alerts(&self.root, event, budget)
    }

    /// Why the event does not match: the first rule that says no, as deep in the event as can be told. `None` when it matches.
    /// Means nothing when the budget is spent.
    pub fn explain(&self, event: &EventView<'_>, budget: &Budget) -> Option<Mismatch> {
        eval::explain(&self.root, event, budget)
    }
}

impl Selection {
    /// Whether nothing was selected, so that nothing is delivered.
    pub fn is_empty(&self) -> bool {
        matches!(self, Selection::Some(positions) if positions.is_empty())
    }
}

fn at(path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!("at `{path}`: ")
    }
}
