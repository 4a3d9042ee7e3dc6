//! `carillon config`: its arguments. The composition root runs it.

use clap::Subcommand;

/// Check, print or explain the configuration
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon config check --config /etc/carillon.toml
  carillon config reference          what every key means, as Markdown")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Action {
    /// Say whether the configuration is valid, and if not, what to change
    Check,
    /// Print the configuration in effect (file, environment, defaults), secrets hidden
    Print,
    /// Print every key with its default and what it does
    Reference,
}
