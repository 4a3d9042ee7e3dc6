//! Where log lines go: standard error, as text for people or as JSON for programs.
//!
//! *Invariant: no log line holds a secret, whatever `RUST_LOG` asks for.*

use std::io::IsTerminal as _;

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// Text on a terminal, else JSON.
    pub fn for_stderr() -> Self {
        if std::io::stderr().is_terminal() {
            Self::Text
        } else {
            Self::Json
        }
    }
}

/// Starts logging. `RUST_LOG` chooses what is logged; without it, `default_filter` does.
///
/// A second call changes nothing.
pub fn start(format: LogFormat, default_filter: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| default_filter.into());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Another subscriber is there already only in tests.
    let _ = match format {
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
            .finish()
            .with(filter_fn(is_harmless))
            .try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .finish()
            .with(filter_fn(is_harmless))
            .try_init(),
    };
}

/// At `trace`, lapin writes down each frame, and with the one that logs in the password.
fn is_harmless(metadata: &Metadata<'_>) -> bool {
    !metadata.target().starts_with("lapin") || *metadata.level() <= Level::INFO
}
