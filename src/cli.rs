//! The command line: what can be typed, and how a command ends.
//!
//! One file per command below `cli/`. Client commands speak to a running Carillon
//! through its HTTP API alone and have `run(args, &Globals)`; `init`, `serve`, `demo`,
//! `openapi` and `config` are only declared here, since they need what the composition root knows.
//! Exit codes: 0 done, 1 failed, 2 wrong usage.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use secrecy::SecretString;

pub mod args;
#[cfg(test)]
mod asked;
pub mod attempts;
pub mod client;
pub mod completions;
pub mod config;
pub mod dead_letters;
pub mod deliveries;
pub mod demo;
pub mod doctor;
pub mod each;
pub mod explain;
pub mod init;
pub mod listen;
pub mod metrics;
pub mod openapi;
pub mod output;
pub mod publish;
pub mod quarantine;
pub mod receiver;
pub mod secrets;
pub mod serve;
pub mod steps;
pub mod subscriptions;
pub mod tokens;
pub mod verify;

/// Where the API is looked for when nobody says otherwise.
pub const API_DEFAULT: &str = "http://127.0.0.1:8080";

const HELP: &str = "\
{about-with-newline}
{usage-heading} {usage}

Run Carillon:
  init           Mark an empty Redis as Carillon's
  serve          Run the dispatcher
  demo           See everything at work on this machine
  config         Check, print or explain the configuration
  doctor         Can it reach what it needs, and is it set up safely

Work with a running Carillon:
  publish        Publish events from a file or standard input
  subscriptions  Who wants which events, and where they go
  attempts       What was sent, and what came back
  deliveries     What became of what was sent; send it once more
  dead-letters   What was given up; send it again, or discard it
  explain        Which subscriptions want an event, and why not the others
  quarantine     What was not understood; have it taken again
  secrets        Encrypt the signing secrets under another key
  tokens         Make tokens for a tenant

Build a client or a receiver:
  openapi        Print the description of the HTTP API (OpenAPI 3.1)
  metrics        Print the reference of all metrics
  listen         Receive webhooks, check their signatures, print them
  verify         Check the signatures of a captured request

Shell:
  completions    Print a completion script
  help           Print help for a command

{options}{after-help}";

const EXAMPLES: &str = "\
Examples:
  carillon demo
  carillon listen --secret whsec_…
  carillon subscriptions create --tenant acme --url https://example.com/hook
  carillon publish events.jsonl
  carillon attempts list --outcome failed --since 1h
  carillon dead-letters redrive --subscription sub_… --dry-run";

