//! `gradix`, the program: the day of those who append to gradient indexes and ask them, from a shell.
//!
//! - What can be said on a command line? `args`, and the struct at the top of each file in `commands`.
//! - What does a command do? Its file in `commands`, over the public API of the library.
//! - What does a person or a pipe see of it? `output` (results, on stdout), `progress` (on stderr), `failure` (errors, and
//!   the exit code).
//! - What is asked of an index? `queries` (files and stored rows), `scoring` (how rows are scored, and which).
//! - How are results written? `sheet` (a table for people, or records), `table`, `records`, `npy`; `id` and `units` write
//!   single values, `texts` finds those of examples.
//! - What does Ctrl-C do? `interrupt`.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod args;
mod commands;
mod failure;
mod id;
mod ingest;
mod inputs;
mod intake;
mod interrupt;
mod npy;
mod output;
mod progress;
mod queries;
mod record;
mod records;
mod schema;
mod scoring;
mod sheet;
mod table;
mod target;
mod texts;
mod units;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Global};
use failure::{Failure, Result};
use output::Output;

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.global.color.write_global();
    let output = Output::new(&cli.global);
    output.log();
    if let Err(failure) = use_threads(&cli.global) {
        return output.fail(&failure);
    }
    match commands::run(cli.command, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output.fail(&failure),
    }
}

/// Makes this the number of threads of all that the library does.
fn use_threads(global: &Global) -> Result {
    let Some(threads) = global.threads else { return Ok(()) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.get());
    pool.build_global()
        .map_err(|error| Failure::io(format!("start {threads} threads"))(std::io::Error::other(error)))
}
