//! Every kind of fault: which key, what came, what was expected, and where from.

use std::path::Path;

use super::{KEY, from_env, keys, load};
use crate::config::{Config, Fault, Origin};

/// The only fault of a file, with its line.
fn fault(text: &str) -> (Fault, usize) {
    let mut faults = load(text, &[]).unwrap_err().faults;
    let fault = faults.pop().unwrap();
    assert_eq!(faults, [], "{text}");
    let Some(Origin::File {
        line: Some(line), ..
    }) = fault.origin
    else {
        panic!("{fault}");
    };
    (fault, line)
}

fn env_fault(name: &str, value: &str) -> Fault {
    let mut faults = from_env(&[(name, value)]).unwrap_err().faults;
    let fault = faults.pop().unwrap();
    assert_eq!(faults, [], "{name}");
    fault
}

#[test]
fn unknown_keys_name_the_nearest() {
    for (text, key, near, at) in [
        (
            "[delivery]\ntimeot = '5s'\n",
            "delivery.timeot",
            "delivery.timeout",
            2,
        ),
        (
            "[delivery]\nprefetch = 5\n",
            "delivery.prefetch",
            "intake.prefetch",
            2,
        ),
        (
            "\n\n[deliver]\ntimeout = '5s'\n",
            "deliver.timeout",
            "delivery.timeout",
            4,
        ),
        (
            "max_in_flight = 5\n",
            "max_in_flight",
            "delivery.max_in_flight",
            1,
        ),
        (
            "broker.uri = 'amqp://u:hunter2@h'\n",
            "broker.uri",
            "broker.url",
            1,
        ),
    ] {
        let (fault, line) = fault(text);
        assert_eq!((fault.key.as_str(), line), (key, at), "{text}");
        let expected = format!("is not known; did you mean `{near}`?");
        assert_eq!(fault.problem, expected);
    }
    assert_eq!(fault("[qqq]\n").0.problem, "is not known");
    let (wrong, _) = fault("delivery = 5\n");
    assert_eq!(
        wrong.problem,
        "must be a table: write its keys below `[delivery]`"
    );
    let fault = env_fault("CARILLON_DELIVERY__TIMEOT", "5s");
    assert_eq!(
        fault.to_string(),
        "CARILLON_DELIVERY__TIMEOT: `delivery.timeot` is not known; did you mean \
         `delivery.timeout` (CARILLON_DELIVERY__TIMEOUT)?"
    );
}

/// A line, where in its value the fault is, and a part of what is said.
const WRONG_TYPES: &[(&str, &str, &str)] = &[
    (
        "intake.prefetch = 'many'",
        "",
        r#"must be a whole number, found "many""#,
    ),
    (
        "intake.prefetch = -1",
        "",
        "must be a whole number, found -1",
    ),
    (
        "intake.prefetch = [1]",
        "",
        "must be a whole number, found an array",
    ),
    (
        "delivery.timeout = 10",
        "",
        "must be a duration such as `\"10s\"`, found 10; for seconds, write \"10s\"",
    ),
    (
        "delivery.timeout = '5 min'",
        "",
        "a whole number with a unit is expected",
    ),
    ("delivery.timeout = '5parsecs'", "", "the unit is not known"),
    ("delivery.timeout.s = 5", "", "found a table"),
    (
        "egress.allow = '10.0.0.0/8'",
        "",
        "must be an array of networks",
    ),
    (
        "egress.deny = ['10.0.0.0/8', '10.0.0.0/33']",
        "[1]",
        r#"found "10.0.0.0/33""#,
    ),
    (
        "egress.require_https = 'yes'",
        "",
        r#"must be `true` or `false`, found "yes""#,
    ),
    ("http.listen = ':8080'", "", "must be an address and port"),
    ("embedded.path = ''", "", "is empty; leave it out instead"),
    ("broker.prefix = 'a b'", "", "must be 1 to 64 characters"),
    ("retry.schedule = ['5s', 5]", "[1]", "write \"5s\""),
    ("retry.jitter = '0'", "", "must be a number"),
    (
        "telemetry.log = 'xml'",
        "",
        r#"must be `"text"` or `"json"`, found "xml""#,
    ),
    ("delivery.rate_limit = 5", "", "must be a table such as"),
    (
        "delivery.rate_limit = { per_second = -1 }",
        ".per_second",
        "must be more than 0",
    ),
    (
        "delivery.rate_limit.burst = 0",
        ".burst",
        "must be an integer from 1",
    ),
    (
        "delivery.rate_limit.rate = 0",
        ".rate",
        "`per_second` and `burst`",
    ),
    ("secrets.keys = ['k']", "[0]", "found no `:`"),
    ("secrets.keys = ['k:AAAA']", "[0]", "32 bytes, found 3"),
];

