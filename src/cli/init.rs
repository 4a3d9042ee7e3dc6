//! `carillon init`: its arguments. The composition root runs it.

/// Mark an empty Redis as Carillon's
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon init --config /etc/carillon.toml

After a loss, do not mark: declare again what there was, which marks too:
  carillon subscriptions apply -f subs.json")]
pub struct Args {}
