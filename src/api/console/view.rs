//! What the API answers, as pages show it.

use std::collections::BTreeMap;

use askama::Template;
use serde::Deserialize;
use serde_json::Value;

use crate::domain::json::spread;

/// Longer bodies are shown as they are.
const SPREAD_BYTES_MAX: usize = 16 * 1024;

/// A page of a list.
#[derive(Deserialize)]
pub struct List<T> {
    pub items: Vec<T>,
    #[serde(default)]
    pub next: Option<String>,
}

impl<T> List<T> {
    /// What there is when the API has nothing to show.
    pub fn nothing() -> Self {
        Self {
            items: Vec::new(),
            next: None,
        }
    }
}

/// A time, to the second; the script says how long ago that is.
#[derive(Template)]
#[template(
    ext = "html",
    source = r#"{% if self.0.is_empty() %}<span class="faint">–</span>{% else %}<time datetime="{{ self.0 }}">{{ self.words() }}</time>{% endif %}"#
)]
pub struct When<'a>(pub &'a str);

impl When<'_> {
    fn words(&self) -> String {
        self.0.get(..19).unwrap_or(self.0).replace('T', " ")
    }
}

#[derive(Deserialize)]
pub struct Subscription {
    pub id: String,
    pub tenant: String,
    pub url: String,
    pub format: String,
    pub description: String,
    pub enabled: bool,
    pub event_types: Vec<String>,
    pub filter: Option<Value>,
    pub headers: BTreeMap<String, String>,
    pub rate_limit: Option<Value>,
    pub timeout_ms: u64,
    pub retry: Option<Value>,
    pub signing: String,
    pub disabled_reason: Option<String>,
    pub created_at: String,
    pub updated_at: String,
    pub public_key: Option<String>,
    #[serde(default)]
    pub secret: Option<Secret>,
    #[serde(default)]
    pub warnings: Vec<Warning>,
}

/// A secret as it is shown once.
#[derive(Deserialize)]
pub struct Secret {
    pub hex: Option<String>,
    pub whsec: Option<String>,
    pub public_key: Option<String>,
}

#[derive(Deserialize)]
pub struct Warning {
    pub detail: String,
}

impl Subscription {
    /// What it is called: its description, or else where it leads.
    pub fn name(&self) -> &str {
        let first = self.description.lines().next().unwrap_or_default();
        if first.is_empty() { &self.url } else { first }
    }

    /// Its state in a word.
    pub fn state(&self) -> &str {
        match self.disabled_reason.as_deref() {
            _ if self.enabled => "enabled",
            Some("gone") => "disabled: gone",
            Some("failing") => "disabled: failing",
            _ => "disabled",
        }
    }

    /// The filter for people to read.
    pub fn filter_text(&self) -> String {
        let text = self.filter.as_ref().map(Value::to_string);
        text.map_or(String::new(), |text| spread(&text))
    }
}

#[derive(Deserialize)]
pub struct Attempt {
    pub id: String,
    pub delivery_id: String,
    pub subscription_id: String,
    pub tenant: String,
    pub attempt: u32,
    pub redrives: u32,
    pub event_id: String,
    pub event_type: String,
    pub at: String,
    pub outcome: String,
    pub reason: Option<String>,
    pub detail: String,
    pub status: Option<u16>,
    pub request: Sent,
    pub response: Option<Answered>,
    pub timing: Timing,
    pub next_action: String,
    pub next_at: Option<String>,
    pub test: bool,
}

#[derive(Deserialize)]
pub struct Sent {
    pub url: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
    pub body_cut: bool,
}

#[derive(Deserialize)]
pub struct Answered {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
    pub body_cut: bool,
}

#[derive(Deserialize)]
pub struct Timing {
    pub dns_ms: Option<u64>,
    pub connect_ms: Option<u64>,
    pub first_byte_ms: Option<u64>,
    pub total_ms: u64,
}

impl Attempt {
    /// Whether it arrived.
    pub fn is_delivered(&self) -> bool {
        self.outcome == "delivered"
    }

    /// What came of it, in a word or a number.
    pub fn result(&self) -> String {
        match (self.status, self.reason.as_deref()) {
            (Some(status), _) => status.to_string(),
            (None, Some(reason)) => reason.replace('_', " "),
            (None, None) => self.outcome.clone(),
        }
    }

    /// The body that was sent, for people to read.
    pub fn sent_text(&self) -> String {
        readable(&self.request.body)
    }

    /// The body that came back, for people to read.
    pub fn answer_text(&self) -> String {
        let body = self
            .response
            .as_ref()
            .map(|response| response.body.as_str());
        body.map_or(String::new(), readable)
    }

    /// The request as a command line: the same bytes to the same place.
    pub fn curl(&self) -> String {
        let mut command = format!("curl -sS -X POST {}", quoted(&self.request.url));
        for (name, value) in &self.request.headers {
            // curl counts the body by itself.
            if name != "content-length" {
                command.push_str(&format!(
                    " \\\n  -H {}",
                    quoted(&format!("{name}: {value}"))
                ));
            }
        }
        command.push_str(&format!(" \\\n  --data-raw {}", quoted(&self.request.body)));
        command
    }

