//! `carillon demo`: its arguments. The composition root runs it.

/// See everything at work on this machine, without any server
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon demo
  carillon demo --keep     goes on serving, to look around")]
pub struct Args {
    /// Keep it running afterwards, until Ctrl-C
    #[arg(long)]
    pub keep: bool,
}
