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
