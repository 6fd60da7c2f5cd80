//! What a command prints: results on stdout, as text or JSON; notes, progress and errors on stderr.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use serde::Serialize;
use tracing_subscriber::filter::LevelFilter;

use crate::args::{Global, When};
use crate::failure::{Failure, Result};
use crate::progress::Progress;

/// Where and how a command prints.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    global: Global,
}

impl Output {
    pub fn new(global: &Global) -> Self {
        Self { global: *global }
    }

    /// Sends the engine's own log to stderr: warnings, or more if asked.
    pub fn log(&self) {
        let level = match (self.global.quiet, self.global.verbose) {
            (true, _) => LevelFilter::ERROR,
            (false, 0) => LevelFilter::WARN,
            (false, 1) => LevelFilter::INFO,
            (false, _) => LevelFilter::TRACE,
        };
        let ansi = match self.global.color {
            When::Auto => {
                io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
            }
            When::Always => true,
            When::Never => false,
        };
        tracing_subscriber::fmt()
            .with_writer(io::stderr)
            .with_ansi(ansi)
            .with_max_level(level)
            .without_time()
            .with_target(false)
            .init();
    }

    /// Whether results are printed as JSON.
    pub fn is_json(&self) -> bool {
        self.global.json
    }

    /// Prints one result as JSON, or as text.
    pub fn result<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> Result {
        let text = if self.global.json { json(value)? } else { text() };
        self.write(|out| writeln!(out, "{}", text.trim_end_matches('\n')))
    }

    /// Writes to stdout, through a buffer that is flushed at the end.
    #[expect(clippy::unused_self, reason = "stdout is that of the output")]
    pub fn write(&self, write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> Result {
        let mut out = io::BufWriter::new(anstream::AutoStream::auto(io::stdout().lock()));
        write(&mut out).and_then(|()| out.flush()).map_err(Failure::stdout)
    }

    /// Writes to stdout as [`Output::write`] does, by something that can fail for other reasons too.
    #[expect(clippy::unused_self, reason = "stdout is that of the output")]
    pub fn stream(&self, write: impl FnOnce(&mut dyn io::Write) -> Result) -> Result {
        let mut out = io::BufWriter::new(anstream::AutoStream::auto(io::stdout().lock()));
        write(&mut out)?;
        out.flush().map_err(Failure::stdout)
    }

    /// Writes a value as a line of JSON.
    #[expect(clippy::unused_self, reason = "stdout is that of the output")]
    pub fn line<T: Serialize>(&self, out: &mut dyn io::Write, value: &T) -> Result {
        writeln!(out, "{}", json(value)?).map_err(Failure::stdout)
    }

    /// Prints a note on stderr, for people.
    pub fn note(&self, note: &str) {
        if !self.global.quiet && !self.global.json {
            anstream::eprintln!("{note}");
        }
    }

    /// The progress of a piece of work of `total` units.
    pub fn progress(&self, what: &'static str, unit: &'static str, total: Option<u64>) -> Progress {
        let terminal = io::stderr().is_terminal();
        match self.global.progress {
            // What is on stderr then is one error in JSON, or nothing.
            _ if self.global.quiet || self.global.json => Progress::none(),
            When::Never => Progress::none(),
            When::Auto | When::Always if terminal => Progress::bar(what, unit, total),
            When::Auto | When::Always => Progress::lines(what, unit),
        }
    }

    /// Prints an error, and says how the process ends.
    pub fn fail(&self, failure: &Failure) -> ExitCode {
        if failure.is_closed_pipe() {
            // As `head` wants it.
            return ExitCode::SUCCESS;
        }
        let code = failure.code();
        let message = failure.message();
        if message.is_empty() {
        } else if self.global.json {
            let (kind, advice) = (failure.kind(), failure.advice());
            let error = serde_json::json!({"error": {"kind": kind, "code": code, "message": message, "advice": advice}});
            anstream::eprintln!("{error}");
        } else {
            let style = anstyle::AnsiColor::Red.on_default().bold();
            anstream::eprintln!("{style}error:{style:#} {message}");
            if let Some(advice) = failure.advice() {
                anstream::eprintln!("       {advice}");
            }
        }
        ExitCode::from(code)
    }
}

fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| Failure::Io { what: "write JSON".into(), source: io::Error::other(error) })
}
