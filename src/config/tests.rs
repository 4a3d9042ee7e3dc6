//! The configuration from the outside: which source wins, that no secret is shown, and
//! what the rest of the program reads.

mod faults;
mod keys;

use std::time::Duration;

use super::*;
use crate::domain::subscription::RateLimit;

const TOKEN: &str = "hunter2-hunter2-hunter2-hunter2-hunter2";
const KEY: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

fn load(text: &str, env: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(FILE), text).unwrap();
    Config::load_in(directory.path(), None, owned(env))
}

fn owned(env: &[(&str, &str)]) -> Vec<(String, String)> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    env.iter().map(own).collect()
}

fn from_env(env: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    load("", env)
}

#[test]
fn the_environment_wins_over_the_file() {
    let file = "[delivery]\ntimeout = '3s'\nrate_limit = { per_second = 7, burst = 9 }\n";
    let env = [
        ("CARILLON_DELIVERY__TIMEOUT", "5s"),
        ("CARILLON_DELIVERY__RATE_LIMIT__PER_SECOND", "20"),
        ("CARILLON_API", "http://x"),
        ("CARILLON_TOKEN", "x"),
        ("CARILLON_PORT_8080_TCP", "tcp://x"),
        ("HOME", "/root"),
    ];
    let config = load(file, &env).unwrap().config;
    assert_eq!(config.delivery.timeout, Duration::from_secs(5));
    let limit = RateLimit {
        per_second: 20.0,
        burst: 9,
    };
    assert_eq!(config.delivery.rate_limit, Some(limit));
}

#[test]
fn the_deeper_variable_wins() {
    let env = [
        ("CARILLON_DELIVERY__RATE_LIMIT__BURST", "3"),
        (
            "CARILLON_DELIVERY__RATE_LIMIT",
            "{ per_second = 5, burst = 5 }",
        ),
    ];
    let limit = from_env(&env).unwrap().config.delivery.rate_limit.unwrap();
    assert_eq!((limit.per_second, limit.burst), (5.0, 3));
    let none = from_env(&[("CARILLON_DELIVERY__RATE_LIMIT__PER_SECOND", "0")]);
    assert_eq!(none.unwrap().config.delivery.rate_limit, None);
}

#[test]
fn text_may_look_like_another_value() {
    let config = from_env(&[("CARILLON_HTTP__ADMIN_TOKEN", " 12345\n")]).unwrap();
    let token = config.config.http.admin_token.unwrap();
    assert_eq!(secrecy::ExposeSecret::expose_secret(&token), "12345");
    assert_eq!(config.warnings[0].key, "http.admin_token");
    let told = config.warnings[0].to_string();
    let advised = format!("`http.admin_token` has fewer than {TOKEN_CHARS_ADVISED} characters");
    assert!(told.starts_with(&advised), "{told}");
}

#[test]
fn a_named_file_replaces_the_usual_one() {
    let directory = tempfile::tempdir().unwrap();
    let named = directory.path().join("other.toml");
    std::fs::write(directory.path().join(FILE), "nonsense").unwrap();
    std::fs::write(&named, "plan.chunk = 7").unwrap();
    let loaded = Config::load_in(directory.path(), Some(&named), []).unwrap();
    assert_eq!(loaded.config.plan.chunk, 7);
    assert_eq!(loaded.sources.file, Some(named));
}

fn secretive() -> Config {
    let keys = format!(r#"["k1:{KEY}"]"#);
    let env = [
        (
            "CARILLON_BROKER__URL",
            "amqp://hunter2:hunter2@a/v?x=hunter2",
        ),
        ("CARILLON_REDIS__URL", "redis://:hunter2@b"),
        ("CARILLON_HTTP__ADMIN_TOKEN", TOKEN),
        ("CARILLON_SECRETS__KEYS", &keys),
    ];
    let loaded = from_env(&env).unwrap();
    assert_eq!(loaded.warnings, []);
    loaded.config
}

#[test]
fn no_secret_is_shown() {
    let config = secretive();
    for text in [print(&config), format!("{config:?}")] {
        assert!(!text.contains("hunter2"), "{text}");
        assert!(!text.contains("ICEi") && !text.contains("2021"), "{text}");
        assert!(!text.contains("[32, 33"), "{text}");
        assert!(text.contains("@a/v") && text.contains("@b"), "{text}");
    }
    let exposed: Vec<_> = config.broker.url.as_ref().unwrap().expose().collect();
    assert_eq!(exposed, ["amqp://hunter2:hunter2@a/v?x=hunter2"]);
    assert_eq!(config.secrets.keys.first().unwrap().key.bytes()[0], 32);
    assert!(config.secrets.keys.find("k1").is_some());
}

/// The keys at fault, in the order in which they are reported.
fn keys(error: &ConfigError) -> Vec<&str> {
    let faults = error.faults.iter();
    faults.map(|fault| fault.key.as_str()).collect()
}

#[test]
fn a_printed_secret_is_refused() {
    let error = load(&print(&secretive()), &[]).unwrap_err();
    let keys = keys(&error);
    let expected = [
        "broker.url",
        "redis.url",
        "http.admin_token",
        "secrets.keys[0]",
    ];
    assert_eq!(keys.len(), expected.len(), "{error}");
    assert!(expected.iter().all(|key| keys.contains(key)), "{error}");
}

#[test]
fn unwise_settings_are_warned_of() {
    let warnings = |env: &[(&str, &str)]| {
        let found = from_env(env).unwrap().warnings;
        let told: Vec<String> = found.iter().map(ToString::to_string).collect();
        told.join("\n")
    };
    assert_eq!(warnings(&[]), "");
    let open = warnings(&[("CARILLON_EGRESS__ALLOW", r#"["0.0.0.0/0"]"#)]);
    assert!(open.contains("every internal address"), "{open}");
    let wide = warnings(&[("CARILLON_EGRESS__ALLOW", r#"["10.1.2.3/8"]"#)]);
    assert!(wide.contains("covers all of 10.0.0.0/8"), "{wide}");
    let servers = [
        ("CARILLON_BROKER__URL", "amqp://h"),
        ("CARILLON_REDIS__URL", "redis://h"),
    ];
    assert!(warnings(&servers).contains("secrets.keys"));
}

#[test]
fn the_parts_follow_the_settings() {
    let file = "retry.schedule = ['1s', '2s']\negress.require_https = true\n\
                delivery.timeout = '2s'\negress.deny = ['1.1.1.1']\n";
    let config = load(file, &[]).unwrap().config;
    assert_eq!(config.retry_policy().max_attempts(), 3);
    let rules = config.spec_rules();
    assert!(rules.require_https);
    assert_eq!(rules.timeout, Duration::from_secs(2));
    assert_eq!(rules.retry, Exponential::default());
    assert!(
        config
            .egress_rules()
            .check("1.1.1.1".parse().unwrap())
            .is_err()
    );
    assert!(config.is_embedded());
    assert!(!secretive().is_embedded());
}

#[test]
fn what_is_printed_is_json_too() {
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let env = [
        set("CARILLON_HTTP__ADMIN_TOKEN", "hunter2-hunter2-hunter2"),
        set("CARILLON_RETRY__SCHEDULE", "[\"5s\", \"5m\"]"),
    ];
    let config = Config::load(None, env).unwrap().config;
    let printed = print_json(&config);
    assert_eq!(
        printed["retry"]["schedule"],
        serde_json::json!(["5s", "5m"])
    );
    assert_eq!(printed["intake"]["prefetch"], 1000);
    assert_eq!(printed["http"]["admin_token"], "…");
    assert!(printed["broker"].get("url").is_none());
}
