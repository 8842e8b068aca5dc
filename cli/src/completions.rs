//! `fxn completions`: what a shell needs to complete commands and options.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::output::write_out;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  fxn completions bash > ~/.local/share/bash-completion/completions/fxn\n  fxn completions zsh > ~/.zfunc/_fxn          with fpath+=~/.zfunc before compinit in ~/.zshrc\n  fxn completions fish > ~/.config/fish/completions/fxn.fish\n  fxn completions elvish >> ~/.config/elvish/rc.elv\n  fxn completions powershell >> $PROFILE"
)]
pub(crate) struct Completions {
    /// Which shell
    shell: Shell,
}

pub(crate) fn print(completions: &Completions) -> anyhow::Result<()> {
    let mut script = vec![];
    clap_complete::generate(completions.shell, &mut crate::Cli::command(), "fxn", &mut script);
    write_out(&script)
}
