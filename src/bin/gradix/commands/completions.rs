//! `gradix completions`

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::{Failure, Result};
use crate::output::Output;

/// Print the completions of a shell
///
/// Prints a script that completes commands and options. Where it goes is the shell's choice.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix completions bash > ~/.local/share/bash-completion/completions/gradix
    gradix completions zsh > ~/.zfunc/_gradix
    gradix completions fish > ~/.config/fish/completions/gradix.fish")]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub fn run(&self, output: &Output) -> Result {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "gradix", &mut script);
        output.stream(|out| out.write_all(&script).map_err(Failure::stdout))
    }
}
