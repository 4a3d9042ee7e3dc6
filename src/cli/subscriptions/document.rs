//! Flags that become a subscription as the API reads it (contract section 2).
//!
//! Values are checked by the API, which names the field at fault; only their JSON type is
//! made here.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::{CliError, args};

/// The fields of a subscription that can be written.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Fields {
    /// Whose events it wants; `*` for every tenant (needs the admin token)
    #[arg(long)]
    pub tenant: Option<String>,
    /// Where events are sent
    #[arg(long)]
    pub url: Option<String>,
    /// The form of the requests
    #[arg(long, value_parser = ["standard", "leicbit"])]
    pub format: Option<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// An event type or glob such as `lookup_result.*`; may be repeated
    #[arg(long = "event-type", value_name = "TYPE")]
    pub event_types: Vec<String>,
    /// An event pattern: JSON, `@FILE`, or `-` for standard input
    #[arg(long, value_name = "JSON")]
    pub filter: Option<String>,
    /// A header to send along; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = args::header)]
    pub headers: Vec<(String, String)>,
    /// How signatures are made
    #[arg(long, value_parser = ["hmac-sha256", "ed25519"])]
    pub signing: Option<String>,

    /// Requests a second at most
    #[arg(long, value_name = "PER_SECOND", help_heading = "Pace")]
    pub rate: Option<f64>,
    /// Requests at once after a quiet time [a new one: twice the rate]
    #[arg(long, value_name = "N", help_heading = "Pace")]
    pub burst: Option<u64>,
    /// How long an attempt may take in milliseconds
    #[arg(
        long,
        value_name = "MS",
        help_heading = "Pace",
        conflicts_with = "timeout"
    )]
    pub timeout_ms: Option<u64>,
    /// How long an attempt may take, such as 5s
    #[arg(long, value_name = "DURATION", help_heading = "Pace", value_parser = args::duration)]
    pub timeout: Option<Duration>,
    /// Attempts in all
    #[arg(long, value_name = "N", help_heading = "Retry")]
    pub max_attempts: Option<u64>,
    /// Before the first retry, such as 5s
    #[arg(long, value_name = "DURATION", help_heading = "Retry", value_parser = args::duration)]
    pub retry_initial: Option<Duration>,
    /// Each delay is so many times the one before
    #[arg(long, value_name = "FACTOR", help_heading = "Retry")]
    pub retry_multiplier: Option<f64>,
    /// The longest delay, such as 12h
    #[arg(long, value_name = "DURATION", help_heading = "Retry", value_parser = args::duration)]
    pub retry_max: Option<Duration>,

    /// Deliver to it
    #[arg(long, conflicts_with = "disabled")]
    pub enabled: bool,
    /// Do not deliver to it
    #[arg(long)]
    pub disabled: bool,

    /// The subscription as JSON, `@FILE`, or `-` for standard input; flags win over it
    #[arg(long, value_name = "JSON")]
    pub data: Option<String>,
}

impl Fields {
    /// A whole subscription: `--data` with the flags set in it.
    ///
    /// # Errors
    /// When an option that names JSON cannot be read.
    pub async fn document(&self) -> Result<Value, CliError> {
        let mut document = self.read_data().await?;
        let mut flags = self.flags().await?;
        if let (Some(rate), None) = (self.rate, self.burst) {
            // Cut off: a burst is whole requests. A cast from a float saturates.
            #[allow(clippy::cast_possible_truncation)]
            #[allow(clippy::cast_possible_truncation)]
            let burst = (rate * 2.0).max(1.0) as u64;
            flags.insert(
                "rate_limit".to_owned(),
                json!({"per_second": rate, "burst": burst}),
            );
        }
        overlay(&mut document, flags);
        Ok(document.into())
    }

    /// What changes, as a JSON merge patch (RFC 7396).
    ///
    /// # Errors
    /// As [`Fields::document`]; [`CliError::Usage`] when nothing changes.
    pub async fn patch(&self) -> Result<Value, CliError> {
        let mut patch = self.read_data().await?;
        let mut flags = self.flags().await?;
        if let Some(Value::Object(headers)) = flags.get_mut("headers") {
            // `Name:` takes the header away.
            for value in headers.values_mut().filter(|value| **value == "") {
                *value = Value::Null;
            }
        }
        overlay(&mut patch, flags);
        if patch.is_empty() {
            let text = "nothing to change: name a field, as in --url or --data";
            return Err(CliError::Usage(text.to_owned()));
        }
        Ok(patch.into())
    }

    async fn read_data(&self) -> Result<Map<String, Value>, CliError> {
        let Some(data) = &self.data else {
            return Ok(Map::new());
        };
        match args::json("--data", data).await? {
            Value::Object(document) => Ok(document),
            other => {
                let text = format!("--data must be a JSON object, found {other}");
                Err(CliError::Usage(text))
            }
        }
    }

