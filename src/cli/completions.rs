//! `carillon completions`: scripts that teach a shell to complete the command line.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, CliError, Globals, output};

/// Print a completion script
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon completions bash > ~/.local/share/bash-completion/completions/carillon
  carillon completions zsh  > \"${fpath[1]}/_carillon\"
  carillon completions fish > ~/.config/fish/completions/carillon.fish")]
pub struct Args {
    /// The shell
    pub shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// When standard output cannot be written; [`CliError::Usage`] with `--json`.
pub async fn run(args: Args, globals: &Globals) -> Result<(), CliError> {
    if globals.json {
        return Err(super::no_json("completions"));
    }
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "carillon", &mut script);
    output::write(&script)
}