#[test]
fn wrong_types_say_what_came_and_what_was_expected() {
    for (line, place, problem) in WRONG_TYPES {
        let (fault, at) = fault(&format!("\n{line}\n"));
        let key = line.split(['=']).next().unwrap().trim();
        let key: Vec<_> = key.split('.').take(2).collect();
        assert_eq!(fault.key, format!("{}{place}", key.join(".")), "{line}");
        assert_eq!(at, 2);
        assert!(fault.problem.contains(problem), "{line}: {fault}");
    }
}

/// A line, and a part of what is said.
const OUT_OF_RANGE: &[(&str, &str)] = &[
    ("intake.prefetch = 0", "must be 1 to 100000, found 0"),
    (
        "intake.prefetch = 100001",
        "must be 1 to 100000, found 100001",
    ),
    (
        "intake.max_event_bytes = 1",
        "must be 64 to 16777216, found 1",
    ),
    ("plan.chunk = 10001", "must be 1 to 10000, found 10001"),
    ("delivery.max_in_flight = 0", "must be 1 to 100000, found 0"),
    (
        "delivery.endpoint_max_in_flight = 0",
        "must be 1 to 10000, found 0",
    ),
    (
        "delivery.connect_timeout = '0s'",
        "must be 10ms to 1m, found 0s",
    ),
    (
        "delivery.timeout = '61s'",
        "must be 100ms to 1m, found 1m1s",
    ),
    (
        "delivery.disable_after = 0",
        "must be 1s to 8760h, found 0s",
    ),
    (
        "retry.initial = '13h'",
        "`retry.max` must be at least as long as `initial`",
    ),
    ("retry.multiplier = 0.5", "must be 1 to 100, found 0.5"),
    ("retry.multiplier = nan", "must be 1 to 100, found NaN"),
    ("retry.max = '25h'", "must be at most 24 h"),
    ("retry.max_attempts = 101", "must be 1 to 100, found 101"),
    ("retry.jitter = 1.1", "must be 0 to 1, found 1.1"),
    ("retry.schedule = []", "must have 1 to 99 delays, found 0"),
    (
        "retry.schedule = ['0s']",
        "must have delays of 1 ms to 24 h",
    ),
    ("dedup.window = '8d'", "must be 0s to 168h, found 192h"),
    ("audit.keep = '0s'", "must be 1s to 8760h, found 0s"),
    ("audit.per_subscription = 0", "must be 1 to 100000, found 0"),
    (
        "audit.body_bytes = 16777217",
        "must be 0 to 16777216, found 16777217",
    ),
    (
        "telemetry.endpoint_series = 1001",
        "must be 0 to 1000, found 1001",
    ),
    ("shutdown.grace = '2h'", "must be 0s to 1h, found 2h"),
];

#[test]
fn ranges_are_checked() {
    for (line, problem) in OUT_OF_RANGE {
        let (fault, at) = fault(line);
        assert_eq!(at, 1);
        assert!(fault.to_string().contains(problem), "{line}: {fault}");
    }
}

