//! Every key: its default, read from a file and from the environment, printed and read
//! again, and on the reference page.

use std::path::Path;

use super::{KEY, TOKEN, from_env, load};
use crate::config::schema::variable;
use crate::config::{Config, Origin, print, reference};

/// Each key: its default as it is printed, another value as TOML, and as that is printed
/// where it differs.
const KEYS: &str = r#"
broker.url | unset | "amqp://u:hunter2@a,amqps://b:5671/v" | "amqp://…@a,amqps://b:5671/v"
broker.ca_file | unset | "broker.pem"
broker.prefix | "carillon" | "123"
redis.url | unset | "rediss://:hunter2@h:6380/2" | "rediss://…@h:6380/2"
redis.ca_file | unset | "redis.pem"
redis.prefix | "carillon" | "true"
embedded.path | "carillon.db" | "/var/lib/c.db"
http.listen | "127.0.0.1:8080" | "[::]:80"
http.admin_token | unset | "1234567890123456" | "…"
http.embed_in | [] | ["https://app.example.com/"] | ["https://app.example.com"]
ops.listen | "127.0.0.1:9464" | "0.0.0.0:9000"
intake.prefetch | 1000 | 2000
intake.max_event_bytes | 1048576 | 4096
plan.chunk | 500 | 10
delivery.max_in_flight | 2048 | 1
delivery.endpoint_max_in_flight | 32 | 8
delivery.rate_limit | { per_second = 100, burst = 200 } | { per_second = 0.5, burst = 5 }
delivery.connect_timeout | "3s" | "250ms"
delivery.timeout | "10s" | "1m"
delivery.disable_after | "120h" | "7d" | "168h"
retry.initial | "5s" | "1s"
retry.multiplier | 4 | 1.5
retry.max | "12h" | "1h30m"
retry.max_attempts | 10 | 3
retry.jitter | 0.25 | 0
retry.schedule | unset | ["5s", "5m"]
dedup.window | "10m" | 0 | "0s"
egress.allow | [] | ["10.0.0.0/8", "::1"] | ["10.0.0.0/8", "::1/128"]
egress.deny | [] | ["1.2.3.4"] | ["1.2.3.4/32"]
egress.require_https | false | true
egress.ca_file | unset | "ca.pem"
secrets.keys | unset | ["k1:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="] | ["k1:…"]
audit.keep | "168h" | "1h"
audit.per_subscription | 200 | 1
audit.body_bytes | 65536 | 0
telemetry.otlp_endpoint | unset | "http://otel:4317/"
telemetry.log | unset | "json"
telemetry.endpoint_series | 50 | 0
shutdown.grace | "30s" | "5s"
"#;

struct Row {
    path: &'static str,
    section: &'static str,
    key: &'static str,
    default: Option<&'static str>,
    toml: &'static str,
    printed: &'static str,
}

impl Row {
    fn file(&self) -> String {
        format!("[{}]\n{} = {}\n", self.section, self.key, self.toml)
    }
}

fn rows() -> Vec<Row> {
    let row = |line: &'static str| {
        let columns: Vec<_> = line.split(" | ").collect();
        let (section, key) = columns[0].split_once('.').unwrap();
        Row {
            path: columns[0],
            section,
            key,
            default: (columns[1] != "unset").then_some(columns[1]),
            toml: columns[2],
            printed: columns.last().unwrap(),
        }
    };
    KEYS.trim().lines().map(row).collect()
}

/// A setting as it is printed.
fn shown(config: &Config, row: &Row) -> Option<String> {
    let sections = config.sections();
    let section = sections.iter().find(|s| s.name() == row.section).unwrap();
    let mut settings = section.settings().into_iter();
    settings.find(|s| s.key == row.key).unwrap().value
}

/// What else must be set for `path` to be accepted.
fn company(path: &str) -> &'static [(&'static str, &'static str)] {
    match path {
        "broker.url" => &[("CARILLON_REDIS__URL", "redis://h")],
        "redis.url" => &[("CARILLON_BROKER__URL", "amqp://h")],
        "http.listen" => &[("CARILLON_HTTP__ADMIN_TOKEN", TOKEN)],
        _ => &[],
    }
}

#[test]
fn every_key_has_its_default() {
    let config = Config::default();
    for row in rows() {
        assert_eq!(shown(&config, &row).as_deref(), row.default, "{}", row.path);
    }
    let sections = config.sections();
    let known: usize = sections.iter().map(|s| s.settings().len()).sum();
    assert_eq!(known, rows().len());
    assert_eq!(print(&from_env(&[]).unwrap().config), print(&config));
    assert_eq!(config.retry_policy().max_attempts(), 10);
}

#[test]
fn every_key_is_read_from_a_file() {
    for row in rows() {
        let loaded = load(&row.file(), company(row.path)).unwrap();
        let found = shown(&loaded.config, &row);
        assert_eq!(found.as_deref(), Some(row.printed), "{}", row.path);
        let origin = loaded.sources.keys[row.path].to_string();
        assert!(origin.ends_with("carillon.toml:2"), "{origin}");
    }
}

#[test]
fn every_key_is_read_from_the_environment() {
    for row in rows() {
        let name = variable(row.section, row.key);
        // As TOML, and text without its quotes.
        for value in [row.toml, row.toml.trim_matches('"')] {
            let mut env = company(row.path).to_vec();
            env.push((&name, value));
            let loaded = from_env(&env).unwrap();
            let found = shown(&loaded.config, &row);
            assert_eq!(found.as_deref(), Some(row.printed), "{}", row.path);
            let origin = &loaded.sources.keys[row.path];
            assert_eq!(origin, &Origin::Variable(name.clone()));
        }
    }
}

#[test]
fn what_is_printed_loads_again() {
    for row in rows() {
        let printed = print(&load(&row.file(), company(row.path)).unwrap().config);
        let mended = printed
            .replace(r#""…""#, &format!("{TOKEN:?}"))
            .replace("k1:…", &format!("k1:{KEY}"))
            .replace("…@", "u:p@");
        let again = load(&mended, &[]).unwrap();
        assert_eq!(print(&again.config), printed, "{}", row.path);
    }
}

#[test]
fn the_reference_page_is_current() {
    let page = reference();
    for row in rows() {
        assert!(
            page.contains(&format!("### `{}`", row.path)),
            "{}",
            row.path
        );
    }
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let committed = std::fs::read_to_string(committed).unwrap_or_default();
    assert!(
        committed == page,
        "docs/configuration.md is stale: run `carillon config reference > docs/configuration.md`"
    );
}