    async fn flags(&self) -> Result<Map<String, Value>, CliError> {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let timeout_ms = self.timeout_ms.or(self.timeout.map(ms));
        let filter = match &self.filter {
            Some(filter) => Some(args::json("--filter", filter).await?),
            None => None,
        };
        let enabled = match (self.enabled, self.disabled) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        };
        let rate_limit = object([
            ("per_second", self.rate.map(Into::into)),
            ("burst", self.burst.map(Into::into)),
        ]);
        let retry = object([
            ("max_attempts", self.max_attempts.map(Into::into)),
            ("initial_ms", self.retry_initial.map(ms).map(Into::into)),
            ("multiplier", self.retry_multiplier.map(Into::into)),
            ("max_ms", self.retry_max.map(ms).map(Into::into)),
        ]);
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| (name.clone(), value.as_str().into()));
        let text = |text: &Option<String>| text.as_deref().map(Value::from);
        let types = (!self.event_types.is_empty()).then(|| json!(self.event_types));
        Ok(object([
            ("tenant", text(&self.tenant)),
            ("url", text(&self.url)),
            ("format", text(&self.format)),
            ("description", text(&self.description)),
            ("enabled", enabled.map(Into::into)),
            ("event_types", types),
            ("filter", filter),
            ("headers", filled(headers.collect())),
            ("rate_limit", filled(rate_limit)),
            ("timeout_ms", timeout_ms.map(Into::into)),
            ("retry", filled(retry)),
            ("signing", text(&self.signing)),
        ]))
    }
}

fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Map<String, Value> {
    members
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

fn filled(members: Map<String, Value>) -> Option<Value> {
    (!members.is_empty()).then(|| members.into())
}

/// Sets `flags` in `document`: headers, pace and retry one by one, all else as a whole
/// (the members of a filter belong together).
fn overlay(document: &mut Map<String, Value>, flags: Map<String, Value>) {
    for (name, value) in flags {
        match (document.get_mut(&name), value) {
            (Some(Value::Object(there)), Value::Object(members)) if name != "filter" => {
                there.extend(members);
            }
            (_, value) => {
                document.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        Fields::default()
    }

    #[tokio::test]
    async fn flags_make_a_subscription() {
        let written = Fields {
            tenant: Some("acme".to_owned()),
            url: Some("https://example.com/".to_owned()),
            event_types: vec!["a.*".to_owned(), "b".to_owned()],
            filter: Some(r#"{"data":{"x":[1]}}"#.to_owned()),
            headers: vec![("X-A".to_owned(), "1".to_owned())],
            rate: Some(2.5),
            timeout: Some(Duration::from_secs(2)),
            max_attempts: Some(3),
            disabled: true,
            ..fields()
        };
        let expected = json!({
            "tenant": "acme", "url": "https://example.com/", "event_types": ["a.*", "b"],
            "filter": {"data": {"x": [1]}}, "headers": {"X-A": "1"}, "enabled": false,
            "rate_limit": {"per_second": 2.5, "burst": 5}, "timeout_ms": 2000,
            "retry": {"max_attempts": 3},
        });
        assert_eq!(written.document().await.unwrap(), expected);
    }

    #[tokio::test]
    async fn flags_win_over_data() {
        let written = Fields {
            data: Some(
                r#"{"url": "a", "retry": {"max_attempts": 1, "max_ms": 9}, "filter": {"id": ["1"]}}"#
                    .to_owned(),
            ),
            url: Some("b".to_owned()),
            max_attempts: Some(2),
            filter: Some(r#"{"type":["t"]}"#.to_owned()),
            ..fields()
        };
        let expected = json!({"url": "b", "retry": {"max_attempts": 2, "max_ms": 9},
                              "filter": {"type": ["t"]}});
        assert_eq!(written.document().await.unwrap(), expected);
    }

    #[tokio::test]
    async fn a_patch_holds_only_what_changes() {
        let changes = Fields {
            rate: Some(5.0),
            headers: vec![("X-Old".to_owned(), String::new())],
            filter: Some("null".to_owned()),
            enabled: true,
            ..fields()
        };
        let expected = json!({"rate_limit": {"per_second": 5.0}, "headers": {"X-Old": null},
                              "filter": null, "enabled": true});
        assert_eq!(changes.patch().await.unwrap(), expected);
        assert_eq!(fields().patch().await.unwrap_err().exit_code(), 2);
    }

    #[tokio::test]
    async fn what_is_no_json_is_wrong_usage() {
        for data in ["{", "[]", "@/nonexistent"] {
            let broken = Fields {
                data: Some(data.to_owned()),
                ..fields()
            };
            assert!(broken.document().await.is_err(), "{data}");
        }
    }
}