#[test]
fn relations_are_checked() {
    let fault = env_fault("CARILLON_BROKER__URL", "amqp://u:hunter2@h");
    assert_eq!(
        fault.to_string(),
        "CARILLON_BROKER__URL: `broker.url` is set without `redis.url`: set both to run on \
         RabbitMQ and Redis, or neither to run embedded"
    );
    let fault = env_fault("CARILLON_REDIS__URL", "redis://h");
    assert!(fault.problem.contains("`broker.url`"), "{fault}");
    for address in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1"] {
        let fault = env_fault("CARILLON_HTTP__LISTEN", address);
        assert!(
            fault
                .problem
                .contains("set `http.admin_token`, or listen on loopback")
        );
    }
    let fault = env_fault("CARILLON_HTTP__ADMIN_TOKEN", "ct_0123456789abcdef");
    assert!(fault.problem.contains("must not begin with ct_"), "{fault}");
    for address in ["127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert!(from_env(&[("CARILLON_HTTP__LISTEN", address)]).is_ok());
    }
    let fault = env_fault("CARILLON_OPS__LISTEN", "127.0.0.1:8080");
    assert!(fault.problem.contains("two ports"), "{fault}");
    let duplicate = format!(r#"["a:{KEY}", "b:{KEY}", "a:{KEY}"]"#);
    let fault = env_fault("CARILLON_SECRETS__KEYS", &duplicate);
    assert_eq!(fault.key, "secrets.keys[2]");
    assert!(fault.problem.contains("the id `a`"), "{fault}");
}

#[test]
fn all_faults_are_reported_at_once() {
    let file = "[intake]\nprefetch = 0\nprefech = 1\n[retry]\njitter = 2\nmultiplier = 0\n";
    let env = [("CARILLON_DELIVERY__TIMEOUT", "5"), ("CARILLON_A__B", "")];
    let error = load(file, &env).unwrap_err();
    let keys = keys(&error);
    let expected = [
        "intake.prefetch",
        "intake.prefech",
        "retry.jitter",
        "retry.multiplier",
        "a.b",
        "delivery.timeout",
    ];
    assert_eq!(keys, expected);
    assert!(error.to_string().contains("6 faults:\n  "), "{error}");
}

#[test]
fn files_must_be_readable_toml() {
    let missing = Config::load(Some(Path::new("no/such/file.toml")), []).unwrap_err();
    assert!(
        missing
            .to_string()
            .contains("no/such/file.toml: the file cannot be read")
    );
    let empty = tempfile::tempdir().unwrap();
    let loaded = Config::load_in(empty.path(), None, []).unwrap();
    assert_eq!(loaded.sources.file, None);
    let directory = Config::load(Some(empty.path()), []).unwrap_err();
    assert!(directory.to_string().contains("cannot be read"));
    let (fault, line) = fault("[http]\nadmin_token = \"hunter2\n");
    assert_eq!(line, 2);
    assert!(fault.problem.starts_with("not valid TOML"), "{fault}");
    assert!(!fault.to_string().contains("hunter2"), "{fault}");
    let twice = load("[http]\nlisten='[::1]:1'\nlisten='[::1]:2'\n", &[]).unwrap_err();
    assert!(twice.to_string().contains("carillon.toml:3"), "{twice}");
}

#[test]
fn faults_show_no_secret() {
    let short = format!(r#"["k:{}"]"#, &KEY[..20]);
    let mark = "…".to_owned();
    for (name, value) in [
        ("CARILLON_BROKER__URL", "http://u:hunter2@h"),
        ("CARILLON_REDIS__URL", "hunter2"),
        ("CARILLON_HTTP__ADMIN_TOKEN", "hunter2 hunter2"),
        ("CARILLON_HTTP__ADMIN_TOKEN", ""),
        ("CARILLON_HTTP__ADMIN_TOKEN", &mark),
        ("CARILLON_SECRETS__KEYS", "k:hunter2"),
        ("CARILLON_SECRETS__KEYS", r#"["hunter2"]"#),
        ("CARILLON_SECRETS__KEYS", r#"["a hunter2:AAAA"]"#),
        ("CARILLON_SECRETS__KEYS", r#"["k:hunter2!"]"#),
        ("CARILLON_SECRETS__KEYS", &short),
        ("CARILLON_TELEMETRY__OTLP_ENDPOINT", "https://u:hunter2@h"),
        ("CARILLON_SECRET__KEYS", "hunter2"),
    ] {
        let text = env_fault(name, value).to_string();
        assert!(text.starts_with(name), "{text}");
        assert!(
            !text.contains("hunter2") && !text.contains("ICEi"),
            "{text}"
        );
    }
    let (fault, _) = fault("http.admin_token = 31337");
    assert!(!fault.to_string().contains("31337"), "{fault}");
}
