//! `carillon serve`: its arguments. The composition root runs it.

/// Run the dispatcher; `Command` has the rest of its help
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon serve                               embedded: one process, one SQLite file
  carillon serve --config /etc/carillon.toml
  CARILLON_EGRESS__ALLOW='[\"127.0.0.1\"]' carillon serve     to deliver to this machine")]
pub struct Args {}
