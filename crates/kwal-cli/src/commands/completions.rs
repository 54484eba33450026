//! `kwal completions`: what shells need to complete the command line.

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use super::Session;
use crate::{
    cli::Cli,
    exit::{Exit, Failure},
};

/// Prints a script that completes the command line in a shell
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  kwal completions bash > ~/.local/share/bash-completion/completions/kwal
  kwal completions zsh > \"${fpath[1]}/_kwal\"
  kwal completions fish > ~/.config/fish/completions/kwal.fish")]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(session: &mut Session, args: Args) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "kwal", &mut script);
    session.out.bytes(&script)?;
    Ok(Exit::Success)
}
