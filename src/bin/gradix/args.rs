//! The command line: the commands, and the options that all of them have.

use clap::{Args, Parser, ValueEnum};

use crate::commands::Command;

/// A gradient index: append compressed training gradients, and rank them by their influence on an output.
#[derive(Debug, Parser)]
#[command(name = "gradix", version, propagate_version = true, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command has.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// Print results, and errors, as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Print neither progress nor notes on stderr
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Say what the engine does, on stderr; twice: in detail
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Use this many threads; all cores, if not given
    #[arg(long, global = true, value_name = "NUMBER")]
    pub threads: Option<std::num::NonZero<usize>>,
    /// Show progress: as bars on a terminal, as a line now and then elsewhere
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub progress: When,
    /// Use colours; NO_COLOR turns them off too
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: When,
}

/// When something is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal
    Auto,
    Always,
    Never,
}

impl When {
    /// Makes this the choice of colours of all that is printed.
    pub fn write_global(self) {
        match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  `verify` found damage
    2  the command line is wrong
    3  an input is wrong: a value, an id, a spec or a width that does not fit
    4  something that was named does not exist
    5  something that was to be made exists already
    6  another writer has the index: try again later
    7  stored bytes are damaged
    8  the file system or the system failed
    9  not supported by this version, this machine or this index
   10  not possible in this state: a generation is gone, a commit is full
  130  interrupted; what was committed before is kept";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// The words of a command line up to what the shell does with its output, quotes taken off.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, false);
        for letter in line.chars() {
            match letter {
                '\'' => {
                    quote = !quote;
                    word.get_or_insert_default();
                }
                '|' | '>' | '&' | ';' if !quote => break,
                ' ' if !quote => words.extend(word.take()),
                letter => word.get_or_insert_default().push(letter),
            }
        }
        words.extend(word);
        words
    }

    /// Parses the examples in the help of a command and of those below it; returns how many there are.
    fn parse_examples(command: &clap::Command) -> usize {
        let mut parsed = 0;
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines().map(str::trim_start) {
            let Some(line) = line
                .strip_prefix("make-vectors | ")
                .or(Some(line))
                .filter(|line| line.starts_with("gradix "))
            else {
                continue;
            };
            if let Err(error) = Cli::command().try_get_matches_from(words(line)) {
                panic!("{line}\n{error}");
            }
            parsed += 1;
        }
        let has_commands = command.has_subcommands();
        assert!(has_commands || parsed > 0, "the help of {} has no example", command.get_name());
        parsed + command.get_subcommands().map(parse_examples).sum::<usize>()
    }

    /// Catches an example in the help that names an option which is gone, and a command without any.
    #[test]
    fn examples_in_help_parse() {
        let parsed: usize = Cli::command().get_subcommands().map(parse_examples).sum();
        assert!(parsed > 30, "only {parsed} examples");
    }

    /// Catches options that contradict each other, as clap finds them.
    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