    /// The parts of its time that are known, each with how long it took until then.
    pub fn phases(&self) -> Vec<(&'static str, u64)> {
        let timing = &self.timing;
        let known = [
            ("name looked up", timing.dns_ms),
            ("connected", timing.connect_ms),
            ("first byte", timing.first_byte_ms),
            ("all", Some(timing.total_ms)),
        ];
        let known = known.into_iter().filter_map(|(name, ms)| Some((name, ms?)));
        known.collect()
    }
}

#[derive(Deserialize)]
pub struct Delivery {
    pub id: String,
    pub subscription_id: String,
    pub tenant: String,
    pub event_id: String,
    pub event_type: String,
    pub state: String,
    pub next_at: Option<String>,
    pub dead_letter: Option<DeadLetter>,
}

impl Delivery {
    /// What became of it, as a sentence.
    pub fn said(&self) -> &str {
        match self.state.as_str() {
            "delivered" => "delivered",
            "waiting" => "waiting for another attempt",
            "dead_lettered" => "given up: a dead letter",
            "failed" => "failed: a test has one attempt",
            _ => "given up, then sent again or discarded",
        }
    }

    /// Whether that is good news.
    pub fn mark(&self) -> &str {
        match self.state.as_str() {
            "delivered" => "good",
            "waiting" => "wait",
            _ => "bad",
        }
    }
}

#[derive(Deserialize)]
pub struct DeadLetter {
    pub id: String,
    pub subscription_id: String,
    pub tenant: String,
    pub event_id: String,
    pub event_type: String,
    pub reason: String,
    pub attempts: u32,
    pub last_status: Option<u16>,
    pub last_reason: Option<String>,
    pub dead_at: String,
}

impl DeadLetter {
    /// What the last attempt came to.
    pub fn last(&self) -> String {
        match (self.last_status, self.last_reason.as_deref()) {
            (Some(status), _) => status.to_string(),
            (None, Some(reason)) => reason.replace('_', " "),
            (None, None) => "–".to_owned(),
        }
    }
}

#[derive(Deserialize)]
pub struct Quarantined {
    pub id: String,
    pub reason: String,
    pub field: Option<String>,
    pub error: String,
    pub quarantined_at: String,
    pub content_type: Option<String>,
    pub body: Option<String>,
    pub body_base64: String,
    pub body_cut: bool,
}

#[derive(Deserialize)]
pub struct Overview {
    pub ready: bool,
    pub not_ready: Option<String>,
    pub last_hour: Counts,
    pub minutes: Vec<Minute>,
    pub worst: Vec<Worst>,
    pub queues: Option<BTreeMap<String, u64>>,
}

#[derive(Deserialize)]
pub struct Counts {
    pub delivered: u64,
    pub failed: u64,
    pub mean_ms: Option<u64>,
}

#[derive(Deserialize)]
pub struct Minute {
    pub at: String,
    #[serde(flatten)]
    pub counts: Counts,
}

#[derive(Deserialize)]
pub struct Worst {
    pub subscription_id: String,
    #[serde(flatten)]
    pub counts: Counts,
}

impl Counts {
    /// Attempts of either kind.
    pub fn attempts(&self) -> u64 {
        self.delivered + self.failed
    }

    /// How many of a hundred arrived, to a tenth; never rounded up to all.
    pub fn success(&self) -> String {
        let per_mille = (self.delivered * 1000).checked_div(self.attempts());
        per_mille.map_or("–".to_owned(), |n| match n % 10 {
            0 => format!("{} %", n / 10),
            tenth => format!("{}.{tenth} %", n / 10),
        })
    }
}

#[derive(Deserialize)]
pub struct Lane {
    pub window: Option<u32>,
    pub in_flight: Option<u32>,
    pub held: Option<u64>,
    pub circuit: Option<String>,
    pub open_until: Option<String>,
    pub paused_until: Option<String>,
    pub failing_since: Option<String>,
}

#[derive(Deserialize)]
pub struct Explained {
    pub subscription_id: String,
    pub description: String,
    pub url: String,
    pub matches: bool,
    pub detail: String,
}

/// JSON with line breaks and all else as it was written, anything else as it is.
fn readable(text: &str) -> String {
    let is_short = text.len() <= SPREAD_BYTES_MAX;
    if is_short && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        spread(text)
    } else {
        text.to_owned()
    }
}

/// A text as one word of a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_is_never_rounded_up_to_all() {
        for (delivered, failed, expected) in [
            (0, 0, "–"),
            (1, 0, "100 %"),
            (0, 1, "0 %"),
            (2, 1, "66.6 %"),
            (99_999, 1, "99.9 %"),
        ] {
            let counts = Counts {
                delivered,
                failed,
                mean_ms: None,
            };
            assert_eq!(counts.success(), expected);
        }
    }

    #[test]
    fn a_text_is_one_word_of_a_shell() {
        assert_eq!(quoted("it's $HOME `x`"), r"'it'\''s $HOME `x`'");
    }
}