/// Carillon: security events in, signed webhooks out.
#[derive(Debug, Parser)]
#[command(name = "carillon", version, propagate_version = true)]
#[command(help_template = HELP, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Print one JSON document (or one per line, where output goes on) for programs
    #[arg(long, global = true)]
    pub json: bool,

    /// The API of the running Carillon that client commands speak to
    #[arg(long, global = true, value_name = "URL")]
    #[arg(env = "CARILLON_API", hide_env_values = true, default_value = API_DEFAULT)]
    pub api: String,

    /// The admin token or a tenant's token for the API
    #[arg(long, global = true, value_name = "TOKEN")]
    #[arg(env = "CARILLON_TOKEN", hide_env_values = true)]
    pub token: Option<SecretString>,

    /// The configuration file [default: carillon.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    #[arg(env = "CARILLON_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mark an empty Redis as Carillon's
    ///
    /// Carillon does not take an empty Redis for one without subscriptions: it may be the wrong
    /// one, or have lost what it had. Until it holds Carillon's mark, events wait. This command
    /// makes the mark, once, for a new installation; writing the first subscription does too.
    /// It reads the configuration and speaks to Redis, not to the API. Embedded there is nothing
    /// to mark.
    Init(init::Args),
    /// Run the dispatcher
    ///
    /// Reads the configuration (see `carillon config reference`) and runs until it is told to
    /// stop (Ctrl-C, SIGTERM); then it finishes what it has begun, for at most `shutdown.grace`.
    /// A second signal stops it at once. The log goes to standard error: text on a terminal, else
    /// JSON; RUST_LOG chooses what is logged.
    Serve(serve::Args),
    /// See everything at work on this machine, without any server
    Demo(demo::Args),
    /// Print the description of the HTTP API (OpenAPI 3.1)
    ///
    /// The same document as a running Carillon answers at /openapi.json. It needs none.
    Openapi(openapi::Args),
    /// Print the reference of all metrics
    ///
    /// What a running Carillon tells Prometheus at /metrics of its operations listener. It needs none.
    Metrics(metrics::Args),
    /// Receive webhooks, check their signatures, print them
    Listen(listen::Args),
    /// Publish events from a file or standard input
    Publish(publish::Args),
    /// Who wants which events, and where they go
    #[command(visible_alias = "subs")]
    Subscriptions(subscriptions::Args),
    /// What was sent, and what came back
    Attempts(attempts::Args),
    /// What became of what was sent; send it once more
    Deliveries(deliveries::Args),
    /// Which subscriptions want an event, and which rule of the others says no
    Explain(explain::Args),
    /// What was given up; send it again, or discard it
    DeadLetters(dead_letters::Args),
    /// What was not understood; have it taken again
    Quarantine(quarantine::Args),
    /// Encrypt the signing secrets under another key
    Secrets(secrets::Args),
    /// Make tokens for a tenant
    Tokens(tokens::Args),
    /// Check the signatures of a captured request
    Verify(verify::Args),
    /// Check, print or explain the configuration
    Config(config::Args),
    /// Can it reach what it needs, and is it set up safely
    ///
    /// Reads the configuration as `serve` does and looks at what it names: the SQLite file, or
    /// RabbitMQ and Redis; whether the keys read the signing secrets that are stored; names and
    /// certificates; clocks; and at the running Carillon, if there is one, which is not disturbed.
    ///
    /// Nothing that is there is changed. For a moment there is a file without a name in the folder of
    /// the SQLite file, to see whether it can be written; and RabbitMQ is sent one empty message to a
    /// queue that is not there, as it tells only those who publish that it is short of memory or disk.
    Doctor(doctor::Args),
    /// Print a completion script
    Completions(completions::Args),
}

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// What was typed cannot be meant; exit code 2.
    #[error("{0}")]
    Usage(String),
    /// It was tried and failed; exit code 1.
    #[error("{0}")]
    Failed(String),
    /// The API said no; exit code 1.
    #[error("{0}")]
    Api(#[from] client::ApiError),
    /// It failed, and the command has printed how; exit code 1.
    #[error("failed")]
    Reported,
    /// Whoever read the output has stopped reading (`| head`); exit code 0.
    #[error("the output was closed")]
    OutputClosed,
}

impl CliError {
    /// What the process exits with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Failed(_) | Self::Api(_) | Self::Reported => 1,
            Self::OutputClosed => 0,
        }
    }

    /// What is still to be said to the user.
    pub fn message(&self) -> Option<String> {
        match self {
            Self::Reported | Self::OutputClosed => None,
            other => Some(other.to_string()),
        }
    }

    /// A failure to read or write `what`.
    pub fn io(what: &str, error: &std::io::Error) -> Self {
        Self::Failed(format!("{what}: {error}"))
    }
}

/// That `command` prints what is no JSON.
pub fn no_json(command: &str) -> CliError {
    CliError::Usage(format!("`carillon {command}` has no --json: leave it out"))
}

/// Says on standard error what went wrong, and turns it into the exit code.
pub fn finish(result: Result<(), CliError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(message) = error.message() {
                output::note(&format!("error: {message}"));
            }
            ExitCode::from(error.exit_code())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_declaration_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_overview_names_every_command_once() {
        for command in Cli::command().get_subcommands() {
            let start = format!("\n  {} ", command.get_name());
            assert_eq!(HELP.matches(&start).count(), 1, "{}", command.get_name());
        }
    }

    #[test]
    fn everything_that_can_be_typed_is_explained() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {arg}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn what_takes_a_paragraph_to_explain_has_it() {
        let root = Cli::command();
        for name in ["init", "serve", "doctor"] {
            let command = root.find_subcommand(name).unwrap();
            let long = command.get_long_about().unwrap().to_string();
            assert!(long.lines().count() > 2, "{name}: {long}");
        }
    }

    #[test]
    fn global_options_may_stand_behind_the_command() {
        let line = [
            "carillon", "attempts", "list", "--json", "--api", "http://x",
        ];
        let cli = Cli::try_parse_from(line).unwrap();
        assert!(cli.globals.json);
        assert_eq!(cli.globals.api, "http://x");
    }

    #[test]
    fn a_token_is_not_shown() {
        let line = ["carillon", "--token", "hunter2", "attempts", "list"];
        let cli = Cli::try_parse_from(line).unwrap();
        assert!(!format!("{cli:?}").contains("hunter2"));
    }
}
