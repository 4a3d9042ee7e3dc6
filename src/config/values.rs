//! How plain types are read from TOML and written as TOML.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};
use toml::{Table, Value};
use url::Url;

use super::duration;
use super::schema::{Kind, Problem, Rule};
use crate::domain::id::shown;
use crate::domain::subscription::RateLimit;

/// What stands for a secret where settings are shown.
pub(super) const REDACTED: &str = "…";

const PREFIX_BYTES_MAX: usize = 64;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogForm {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// The start of a name in a broker or Redis that others use too.
pub(super) struct PrefixRule;

impl Rule<String> for PrefixRule {
    fn text(&self) -> String {
        format!("1 to {PREFIX_BYTES_MAX} characters of A–Z, a–z, 0–9, `.`, `_` and `-`")
    }

    fn holds(&self, value: &String) -> bool {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        (1..=PREFIX_BYTES_MAX).contains(&value.len()) && value.bytes().all(allowed)
    }
}

/// A type that settings have lists of.
pub(super) trait Item: Kind {
    /// What a list of them looks like: "an array of …".
    const MANY: &'static str;
}

impl<T: Item> Kind for Vec<T> {
    fn form() -> String {
        format!("an array of {}", T::MANY)
    }

    fn read(value: &Value) -> Result<Self, Problem> {
        let Value::Array(items) = value else {
            return Err(wrong_kind::<Self>(value));
        };
        let numbered = items.iter().enumerate();
        numbered
            .map(|(i, item)| T::read(item).map_err(|problem| problem.below(&format!("[{i}]"))))
            .collect()
    }

    fn show(&self) -> Option<String> {
        let items: Vec<_> = self.iter().filter_map(T::show).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}

/// Longest text that a problem repeats: what is longer may be a secret in the wrong place.
const REPEATED_CHARS_MAX: usize = 20;

/// "must be …, found …", with the value: not for secrets.
fn wrong<T: Kind>(value: &Value) -> Problem {
    let found = match value {
        Value::String(text) if text.chars().nth(REPEATED_CHARS_MAX).is_some() => {
            return wrong_kind::<T>(value);
        }
        Value::String(text) => shown(text),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {
            value.to_string()
        }
        Value::Array(_) | Value::Table(_) => return wrong_kind::<T>(value),
    };
    Problem::new(format!("must be {}, found {found}", T::form()))
}

/// "must be …, found …", with the kind of the value alone.
pub(super) fn wrong_kind<T: Kind>(value: &Value) -> Problem {
    let found = match value {
        Value::String(_) => "text",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "a boolean",
        Value::Datetime(_) => "a date or time",
        Value::Array(_) => "an array",
        Value::Table(_) => "a table",
    };
    Problem::new(format!("must be {}, found {found}", T::form()))
}

/// Text that is not empty.
fn text<T: Kind>(value: &Value) -> Result<&str, Problem> {
    match value {
        Value::String(text) if text.trim().is_empty() => {
            Err(Problem::new("is empty; leave it out instead"))
        }
        Value::String(text) => Ok(text),
        _ => Err(wrong::<T>(value)),
    }
}

/// Text of a secret: not empty, not what stands for it where settings are shown.
pub(super) fn secret_text<T: Kind>(value: &Value) -> Result<&str, Problem> {
    let text = match value {
        Value::String(_) => text::<T>(value)?,
        _ => return Err(wrong_kind::<T>(value)),
    };
    if text.contains(REDACTED) {
        let problem = format!("holds `{REDACTED}`, which stands for a secret; write the secret");
        return Err(Problem::new(problem));
    }
    Ok(text)
}

pub(super) fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

macro_rules! whole_number {
    ($($Type:ty)+) => {$(
        impl Kind for $Type {
            fn form() -> String {
                "a whole number".to_owned()
            }

            fn read(value: &Value) -> Result<Self, Problem> {
                let number = value.as_integer().and_then(|n| Self::try_from(n).ok());
                number.ok_or_else(|| wrong::<Self>(value))
            }

            fn show(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )+};
}
whole_number!(u32 usize);

impl Kind for f64 {
    fn form() -> String {
        "a number".to_owned()
    }

    fn read(value: &Value) -> Result<Self, Problem> {
        match value {
            // Settings are small: integers beyond 2^53 are refused by every range.
            Value::Integer(n) => Ok(*n as f64),
            Value::Float(n) => Ok(*n),
            _ => Err(wrong::<Self>(value)),
        }
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Kind for bool {
    fn form() -> String {
        "`true` or `false`".to_owned()
    }

    fn read(value: &Value) -> Result<Self, Problem> {
        value.as_bool().ok_or_else(|| wrong::<Self>(value))
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Kind for Duration {
    fn form() -> String {
        "a duration such as `\"10s\"`".to_owned()
    }

    fn read(value: &Value) -> Result<Self, Problem> {
        match value {
            Value::Integer(0) => Ok(Self::ZERO),
            Value::Integer(n @ 1..) => {
                let mut problem = wrong::<Self>(value);
                problem.text += &format!("; for seconds, write \"{n}s\"");
                Err(problem)
            }
            Value::String(text) => duration::parse(text).map_err(|fault| {
                let mut problem = wrong::<Self>(value);
                problem.text += &format!(": {fault}");
                problem
            }),
            _ => Err(wrong::<Self>(value)),
        }
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&duration::write(*self)))
    }
}

impl Item for Duration {
    const MANY: &'static str = "durations such as `[\"5s\", \"5m\"]`";
}

impl Kind for String {
    const TEXT: bool = true;

    fn form() -> String {
        "text".to_owned()
    }

    fn read(value: &Value) -> Result<Self, Problem> {
        text::<Self>(value).map(str::to_owned)
    }

    fn show(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl Kind for PathBuf {
    const TEXT: bool = true;

    fn form() -> String {
        "a path".to_owned()
    }

    fn read(value: &Value) -> Result<Self, Problem> {
        text::<Self>(value).map(Self::from)
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string_lossy()))
    }
}

impl Kind for SocketAddr {
    const TEXT: bool = true;

    fn form() -> String {
        "an address and port such as `\"127.0.0.1:8080\"`".to_owned()
    }

    fn read(value: &Value) -> Result<Self, Problem> {
        let address = text::<Self>(value)?.parse();
        address.map_err(|_| wrong::<Self>(value))
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

impl Kind for IpNet {
    const TEXT: bool = true;

    fn form() -> String {
        "a network such as `\"10.0.0.0/8\"`, or an address".to_owned()
    }

    fn read(value: &Value) -> Result<Self, Problem> {
        let text = text::<Self>(value)?;
        let network = text.parse::<Self>().ok();
        let single = || text.parse::<IpAddr>().ok().map(Self::from);
        network.or_else(single).ok_or_else(|| wrong::<Self>(value))
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

impl Item for IpNet {
    const MANY: &'static str = "networks or addresses such as `[\"10.0.0.0/8\"]`";
}

/// The origin of a page (RFC 6454): a scheme, a host and perhaps a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageOrigin(String);

impl PageOrigin {
    /// An origin; a slash behind it is no part of it.
    pub fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let is_origin = matches!(url.scheme(), "http" | "https")
            && url.path() == "/"
            && !text.contains(['?', '#', '@', '\\']);
        is_origin.then(|| Self(url.origin().ascii_serialization()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Kind for PageOrigin {
    const TEXT: bool = true;

    fn form() -> String {
        "an origin such as `\"https://app.example.com\"`".to_owned()
    }

    fn read(value: &Value) -> Result<Self, Problem> {
        Self::parse(text::<Self>(value)?).ok_or_else(|| wrong::<Self>(value))
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.0))
    }
}

impl Item for PageOrigin {
    const MANY: &'static str = "origins such as `[\"https://app.example.com\"]`";
}

impl Kind for Url {
    const TEXT: bool = true;

    fn form() -> String {
        "an `http://` or `https://` URL without user information and query".to_owned()
    }

    fn read(value: &Value) -> Result<Self, Problem> {
        // A URL may hold credentials, so what came is not shown.
        let url = Self::parse(secret_text::<Self>(value)?);
        let anonymous = |url: &Self| {
            url.username().is_empty() && url.password().is_none() && url.query().is_none()
        };
        url.ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && anonymous(url))
            .ok_or_else(|| Problem::new(format!("must be {}", Self::form())))
    }

    fn show(&self) -> Option<String> {
        Some(quoted(self.as_str()))
    }
}

impl Kind for LogForm {
    const TEXT: bool = true;

    fn form() -> String {
        "`\"text\"` or `\"json\"`".to_owned()
    }

    fn read(value: &Value) -> Result<Self, Problem> {
        match value.as_str() {
            Some("text") => Ok(Self::Text),
            Some("json") => Ok(Self::Json),
            _ => Err(wrong::<Self>(value)),
        }
    }

    fn show(&self) -> Option<String> {
        let name = match self {
            Self::Text => "text",
            Self::Json => "json",
        };
        Some(quoted(name))
    }
}

/// A bearer token: it must fit in a header.
impl Kind for SecretString {
    const TEXT: bool = true;

    fn form() -> String {
        "text of visible ASCII".to_owned()
    }

    fn read(value: &Value) -> Result<Self, Problem> {
        let text = secret_text::<Self>(value)?;
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Problem::new("must be visible ASCII without spaces"));
        }
        Ok(Self::from(text))
    }

    fn show(&self) -> Option<String> {
        let known = !self.expose_secret().is_empty();
        known.then(|| quoted(REDACTED))
    }
}

/// `None` is no limit; a table may name one of both parts.
impl Kind for Option<RateLimit> {
    fn form() -> String {
        "a table such as `{ per_second = 100, burst = 200 }`".to_owned()
    }

    fn read(value: &Value) -> Result<Self, Problem> {
        let mut limit = None;
        limit.update(value)?;
        Ok(limit)
    }

    fn update(&mut self, value: &Value) -> Result<(), Problem> {
        let Value::Table(parts) = value else {
            return Err(wrong::<Self>(value));
        };
        if let Some(other) = parts.keys().find(|k| *k != "per_second" && *k != "burst") {
            let problem = Problem::new("is not known: there are `per_second` and `burst`");
            return Err(problem.below(&format!(".{other}")));
        }
        let now = self.map_or((0.0, 200), |limit| (limit.per_second, limit.burst));
        let per_second = part(parts, "per_second")?.unwrap_or(now.0);
        let burst = part(parts, "burst")?.unwrap_or(now.1);
        // Without a limit there is still a burst to check.
        let checked = RateLimit::try_new(
            if per_second == 0.0 { 1.0 } else { per_second },
            burst.into(),
        );
        let limit = checked.map_err(|fault| {
            let place = fault.field.trim_start_matches("rate_limit");
            Problem::new(fault.problem).below(place)
        })?;
        *self = (per_second != 0.0).then_some(limit);
        Ok(())
    }

    fn show(&self) -> Option<String> {
        let (per_second, burst) = self.map_or((0.0, 200), |l| (l.per_second, l.burst));
        Some(format!("{{ per_second = {per_second}, burst = {burst} }}"))
    }
}

fn part<T: Kind>(parts: &Table, name: &str) -> Result<Option<T>, Problem> {
    let value = parts.get(name).map(T::read);
    value
        .transpose()
        .map_err(|problem| problem.below(&format!(".{name}")))
}
