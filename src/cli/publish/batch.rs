//! Events cut into batches, and what the API says about a batch.
//!
//! An event is kept as the bytes that were read: what is published is what was written.

use serde_json::Value;
use serde_json::value::RawValue;

use super::super::client::Problem;

/// Bytes in one request; a single larger event makes a request of its own.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// An event as it was written, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its line, from 1; in an array, its element.
    pub number: u64,
    /// The JSON text.
    pub text: String,
}

/// Collects events until there are enough for a request.
#[derive(Debug)]
pub struct Batcher {
    events: Vec<Event>,
    bytes: usize,
    events_max: usize,
}

impl Batcher {
    /// Makes batches of at most `events_max`.
    pub fn new(events_max: usize) -> Self {
        Self {
            events: Vec::new(),
            bytes: 0,
            events_max,
        }
    }

    /// Adds an event; returns those before it when they fill a batch.
    #[must_use]
    pub fn push(&mut self, event: Event) -> Option<Vec<Event>> {
        let size = event.text.len() + 1;
        let full = self.events.len() >= self.events_max || self.bytes + size > BATCH_BYTES_MAX;
        let before = (full && !self.events.is_empty()).then(|| self.take());
        self.bytes += size;
        self.events.push(event);
        before
    }

    /// Whether nothing is collected.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Takes out what was collected.
    pub fn take(&mut self) -> Vec<Event> {
        self.bytes = 0;
        std::mem::take(&mut self.events)
    }
}

/// Checks that a line is one JSON object; blank lines are none.
///
/// # Errors
/// A sentence on what is wrong.
pub fn read_line(line: &[u8]) -> Result<Option<String>, String> {
    let text = std::str::from_utf8(line).map_err(|_| "it is not UTF-8 text".to_owned())?;
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if !text.starts_with('{') {
        return Err("an event must be a JSON object".to_owned());
    }
    match serde_json::from_str::<&RawValue>(text) {
        Ok(_) => Ok(Some(text.to_owned())),
        Err(error) if error.is_eof() => Err(
            "the line ends within the event: each event must be on one line (`jq -c .` does that)"
                .to_owned(),
        ),
        Err(error) => Err(format!("it is not JSON: {error}")),
    }
}

/// Cuts a JSON array into its elements.
///
/// # Errors
/// A sentence on what is wrong.
pub fn read_array(bytes: &[u8]) -> Result<Vec<Event>, String> {
    let elements: Vec<&RawValue> = serde_json::from_slice(bytes)
        .map_err(|error| format!("it is not a JSON array: {error}"))?;
    let event = |(number, element): (u64, &RawValue)| Event {
        number,
        text: element.get().to_owned(),
    };
    Ok((1..).zip(elements).map(event).collect())
}

/// The body of the request: an array.
pub fn encode(events: &[Event]) -> Vec<u8> {
    let mut body = Vec::from(b"[");
    for (i, event) in events.iter().enumerate() {
        if i > 0 {
            body.push(b',');
        }
        body.extend_from_slice(event.text.as_bytes());
    }
    body.push(b']');
    body
}

/// Whether the events themselves were refused, rather than the call.
pub fn is_refusal(problem: &Problem) -> bool {
    matches!(problem.status, 400 | 413 | 422)
}

/// Which events of a batch of `len` were refused, and why: as far as the answer says.
/// Found in `index` of the problem, or in each of its `errors`.
pub fn refused(problem: &Problem, len: usize) -> Vec<(usize, String)> {
    let index_of = |value: &Value| {
        let index = usize::try_from(value["index"].as_u64()?).ok()?;
        (index < len).then_some(index)
    };
    let errors = problem.document["errors"].as_array();
    let mut found: Vec<(usize, String)> = errors
        .into_iter()
        .flatten()
        .filter_map(|error| Some((index_of(error)?, reason(error, problem))))
        .collect();
    if found.is_empty()
        && let Some(index) = index_of(&problem.document)
    {
        found.push((index, problem.to_string()));
    }
    found.sort_by_key(|(index, _)| *index);
    found.dedup_by_key(|(index, _)| *index);
    found
}

fn reason(error: &Value, problem: &Problem) -> String {
    let of = |name: &str| error[name].as_str();
    match (of("detail").or(of("message")), of("field").or(of("path"))) {
        (Some(detail), Some(field)) if !detail.contains(field) => format!("`{field}`: {detail}"),
        (Some(detail), _) => detail.to_owned(),
        (None, _) => problem.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(number: u64, text: &str) -> Event {
        Event {
            number,
            text: text.to_owned(),
        }
    }

    fn problem(document: Value) -> Problem {
        Problem {
            status: 422,
            title: "Invalid event".to_owned(),
            document,
            ..Problem::default()
        }
    }

    #[test]
    fn a_line_is_an_object_and_stays_as_written() {
        let line = b" {\"id\": 1.50 }\r\n";
        assert_eq!(read_line(line), Ok(Some("{\"id\": 1.50 }".to_owned())));
        assert_eq!(read_line(b"  \n"), Ok(None));
        let cases: [(&[u8], &str); 5] = [
            (b"[1]", "object"),
            (b"{", "on one line"),
            (b"{\"a\":}", "not JSON"),
            (b"{} {}", "not JSON"),
            (b"{\"\xff\":1}", "UTF-8"),
        ];
        for (line, expected) in cases {
            let error = read_line(line).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn an_array_is_cut_into_its_elements() {
        let events = read_array(b"[{\"a\": 1},\n {}]").unwrap();
        assert_eq!(events, [event(1, "{\"a\": 1}"), event(2, "{}")]);
        assert_eq!(encode(&events), b"[{\"a\": 1},{}]");
        assert!(read_array(b"[{}").is_err());
    }

    #[test]
    fn batches_are_bounded_by_number_and_size() {
        let mut batcher = Batcher::new(2);
        assert_eq!(batcher.push(event(1, "{}")), None);
        assert_eq!(batcher.push(event(2, "{}")), None);
        assert_eq!(batcher.push(event(3, "{}")).unwrap().len(), 2);
        let large = "x".repeat(BATCH_BYTES_MAX);
        assert_eq!(batcher.push(event(4, &large)).unwrap().len(), 1);
        assert_eq!(batcher.push(event(5, "{}")).unwrap()[0].number, 4);
        assert_eq!(batcher.take(), [event(5, "{}")]);
        assert!(batcher.take().is_empty());
    }

    #[test]
    fn the_refused_event_is_found_where_the_answer_names_it() {
        let top = problem(json!({"index": 3, "detail": "x"}));
        assert_eq!(refused(&top, 5), [(3, top.to_string())]);
        assert_eq!(refused(&top, 3), []);
        let each = problem(json!({"errors": [
            {"index": 2, "field": "data.domain", "detail": "is missing"},
            {"index": 0, "message": "no"},
            {"index": 9, "detail": "outside"},
            "odd",
        ]}));
        let expected = [
            (0, "no".to_owned()),
            (2, "`data.domain`: is missing".to_owned()),
        ];
        assert_eq!(refused(&each, 5), expected);
        assert_eq!(refused(&problem(json!({})), 5), []);
    }
}
