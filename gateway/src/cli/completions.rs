//! `streamgate completions`.

use std::io::Write as _;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, Failure};

/// Options of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamgate completions bash >~/.local/share/bash-completion/completions/streamgate
  streamgate completions zsh >\"${fpath[1]}/_streamgate\"
  streamgate completions fish >~/.config/fish/completions/streamgate.fish")]
pub struct CompletionsArgs {
    /// For which shell
    pub shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    // First into memory: a closed output must not be a panic.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "streamgate", &mut script);
    let mut out = std::io::stdout().lock();
    out.write_all(&script)?;
    Ok(out.flush()?)
}
