//! A received request as lines on a terminal, or as a line of JSON.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::super::output::{self, Look, Tone};
use super::super::receiver::Received;
use crate::domain::json::spread;
use crate::domain::signature::SignatureFault;

/// Ids that are remembered, to know a resend.
const REMEMBERED_MAX: usize = 10_000;
/// Lines and characters of a body that are printed, unless it is wanted in full.
const BODY_LINES_MAX: usize = 20;
const BODY_LINE_CHARS_MAX: usize = 200;

/// Prints requests, and remembers which were there before.
#[derive(Debug)]
pub struct Printer {
    look: Look,
    in_full: bool,
    seen: HashMap<String, u64>,
    order: VecDeque<String>,
}

impl Printer {
    /// Prints with `look`; bodies in full or cut.
    pub fn new(look: Look, in_full: bool) -> Self {
        Self {
            look,
            in_full,
            seen: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// How often this request's `webhook-id` was seen before.
    pub fn remember(&mut self, received: &Received) -> u64 {
        let Some(id) = received.header("webhook-id") else {
            return 0;
        };
        if let Some(times) = self.seen.get_mut(id) {
            *times += 1;
            return *times - 1;
        }
        if self.order.len() >= REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        self.order.push_back(id.to_owned());
        self.seen.insert(id.to_owned(), 1);
        0
    }

    /// The lines of a request that was answered with `status`.
    pub fn text(&self, received: &Received, status: StatusCode, resends: u64) -> String {
        let look = self.look;
        let time = received.at.to_string();
        let time = look.paint(Tone::Faint, time.get(11..23).unwrap_or(&time));
        let tone = if status.is_success() {
            Tone::Good
        } else {
            Tone::Bad
        };
        let body = serde_json::from_slice::<Value>(&received.body).ok();
        let kind = event_type(body.as_ref());
        let answer = look.paint(tone, status.as_str());
        let mut text = format!(
            "{time} {} {}  {}  → {answer}\n",
            received.method,
            output::visible(&received.path),
            look.paint(Tone::Strong, &output::visible(kind)),
        );
        let id = output::visible(
            received
                .header("webhook-id")
                .unwrap_or("without webhook-id"),
        );
        let resend = match resends {
            0 => String::new(),
            n => look.paint(Tone::Notable, &format!("  resend {n}")),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {id}{resend}{}", self.verdicts(received));
        self.body(&mut text, received, body.as_ref());
        text
    }

    fn verdicts(&self, received: &Received) -> String {
        let verdicts = &received.verdicts;
        let kinds = [
            ("standard", &verdicts.standard),
            ("leicbit", &verdicts.leicbit),
        ];
        let mut text = String::new();
        for (kind, verdict) in kinds {
            let shown = match verdict {
                None => continue,
                Some(Ok(())) => self.look.paint(Tone::Good, &format!("{kind} ✓")),
                Some(Err(fault)) => self.look.paint(Tone::Bad, &format!("{kind} ✗ {fault}")),
            };
            text.push_str("  ");
            text.push_str(&shown);
        }
        text
    }

    fn body(&self, text: &mut String, received: &Received, body: Option<&Value>) {
        let raw = String::from_utf8_lossy(&received.body);
        let shown = match body {
            Some(_) => spread(&raw),
            None => raw.into_owned(),
        };
        let (lines_max, chars_max) = match self.in_full {
            true => (usize::MAX, usize::MAX),
            false => (BODY_LINES_MAX, BODY_LINE_CHARS_MAX),
        };
        let shown = output::visible(&shown);
        let mut lines = shown.lines();
        for line in lines.by_ref().take(lines_max) {
            let cut = line.char_indices().nth(chars_max);
            let line = cut.map_or(line.to_owned(), |(at, _)| format!("{}…", &line[..at]));
            let _ = writeln!(text, "  {line}");
        }
        let more = lines.count() as u64;
        if more > 0 {
            let cut = format!("… {} more (--body shows them)", output::count(more, "line"));
            let _ = writeln!(text, "  {}", self.look.paint(Tone::Faint, &cut));
        }
    }
}

/// `type` of a standard body, `event_type` of a Leicbit one.
fn event_type(body: Option<&Value>) -> &str {
    let member = |name: &str| body?.get(name)?.as_str();
    member("type")
        .or_else(|| member("event_type"))
        .unwrap_or("")
}

/// The request as one line for programs.
pub fn json_line(received: &Received, status: StatusCode, resends: u64) -> Value {
    let body = serde_json::from_slice::<Value>(&received.body);
    let mut headers = Map::new();
    for (name, value) in &received.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.insert(name.as_str().to_owned(), value.into());
    }
    let verdict = |verdict: &Option<Result<(), SignatureFault>>| match verdict {
        None => Value::Null,
        Some(Ok(())) => json!({"verified": true}),
        Some(Err(fault)) => json!({"verified": false, "problem": fault.to_string()}),
    };
    json!({
        "at": received.at.to_string(),
        "method": received.method.as_str(),
        "path": received.path,
        "event_type": event_type(body.as_ref().ok()),
        "webhook_id": received.header("webhook-id"),
        "resends": resends,
        "status": status.as_u16(),
        "standard": verdict(&received.verdicts.standard),
        "leicbit": verdict(&received.verdicts.leicbit),
        "connection": received.connection,
        "headers": headers,
        "body": String::from_utf8_lossy(&received.body),
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::super::super::receiver::Verdicts;
    use super::*;
    use crate::domain::timestamp::UnixMillis;

    fn received(id: &'static str, body: &'static str) -> Received {
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", http::HeaderValue::from_static(id));
        Received {
            at: UnixMillis(1_772_368_200_000),
            method: Method::POST,
            path: "/hook".to_owned(),
            headers,
            body: body.into(),
            verdicts: Verdicts {
                standard: Some(Ok(())),
                leicbit: Some(Err(SignatureFault::NoMatch)),
            },
            connection: 1,
        }
    }

    #[test]
    fn a_request_is_told_in_two_lines_and_its_body() {
        let mut printer = Printer::new(Look { colour: false }, false);
        let request = received("msg_1", r#"{"type":"a.b","data":{}}"#);
        assert_eq!(printer.remember(&request), 0);
        let text = printer.text(&request, StatusCode::OK, 0);
        let mut lines = text.lines();
        let first = lines.next().unwrap();
        assert_eq!(first, "12:30:00.000 POST /hook  a.b  → 200");
        let second = lines.next().unwrap();
        assert!(
            second.starts_with("  msg_1  standard ✓  leicbit ✗ no signature"),
            "{second}"
        );
        assert_eq!(printer.remember(&request), 1);
        let again = printer.text(&request, StatusCode::OK, 1);
        assert!(again.contains("resend 1"));
    }

    #[test]
    fn a_long_body_is_cut_unless_wanted_in_full() {
        let mut body = String::from("x\n").repeat(100);
        body.push_str(&"y".repeat(1000));
        let request = Received {
            body: body.into(),
            ..received("msg_1", "")
        };
        let look = Look { colour: false };
        let cut = Printer::new(look, false).text(&request, StatusCode::OK, 0);
        assert_eq!(cut.lines().count(), 2 + BODY_LINES_MAX + 1);
        assert!(cut.contains("81 lines more"));
        let full = Printer::new(look, true).text(&request, StatusCode::OK, 0);
        assert_eq!(full.lines().count(), 2 + 101);
    }

    #[test]
    fn ids_are_forgotten_in_the_end() {
        let mut printer = Printer::new(Look { colour: false }, false);
        for i in 0..=REMEMBERED_MAX {
            let mut request = received("", "");
            let id = i.to_string().parse().unwrap();
            request.headers.insert("webhook-id", id);
            assert_eq!(printer.remember(&request), 0);
        }
        assert_eq!(printer.seen.len(), REMEMBERED_MAX);
        assert_eq!(printer.order.len(), REMEMBERED_MAX);
    }
}
