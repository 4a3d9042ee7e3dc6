//! `--json`: each command that has it prints JSON on standard output and nothing else.

use std::process;

use clap::{Command, CommandFactory as _};
use serde_json::{Value, json};

use super::harness::{Dispatcher, event};
use super::hooks::Hooks;
use super::program::{Ran, run};

/// What has no JSON, goes on until it is told to stop, or needs what is not here: other tests have
/// these.
const ELSEWHERE: [&str; 7] = [
    "serve",
    "demo",
    "listen",
    "dead-letters discard",
    "secrets rotate",
    "verify",
    "completions",
];

/// All commands that have none below them, in the order of the help.
fn commands(command: &Command, name: &str, found: &mut Vec<String>) {
    for below in command.get_subcommands() {
        commands(below, format!("{name} {}", below.get_name()).trim(), found);
    }
    if !command.has_subcommands() {
        found.push(name.to_owned());
    }
}

/// Runs the program with `--json`, beside the dispatcher that it asks, in an empty folder.
async fn carillon(api: &str, line: &[&str], input: &str) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let mut command = process::Command::new(env!("CARGO_BIN_EXE_carillon"));
    let kept = std::env::vars().filter(|(name, _)| !name.starts_with("CARILLON_"));
    command.current_dir(folder.path()).env_clear().envs(kept);
    // Nothing listens there.
    command.env("CARILLON_OPS__LISTEN", "127.0.0.1:1");
    command.args(line).args(["--json", "--api", api]);
    run(command, input.to_owned()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_can_read_every_command() {
    let hooks = Hooks::start().await;
    let dispatcher = Dispatcher::start().await;
    let api = &dispatcher.api;
    let made = api.subscribe(&hooks.url("all"), json!({})).await;
    let spare = api.subscribe(&hooks.url("spare"), json!({})).await;
    api.publish(&event("e1")).await;
    hooks.arrived("all", 1).await;
    let path = format!("/v1/attempts?subscription={}", made.id);
    let attempts = api.items_when(&path, 1).await;
    let delivery = attempts[0]["delivery_id"].as_str().unwrap();
    let event = event("e2").to_string();
    let new = [
        "subscriptions",
        "create",
        "--tenant",
        "acme",
        "--url",
        "https://a.example/",
    ];
    let mut left = Vec::new();
    commands(&carillon::cli::Cli::command(), "", &mut left);
    for (line, input) in [
        (&["subscriptions", "list"][..], ""),
        (&["subscriptions", "get", &made.id], ""),
        (&new, ""),
        (&["subscriptions", "apply", "-f", "-"], "[]"),
        (&["subscriptions", "apply", "-f", "-", "--dry-run"], "[]"),
        (
            &["subscriptions", "update", &made.id, "--timeout", "5s"],
            "",
        ),
        (&["subscriptions", "test", &made.id], ""),
        (&["subscriptions", "rotate-secret", &made.id], ""),
        (&["subscriptions", "delete", &spare.id], ""),
        (&["attempts", "list"], ""),
        (&["deliveries", "show", delivery], ""),
        (&["deliveries", "redeliver", delivery], ""),
        (&["dead-letters", "list"], ""),
        (&["dead-letters", "redrive", "--dry-run"], ""),
        (&["quarantine", "list"], ""),
        (&["quarantine", "requeue", "--all"], ""),
        (&["tokens", "create", "acme"], ""),
        (&["explain"], &event),
        (&["publish"], &event),
        (&["config", "check"], ""),
        (&["config", "print"], ""),
        (&["config", "reference"], ""),
        (&["init"], ""),
        (&["doctor"], ""),
        (&["openapi"], ""),
        (&["metrics"], ""),
    ] {
        let said = line.join(" ") + " ";
        left.retain(|command| !said.starts_with(&format!("{command} ")));
        let (code, out, err) = carillon(api.base(), line, input).await;
        assert_eq!(code, 0, "{line:?}: {out}{err}");
        let read: Result<Value, _> = serde_json::from_str(&out);
        assert!(read.is_ok_and(|value| value.is_object()), "{line:?}: {out}");
    }
    let left: Vec<&str> = left.iter().map(String::as_str).collect();
    assert_eq!(left, ELSEWHERE, "each command has a line here, or there");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_prints_no_json_says_so() {
    for line in [&["completions", "bash"][..], &["demo"]] {
        let (code, out, err) = carillon("http://127.0.0.1:1", line, "").await;
        assert_eq!((code, out.as_str()), (2, ""), "{line:?}");
        assert!(err.contains("has no --json"), "{err}");
    }
    // A failure leaves standard output to whoever reads JSON.
    let (code, out, err) = carillon("http://127.0.0.1:1", &["attempts", "list"], "").await;
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("carillon serve"), "{err}");
    let invalid = ["config", "check", "--config", "/nonexistent.toml"];
    let (code, out, err) = carillon("http://127.0.0.1:1", &invalid, "").await;
    assert_eq!((code, err.as_str()), (1, ""));
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(found["valid"], false);
    assert!(
        found["faults"][0]
            .as_str()
            .unwrap()
            .contains("/nonexistent.toml"),
        "{out}"
    );
}
